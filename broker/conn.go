package broker

import (
	"container/list"
	"context"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"muster/broker/park"
	"muster/broker/topic"
	"muster/broker/wire"
	"muster/internal/lifecycle"
	"muster/traffic"
)

// cause is why a connection ended: label is for metrics, text for people.
type cause struct{ label, text string }

var (
	causeDisconnected = cause{"disconnected", "disconnected"}
	causeWithWill     = cause{"disconnected", "disconnected, with last will"}
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
	causeRate         = cause{"rate", "publishes too much"}
	causeRights       = cause{"rights", "credential gone"}
	labelKicked       = "kicked"
)

// conn is one client's connection. One goroutine at a time reads and handles what
// has come; while there is nothing to read there is none (or, where the system
// cannot park sockets, one that waits). What is said to be of the reader belongs to
// that goroutine.
type conn struct {
	b      *Broker
	nc     net.Conn
	raw    syscall.RawConn // of a plain socket, else nil
	ticket park.Ticket
	login  *Login // until CONNECT

	why      atomic.Pointer[cause]
	closed   atomic.Bool
	known    atomic.Bool // CONNECT was accepted
	busy     atomic.Bool // the reader handles what came, or waits with it: what else came is not read
	alarm    *alarm
	heard    atomic.Int64 // when bytes came last, unix milliseconds
	since    int64        // when the connection came
	allowed  atomic.Pointer[rights]
	half     *list.Element // guarded by registry, as is admitted
	admitted bool

	// Of the reader.
	in      []byte // the beginning of a packet whose rest has not come
	aliases map[uint16]string
	lastRaw string // the last topic published to, and where it goes
	lastBy  *rights
	lastDst destination
	lastHit *topic.Result[*session]
	rate    bucket
	will    *will
	quiet   bool // something has been put in the outbox that nobody writes yet

	// Set by CONNECT, only read afterwards.
	sess      *session
	dialect   wire.Dialect
	epoch     uint64 // of this connection, for Presence
	at        time.Time
	keepalive time.Duration
	window    int           // messages to the client that may be in flight
	traffic   *traffic.Conn // of an account, else nil

	mu      sync.Mutex
	out     outbox
	acks    deque[pending] // in publish order; the first has token base
	base    uint64
	denied  bool              // a message was refused for now without an ack: no later one is acked
	changed chan struct{}     // closed at the next change of acks; nil when nobody waits
	done    chan struct{}     // closed when the connection ends; nil when nobody waits
	names   map[string]uint16 // topic aliases given to the client
	aliasOf uint16            // how many the client takes
	stats   connStats

	open      atomic.Int32 // QoS 2 messages of this connection whose PUBREL has not come
	recording atomic.Int32 // QoS 2 ids that are being written down
	sample    *sample
	guest     *guest // nil in the place Normal
}

// connStats counts what one connection carried. conn.mu guards it.
type connStats struct{ received, sent, bytesIn, bytesOut uint64 }

