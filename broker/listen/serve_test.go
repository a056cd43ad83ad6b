package listen

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster"
)

func TestOpenRefusesWhatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"an unknown kind", Config{Kind: "udp"}},
		{"tls without certificates", Config{Kind: TLS}},
		{"certificates without tls", Config{Kind: TCP, Certs: &Certs{}}},
		{"a proxy on a unix socket", Config{Kind: Unix, Addr: "x", Proxy: []netip.Prefix{netip.MustParsePrefix("::/0")}}},
		{"no prefix", Config{Kind: TCP, Proxy: []netip.Prefix{{}}}},
		{"an IPv4 prefix inside IPv6", Config{Kind: TCP, Proxy: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}},
		{"a path of no bytes", Config{Kind: Unix}},
		{"a path of 104 bytes", Config{Kind: Unix, Addr: strings.Repeat("x", 104)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Open(t.Context(), c.cfg)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("error %v, want an Invalid one", err)
			}
		})
	}
}

func TestPlainTCPHandsOverTheSocketItself(t *testing.T) {
	r := open(t, Config{Kind: TCP})
	c := r.dial(t)
	g := r.next(t)
	if _, ok := g.Conn.(*net.TCPConn); !ok {
		t.Errorf("handle got a %T", g.Conn)
	}
	if g.info.Listener != TCP || g.info.Peer.String() != c.LocalAddr().String() {
		t.Errorf("info %+v", g.info)
	}
	say(t, c, "ping")
	hear(t, g, "ping")
	r.counts.wait(t, "accepted", 1)
}

func TestConnectionsGoOnAfterClose(t *testing.T) {
	r := open(t, Config{Kind: TCP})
	c := r.dial(t)
	g := r.next(t)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal("again:", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	say(t, c, "ping")
	hear(t, g, "ping")
	if nc, err := net.Dial("tcp", r.Addr().String()); err == nil {
		_ = nc.Close()
		t.Error("somebody still listens")
	}
}

func TestServeEndsHandshakesUnderWay(t *testing.T) {
	ca := newCA(t, "ca")
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})
	limits := NewLimits(LimitsConfig{})
	r := open(t, Config{Kind: TLS, Certs: certs, Limits: limits, Handshake: time.Hour})
	const n = 20
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = r.dial(t)
		say(t, conns[i], "\x16\x03\x01\x02\x00")
	}
	settle(t, func() bool { return r.wait.len() == n })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
			t.Fatalf("error %v, want the end", err)
		}
	}
	if open := limits.known[addr("127.0.0.1")].conns; open != 0 {
		t.Errorf("%d connections still count", open)
	}
	if len(r.counts.n) != 0 {
		t.Errorf("counted %v, want nothing: the server stopped", r.counts.n)
	}
}

// settle waits until ok, and lets others run meanwhile.
func settle(t *testing.T, ok func() bool) {
	t.Helper()
	limit, tick := time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not settle")
		}
	}
}

func (p *pending) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order.Len()
}

func TestTheOldestHandshakeGoesForANewOne(t *testing.T) {
	ca := newCA(t, "ca")
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})
	r := open(t, Config{Kind: TLS, Certs: certs, Handshake: time.Hour})
	r.wait.mu.Lock()
	r.wait.max = 3
	r.wait.mu.Unlock()
	var stalled []net.Conn
	for i := range 4 {
		stalled = append(stalled, r.dial(t))
		settle(t, func() bool { return r.wait.len() == min(i+1, 3) })
	}
	r.counts.wait(t, HandshakeDisplaced, 1)
	if n, err := stalled[0].Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes of the oldest, want the end", n)
	}
	c, err := r.dialTLS(t, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal("a healthy client:", err)
	}
	g := r.next(t)
	say(t, c, "ping")
	hear(t, g, "ping")
}

// failing is a net.Listener whose Accept fails a number of times, and then gives
// one connection.
type failing struct {
	fails  int
	times  []time.Time
	conn   net.Conn
	closed chan struct{}
}

func (f *failing) Accept() (net.Conn, error) {
	f.times = append(f.times, time.Now())
	if len(f.times) <= f.fails {
		return nil, errors.New("accept: too many open files")
	}
	if len(f.times) == f.fails+1 {
		return f.conn, nil
	}
	<-f.closed
	return nil, net.ErrClosed
}

func (f *failing) Close() error   { close(f.closed); return nil }
func (f *failing) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptErrorsAreWaitedOutWithADoublingPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		f := &failing{fails: 10, conn: near, closed: make(chan struct{})}
		c := &counts{n: map[string]int{}, ch: make(chan string, 100)}
		r := serve(t, newListener(f, Config{Kind: TCP, Hooks: c.hooks()}), c)
		g := <-r.conns
		_ = g.Close()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		want := 5 * time.Millisecond
		for i := range f.fails {
			if pause := f.times[i+1].Sub(f.times[i]); pause != want {
				t.Errorf("pause %d is %v, want %v", i+1, pause, want)
			}
			want = min(2*want, time.Second)
		}
		if n := c.get("accept"); n != f.fails {
			t.Errorf("%d accept errors were counted, want %d", n, f.fails)
		}
	})
}

func TestCloseInterruptsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &failing{fails: 1 << 30, closed: make(chan struct{})}
		c := &counts{n: map[string]int{}, ch: make(chan string, 100)}
		r := serve(t, newListener(f, Config{Kind: TCP, Hooks: c.hooks()}), c)
		for c.get("accept") < 12 { // the pause is 1 s by now
			<-c.ch
		}
		began := time.Now()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

