package broker

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"muster/broker/wire"
)

// Bounds on what waits to be written to one client, in bytes.
const (
	softOut   = 1 << 20   // above it no message is sent: QoS 0 is dropped, QoS 1 and 2 wait in the session
	pressOut  = 256 << 10 // above it publishers wait a little for a client that keeps up
	hardOut   = 8 << 20   // above it (acknowledgements, then) the client is cut
	slowWrite = 64 << 10  // what a client must read within Config.WriteTimeout
	pooledOut = 64 << 10  // a larger buffer is not kept for reuse
)

// A publisher waits for a subscriber that is behind as long as that takes this much
// in each graceTime; else it does not wait for it for a while.
const (
	graceTime     = 50 * time.Millisecond
	graceBytes    = 64 << 10
	graceMessages = 250
	graceRest     = time.Second
	graceMost     = 16 * time.Second
)

// outbox is what leaves on one connection, whole packets in order. Nobody who puts
// something in waits for the network. Whoever finds that nobody is writing writes:
// at once when the socket takes it, else a goroutine that lives until it has, so
// there are never more of them than connections. conn.mu guards it.
type outbox struct {
	buf     *buffer
	behind  int           // bytes taken out of buf and not written yet
	writing bool          // someone is
	owed    bool          // in the kicks of a goroutine that will write
	sealed  bool          // the last packet is in: what comes now is dropped
	broken  bool          // the network failed, or the connection has ended
	starved bool          // the session holds messages back until there is room
	waiting bool          // publishers wait for room
	idle    chan struct{} // closed when all is written; nil when nobody waits for that
}

type buffer struct{ b []byte }

// buffers is a pool of write buffers.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 1024)}
}

func (p *buffers) put(b *buffer) {
	if cap(b.b) <= pooledOut {
		b.b = b.b[:0]
		p.pool.Put(b)
	}
}

// sent says what became of a message for a client.
type sent uint8

const (
	sentOK       sent = iota
	sentPressed       // and the client is behind
	sentFull          // not sent: the client is too far behind
	sentTooLarge      // not sent: the client does not take packets of that size
	sentNever         // not sent: the connection ends
)

// send puts a message in. A droppable one is not put in above softOut.
func (c *conn) send(o *wire.Out, k *kicks, droppable bool) sent {
	if c.dialect.Limit > 0 && c.dialect.PublishSize(o) > int(c.dialect.Limit) {
		return sentTooLarge
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	size := c.backlog()
	switch {
	case c.out.sealed || c.out.broken:
		return sentNever
	case droppable && size > softOut:
		return sentFull
	}
	c.aliasOut(o)
	b := c.buffer()
	b.b = c.dialect.AppendPublish(b.b, o)
	c.stats.sent++
	c.b.sent.Add(1)
	c.traffic.Sent(1)
	c.note(k)
	if size > pressOut {
		c.out.waiting = true
		return sentPressed
	}
	return sentOK
}

// add puts a packet in that encode appends. It never waits.
func (c *conn) add(k *kicks, encode func(b []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(k, encode)
}

func (c *conn) addLocked(k *kicks, encode func(b []byte) []byte) {
	if c.out.sealed || c.out.broken {
		return
	}
	b := c.buffer()
	b.b = encode(b.b)
	if c.backlog() > hardOut {
		c.breakOut()
		c.cut(causeSlow)
		return
	}
	c.note(k)
}

func (c *conn) buffer() *buffer {
	if c.out.buf == nil {
		c.out.buf = c.b.buffers.get()
	}
	return c.out.buf
}

// backlog returns how many bytes wait. conn.mu must be held.
func (c *conn) backlog() int {
	n := c.out.behind
	if c.out.buf != nil {
		n += len(c.out.buf.b)
	}
	return n
}

// room says whether a message may be sent; if not, the session is pumped when there
// is room again.
func (c *conn) room() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backlog() <= softOut {
		return true
	}
	c.out.starved = true
	return false
}

// pressed says whether the client is still behind.
func (c *conn) pressed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.waiting = c.backlog() > pressOut/2
	return c.out.waiting
}

// note has the connection written to by k's owner. Without one a goroutine is
// started. conn.mu must be held.
func (c *conn) note(k *kicks) {
	if c.out.writing || c.out.owed {
		return
	}
	if k != nil {
		c.out.owed = true
		k.conns = append(k.conns, c)
		return
	}
	c.out.writing = true
	c.b.startWriter(c)
}

// seal puts the connection's last packet in, if there is one, and drops what comes
// later.
func (c *conn) seal(encode func(b []byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.sealed || c.out.broken {
		return
	}
	if encode != nil {
		b := c.buffer()
		b.b = encode(b.b)
	}
	c.out.sealed = true
	if c.backlog() > 0 {
		c.note(nil)
	}
}

// breakOut drops what is in the box and all that comes. conn.mu must be held.
func (c *conn) breakOut() {
	c.out.broken = true
	if c.out.buf != nil {
		c.b.buffers.put(c.out.buf)
		c.out.buf = nil
	}
	c.settled()
}

func (c *conn) settled() {
	if c.out.idle != nil {
		close(c.out.idle)
		c.out.idle = nil
	}
}

// claim makes the caller the one who writes. It says false when there is nothing to
// write or someone does already.
func (c *conn) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.owed = false
	if c.out.writing || c.out.buf == nil || c.out.broken {
		return false
	}
	c.out.writing = true
	return true
}

