package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/bus"
	"muster/devices/trail"
	"muster/ingest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*ipQueue[...]).push"))
}

// store is a Store that can be down and refuses readings of devices it is told to.
type store struct {
	mu       sync.Mutex
	down     bool
	poison   muster.DeviceID
	writer   ingest.Cursor
	latest   ingest.Cursor
	rows     map[string]string // device/time/keys -> values
	rejected []muster.Rejected
	saved    map[muster.DeviceID]ingest.LatestRow
	appends  int
	erased   map[muster.DeviceID]int    // calls of Erase
	needs    map[muster.DeviceID]uint64 // frame that the latest values must have passed when it is erased
	late     []string                   // what came of a device after Erase was first called, or before what it waits for
	refuses  muster.DeviceID            // Erase fails for it
	unsaved  bool                       // SaveLatest fails
	erases   int                        // rows that Erase deletes at once
	changed  chan struct{}
}

func newStore() *store {
	return &store{rows: map[string]string{}, saved: map[muster.DeviceID]ingest.LatestRow{}, erased: map[muster.DeviceID]int{}, needs: map[muster.DeviceID]uint64{}, erases: 3, changed: make(chan struct{})}
}

func (s *store) set(fn func(s *store)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *store) Append(_ context.Context, b ingest.Batch) (out []ingest.Outcome, err error) {
	s.set(func(s *store) { out, err = s.append(b) })
	return out, err
}

func (s *store) append(b ingest.Batch) ([]ingest.Outcome, error) {
	s.appends++
	if s.down {
		return nil, errors.New("no route to the store")
	}
	if b.From != b.To && b.From != s.writer {
		return nil, muster.Errorf(muster.Conflict, "cursor is %v", s.writer)
	}
	for _, r := range b.Readings {
		if r.Device == s.poison {
			return nil, muster.Errorf(muster.Invalid, "the store refuses %s", r.Device)
		}
	}
	out := make([]ingest.Outcome, len(b.Readings))
	for i := range b.Readings {
		r := &b.Readings[i]
		if s.erased[r.Device] > 0 {
			s.late = append(s.late, "a reading of "+string(r.Device))
		}
		key := fmt.Sprint(r.Device, "/", r.Time, "/", r.Layout.Keys)
		val := string(ingest.AppendJSON(nil, r))
		switch have, ok := s.rows[key]; {
		case !ok:
		case have == val:
			out[i] = ingest.Duplicate
		default:
			out[i] = ingest.Replaced
		}
		s.rows[key] = val
	}
	s.rejected = append(s.rejected, b.Rejected...)
	if b.From != b.To {
		s.writer = b.To
	}
	return out, nil
}

func (s *store) Cursors(context.Context) (w, l ingest.Cursor, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writer, s.latest, nil
}

func (s *store) Sync(context.Context) error { return nil }

func (s *store) SaveLatest(_ context.Context, rows []ingest.LatestRow, c ingest.Cursor) (err error) {
	s.set(func(s *store) {
		if s.unsaved {
			err = errors.New("no route to the store")
			return
		}
		for _, r := range rows {
			if s.erased[r.Device] > 0 {
				s.late = append(s.late, "latest values of "+string(r.Device))
			}
			s.saved[r.Device] = r
		}
		s.latest = c
	})
	return err
}

func (s *store) LoadLatest(context.Context) iter.Seq2[ingest.LatestRow, error] {
	s.mu.Lock()
	saved := maps.Clone(s.saved)
	s.mu.Unlock()
	return func(yield func(ingest.LatestRow, error) bool) {
		for _, r := range saved {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// await waits until cond holds, looking again whenever the store changes.
func (s *store) await(t *testing.T, what string, cond func(s *store) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		s.mu.Lock()
		ok, changed := cond(s), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s did not come about", what)
		}
	}
}

// acks records what the pipeline tells a client.
type acks struct {
	mu   sync.Mutex
	got  []uint64
	errs map[uint64]error
	more chan struct{}
}

func newAcks() *acks { return &acks{errs: map[uint64]error{}, more: make(chan struct{}, 100_000)} }

func (a *acks) Acked(token uint64, err error) {
	a.mu.Lock()
	a.got = append(a.got, token)
	a.errs[token] = err
	a.mu.Unlock()
	a.more <- struct{}{}
}

func (a *acks) wait(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-a.more:
		case <-time.After(20 * time.Second):
			t.Fatalf("an acknowledgement did not come")
		}
	}
}

