package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"muster"
	"muster/internal/lifecycle"
)

// Log is the durable log that frames go to. Its frames are numbered from 1
// without gaps, but for a tail lost to a disk that lied.
type Log interface {
	// Append returns when frame is durable, with its number. id makes a repeated
	// Append of the same frame harmless. A Busy error says that the log is full.
	Append(ctx context.Context, id string, frame []byte) (seq uint64, err error)
	// Read returns frame seq. NotFound says it was purged or never written.
	Read(ctx context.Context, seq uint64) ([]byte, error)
	// State describes what the log holds.
	State(ctx context.Context) (LogState, error)
	// Purge forgets the frames up to and with seq.
	Purge(ctx context.Context, seq uint64) error
	// Renew gives the log another incarnation, after it lost its tail.
	Renew(ctx context.Context) (incarnation string, err error)
}

// LogState is what a Log holds. When it is empty First is Last+1.
type LogState struct {
	Incarnation string
	First, Last uint64
	Bytes       int64
	MaxBytes    int64
}

// committed is a frame that is durable in the log.
type committed struct {
	seq uint64
	f   *frame
}

// Watermarks on the unstored share of the log's bound (DESIGN section 3).
const (
	warnFill = 0.70 // said in the log and in a metric
	shedFill = 0.85 // QoS 0 is dropped
	waitFill = 0.95 // QoS 1 and 2 wait
)

// fill returns the share of the log's bound that is not stored yet.
func (in *Ingest) fill() float64 {
	if in.maxBytes == 0 {
		return 0
	}
	return float64(in.unstoredBytes()) / float64(in.maxBytes)
}

// unstoredBytes is what the log holds that the store does not: exact for this
// run's frames, an estimate for those found at start.
func (in *Ingest) unstoredBytes() int64 {
	backlog := int64(in.startLast) - int64(in.place.Load())
	return in.unstored.Load() + in.backlogPer*max(backlog, 0)
}

func (in *Ingest) shed(qos byte) bool     { return qos == 0 && in.fill() >= shedFill }
func (in *Ingest) mustWait(qos byte) bool { return qos > 0 && in.fill() >= waitFill }

// linger is how long a frame that several clients feed is kept open for more: it
// costs a device nothing and saves an fsync.
const (
	linger      = 2 * time.Millisecond
	lingerCount = 16 // messages in the frame before that say that more are coming
)

// commit is the loop that makes frames durable, one at a time and in order.
func (in *Ingest) commit(ctx context.Context) error {
	b := &in.builder
	last := 0
	for ctx.Err() == nil {
		if b.empty() {
			select {
			case <-b.wake:
			case <-ctx.Done():
				continue
			}
		}
		if last >= lingerCount && !b.pressed() {
			in.linger(ctx)
		}
		if f := b.take(); f != nil {
			last = f.count()
			in.commitFrame(ctx, f)
		}
	}
	return nil
}

// pressed says whether a full frame waits, or the one under way is large.
func (b *builder) pressed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sealed) > 0 || b.taken != nil || b.cur.count() >= 500
}

