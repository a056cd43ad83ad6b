package live_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"muster/dashboard/live"
)

// wrapping is a listener whose connections count what is read through them.
type wrapping struct {
	net.Listener
	reads atomic.Int64
}

func (l *wrapping) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wrapped{c, l}, nil
}

type wrapped struct {
	net.Conn
	of *wrapping
}

func (w *wrapped) Read(b []byte) (int, error) {
	w.of.reads.Add(1)
	return w.Conn.Read(b)
}

func (w *wrapped) Bare() net.Conn { return w.Conn }

// A socket reads from the connection itself: what the listener wrapped it in would be a frame on the stack of each that waits.
func TestASocketIsReadFromTheConnectionItself(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	s.http.Close()
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/live", s.g)
	s.http = httptest.NewUnstartedServer(mux)
	l := &wrapping{Listener: s.http.Listener}
	s.http.Listener = l
	s.http.Start()
	p := s.connect(s.browserHeader("anna"))
	before := l.reads.Load()
	p.send(`{"t":"hello","id":1}`)
	p.expect("welcome")
	for range 3 {
		p.sync()
	}
	if n := l.reads.Load(); before == 0 || n != before {
		t.Errorf("what wraps it was read %d times before the upgrade, and %d times in all", before, n)
	}
}
