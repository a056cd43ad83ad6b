package devices_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// at is a time after every device of the tests was made.
func at(second int64) time.Time {
	return time.Date(2050, 1, 1, 6, 0, 0, 0, time.UTC).Add(time.Duration(second) * time.Second)
}

func micros(second int64) muster.Micros { return muster.MicrosOf(at(second)) }

// rig is a registry on a clock that the test moves, with what it told.
type rig struct {
	testing.TB
	now     int64
	m       *memory
	r       *devices.Registry
	o       devices.Options
	told    []devices.Transition
	session uint64
	live    map[muster.DeviceID]devices.Connection
}

func newRig(t testing.TB, specs ...devices.Spec) *rig {
	t.Helper()
	g := &rig{TB: t, m: newMemory()}
	g.start()
	if _, _, err := g.r.CreateMany(context.Background(), specs); err != nil {
		t.Fatal(err)
	}
	return g
}

// start is a start of the server on what the store has.
func (g *rig) start() {
	g.Helper()
	o := g.o
	o.OnPresence = func(ts []devices.Transition) { g.told = append(g.told, ts...) }
	g.r = devices.NewRegistry(g.m, func() time.Time { return at(g.now) }, quiet(), o)
	if err := g.r.Load(context.Background()); err != nil {
		g.Fatal(err)
	}
	g.r.Begin()
	g.live = map[muster.DeviceID]devices.Connection{}
}

// stop saves everything, as a stop does.
func (g *rig) stop() {
	g.Helper()
	if err := g.r.Flush(context.Background(), true); err != nil {
		g.Fatal(err)
	}
}

// pass lets seconds go by.
func (g *rig) pass(seconds int64) {
	for range seconds {
		g.now++
		g.r.FindAbsent()
	}
	g.r.Deliver()
}

func (g *rig) connect(id muster.DeviceID) devices.Connection {
	g.session++
	c := devices.Connection{Device: id, Session: g.session, At: at(g.now)}
	g.live[id] = c
	g.r.Connected(c)
	return c
}

// end ends the connection that connect made last.
func (g *rig) end(id muster.DeviceID, reason string) {
	g.r.Disconnected(g.live[id], reason, at(g.now))
	delete(g.live, id)
}

func (g *rig) hear(id muster.DeviceID) { g.r.Heard(id, micros(g.now)) }

func (g *rig) want(id muster.DeviceID, s muster.PresenceState, since int64, reason string) {
	g.Helper()
	p, ok := g.r.Presence(id)
	p.LastSeen = 0
	if d := cmp.Diff(muster.Presence{State: s, Since: micros(since), Reason: reason}, p); d != "" || !ok {
		g.Errorf("after %d s, presence of %s (-want +got):\n%s", g.now, id, d)
	}
}

// wantTold checks what was told of a device, and forgets it.
func (g *rig) wantTold(id muster.DeviceID, want ...muster.PresenceState) {
	g.Helper()
	g.r.Deliver()
	var got []muster.PresenceState
	rest := g.told[:0]
	for _, tr := range g.told {
		if tr.Device == id {
			got = append(got, tr.To)
		} else {
			rest = append(rest, tr)
		}
	}
	g.told = rest
	if d := cmp.Diff(want, got); d != "" {
		g.Errorf("told of %s (-want +got):\n%s", id, d)
	}
}

const (
	never   = muster.PresenceNever
	online  = muster.PresenceOnline
	isQuiet = muster.PresenceQuiet
	offline = muster.PresenceOffline
	unknown = muster.PresenceUnknown
)

func TestPresenceFollowsConnections(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"})
	g.want("a", never, 0, "")
	g.now = 10
	c := g.connect("a")
	if got, ok := g.r.Connection("a"); !ok || got != c {
		t.Errorf("connection is %+v, %v", got, ok)
	}
	g.want("a", online, 10, "")
	if n := g.r.Counts()[muster.Status(online)]; n != 1 {
		t.Errorf("%d are online", n)
	}
	g.now = 15
	g.hear("a")
	if p, _ := g.r.Presence("a"); p.LastSeen != micros(15) {
		t.Errorf("last seen at %v", p.LastSeen.Time())
	}
	g.now = 20
	g.end("a", "disconnected")
	g.want("a", offline, 20, "disconnected")
	if _, ok := g.r.Connection("a"); ok {
		t.Error("an offline device has a connection")
	}
	g.now = 30
	g.r.Disconnected(c, "twice", at(30))
	g.want("a", offline, 20, "disconnected")
	if _, ok := g.r.Presence("nobody"); ok {
		t.Error("an unknown device has a presence")
	}
}

