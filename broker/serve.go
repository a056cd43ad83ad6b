package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster/internal/lifecycle"
)

// Times that end a connection.
const (
	drainTime  = 2 * time.Second        // for acknowledgements under way when the server stops
	flushTime  = 2 * time.Second        // for the last packets to leave
	lingerTime = 500 * time.Millisecond // for the client to see them before the socket closes
	firstPause = 5 * time.Millisecond   // of the accept loop after an error, doubling to lastPause
	lastPause  = time.Second
)

// accept takes connections until the listener closes. Any other error, such as
// running out of file descriptors, is waited out.
func (b *Broker) accept(ctx context.Context, ln net.Listener) error {
	pause := firstPause
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = firstPause
			if !b.serving.start(func() { b.serve(nc, "tcp") }) { //nolint:contextcheck // the listener ends before its connections
				_ = nc.Close()
			}
			continue
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil //nolint:nilerr // this is how the loop ends
		}
		b.metrics.acceptErrors.Inc()
		if pause == firstPause {
			b.cfg.Logger.Warn("cannot accept MQTT connections, retrying", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// serve runs one connection from its first byte to its end. A panic in it ends
// this connection only.
func (b *Broker) serve(nc net.Conn, transport string) {
	c := newConn(b, nc, transport)
	if old := b.conns.add(c); old != nil {
		old.cut(causeHalfOpen)
	}
	defer b.conns.remove(c)
	if b.stopping.Load() {
		c.cut(causeStopped)
	}
	err := c.SetReadDeadline(time.Now().Add(b.cfg.ConnectTimeout))
	if err == nil {
		err = lifecycle.Guard(func() error { return b.srv.EstablishConnection(transport, c) })
	}
	if perr := lifecycle.Guard(func() error { c.finish(err); return nil }); perr != nil {
		b.panicked(perr)
		_ = nc.Close()
	}
}

// finish ends a connection: it tells Presence, sends the will, lets the last
// packets leave and closes the socket.
func (c *conn) finish(err error) {
	c.cancel()
	if p, ok := errors.AsType[*lifecycle.PanicError](err); ok {
		c.b.panicked(p)
		c.forget()
		c.cut(causePanic)
	}
	if c.online {
		c.await()
	}
	why := c.end(err)
	will := c.planWill(why)
	c.yield()
	c.b.metrics.disconnects.WithLabelValues(why.label).Inc()
	c.b.cfg.Logger.Debug("MQTT connection ended", "peer", c.peer, "device", c.rights.who.Device, "reason", why.text)
	if c.online && c.info.Device != "" {
		c.b.presence.Disconnected(c.info, why.text, c.b.cfg.Now())
	}
	if will != nil {
		will()
	}
	c.part(err, why)
}

// end finds out why the connection ended.
func (c *conn) end(err error) cause {
	if c.client != nil {
		stop, _ := errors.AsType[packets.Code](c.client.StopCause())
		switch {
		case stop == packets.ErrSessionTakenOver:
			c.cut(causeTaken)
		case c.online && stop == packets.CodeDisconnect:
			c.cut(causeDisconnected)
		}
	}
	if code, ok := errors.AsType[packets.Code](err); ok && code.Code >= codeUnspecified {
		c.cut(causeProtocol)
	}
	c.cut(causeClosed)
	return *c.why.Load()
}

// part lets the last packets leave and closes the socket.
func (c *conn) part(err error, why cause) {
	defer c.out.fail() // after it, late acknowledgements have nowhere to go
	defer func() { _ = c.nc.Close() }()
	if why == causeClosed {
		return
	}
	var last []byte
	if why == causeStopped {
		c.out.wait(drainTime, false)
		last = c.farewell(codeShuttingDown, "the server is stopping")
	} else if code, ok := errors.AsType[packets.Code](err); ok && code.Code >= codeUnspecified {
		last = c.farewell(code.Code, code.Reason)
	} else if why == causePanic {
		last = c.farewell(codeUnspecified, "the server could not handle a packet")
	}
	c.out.seal(last)
	c.out.wait(flushTime, true)
	c.linger()
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

// forget removes from mochi what it would have removed itself, had it not
// panicked.
func (c *conn) forget() {
	cl := c.client
	if cl == nil || c.key == "" {
		return
	}
	c.await()
	now, ok := c.b.srv.Clients.Get(cl.ID)
	if !ok || now != cl || !c.sessionEnds() {
		return
	}
	cl.ClearInflights()
	c.b.srv.UnsubscribeClient(cl)
	c.b.srv.Clients.Delete(cl.ID)
}

// sessionEnds says whether the session ends with its connection.
func (c *conn) sessionEnds() bool {
	p := &c.client.Properties
	if p.ProtocolVersion == 5 {
		return p.Props.SessionExpiryInterval == 0
	}
	return p.Clean
}

// panicked counts a panic and logs its stack, the same panic once.
func (b *Broker) panicked(err error) {
	b.metrics.panics.Inc()
	text := "unknown"
	if p, ok := errors.AsType[*lifecycle.PanicError](err); ok {
		text = firstLine(p)
	}
	b.panicsMu.Lock()
	_, seen := b.panicsSeen[text]
	if !seen && len(b.panicsSeen) < maxPanicsLogged {
		b.panicsSeen[text] = struct{}{}
	} else {
		seen = true
	}
	b.panicsMu.Unlock()
	if !seen {
		b.cfg.Logger.Error("panic in an MQTT connection, which was ended", "err", err)
	}
}

func firstLine(p *lifecycle.PanicError) string {
	for i, ch := range p.Error() {
		if ch == '\n' {
			return p.Error()[:i]
		}
	}
	return p.Error()
}

// await takes the session's turn: only one connection at a time may begin or end
// a session of one client id, which mochi's own bookkeeping relies on.
func (c *conn) await() {
	if c.turn == nil {
		m := c.b.turnOf(c.key)
		m.Lock()
		c.turn = m
	}
}

// yield gives the session's turn back, when it is held.
func (c *conn) yield() {
	if c.turn != nil {
		c.turn.Unlock()
		c.turn = nil
	}
}

// connOf returns the connection behind a mochi client, nil for our own.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}