type rig struct {
	in    *ingest.Ingest
	store *store
	bus   *bus.Bus
}

func start(t *testing.T, dir string, st *store, change func(*ingest.Config)) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Config{Dir: dir, MaxBytes: 64 << 20, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := b.TelemetryLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := ingest.Config{Log: l, Store: st, Latest: st, Level: ingest.LevelDurable, Now: time.Now, Logger: log}
	if change != nil {
		change(&cfg)
	}
	in := ingest.New(cfg)
	if err := in.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{in, st, b}
	t.Cleanup(func() { r.stop(t, 10*time.Second) })
	return r
}

// stop ends the pipeline; with no grace what is not stored stays in the log.
func (r *rig) stop(t *testing.T, grace time.Duration) {
	if r.in == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), max(grace, time.Millisecond))
	defer cancel()
	if err := r.in.Stop(ctx); err != nil && grace > time.Second {
		t.Error(err)
	}
	r.bus.Close()
	r.in = nil
}

func (r *rig) send(t *testing.T, id muster.DeviceID, payload string, from ingest.Acker, token uint64) {
	t.Helper()
	m := ingest.Message{Device: id, Topic: "devices/" + string(id) + "/telemetry", Payload: []byte(payload), QoS: 1, From: from, Token: token}
	if from == nil {
		m.From = nil
	}
	if err := r.in.Accept(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) balanced(t *testing.T, want ingest.Ledger) {
	t.Helper()
	got := r.in.Ledger()
	if !got.Balanced() || got != want {
		t.Errorf("ledger %+v (balanced: %v), want %+v", got, got.Balanced(), want)
	}
	r.settled(t)
}

// settled checks that an empty queue weighs nothing: the watermarks go by it.
func (r *rig) settled(t *testing.T) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		st := r.in.Status()
		if st.Ledger.Queued > 0 || st.UnstoredBytes == 0 {
			return
		}
		select {
		case <-tick.C: // the bytes are booked just after the messages
		case <-deadline:
			t.Fatalf("%d bytes are left unstored with an empty queue", st.UnstoredBytes)
		}
	}
}

func awaitQueueEmpty(t *testing.T, r *rig) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.in.Ledger().Queued != 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the queue did not empty: %+v", r.in.Ledger())
		}
	}
}

func TestWhatIsAckedIsInTheLogAndThenInTheStore(t *testing.T) {
	r := start(t, t.TempDir(), newStore(), nil)
	a := newAcks()
	const n = 5000
	for i := range n {
		r.send(t, muster.DeviceID(fmt.Sprint("d", i%7)), fmt.Sprintf(`{"ts":%d,"values":{"seq":%d}}`, 1_763_812_800_000+i, i), a, uint64(i))
	}
	a.wait(t, n)
	for i, token := range a.got {
		if token != uint64(i) {
			t.Fatalf("acknowledgement %d is for message %d", i, token)
		}
	}
	r.store.await(t, "every row", func(s *store) bool { return len(s.rows) == n })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: n, Stored: n})
	row, ok := r.in.Latest("d3")
	if !ok || len(row.Values) != 1 || int(row.Values[0].Num)%7 != 3 {
		t.Errorf("latest of d3: %+v", row)
	}
}

func TestAResendIsADuplicateAndAChangedOneReplaces(t *testing.T) {
	r := start(t, t.TempDir(), newStore(), nil)
	a := newAcks()
	for i, p := range []string{`{"ts":1763812800,"values":{"a":1}}`, `{"ts":1763812800,"values":{"a":1}}`, `{"ts":1763812800,"values":{"a":2}}`} {
		r.send(t, "d", p, a, uint64(i))
	}
	a.wait(t, 3)
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 3, Stored: 1, Duplicate: 1, Replaced: 1})
	if l := r.in.DeviceLedger("d"); l != r.in.Ledger() {
		t.Errorf("device ledger %+v", l)
	}
}

