package ingest

import (
	"context"
	"strings"
	"sync"
	"time"

	"muster"
)

// Bounds of what waits in memory for the log.
const (
	frameTarget = 256 << 10           // bytes at which a frame is closed
	frameMost   = MaxBatch - maxArray // messages at which a frame is closed: one more payload fits a batch
	maxSealed   = 32                  // closed frames waiting; full: QoS 1 waits, QoS 0 is dropped
	keepPayload = 4 << 10             // bytes kept of a rejected payload
	maxWait     = 20 * time.Second    // for room, before the sender is told to come back
)

// ack is an acknowledgement owed.
type ack struct {
	from  Acker
	token uint64
	err   error
}

// frame is a frame under way and what hangs on it.
type frame struct {
	w            *frameWriter
	began        time.Time
	bytes        int64     // in the log, set when it is durable
	numbers      []float64 // backs the readings' Numbers
	readings     []muster.Reading
	devices      []*device // of readings
	rejected     []muster.Rejected
	rejectedFrom []*device
	acks         []ack // at level durable
	late         []ack // at level stored
	traces       []traced
}

func (f *frame) count() int { return len(f.readings) + len(f.rejected) }

// builder collects accepted messages into frames for the committer.
type builder struct {
	mu     sync.Mutex
	cur    *frame
	sealed []*frame
	taken  *frame // at the committer; kept until it is durable
	closed bool
	room   chan struct{} // closed and replaced when room appears
	wake   chan struct{} // one token: there is something to commit
	floor  muster.Micros // no arrival time is given out before this

	taking, durable uint64 // frames of this run that the committer took, and made durable
	deletions       uint64 // of devices
}

func (b *builder) init() {
	b.cur = &frame{w: newFrameWriter()}
	b.room = make(chan struct{})
	b.wake = make(chan struct{}, 1)
}

// full says whether nothing more fits. The caller holds b.mu.
func (b *builder) full() bool { return len(b.sealed) >= maxSealed }

// broadcast tells those that wait for room to look again.
func (b *builder) broadcast() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.room)
	b.room = make(chan struct{})
}

func (b *builder) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.broadcast()
	b.signal()
}

func (b *builder) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// empty says whether everything accepted is durable.
func (b *builder) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.taken == nil && len(b.sealed) == 0 && b.cur.count() == 0
}

// take returns the next frame to commit, nil when there is none. It returns the
// same frame until done is called.
func (b *builder) take() *frame {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken != nil {
		return b.taken
	}
	switch {
	case len(b.sealed) > 0:
		b.taken = b.sealed[0]
		b.sealed = b.sealed[1:]
		close(b.room)
		b.room = make(chan struct{})
	case b.cur.count() > 0:
		b.taken = b.cur
		b.cur = &frame{w: newFrameWriter()}
	}
	if b.taken != nil {
		b.taking++
	}
	return b.taken
}

func (b *builder) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = nil
	b.durable++
}

// enqueue puts what d decoded from m into the frame under way.
func (in *Ingest) enqueue(ctx context.Context, dev *device, m *Message, d *decoder, now muster.Micros) error {
	return in.enqueueSized(ctx, dev, m, d, now, -1)
}

func (in *Ingest) enqueueSized(ctx context.Context, dev *device, m *Message, d *decoder, now muster.Micros, size int) error {
	b := &in.builder
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			in.step(d.trace, StepDropped)
			return muster.Errorf(muster.Busy, "the server is stopping")
		}
		if !dev.known.Load() {
			b.mu.Unlock()
			in.step(d.trace, StepDropped)
			return in.unknown()
		}
		if !b.full() && !in.mustWait(m.QoS) {
			break
		}
		room := b.room
		b.mu.Unlock()
		if m.QoS == 0 {
			in.dropped(dev, len(d.messages)+len(d.refused))
			in.step(d.trace, StepDropped)
			return nil
		}
		if !waitFor(ctx, room) {
			in.step(d.trace, StepDropped)
			return muster.Errorf(muster.Busy, "the log is full")
		}
	}
	level := in.level(m.Device)
	in.append(dev, m, d, now, size, level)
	b.mu.Unlock()
	b.signal()
	if d.trace != nil {
		d.trace.Arrived(d.arrivals)
	}
	if level == LevelReceived && m.From != nil {
		m.From.Acked(m.Token, refusal(d))
		in.step(d.trace, StepAcked)
	}
	return nil
}

