package ws

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is an HTTP server that upgrades every request.
type house struct {
	*httptest.Server
	conns chan net.Conn
	errs  chan error
	clock *clock
}

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func serve(t testing.TB) *house {
	t.Helper()
	h := &house{conns: make(chan net.Conn, 100), errs: make(chan error, 100), clock: &clock{now: time.Now()}}
	up := NewUpgrader()
	up.now = h.clock.Now
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nc, err := up.Upgrade(w, r)
		if err != nil {
			h.errs <- err
			return
		}
		h.conns <- nc
	}))
	t.Cleanup(h.Close)
	return h
}

// pair connects a WebSocket client and returns its connection and the server's.
func (h *house) pair(t testing.TB) (*websocket.Conn, net.Conn) {
	t.Helper()
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, WriteBufferSize: 64, HandshakeTimeout: patience}
	c, res, err := d.Dial("ws"+strings.TrimPrefix(h.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return c, h.next(t, c)
}

// next returns the server's side of c; both end with the test and never wait forever.
func (h *house) next(t testing.TB, c io.Closer) net.Conn {
	t.Helper()
	select {
	case nc := <-h.conns:
		t.Cleanup(func() { _ = nc.Close(); _ = c.Close() })
		if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return nc
	case <-time.After(patience):
		t.Fatal("no connection was handed over")
		return nil
	}
}

// request is an upgrade's text; lines replace those of the same name, or are added.
func request(lines ...string) string {
	all := []string{
		"Host: x", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: mqtt",
	}
	for _, l := range lines {
		name, _, _ := strings.Cut(l, ":")
		all = slices.DeleteFunc(all, func(have string) bool { return strings.HasPrefix(have, name+":") && !slices.Contains(lines, have) })
		if !strings.HasSuffix(l, ": -") {
			all = append(all, l)
		}
	}
	return "GET /mqtt HTTP/1.1\r\n" + strings.Join(all, "\r\n") + "\r\n\r\n"
}

// dial opens a bare socket to the server.
func (h *house) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	u, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	tc, _ := nc.(*net.TCPConn)
	return tc
}

// bare upgrades a bare socket, on which any frame can be written.
func (h *house) bare(t testing.TB) (client, server net.Conn) {
	t.Helper()
	c := h.dial(t)
	if _, err := io.WriteString(c, request()); err != nil {
		t.Fatal(err)
	}
	head, one := make([]byte, 0, 512), make([]byte, 1)
	for !strings.HasSuffix(string(head), "\r\n\r\n") {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatal(err)
		}
		head = append(head, one[0])
	}
	return c, h.next(t, c)
}

// Operation codes of frames, and the bit that ends a message.
const (
	opMore, opText, opBinary, opClose, opPing, opPong = 0, 1, 2, 8, 9, 10

	fin = 0x80
)

// frame makes a client's frame, with a mask of zeros.
func frame(head byte, payload string) string {
	n := len(payload)
	b := []byte{head}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return string(b) + "\x00\x00\x00\x00" + payload
}

// closeCode reads the server's frames until the one that closes, and returns its code.
func closeCode(t testing.TB, c net.Conn) int {
	t.Helper()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal("no close frame:", err)
		}
		if head[1] > 125 {
			t.Fatalf("a frame with a length of %d", head[1])
		}
		body := make([]byte, head[1])
		if _, err := io.ReadFull(c, body); err != nil {
			t.Fatal(err)
		}
		if head[0] == fin|opClose {
			return int(binary.BigEndian.Uint16(body))
		}
	}
}

// readAll reads until an error, which it returns; io.EOF is nil.
func readAll(r io.Reader) (string, error) {
	b, err := io.ReadAll(r)
	return string(b), err
}

// wantEnd checks that reading ended for good with an error that want names.
func wantEnd(t testing.TB, nc net.Conn, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v, want %q", err, want)
	}
	for range 2000 { // the library panics after 1,000
		if _, again := nc.Read(make([]byte, 1)); !errors.Is(again, err) {
			t.Fatalf("the next read: %v, want %v", again, err)
		}
	}
}