func TestTheGraceDecidesWhoIsOffline(t *testing.T) {
	tests := []struct {
		name, reason string
		will         bool
		grace        time.Duration
		offlineAfter int64 // seconds, -1 for at once
		since        string
	}{
		{name: "a goodbye counts at once", reason: "disconnected", offlineAfter: -1},
		{name: "a goodbye with the will counts at once", reason: "disconnected, with last will", offlineAfter: -1},
		{name: "a credential that is gone counts at once", reason: "credential gone", offlineAfter: -1},
		{name: "a will counts at once", reason: "keepalive", will: true, offlineAfter: -1},
		{name: "a lost connection has 10 s", reason: "closed", offlineAfter: 10},
		{name: "a missed keep-alive has 10 s", reason: "keepalive", offlineAfter: 10},
		{name: "the grace is configured", reason: "closed", grace: 3 * time.Second, offlineAfter: 3},
		{name: "no grace", reason: "closed", grace: -1, offlineAfter: -1},
		{name: "a takeover without the one who took over has 10 s", reason: "taken over", offlineAfter: 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := &rig{TB: t, m: newMemory(), o: devices.Options{Grace: tt.grace}}
			g.start()
			mustCreate(t, g.r, devices.Spec{ID: "a"})
			c := g.connect("a")
			g.pass(5)
			c.Will = tt.will
			g.r.Disconnected(c, tt.reason, at(5))
			reason := tt.reason
			if tt.will {
				reason += ", with last will"
			}
			if tt.offlineAfter >= 0 {
				g.pass(tt.offlineAfter - 1)
				g.want("a", online, 0, "")
				g.pass(1)
			}
			g.want("a", offline, 5, reason)
			g.wantTold("a", online, offline)
		})
	}
}

func TestWhoComesBackInTheGraceWasNeverOffline(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"})
	g.connect("a")
	for range 5 {
		g.pass(4)
		g.end("a", "closed")
		g.pass(9)
		g.connect("a")
	}
	g.pass(60)
	g.want("a", online, 0, "")
	g.wantTold("a", online)
	d, _ := g.r.PresenceDetail("a")
	if d.Flaps != 5 {
		t.Errorf("%d flaps are counted, want 5", d.Flaps)
	}
	g.pass(2 * 3600)
	if d, _ = g.r.PresenceDetail("a"); d.Flaps != 0 {
		t.Errorf("%d flaps are counted two hours later", d.Flaps)
	}
}

func TestSilenceBeyondTheExpectedCheckInIsQuiet(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a", CheckIn: 60}, devices.Spec{ID: "free"})
	g.connect("a")
	g.connect("free")
	g.pass(100)
	g.hear("a")
	g.pass(119)
	g.want("a", online, 0, "")
	g.pass(1)
	g.want("a", isQuiet, 220, "silent")
	if n := g.r.Counts()[muster.Status(isQuiet)]; n != 1 {
		t.Errorf("%d are quiet", n)
	}
	g.pass(30)
	g.end("a", "closed")
	g.pass(2)
	g.connect("a")
	g.want("a", isQuiet, 220, "silent") // CONNECT is no message
	g.pass(1)
	g.hear("a")
	g.want("a", online, 253, "")
	g.pass(200)
	long := int64(3600)
	if _, err := g.r.Update(t.Context(), "a", devices.Change{CheckIn: &long}); err != nil {
		t.Fatal(err)
	}
	g.want("a", online, 453, "") // by the new check-in it is not silent
	g.pass(86400)
	g.wantTold("a", online, isQuiet, online, isQuiet, online, isQuiet)
	g.want("free", online, 0, "") // nobody knows how often it speaks
	for id, want := range map[muster.DeviceID]int64{"a": 3600, "free": 600, "nobody": 600} {
		if got := g.r.CheckIn(id); got != want {
			t.Errorf("%s is expected every %d s, want %d", id, got, want)
		}
	}
}

