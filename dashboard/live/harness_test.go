package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"muster"
	"muster/dashboard/live"
)

func TestMain(m *testing.M) {
	if os.Getenv(idleClientsEnv) != "" {
		os.Exit(idleClients()) //nolint:forbidigo // this is the other process of a benchmark
	}
	goleak.VerifyTestMain(m)
}

const waitLong = 20 * time.Second // a test that is going to fail waits so long

// tester is what testing.TB and *rapid.T share.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// site is a gateway behind a real HTTP server.
type site struct {
	t     tester
	w     *world
	g     *live.Gateway
	http  *httptest.Server
	ticks chan time.Time

	mu    sync.Mutex
	conns []*websocket.Conn // of all peers
}

func newSite(t tester, w *world, cfg live.Config) *site {
	t.Helper()
	s := &site{t: t, w: w, ticks: make(chan time.Time)}
	cfg.Version, cfg.MQTTPort, cfg.Ticks = "1.2.3", 1883, s.ticks
	deps := live.Deps{
		Auth: w, Fleet: w, Devices: w, System: w.said, Tasks: w.said, Events: w.said, Traffic: w.said.meter, Now: w.now,
		Log: slog.New(slog.DiscardHandler), Dots: w,
	}
	if w.post != nil {
		deps.Inbox, deps.Notes, deps.Item = postInbox{w.post}, w.post, w.post.item
	}
	if w.things != nil {
		deps.Things = w.things
	}
	if w.rollouts != nil {
		deps.Rollouts = w.rollouts
	}
	s.g = live.New(cfg, deps)
	if err := s.g.Start(context.Background()); err != nil {
		t.Fatalf("start: %v", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/live", s.g)
	s.http = httptest.NewServer(mux)
	return s
}

func open(t *testing.T, w *world, cfg live.Config) *site {
	t.Helper()
	s := newSite(t, w, cfg)
	t.Cleanup(s.close)
	return s
}

// close has who is there still go first: the gateway would wait seconds for their answers.
func (s *site) close() {
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close() // it may be closed
	}
	s.conns = nil
	s.mu.Unlock()
	s.stop()
}

// stop stops the server with its clients there.
func (s *site) stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitLong)
	defer cancel()
	if err := s.g.Stop(ctx); err != nil {
		s.t.Fatalf("stop: %v", err)
	}
	s.http.Close()
}

// tick gives the loop n ticks; when it returns all but the last are done.
func (s *site) tick(n int) {
	s.t.Helper()
	for range n {
		select {
		case s.ticks <- time.Time{}:
		case <-time.After(waitLong):
			s.t.Fatalf("the loop does not take a tick")
		}
	}
}

func (s *site) url() string { return "ws" + strings.TrimPrefix(s.http.URL, "http") + "/api/v1/live" }

func (s *site) observe(id muster.DeviceID, v muster.Value) { s.g.Observe(s.w.say(id, v)) }

// peer is a client: a browser when it has a cookie, a script when it has none.
type peer struct {
	t     tester
	s     *site
	conn  *websocket.Conn
	queue []map[string]any
	pings int64
	rates []float64 // hz told; not part of what sync returns
}

func (s *site) dial(header http.Header) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: waitLong, EnableCompression: true} // as browsers do
	return d.Dial(s.url(), header)
}

func (s *site) browserHeader(user string) http.Header {
	return http.Header{"Origin": {s.http.URL}, "Cookie": {"session=" + user}}
}

func (s *site) connect(header http.Header) *peer {
	s.t.Helper()
	conn, res, err := s.dial(header)
	if err != nil {
		s.t.Fatalf("dial: %v", err)
	}
	_ = res.Body.Close()
	if got := conn.Subprotocol(); got != live.Subprotocol {
		s.t.Fatalf("subprotocol is %q", got)
	}
	s.mu.Lock()
	s.conns = append(s.conns, conn)
	s.mu.Unlock()
	return &peer{t: s.t, s: s, conn: conn}
}

// browser connects and says hello.
func (s *site) browser(user string) *peer {
	s.t.Helper()
	p := s.connect(s.browserHeader(user))
	p.send(`{"t":"hello","id":1}`)
	p.expect("welcome")
	return p
}

func (p *peer) send(frame string) {
	p.t.Helper()
	if err := p.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// read returns the objects of the next message.
func (p *peer) read() ([]map[string]any, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(waitLong)); err != nil {
		return nil, err
	}
	kind, data, err := p.conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	if kind == websocket.BinaryMessage {
		return []map[string]any{{"t": "binary", "ch": "dots", "data": data}}, nil
	}
	var many []map[string]any
	if data[0] == '[' {
		err = json.Unmarshal(data, &many)
		return many, err
	}
	one := map[string]any{}
	err = json.Unmarshal(data, &one)
	return append(many, one), err
}

func (p *peer) next() map[string]any {
	p.t.Helper()
	for len(p.queue) == 0 {
		frames, err := p.read()
		if err != nil {
			p.t.Fatalf("read: %v", err)
		}
		p.queue = frames
	}
	f := p.queue[0]
	p.queue = p.queue[1:]
	return f
}

func (p *peer) expect(kind string) map[string]any {
	p.t.Helper()
	f := p.next()
	if f["t"] != kind {
		p.t.Fatalf("got %v, want a %s", f, kind)
	}
	return f
}

// sync returns all frames up to the answer of a ping sent now.
func (p *peer) sync() []map[string]any {
	p.t.Helper()
	p.s.w.advance(time.Second) // pays for the ping
	p.pings++
	p.send(fmt.Sprintf(`{"t":"ping","id":%d,"ts":%d}`, 1_000_000+p.pings, p.pings))
	var before []map[string]any
	for answered := false; !answered || len(p.queue) > 0; { // what is in the same message belongs to it
		switch f := p.next(); {
		case f["t"] == "pong" && f["ts"] == float64(p.pings):
			answered = true
		case f["t"] == "rate": // ticks come faster than real ones: a step is no fault
			p.rates = append(p.rates, f["hz"].(float64))
		default:
			before = append(before, f)
		}
	}
	return before
}

// news ticks until something comes, and returns it. More than one round is needed
// only when a flush was still ending at its tick.
func (p *peer) news() []map[string]any {
	p.t.Helper()
	for range 60 {
		p.s.tick(1)
		if got := p.sync(); len(got) > 0 {
			return got
		}
	}
	p.t.Fatalf("nothing comes; %+v", p.s.g.Stats())
	return nil
}

// closed reads until the server has closed, and returns the last frame and the
// close code.
func (p *peer) closed() (last map[string]any, code int) {
	p.t.Helper()
	for {
		frames, err := p.read()
		if err == nil {
			last = frames[len(frames)-1]
			continue
		}
		_ = p.conn.Close()
		if ce, ok := err.(*websocket.CloseError); ok { //nolint:errorlint // gorilla returns it bare
			return last, ce.Code
		}
		p.t.Fatalf("closed without a code: %v", err)
	}
}
