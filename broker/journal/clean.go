package journal

import (
	"context"
	"encoding/binary"
	"time"

	"muster"
	"muster/internal/lifecycle"
)

// When the log is cleaned, and how much at once.
const (
	leastDead   = 4 << 10  // bytes of log that hold nothing live and are left so
	lockedBytes = 64 << 10 // that the cleaner encodes in one hold of the lock
	tightRounds = 8        // cleaner's frames per writers' frame when the log is nearly full
	tightTries  = 4        // times that many before a frame for which there is hardly room
)

// fullAt is the size of the log from which Room waits: the rest is for records that
// end items, and for the cleaner.
func fullAt(maxBytes int64) int64 { return maxBytes - maxBytes/4 }

// tightAt is the size of the log from which cleaning goes before writing.
func tightAt(maxBytes int64) int64 { return maxBytes - maxBytes/8 }

// cleaner is the state of the passes that write old items anew, so that the frames
// they lay in can be purged. A pass goes over the items that were there when it
// began; its frames are its own and are appended between those of the writers: no
// record still pending can come before the cleaner's, so an item that a pending
// record ends stays ended.
type cleaner struct {
	passEnd  uint64 // the newest frame the pass rewrites, 0 when there is none
	dirty    bool   // records were made durable since the last pass began
	blocked  bool   // the oldest item has gone, its end is not durable yet
	forced   bool   // the log refused a frame: clean whatever is there to gain
	purgedAt time.Time
}

// kept is the log's bytes without those that the next purge forgets, by the number
// of their frames.
func (j *Journal) kept() int64 {
	log, frames := j.told.LogBytes, j.last-j.first+1
	low := j.lowest()
	if low <= j.first || j.last < j.first {
		return log
	}
	return log - int64(float64(log)*float64(low-j.first)/float64(frames))
}

// dead is the bytes that hold nothing live and that only cleaning gives back.
func (j *Journal) dead() int64 { return j.kept() - j.items.live }

// over says whether cleaning gains enough: half the log by size, or an eighth of it
// where it is more than half full. A pass under way goes on a little further.
func (j *Journal) over(inPass bool) bool {
	log, live, most := j.kept(), j.items.live, j.told.LogMaxBytes
	if j.forced {
		return j.dead() > int64(j.mostBytes())
	}
	if log <= j.minClean() {
		return false
	}
	if inPass {
		return log > live+live/2+j.slack || most > 0 && log > most/2 && j.dead() > log/16
	}
	return log > 2*live+j.slack || most > 0 && log > most/2 && j.dead() > log/8
}

func (j *Journal) minClean() int64 {
	if j.told.LogMaxBytes > 0 {
		return min(j.cfg.MinClean, j.told.LogMaxBytes/4)
	}
	return j.cfg.MinClean
}

func (j *Journal) mostBytes() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.frameMost
}

// wanted says whether there is an item to write anew, and begins and ends passes.
func (j *Journal) wanted() bool {
	if j.blocked {
		return false
	}
	if j.passEnd == 0 {
		if !j.dirty || !j.over(false) {
			return false
		}
		j.passEnd, j.dirty = j.last, false
	}
	i := j.items.oldest()
	if i == nil || i.seq > j.passEnd || !j.over(true) {
		j.passEnd = 0
		return false
	}
	return true
}

// rounds is how many frames the cleaner may append before the writers' next.
func (j *Journal) rounds() int {
	if j.told.LogMaxBytes > 0 && j.told.LogBytes > tightAt(j.told.LogMaxBytes) {
		return tightRounds
	}
	return 1
}

// cleanRound writes the oldest items anew, half a frame of them at most, and says
// whether it did.
func (j *Journal) cleanRound(ctx context.Context) bool {
	if !j.wanted() {
		return false
	}
	f := j.encodeOldest()
	if f.records == 0 {
		j.recycle(f)
		return false
	}
	seq, err := j.send(ctx, f)
	if err != nil { // nothing hangs on it: the items stay where they are
		j.recycle(f)
		j.blocked = true
		return false
	}
	for _, o := range f.ops {
		j.items.place(o.item, seq, o.size)
	}
	j.told.Cleaned += uint64(f.records)
	j.told.CleanedBytes += uint64(f.bytes())
	j.recycle(f)
	j.tell()
	if j.rounds() > 1 || j.forced {
		j.purge(ctx, j.forced)
	}
	return true
}

// encodeOldest returns a frame of the oldest items' records. The lock is let go in
// between, so that no writer waits long.
func (j *Journal) encodeOldest() *frame {
	j.mu.Lock()
	f := j.emptyFrame()
	j.mu.Unlock()
	j.number++
	f.number = j.number
	for i := j.items.oldest(); i != nil; {
		i = j.encodeSome(f, i)
	}
	return f
}