func TestBadMessagesAreAckedAsRefusedAndKept(t *testing.T) {
	tell := make(chan muster.Rejected, 10)
	r := start(t, t.TempDir(), newStore(), func(c *ingest.Config) {
		c.OnRejected = func(r muster.Rejected) { tell <- r }
	})
	a := newAcks()
	r.send(t, "d", `{"a":`, a, 1)
	r.send(t, "d", `{"a":1}`, a, 2)
	r.send(t, "d", `[{"a":1},{"ts":"1990-01-01T00:00:00Z","a":1}]`, a, 3)
	a.wait(t, 3)
	if muster.KindOf(a.errs[1]) != muster.Invalid || a.errs[2] != nil || a.errs[3] != nil {
		t.Errorf("answers: %v", a.errs)
	}
	r.store.await(t, "two rejected messages", func(s *store) bool { return len(s.rejected) == 2 })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 4, Stored: 2, Rejected: 2})
	told := []muster.Rejected{<-tell, <-tell}
	if told[0].Code != "malformed" || told[1].Code != "time" || string(told[0].Payload) != `{"a":` {
		t.Errorf("told %+v", told)
	}
}

func TestDevicesAreAckedWhileTheStoreIsAwayAndTheLogDrainsByItself(t *testing.T) {
	st := newStore()
	st.down = true
	r := start(t, t.TempDir(), st, nil)
	a := newAcks()
	for i := range 500 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
	}
	a.wait(t, 500)
	r.balanced(t, ingest.Ledger{Received: 500, Queued: 500})
	st.await(t, "a failed try", func(s *store) bool { return s.appends > 0 })
	st.set(func(s *store) { s.down = false })
	st.await(t, "every row", func(s *store) bool { return len(s.rows) == 500 })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 500, Stored: 500})
}

func TestPoisonStandsAloneAndTheRestIsStored(t *testing.T) {
	st := newStore()
	st.poison = "bad"
	st.down = true
	r := start(t, t.TempDir(), st, nil)
	a := newAcks()
	for i := range 300 {
		id := muster.DeviceID(fmt.Sprint("d", i%20))
		if i%50 == 17 {
			id = "bad"
		}
		r.send(t, id, fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
	}
	a.wait(t, 300)
	st.set(func(s *store) { s.down = false })
	st.await(t, "the rows and the rejected", func(s *store) bool { return len(s.rows) == 294 && len(s.rejected) == 6 })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 300, Stored: 294, Rejected: 6})
	if st.rejected[0].Code != "store" || string(st.rejected[0].Payload) != `{"i":17}` {
		t.Errorf("rejected %+v", st.rejected[0])
	}
}

func TestWhatTheLogHeldAtStartIsRecovered(t *testing.T) {
	dir, st := t.TempDir(), newStore()
	r := start(t, dir, st, nil)
	a := newAcks()
	r.send(t, "d", `{"i":1000}`, a, 0)
	a.wait(t, 1)
	st.await(t, "the first row", func(s *store) bool { return len(s.rows) == 1 })
	st.set(func(s *store) { s.down = true })
	for i := range 100 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
	}
	r.send(t, "d", `bad`, a, 100)
	a.wait(t, 101)
	r.stop(t, 0)

	ahead := func(c *ingest.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } } // the clock went back
	r = start(t, dir, st, ahead)
	r.balanced(t, ingest.Ledger{Recovered: 101, Queued: 101})
	st.set(func(s *store) { s.down = false })
	r.send(t, "d", `{"i":101}`, a, 101)
	a.wait(t, 1)
	st.await(t, "every row", func(s *store) bool { return len(s.rows) == 102 && len(s.rejected) == 1 })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 1, Recovered: 101, Stored: 101, Rejected: 1})
	if l := r.in.DeviceLedger("d"); l != r.in.Ledger() {
		t.Errorf("device ledger %+v", l)
	}
	if row, _ := r.in.Latest("d"); len(row.Values) != 1 || row.Values[0].Num != 101 {
		t.Errorf("latest %+v", row)
	}
}

func TestLatestValuesThatWereNeverSavedAreReadBackFromTheLog(t *testing.T) {
	dir, st := t.TempDir(), newStore()
	st.unsaved = true
	r := start(t, dir, st, nil)
	a := newAcks()
	r.send(t, "d", `{"i":7}`, a, 0)
	a.wait(t, 1)
	st.await(t, "the row", func(s *store) bool { return len(s.rows) == 1 })
	awaitQueueEmpty(t, r)
	r.stop(t, 0)
	st.set(func(s *store) { s.unsaved = false })
	seen := seenDevices{}
	r = start(t, dir, st, seen.listen)
	st.await(t, "the saved latest values", func(s *store) bool { return len(s.saved["d"].Values) == 1 })
	row, _ := r.in.Latest("d")
	if len(row.Values) != 1 || row.Values[0].Num != 7 {
		t.Fatalf("latest %+v", row)
	}
	r.stop(t, 10*time.Second)
	if at := seen["d"]; at != row.Values[0].Arrival {
		t.Errorf("the registry is told %d from the log, want %d", at, row.Values[0].Arrival)
	}
	again := seenDevices{}
	r = start(t, dir, st, again.listen)
	deadline := time.After(20 * time.Second)
	for _, ok := r.in.Latest("d"); !ok; _, ok = r.in.Latest("d") {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("the latest values are not read back")
		}
	}
	r.stop(t, 10*time.Second)
	if at := again["d"]; at != row.Values[0].Arrival {
		t.Errorf("the registry is told %d from the store, want %d", at, row.Values[0].Arrival)
	}
}