// level is when messages of a device are acknowledged.
func (in *Ingest) level(id muster.DeviceID) AckLevel {
	if in.cfg.LevelOf != nil {
		if l := in.cfg.LevelOf(id); l != "" {
			return l
		}
	}
	return in.cfg.Level
}

// waitFor waits for room; false says that there was none in time.
func waitFor(ctx context.Context, room <-chan struct{}) bool {
	t := time.NewTimer(maxWait)
	defer t.Stop()
	select {
	case <-room:
		return true
	case <-ctx.Done():
		return false
	case <-t.C:
		return false
	}
}

// append adds d's messages to the current frame; the caller holds b.mu.
func (in *Ingest) append(dev *device, m *Message, d *decoder, now muster.Micros, size int, level AckLevel) {
	b := &in.builder
	f := b.cur
	if f.count() == 0 {
		f.began = in.cfg.Now()
	}
	now = max(now, b.floor)
	if d.trace != nil {
		f.traces = append(f.traces, traced{d.trace, len(f.readings), len(d.messages), m.From != nil, level})
	}
	for i := range d.messages {
		f.addReading(dev, &d.messages[i], d.arrival(dev, now))
	}
	for i := range d.refused {
		f.addRejected(dev, m, &d.refused[i], d.arrival(dev, now), size)
	}
	if m.From != nil {
		switch a := (ack{m.From, m.Token, refusal(d)}); level {
		case LevelStored:
			f.late = append(f.late, a)
		case LevelDurable:
			f.acks = append(f.acks, a)
		case LevelReceived: // at once
		}
	}
	if f.w.size() >= frameTarget || f.count() >= frameMost {
		b.sealed = append(b.sealed, f)
		b.cur = &frame{w: newFrameWriter()}
	}
}

// arrival gives out the time of a message of dev that came at now.
func (d *decoder) arrival(dev *device, now muster.Micros) muster.Micros {
	at := dev.nextArrival(now)
	if d.trace != nil {
		d.arrivals = append(d.arrivals, at)
	}
	return at
}

// refusal is what the sender is told: an error only when nothing of it was kept.
func refusal(d *decoder) error {
	if len(d.messages) > 0 || len(d.refused) == 0 {
		return nil
	}
	f := d.refused[0].fault
	if f.code == "topic" {
		return muster.Errorf(muster.Forbidden, "%s", f.reason)
	}
	return muster.Errorf(muster.Invalid, "%s", f.reason)
}

func (f *frame) addReading(dev *device, d *decoded, arrival muster.Micros) {
	n := len(f.numbers)
	f.numbers = append(f.numbers, d.numbers...)
	r := muster.Reading{
		Device: dev.id, Time: d.time, Arrival: arrival, Layout: d.layout,
		Numbers: f.numbers[n:len(f.numbers):len(f.numbers)],
	}
	if r.Time == 0 {
		r.Time = arrival
	}
	if len(d.texts) > 0 {
		r.Texts = append([]string(nil), d.texts...)
	}
	f.w.reading(&r)
	f.readings = append(f.readings, r)
	f.devices = append(f.devices, dev)
}

func (f *frame) addRejected(dev *device, m *Message, d *refused, arrival muster.Micros, size int) {
	payload := d.payload
	if size < 0 {
		size = len(payload)
	}
	if len(payload) > keepPayload {
		payload = payload[:keepPayload]
	}
	r := muster.Rejected{
		Device: dev.id, Arrival: arrival, Topic: plainText(m.Topic), Code: d.fault.code,
		Reason: plainText(d.fault.reason), Payload: append([]byte(nil), payload...), Size: size,
	}
	f.w.rejected(&r)
	f.rejected = append(f.rejected, r)
	f.rejectedFrom = append(f.rejectedFrom, dev)
}

// plainText copies s without what no text column keeps.
func plainText(s string) string {
	return strings.Clone(strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD"))
}