func (in *Ingest) linger(ctx context.Context) {
	t := time.NewTimer(linger)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// commitFrame appends f until it is durable or ctx ends, and hands it on.
func (in *Ingest) commitFrame(ctx context.Context, f *frame) {
	body := f.w.seal(in.total)
	id := fmt.Sprintf("%s-%d", in.boot, in.frames)
	began := in.cfg.Now()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		seq, err := in.cfg.Log.Append(ctx, id, body)
		if err == nil {
			in.total += uint64(f.count())
			in.frames++
			f.bytes = int64(len(body))
			in.unstored.Add(f.bytes)
			in.lastSeq.Store(seq)
			in.metrics.frame(f.count(), len(body), in.cfg.Now().Sub(began))
			in.builder.done()
			select {
			case in.finished <- committed{seq, f}:
			case <-ctx.Done():
			}
			return
		}
		if ctx.Err() != nil {
			return // stopping: what is not durable was not acknowledged
		}
		in.metrics.appendErrors.Inc()
		in.cfg.Logger.Error("append to the log failed, trying again", "err", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// finish is the loop behind commit: latest values, acknowledgements, live events,
// and the hand-over to the writer, in log order.
func (in *Ingest) finish(ctx context.Context) error {
	for {
		select {
		case c := <-in.finished:
			in.finishFrame(c)
		case <-ctx.Done():
			return nil
		}
	}
}

func (in *Ingest) finishFrame(c committed) {
	f := c.f
	durable := muster.MicrosOf(in.cfg.Now())
	in.observe(f)
	in.totals.update(func(l *Ledger) { l.receive(uint64(f.count())) })
	in.stored.add(c.seq, f.late)
	in.recent.push(c)
	in.applied.Store(c.seq) // from here on the writer may settle the frame
	in.recent.signal()
	in.tell(f.acks)
	in.tellRooms(f, durable)
}

// tellRooms tells the other rooms of a frame; a panic of theirs ends there.
func (in *Ingest) tellRooms(f *frame, durable muster.Micros) {
	err := lifecycle.Guard(func() error {
		in.traceDurable(f, durable)
		if in.cfg.Observe != nil && len(f.readings) > 0 {
			in.cfg.Observe(f.readings)
		}
		for i := range f.rejected {
			if in.cfg.OnRejected != nil {
				in.cfg.OnRejected(f.rejected[i])
			}
		}
		return nil
	})
	if err != nil {
		in.cfg.Logger.Error("a room failed on a frame", "err", err)
	}
}

func (in *Ingest) observe(f *frame) {
	var dirty []*device
	for i := range f.readings {
		d := f.devices[i]
		d.mu.Lock()
		d.ledger.receive(1)
		if d.observe(&f.readings[i], in.fleet.sets) {
			dirty = append(dirty, d)
		}
		d.mu.Unlock()
	}
	for _, d := range f.rejectedFrom {
		d.mu.Lock()
		d.ledger.receive(1)
		d.mu.Unlock()
	}
	in.fleet.markDirty(dirty)
}

// tell tells each sender; one that panics keeps nothing from the others.
func (in *Ingest) tell(acks []ack) {
	for i := range acks {
		if v := acks[i].tell(); v != nil {
			in.metrics.ackPanics.Inc()
			in.cfg.Logger.Error("a sender failed on its acknowledgement", "panic", v)
		}
	}
}

// tell returns the sender's panic, nil when there was none.
func (a *ack) tell() (panicked any) {
	defer func() { panicked = recover() }()
	a.from.Acked(a.token, a.err)
	return nil
}

// storedAcks holds the acknowledgements of level stored until their frame is in
// the store. It is bounded by the sources: each has a window.
type storedAcks struct {
	mu    sync.Mutex
	queue []owed
}

type owed struct {
	seq  uint64
	acks []ack
}

func (s *storedAcks) add(seq uint64, acks []ack) {
	if len(acks) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, owed{seq, acks})
}

// release returns the acknowledgements of the frames up to and with seq, in order.
func (s *storedAcks) release(seq uint64) []owed {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.queue) && s.queue[n].seq <= seq {
		n++
	}
	due := s.queue[:n]
	s.queue = s.queue[n:]
	return due
}

// recent hands committed frames to the writer without reading them back. It is
// bounded in bytes; what does not fit the writer reads from the log.
type recent struct {
	mu    sync.Mutex
	queue []committed
	bytes int64
	wake  chan struct{}
}

const maxRecent = 16 << 20 // bytes of frames

func (r *recent) push(c committed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes < maxRecent {
		r.queue = append(r.queue, c)
		r.bytes += c.f.bytes
	}
}

// signal tells the writer that there is something to store.
func (r *recent) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// peek returns frame seq if it is the oldest kept; older ones are let go.
func (r *recent) peek(seq uint64) (*frame, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 && r.queue[0].seq < seq {
		r.drop()
	}
	if len(r.queue) == 0 || r.queue[0].seq != seq {
		return nil, false
	}
	return r.queue[0].f, true
}

// pop lets the oldest frame go.
func (r *recent) pop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}

func (r *recent) drop() {
	r.bytes -= r.queue[0].f.bytes
	r.queue[0] = committed{}
	r.queue = r.queue[1:]
}