// seenDevices is when devices were seen before the start. It may be read after the stop.
type seenDevices map[muster.DeviceID]muster.Micros

func (s seenDevices) listen(c *ingest.Config) {
	c.Seen = func(id muster.DeviceID, at muster.Micros) { s[id] = max(s[id], at) }
}

func TestLevelsAckWhenTheyPromise(t *testing.T) {
	for _, level := range []ingest.AckLevel{ingest.LevelReceived, ingest.LevelStored} {
		t.Run(string(level), func(t *testing.T) {
			st := newStore()
			st.down = true
			r := start(t, t.TempDir(), st, func(c *ingest.Config) { c.Level = level })
			a := newAcks()
			r.send(t, "d", `{"a":1}`, a, 1)
			st.await(t, "a failed try", func(s *store) bool { return s.appends > 0 })
			a.mu.Lock()
			acked := len(a.got)
			a.mu.Unlock()
			if want := map[ingest.AckLevel]int{ingest.LevelReceived: 1, ingest.LevelStored: 0}[level]; acked != want {
				t.Errorf("%d acknowledgements before the row is stored, want %d", acked, want)
			}
			st.set(func(s *store) { s.down = false })
			a.wait(t, 1)
		})
	}
}

func TestTheLevelOfADeviceComesBeforeTheServersOwn(t *testing.T) {
	st := newStore()
	st.down = true
	tr := trail.NewTrace(time.Now)
	r := start(t, t.TempDir(), st, func(c *ingest.Config) {
		c.Tracer = tracer{tr}
		c.LevelOf = func(id muster.DeviceID) ingest.AckLevel {
			return map[muster.DeviceID]ingest.AckLevel{"quick": ingest.LevelReceived, "slow": ingest.LevelStored}[id]
		}
	})
	quick, slow, other := newAcks(), newAcks(), newAcks()
	r.send(t, "slow", `{"a":1}`, slow, 1)
	r.send(t, "quick", `{"a":1}`, quick, 1)
	quick.mu.Lock()
	at := len(quick.got)
	quick.mu.Unlock()
	if at != 1 {
		t.Error("level received waits")
	}
	r.send(t, "other", `{"a":1}`, other, 1)
	other.wait(t, 1)
	st.await(t, "a failed try", func(s *store) bool { return s.appends > 0 })
	slow.mu.Lock()
	early := len(slow.got)
	slow.mu.Unlock()
	if ms := tr.Messages("slow"); early != 0 || len(ms) != 1 || ms[0].Acked != 0 || ms[0].Durable == 0 {
		t.Errorf("%d acknowledgements of level stored before the row is, its trace %+v", early, ms)
	}
	st.set(func(s *store) { s.down = false })
	slow.wait(t, 1)
	awaitQueueEmpty(t, r)
	r.stop(t, 10*time.Second)
	for _, id := range []muster.DeviceID{"quick", "slow", "other"} {
		if ms := tr.Messages(id); len(ms) != 1 || ms[0].Acked == 0 || ms[0].Stored == 0 {
			t.Errorf("the trace of %s: %+v", id, ms)
		}
	}
}

func TestAFullLogMakesQoS1WaitAndDropsQoS0(t *testing.T) {
	st := newStore()
	st.down = true
	r := start(t, t.TempDir(), st, func(c *ingest.Config) { c.Log = small{c.Log} })
	a := newAcks()
	sent := 0
	for ; r.in.Status().LogFill < 0.95; sent++ {
		r.send(t, "d", fmt.Sprintf(`{"i":%d,"pad":"%0200d"}`, sent, 0), a, uint64(sent))
		a.wait(t, 1)
	}
	m := ingest.Message{Device: "d", Topic: "t", Payload: []byte(`{"i":-1}`), From: a, Token: 99_999}
	if err := r.in.Accept(t.Context(), m); err != nil { // QoS 0
		t.Fatal(err)
	}
	m.QoS = 1
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.in.Accept(ctx, m); muster.KindOf(err) != muster.Busy {
		t.Fatalf("a full log answered %v", err)
	}
	r.balanced(t, ingest.Ledger{Received: uint64(sent) + 1, Queued: uint64(sent), Dropped: 1})
	st.set(func(s *store) { s.down = false })
	if err := r.in.Accept(t.Context(), m); err != nil {
		t.Fatalf("after the store came back: %v", err)
	}
	a.wait(t, 1)
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: uint64(sent) + 2, Stored: uint64(sent) + 1, Dropped: 1})
}

