package journal

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"muster"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// memLog is a log in memory: what it has answered for is there after a crash.
type memLog struct {
	mu     sync.Mutex
	frames map[uint64][]byte
	first  uint64
	last   uint64
	bytes  int64
	most   int64
	lastID string
	// before is asked before each append; it may answer in the log's place, with the
	// frame taken or not. May be nil.
	before func() (err error, taken bool)
	gone   bool // nothing answers
	forget bool // the next frame's id
	purges int
}

func newMemLog(most int64) *memLog {
	return &memLog{frames: map[uint64][]byte{}, first: 1, most: most}
}

func (l *memLog) Append(ctx context.Context, id string, b []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(ctx); err != nil {
		return 0, err
	}
	if id == l.lastID {
		return l.last, nil
	}
	if l.most > 0 && l.bytes+int64(len(b)) > l.most {
		return 0, muster.Errorf(muster.Busy, "full")
	}
	var err error
	taken := true
	if l.before != nil {
		err, taken = l.before()
	}
	if taken {
		l.last++
		l.lastID = id
		if l.forget {
			l.lastID, l.forget = "", false
		}
		l.frames[l.last] = append([]byte(nil), b...)
		l.bytes += int64(len(b))
	}
	if err != nil {
		return 0, err
	}
	return l.last, nil
}

func (l *memLog) alive(ctx context.Context) error {
	if l.gone || ctx.Err() != nil {
		return muster.Errorf(muster.Unavailable, "gone")
	}
	return nil
}

func (l *memLog) Read(ctx context.Context, seq uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(ctx); err != nil {
		return nil, err
	}
	b, ok := l.frames[seq]
	if !ok {
		return nil, muster.Errorf(muster.NotFound, "no frame %d", seq)
	}
	return append([]byte(nil), b...), nil
}

func (l *memLog) Bounds(ctx context.Context) (first, last uint64, n, most int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, l.last, l.bytes, l.most, l.alive(ctx)
}

func (l *memLog) Purge(ctx context.Context, seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(ctx); err != nil {
		return err
	}
	l.purges++
	for ; l.first <= seq && l.first <= l.last; l.first++ {
		l.bytes -= int64(len(l.frames[l.first]))
		delete(l.frames, l.first)
	}
	return nil
}

func (l *memLog) setGone(gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = gone
}

// flip damages frame seq.
func (l *memLog) flip(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.frames[seq]
	b[len(b)/2] ^= 0x40
}

// text is an item whose record is its text.
type text struct {
	Item
	record string
}

func newText(record string) *text {
	t := &text{record: record}
	t.Owner = t
	return t
}

func (t *text) AppendRecord(b []byte) []byte { return append(b, t.record...) }

// open returns a journal on l that has replayed it, and the records.
func open(t testing.TB, l Log, change func(*Config)) (*Journal, []string) {
	t.Helper()
	cfg := Config{Log: l, Logger: quiet(), Linger: -1, MinClean: 1 << 10}
	if change != nil {
		change(&cfg)
	}
	j, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	j.wait0 = time.Millisecond
	var records []string
	err = j.Replay(t.Context(), func(seq uint64, record []byte) error {
		records = append(records, string(record))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return j, records
}

// run runs j until the returned function is called, which waits for it.
func run(t testing.TB, j *Journal) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// within returns a context for waiting.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// anchor writes an item first, for whose sake nothing behind it is forgotten.
func anchor(t testing.TB, log Log) {
	t.Helper()
	j, _ := open(t, log, untouched)
	stop := run(t, j)
	j.Write([]byte("anchor"), &newText("anchor").Item, nil, nil)
	flush(t, j)
	stop()
}

// untouched keeps the cleaner away, and the anchor where it is.
func untouched(c *Config) { c.MinClean = 1 << 30 }

// anchored is open where the first record is the anchor's.
func anchored(t testing.TB, l Log, change func(*Config)) (*Journal, []string) {
	t.Helper()
	j, records := open(t, l, func(c *Config) {
		untouched(c)
		if change != nil {
			change(c)
		}
	})
	if len(records) == 0 || records[0] != "anchor" {
		t.Fatalf("the anchor is not there, but %d records", len(records))
	}
	j.Place(&newText("anchor").Item, j.first)
	return j, records[1:]
}

func flush(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Flush(within(t)); err != nil {
		t.Fatalf("flush: %v", err)
	}
}
