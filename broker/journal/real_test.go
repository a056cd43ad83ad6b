package journal_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/broker/journal"
	"muster/bus"
)

// store is a small owner of items over a journal: keys with values. A record is a
// kind, the key, and the value.
type store struct {
	j     *journal.Journal
	items map[uint64]*entry
}

type entry struct {
	journal.Item
	key   uint64
	value []byte
}

func (e *entry) AppendRecord(b []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(append(b, 'P'), e.key), e.value...)
}

func newEntry(key uint64, value []byte) *entry {
	e := &entry{key: key, value: value}
	e.Owner = e
	return e
}

func (s *store) apply(seq uint64, r []byte) error {
	key := binary.LittleEndian.Uint64(r[1:])
	if e := s.items[key]; e != nil {
		s.j.Unplace(&e.Item)
		delete(s.items, key)
	}
	if r[0] == 'P' {
		e := newEntry(key, append([]byte(nil), r[9:]...))
		s.items[key] = e
		s.j.Place(&e.Item, seq)
	}
	return nil
}

func (s *store) put(key uint64, value []byte, done func(error)) {
	old, e := s.items[key], newEntry(key, value)
	s.items[key] = e
	var drop []*journal.Item
	if old != nil {
		drop = []*journal.Item{&old.Item}
	}
	s.j.WriteFunc(e.AppendRecord, &e.Item, drop, done)
}

func (s *store) drop(key uint64, done func(error)) {
	e := s.items[key]
	delete(s.items, key)
	s.j.WriteFunc(func(b []byte) []byte {
		return binary.LittleEndian.AppendUint64(append(b, 'D'), key)
	}, nil, []*journal.Item{&e.Item}, done)
}

func (s *store) values() map[uint64]string {
	m := map[uint64]string{}
	for k, e := range s.items {
		m[k] = string(e.value)
	}
	return m
}

// opened is a journal on a real log, running.
type opened struct {
	*store
	bus  *bus.Bus
	log  *bus.Log
	stop func() // the journal, then the log
	halt func() // the journal alone
}

