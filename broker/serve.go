package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"muster/broker/listen"
	"muster/internal/lifecycle"
)

// Times that end a connection.
const (
	flushTime  = 2 * time.Second // for the last packets to leave
	lingerTime = 2 * time.Second // for the client to see them before the socket closes
)

// serve takes a connection in. It returns at once where sockets can be parked, else
// when the connection has ended.
func (b *Broker) serve(nc net.Conn, l *Login) {
	if !b.serving.enter() {
		_ = nc.Close()
		b.release(l)
		return
	}
	c := newConn(b, nc, l)
	if old := b.conns.add(c); old != nil {
		old.cut(causeHalfOpen)
	}
	c.alarm = b.wheel.add(c, c.since+b.cfg.ConnectTimeout.Milliseconds())
	if b.stopping.Load() {
		c.cut(causeStopped)
	}
	c.Wake()
}

// serveListener accepts what a listener lets through.
func (b *Broker) serveListener(ctx context.Context, ln *listen.Listener) error {
	return ln.Serve(ctx, func(nc net.Conn, i listen.Info) { //nolint:contextcheck // the listener ends before its connections
		l := &Login{Listener: string(i.Listener), ServerName: i.ServerName, Certificates: i.Certificates}
		if i.Peer.IsValid() {
			l.Peer, l.addr = i.Peer.String(), i.Peer.Addr()
		}
		b.serve(nc, l)
	})
}

// ServeWebSocket serves MQTT over WebSocket, subprotocol mqtt, until the
// connection ends. It answers 503 when the broker does not run, or has enough
// connections of the address.
func (b *Broker) ServeWebSocket(w http.ResponseWriter, r *http.Request) {
	if !b.running() {
		http.Error(w, "the MQTT broker does not run", http.StatusServiceUnavailable)
		return
	}
	l := &Login{Listener: "ws", Peer: r.RemoteAddr}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		if why := b.limits.Admit(peer.Addr().Unmap()); why != listen.Admitted {
			b.metrics.turnedAway.WithLabelValues("ws", string(why)).Inc()
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many MQTT connections from this address", http.StatusServiceUnavailable)
			return
		}
		l.addr = peer.Addr().Unmap()
	}
	nc, err := b.upgrader.Upgrade(w, r)
	if err != nil {
		b.release(l)
		b.cfg.Logger.Debug("no MQTT over WebSocket", "peer", r.RemoteAddr, "err", err)
		return
	}
	b.metrics.accepted.WithLabelValues("ws").Inc()
	b.serve(nc, l) //nolint:contextcheck // the connection has its own life
}

// finish ends a connection: it leaves its session, tells Presence, sends the will,
// lets the last packets leave and closes the socket.
func (c *conn) finish(err error) {
	defer c.b.serving.leave()
	defer func() {
		c.traffic.Close()
		c.b.conns.remove(c)
	}()
	if c.guest != nil {
		defer c.b.guests.Add(-1)
	}
	perr := lifecycle.Guard(func() error { c.leave(err); return nil })
	if perr != nil {
		c.b.panicked(perr)
	}
	c.mu.Lock()
	if !c.out.broken {
		c.breakOut()
	}
	c.mu.Unlock()
	if c.raw != nil {
		c.b.lot.Unpark(&c.ticket)
	}
	_ = c.nc.Close()
	c.b.release(c.login)
}

// release gives a connection back to the limits of its address.
func (b *Broker) release(l *Login) {
	if l.addr.IsValid() {
		b.limits.Release(l.addr)
	}
}

func (c *conn) leave(err error) {
	b := c.b
	if p, ok := errors.AsType[*lifecycle.PanicError](err); ok {
		b.panicked(p)
		c.cut(causePanic)
	}
	c.cut(causeClosed)
	why := *c.why.Load()
	b.wheel.remove(c.alarm)
	b.metrics.disconnects.WithLabelValues(c.login.Listener, why.label).Inc()
	if c.known.Load() {
		c.leaveSession(why)
	}
	c.part(why)
}

// leaveSession ends the connection with its session, and tells Presence.
func (c *conn) leaveSession(why cause) {
	b, s := c.b, c.sess
	w := c.will
	if why == causeDisconnected || why == causeStopped || why == causeRights {
		w = nil
	}
	if w != nil {
		w.rights = c.allowed.Load() // they may have changed since CONNECT
	}
	b.flaps.ended(s.key, why == causeTaken, b.clock.Load())
	var waits *will
	if w != nil && w.delay > 0 {
		waits, w = w, nil
	}
	kept := s.state.Load().expiry > 0
	if after := s.detach(c, waits); after != nil {
		after()
		if waits != nil && !kept {
			w = waits // the session has ended with its connection
		}
	} else if waits != nil && s.over() {
		w = waits // a clean start has ended the session
	}
	b.cfg.Logger.Debug("MQTT connection ended", "peer", c.login.Peer, "device", s.device, "reason", why.text)
	if s.device != "" {
		info := c.describe(c.allowed.Load().who, s.clientID)
		info.Will = w != nil
		b.presence.Disconnected(info, why.text, b.cfg.Now())
	}
	if w != nil {
		b.publishWill(w)
	}
}

func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// part lets the last packets leave.
func (c *conn) part(why cause) {
	if why == causeClosed || why == causeSlow {
		return
	}
	c.seal(nil)
	c.flushed(flushTime)
	if why != causeDisconnected && why != causeWithWill {
		c.linger()
	}
}

// linger closes the sending side and reads on for a moment, because closing a
// socket with unread bytes resets it, and the client may then not see the last
// packets.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.Copy(io.Discard, c.nc) // what comes now is not wanted, nor how it ends
	}
}

// panicked counts a panic and logs its stack, the same panic once.
func (b *Broker) panicked(err error) {
	b.metrics.panics.Inc()
	b.panicsMu.Lock()
	defer b.panicsMu.Unlock()
	if _, seen := b.panicsSeen[err.Error()]; seen || len(b.panicsSeen) >= maxPanicsLogged {
		return
	}
	b.panicsSeen[err.Error()] = struct{}{}
	b.cfg.Logger.Error("MQTT connection panicked", "err", err)
}
