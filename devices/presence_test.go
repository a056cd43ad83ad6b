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

func at(second int64) time.Time { return time.Unix(second, 0) }

func wantPresence(t testing.TB, r *devices.Registry, id muster.DeviceID, want muster.Presence) {
	t.Helper()
	got, ok := r.Presence(id)
	if !ok {
		t.Fatalf("%s has no presence", id)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("presence of %s (-want +got):\n%s", id, d)
	}
}

func TestPresenceFollowsConnections(t *testing.T) {
	seen := muster.Micros(0)
	r := open(t, newMemory(), devices.Options{LastSeen: func(muster.DeviceID) muster.Micros { return seen }})
	d, _, err := r.Create(t.Context(), devices.Spec{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	wantPresence(t, r, "a", muster.Presence{State: muster.PresenceNever, Since: d.Created})
	c := devices.Connection{Device: "a", Session: 7, Peer: "127.0.0.1:9", ClientID: "x", Protocol: 5, Transport: "tcp", At: at(10)}
	r.Connected(c)
	if got, ok := r.Connection("a"); !ok || got != c {
		t.Errorf("connection is %+v, %v", got, ok)
	}
	seen = muster.MicrosOf(at(15))
	wantPresence(t, r, "a", muster.Presence{State: muster.PresenceOnline, Since: muster.MicrosOf(at(10)), LastSeen: seen})
	if r.Counts()[muster.PresenceOnline] != 1 {
		t.Errorf("counts is %v", r.Counts())
	}
	r.Disconnected(c, "keepalive", at(20))
	wantPresence(t, r, "a", muster.Presence{State: muster.PresenceOffline, Since: muster.MicrosOf(at(20)), LastSeen: seen, Reason: "keepalive"})
	if _, ok := r.Connection("a"); ok {
		t.Error("an offline device has a connection")
	}
	r.Disconnected(c, "twice", at(30))
	wantPresence(t, r, "a", muster.Presence{State: muster.PresenceOffline, Since: muster.MicrosOf(at(20)), LastSeen: seen, Reason: "keepalive"})
	if _, ok := r.Presence("nobody"); ok {
		t.Error("an unknown device has a presence")
	}
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
		r := open(t, newMemory(), devices.Options{})
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
		want := muster.Presence{State: muster.PresenceOffline, Since: muster.MicrosOf(at(last)), Reason: fmt.Sprint("end of ", lastSession)}
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
	if r.Counts()[p.State] != 1 {
		rt.Fatalf("counts is %v in state %s", r.Counts(), p.State)
	}
}

// pass lets d go by on the bubble's clock and waits until all has settled.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// running runs r until stop, which waits for it.
func running(t *testing.T, r *devices.Registry) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
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
		want := map[muster.PresenceState]int{"never": 1, "online": 1, "offline": 2, "unknown": 0}
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
		r := open(t, m, devices.Options{LastSeen: func(muster.DeviceID) muster.Micros { return seen }})
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
		pass(4 * time.Second)
		m.setDown(false)
		if err := r.Delete(t.Context(), "d0000"); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if d := cmp.Diff([]int{1000, 1000, 499}, m.batches); d != "" {
			t.Error(d)
		}
		if got := m.saved("d2499"); got.State != muster.PresenceOnline || got.LastSeen != seen {
			t.Errorf("saved %+v", got)
		}
		r.Disconnected(devices.Connection{Device: "d0001", Session: 1}, "server stopped", time.Now())
		stop()
		if got := m.saved("d0001"); got.State != muster.PresenceOffline || got.Reason != "server stopped" {
			t.Errorf("at stop %+v was saved", got)
		}
	})
}
