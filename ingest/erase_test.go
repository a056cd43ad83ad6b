package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/ingest"
)

// Erase deletes at most so many rows as s.erases says.
func (s *store) Erase(_ context.Context, device muster.DeviceID) (left bool, err error) {
	s.set(func(s *store) {
		switch {
		case s.down:
			err = muster.Errorf(muster.Unavailable, "no route to the store")
			return
		case device == s.refuses:
			err = errors.New("a damaged page")
			return
		}
		if s.erased[device]++; s.erased[device] == 1 {
			s.needs[device] = s.writer.Seq
		}
		delete(s.saved, device)
		s.rejected = slices.DeleteFunc(s.rejected, func(r muster.Rejected) bool { return r.Device == device })
		gone := 0
		for key := range s.rows {
			if strings.HasPrefix(key, string(device)+"/") {
				if left = gone == s.erases; left {
					return
				}
				delete(s.rows, key)
				gone++
			}
		}
	})
	return left, err
}

// of counts the rows of a device.
func (s *store) of(device muster.DeviceID) (n int) {
	for key := range s.rows {
		if strings.HasPrefix(key, string(device)+"/") {
			n++
		}
	}
	return n
}

// registry is who knows which devices there are, over the restarts of the pipeline.
type registry struct {
	mu      sync.Mutex
	gone    map[muster.DeviceID]bool
	erasing map[muster.DeviceID]bool
	store   *store
	more    chan struct{}
	ended   chan muster.DeviceID
}

func newRegistry() *registry {
	return &registry{
		gone: map[muster.DeviceID]bool{}, erasing: map[muster.DeviceID]bool{}, more: make(chan struct{}),
		ended: make(chan muster.DeviceID, 1000),
	}
}

func (g *registry) use(st *store) func(*ingest.Config) {
	g.store = st
	return func(c *ingest.Config) { c.Known, c.Erasures, c.Eraser = g.known, g, st }
}

func (g *registry) known(id muster.DeviceID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.gone[id]
}

// erase deletes devices with their data, as the registry does.
func (g *registry) erase(in *ingest.Ingest, ids ...muster.DeviceID) {
	g.mu.Lock()
	for _, id := range ids {
		g.gone[id], g.erasing[id] = true, true
	}
	close(g.more)
	g.more = make(chan struct{})
	g.mu.Unlock()
	for _, id := range ids {
		in.Deleted(id)
	}
}

func (g *registry) make(id muster.DeviceID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.gone, id)
}

func (g *registry) Erasing(after muster.DeviceID, limit int) ([]muster.DeviceID, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := slices.Sorted(maps.Keys(g.erasing))
	ids = slices.DeleteFunc(ids, func(id muster.DeviceID) bool { return id <= after })
	return ids[:min(limit, len(ids))], g.more
}

func (g *registry) IsErasing(id muster.DeviceID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.erasing[id]
}

func (g *registry) Erased(_ context.Context, ids []muster.DeviceID) error {
	g.store.set(func(s *store) {
		for _, id := range ids {
			if s.latest.Seq < s.needs[id] {
				s.late = append(s.late, "a start that reads latest values from the log, which has "+string(id))
			}
		}
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		delete(g.erasing, id)
		g.ended <- id
	}
	return nil
}

func (g *registry) await(t *testing.T, want ...muster.DeviceID) {
	t.Helper()
	var got []muster.DeviceID
	for range want {
		select {
		case id := <-g.ended:
			got = append(got, id)
		case <-time.After(20 * time.Second):
			t.Fatalf("erased are %v, want %v", got, want)
		}
	}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func (s *store) wantNoneLate(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.late) > 0 {
		t.Errorf("%d things came to the store after its device was erased, the first: %s", len(s.late), s.late[0])
	}
}

func accept(t *testing.T, in *ingest.Ingest, id muster.DeviceID) error {
	t.Helper()
	return in.Accept(t.Context(), ingest.Message{Device: id, Topic: "devices/" + string(id) + "/telemetry", Payload: []byte(`{"a":1}`), QoS: 1})
}

func TestTheDataOfADeletedDeviceIsErasedAndTheLedgerStaysBalanced(t *testing.T) {
	st, reg := newStore(), newRegistry()
	r := start(t, t.TempDir(), st, reg.use(st))
	a := newAcks()
	for i := range 20 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
		r.send(t, "neighbour", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
	}
	r.send(t, "d", `bad`, a, 20)
	a.wait(t, 41)
	reg.erase(r.in, "d")
	if err := accept(t, r.in, "d"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("a message of the deleted device is answered with %v", err)
	}
	reg.await(t, "d")
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 41, Stored: 40, Rejected: 1})
	st.mu.Lock()
	if st.of("d") != 0 || st.of("neighbour") != 20 || len(st.rejected) != 0 || st.erased["d"] != 7 {
		t.Errorf("left are %d rows and %d rejected, of the neighbour %d rows, after %d calls", st.of("d"), len(st.rejected), st.of("neighbour"), st.erased["d"])
	}
	clear(st.erased)
	st.mu.Unlock()
	st.wantNoneLate(t)
	if row, ok := r.in.Latest("d"); ok || r.in.DeviceLedger("d") != (ingest.Ledger{}) {
		t.Errorf("in memory are %+v and %+v", row, r.in.DeviceLedger("d"))
	}
	for r.in.EraseStatus() != (ingest.EraseStatus{Erased: 1}) { // it counts after it has told the registry
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("status %+v", r.in.EraseStatus())
		}
	}

	reg.make("d")
	r.send(t, "d", `{"j":1}`, a, 1)
	a.wait(t, 1)
	awaitQueueEmpty(t, r)
	if row, _ := r.in.Latest("d"); len(row.Values) != 1 || row.Values[0].Key.Name != "j" || r.in.DeviceLedger("d") != (ingest.Ledger{Received: 1, Stored: 1}) {
		t.Errorf("the device made again begins with %+v and %+v", row, r.in.DeviceLedger("d"))
	}
}