func TestAShorterCheckInCountsAtOnce(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a", CheckIn: 3600})
	g.connect("a")
	g.pass(600)
	short := int64(60)
	if _, err := g.r.Update(t.Context(), "a", devices.Change{CheckIn: &short}); err != nil {
		t.Fatal(err)
	}
	g.pass(1)
	g.want("a", isQuiet, 120, "silent")
}

func TestTheEndOfATakenOverSessionNeverMarksOffline(t *testing.T) {
	old := devices.Connection{Device: "a", Session: 1, At: at(1)}
	newer := devices.Connection{Device: "a", Session: 2, At: at(5)}
	orders := map[string][]func(*devices.Registry){
		"old ends first": {
			func(r *devices.Registry) { r.Connected(old) },
			func(r *devices.Registry) { r.Disconnected(old, "taken over", at(5)) },
			func(r *devices.Registry) { r.Connected(newer) },
		},
		"new starts first": {
			func(r *devices.Registry) { r.Connected(old) },
			func(r *devices.Registry) { r.Connected(newer) },
			func(r *devices.Registry) { r.Disconnected(old, "taken over", at(5)) },
		},
		"new is reported before old": {
			func(r *devices.Registry) { r.Connected(newer) },
			func(r *devices.Registry) { r.Connected(old) },
			func(r *devices.Registry) { r.Disconnected(old, "taken over", at(5)) },
		},
	}
	for name, calls := range orders {
		t.Run(name, func(t *testing.T) {
			r := open(t, newMemory(), devices.Options{})
			mustCreate(t, r, devices.Spec{ID: "a"})
			for _, call := range calls {
				call(r)
			}
			if p, _ := r.Presence("a"); p.State != muster.PresenceOnline {
				t.Errorf("the device is %s", p.State)
			}
			if c, _ := r.Connection("a"); c != newer {
				t.Errorf("the connection is session %d", c.Session)
			}
		})
	}
}

// TestPresenceIsRightInAnyOrderOfReports: the calls of one connection come in
// order, those of several interleave freely.
func TestPresenceIsRightInAnyOrderOfReports(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := open(t, newMemory(), devices.Options{Grace: -1})
		mustCreate(t, r, devices.Spec{ID: "a"})
		n := rapid.IntRange(1, 6).Draw(rt, "connections")
		ends := make([]int64, n)
		conns := make([]devices.Connection, n)
		for i := range conns {
			start := rapid.Int64Range(1, 50).Draw(rt, "start")
			ends[i] = start + rapid.Int64Range(0, 50).Draw(rt, "length")
			conns[i] = devices.Connection{Device: "a", Session: uint64(i + 1), At: at(start)}
		}
		step := make([]int, n) // 0 not reported, 1 connected, 2 ended
		var last int64
		var lastSession uint64
		for range 2 * n {
			i := rapid.IntRange(0, n-1).Filter(func(i int) bool { return step[i] < 2 }).Draw(rt, "next")
			if step[i]++; step[i] == 1 {
				r.Connected(conns[i])
			} else {
				r.Disconnected(conns[i], fmt.Sprint("end of ", i+1), at(ends[i]))
				if ends[i] > last || ends[i] == last && conns[i].Session > lastSession {
					last, lastSession = ends[i], conns[i].Session
				}
			}
			checkAgainst(rt, r, conns, step)
		}
		want := muster.Presence{State: muster.PresenceOffline, Since: micros(last), Reason: fmt.Sprint("end of ", lastSession)}
		got, _ := r.Presence("a")
		got.LastSeen = 0
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatal(d)
		}
	})
}

func checkAgainst(rt *rapid.T, r *devices.Registry, conns []devices.Connection, step []int) {
	newest := uint64(0)
	for i, s := range step {
		if s == 1 {
			newest = max(newest, conns[i].Session)
		}
	}
	p, _ := r.Presence("a")
	if online := p.State == muster.PresenceOnline; online != (newest > 0) {
		rt.Fatalf("state is %s with newest open session %d", p.State, newest)
	}
	if c, ok := r.Connection("a"); ok != (newest > 0) || c.Session != newest {
		rt.Fatalf("connection is session %d, want %d", c.Session, newest)
	}
	if r.Counts()[muster.Status(p.State)] != 1 {
		rt.Fatalf("counts is %v in state %s", r.Counts(), p.State)
	}
}

