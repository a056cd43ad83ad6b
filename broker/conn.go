package broker

import (
	"container/list"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"muster/devices"
)

// maxConnect is the longest CONNECT packet, in bytes.
const maxConnect = 64 << 10

// cause is why a connection ended: label is for metrics, text for people.
type cause struct{ label, text string }

var (
	causeDisconnected = cause{"disconnected", "disconnected"}
	causeKeepalive    = cause{"keepalive", "keepalive"}
	causeTaken        = cause{"taken_over", "taken over"}
	causeClosed       = cause{"closed", "closed"}
	causeStopped      = cause{"server_stopped", "server stopped"}
	causeSlow         = cause{"slow", "reads too slowly"}
	causeRefused      = cause{"refused_for_now", "message refused for now"}
	causeTooLarge     = cause{"too_large", "packet too large"}
	causeProtocol     = cause{"protocol_error", "protocol error"}
	causePanic        = cause{"panic", "server error"}
	causeNoConnect    = cause{"no_connect", "no CONNECT in time"}
	causeHalfOpen     = cause{"half_open", "too many half-open connections"}
	causeNotAdmitted  = cause{"not_admitted", "CONNECT refused"}
	labelKicked       = "kicked"
)

// conn is one client's connection. mochi sees it as a net.Conn whose writes never
// block and whose Close only ends the reading; what has been written still leaves.
//
// Fields below "set by CONNECT" are written by the connection's own goroutine
// before known is set, and only read afterwards.
type conn struct {
	b         *Broker
	nc        net.Conn
	transport string // tcp or ws
	peer      string

	ctx    context.Context //nolint:containedctx // ends with the connection; a blocked Accept must see it
	cancel context.CancelFunc
	closed atomic.Bool
	why    atomic.Pointer[cause]
	known  atomic.Bool
	out    *outbox

	half     *list.Element // guarded by registry
	admitted bool          // guarded by registry

	// Of the connection's own goroutine.
	gate    gate
	flaw    verdict
	turn    *sync.Mutex // the session's lock while it is held
	aliases map[uint16]string
	lastRaw string // the last topic published to, and where it goes
	lastDst destination
	will    *will
	granted grant
	online  bool // Presence was told

	// Set by CONNECT.
	client    *mqtt.Client
	rights    rights
	dialect   dialect
	key       string // the session's name inside mochi: identity and client id
	assigned  string // the client id that the server chose, MQTT 5
	keepalive time.Duration
	clean     bool
	fresh     bool          // the session began with this connection
	expiry    time.Duration // of the session after the connection
	shortened bool          // there was no room to keep the session
	info      devices.Connection
	qos2      *received     // of the session, as is order
	order     *atomic.Int64 // counts the messages to the session

	me       atomic.Pointer[[]string] // canonical filters of subscriptions spelled devices/me/...
	granting atomic.Pointer[[]string] // filters of the SUBSCRIBE in progress
}

func newConn(b *Broker, nc net.Conn, transport string) *conn {
	c := &conn{b: b, nc: nc, transport: transport, peer: nc.RemoteAddr().String()}
	c.gate = gate{first: maxConnect, max: b.cfg.MaxPacket}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.out = newOutbox(c, b.cfg.Window)
	return c
}

// Read reads what may pass the gate. A flawed packet ends the connection once
// everything before it has been handled.
func (c *conn) Read(p []byte) (int, error) {
	if c.flaw.flaw != flawNone {
		return 0, c.rejectPacket()
	}
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.nc.Read(p)
	c.b.metrics.bytesIn.Add(float64(n))
	pass, v := c.gate.scan(p[:n])
	if v.flaw != flawNone {
		v.body = []byte(peekTopic(v)) // p is about to be overwritten
		c.flaw = v
		if pass == 0 {
			return 0, c.rejectPacket()
		}
		return pass, nil
	}
	if err != nil {
		return n, c.readFailed(err)
	}
	return n, nil
}

func (c *conn) readFailed(err error) error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case !c.known.Load():
		c.cut(causeNoConnect)
	default:
		c.bye(codeKeepAlive, "nothing heard for one and a half times the keep alive", causeKeepalive)
	}
	return err
}

// Write takes one packet from mochi. It never waits for the network.
func (c *conn) Write(p []byte) (int, error) {
	if !c.out.add(p) {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// SetDeadline is how mochi says that a packet may come: the time is ours, from
// the keep alive in full width (mochi's overflows above 43690 s).
func (c *conn) SetDeadline(time.Time) error {
	var t time.Time
	if c.keepalive > 0 {
		t = time.Now().Add(c.keepalive + c.keepalive/2)
	}
	return c.SetReadDeadline(t)
}

// SetReadDeadline sets when a Read gives up; a closed connection's never moves.
func (c *conn) SetReadDeadline(t time.Time) error {
	err := c.nc.SetReadDeadline(t)
	if c.closed.Load() {
		err = c.nc.SetReadDeadline(longAgo())
	}
	return err
}

// SetWriteDeadline does nothing: Write never waits.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func (c *conn) LocalAddr() net.Addr  { return c.nc.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Close ends the reading. The connection's own goroutine closes the socket.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.cancel()
	c.out.wake()
	return c.nc.SetReadDeadline(longAgo())
}

// cut ends the connection; the first cause given is the one that is told.
func (c *conn) cut(why cause) {
	c.why.CompareAndSwap(nil, &why)
	_ = c.Close() // a deadline that cannot be set is a socket that is gone
}

// bye sends DISCONNECT to a MQTT 5 client and cuts the connection.
func (c *conn) bye(code byte, reason string, why cause) {
	c.out.seal(c.farewell(code, reason))
	c.cut(why)
}

func (c *conn) farewell(code byte, reason string) []byte {
	if !c.known.Load() {
		return nil
	}
	return c.dialect.appendBye(nil, code, reason)
}

// Acked implements Acker.
func (c *conn) Acked(token uint64, err error) { c.out.settle(token, err) }

func longAgo() time.Time { return time.Unix(1, 0) }