// drain writes until nothing is left. The caller must have claimed. With wait false
// it returns when the socket takes no more: then the rest is on its way by a
// goroutine of its own.
func (c *conn) drain(wait bool) {
	for {
		buf, more := c.take()
		if !more {
			return
		}
		if buf == nil {
			c.resume()
			continue
		}
		n, err := c.writeNow(buf.b)
		if err == nil && n < len(buf.b) {
			if !wait {
				c.b.work.start(func() { c.crawl(buf, n) })
				return
			}
			err = c.writeSlowly(buf.b[n:])
		}
		c.wrote(buf, err)
	}
}

// crawl writes the rest of buf to a socket that is full, and what came meanwhile.
func (c *conn) crawl(buf *buffer, n int) {
	c.wrote(buf, c.writeSlowly(buf.b[n:]))
	c.drain(true)
}

// take takes what is to be written. A nil buffer with more says that the session
// wants to be pumped.
func (c *conn) take() (buf *buffer, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.buf == nil && !c.out.broken && (c.out.starved || c.out.waiting) {
		return nil, true
	}
	if c.out.buf == nil || c.out.broken {
		c.out.writing = false
		c.settled()
		return nil, false
	}
	buf = c.out.buf
	c.out.buf, c.out.behind = nil, len(buf.b)
	return buf, true
}

// resume lets the session send what it held back, and publishers go on.
func (c *conn) resume() {
	c.mu.Lock()
	c.out.starved, c.out.waiting = false, false
	s := c.sess
	c.mu.Unlock()
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.pump(nil)
	}
	s.relieve()
}

func (c *conn) wrote(buf *buffer, err error) {
	c.b.metrics.bytesOut.Add(float64(len(buf.b)))
	c.mu.Lock()
	c.out.behind = 0
	c.stats.bytesOut += uint64(len(buf.b))
	if err != nil && !c.out.broken {
		c.breakOut()
	}
	c.mu.Unlock()
	c.b.buffers.put(buf)
	if err != nil {
		c.cut(causeSlow)
	}
}

// writeNow writes what the socket takes at once; where that cannot be known it
// writes all and waits.
func (c *conn) writeNow(p []byte) (int, error) {
	if c.raw == nil {
		return len(p), c.writeSlowly(p)
	}
	w := c.b.writers.get()
	defer c.b.writers.put(w)
	return w.write(c.raw, p)
}

func (c *conn) writeSlowly(p []byte) error {
	for len(p) > 0 {
		some := p[:min(slowWrite, len(p))]
		p = p[len(some):]
		if err := c.nc.SetWriteDeadline(time.Now().Add(c.b.cfg.WriteTimeout)); err != nil {
			return err
		}
		if _, err := c.nc.Write(some); err != nil {
			return err
		}
	}
	return c.nc.SetWriteDeadline(time.Time{})
}

// rawWriter writes to a socket without waiting for it.
type rawWriter struct {
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

type rawWriters struct{ pool sync.Pool }

func (p *rawWriters) get() *rawWriter {
	if w, ok := p.pool.Get().(*rawWriter); ok {
		return w
	}
	w := new(rawWriter)
	w.try = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.p)
		return true
	}
	return w
}

func (p *rawWriters) put(w *rawWriter) {
	w.p = nil
	p.pool.Put(w)
}

func (w *rawWriter) write(raw syscall.RawConn, p []byte) (int, error) {
	w.p = p
	if err := raw.Write(w.try); err != nil {
		return 0, err
	}
	switch {
	case w.err == nil:
		return w.n, nil
	case errors.Is(w.err, syscall.EAGAIN), errors.Is(w.err, syscall.EINTR):
		return 0, nil
	}
	return 0, w.err
}

// flushed waits until all is written, d has passed or the box breaks.
func (c *conn) flushed(d time.Duration) {
	c.mu.Lock()
	if c.out.broken || !c.out.writing && c.out.buf == nil {
		c.mu.Unlock()
		return
	}
	if c.out.idle == nil {
		c.out.idle = make(chan struct{})
	}
	idle := c.out.idle
	c.note(nil)
	c.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	}
}

// spread is how many connections one goroutine writes to after a publish.
const spread = 64

// kicks are the connections that one goroutine has put something in for and will
// write to, and the sessions it will wait for a little.
type kicks struct {
	conns  []*conn
	behind []*session
}

func (k *kicks) press(s *session) {
	if !slices.Contains(k.behind, s) {
		k.behind = append(k.behind, s)
	}
}

// flush writes to every connection.
func (k *kicks) flush(b *Broker) {
	for rest := k.conns; len(rest) > 0; {
		some := rest[:min(spread, len(rest))]
		rest = rest[len(some):]
		if len(rest) == 0 {
			flushSome(some)
			break
		}
		own := append([]*conn(nil), some...)
		if !b.work.start(func() { flushSome(own) }) {
			flushSome(some)
		}
	}
	clear(k.conns)
	k.conns = k.conns[:0]
}

func flushSome(cs []*conn) {
	for _, c := range cs {
		if !c.claim() {
			continue
		}
		if c.raw == nil {
			if !c.b.work.start(func() { c.drain(true) }) {
				c.drain(true)
			}
			continue
		}
		c.drain(false)
	}
}

// startWriter starts a goroutine that writes. The caller has claimed.
func (b *Broker) startWriter(c *conn) {
	if !b.work.start(func() { c.drain(true) }) {
		c.out.writing = false
		c.breakOut() // the broker has stopped
	}
}
