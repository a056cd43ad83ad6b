package journal

import (
	"context"
	"fmt"
	"sync"
	"time"

	"muster"
	"muster/internal/lifecycle"
)

// Times of the loop.
const (
	callTimeout = 10 * time.Second // of one call of the log
	stopTimeout = 5 * time.Second  // of the appends after Run's context ended
	firstWait   = 50 * time.Millisecond
	lastWait    = 2 * time.Second
	stuckAfter  = 5 * time.Second
	purgeSoon   = 50 * time.Millisecond // where Room waits for it
	purgeOften  = time.Second           // where the log is more than half full
	purgeEvery  = 5 * time.Second       // otherwise: it costs the log some milliseconds
	retryItem   = time.Second           // that had gone
	leastSleep  = 10 * time.Millisecond
)

const (
	frameOverhead = 128 // bytes a log adds to a frame, for the estimate between two readings
	lingerRecords = 16  // in the frame before, which say that more are coming
	answersAhead  = 4   // durable frames whose writers are not told yet; full: the loop waits
)

// loop is what belongs to Run alone, and to Replay before it.
type loop struct {
	items    itemList
	replayed bool
	current  uint32 // size of the record that is replayed
	first    uint64 // the log's oldest frame
	last     uint64 // its newest
	prev     uint64 // its newest that can be read
	floor    uint64 // of the newest durable frame: nothing below is needed
	number   uint64 // of the frame sealed last
	flight   *frame // taken and not durable
	lastSize int    // records in the frame before
	told     Stats
	wait0    time.Duration // first wait after a failed append
	largest  int64         // bytes of a frame where the log is large
	least    int64         // the same where it is small
	slack    int64         // bytes of dead log that are left so
	failing  time.Time     // since when appends fail, zero when they do not
	saidOnce bool          // OnStuck was told
	answers  chan *frame
	cleaner
}

func (l *loop) start() {
	l.items.init()
	l.wait0, l.largest, l.least, l.slack = firstWait, frameMost, frameLeast, leastDead
	l.dirty = true
}

// Run is the loop that appends, cleans and purges. It tries again for as long as the
// log cannot be reached or is full; nothing is lost or reordered meanwhile. It ends
// when ctx does, after one last attempt to append what is pending (5 s at most): the
// writers of what could not be appended are told its error. It returns Invalid when
// the log holds frames and Replay was not called. After a panic it may be run again.
func (j *Journal) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	answers := make(chan *frame, answersAhead)
	j.answers = answers
	wg.Go(func() {
		for f := range answers {
			j.answer(f)
		}
	})
	defer wg.Wait()
	defer close(answers)
	err := j.begin(ctx)
	for err == nil && ctx.Err() == nil {
		j.idle(ctx)
		j.step(ctx)
	}
	if ctx.Err() == nil {
		return err
	}
	j.stop(ctx, err)
	return nil
}

// begin learns the log's bounds; it tries until it has them or ctx ends.
func (j *Journal) begin(ctx context.Context) error {
	j.mu.Lock()
	j.ended = nil
	j.mu.Unlock()
	j.items.sort()
	for wait := j.wait0; ; wait = min(2*wait, lastWait) {
		first, last, bytes, maxBytes, err := j.bounds(ctx)
		if err == nil {
			if !j.replayed && first <= last {
				return muster.Errorf(muster.Invalid, "the journal's log holds frames %d to %d that were not replayed", first, last)
			}
			if !j.replayed {
				j.replayed, j.prev, j.floor = true, last, last+1
			}
			j.setBounds(first, last, bytes, maxBytes)
			return nil
		}
		j.failed(err, "read the journal's state")
		if !pause(ctx, wait) {
			return err
		}
	}
}

func (j *Journal) bounds(ctx context.Context) (first, last uint64, bytes, maxBytes int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return j.cfg.Log.Bounds(ctx)
}

func (j *Journal) setBounds(first, last uint64, bytes, maxBytes int64) {
	j.first, j.last = first, last
	j.told.LogBytes, j.told.LogMaxBytes = bytes, maxBytes
	most := j.largest
	if maxBytes > 0 {
		most = min(max(maxBytes/framesPerLog, j.least), j.largest)
	}
	j.mu.Lock()
	j.frameMost = int(most)
	j.mu.Unlock()
	j.tell()
}

// tell publishes what the loop knows.
func (j *Journal) tell() {
	j.told.Items, j.told.LiveBytes = j.items.count, j.items.live
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats = j.told
	j.judge()
	j.broadcast()
}

