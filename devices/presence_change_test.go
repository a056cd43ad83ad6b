package devices_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

// behind makes n devices of a name, each with what change sets.
func behind(name string, n int, change func(*devices.Spec)) []devices.Spec {
	out := make([]devices.Spec, n)
	for i := range out {
		out[i].ID = muster.DeviceID(fmt.Sprintf("%s-%02d", name, i))
		change(&out[i])
	}
	return out
}

// hourAgo is what changed in the last hour.
func (g *rig) hourAgo() devices.PresenceChange { return g.r.ChangeSince(micros(g.now - 3600)) }

func (g *rig) connectAll(specs []devices.Spec) {
	for i := range specs {
		g.connect(specs[i].ID)
	}
}

func (g *rig) endAll(specs []devices.Spec) {
	for i := range specs {
		g.end(specs[i].ID, "disconnected")
	}
}

func TestTheChangeOfAnHourIsWhatNowIsMoreThanThen(t *testing.T) {
	specs := behind("d", 6, func(*devices.Spec) {})
	g := newRig(t, specs...)
	g.connectAll(specs[:5])
	g.pass(60)
	g.end(specs[0].ID, "disconnected")
	g.pass(1)
	for state, n := range g.hourAgo().Counts {
		if n != 0 {
			t.Errorf("devices that were made a minute ago are %d more %s than an hour ago", n, state)
		}
	}
	if c := g.hourAgo(); c.Silent != 1 {
		t.Errorf("one of them went silent: %+v", c)
	}
	g.connect(specs[0].ID)
	g.pass(3700)
	if c := g.hourAgo(); c.Counts[muster.PresenceOnline] != 0 || c.Counts[muster.PresenceNever] != 0 || c.Silent != 0 || c.Cause != (devices.Cause{}) {
		t.Errorf("nothing changed: %+v", c)
	}
	g.endAll(specs[:2])
	g.connect(specs[5].ID)
	g.pass(10)
	want := map[muster.PresenceState]int{
		muster.PresenceOnline: -1, muster.PresenceOffline: 2, muster.PresenceNever: -1, muster.PresenceQuiet: 0, muster.PresenceUnknown: 0,
	}
	c := g.hourAgo()
	if d := cmp.Diff(want, c.Counts); d != "" || c.Silent != 2 {
		t.Errorf("%s, %d silent", d, c.Silent)
	}
	if c.Cause != (devices.Cause{}) {
		t.Errorf("two devices are no cause: %+v", c.Cause)
	}
	g.pass(3700)
	if c := g.hourAgo(); c.Counts[muster.PresenceOffline] != 0 || c.Silent != 0 {
		t.Errorf("what was an hour ago is no change: %+v", c)
	}
}

func TestTheCauseIsTheGatewayWhoseDevicesWentSilentTogether(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "gw-7"}, devices.Spec{ID: "gw-8"})
	kids := behind("kid", 8, func(s *devices.Spec) { s.Parent = "gw-7" })
	others := behind("other", 5, func(s *devices.Spec) { s.Parent = "gw-8" })
	if _, _, err := g.r.CreateMany(t.Context(), append(append([]devices.Spec{}, kids...), others...)); err != nil {
		t.Fatal(err)
	}
	g.connectAll([]devices.Spec{{ID: "gw-7"}, {ID: "gw-8"}})
	for _, s := range append(append([]devices.Spec{}, kids...), others...) {
		g.r.ChildConnected(s.Parent, s.ID)
	}
	g.pass(4000)
	g.r.ChildDisconnected("gw-8", others[0].ID)
	g.r.ChildDisconnected("gw-7", kids[0].ID)
	g.pass(120)
	lost := g.now
	g.end("gw-7", "disconnected")
	g.pass(1)
	want := devices.Cause{Kind: devices.CauseGateway, Name: "gw-7", State: muster.PresenceOffline, Devices: 8, Together: 7, At: micros(lost)}
	c := g.hourAgo()
	if d := cmp.Diff(want, c.Cause); d != "" || c.Silent != 10 {
		t.Errorf("%s; %d silent", d, c.Silent)
	}
}

func TestLessThanHalfIsNoCauseAndAGroupOfEverybodyIsNone(t *testing.T) {
	g := newRig(t)
	if err := g.r.PutGroup(t.Context(), devices.Group{Name: "all"}); err != nil {
		t.Fatal(err)
	}
	if err := g.r.PutGroup(t.Context(), devices.Group{Name: "north"}); err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) func(*devices.Spec) {
		return func(s *devices.Spec) { s.Groups = inGroups(names...) }
	}
	north, rest := behind("n", 6, in("all", "north")), behind("r", 14, in("all"))
	if _, _, err := g.r.CreateMany(t.Context(), append(append([]devices.Spec{}, north...), rest...)); err != nil {
		t.Fatal(err)
	}
	g.connectAll(north)
	g.connectAll(rest)
	g.pass(4000)
	g.endAll(rest[:8])
	g.endAll(north[:5])
	if c := g.hourAgo(); c.Silent != 13 || c.Cause != (devices.Cause{}) {
		t.Errorf("5 of 13 are named: %+v", c)
	}
	g.connectAll(rest[:5])
	if c := g.hourAgo(); c.Silent != 8 || c.Cause.Kind != devices.CauseGroup || c.Cause.Name != "north" || c.Cause.Devices != 5 {
		t.Errorf("5 of 8 are not named: %+v", c)
	}
}

func TestPresenceMovesWithEveryChangeOfAStateAndWithNothingElse(t *testing.T) {
	specs := behind("d", 2, func(*devices.Spec) {})
	g := newRig(t, specs...)
	at := g.r.PresenceMoves()
	moved := func(what string, want bool, do func()) {
		t.Helper()
		do()
		now := g.r.PresenceMoves()
		if moved := now != at; moved != want {
			t.Errorf("%s: moved is %t, want %t", what, moved, want)
		}
		at = now
	}
	moved("a device comes", true, func() { g.connect(specs[0].ID) })
	moved("a minute passes", false, func() { g.pass(60) })
	moved("it goes", true, func() { g.end(specs[0].ID, "disconnected") })
	moved("a device is made", true, func() {
		if _, _, err := g.r.Create(t.Context(), devices.Spec{ID: "late"}); err != nil {
			t.Fatal(err)
		}
	})
	moved("it is deleted", true, func() {
		if err := g.r.Delete(t.Context(), "late", devices.KeepData); err != nil {
			t.Fatal(err)
		}
	})
}