func TestWhatADeletedDeviceSentBeforeIsStoredBeforeItIsErased(t *testing.T) {
	dir, st, reg := t.TempDir(), newStore(), newRegistry()
	st.down = true
	r := start(t, dir, st, reg.use(st))
	a := newAcks()
	for i := range 50 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
		r.send(t, "e", fmt.Sprintf(`{"i":%d}`, i), a, uint64(i))
	}
	a.wait(t, 100)
	reg.erase(r.in, "d")
	st.await(t, "a failed try", func(s *store) bool { return s.appends > 0 })
	r.stop(t, 0)
	if len(st.erased) != 0 {
		t.Error("a device was erased before its messages were in the store")
	}

	r = start(t, dir, st, reg.use(st)) // as after kill -9: the log has the messages
	reg.erase(r.in, "e")
	st.set(func(s *store) { s.down = false })
	reg.await(t, "d", "e")
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Recovered: 100, Stored: 100})
	st.wantNoneLate(t)
	if len(st.rows) != 0 {
		t.Errorf("%d rows are left", len(st.rows))
	}
	if err := accept(t, r.in, "d"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("a message of the deleted device is answered with %v", err)
	}
	r.stop(t, 10*time.Second)
	if len(st.saved) != 0 {
		t.Errorf("latest values are saved again: %v", st.saved)
	}
}

// told is an Acker that lets its sender go on.
type told chan struct{}

func (a told) Acked(uint64, error) { a <- struct{}{} }

