package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"muster/internal/lifecycle"
)

// Pauses after an accept error, and limits on letting a TLS alert be read.
const (
	firstPause  = 5 * time.Millisecond // doubling to lastPause
	lastPause   = time.Second
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// errRefused ends a handshake whose address a limit refused; it is counted there.
var errRefused = errors.New("refused by a limit")

// Serve accepts until Close or until ctx ends, and calls handle on a goroutine of
// its own for each connection that got through limits, PROXY header and TLS
// handshake. For TCP handle gets the *net.TCPConn itself, for TLS a *tls.Conn (whose
// NetConn has *net.TCPConn's methods), for Unix a *net.UnixConn; no deadline is set.
// Handle owns the connection, and once it is closed calls
// Limits.Release(info.Peer.Addr()); it must not panic.
//
// An error of accept, such as running out of file descriptors, is counted and
// waited out, 5 ms doubling to 1 s. Serve returns nil when the listener is closed
// and no goroutine of its own is left but those that call handle. It waits for no
// handle, and one may begin as Serve returns: who waits for connections must
// refuse those that come late. Serve may be called once.
func (l *Listener) Serve(ctx context.Context, handle func(net.Conn, Info)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	var own sync.WaitGroup
	pause := firstPause
	for {
		nc, err := l.ln.Accept()
		if err == nil {
			pause = firstPause
			l.take(nc, &own, handle)
			continue
		}
		if errors.Is(err, net.ErrClosed) || !l.rest(pause, err) {
			break
		}
		pause = min(2*pause, lastPause)
	}
	stop()
	_ = l.Close() // ends the handshakes, when the socket went away by itself; its error is Close's caller's
	own.Wait()
	return nil
}

// rest waits out an accept error. It returns false when the listener is closed.
func (l *Listener) rest(pause time.Duration, err error) bool {
	if call := l.cfg.Hooks.AcceptError; call != nil {
		call(l.cfg.Kind)
	}
	if pause == firstPause {
		l.cfg.Logger.Warn("cannot accept MQTT connections, retrying", "listener", l.addr.String(), "err", err)
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-l.done:
		return false
	case <-t.C:
		return true
	}
}

// take admits a new connection and begins what is needed before it is handed over.
func (l *Listener) take(nc net.Conn, own *sync.WaitGroup, handle func(net.Conn, Info)) {
	a := &arrival{l: l, nc: nc, info: Info{Listener: l.cfg.Kind, Peer: peerOf(nc)}}
	a.proxied = l.trusts(a.info.Peer.Addr())
	if !a.proxied && !a.admit() {
		reset(nc)
		return
	}
	if !a.proxied && l.cfg.Kind != TLS {
		l.accepted()
		go handle(nc, a.info) // handle's owner waits for it, see Serve
		return
	}
	w, out := l.wait.add(nc)
	if out != nil {
		reset(out)
	}
	if w == nil {
		a.release()
		_ = nc.Close()
		return
	}
	own.Add(1)
	go func() {
		ready := a.ready(w)
		own.Done()
		if ready {
			handle(a.nc, a.info)
		}
	}()
}

func (l *Listener) accepted() {
	if call := l.cfg.Hooks.Accepted; call != nil {
		call(l.cfg.Kind)
	}
}

// reset closes nc at once and leaves nothing in TIME_WAIT.
func reset(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // if it fails, the close is merely the usual one
	}
	_ = nc.Close()
}

// arrival is a connection on its way to handle.
type arrival struct {
	l        *Listener
	nc       net.Conn
	info     Info
	proxied  bool
	admitted bool
}

// admit asks the limits, and counts a refusal.
func (a *arrival) admit() bool {
	cfg := &a.l.cfg
	if cfg.Limits == nil || cfg.Kind == Unix {
		return true
	}
	why := cfg.Limits.Admit(a.info.Peer.Addr())
	if why == Admitted {
		a.admitted = true
		return true
	}
	if call := cfg.Hooks.Refused; call != nil {
		call(cfg.Kind, why)
	}
	return false
}

func (a *arrival) release() {
	if a.admitted {
		a.l.cfg.Limits.Release(a.info.Peer.Addr())
	}
}

