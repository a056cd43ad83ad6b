package devices_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

func withChild(t testing.TB) *rig {
	return newRig(t, devices.Spec{ID: "g"}, devices.Spec{ID: "c", Parent: "g", CheckIn: 100}, devices.Spec{ID: "d", Parent: "g"})
}

func TestAChildIsOnlineWhenItsGatewayAnnouncesOrSpeaksForIt(t *testing.T) {
	g := withChild(t)
	g.r.ChildConnected("g", "c")
	g.want("c", never, 0, "") // the gateway is not there
	g.connect("g")
	g.want("c", never, 0, "")
	g.pass(1)
	g.r.ChildConnected("g", "c")
	g.hear("d")
	g.want("c", online, 1, "")
	g.want("d", online, 1, "")
	if p, _ := g.r.Presence("g"); p.LastSeen != micros(1) {
		t.Error("what a gateway says of its child is not its own message")
	}
	g.r.ChildConnected("c", "d") // not its child
	g.r.ChildDisconnected("c", "d")
	g.r.ChildConnected("g", "nobody")
	g.pass(200)
	g.want("c", isQuiet, 201, "silent")
	g.hear("c")
	g.r.ChildDisconnected("g", "c")
	g.want("c", offline, 201, "gateway g: disconnected")
	g.pass(1)
	g.hear("c")
	g.wantTold("c", online, isQuiet, online, offline, online)
	g.want("d", online, 1, "")
}

func TestChildrenGoOfflineWithTheirGatewayAndComeBackOneByOne(t *testing.T) {
	g := withChild(t)
	g.connect("g")
	g.r.ChildConnected("g", "c")
	g.hear("d")
	g.pass(5)
	g.end("g", "closed")
	g.pass(9)
	g.connect("g")
	g.pass(60)
	g.want("c", online, 0, "")
	g.want("d", online, 0, "") // a loss within the grace is none
	g.end("g", "keepalive")
	g.pass(10)
	g.want("g", offline, 74, "keepalive")
	g.want("c", offline, 74, "gateway g: keepalive")
	g.want("d", offline, 74, "gateway g: keepalive")
	g.r.Heard("c", micros(73)) // on its way when the gateway was lost
	g.pass(10)
	g.connect("g")
	g.pass(30)
	g.want("c", offline, 74, "gateway g: keepalive") // not heard of since
	g.hear("c")
	g.r.ChildConnected("g", "d")
	g.want("c", online, 124, "")
	g.want("d", online, 124, "")
	g.wantTold("c", online, offline, online)
}

func TestAChildsOwnConnectionComesBeforeItsGateway(t *testing.T) {
	g := withChild(t)
	g.connect("g")
	g.r.ChildConnected("g", "c")
	g.pass(1)
	g.connect("c")
	g.end("g", "disconnected")
	g.want("c", online, 0, "")
	g.r.ChildDisconnected("g", "c")
	g.want("c", online, 0, "")
	g.end("c", "disconnected")
	g.want("c", offline, 1, "disconnected")
}

func TestAGrandchildSaysWhichGatewayWasLost(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "top"}, devices.Spec{ID: "mid", Parent: "top"}, devices.Spec{ID: "leaf", Parent: "mid"})
	g.connect("top")
	g.hear("mid")
	g.hear("leaf")
	g.want("leaf", online, 0, "")
	g.end("top", "disconnected")
	g.want("mid", offline, 0, "gateway top: disconnected")
	g.want("leaf", offline, 0, "gateway top: disconnected")
}

func TestADeletedOrChangedGateway(t *testing.T) {
	g := withChild(t)
	g.connect("g")
	g.hear("c")
	g.hear("d")
	none := muster.DeviceID("")
	if _, err := g.r.Update(t.Context(), "d", devices.Change{Parent: &none}); err != nil {
		t.Fatal(err)
	}
	g.pass(1)
	if err := g.r.Delete(t.Context(), "g", devices.KeepData); err != nil {
		t.Fatal(err)
	}
	if p, _ := g.r.Presence("c"); p.State != online && p.State != offline {
		t.Errorf("c is %+v", p)
	}
	g.want("d", online, 0, "") // its data alone keep it now
	g.pass(1200)
	g.want("d", offline, 1200, "silent")
	if n := g.r.Counts(); n["online"] != 0 || n["offline"] != 2 {
		t.Errorf("counts are %v", n)
	}
}

