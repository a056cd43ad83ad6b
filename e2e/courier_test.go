package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const courierWindow = 8 // unacked messages

// courier publishes numbered messages at QoS 1 or 2 from a session that it keeps,
// over as many connections as it takes. Its goroutine owns it until it ends.
type courier struct {
	addr, key, id string
	index         int
	version, qos  byte
	retain        bool
	topic         func(seq int) string
	period        time.Duration

	made       atomic.Int64 // below it every seq may have been written
	acks       *atomic.Int64
	known      bool // the server has confirmed a session
	queue      []*parcel
	violations []string
	due        time.Time
}

// parcel is a message that is not acknowledged for good.
type parcel struct {
	seq      int
	written  bool
	received bool // PUBREC was seen
}

func (p *parcel) id() uint16 { return packetID(p.seq) }

func (c *courier) violation(format string, args ...any) {
	if len(c.violations) < 10 {
		c.violations = append(c.violations, c.id+": "+fmt.Sprintf(format, args...))
	}
}

// run publishes until stopping, and then until all is acknowledged or ctx ends.
func (c *courier) run(ctx context.Context, stopping *atomic.Bool) {
	for ctx.Err() == nil && (!stopping.Load() || len(c.queue) > 0) {
		if err := c.connection(ctx, stopping); err != nil && errors.Is(err, errRefused) {
			c.violation("%v", err)
		}
		pause(ctx, 20*time.Millisecond+rand.N(100*time.Millisecond))
	}
	if len(c.queue) > 0 {
		c.violation("%d messages were never acknowledged", len(c.queue))
	}
}

