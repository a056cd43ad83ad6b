package director_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// versioned is a fleet whose devices say which version they run. The releases are called by their versions.
type versioned struct {
	still
	runs map[muster.DeviceID]string
}

func (*versioned) Is(r *rollout.Rollout, version string) bool { return r.Release == version }
func (f *versioned) Version(_ *rollout.Rollout, id muster.DeviceID) string {
	return f.runs[id]
}

func (f *versioned) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	facts := f.still.Facts(r, id)
	facts.Version, facts.Installed = f.runs[id], f.runs[id] == r.Release
	return facts
}

// succession is a device with an action of 2.0.0 that was taken from it, and one of 3.0.0 that is in flight.
type succession struct {
	*testing.T
	store    *memory
	fleet    *versioned
	director *director.Director
	older    int32 // the action that was taken from it
}

func newSuccession(t *testing.T, take rollout.Event) *succession {
	t.Helper()
	f := &versioned{still: still{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), alive: true, reachable: true}, runs: map[muster.DeviceID]string{"pump": "1.0.0"}}
	s := &succession{T: t, store: newMemory(), fleet: f}
	s.director = director.New(s.store, f, func() time.Time { return f.at }, director.Options{Owner: "one"})
	s.add("older", 1, "2.0.0")
	s.tick()
	s.older = s.row("older").Action
	s.says(rollout.Fact{Event: rollout.SaysDownloading, Action: s.older})
	err := s.store.Decide(t.Context(), "older", director.Fence{}, s.now(), director.Select{IDs: []muster.DeviceID{"pump"}}, func(r *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
		c, err := rollout.Step(r, list[0], rollout.Fact{Event: take}, s.now())
		r.Status = rollout.Paused
		return []rollout.Change{c}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.add("newer", 2, "3.0.0")
	s.tick()
	if d := s.row("newer"); d.State != rollout.Offered {
		t.Fatalf("the newer rollout has it %s", d.State)
	}
	return s
}

func (s *succession) now() muster.Micros { return muster.MicrosOf(s.fleet.at) }

func (s *succession) add(id string, number int32, release string) {
	plan := rollout.DefaultPlan()
	plan.Phases, plan.Attempts = []rollout.Phase{{Percent: 100, Success: 90}}, 1
	s.store.add(rollout.Rollout{ID: id, Number: number, Release: release, Product: "pump", Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, []muster.DeviceID{"pump"})
}

func (s *succession) row(id string) *rollout.Device { return s.store.rollouts[id].devices["pump"] }

func (s *succession) tick() {
	s.Helper()
	s.fleet.at = s.fleet.at.Add(time.Second)
	tick(s.T, s.director)
}

func (s *succession) report(p director.Report) error {
	s.fleet.at = s.fleet.at.Add(time.Second)
	p.Device = "pump"
	return s.director.Reports(s.Context(), []director.Report{p})[0]
}

func (s *succession) says(f rollout.Fact) {
	s.Helper()
	if err := s.report(director.Report{Fact: f}); err != nil {
		s.Fatalf("%s: %v", f.Event, err)
	}
}

// runs has the device say by itself what it runs, as by attributes, and returns what came of it.
func (s *succession) runs(version string) error {
	s.fleet.runs["pump"] = version
	s.fleet.at = s.fleet.at.Add(time.Second)
	return s.director.Reports(s.Context(), []director.Report{director.SeenReport("pump", "")})[0]
}

func (s *succession) want(what string, late rollout.Late, state rollout.State) {
	s.Helper()
	if older, newer := s.row("older"), s.row("newer"); older.Late != late || newer.State != state || newer.Failures != 0 {
		s.Errorf("%s: the older rollout has it late %q, want %q; the newer has it %s with %d failures, want %s with none", what, older.Late, late, newer.State, newer.Failures, state)
	}
}

// TestWhatWasTakenFromADeviceAndIsInstalledAllTheSameIsNotedThere: whichever door says it, and whichever way the action
// was taken; the newer action is neither confirmed nor failed by it, and ends as it ends.
func TestWhatWasTakenFromADeviceAndIsInstalledAllTheSameIsNotedThere(t *testing.T) {
	doors := map[string]func(s *succession) error{
		"MQTT, by its action": func(s *succession) error {
			if s.says(rollout.Fact{Event: rollout.SaysInstalling, Action: s.older, Attempt: 1, Seq: 2}); s.row("older").Late != rollout.LateInstalled {
				s.want("installs", rollout.LateInstalling, rollout.Offered)
			}
			s.says(rollout.Fact{Event: rollout.SaysRebooting, Action: s.older, Attempt: 1, Seq: 3})
			return s.report(director.Report{Fact: rollout.Fact{Action: s.older, Attempt: 1, Seq: 4}, Version: "2.0.0"})
		},
		"DDI, by its attributes": func(s *succession) error { return s.runs("2.0.0") },
		"v2/fw, as of what is offered": func(s *succession) error {
			return s.report(director.Report{Fact: rollout.Fact{Action: s.row("newer").Action, Attempt: 1}, Version: "2.0.0", Restarted: true})
		},
	}
	for door, say := range doors {
		for _, take := range []rollout.Event{rollout.Replaced, rollout.Recall, rollout.Abort} {
			t.Run(door+", "+take.String(), func(t *testing.T) {
				s := newSuccession(t, take)
				if err := say(s); err != nil {
					t.Fatal(err)
				}
				s.want("installed", rollout.LateInstalled, rollout.Offered)
				if n := s.store.rollouts["older"].r.Counts[0].Late; n != 1 {
					t.Errorf("%d are late", n)
				}
				commits := s.store.commits
				if err := say(s); err != nil && muster.KindOf(err) != muster.Stale {
					t.Fatalf("once more: %v", err)
				}
				s.want("once more", rollout.LateInstalled, rollout.Offered)
				if s.store.rollouts["older"].r.Counts[0].Late != 1 || s.store.commits > commits+3 {
					t.Errorf("once more it counts %d, in %d transactions", s.store.rollouts["older"].r.Counts[0].Late, s.store.commits-commits)
				}
				newer := s.row("newer")
				s.says(rollout.Fact{Event: rollout.SaysRebooting, Action: newer.Action})
				if err := s.runs("3.0.0"); err != nil || !newer.Soaking {
					t.Errorf("the newer release: %v, it is %s", err, newer.State)
				}
			})
		}
	}
}

// TestAVersionOfWhatWasTakenFromADeviceFailsWhatCameBehindItOnlyWhenItHadThatBefore.
func TestAVersionOfWhatWasTakenFromADeviceFailsWhatCameBehindItOnlyWhenItHadThatBefore(t *testing.T) {
	t.Run("it restarts into the older one", func(t *testing.T) {
		s := newSuccession(t, rollout.Replaced)
		s.says(rollout.Fact{Event: rollout.SaysRebooting, Action: s.row("newer").Action})
		for range 2 { // by its attributes, and by its telemetry
			if err := s.runs("2.0.0"); err != nil {
				t.Fatal(err)
			}
		}
		s.want("restarted", rollout.LateInstalled, rollout.Rebooting)
	})
	t.Run("it says so in ThingsBoard's words", func(t *testing.T) {
		s := newSuccession(t, rollout.Replaced)
		newer := s.row("newer").Action
		s.says(rollout.Fact{Event: rollout.SaysInstalling, Action: newer}) // it is the older one that it installs
		if err := s.report(director.Report{Fact: rollout.Fact{Action: newer}, Version: "2.0.0", Restarted: true}); err != nil {
			t.Fatal(err)
		}
		s.want("updated", rollout.LateInstalled, rollout.Installing)
	})
	t.Run("it had it when it began to restart", func(t *testing.T) {
		s := newSuccession(t, rollout.Replaced)
		if err := s.runs("2.0.0"); err != nil {
			t.Fatal(err)
		}
		s.says(rollout.Fact{Event: rollout.SaysRebooting, Action: s.row("newer").Action})
		if err := s.runs("2.0.0"); err != nil || s.row("newer").State != rollout.RolledBack {
			t.Errorf("it came back with what it had: %v, %s", err, s.row("newer").State)
		}
	})
	t.Run("it had neither", func(t *testing.T) {
		s := newSuccession(t, rollout.Replaced)
		s.says(rollout.Fact{Event: rollout.SaysRebooting, Action: s.row("newer").Action})
		if err := s.runs("1.0.0"); err != nil || s.row("newer").State != rollout.RolledBack || s.row("older").Late != "" {
			t.Errorf("it came back with its old version: %v, %s, late %q", err, s.row("newer").State, s.row("older").Late)
		}
	})
}

// TestWhatADeviceConfirmedEndsWhatItWasOfferedBefore: a version that it had before is no news of that.
func TestWhatADeviceConfirmedEndsWhatItWasOfferedBefore(t *testing.T) {
	s := newSuccession(t, rollout.Replaced)
	s.says(rollout.Fact{Event: rollout.SaysRebooting, Action: s.row("newer").Action})
	if err := s.runs("3.0.0"); err != nil {
		t.Fatal(err)
	}
	s.fleet.at = s.fleet.at.Add(2 * time.Minute)
	s.tick()
	s.want("confirmed", "", rollout.Confirmed)
	if err := s.runs("2.0.0"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("the older version later: %v", err)
	}
	s.want("the older version later", "", rollout.Confirmed)
}

// TestAReportOfAnActionThatFollowsNothingIsStaleWhileAnotherIsInFlight.
func TestAReportOfAnActionThatFollowsNothingIsStaleWhileAnotherIsInFlight(t *testing.T) {
	s := newSuccession(t, rollout.Replaced)
	for name, f := range map[string]rollout.Fact{
		"a download of what was taken": {Event: rollout.SaysDownloaded, Action: s.older}, "what never was": {Event: rollout.SaysInstalling, Action: s.older + 1},
	} {
		if err := s.report(director.Report{Fact: f}); muster.KindOf(err) != muster.Stale {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.says(rollout.Fact{Event: rollout.SaysFailed, Action: s.older, Detail: "flash"})
	s.want("it failed to install", rollout.LateFailed, rollout.Offered)
}

// TestEachVersionIsNewsOfTheNewestActionOfItsReleaseAndOfNoOther holds what the rows have against a model: of three
// rollouts, which take a device from each other as chance has it, the device says what it runs.
func TestEachVersionIsNewsOfTheNewestActionOfItsReleaseAndOfNoOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSuccession(t, rollout.Replaced)
		s.add("newest", 3, rapid.SampledFrom([]string{"2.0.0", "4.0.0"}).Draw(rt, "release"))
		ids := []string{"newest", "newer", "older"} // by the numbers of their actions
		has := map[string]bool{}                    // rollouts whose release the device has though they are through with it
		confirmed := func() int32 {
			var n int32
			for _, id := range ids {
				if d := s.row(id); d.State == rollout.Confirmed {
					n = max(n, d.Action)
				}
			}
			return n
		}
		flight := func() string { return s.store.where["pump"] }
		rt.Repeat(map[string]func(*rapid.T){
			"tick": func(*rapid.T) {
				before := flight()
				for _, id := range ids {
					if err := s.director.Wake(t.Context(), id, []muster.DeviceID{"pump"}); err != nil {
						t.Fatal(err)
					}
				}
				if s.tick(); flight() != before && flight() != "" {
					has[flight()] = false // it is offered anew
				}
			},
			"soak": func(*rapid.T) {
				if before := flight(); before != "" && s.row(before).Soaking {
					s.fleet.at = s.fleet.at.Add(2 * time.Minute)
					s.tick()
				}
			},
			"take": func(rt *rapid.T) {
				id := flight()
				if id == "" || s.row(id).State > rollout.Downloaded {
					return
				}
				e := rapid.SampledFrom([]rollout.Event{rollout.Replaced, rollout.Abort}).Draw(rt, "by")
				if err := s.store.Decide(t.Context(), id, director.Fence{}, s.now(), director.Select{IDs: []muster.DeviceID{"pump"}}, func(r *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
					c, err := rollout.Step(r, list[0], rollout.Fact{Event: e}, s.now())
					return []rollout.Change{c}, err
				}); err != nil {
					rt.Fatal(err)
				}
			},
			"say": func(rt *rapid.T) {
				if id := flight(); id != "" {
					e := rapid.SampledFrom([]rollout.Event{rollout.SaysDownloading, rollout.SaysInstalling}).Draw(rt, "what")
					if err := s.report(director.Report{Fact: rollout.Fact{Event: e, Action: s.row(id).Action}}); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"run": func(rt *rapid.T) {
				version, end := rapid.SampledFrom([]string{"1.0.0", "2.0.0", "3.0.0", "4.0.0"}).Draw(rt, "version"), confirmed()
				in := flight()
				if err := s.runs(version); err != nil && !nothingNew(err) {
					rt.Fatal(err)
				}
				if in != "" && s.row(in).State == rollout.RolledBack {
					has[in] = false
				}
				newest := true // of what is over
				for _, id := range ids {
					d, release := s.row(id), s.store.rollouts[id].r.Release
					switch {
					case id == in && release == version:
						has[in] = true // it is what is in flight, alone
						return
					case id == in || d.Action == 0 || d.Action <= end:
					case release == version && (in == "" || release != s.store.rollouts[in].r.Release):
						has[id] = true
						return
					case in == "" && newest: // it came back with another
						has[id], newest = false, false
					}
					newest = newest && (id == in || d.Action == 0)
				}
			},
			"": func(rt *rapid.T) {
				for _, id := range ids {
					if d := s.row(id); !d.State.InFlight() && (d.Late == rollout.LateInstalled) != (has[id] && d.State != rollout.Confirmed) {
						rt.Fatalf("%s has it %s, late %q; that it has the release is %v", id, d.State, d.Late, has[id])
					}
				}
				if n := len(s.store.where); n > 1 {
					rt.Fatalf("%d actions are in flight", n)
				}
			},
		})
	})
}

// nothingNew says whether a version is about nothing that the device was offered.
func nothingNew(err error) bool {
	kind := muster.KindOf(err)
	return kind == muster.NotFound || kind == muster.Conflict || kind == muster.Stale
}