func openReal(t testing.TB, dir string, maxBytes, minClean int64) *opened {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Config{Dir: dir, MaxBytes: 8 << 20, SessionBytes: maxBytes, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.OpenLog(t.Context(), "MQTT_00", maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	o := &opened{store: &store{items: map[uint64]*entry{}}, bus: b, log: l}
	o.j, err = journal.New(journal.Config{Log: l, Logger: logger, MinClean: minClean})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.j.Replay(t.Context(), o.apply); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := o.j.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	o.halt = func() { cancel(); wg.Wait() }
	o.stop = sync.OnceFunc(func() { o.halt(); b.Close() })
	t.Cleanup(o.stop)
	return o
}

func (o *opened) flush(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := o.j.Flush(ctx); err != nil {
		t.Fatalf("flush: %v; %+v", err, o.j.Stats())
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + rand.IntN(26))
	}
	return b
}

// churn puts and drops: about keep keys live at any time.
func (o *opened) churn(t testing.TB, n, keep, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range n {
		if err := o.j.Room(ctx); err != nil {
			t.Fatalf("room: %v; %+v", err, o.j.Stats())
		}
		key := rand.Uint64N(uint64(keep) * 2)
		if o.items[key] != nil && rand.IntN(2) == 0 {
			o.drop(key, nil)
			continue
		}
		o.put(key, random(size/2+rand.IntN(size)), nil)
	}
}

func TestTheRealLogGivesEverythingBackAfterRestarts(t *testing.T) {
	dir := t.TempDir()
	want := map[uint64]string{}
	for life := range 4 {
		o := openReal(t, dir, 64<<20, 64<<10)
		if diff := cmp.Diff(want, o.values()); diff != "" {
			t.Fatalf("life %d: %s", life, diff)
		}
		for range 10 {
			o.churn(t, 300, 300, 100)
			o.flush(t)
		}
		want = o.values()
		st := o.j.Stats()
		if st.Errors > 0 || life > 0 && st.Cleaned == 0 || st.Items != len(want) {
			t.Errorf("life %d: %d keys, %+v", life, len(want), st)
		}
		o.stop()
	}
}

func TestASmallLogTakesManyTimesItsBound(t *testing.T) {
	dir := t.TempDir()
	o := openReal(t, dir, 4<<20, 0)
	o.churn(t, 60000, 3000, 400) // 18 MB of records or so, 1.2 MB live
	o.flush(t)
	st := o.j.Stats()
	if st.Errors > 0 || st.Cleaned == 0 || st.Purges == 0 || st.LogBytes > 4<<20 {
		t.Errorf("%+v", st)
	}
	want := o.values()
	o.stop()
	if diff := cmp.Diff(want, openReal(t, dir, 4<<20, 0).values()); diff != "" {
		t.Error(diff)
	}
}

func TestAFullLogHasNoRoomUntilItemsEnd(t *testing.T) {
	dir := t.TempDir()
	o := openReal(t, dir, 4<<20, 0)
	keys := uint64(0)
	for !o.j.Full() {
		o.put(keys, random(1000), nil)
		keys++
		o.flush(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := o.j.Room(ctx); err == nil {
		t.Fatal("a log full of live records has room")
	}
	if keys < 2000 {
		t.Errorf("the log of 4 MiB was full of %d records of 1 KB", keys)
	}
	for k := range keys / 2 {
		o.drop(2*k, nil)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := o.j.Room(ctx); err != nil {
		t.Fatalf("room: %v; %+v", err, o.j.Stats())
	}
	o.flush(t)
	want := o.values()
	o.stop()
	if diff := cmp.Diff(want, openReal(t, dir, 4<<20, 0).values()); diff != "" {
		t.Error(diff)
	}
}

func TestWritersThatAskForNoRoomMeetBusyAndLoseNothing(t *testing.T) {
	dir := t.TempDir()
	o := openReal(t, dir, 4<<20, 0)
	wrong := make(chan error, 1)
	for k := range uint64(5000) { // 5 MB live into 4
		o.put(k, random(1000), func(err error) {
			if err != nil {
				select {
				case wrong <- err:
				default:
				}
			}
		})
	}
	deadline := time.After(20 * time.Second)
	for o.j.Stats().Errors < 3 {
		select {
		case <-deadline:
			t.Fatalf("the log never said that it is full: %+v", o.j.Stats())
		case <-time.After(10 * time.Millisecond):
		}
	}
	// The way out of a log full of live records is a larger bound.
	o.stop()
	if err := <-wrong; err == nil {
		t.Error("nobody was told")
	}
	again := openReal(t, dir, 16<<20, 0)
	for k, v := range again.values() {
		if string(o.items[k].value) != v {
			t.Fatalf("key %d has another value", k)
		}
	}
	n := len(again.items)
	if n < 3000 || n >= 5000 {
		t.Errorf("%d of 5000 items are there", n)
	}
	again.churn(t, 1000, 5000, 100)
	again.flush(t)
}

func TestATornTailOfTheRealLogCostsOnlyWhatWasTorn(t *testing.T) {
	dir := t.TempDir()
	o := openReal(t, dir, 64<<20, 64<<20)
	for k := range uint64(20) {
		o.put(k, random(500), nil)
		o.flush(t)
	}
	want := o.values()
	o.stop()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "MQTT_00", "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks %v, %v", blocks, err)
	}
	st, err := os.Stat(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(blocks[0], st.Size()-100); err != nil {
		t.Fatal(err)
	}
	o = openReal(t, dir, 64<<20, 64<<20)
	delete(want, 19)
	if diff := cmp.Diff(want, o.values()); diff != "" {
		t.Fatal(diff)
	}
	o.put(77, []byte("after"), nil)
	o.flush(t)
	o.stop()
	want[77] = "after"
	if diff := cmp.Diff(want, openReal(t, dir, 64<<20, 64<<20).values()); diff != "" {
		t.Error(diff)
	}
}

// swapped is a log whose server can be replaced under the journal.
type swapped struct {
	mu  sync.Mutex
	log *bus.Log
}

func (s *swapped) get() *bus.Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}

func (s *swapped) Append(ctx context.Context, id string, b []byte) (uint64, error) {
	return s.get().Append(ctx, id, b)
}

func (s *swapped) Read(ctx context.Context, seq uint64) ([]byte, error) {
	return s.get().Read(ctx, seq)
}

func (s *swapped) Bounds(ctx context.Context) (first, last uint64, n, most int64, err error) {
	return s.get().Bounds(ctx)
}
func (s *swapped) Purge(ctx context.Context, seq uint64) error { return s.get().Purge(ctx, seq) }

func TestTheRealLogMayBeGoneForAWhile(t *testing.T) {
	dir := t.TempDir()
	logger := slog.New(slog.DiscardHandler)
	start := func() (*bus.Bus, *bus.Log) {
		b, err := bus.Open(t.Context(), bus.Config{Dir: dir, MaxBytes: 8 << 20, SessionBytes: 64 << 20, Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		l, err := b.OpenLog(t.Context(), "MQTT_00", 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		return b, l
	}
	b, l := start()
	log := &swapped{log: l}
	j, err := journal.New(journal.Config{Log: log, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{j: j, items: map[uint64]*entry{}}
	if err := j.Replay(t.Context(), s.apply); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = j.Run(ctx) })
	answered := 0
	put := func(from, to uint64) {
		for k := from; k < to; k++ {
			s.put(k, random(50), func(err error) {
				if err == nil {
					answered++
				}
			})
		}
	}
	put(0, 1000)
	b.Close() // perhaps in the middle of an append
	put(1000, 2000)
	for j.Stats().Errors == 0 {
		<-time.After(5 * time.Millisecond)
	}
	b, l = start()
	defer func() { b.Close() }()
	log.mu.Lock()
	log.log = l
	log.mu.Unlock()
	put(2000, 3000)
	o := &opened{store: s}
	o.flush(t)
	cancel()
	wg.Wait()
	if answered != 3000 {
		t.Errorf("%d of 3000 were answered", answered)
	}
	want := s.values()
	b.Close()
	if diff := cmp.Diff(want, openReal(t, dir, 64<<20, 0).values()); diff != "" {
		t.Error(diff)
	}
}