func (c *courier) connection(ctx context.Context, stopping *atomic.Bool) error {
	w, err := dialWire(ctx, c.addr, c.version)
	if err != nil {
		return err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	present, err := w.connect(c.id, c.key, true)
	if err != nil {
		return err
	}
	if c.known && !present && len(c.queue) > 0 && c.queue[0].received {
		c.violation("its session is gone, with a message of QoS 2 that had its PUBREC")
	}
	c.known = true
	if _, err := w.Write(c.again(w)); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if stopping.Load() && len(c.queue) == 0 {
			_, err := w.Write([]byte{disconnectPacket, 0})
			return err
		}
		if err := c.turn(w, stopping.Load()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// again is what a client sends when it is back: PUBREL for what was received, and
// the rest once more, in order.
func (c *courier) again(w *wire) []byte {
	var b []byte
	for _, p := range c.queue {
		if p.received {
			b = append(b, ack(pubrelPacket, p.id())...)
			continue
		}
		b = append(b, c.packet(w, p)...)
	}
	return b
}

func (c *courier) packet(w *wire, p *parcel) []byte {
	dup := p.written
	p.written = true
	return w.publishPacket(p.id(), c.topic(p.seq), fmt.Sprintf("%d %d", c.index, p.seq), c.qos, dup, c.retain)
}

// turn writes what is due and takes one packet, if one comes before the next is due.
func (c *courier) turn(w *wire, stopping bool) error {
	now := time.Now()
	if c.due.Before(now.Add(-10 * c.period)) {
		c.due = now
	}
	for !stopping && len(c.queue) < courierWindow && !c.due.After(now) {
		p := &parcel{seq: int(c.made.Add(1) - 1)}
		c.queue = append(c.queue, p)
		c.due = c.due.Add(c.period)
		if _, err := w.Write(c.packet(w, p)); err != nil {
			return err
		}
	}
	until := now.Add(silence)
	pacing := !stopping && len(c.queue) < courierWindow
	if pacing {
		until = c.due
	}
	if err := w.SetReadDeadline(until); err != nil {
		return err
	}
	head, body, err := w.packet()
	if err != nil {
		if pacing && timedOut(err) {
			return nil
		}
		return err
	}
	return c.take(w, head, body)
}

func (c *courier) take(w *wire, head byte, body []byte) error {
	if head == disconnectPacket {
		return errors.New("disconnected")
	}
	if len(body) < 2 {
		return fmt.Errorf("a packet %#x of %d bytes", head, len(body))
	}
	id := binary.BigEndian.Uint16(body)
	// Whose PUBCOMP was lost sends PUBREL again, for an id that is free by now.
	freed := head == pubcompPacket && len(body) > 2 && body[2] == 0x92
	if len(body) > 2 && body[2] >= 0x80 && !freed {
		c.violation("packet %#x for message %d says %#x", head, id, body[2])
	}
	switch {
	case head == pubrecPacket && c.qos == 2:
		for _, p := range c.queue {
			if p.id() == id {
				p.received = true
				_, err := w.Write(ack(pubrelPacket, id))
				return err
			}
		}
		c.violation("PUBREC for message %d, which is not on its way", id)
	case head == pubackPacket && c.qos == 1, head == pubcompPacket && c.qos == 2:
		if len(c.queue) == 0 || c.queue[0].id() != id {
			c.violation("packet %#x for message %d, which is not the oldest on its way", head, id)
			return errors.New("out of order")
		}
		c.queue = c.queue[1:]
		c.acks.Add(1)
	default:
		c.violation("is sent a packet that begins with %#x", head)
	}
	return nil
}

// reader is a persistent subscriber that comes and goes. Its goroutine owns it,
// but for what mu guards.
type reader struct {
	addr, key, id string
	version       byte
	filter        string
	couriers      []*courier
	after         time.Duration // when it comes first

	subscribed bool
	half       map[uint16]bool // QoS 2 ids between PUBLISH and PUBREL

	mu         sync.Mutex
	from       []int64 // by courier: what it must get begins here; nil before SUBACK
	got        [][]int // by courier, as it came
	violations []string
}

func (r *reader) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.violations) < 10 {
		r.violations = append(r.violations, r.id+": "+fmt.Sprintf(format, args...))
	}
}

// run comes and goes until staying, and then stays until ctx ends.
func (r *reader) run(ctx context.Context, staying *atomic.Bool) {
	const stays, away = 1500 * time.Millisecond, 400 * time.Millisecond
	r.half, r.got = map[uint16]bool{}, make([][]int, len(r.couriers))
	pause(ctx, r.after)
	for ctx.Err() == nil {
		if err := r.connection(ctx, time.Now().Add(rand.N(stays)), staying); errors.Is(err, errRefused) {
			r.violation("%v", err)
		}
		pause(ctx, rand.N(away))
	}
}

func (r *reader) connection(ctx context.Context, leave time.Time, staying *atomic.Bool) error {
	w, err := dialWire(ctx, r.addr, r.version)
	if err != nil {
		return err
	}
	defer w.Close()
	stop := context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	present, err := w.connect(r.id, r.key, true)
	if err != nil {
		return err
	}
	if r.subscribed && !present {
		r.violation("its session is gone")
		r.subscribed = false
	}
	if !present {
		clear(r.half)
	}
	if !r.subscribed {
		if _, err := w.Write(w.subscribePacket(1, r.filter, 2)); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		if now := time.Now(); now.After(leave) && !staying.Load() {
			if rand.IntN(2) == 0 {
				_, err = w.Write([]byte{disconnectPacket, 0})
			}
			return err // or without a word
		}
		if err := w.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return err
		}
		head, body, err := w.packet()
		if timedOut(err) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		if err := r.take(w, head, body); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *reader) take(w *wire, head byte, body []byte) error {
	switch {
	case head>>4 == 3:
		p, err := w.parsePublish(head, body)
		if err != nil {
			r.violation("%v", err)
			return err
		}
		return r.receive(w, p)
	case head == pubrelPacket:
		id := binary.BigEndian.Uint16(body)
		delete(r.half, id)
		_, err := w.Write(ack(pubcompPacket, id))
		return err
	case head == subackPacket:
		if body[len(body)-1] > 2 {
			r.violation("SUBACK with %#x", body[len(body)-1])
			return errors.New("refused")
		}
		r.subscribed = true
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.from == nil {
			for _, c := range r.couriers {
				r.from = append(r.from, c.made.Load())
			}
		}
		return nil
	case head == disconnectPacket:
		return errors.New("disconnected")
	case head == pingrespPacket:
		return nil
	}
	r.violation("is sent a packet that begins with %#x", head)
	return errors.New("unexpected packet")
}

func (r *reader) receive(w *wire, p publication) error {
	index, seq := 0, 0
	if _, err := fmt.Sscanf(p.payload, "%d %d", &index, &seq); err != nil || index >= len(r.couriers) || p.qos != r.couriers[index].qos {
		r.violation("got %q at %s with QoS %d", p.payload, p.topic, p.qos)
		return errors.New("unexpected message")
	}
	if p.qos == 1 {
		r.note(index, seq)
		_, err := w.Write(ack(pubackPacket, p.id))
		return err
	}
	if !r.half[p.id] {
		r.half[p.id] = true
		r.note(index, seq)
	}
	_, err := w.Write(ack(pubrecPacket, p.id))
	return err
}

func (r *reader) note(index, seq int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[index] = append(r.got[index], seq)
}