func newConn(b *Broker, nc net.Conn, l *Login) *conn {
	c := &conn{b: b, nc: nc, login: l, since: b.clock.Load()}
	c.heard.Store(c.since)
	c.ticket.Waker = c
	if s, ok := nc.(syscall.Conn); ok && b.lot != nil {
		if raw, err := s.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

// Wake handles what has come and parks again, or ends the connection. It implements
// park.Waker.
func (c *conn) Wake() {
	for {
		err := c.turn()
		if err == nil && c.raw != nil {
			err = c.b.lot.Park(&c.ticket, c.raw)
			if err == nil {
				if c.closed.Load() { // before it was parked
					c.b.lot.Wake(&c.ticket)
				}
				return
			}
		}
		if err != nil {
			c.finish(err)
			return
		}
	}
}

// errGone ends a connection whose cause has been said.
var errGone = errors.New("the connection is closed")

// turn reads once and handles all packets that are complete. A panic in it becomes
// an error, which ends this connection only.
func (c *conn) turn() (err error) {
	sc := c.b.scratch.get()
	defer c.b.scratch.put(sc)
	defer func() {
		if v := recover(); v != nil {
			err = &lifecycle.PanicError{Value: v, Stack: debug.Stack()}
			sc.kicks.flush(c.b) // others wait for what was put in for them
		}
	}()
	for more := true; more && err == nil; {
		more, err = c.readOnce(sc)
		c.quiet, c.lastHit = false, nil // a kept result keeps all its targets
		sc.kicks.flush(c.b)
	}
	return err
}

// turns is how often one turn reads before others may.
const readsPerTurn = 16

func (c *conn) readOnce(sc *scratch) (more bool, err error) {
	if c.closed.Load() {
		return false, errGone
	}
	n, full, err := c.read(sc)
	if err != nil {
		return false, c.readFailed(err)
	}
	if n == 0 {
		return false, nil
	}
	c.heard.Store(c.b.clock.Load())
	c.b.metrics.bytesIn.Add(float64(n))
	data := sc.buf[:n]
	if len(c.in) > 0 {
		c.in = append(c.in, data...)
		data = c.in
	}
	c.busy.Store(true)
	rest, err := c.consume(sc, data)
	c.busy.Store(false)
	c.heard.Store(c.b.clock.Load())
	if err != nil {
		return false, err
	}
	c.keep(rest)
	sc.reads++
	return full && sc.reads < readsPerTurn, nil
}

// keep keeps the beginning of a packet until its rest comes.
func (c *conn) keep(rest []byte) {
	if len(rest) == 0 {
		c.in = nil
		return
	}
	if len(c.in) > 0 && &rest[0] == &c.in[0] {
		return
	}
	c.in = append([]byte(nil), rest...)
}

// read reads what has come; full says that there may be more. n is 0 when nothing
// has.
func (c *conn) read(sc *scratch) (n int, full bool, err error) {
	if c.raw == nil {
		n, err = c.nc.Read(sc.buf[:])
		return n, false, err
	}
	if err := c.raw.Read(sc.try); err != nil {
		return 0, false, err
	}
	switch {
	case errors.Is(sc.err, syscall.EAGAIN), errors.Is(sc.err, syscall.EINTR):
		return 0, false, nil
	case sc.err != nil:
		return 0, false, sc.err
	case sc.n == 0:
		return 0, false, io.EOF
	}
	return sc.n, sc.n == len(sc.buf), nil
}

// readFailed says why nothing more comes.
func (c *conn) readFailed(err error) error {
	if c.closed.Load() {
		return errGone
	}
	return err
}

// consume handles every whole packet of data and returns the rest.
func (c *conn) consume(sc *scratch, data []byte) ([]byte, error) {
	for len(data) > 0 {
		head, body, n, need, err := wire.Split(data, c.limit())
		if err != nil {
			return data, c.flawed(sc, data, need, err)
		}
		if n == 0 {
			break
		}
		if wait := c.rate.take(c.b, c.rateOf(), head, n, c.stateSize(head)); wait > 0 {
			if err := c.slowDown(sc, wait); err != nil {
				return nil, err
			}
		}
		if err := c.handle(sc, head, body); err != nil {
			return nil, err
		}
		if c.closed.Load() {
			return nil, errGone
		}
		c.relieve(sc)
		data = data[n:]
	}
	return data, nil
}

// limit is the largest packet that may come now, in bytes.
func (c *conn) limit() int {
	if !c.known.Load() {
		return maxConnect
	}
	return c.b.cfg.MaxPacket
}

func (c *conn) handle(sc *scratch, head byte, body []byte) error {
	kind := head >> 4
	if !c.known.Load() {
		if kind != wire.Connect {
			c.cut(causeProtocol)
			return errGone
		}
		return c.connect(sc, body)
	}
	switch kind {
	case wire.Publish:
		p, err := sc.dec.Publish(head, body, c.dialect.Version)
		if err != nil {
			return c.protest(err)
		}
		return c.publish(sc, p, len(body))
	case wire.Puback, wire.Pubrec, wire.Pubrel, wire.Pubcomp:
		id, code, err := sc.dec.Ack(head, body, c.dialect.Version)
		if err != nil {
			return c.protest(err)
		}
		c.acknowledge(sc, kind, id, code)
		return nil
	case wire.Pingreq:
		if err := wire.CheckPing(body); err != nil {
			return c.protest(err)
		}
		if c.dialect.Limit != 1 { // a client that takes no packet of two bytes gets none
			c.add(&sc.kicks, wire.AppendPingresp)
			c.quiet = true
		}
		return nil
	}
	return c.handleRare(sc, kind, body)
}

func (c *conn) handleRare(sc *scratch, kind byte, body []byte) error {
	switch kind {
	case wire.Subscribe:
		p, err := sc.dec.Subscribe(body, c.dialect.Version)
		if err != nil {
			return c.protest(err)
		}
		return c.subscribe(sc, p)
	case wire.Unsubscribe:
		p, err := sc.dec.Unsubscribe(body, c.dialect.Version)
		if err != nil {
			return c.protest(err)
		}
		return c.unsubscribe(sc, p)
	case wire.Disconnect:
		p, err := sc.dec.Disconnect(body, c.dialect.Version)
		if err != nil {
			return c.protest(err)
		}
		return c.disconnect(p)
	case wire.Auth:
		return c.bye(wire.CodeProtocolError, "extended authentication is not supported", causeProtocol)
	}
	return c.bye(wire.CodeProtocolError, "a second CONNECT, or a packet that only servers send", causeProtocol)
}

// protest ends the connection because of a packet that breaks the rules.
func (c *conn) protest(err error) error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return c.bye(e.Code, e.Reason, causeProtocol)
	}
	return c.bye(wire.CodeMalformed, "malformed packet", causeProtocol)
}

