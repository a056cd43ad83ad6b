package live_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"muster/dashboard/live"
)

// counted is a connection whose incoming bytes are counted.
type counted struct {
	net.Conn
	in *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

// inflater connects as a browser does, which offers to inflate, or as one that does not.
func (s *site) inflater(user string, offers bool) (*peer, *atomic.Int64) {
	s.t.Helper()
	in := new(atomic.Int64)
	d := websocket.Dialer{
		Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: waitLong, EnableCompression: offers,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			return counted{c, in}, err
		},
	}
	conn, res, err := d.Dial(s.url(), s.browserHeader(user))
	if err != nil {
		s.t.Fatalf("dial: %v", err)
	}
	_ = res.Body.Close()
	if got := strings.Contains(res.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate"); got != offers {
		s.t.Fatalf("deflate is agreed to: %v, offered: %v", got, offers)
	}
	p := &peer{t: s.t, s: s, conn: conn}
	p.send(`{"t":"hello","id":1}`)
	p.expect("welcome")
	return p, in
}

func TestManyRowsGoDeflatedToWhoInflates(t *testing.T) {
	s := open(t, newWorld(50), live.Config{})
	for i := range 50 {
		s.observe(deviceName(i), number("temperature", float64(i)))
	}
	thin, thinBytes := s.inflater("ann", true)
	wide, wideBytes := s.inflater("bob", false)
	for _, p := range []*peer{thin, wide} {
		p.send(`{"t":"sub","id":2,"ch":"devices"}`)
		p.expect("snapshot")
	}
	for i := range 50 {
		s.observe(deviceName(i), number("temperature", 100+float64(i)))
	}
	for _, p := range []*peer{thin, wide} {
		rows := 0
		for rows < 50 {
			for _, f := range p.news() {
				set, _ := f["set"].(map[string]any)
				rows += len(set)
			}
		}
		if rows != 50 {
			t.Errorf("%d rows came, want 50", rows)
		}
	}
	if a, b := thinBytes.Load(), wideBytes.Load(); a*2 > b {
		t.Errorf("deflated %d bytes came, plain %d", a, b)
	}
}

func TestWhatInflatesBeyondTheLimitIsRefused(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p, _ := s.inflater("ann", true)
	p.send(`{"t":"ping","id":2,"pad":"` + strings.Repeat(" ", 4<<20) + `"}`)
	if _, code := p.closed(); code != websocket.CloseMessageTooBig {
		t.Errorf("the code is %d", code)
	}
	if got := s.g.Stats().Panics; got != 0 {
		t.Errorf("%d panics", got)
	}
}

func TestWhatCannotBeInflatedEndsTheConnection(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p, _ := s.inflater("ann", true)
	// A final text frame that says it is deflated (RSV1), with a mask of zeros.
	frame := append([]byte{0xc1, 0x80 | 8, 0, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 8)...)
	if _, err := p.conn.NetConn().Write(frame); err != nil {
		t.Fatal(err)
	}
	if _, code := p.closed(); code != 4500 {
		t.Errorf("the code is %d", code)
	}
}