// small is a log that says its bound is 64 KiB.
type small struct{ ingest.Log }

func (s small) State(ctx context.Context) (ingest.LogState, error) {
	st, err := s.Log.State(ctx)
	st.MaxBytes = 64 << 10
	return st, err
}

func TestAnotherLogIsNoticedAndNothingNewIsSkipped(t *testing.T) {
	st := newStore()
	r := start(t, t.TempDir(), st, nil)
	a := newAcks()
	for i := range 10 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
		a.wait(t, 1)
	}
	st.await(t, "every row", func(s *store) bool { return len(s.rows) == 10 })
	r.stop(t, 10*time.Second)
	r = start(t, t.TempDir(), st, nil) // an empty directory: the log was lost
	r.send(t, "d", `{"i":10}`, a, 10)
	a.wait(t, 1)
	st.await(t, "the row of the new log", func(s *store) bool { return len(s.rows) == 11 })
}

// faulty panics once in each of the store's and the log's methods.
type faulty struct {
	mu    sync.Mutex
	fired map[string]bool
}

func (f *faulty) once(what string) {
	f.mu.Lock()
	first := !f.fired[what]
	f.fired[what] = true
	f.mu.Unlock()
	if first {
		panic(what)
	}
}

type faultyStore struct {
	*store
	*faulty
}

func (s faultyStore) Append(ctx context.Context, b ingest.Batch) ([]ingest.Outcome, error) {
	s.once("append to the store")
	return s.store.Append(ctx, b)
}

func (s faultyStore) SaveLatest(ctx context.Context, rows []ingest.LatestRow, c ingest.Cursor) error {
	s.once("save the latest values")
	return s.store.SaveLatest(ctx, rows, c)
}

func (s faultyStore) LoadLatest(ctx context.Context) iter.Seq2[ingest.LatestRow, error] {
	s.once("load the latest values")
	return s.store.LoadLatest(ctx)
}

func (s faultyStore) Sync(ctx context.Context) error {
	s.once("sync")
	return s.store.Sync(ctx)
}

type faultyLog struct {
	ingest.Log
	*faulty
}

func (l faultyLog) Append(ctx context.Context, id string, frame []byte) (uint64, error) {
	l.once("append to the log")
	return l.Log.Append(ctx, id, frame)
}

func TestEveryLoopSurvivesAPanicAndNothingIsLost(t *testing.T) {
	st := newStore()
	f := &faulty{fired: map[string]bool{}}
	r := start(t, t.TempDir(), st, func(c *ingest.Config) {
		c.Log = faultyLog{c.Log, f}
		c.Store, c.Latest = faultyStore{st, f}, faultyStore{st, f}
		c.Observe = func([]muster.Reading) { f.once("observe") }
		c.OnRejected = func(muster.Rejected) { f.once("rejected") }
	})
	a := newAcks()
	for i := range 100 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
	}
	r.send(t, "d", `bad`, a, 100)
	r.send(t, "d", `{"i":100}`, panicking{}, 101)
	r.send(t, "d", `{"i":101}`, a, 102)
	a.wait(t, 102)
	st.await(t, "every row", func(s *store) bool { return len(s.rows) == 102 && len(s.rejected) == 1 })
	st.await(t, "the latest values", func(s *store) bool { return len(s.saved["d"].Values) == 1 })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 103, Stored: 102, Rejected: 1})
	restarts := map[string]int{}
	for _, l := range r.in.Loops() {
		restarts[l.Name] = l.Restarts
	}
	for _, name := range []string{"ingest-committer", "ingest-writer", "ingest-latest"} {
		if restarts[name] == 0 {
			t.Errorf("%s was not restarted: %v", name, restarts)
		}
	}
}

type panicking struct{}

func (panicking) Acked(uint64, error) { panic("acked") }
