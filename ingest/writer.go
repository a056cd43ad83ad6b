package ingest

import (
	"context"
	"fmt"
	"time"

	"muster"
)

// appendTimeout bounds one try of the store.
const appendTimeout = 30 * time.Second

// work is what the writer stores in one step: the frames after its place.
type work struct {
	readings []muster.Reading
	rejected []muster.Rejected
	to       uint64 // last frame
	bytes    int64  // of the frames committed in this run
	traces   []traced
	back     []span // readings of this run that were read back from the log
}

// write is the loop from the log to the store.
func (in *Ingest) write(ctx context.Context) error {
	for {
		w, err := in.collect(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if w == nil {
			select {
			case <-in.recent.wake:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if err := in.storeWork(ctx, w); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// collect gathers the frames that are there, up to MaxBatch messages; nil when
// there is none.
func (in *Ingest) collect(ctx context.Context) (*work, error) {
	w := &work{to: in.place.Load()}
	for len(w.readings) < MaxBatch && w.to < in.applied.Load() && ctx.Err() == nil {
		seq := w.to + 1
		f, ok := in.recent.peek(seq)
		if !ok {
			more, err := in.readBack(ctx, w, seq)
			if err != nil {
				return nil, err
			}
			if !more {
				break
			}
			continue
		}
		if len(w.readings)+len(f.readings) > MaxBatch {
			break
		}
		in.recent.pop()
		for _, t := range f.traces {
			t.first += len(w.readings)
			w.traces = append(w.traces, t)
		}
		w.readings = append(w.readings, f.readings...)
		w.rejected = append(w.rejected, f.rejected...)
		w.bytes += f.bytes
		w.to = seq
	}
	if w.to == in.place.Load() {
		return nil, nil
	}
	return w, nil
}

// readBack adds frame seq, read from the log, to w; more is false when it does not
// fit. A frame that was purged or is damaged is passed over, and said: it can not be
// had again.
func (in *Ingest) readBack(ctx context.Context, w *work, seq uint64) (more bool, err error) {
	body, err := in.cfg.Log.Read(ctx, seq)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return false, fmt.Errorf("read frame %d: %w", seq, err)
	}
	if err != nil {
		in.lostFrame(seq, err)
		w.to = seq
		return true, nil
	}
	readings, rejected, _, err := readFrame(body, in.layouts.Intern)
	if err != nil {
		in.lostFrame(seq, err)
		w.to = seq
		return true, nil
	}
	if len(w.readings) > 0 && len(w.readings)+len(readings) > MaxBatch {
		return false, nil
	}
	w.to = seq
	if seq <= in.startLast {
		in.recoverFrame(readings, rejected)
	} else {
		w.bytes += int64(len(body))
		w.back = append(w.back, span{len(w.readings), len(readings)})
	}
	w.readings = append(w.readings, readings...)
	w.rejected = append(w.rejected, rejected...)
	return true, nil
}

func (in *Ingest) lostFrame(seq uint64, err error) {
	in.metrics.lostFrames.Inc()
	in.cfg.Logger.Error("a frame of the log can not be read; its messages are lost", "seq", seq, "err", err)
}

// recoverFrame counts a frame that was in the log at start for its devices.
func (in *Ingest) recoverFrame(readings []muster.Reading, rejected []muster.Rejected) {
	count := func(id muster.DeviceID) {
		d := in.fleet.get(id)
		d.mu.Lock()
		d.ledger.recover(1)
		d.mu.Unlock()
	}
	for i := range readings {
		count(readings[i].Device)
	}
	for i := range rejected {
		count(rejected[i].Device)
	}
}

// storeWork stores w and moves the writer's place.
func (in *Ingest) storeWork(ctx context.Context, w *work) error {
	to := Cursor{in.incarnation, w.to}
	batch := Batch{From: in.writerCursor(), To: to, Readings: w.readings, Rejected: w.rejected}
	began := in.cfg.Now()
	outcomes, err := in.try(ctx, batch)
	if muster.KindOf(err) == muster.Invalid && err != nil {
		outcomes, err = in.split(ctx, batch)
	}
	if err != nil {
		return err
	}
	in.metrics.batch(in.cfg.Now().Sub(began))
	in.settle(w, outcomes)
	in.cursorMu.Lock()
	in.writer = to
	in.cursorMu.Unlock()
	in.place.Store(w.to)
	in.unstored.Add(-w.bytes)
	for _, o := range in.stored.release(w.to) {
		in.tell(o.acks)
	}
	in.builder.broadcast()
	in.traceStored(w, outcomes)
	return nil
}

func (in *Ingest) writerCursor() Cursor {
	in.cursorMu.Lock()
	defer in.cursorMu.Unlock()
	return in.writer
}

// try appends b until the store answers; only Invalid is handed back. A commit
// whose answer was lost is found by the cursor.
func (in *Ingest) try(ctx context.Context, b Batch) ([]Outcome, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		tctx, cancel := context.WithTimeout(ctx, appendTimeout)
		in.trying.Store(in.cfg.Now().UnixNano())
		outcomes, err := in.cfg.Store.Append(tctx, b)
		in.trying.Store(0)
		cancel()
		switch {
		case err == nil:
			in.setStoreDown(false, nil)
			return outcomes, nil
		case muster.KindOf(err) == muster.Invalid:
			return nil, err
		case muster.KindOf(err) == muster.Conflict:
			done, cerr := in.committedAlready(ctx, b)
			if done {
				return make([]Outcome, len(b.Readings)), nil
			}
			if cerr != nil {
				err = cerr
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		in.setStoreDown(true, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// committedAlready says whether b is in the store: its commit went through and
// only the answer was lost.
func (in *Ingest) committedAlready(ctx context.Context, b Batch) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	have, _, err := in.cfg.Store.Cursors(ctx)
	if err != nil {
		return false, err
	}
	if have == b.To && b.From != b.To {
		return true, nil
	}
	return false, muster.Errorf(muster.Conflict, "another writer moved the cursor to %d of %s", have.Seq, have.Incarnation)
}

// stuckAfter is how long one append may take before the store counts as down.
const stuckAfter = 5 * time.Second

// isStoreDown says whether the store does not take data: the last try failed, or
// the one under way hangs.
func (in *Ingest) isStoreDown() bool {
	began := in.trying.Load()
	return in.storeDown.Load() || began != 0 && in.cfg.Now().UnixNano()-began > int64(stuckAfter)
}

func (in *Ingest) setStoreDown(down bool, err error) {
	if in.storeDown.Swap(down) == down {
		return
	}
	if down {
		in.cfg.Logger.Error("the store does not take data; the log holds it", "err", err)
	} else {
		in.cfg.Logger.Info("the store takes data")
	}
}

// refusedOutcome marks a reading that became a rejected message.
const refusedOutcome = 255

// split stores what it can of b: the messages the store refuses stand alone in the
// end and become rejected, then the cursor moves.
func (in *Ingest) split(ctx context.Context, b Batch) ([]Outcome, error) {
	rejected := append([]muster.Rejected(nil), b.Rejected...)
	outcomes := make([]Outcome, len(b.Readings))
	var halve func(lo, hi int) error
	halve = func(lo, hi int) error {
		if lo == hi {
			return nil
		}
		part, err := in.try(ctx, Batch{Readings: b.Readings[lo:hi]})
		if err == nil {
			copy(outcomes[lo:], part)
			return nil
		}
		if muster.KindOf(err) != muster.Invalid {
			return err
		}
		if hi-lo == 1 {
			outcomes[lo] = refusedOutcome
			rejected = append(rejected, storeRejected(&b.Readings[lo], err))
			return nil
		}
		mid := lo + (hi-lo)/2
		if err := halve(lo, mid); err != nil {
			return err
		}
		return halve(mid, hi)
	}
	if err := halve(0, len(b.Readings)); err != nil {
		return nil, err
	}
	if _, err := in.try(ctx, Batch{From: b.From, To: b.To, Rejected: rejected}); err != nil {
		return nil, fmt.Errorf("store %d rejected messages: %w", len(rejected), err)
	}
	if in.cfg.OnRejected != nil {
		for _, r := range rejected[len(b.Rejected):] {
			in.cfg.OnRejected(r)
		}
	}
	return outcomes, nil
}

// storeRejected keeps as rejected a reading that the store refuses.
func storeRejected(r *muster.Reading, err error) muster.Rejected {
	payload := AppendJSON(nil, r)
	size := len(payload)
	return muster.Rejected{
		Device: r.Device, Arrival: r.Arrival, Topic: "devices/" + string(r.Device) + "/telemetry",
		Code: "store", Reason: plainText(muster.Public(err)), Payload: payload[:min(size, keepPayload)], Size: size,
	}
}

// settle books what became of w's messages.
func (in *Ingest) settle(w *work, outcomes []Outcome) {
	var n [3]uint64
	refused := uint64(len(w.rejected))
	var d *device
	for i := range w.readings {
		if d == nil || d.id != w.readings[i].Device {
			d = in.fleet.get(w.readings[i].Device)
		}
		d.mu.Lock()
		if o := outcomes[i]; o == refusedOutcome {
			d.ledger.reject(1)
			refused++
		} else {
			d.ledger.settle(o, 1)
			n[o]++
		}
		d.mu.Unlock()
	}
	for i := range w.rejected {
		d := in.fleet.get(w.rejected[i].Device)
		d.mu.Lock()
		d.ledger.reject(1)
		d.mu.Unlock()
	}
	in.totals.update(func(l *Ledger) {
		l.settle(Stored, n[Stored])
		l.settle(Duplicate, n[Duplicate])
		l.settle(Replaced, n[Replaced])
		l.reject(refused)
	})
}
