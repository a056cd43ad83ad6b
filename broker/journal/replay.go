package journal

import (
	"context"
	"fmt"
	"sync"

	"muster"
)

// readAhead is how many frames are read from the log at once during a replay.
const readAhead = 8

// Replay reads the log from the oldest frame that is still needed and calls apply
// for every record in the order written, with the sequence of its frame; apply
// places the items it makes with Place. It comes before Run, once: after an error
// the journal is of no use.
//
// record lies in the frame's memory: apply clones what it keeps. A record may be
// applied again, and one that ends an item may come for an item that is not there.
// The cleaner writes old records anew behind newer ones of other items: records of
// one item come in the order written, those of different items need not, so an
// order between items (a queue's) must lie in the records.
//
// A torn or corrupt last frame was never answered for: it is left out and said in
// the log. A frame missing or corrupt before others is an Invalid error that names
// its sequence.
func (j *Journal) Replay(ctx context.Context, apply func(seq uint64, record []byte) error) error {
	first, last, bytes, maxBytes, err := j.bounds(ctx)
	if err != nil {
		return fmt.Errorf("replay the journal: %w", err)
	}
	j.prev = last
	j.setBounds(first, last, bytes, maxBytes)
	if first > last {
		j.replayed, j.floor = true, last+1
		return nil
	}
	start, err := j.replayStart(ctx, first, last)
	if err != nil {
		return fmt.Errorf("replay the journal: %w", err)
	}
	if err := j.replay(ctx, apply, start, last); err != nil {
		return fmt.Errorf("replay the journal: %w", err)
	}
	j.replayed, j.floor = true, start
	j.tell()
	return nil
}

func (j *Journal) replay(ctx context.Context, apply func(seq uint64, record []byte) error, start, last uint64) error {
	reading, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	frames := j.read(reading, &wg, start, last)
	defer func() {
		cancel()
		for range frames { // what is read ahead ends by itself
		}
		wg.Wait()
	}()
	r := replay{j: j, apply: apply, last: last}
	for next := range frames {
		if err := r.frame(<-next); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.end()
}

// replayStart returns where to begin: the newest good frame says what is not needed.
func (j *Journal) replayStart(ctx context.Context, first, last uint64) (uint64, error) {
	for _, seq := range []uint64{last, last - 1} {
		if seq < first {
			break
		}
		b, err := j.readFrame(ctx, seq)
		if err != nil && muster.KindOf(err) != muster.NotFound {
			return 0, err
		}
		if p, bad := parse(b); err == nil && bad == nil {
			return max(first, min(p.floor, seq)), nil
		}
	}
	return first, nil
}

func (j *Journal) readFrame(ctx context.Context, seq uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return j.cfg.Log.Read(ctx, seq)
}

// frameRead is what came of reading one frame.
type frameRead struct {
	seq uint64
	b   []byte
	err error
}

// read reads the frames from first to last, some at once, and delivers them in order.
func (j *Journal) read(ctx context.Context, wg *sync.WaitGroup, first, last uint64) <-chan chan frameRead {
	frames := make(chan chan frameRead, readAhead)
	wg.Go(func() {
		defer close(frames)
		for seq := first; seq <= last; seq++ {
			one := make(chan frameRead, 1)
			select {
			case frames <- one:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				b, err := j.readFrame(ctx, seq)
				one <- frameRead{seq, b, err}
			})
		}
	})
	return frames
}

// replay is a replay under way.
type replay struct {
	j            *Journal
	apply        func(seq uint64, record []byte) error
	last         uint64 // the log's
	boot, number uint64 // of the frame before
	any          bool
	good         uint64 // sequence of the frame before
	bad          uint64 // the first one since that can not be read, 0 for none
	badErr       error
}

func (r *replay) frame(in frameRead) error {
	if in.err != nil && muster.KindOf(in.err) != muster.NotFound {
		return fmt.Errorf("read frame %d: %w", in.seq, in.err)
	}
	p, err := parsed{}, in.err
	if err == nil {
		p, err = parse(in.b)
	}
	if err != nil {
		if r.bad == 0 {
			r.bad, r.badErr = in.seq, err
		}
		return nil
	}
	if err := r.excuse(p.prev); err != nil {
		return err
	}
	twice := r.any && p.boot == r.boot && p.number == r.number
	r.any, r.boot, r.number, r.good = true, p.boot, p.number, in.seq
	if twice {
		return nil
	}
	for n := 1; ; n++ {
		record, ok := p.next()
		if !ok {
			return nil
		}
		r.j.current = uint32(len(record)) + prefixSize
		if err := r.apply(in.seq, record); err != nil {
			return fmt.Errorf("apply record %d of frame %d: %w", n, in.seq, err)
		}
	}
}

// excuse judges unreadable frames before one whose writer knew prev as the newest:
// what came after prev it never saw, so nothing in there was answered for.
func (r *replay) excuse(prev uint64) error {
	if r.bad == 0 {
		return nil
	}
	if prev >= r.bad {
		return muster.Errorf(muster.Invalid, "frame %d of the log is damaged: %w", r.bad, r.badErr)
	}
	r.bad, r.badErr = 0, nil
	return nil
}

// end judges the tail.
func (r *replay) end() error {
	r.j.current = 0
	if r.bad == 0 {
		return nil
	}
	if r.bad < r.last {
		return muster.Errorf(muster.Invalid, "frames %d to %d of the log are damaged: %w", r.bad, r.last, r.badErr)
	}
	r.j.prev = r.bad - 1
	r.j.cfg.Logger.Warn("the journal's last frame is torn and left out", "seq", r.bad, "err", r.badErr)
	return nil
}

// Place says that i's newest record lies in frame seq. It is for Replay's apply, and
// until Run begins.
func (j *Journal) Place(i *Item, seq uint64) {
	size := j.current
	if size == 0 && i.Owner != nil {
		size = uint32(len(i.Owner.AppendRecord(nil))) + prefixSize
	}
	j.items.place(i, seq, size)
}

// Unplace says, during replay, that i has gone. It does nothing when i was not placed.
func (j *Journal) Unplace(i *Item) { j.items.remove(i) }
