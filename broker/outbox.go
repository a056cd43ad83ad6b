package broker

import (
	"sync"
	"time"
)

// Bounds on what waits to be written to one client.
const (
	softOut   = 1 << 20 // bytes; above it messages to the client are dropped, below a quarter of it it may publish
	hardOut   = 8 << 20 // bytes; above it the client is cut
	writeTime = 10 * time.Second
	pooledOut = 64 << 10 // a larger buffer is not kept for reuse
)

// pending is a QoS 1 or 2 message that has not been acknowledged.
type pending struct {
	id   uint16
	qos  byte
	done bool
	err  error     // when done: why it is refused
	copy *delivery // goes to subscribers once it is kept; nil when nobody wants it
}

// outbox is what leaves on one connection: the bytes of whole packets in order,
// and the messages that wait for their acknowledgement. Nobody who puts something
// in ever waits for the network: one writer goroutine lives while there is
// something to write, so there are never more of them than connections. A write
// that takes longer than writeTime cuts the client.
type outbox struct {
	c      *conn
	window int // the most pending messages; room blocks above it

	mu      sync.Mutex
	change  sync.Cond // on mu: something left, or the box was shut
	bytes   []byte
	copies  []*delivery
	queue   []pending // in publish order; the first has token base
	base    uint64
	writing bool // the writer goroutine lives
	held    bool // nothing is written yet: the session is not established
	sealed  bool // the last packet is in: what comes now is dropped
	broken  bool // the network failed, or the connection has ended
	denied  bool // a message was refused for now without an ack: no later one is acked
}

func newOutbox(c *conn, window int) *outbox {
	o := &outbox{c: c, window: window, held: true}
	o.change.L = &o.mu
	return o
}

// reserve puts a message in the queue and returns its token. It waits while the
// window is full or the client does not read, and returns false when the
// connection ends meanwhile.
func (o *outbox) reserve(id uint16, qos byte, d *delivery) (uint64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.shut() && (len(o.queue) >= o.window || len(o.bytes) > softOut/4) {
		o.change.Wait()
	}
	if o.shut() {
		return 0, false
	}
	o.queue = append(o.queue, pending{id: id, qos: qos, copy: d})
	return o.base + uint64(len(o.queue)-1), true
}

func (o *outbox) shut() bool { return o.broken || o.sealed || o.c.closed.Load() }

// settle marks token's message as decided and lets every acknowledgement leave
// that is now first in order. It blocks for no longer than other short critical
// sections of the same connection.
func (o *outbox) settle(token uint64, err error) {
	o.mu.Lock()
	i := token - o.base
	if i >= uint64(len(o.queue)) || o.queue[i].done {
		o.mu.Unlock()
		return // told twice, which an Acker need not survive but should
	}
	o.queue[i].done, o.queue[i].err = true, err
	foreign, cut := o.advance()
	o.start()
	o.mu.Unlock()
	o.change.Broadcast()
	for _, f := range foreign {
		f.to.out.add(f.packet)
	}
	if cut {
		o.c.cut(causeRefused)
	}
}

// parcel is a packet for the connection that took a session over.
type parcel struct {
	to     *conn
	packet []byte
}

// advance takes decided messages off the front of the queue. cut says that the
// client must be closed because 3.1.1 has no other way to refuse for now.
func (o *outbox) advance() (foreign []parcel, cut bool) {
	n := 0
	for ; n < len(o.queue) && o.queue[n].done; n++ {
		p := &o.queue[n]
		code := codeOf(p.err)
		if code == codeSuccess && p.copy != nil {
			o.copies = append(o.copies, p.copy)
		}
		if code == codeQuota && o.c.dialect.version < 5 {
			o.denied, cut = true, true
		}
		if p.qos == 2 {
			foreign = o.pubrec(p, code, foreign)
		} else {
			o.ack(headPuback, p, code)
		}
	}
	if n > 0 {
		o.queue = o.queue[:copy(o.queue, o.queue[n:])]
		clear(o.queue[len(o.queue) : len(o.queue)+n])
		o.base += uint64(n)
	}
	return foreign, cut
}

func (o *outbox) ack(head byte, p *pending, code byte) {
	if !o.denied && !o.sealed && !o.broken {
		o.bytes = o.c.dialect.appendAck(o.buffer(), head, p.id, code, reasonOf(p.err))
	}
}