// pass lets d go by on the bubble's clock and waits until all has settled.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// running runs r's loops until stop, which waits for them.
func running(t *testing.T, r *devices.Registry) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for _, run := range []func(context.Context) error{r.Run, r.RunAbsence, r.RunEvents} {
		go func() { done <- run(ctx) }()
	}
	return func() {
		cancel()
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
	}
}

func TestAfterARestartOnlineIsUnknownAndThenOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		r := open(t, m, devices.Options{})
		for _, id := range []muster.DeviceID{"back", "gone", "off", "never"} {
			mustCreate(t, r, devices.Spec{ID: id})
		}
		stop := running(t, r)
		for i, id := range []muster.DeviceID{"back", "gone", "off"} {
			r.Connected(devices.Connection{Device: id, Session: uint64(i), At: time.Now()})
		}
		r.Disconnected(devices.Connection{Device: "off", Session: 2}, "disconnected", time.Now())
		stop()

		r = open(t, m, devices.Options{})
		began := muster.MicrosOf(time.Now())
		for id, want := range map[muster.DeviceID]muster.PresenceState{
			"back": muster.PresenceUnknown, "gone": muster.PresenceUnknown, "off": muster.PresenceOffline, "never": muster.PresenceNever,
		} {
			if p, _ := r.Presence(id); p.State != want {
				t.Errorf("%s is %s, want %s", id, p.State, want)
			}
		}
		if p, _ := r.Presence("gone"); p.Since != began || p.Reason != "server restarted" {
			t.Errorf("gone is %+v", p)
		}
		stop = running(t, r)
		defer stop()
		r.Connected(devices.Connection{Device: "back", Session: 1, At: time.Now()})
		pass(29 * time.Second)
		if p, _ := r.Presence("gone"); p.State != muster.PresenceUnknown {
			t.Errorf("gone is %s after 29 s", p.State)
		}
		pass(3 * time.Second)
		p, _ := r.Presence("gone")
		if p.State != muster.PresenceOffline || p.Reason != "not back after server restart" {
			t.Errorf("gone is %+v after 32 s", p)
		}
		want := map[muster.Status]int{"never": 1, "online": 1, "quiet": 0, "offline": 2, "unknown": 0, "updating": 0}
		if d := cmp.Diff(want, r.Counts()); d != "" {
			t.Error(d)
		}
		if got := m.saved("gone"); got.State != muster.PresenceOffline {
			t.Errorf("the store has %+v", got)
		}
	})
}

func TestPresenceIsSavedInBoundedBatchesAndAgainAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		seen := muster.MicrosOf(time.Now().Add(time.Hour))
		r := open(t, m, devices.Options{})
		specs := make([]devices.Spec, 2500)
		for i := range specs {
			specs[i].ID = muster.DeviceID(fmt.Sprintf("d%04d", i))
		}
		if _, _, err := r.CreateMany(t.Context(), specs); err != nil {
			t.Fatal(err)
		}
		stop := running(t, r)
		pass(3 * time.Second)
		if len(m.batches) != 0 {
			t.Errorf("nothing changed and %v was saved", m.batches)
		}
		for i, s := range specs {
			r.Connected(devices.Connection{Device: s.ID, Session: uint64(i), At: time.Now()})
		}
		m.setDown(true)
		r.Seen("d2499", seen)
		pass(4 * time.Second)
		m.setDown(false)
		if err := r.Delete(t.Context(), "d0000", devices.KeepData); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if d := cmp.Diff([]int{999, 1000, 500}, m.batches); d != "" {
			t.Error(d)
		}
		if got := m.saved("d2499"); got.State != muster.PresenceOnline || got.LastSeen != seen {
			t.Errorf("saved %+v", got)
		}
		r.Disconnected(devices.Connection{Device: "d0001", Session: 1}, "disconnected", time.Now())
		r.Disconnected(devices.Connection{Device: "d0002", Session: 2}, "server stopped", time.Now())
		stop()
		if got := m.saved("d0001"); got.State != muster.PresenceOffline || got.Reason != "disconnected" {
			t.Errorf("at stop %+v was saved", got)
		}
		if got := m.saved("d0002"); got.State != muster.PresenceOnline {
			t.Errorf("at stop %+v was saved of a device that the stop cut", got)
		}
	})
}