// publish sends one message after the other, until ctx ends, whether its device is
// there or not.
func publish(ctx context.Context, t *testing.T, in *ingest.Ingest, id muster.DeviceID, key string) {
	acked := make(told, 1)
	for n := 0; ctx.Err() == nil; n++ {
		m := ingest.Message{Device: id, Topic: "t", Payload: fmt.Appendf(nil, `{%q:%d}`, key, n), QoS: 1, From: acked}
		if n%10 == 0 {
			m.From = nil
			in.Refuse(m, "topic", "no such topic", 1)
			<-time.After(time.Millisecond)
			continue
		}
		switch err := in.Accept(ctx, m); {
		case err == nil:
			<-acked
			<-time.After(time.Millisecond)
		case muster.KindOf(err) == muster.NotFound:
			<-time.After(time.Millisecond)
		case ctx.Err() == nil:
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestNothingOfADeviceComesAfterItsErasureHowEverItPublishes(t *testing.T) {
	st, reg := newStore(), newRegistry()
	st.erases = 500
	r := start(t, t.TempDir(), st, reg.use(st))
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const devices = 20
	var ids []muster.DeviceID
	for i := range devices {
		id := muster.DeviceID(fmt.Sprintf("d%02d", i))
		ids = append(ids, id)
		for p := range 2 {
			wg.Go(func() {
				publish(ctx, t, r.in, id, fmt.Sprint("p", p))
			})
		}
	}
	for i := 0; i < devices/2; i += 2 {
		st.await(t, "data of all", func(s *store) bool { return s.of(ids[i]) > 5 && s.of(ids[i+1]) > 5 && len(s.saved) > 0 })
		reg.erase(r.in, ids[i], ids[i+1])
		reg.await(t, ids[i], ids[i+1])
	}
	saved := r.in.Ledger().Stored
	st.await(t, "more data", func(s *store) bool { return len(s.rows) > int(saved)/4 && len(s.saved) >= devices/2 })
	cancel()
	wg.Wait()
	awaitQueueEmpty(t, r)
	r.stop(t, 10*time.Second) // which saves the latest values
	st.wantNoneLate(t)
	for i, id := range ids {
		refused := slices.ContainsFunc(st.rejected, func(r muster.Rejected) bool { return r.Device == id })
		if n := st.of(id); (n == 0) != (i < devices/2) || refused == (i < devices/2) {
			t.Errorf("%s has %d rows, and rejected messages: %v", id, n, refused)
		}
	}
}

func TestADeviceThatCannotBeErasedHoldsUpNoOtherAndIsTriedAgain(t *testing.T) {
	st, reg := newStore(), newRegistry()
	st.refuses = "b"
	r := start(t, t.TempDir(), st, reg.use(st))
	a := newAcks()
	for _, id := range []muster.DeviceID{"a", "b", "c"} {
		r.send(t, id, `{"i":1}`, a, 0)
	}
	a.wait(t, 3)
	reg.erase(r.in, "a", "b", "c")
	reg.await(t, "a", "c")
	st.set(func(s *store) { s.refuses = "" })
	reg.await(t, "b")
	st.wantNoneLate(t)
	if len(st.rows) != 0 {
		t.Errorf("%d rows are left", len(st.rows))
	}
}

func TestAMessageOfADeviceThatIsNotInTheRegistryIsKeptAsRejectedOfNoDevice(t *testing.T) {
	st, reg := newStore(), newRegistry()
	reg.gone["nobody"] = true
	r := start(t, t.TempDir(), st, reg.use(st))
	if err := accept(t, r.in, "nobody"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("its message is answered with %v", err)
	}
	r.in.Refuse(ingest.Message{Device: "nobody", Topic: "t"}, "topic", "no such topic", 0)
	r.in.Refuse(ingest.Message{Topic: "t"}, "topic", "no such topic", 0) // of no device
	st.await(t, "the rejected messages", func(s *store) bool { return len(s.rejected) == 3 })
	awaitQueueEmpty(t, r)
	r.balanced(t, ingest.Ledger{Received: 3, Rejected: 3})
	for _, x := range st.rejected {
		if x.Device != "" {
			t.Errorf("kept is %+v", x)
		}
	}
	if x := st.rejected[0]; x.Code != "device" || x.Reason != "there is no such device" || string(x.Payload) != `{"a":1}` || x.Topic != "devices/nobody/telemetry" {
		t.Errorf("kept is %+v", x)
	}
	if r.in.DeviceLedger("nobody") != (ingest.Ledger{}) {
		t.Error("there is an account of a device that is not there")
	}

	a := newAcks()
	r.send(t, "d", `{"i":1}`, a, 1)
	a.wait(t, 1)
	reg.mu.Lock()
	reg.gone["d"] = true // deleted, and its data stays
	reg.mu.Unlock()
	r.in.Deleted("d")
	if err := accept(t, r.in, "d"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("after its deletion its message is answered with %v", err)
	}
	reg.make("d")
	r.send(t, "d", `{"j":2}`, a, 2)
	a.wait(t, 1)
	awaitQueueEmpty(t, r)
	if row, _ := r.in.Latest("d"); len(row.Values) != 2 {
		t.Errorf("a device made again goes on with %+v", row)
	}
}

func TestNoDeviceIsErasedBeforeTheLatestValuesHavePassedItsMessages(t *testing.T) {
	st, reg := newStore(), newRegistry()
	st.unsaved = true
	dir := t.TempDir()
	r := start(t, dir, st, reg.use(st))
	a := newAcks()
	r.send(t, "d", `{"i":1}`, a, 1)
	a.wait(t, 1)
	awaitQueueEmpty(t, r)
	r.stop(t, 0)
	r = start(t, dir, st, reg.use(st))
	reg.erase(r.in, "d")
	st.await(t, "a call of Erase", func(s *store) bool { return s.erased["d"] > 1 }) // the second after the first failed to save
	select {
	case id := <-reg.ended:
		t.Errorf("%s is erased, and a start would read its latest values from the log", id)
	default:
	}
	if s := r.in.EraseStatus(); s.Erased != 0 || s.LastError == "" {
		t.Errorf("status %+v", s)
	}
	st.set(func(s *store) { s.unsaved = false })
	reg.await(t, "d")
	st.wantNoneLate(t)
}
