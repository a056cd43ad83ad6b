package journal

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

// Log is an append-only durable log. An append is answered after its fsync.
type Log interface {
	// Append returns the new frame's sequence when it is durable. Busy says that
	// the log is full and has not taken the frame, any other error that it may
	// have. The same id twice, one after the other, appends once.
	Append(ctx context.Context, id string, frame []byte) (seq uint64, err error)
	// Read returns frame seq, NotFound when there is none. The slice is the caller's.
	Read(ctx context.Context, seq uint64) ([]byte, error)
	// Bounds returns the sequences of the oldest and the newest frame, first =
	// last+1 when there is none, and the bytes taken and allowed (0: no bound).
	Bounds(ctx context.Context) (first, last uint64, bytes, maxBytes int64, err error)
	// Purge forgets all frames up to and with seq.
	Purge(ctx context.Context, seq uint64) error
}

// Config is what New needs. Log and Logger have no default.
type Config struct {
	Log    Log
	Now    func() time.Time // default time.Now
	Logger *slog.Logger
	// Linger is how long a frame that many feed is kept open for more. Default 1 ms;
	// below zero: not at all.
	Linger time.Duration
	// MaxPending is how many bytes of records may be not yet durable before Room
	// waits. Default 8 MiB. Write itself is never refused for it: what is bounded
	// otherwise (records that end items, one per item) need not ask Room.
	MaxPending int
	// MinClean is how many bytes of log are neither cleaned nor purged. Default
	// 16 MiB, at most a quarter of the log's bound.
	MinClean int64
	// OnStuck is told, once per outage, that the log has taken nothing for 5 s,
	// with its last answer. It is called from Run and must return soon. May be nil.
	OnStuck func(err error)
}

// Stats describes the journal for metrics. Counters count since New.
type Stats struct {
	Items          int    // live items
	LiveBytes      int64  // of their newest records
	PendingBytes   int64  // of records not yet durable
	PendingRecords uint64 // writes not yet durable
	LogBytes       int64  // the log's size: exact after a purge, an estimate between
	LogMaxBytes    int64  // its bound, 0 for none
	Frames         uint64 // appended
	Records        uint64 // made durable, without the cleaner's
	Cleaned        uint64 // items the cleaner wrote anew
	CleanedBytes   uint64 // of their records
	Purges         uint64 // prefixes of the log forgotten
	Errors         uint64 // appends, purges and state reads that failed
	Panics         uint64 // of writers' answers and of Encoders
	Blocked        uint64 // times the cleaner met an item that has gone without a durable end
	Full           bool   // Room would wait
	Stuck          time.Duration
}

// Defaults and limits.
const (
	defaultLinger     = time.Millisecond
	defaultMaxPending = 8 << 20
	defaultMinClean   = 16 << 20
	frameMost         = 1 << 20  // bytes of a frame of more than one record
	frameLeast        = 64 << 10 // the same where the log is small
	framesPerLog      = 16       // a frame takes at most this part of the log's bound
	keptFrames        = 6        // empty frames kept for reuse
	keptCapacity      = frameMost + frameMost/4
)

// Journal gathers records into frames and makes them durable. All its methods may
// be called from many goroutines, but for Replay, Place, Unplace and Run.
type Journal struct {
	cfg    Config
	boot   uint64 // names this run
	full   atomic.Bool
	panics atomic.Uint64

	mu        sync.Mutex
	cur       *frame   // takes the next record
	sealed    []*frame // full ones before it, oldest first
	free      []*frame // empty ones
	frameMost int      // bytes at which a frame is closed
	pending   int64    // bytes of records written and not durable
	written   uint64   // calls of Write
	durable   uint64   // of those, durable or refused
	waiters   int      // at room
	room      chan struct{}
	ended     error // set when Run has ended for good
	stats     Stats // what Run tells of itself

	wake  chan struct{} // one token: there is something to append
	ready chan struct{} // one token: a full frame waits

	loop // Run's own
}