// encodeSome appends items from i on and returns where to go on, nil for the end.
func (j *Journal) encodeSome(f *frame, i *Item) *Item {
	j.mu.Lock()
	defer j.mu.Unlock()
	half, began := j.frameMost/2, len(f.buf)
	if most := j.told.LogMaxBytes; most > 0 {
		half = int(min(int64(half), max(most-j.told.LogBytes-frameOverhead, headerSize+1)))
	}
	for ; i != &j.items.root && i.seq <= j.passEnd; i = i.next {
		if len(f.buf) >= half || f.records > 0 && len(f.buf)+int(i.size) > j.frameMost {
			return nil
		}
		if len(f.buf)-began >= lockedBytes {
			return i
		}
		if !j.encodeItem(f, i) {
			return nil
		}
	}
	return nil
}

// encodeItem appends i's record and says whether it has one.
func (j *Journal) encodeItem(f *frame, i *Item) bool {
	start := len(f.buf)
	var b []byte
	err := lifecycle.Guard(func() error {
		b = i.Owner.AppendRecord(append(f.buf, 0, 0, 0, 0))
		return nil
	})
	if err != nil {
		j.panicked("an item's encoder", err)
		b = nil
	}
	size := len(b) - start
	if b == nil || refuse(size) != nil {
		if f.records == 0 {
			j.blocked = true
			j.told.Blocked++
		}
		return false
	}
	if f.records > 0 && len(b) > j.frameMost {
		return false // it grew: it opens the next frame
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(size-prefixSize))
	f.buf = b
	f.records++
	f.ops = append(f.ops, op{i, uint32(size)})
	return true
}

// lowest is the oldest frame that holds a live item's newest record.
func (j *Journal) lowest() uint64 {
	if i := j.items.oldest(); i != nil {
		return i.seq
	}
	return j.last + 1
}

// tight says whether f had better wait for room: the last part of the log is the
// cleaner's, as long as cleaning gains something.
func (j *Journal) tight(f *frame) bool {
	most := j.told.LogMaxBytes
	if most == 0 {
		return false
	}
	reserve := int64(j.mostBytes())
	return j.told.LogBytes+f.bytes() > most-reserve && j.told.LogBytes-j.items.live > 2*reserve
}

// loosen makes room for f where it is tight, but does not keep it waiting for long.
func (j *Journal) loosen(ctx context.Context, f *frame) {
	for range tightTries {
		if !j.tight(f) || !j.makeRoom(ctx) {
			return
		}
	}
}

// makeRoom purges, and cleans whatever is there to gain. It says whether the log
// became smaller.
func (j *Journal) makeRoom(ctx context.Context) bool {
	before := j.told.LogBytes
	j.forced, j.blocked = true, false
	j.purge(ctx, true)
	for range tightRounds {
		j.dirty = true
		if !j.cleanRound(ctx) {
			break
		}
	}
	j.forced = false
	return j.told.LogBytes < before
}

// purgeIn says how long it is until a purge is due, and whether one will be.
func (j *Journal) purgeIn() (time.Duration, bool) {
	if j.told.LogBytes <= j.minClean() || j.lowest() <= j.first+1 {
		return 0, false
	}
	every, log, most := purgeEvery, j.told.LogBytes, j.told.LogMaxBytes
	switch {
	case most > 0 && log > fullAt(most):
		every = purgeSoon
	case most > 0 && log > most/2:
		every = purgeOften
	}
	return every - j.cfg.Now().Sub(j.purgedAt), true
}

func (j *Journal) purgeIfDue(ctx context.Context) {
	if d, ok := j.purgeIn(); ok && d <= 0 {
		j.purge(ctx, false)
	}
}

// purge forgets the frames that nobody needs. What is purged a durable frame has
// said before (its floor), so that a purge that a power cut leaves half done is
// no damage: replay begins behind it. forced: there is no room to wait for the next
// frame of a writer, nor perhaps for one that only says the floor.
func (j *Journal) purge(ctx context.Context, forced bool) {
	j.purgedAt = j.cfg.Now()
	if j.floor <= j.first && j.lowest() > j.first && (forced || !j.hasPending()) {
		if err := j.sayFloor(ctx); forced && err != nil && muster.KindOf(err) == muster.Busy {
			j.floor = j.lowest()
		}
	}
	if j.floor <= j.first {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := j.cfg.Log.Purge(ctx, j.floor-1); err != nil {
		j.failed(err, "purge the journal's log")
		return
	}
	j.told.Purges++
	j.reread(ctx)
}

// sayFloor appends a frame without records: where no writer brings one, the floor
// would stay behind what is still needed.
func (j *Journal) sayFloor(ctx context.Context) error {
	j.mu.Lock()
	f := j.emptyFrame()
	j.mu.Unlock()
	j.number++
	f.number = j.number
	_, err := j.send(ctx, f)
	j.recycle(f)
	return err
}

// reread asks the log for its size.
func (j *Journal) reread(ctx context.Context) {
	first, last, bytes, maxBytes, err := j.bounds(ctx)
	if err != nil {
		j.failed(err, "read the journal's state")
		return
	}
	j.setBounds(first, last, bytes, maxBytes)
}
