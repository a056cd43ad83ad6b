package journal

import (
	"context"
	"time"

	"muster"
	"muster/internal/lifecycle"
)

// commit appends the frame in flight until it is durable or ctx ends. When the log
// is full it makes room first.
func (j *Journal) commit(ctx context.Context) {
	f := j.flight
	if f.records == 0 {
		j.let(f, nil)
		return
	}
	if !f.doubt {
		j.loosen(ctx, f)
	}
	for wait := j.wait0; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		seq, err := j.send(ctx, f)
		if err == nil {
			j.dirty, j.blocked = true, false
			j.lastSize = f.records
			j.told.Records += uint64(f.records)
			j.settle(f, seq)
			return
		}
		if muster.KindOf(err) != muster.Busy {
			return // ctx ended
		}
		j.reread(ctx)
		if !j.makeRoom(ctx) && !pause(ctx, wait) {
			return
		}
	}
}

// send appends f until the log has answered for good: the frame's sequence, or Busy.
// While the log cannot be reached it may have taken the frame, so nothing overtakes it.
func (j *Journal) send(ctx context.Context, f *frame) (uint64, error) {
	f.seal(j.boot, j.prev, j.lowest())
	id := appendID(j.boot, f.number)
	for wait := j.wait0; ; wait = min(2*wait, lastWait) {
		doubt := f.doubt
		f.doubt = true
		seq, err := j.append(ctx, id, f.buf)
		if err == nil {
			j.taken(f, seq)
			return seq, nil
		}
		if ctx.Err() != nil {
			return 0, err
		}
		j.failed(err, "append to the journal")
		if muster.KindOf(err) == muster.Busy {
			if !doubt {
				f.doubt = false
				return 0, err
			}
			if seq, found, lost := j.find(ctx, f); lost == nil {
				if found {
					j.taken(f, seq)
					return seq, nil
				}
				f.doubt = false
				return 0, err
			}
		}
		if !pause(ctx, wait) {
			return 0, err
		}
	}
}

// taken notes that f is durable as frame seq.
func (j *Journal) taken(f *frame, seq uint64) {
	j.failing, j.saidOnce, j.told.Stuck = time.Time{}, false, 0
	j.prev, j.last, j.floor = seq, max(j.last, seq), f.floor
	j.told.Frames++
	j.told.LogBytes += int64(len(f.buf)) + frameOverhead
}

// find looks for f among the frames that the log has and this run has not heard of:
// an append without an answer, which a full log refused when it was repeated.
func (j *Journal) find(ctx context.Context, f *frame) (seq uint64, found bool, err error) {
	first, last, _, _, err := j.bounds(ctx)
	if err != nil {
		return 0, false, err
	}
	for seq := max(first, j.prev+1); seq <= last; seq++ {
		b, err := j.readFrame(ctx, seq)
		if err != nil && muster.KindOf(err) != muster.NotFound {
			return 0, false, err
		}
		if p, bad := parse(b); bad == nil && p.boot == j.boot && p.number == f.number {
			return seq, true, nil
		}
	}
	return 0, false, nil
}

func (j *Journal) append(ctx context.Context, id string, b []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return j.cfg.Log.Append(ctx, id, b)
}

// failed counts an error of the log, says it, and tells OnStuck when it lasts.
func (j *Journal) failed(err error, what string) {
	now := j.cfg.Now()
	if j.failing.IsZero() {
		j.failing = now
	}
	j.told.Errors++
	j.told.Stuck = now.Sub(j.failing)
	j.cfg.Logger.Error("the journal's log failed, trying again", "what", what, "err", err, "since", j.told.Stuck)
	j.tell()
	if j.told.Stuck < stuckAfter || j.saidOnce || j.cfg.OnStuck == nil {
		return
	}
	j.saidOnce = true
	if p := lifecycle.Guard(func() error { j.cfg.OnStuck(err); return nil }); p != nil {
		j.panicked("OnStuck", p)
	}
}