// New returns a journal on cfg.Log. It reads nothing yet.
func New(cfg Config) (*Journal, error) {
	if cfg.Log == nil || cfg.Logger == nil {
		return nil, muster.Errorf(muster.Invalid, "the journal needs a log and a logger")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Linger == 0 {
		cfg.Linger = defaultLinger
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.MinClean <= 0 {
		cfg.MinClean = defaultMinClean
	}
	var id [8]byte
	if _, err := crand.Read(id[:]); err != nil {
		return nil, muster.Errorf(muster.Internal, "name the journal's run: %w", err)
	}
	j := &Journal{
		cfg: cfg, boot: binary.LittleEndian.Uint64(id[:]), frameMost: frameMost, cur: newFrame(),
		room: make(chan struct{}), wake: make(chan struct{}, 1), ready: make(chan struct{}, 1),
	}
	j.start()
	return j, nil
}

// Write appends a record. put (may be nil) is the item whose newest version the
// record is; drop (may be nil) are items that it ends or replaces: both take effect
// when the record's frame is durable. A record without put is kept no longer than
// what is older than it. done (may be nil) is called once, in the order of Write
// calls, from one goroutine of the journal, with nil when the record is durable, or
// with an error (TooLarge over MaxRecord; Busy or Unavailable when the journal stops
// first). It must return soon and not wait for the journal. Write never blocks and
// copies record. It may be called before Run, which then appends it; once Run has
// ended it does nothing, and done is not called.
func (j *Journal) Write(record []byte, put *Item, drop []*Item, done func(error)) {
	j.WriteFunc(func(b []byte) []byte { return append(b, record...) }, put, drop, done)
}

// WriteFunc is Write for a record that encode appends to b, which saves a copy.
// encode runs once, before WriteFunc returns, under the journal's lock: it must not
// block or call the journal.
func (j *Journal) WriteFunc(encode func(b []byte) []byte, put *Item, drop []*Item, done func(error)) {
	wake, ready := j.add(encode, put, drop, done)
	if wake {
		signal(j.wake)
	}
	if ready {
		signal(j.ready)
	}
}

func (j *Journal) add(encode func(b []byte) []byte, put *Item, drop []*Item, done func(error)) (wake, ready bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended != nil {
		return false, false
	}
	f := j.cur
	start := len(f.buf)
	b := encode(append(f.buf, 0, 0, 0, 0))
	size := len(b) - start
	if err := refuse(size); err != nil {
		j.addRefused(err, done)
		return true, false
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(size-prefixSize))
	if f.records > 0 && len(b) > j.frameMost {
		f.buf = b[:start]
		j.sealed = append(j.sealed, f)
		f, ready = j.emptyFrame(), true
		f.buf = append(f.buf, b[start:]...)
		j.cur = f
	} else {
		f.buf = b
	}
	wake = f.empty()
	f.add(uint32(size), put, drop, done)
	j.written++
	j.pending += int64(size)
	j.judge()
	return wake, ready
}

func refuse(size int) error {
	switch {
	case size < prefixSize:
		return muster.Errorf(muster.Invalid, "the record's encoder returned less than it was given")
	case size-prefixSize > MaxRecord:
		return muster.Errorf(muster.TooLarge, "a record of %d bytes is over the limit of %d", size-prefixSize, MaxRecord)
	}
	return nil
}

// addRefused keeps the refusal's place in the order of answers. The caller holds j.mu.
func (j *Journal) addRefused(err error, done func(error)) {
	j.cur.writes++
	j.written++
	if done != nil {
		j.cur.dones = append(j.cur.dones, func(error) { done(err) })
	}
}

// add notes what hangs on the record that was just appended.
func (f *frame) add(size uint32, put *Item, drop []*Item, done func(error)) {
	f.records++
	f.writes++
	for _, i := range drop {
		f.ops = append(f.ops, op{i, dropped})
	}
	if put != nil {
		f.ops = append(f.ops, op{put, size})
	}
	if done != nil {
		f.dones = append(f.dones, done)
	}
}

// emptyFrame returns a frame to fill. The caller holds j.mu.
func (j *Journal) emptyFrame() *frame {
	if n := len(j.free); n > 0 {
		f := j.free[n-1]
		j.free = j.free[:n-1]
		return f
	}
	return newFrame()
}

// recycle takes a frame back that nobody uses any more.
func (j *Journal) recycle(f *frame) {
	if cap(f.buf) > keptCapacity {
		return
	}
	f.reset()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.free) < keptFrames {
		j.free = append(j.free, f)
	}
}

// judge sets whether Room waits. The caller holds j.mu.
func (j *Journal) judge() {
	full := j.pending > int64(j.cfg.MaxPending) ||
		j.stats.LogMaxBytes > 0 && j.stats.LogBytes+j.pending > fullAt(j.stats.LogMaxBytes)
	if full != j.full.Load() {
		j.full.Store(full)
	}
}

// broadcast tells those that wait to look again. The caller holds j.mu.
func (j *Journal) broadcast() {
	if j.waiters > 0 {
		close(j.room)
		j.room = make(chan struct{})
		j.waiters = 0
	}
}

// Full says whether Room would wait.
func (j *Journal) Full() bool { return j.full.Load() }

// Room waits while more than MaxPending bytes are not durable, or the log is full
// (three quarters of its bound). It returns ctx's error when that ends first, and
// Unavailable when Run has ended. Who brings new data asks it before Write.
func (j *Journal) Room(ctx context.Context) error {
	if !j.full.Load() {
		return nil
	}
	return j.await(ctx, func() bool { return !j.full.Load() })
}

// Flush waits until all that was written before is durable; its answers may still
// be under way. It returns ctx's error when that ends first, and Unavailable when
// Run has ended.
func (j *Journal) Flush(ctx context.Context) error {
	j.mu.Lock()
	target := j.written
	j.mu.Unlock()
	return j.await(ctx, func() bool { return j.durable >= target })
}

// await returns when met does, which is asked with j.mu held.
func (j *Journal) await(ctx context.Context, met func() bool) error {
	for {
		j.mu.Lock()
		if met() {
			j.mu.Unlock()
			return nil
		}
		if err := j.ended; err != nil {
			j.mu.Unlock()
			return err
		}
		j.waiters++
		room := j.room
		j.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stats returns the journal's figures as of its last step.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := j.stats
	st.PendingBytes, st.PendingRecords, st.Full = j.pending, j.written-j.durable, j.full.Load()
	st.Panics = j.panics.Load()
	return st
}

// signal puts a token into c unless one lies there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