func TestHalfOpenTLSClientsDoNotStopAHealthyOne(t *testing.T) {
	ca := newCA(t, "ca")
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})
	r := open(t, Config{Kind: TLS, Certs: certs, Handshakes: 4, Handshake: time.Hour})
	client := &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}
	hello := clientHello(t, client)
	for i := range 2000 {
		c := r.dial(t)
		switch i % 4 { // silent; part of a hello; a whole one, and no more (twice the number of turns, 250 times over)
		case 1:
			say(t, c, string(hello[:60]))
		case 2, 3:
			say(t, c, string(hello))
		}
	}
	began := time.Now()
	for range 20 {
		c, err := r.dialTLS(t, client)
		if err != nil {
			t.Fatal(err)
		}
		g := r.next(t)
		say(t, c, "ping")
		hear(t, g, "ping")
	}
	t.Logf("20 healthy handshakes beside 2,000 half-open took %v", time.Since(began))
	if n := r.wait.len(); n < 1900 {
		t.Errorf("%d are half-open, want the 2,000 still there", n)
	}
	if n := len(r.slots); n != 0 {
		t.Errorf("stalled clients hold %d turns", n)
	}
}

// clientHello returns the first flight of a client.
func clientHello(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- tls.Client(near, cfg).Handshake() }()
	buf := make([]byte, 16<<10)
	n, err := far.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	<-done // it fails, as it must
	_ = near.Close()
	return buf[:n]
}

func TestNoMoreHandshakesComputeThanAllowed(t *testing.T) {
	const clients, allowed = 12, 3
	ca := newCA(t, "ca")
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})
	var now atomic.Int32
	entered, leave := make(chan int32, clients), make(chan struct{})
	inner := certs.base.GetConfigForClient
	certs.base.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		entered <- now.Add(1)
		defer now.Add(-1)
		<-leave
		return inner(h)
	}
	r := open(t, Config{Kind: TLS, Certs: certs, Handshakes: allowed})
	errs := make(chan error, clients)
	for range clients {
		nc := r.dial(t)
		go func() {
			errs <- tls.Client(nc, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}).Handshake()
		}()
	}
	most := int32(0)
	for range allowed {
		most = max(most, <-entered)
	}
	settle(t, func() bool { return r.wait.len() == clients })
	close(leave)
	for range clients {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	for range clients - allowed {
		most = max(most, <-entered)
	}
	if most != allowed {
		t.Errorf("%d computed at once, want %d", most, allowed)
	}
}

func TestATurnThatDoesNotComeEndsInATimeout(t *testing.T) {
	ca := newCA(t, "ca")
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})
	limits := NewLimits(LimitsConfig{})
	r := open(t, Config{Kind: TLS, Certs: certs, Handshakes: 1, Handshake: 50 * time.Millisecond, Limits: limits})
	r.slots <- struct{}{}
	if _, err := r.dialTLS(t, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}); err == nil {
		t.Fatal("a handshake succeeded without a turn")
	}
	r.counts.wait(t, HandshakeTimeout, 1)
	<-r.slots
	if open := limits.known[addr("127.0.0.1")].conns; open != 0 {
		t.Errorf("%d connections still count", open)
	}
}

func TestHandshakeFailuresAreCountedByReason(t *testing.T) {
	ca := newCA(t, "ca")
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})
	for _, c := range []struct {
		name, want string
		act        func(t *testing.T, c net.Conn)
	}{
		{"no TLS at all", HandshakeTLS, func(t *testing.T, c net.Conn) { say(t, c, "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00") }},
		{"closed without a byte", HandshakeClosed, func(t *testing.T, c net.Conn) { _ = c.Close() }},
		{"closed within a record", HandshakeClosed, func(t *testing.T, c net.Conn) { say(t, c, "\x16\x03\x01\x02\x00xx"); _ = c.Close() }},
		{"silence", HandshakeTimeout, func(t *testing.T, c net.Conn) { _, _ = c.Read(make([]byte, 1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := open(t, Config{Kind: TLS, Certs: certs, Handshake: 300 * time.Millisecond})
			c.act(t, r.dial(t))
			r.counts.wait(t, c.want, 1)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			if n := len(r.counts.n); n != 1 {
				t.Errorf("counted %v, want %s alone", r.counts.n, c.want)
			}
		})
	}
	t.Run("a panic of ours ends that connection only", func(t *testing.T) {
		broken := load(t, CertsConfig{Pairs: certs.cfg.Pairs})
		broken.base.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if h.ServerName == "boom" {
				panic("boom")
			}
			return nil, nil
		}
		broken.base.Certificates = certs.now.Load().config.Certificates
		r := open(t, Config{Kind: TLS, Certs: broken, Handshakes: 1})
		if _, err := r.dialTLS(t, &tls.Config{RootCAs: ca.pool(), ServerName: "boom"}); err == nil {
			t.Fatal("the handshake succeeded")
		}
		r.counts.wait(t, HandshakePanic, 1)
		if _, err := r.dialTLS(t, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}); err != nil {
			t.Fatal("the next client:", err)
		}
	})
}

func TestARefusedClientReadsTheAlert(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	write(t, dir+"/ca", ca.pem)
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, dir, "localhost")}, ClientCA: dir + "/ca", ClientAuth: ClientRequire})
	r := open(t, Config{Kind: TLS, Certs: certs})
	c, err := r.dialTLS(t, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal("in TLS 1.3 the client's handshake is over before the server judges:", err)
	}
	say(t, c, strings.Repeat("bytes that nobody reads", 100))
	if _, err := io.ReadAll(c); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("error %v, want the alert: certificate required", err)
	}
}