func TestADeviceWithoutAConnectionIsOnlineByItsData(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "http", CheckIn: 60}, devices.Spec{ID: "plain"})
	g.pass(10)
	old := muster.Reading{Device: "http", Arrival: micros(10), Time: micros(10 - 25*3600)}
	g.r.Observe([]muster.Reading{old})
	g.want("http", never, 0, "") // history is no sign of life
	g.hear("http")
	g.hear("plain")
	g.pass(119)
	g.want("http", online, 10, "")
	g.pass(1)
	g.want("http", offline, 130, "silent")
	g.pass(5)
	g.hear("http")
	g.want("http", online, 135, "")
	g.pass(1074)
	g.want("plain", online, 10, "")
	g.pass(1)
	g.want("plain", offline, 1210, "silent")
	g.wantTold("http", online, offline, online, offline)
}

func TestALastWillIsNoSignOfLife(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"})
	c := g.connect("a")
	g.pass(5)
	c.Will = true
	g.r.Disconnected(c, "closed", at(5))
	will := muster.Reading{Device: "a", Arrival: micros(5) + 2000, Time: micros(5) + 2000}
	g.r.Observe([]muster.Reading{{Device: "a", Arrival: micros(5) - 10, Time: micros(5)}, will})
	g.want("a", offline, 5, "closed, with last will")
	g.pass(20)
	g.hear("a") // it goes on by HTTP
	g.pass(5)
	g.want("a", online, 25, "")
}

func TestEventsOfAStormAreBatchedAndInOrder(t *testing.T) {
	const n = 20_000
	var calls int
	last := map[muster.DeviceID]devices.Transition{}
	o := devices.Options{OnPresence: func(ts []devices.Transition) {
		calls++
		for _, tr := range ts {
			if before, ok := last[tr.Device]; tr.From == tr.To || tr.At < before.At || ok && before.To != tr.From || !ok && tr.From != never {
				t.Fatalf("after %+v comes %+v", before, tr)
			}
			last[tr.Device] = tr
		}
	}}
	r := devices.NewRegistry(newMemory(), func() time.Time { return at(1e6) }, quiet(), o)
	specs := make([]devices.Spec, n)
	for i := range specs {
		specs[i].ID = muster.DeviceID(fmt.Sprintf("d%05d", i))
	}
	for from := 0; from < n; from += devices.MaxBatch {
		if _, _, err := r.CreateMany(context.Background(), specs[from:from+devices.MaxBatch]); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	cancel := r.Watch(func(ids []muster.DeviceID) { told += len(ids) })
	defer cancel()
	const rounds = 10 // each two transitions: more than are kept one by one
	for round := range int64(rounds) {
		for i, s := range specs {
			c := devices.Connection{Device: s.ID, Session: uint64(round*n) + uint64(i), At: at(1e6 + 2*round)}
			r.Connected(c)
			if round < rounds-1 {
				r.Disconnected(c, "disconnected", at(1e6+2*round+1))
			}
		}
	}
	r.Deliver()
	if calls > 200 || told != n {
		t.Errorf("%d calls of OnPresence, watchers were told of %d devices", calls, told)
	}
	for _, s := range specs {
		if last[s.ID].To != online {
			t.Fatalf("the last of %s is %+v", s.ID, last[s.ID])
		}
	}
	r.Deliver()
	if d := cmp.Diff(n, len(last)); d != "" {
		t.Error(d)
	}
}

func TestPresenceTakesCallsFromAllSidesAtOnce(t *testing.T) {
	g := withChild(t)
	last := map[muster.DeviceID]devices.Transition{}
	r := devices.NewRegistry(g.m, time.Now, quiet(), devices.Options{Grace: -1, OnPresence: func(ts []devices.Transition) {
		for _, tr := range ts {
			if before, ok := last[tr.Device]; ok && before.To != tr.From || tr.From == tr.To {
				t.Errorf("after %+v comes %+v", before, tr)
			}
			last[tr.Device] = tr
		}
	}})
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var loops, callers sync.WaitGroup
	for _, loop := range []func(context.Context) error{r.Run, r.RunAbsence, r.RunEvents} {
		loops.Go(func() {
			if err := loop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	ids := []muster.DeviceID{"g", "c", "d"}
	for w := range uint64(4) {
		callers.Go(func() {
			for i := range uint64(500) {
				id := ids[(i+w)%3]
				c := devices.Connection{Device: id, Session: w*1000 + i + 1, At: time.Now()}
				r.Connected(c)
				r.Observe([]muster.Reading{{Device: "c", Arrival: muster.MicrosOf(time.Now())}, {Device: "d", Arrival: muster.MicrosOf(time.Now())}})
				r.ChildConnected("g", "c")
				r.PresenceDetail(id)
				r.Disconnected(c, "closed", time.Now())
				r.ChildDisconnected("g", "c")
			}
		})
	}
	callers.Wait()
	cancel()
	loops.Wait()
	for _, id := range ids {
		if p, _ := r.Presence(id); last[id].To != p.State || g.m.saved(id).State != p.State {
			t.Errorf("%s is %s, told %s, saved %s", id, p.State, last[id].To, g.m.saved(id).State)
		}
	}
}