// disconnect handles the client's DISCONNECT.
func (c *conn) disconnect(p *wire.DisconnectPacket) error {
	if p.HasExpiry && !c.sess.changeExpiry(c, p.SessionExpiry) {
		return c.bye(wire.CodeProtocolError, "a session expiry after none was asked for", causeProtocol)
	}
	if p.Code == wire.CodeDisconnectWithWill {
		c.cut(causeWithWill)
	} else {
		c.cut(causeDisconnected)
	}
	return errGone
}

// cut ends the connection; the first cause given is the one that is told. It takes
// no lock of the connection.
func (c *conn) cut(why cause) {
	c.why.CompareAndSwap(nil, &why)
	if c.closed.Swap(true) {
		return
	}
	if c.raw != nil {
		c.b.lot.Wake(&c.ticket)
	} else {
		_ = c.nc.SetReadDeadline(longAgo()) // one that cannot be set is of a socket that is gone
	}
	c.b.work.start(c.wakeWaiters) // the caller may hold c.mu
}

// wakeWaiters lets the reader go on that waits for room or for the sink.
func (c *conn) wakeWaiters() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announce()
	if c.done != nil {
		close(c.done)
		c.done = nil
	}
}

// bye sends DISCONNECT to a MQTT 5 client and cuts the connection. It returns the
// error that ends a turn.
func (c *conn) bye(code byte, reason string, why cause) error {
	if c.known.Load() {
		c.seal(func(b []byte) []byte { return c.dialect.AppendDisconnect(b, code, reason) })
	}
	c.cut(why)
	return errGone
}

// life is the connection as a context: it ends with it. It costs nothing until
// somebody waits for that.
type life struct{ c *conn }

// Deadline implements context.Context.
func (l life) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (l life) Done() <-chan struct{} { return l.c.ended() }

// Err implements context.Context.
func (l life) Err() error {
	if l.c.closed.Load() {
		return context.Canceled
	}
	return nil
}

// Value implements context.Context.
func (life) Value(any) any { return nil }

// ended returns a channel that is closed when the connection ends.
func (c *conn) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		over := make(chan struct{})
		close(over)
		return over
	}
	if c.done == nil {
		c.done = make(chan struct{})
	}
	return c.done
}

func longAgo() time.Time { return time.Unix(1, 0) }

// readBuffer is how much one read takes, in bytes.
const readBuffer = 8 << 10

// scratch is what a reader needs while it reads.
type scratch struct {
	buf   [readBuffer]byte
	n     int
	err   error
	try   func(fd uintptr) bool
	dec   wire.Decoder
	kicks kicks
	reads int
}

type scratches struct{ pool sync.Pool }

func (p *scratches) get() *scratch {
	if s, ok := p.pool.Get().(*scratch); ok {
		return s
	}
	s := new(scratch)
	s.try = func(fd uintptr) bool {
		s.n, s.err = syscall.Read(int(fd), s.buf[:])
		return true
	}
	return s
}

func (p *scratches) put(s *scratch) {
	s.reads = 0
	clear(s.kicks.behind)
	s.kicks.behind = s.kicks.behind[:0]
	p.pool.Put(s)
}

// relieve waits a little for subscribers that are behind what this client
// publishes.
func (c *conn) relieve(sc *scratch) {
	if len(sc.kicks.behind) == 0 {
		return
	}
	sc.kicks.flush(c.b)
	for _, s := range sc.kicks.behind {
		s.wait(c.ended())
	}
	clear(sc.kicks.behind)
	sc.kicks.behind = sc.kicks.behind[:0]
}
