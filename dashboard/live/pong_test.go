package live_test

import (
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"muster/dashboard/live"
)

// quick hands out connections whose first ping is answered before its write returns.
type quick struct{ net.Listener }

func (l quick) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &quickConn{Conn: c, handled: make(chan struct{})}, err
}

type quickConn struct {
	net.Conn
	ping, end sync.Once
	ponged    bool // Read's alone
	handled   chan struct{}
}

func (c *quickConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if b[0] == 0x89 { // a ping (RFC 6455, section 11.8)
		c.ping.Do(func() { <-c.handled })
	}
	return n, err
}

func (c *quickConn) Read(b []byte) (int, error) {
	if c.ponged {
		c.end.Do(func() { close(c.handled) })
	}
	n, err := c.Conn.Read(b)
	c.ponged = c.ponged || n > 0 && b[0] == 0x8a
	return n, err
}

// CloseWrite has the peer see the end at once.
func (c *quickConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func TestAPongThatComesBeforeItsPingIsWrittenCountsForTheNext(t *testing.T) {
	const silence = 3 * time.Second
	s := open(t, newWorld(1), live.Config{SilenceTimeout: 25*time.Second + silence})
	s.http.Close()
	s.http = httptest.NewUnstartedServer(s.g)
	s.http.Listener = quick{s.http.Listener}
	s.http.Start()
	p := s.browser("ann")
	ended, pings := make(chan error, 1), make(chan struct{}, 2)
	answer := p.conn.PingHandler()
	p.conn.SetPingHandler(func(d string) error {
		pings <- struct{}{}
		if len(pings) == 2 {
			return nil // late
		}
		return answer(d)
	})
	go func() {
		_, _, err := p.conn.ReadMessage()
		ended <- err
	}()
	s.tick(126)
	begin := time.Now()
	<-time.After(silence / 2)
	s.tick(125)
	select {
	case err := <-ended:
		t.Fatalf("cut after %v: %v", time.Since(begin), err)
	case <-time.After(silence * 3 / 4):
	}
	if got := s.g.Stats().Connections; got != 1 || len(pings) != 2 {
		t.Fatalf("%d connections, %d pings", got, len(pings))
	}
	_ = p.conn.Close()
}