// ready does the handshakes, within their time. When it returns false, the
// connection is closed and counted.
func (a *arrival) ready(w *waiting) bool {
	raw := a.nc
	err := lifecycle.Guard(func() error { return a.prepare(time.Now().Add(a.l.cfg.Handshake)) })
	if err != nil {
		a.alert(raw, err)
	}
	end := a.l.wait.finish(w)
	if err == nil && end == fateReady {
		a.l.accepted()
		return true
	}
	a.release()
	reason := reasonOf(err, end)
	if reason == HandshakeTimeout || errors.Is(err, errRefused) {
		reset(raw)
	} else {
		_ = raw.Close()
	}
	if reason != "" {
		a.failed(reason, err)
	}
	return false
}

func (a *arrival) prepare(deadline time.Time) error {
	if err := a.nc.SetDeadline(deadline); err != nil {
		return fmt.Errorf("set the handshake's deadline: %w", err)
	}
	if a.proxied {
		if err := a.proxy(); err != nil {
			return err
		}
	}
	if a.l.cfg.Kind == TLS {
		if err := a.tls(deadline); err != nil {
			return err
		}
	}
	if err := a.nc.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear the handshake's deadline: %w", err)
	}
	return nil
}

// proxy reads the PROXY header and admits the address it names, or the proxy's own
// when it names none.
func (a *arrival) proxy() error {
	src, err := readProxy(a.nc)
	if err != nil {
		return err
	}
	if src != (netip.AddrPort{}) {
		a.info.Peer = src
	}
	if !a.admit() {
		return errRefused
	}
	return nil
}

func (a *arrival) tls(deadline time.Time) error {
	t, ok := a.nc.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("TLS handshake: the connection is a %T", a.nc)
	}
	g := &gate{TCPConn: t, turn: &turn{slots: a.l.slots, deadline: deadline, done: a.l.done}}
	c := tls.Server(g, a.l.cfg.Certs.Config())
	if err := g.turn.during(c.Handshake); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	g.turn = nil
	st := c.ConnectionState()
	a.nc = c
	a.info.ServerName, a.info.Certificates, a.info.Resumed = st.ServerName, st.PeerCertificates, st.DidResume
	return nil
}

// alert lets the peer read the TLS alert that says why it was refused: closing a
// socket with unread bytes would reset it first.
func (a *arrival) alert(raw net.Conn, err error) {
	t, ok := raw.(*net.TCPConn)
	if !ok || a.l.cfg.Kind != TLS || reasonOf(err, fateReady) != HandshakeTLS {
		return
	}
	if t.CloseWrite() != nil || t.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, t, lingerBytes) // what comes now is not wanted, nor how it ends
}

// failed counts a handshake that failed, and logs it.
func (a *arrival) failed(reason string, err error) {
	cfg := &a.l.cfg
	if call := cfg.Hooks.HandshakeError; call != nil {
		call(cfg.Kind, reason)
	}
	switch reason {
	case HandshakePanic:
		cfg.Logger.Error("panic before an MQTT connection was ready, which was ended", "err", err)
	case HandshakeProxy:
		a.l.warnProxy.Do(func() {
			cfg.Logger.Warn("a listed proxy sends no proper PROXY header; more of this is only counted",
				"listener", a.l.addr.String(), "peer", a.info.Peer.String(), "err", err)
		})
	default:
		cfg.Logger.Debug("MQTT connection failed before it was ready", "listener", a.l.addr.String(),
			"peer", a.info.Peer.String(), "reason", reason, "err", err)
	}
}

// reasonOf names the failure for its counter; "" is not counted.
func reasonOf(err error, end fate) string {
	var proxy *proxyError
	var panicked *lifecycle.PanicError
	switch {
	case end == fateDisplaced:
		return HandshakeDisplaced
	case end == fateStopped || errors.Is(err, errRefused) || errors.Is(err, errStopped):
		return ""
	case errors.As(err, &panicked):
		return HandshakePanic
	case errors.Is(err, os.ErrDeadlineExceeded):
		return HandshakeTimeout
	case errors.As(err, &proxy):
		return HandshakeProxy
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return HandshakeClosed
	}
	return HandshakeTLS
}