// idle waits until there is something to do: records, cleaning, or a purge that is due.
func (j *Journal) idle(ctx context.Context) {
	if j.flight == nil && !j.hasPending() && !j.wanted() {
		j.sleep(ctx)
	}
	if j.cfg.Linger > 0 && j.lastSize >= lingerRecords && j.hasPending() {
		j.linger(ctx)
	}
}

// sleep waits for a record, or for the time to purge or to try a blocked item again.
func (j *Journal) sleep(ctx context.Context) {
	d, ok := j.purgeIn()
	if !ok && j.blocked {
		d, ok = retryItem, true
	}
	var due <-chan time.Time
	if ok {
		t := time.NewTimer(max(d, leastSleep))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-j.wake:
	case <-due:
		j.blocked = false
	case <-ctx.Done():
	}
}

// linger leaves the frame open for more, until one is full.
func (j *Journal) linger(ctx context.Context) {
	j.mu.Lock()
	full := len(j.sealed) > 0
	j.mu.Unlock()
	if full {
		return
	}
	t := time.NewTimer(j.cfg.Linger)
	defer t.Stop()
	select {
	case <-t.C:
	case <-j.ready:
	case <-ctx.Done():
	}
}

func (j *Journal) hasPending() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.sealed) > 0 || !j.cur.empty()
}

// step cleans some, appends the oldest frame, and purges what is due.
func (j *Journal) step(ctx context.Context) {
	if j.flight == nil {
		for range j.rounds() {
			if !j.cleanRound(ctx) {
				break
			}
		}
		j.flight = j.take()
	}
	if j.flight != nil {
		j.commit(ctx)
	}
	if j.flight == nil {
		j.purgeIfDue(ctx)
	}
}

// take returns the oldest frame that holds anything, nil when there is none.
func (j *Journal) take() *frame {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.takeLocked()
}

func (j *Journal) takeLocked() *frame {
	f := j.cur
	switch {
	case len(j.sealed) > 0:
		f = j.sealed[0]
		j.sealed[0] = nil
		if j.sealed = j.sealed[1:]; len(j.sealed) == 0 {
			j.sealed = nil
		}
	case f.empty():
		return nil
	default:
		j.cur = j.emptyFrame()
	}
	j.number++
	f.number = j.number
	return f
}

// settle lets a durable frame take effect.
func (j *Journal) settle(f *frame, seq uint64) {
	for _, o := range f.ops {
		if o.size == dropped {
			j.items.remove(o.item)
		} else {
			j.items.place(o.item, seq, o.size)
		}
	}
	j.let(f, nil)
}

// let takes the frame in flight off the pending ones and has its writers told.
func (j *Journal) let(f *frame, err error) {
	j.flight = nil
	j.mu.Lock()
	j.pending -= f.bytes()
	j.durable += f.writes
	j.mu.Unlock()
	j.tell()
	f.err = err
	j.answers <- f
}

// answer tells f's writers, in order; one that panics keeps nothing from the others.
func (j *Journal) answer(f *frame) {
	for _, done := range f.dones {
		if err := lifecycle.Guard(func() error { done(f.err); return nil }); err != nil {
			j.panicked("a writer's answer", err)
		}
	}
	j.recycle(f)
}

// stop appends what is pending, once each; after a failure the rest is refused.
func (j *Journal) stop(ctx context.Context, failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for {
		f := j.flight
		if f == nil {
			if f = j.takeOrEnd(); f == nil {
				return
			}
		}
		if f.records > 0 && failed == nil {
			f.seal(j.boot, j.prev, j.lowest())
			var seq uint64
			if seq, failed = j.append(ctx, appendID(j.boot, f.number), f.buf); failed == nil {
				j.prev, j.last = seq, max(j.last, seq)
				j.settle(f, seq)
				continue
			}
			j.cfg.Logger.Error("the journal stops with records that are not durable", "err", failed)
		}
		j.let(f, refusal(failed))
	}
}

// refusal is what a writer is told whose record the journal could not keep.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case muster.KindOf(err) == muster.Busy:
		return fmt.Errorf("write to the journal: %w", err)
	}
	return muster.Errorf(muster.Unavailable, "write to the journal: %w", err)
}

// takeOrEnd returns the next frame; when there is none the journal takes no more.
func (j *Journal) takeOrEnd() *frame {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.takeLocked()
	if f == nil {
		j.ended = muster.Errorf(muster.Unavailable, "the journal has stopped")
		j.broadcast()
	}
	return f
}

func (j *Journal) panicked(what string, err error) {
	j.panics.Add(1)
	j.cfg.Logger.Error("a callback of the journal failed", "which", what, "err", err)
}

// pause waits and says whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
