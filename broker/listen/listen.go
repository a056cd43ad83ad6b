package listen

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"muster"
)

// Kind says what a listener speaks below MQTT.
type Kind string

// The kinds of listener.
const (
	TCP  Kind = "tcp"
	TLS  Kind = "tls" // over TCP
	Unix Kind = "unix"
)

// Defaults and limits of a listener.
const (
	defaultHandshake  = 10 * time.Second
	defaultHandshakes = 64
	maxPending        = 8192 // connections in the PROXY header or the TLS handshake
)

// keepAlive finds peers that went away without a word: 60 s idle, then four probes
// 15 s apart.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}
}

// Config says what to listen on and whom to let through.
type Config struct {
	Kind Kind
	// Addr is host:port, or for Unix a path of at most 103 bytes. The socket file
	// gets mode 0660 before anybody can connect; a stale one is replaced, one that
	// somebody listens on is a Conflict. Close removes it.
	Addr  string
	Certs *Certs // for TLS, and only there
	// Proxy lists the peers whose connections begin with a header of the PROXY
	// protocol, version 1 or 2 (HAProxy's proxy-protocol.txt). They must send one;
	// from others it is not interpreted. Not for Unix, whose peers have no address.
	Proxy      []netip.Prefix
	Handshake  time.Duration // for the PROXY header and the TLS handshake together; 0 means 10 s
	Handshakes int           // TLS handshakes computing at once; 0 means 64; more wait in turn, within Handshake
	Limits     *Limits       // shared by all listeners; nil limits nothing; not applied to Unix
	Logger     *slog.Logger  // nil discards
	Hooks      Hooks
}

// Hooks count what happens. Each may be nil. They are called from many goroutines
// and must not block.
type Hooks struct {
	Accepted       func(Kind)                   // a connection was handed over
	Refused        func(k Kind, reason Refusal) // a limit refused a connection
	AcceptError    func(Kind)                   // accept failed, and is tried again
	HandshakeError func(k Kind, reason string)  // the PROXY header or TLS failed; see the Handshake constants
}

// Reasons of Hooks.HandshakeError.
const (
	HandshakeProxy     = "proxy"     // the PROXY header is missing or malformed
	HandshakeTLS       = "tls"       // the TLS handshake failed
	HandshakeTimeout   = "timeout"   // Config.Handshake passed
	HandshakeClosed    = "closed"    // the peer went away
	HandshakeDisplaced = "displaced" // 8,192 newer connections were in their handshakes too
	HandshakePanic     = "panic"     // a fault of ours
)

// Info says where a connection comes from.
type Info struct {
	Listener Kind
	// Peer is the client's address, from the PROXY header where that is trusted and
	// names one. IPv4 is never mapped into IPv6. Zero for Unix.
	Peer         netip.AddrPort
	ServerName   string              // the SNI, "" without TLS
	Certificates []*x509.Certificate // the client's chain, leaf first; verified or not as Certs says
	Resumed      bool                // by a session ticket; Certificates are those of the first handshake
}

// Listener accepts connections. The zero Listener is not usable.
type Listener struct {
	cfg   Config
	ln    net.Listener
	addr  net.Addr
	slots chan struct{} // holds one token for each TLS handshake that computes
	wait  pending
	done  chan struct{} // closed by Close

	once      sync.Once
	remove    func() error // the unix socket's file; nil for others
	closed    error
	warnProxy sync.Once
}

// Open begins to listen. Errors are Invalid for a configuration that cannot be,
// Conflict for a unix socket that is in use, and otherwise those of the system.
func Open(ctx context.Context, cfg Config) (*Listener, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	if cfg.Kind == Unix {
		return openUnix(ctx, cfg)
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	lc.SetMultipathTCP(false) // devices do not speak it, and its sockets cost more
	ln, err := lc.Listen(ctx, "tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Addr, err)
	}
	return newListener(ln, cfg), nil
}

func check(cfg Config) error {
	switch {
	case cfg.Kind != TCP && cfg.Kind != TLS && cfg.Kind != Unix:
		return muster.Errorf(muster.Invalid, "listen on %s: unknown kind %q", cfg.Addr, cfg.Kind)
	case (cfg.Kind == TLS) != (cfg.Certs != nil):
		return muster.Errorf(muster.Invalid, "listen on %s: certificates are for tls, and tls needs them", cfg.Addr)
	case cfg.Kind == Unix && len(cfg.Proxy) > 0:
		return muster.Errorf(muster.Invalid, "listen on %s: peers of a unix socket have no address to list for the PROXY protocol", cfg.Addr)
	}
	for _, p := range cfg.Proxy {
		if !p.IsValid() || p.Addr().Is4In6() {
			return muster.Errorf(muster.Invalid, "listen on %s: %s is no IPv4 or IPv6 prefix", cfg.Addr, p)
		}
	}
	return nil
}

// newListener puts a Listener around ln.
func newListener(ln net.Listener, cfg Config) *Listener {
	if cfg.Handshake <= 0 {
		cfg.Handshake = defaultHandshake
	}
	if cfg.Handshakes <= 0 {
		cfg.Handshakes = defaultHandshakes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Listener{
		cfg:   cfg,
		ln:    ln,
		addr:  ln.Addr(),
		slots: make(chan struct{}, cfg.Handshakes),
		wait:  pending{max: maxPending},
		done:  make(chan struct{}),
	}
}

// Addr is the address it listens on; the port is the real one where Config said 0.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close stops listening and ends the connections whose handshakes are under way.
// Those handed over go on. It may be called again.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		err := l.ln.Close()
		for _, nc := range l.wait.close() {
			_ = nc.Close()
		}
		if l.remove != nil && err == nil {
			err = l.remove()
		}
		if err != nil {
			l.closed = fmt.Errorf("close the listener on %s: %w", l.cfg.Addr, err)
		}
	})
	return l.closed
}

// trusts says whether connections from addr begin with a PROXY header.
func (l *Listener) trusts(addr netip.Addr) bool {
	for _, p := range l.cfg.Proxy {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// peerOf returns nc's remote address, zero when it has none.
func peerOf(nc net.Conn) netip.AddrPort {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return plain(a.AddrPort())
}

// plain unmaps an IPv4 address from IPv6 and drops a zone.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