func (o *outbox) pubrec(p *pending, code byte, foreign []parcel) []parcel {
	// 3.1.1 cannot refuse for good: its client goes on to PUBREL.
	kept := code == codeSuccess || code != codeQuota && o.c.dialect.version < 5
	to := o.c.qos2.settle(p.id, kept)
	if to != nil && to != o.c {
		return append(foreign, parcel{to, to.dialect.appendAck(nil, headPubrec, p.id, code, reasonOf(p.err))})
	}
	o.ack(headPubrec, p, code)
	return foreign
}

// buffer returns bytes, from the pool when there is none.
func (o *outbox) buffer() []byte {
	if o.bytes == nil {
		o.bytes = o.c.b.buffers.get()
	}
	return o.bytes
}

// add puts a whole packet in. It returns false when the connection ends or its
// client reads so slowly that it must be cut.
func (o *outbox) add(packet []byte) bool {
	o.mu.Lock()
	if o.broken || o.sealed {
		o.mu.Unlock()
		return false
	}
	if len(o.bytes)+len(packet) > hardOut {
		o.broken = true
		o.mu.Unlock()
		o.c.cut(causeSlow)
		return false
	}
	o.bytes = append(o.buffer(), packet...)
	o.sealed = packet[0] == headDisconnect
	o.start()
	o.mu.Unlock()
	return true
}

// full says that the client reads too slowly to be sent messages.
func (o *outbox) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.bytes) > softOut
}

// seal puts the connection's last packet in (it may be empty) and drops what comes
// later.
func (o *outbox) seal(last []byte) {
	o.mu.Lock()
	if !o.sealed && !o.broken {
		o.bytes = append(o.buffer(), last...)
	}
	o.sealed, o.held = true, false
	o.start()
	o.mu.Unlock()
	o.change.Broadcast()
}

// release lets what has been held back leave.
func (o *outbox) release() {
	o.mu.Lock()
	o.held = false
	o.start()
	o.mu.Unlock()
}

// start starts the writer when there is something to do and it does not live.
func (o *outbox) start() {
	if o.writing || o.held || len(o.bytes) == 0 && len(o.copies) == 0 {
		return
	}
	if !o.c.b.work.start(o.write) {
		o.bytes, o.copies, o.broken = nil, nil, true // the broker has stopped
		return
	}
	o.writing = true
}

// write is the writer goroutine.
func (o *outbox) write() {
	for {
		bytes, copies, more := o.take()
		if !more {
			return
		}
		if len(bytes) > 0 {
			o.send(bytes)
			o.c.b.buffers.put(bytes)
		}
		for _, d := range copies {
			o.c.b.deliverSafely(d)
		}
	}
}

func (o *outbox) take() (bytes []byte, copies []*delivery, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.bytes) == 0 && len(o.copies) == 0 {
		o.writing = false
		o.change.Broadcast()
		return nil, nil, false
	}
	bytes, copies = o.bytes, o.copies
	o.bytes, o.copies = nil, nil
	o.change.Broadcast()
	if o.broken {
		return nil, copies, true
	}
	return bytes, copies, true
}

func (o *outbox) send(bytes []byte) {
	err := o.c.nc.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = o.c.nc.Write(bytes)
	}
	if err == nil {
		o.c.b.metrics.bytesOut.Add(float64(len(bytes)))
		return
	}
	o.fail()
	o.c.cut(causeSlow)
}

// fail drops what is in the box and all that comes.
func (o *outbox) fail() {
	o.mu.Lock()
	o.broken, o.bytes = true, nil
	o.mu.Unlock()
	o.change.Broadcast()
}

// wait waits until every message is decided (and, with written, all bytes have
// left), until the box breaks or d has passed.
func (o *outbox) wait(d time.Duration, written bool) {
	late := false
	t := time.AfterFunc(d, func() {
		o.mu.Lock()
		late = true
		o.mu.Unlock()
		o.change.Broadcast()
	})
	defer t.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !late && !o.broken {
		if written && !o.writing && len(o.bytes) == 0 || !written && len(o.queue) == 0 {
			return
		}
		o.change.Wait()
	}
}

// wake lets those who wait look again.
func (o *outbox) wake() {
	o.mu.Lock() // whoever has looked is waiting by now
	defer o.mu.Unlock()
	o.change.Broadcast()
}

// buffers is a pool of write buffers.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return make([]byte, 0, 512)
}

func (b *buffers) put(p []byte) {
	if cap(p) <= pooledOut {
		b.pool.Put(&p)
	}
}
