package director_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// zoned is a fleet in several zones, which run no other version.
type zoned struct {
	still
	zones map[muster.DeviceID]*time.Location
}

func (f *zoned) local(id muster.DeviceID) time.Time { return f.at.In(f.zones[id]) }

func (f *zoned) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	facts := f.still.Facts(r, id)
	facts.Local = f.local(id)
	return facts
}

// clock is a time of the day on which these tests begin; of the next from 24 hours on.
func clock(hour, minute int) time.Time { return time.Date(2026, 11, 23, hour, minute, 0, 0, time.UTC) }

// windowed is a rollout in one phase, of so many slots and with windows.
func windowed(f director.Fleet, now func() time.Time, slots int, windows []rollout.Window, ids ...muster.DeviceID) (*memory, *director.Director) {
	m := newMemory()
	plan := rollout.DefaultPlan()
	plan.Phases, plan.Attempts, plan.Concurrent, plan.Windows, plan.Soak = []rollout.Phase{{Percent: 100, Success: 100}}, 1, slots, windows, 0
	m.add(rollout.Rollout{ID: "r", Number: 1, Seed: "s", Status: rollout.Running, Membership: rollout.Snapshot, Plan: plan}, ids)
	return m, director.New(m, f, now, director.Options{Owner: "one"})
}

func says(t testing.TB, d *director.Director, dev *rollout.Device, e rollout.Event) {
	t.Helper()
	if errs := d.Reports(t.Context(), []director.Report{{Device: dev.ID, Fact: rollout.Fact{Event: e, Action: dev.Action}}}); errs[0] != nil {
		t.Fatalf("%s says %s: %v", dev.ID, e, errs[0])
	}
}

// TestWhoHasTheImageGivesItsSlotBackUntilItsWindowOpens: to who waits in the order of ranks, and keeps its action.
func TestWhoHasTheImageGivesItsSlotBackUntilItsWindowOpens(t *testing.T) {
	for name, c := range map[string]struct {
		said  time.Time // when it has the image
		waits time.Time // when it is parked at the latest
	}{
		"its window closes then":          {clock(21, 50), clock(22, 0)},
		"its window was closed meanwhile": {clock(23, 10), clock(23, 11)},
	} {
		t.Run(name, func(t *testing.T) {
			f := &still{at: clock(21, 30), alive: true, reachable: true}
			m, d := windowed(f, func() time.Time { return f.at }, 1, []rollout.Window{{From: 21 * 60, To: 22 * 60}}, "pump", "other")
			tick(t, d)
			k := m.rollouts["r"]
			dev, other := k.devices["pump"], k.devices["other"]
			if other.State == rollout.Offered {
				dev, other = other, dev
			}
			action, limit := dev.Action, k.r.Plan.Deadlines.Installing
			says(t, d, dev, rollout.SaysDownloading)
			f.at = c.said
			tick(t, d)
			says(t, d, dev, rollout.SaysDownloaded)
			if f.at = c.waits; k.r.InFlight() != 1 || dev.Parked() {
				t.Fatalf("it has just said so, and is %+v", dev)
			}
			tick(t, d)
			if !dev.Parked() || dev.Due != muster.MicrosOf(clock(24+21, 0)) || k.r.InFlight() != 0 || k.r.Counts[0].By[rollout.Downloaded] != 1 {
				t.Fatalf("it is %+v, and %d slots are taken", dev, k.r.InFlight())
			}
			says(t, d, dev, rollout.SaysDownloaded) // again
			for f.at = clock(23, 30); f.at.Before(clock(24+21, 0)); f.at = f.at.Add(10 * time.Minute) {
				if tick(t, d); !dev.Parked() || dev.Failures != 0 || other.State != rollout.Queued {
					t.Fatalf("at %s it is %s with %d failures, the other %s", f.at, dev.State, dev.Failures, other.State)
				}
			}
			f.at = clock(24+21, 0)
			if tick(t, d); dev.Parked() || dev.State != rollout.Downloaded || dev.Action != action || k.r.InFlight() != 1 || other.State != rollout.Queued {
				t.Fatalf("its window is open, and it is %+v, the other %s", dev, other.State)
			}
			f.at = f.at.Add(limit - time.Minute)
			if tick(t, d); dev.State != rollout.Downloaded {
				t.Fatalf("it has time to install, and is %s: %s", dev.State, dev.Reason)
			}
			f.at = f.at.Add(time.Minute)
			if tick(t, d); dev.State != rollout.TimedOut {
				t.Errorf("its window was open for as long as it may install, and it is %s", dev.State)
			}
		})
	}
}

// TestWhoIsParkedWaitsForASlotWhenItsWindowOpensAndComesBeforeNewOffers: and not while it is away, or the rollout is paused.
func TestWhoIsParkedWaitsForASlotWhenItsWindowOpensAndComesBeforeNewOffers(t *testing.T) {
	f := &still{at: clock(21, 30), alive: true, reachable: true}
	m, d := windowed(f, func() time.Time { return f.at }, 2, []rollout.Window{{From: 21 * 60, To: 22 * 60}}, "a", "b", "c", "d")
	k := m.rollouts["r"]
	tick(t, d)
	var first []*rollout.Device
	for _, dev := range k.devices {
		if dev.State == rollout.Offered {
			says(t, d, dev, rollout.SaysDownloaded)
			first = append(first, dev)
		}
	}
	slices.SortFunc(first, func(a, b *rollout.Device) int { return int(int64(a.Rank>>1) - int64(b.Rank>>1)) })
	f.at = clock(22, 0)
	if tick(t, d); len(first) != 2 || k.r.Counts[0].Parked != 2 || k.r.InFlight() != 0 {
		t.Fatalf("%d have the image, %+v", len(first), k.r.Counts[0])
	}
	k.r.Plan.Concurrent, f.reachable = 1, false
	f.at = clock(24+21, 0)
	if tick(t, d); k.r.Counts[0].Parked != 2 || first[0].Due != director.Asleep {
		t.Fatalf("nobody is there, and there is %+v, %+v", k.r.Counts[0], first[0])
	}
	f.reachable = true
	if err := d.Wake(t.Context(), "r", []muster.DeviceID{first[0].ID, first[1].ID}); err != nil {
		t.Fatal(err)
	}
	if tick(t, d); first[0].Parked() || !first[1].Parked() || k.r.InFlight() != 1 {
		t.Fatalf("there is one slot, and they are %+v and %+v", first[0], first[1])
	}
	says(t, d, first[0], rollout.SaysFailed)
	if tick(t, d); first[1].Parked() || k.r.InFlight() != 1 || k.r.Counts[0].By[rollout.Queued] != 2 {
		t.Errorf("the slot is free, and there is %+v", k.r.Counts[0])
	}
}

// TestWhatAWindowShutsOfWhoDoesNotInstallYet: an offer that nobody took up and a download that stands still are taken
// back, one that goes on is not; no attempt fails for it.
func TestWhatAWindowShutsOfWhoDoesNotInstallYet(t *testing.T) {
	for name, c := range map[string]struct {
		says  []rollout.Event
		again bool // it says that it goes on, each hour
		is    rollout.State
		slots int
	}{
		"nobody took it up":       {nil, false, rollout.Queued, 0},
		"a download stands still": {[]rollout.Event{rollout.SaysDownloading}, false, rollout.Queued, 0},
		"a download goes on":      {[]rollout.Event{rollout.SaysDownloading}, true, rollout.Downloading, 1},
		"it has the image":        {[]rollout.Event{rollout.SaysDownloading, rollout.SaysDownloaded}, false, rollout.Downloaded, 0},
	} {
		for how, edited := range map[string]bool{"its window closes": false, "the rollout is given another": true} {
			t.Run(name+", "+how, func(t *testing.T) {
				f := &still{at: clock(21, 30), alive: true, reachable: true}
				m, d := windowed(f, func() time.Time { return f.at }, 1, []rollout.Window{{From: 20 * 60, To: 21*60 + 40}, {From: 21*60 + 40, To: 22 * 60}}, "pump") // two that follow
				k := m.rollouts["r"]
				dev := k.devices["pump"]
				tick(t, d)
				for _, e := range c.says {
					says(t, d, dev, e)
				}
				f.at = clock(21, 50)
				if tick(t, d); !dev.State.InFlight() || dev.Parked() || dev.Attempt != 1 {
					t.Fatalf("in its window it is %+v", dev)
				}
				if edited {
					k.r.Plan.Windows = []rollout.Window{{From: 20 * 60, To: 21 * 60}}
					if dev.State != rollout.Downloading { // as the store does
						dev.Deadline = rollout.Relook
						k.file(dev)
					}
				}
				for progress, hour := 1, 22; hour < 24+3; hour++ {
					f.at = clock(hour, 0)
					if c.again {
						progress++
						if errs := d.Reports(t.Context(), []director.Report{{Device: "pump", Fact: rollout.Fact{Event: rollout.SaysDownloading, Action: dev.Action, Progress: progress}}}); errs[0] != nil {
							t.Fatal(errs[0])
						}
					}
					tick(t, d)
				}
				if dev.State != c.is || k.r.InFlight() != c.slots || dev.Failures != 0 || dev.Attempt != 1 {
					t.Fatalf("outside of it it is %+v, with %d slots", dev, k.r.InFlight())
				}
				f.at = clock(24+20, 30)
				if tick(t, d); !dev.State.InFlight() || dev.Failures != 0 || k.r.InFlight() != 1 {
					t.Errorf("in the next it is %+v", dev)
				}
			})
		}
	}
}

// TestTimeThatRanWhileTheWindowWasClosedIsGivenAgain: once, to who was told to wait with its download, and to who has the
// image when the server was away as its window closed.
func TestTimeThatRanWhileTheWindowWasClosedIsGivenAgain(t *testing.T) {
	for e, limit := range map[rollout.Event]time.Duration{
		rollout.SaysDownloading: rollout.DefaultPlan().Deadlines.Downloading,
		rollout.SaysDownloaded:  rollout.DefaultPlan().Deadlines.Installing,
	} {
		t.Run(e.String(), func(t *testing.T) {
			f := &still{at: clock(3, 50), alive: true, reachable: true}
			m, d := windowed(f, func() time.Time { return f.at }, 1, []rollout.Window{{From: 22 * 60, To: 4 * 60}}, "pump")
			dev := m.rollouts["r"].devices["pump"]
			tick(t, d)
			if e == rollout.SaysDownloading {
				says(t, d, dev, e)
				f.at = clock(21, 0)
				if errs := d.Reports(t.Context(), []director.Report{{Device: "pump", Fact: rollout.Fact{Event: e, Action: dev.Action, Progress: 50}}}); errs[0] != nil {
					t.Fatal(errs[0])
				}
			} else {
				says(t, d, dev, e)
			}
			f.at = clock(23, 1) // its time is over, and its window open
			if tick(t, d); !dev.State.InFlight() || dev.Failures != 0 || dev.Attempt != 1 || dev.Parked() {
				t.Fatalf("its window has just opened, and it is %+v", dev)
			}
			f.at = f.at.Add(limit)
			if tick(t, d); dev.State != rollout.TimedOut {
				t.Errorf("it had all the time there is, and is %s", dev.State)
			}
		})
	}
}

// TestSlotsAreExactAndEverybodyGetsDoneThroughWindowsThatAreTooShortForADownload: in any zone, and with more devices than
// slots, nobody is told to begin or to install outside of its window, and no attempt fails for that.
func TestSlotsAreExactAndEverybodyGetsDoneThroughWindowsThatAreTooShortForADownload(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := &zoned{still: still{at: clock(12, 0), alive: true, reachable: true}, zones: map[muster.DeviceID]*time.Location{}}
		var ids []muster.DeviceID
		for i := range rapid.IntRange(1, 8).Draw(rt, "devices") {
			id := muster.DeviceID(fmt.Sprint("pump-", i))
			ids, f.zones[id] = append(ids, id), time.FixedZone("", 3600*rapid.IntRange(-11, 12).Draw(rt, "zone"))
		}
		m, d := windowed(f, func() time.Time { return f.at }, rapid.IntRange(1, 3).Draw(rt, "slots"), []rollout.Window{{From: 60, To: 100}}, ids...)
		k := m.rollouts["r"]
		m.log = func(r *rollout.Rollout, changes []rollout.Change) {
			taken, parked := 0, 0
			for _, dev := range k.devices {
				switch {
				case dev.Parked():
					parked++
				case dev.State.InFlight():
					taken++
				}
			}
			if taken > r.Plan.Concurrent || taken != r.InFlight() || parked != r.Counts[0].Parked {
				rt.Fatalf("%d slots are taken and %d parked, counted are %d and %d", taken, parked, r.InFlight(), r.Counts[0].Parked)
			}
			for _, c := range changes {
				if hours := rollout.HoursAt(r.Plan.Windows, f.local(c.Device)); !hours.Open && (c.Event == rollout.Offer || c.Event == rollout.Unpark) {
					rt.Fatalf("%s gets %s outside of its window", c.Device, c.Event)
				}
			}
		}
		left, actions := map[muster.DeviceID]int{}, map[muster.DeviceID]int32{} // percent that a device still has to fetch
		for _, id := range ids {
			left[id] = rapid.IntRange(1, 30).Draw(rt, "percent")
		}
		for range 9 * 24 * 6 { // of ten minutes: a window has four, and all may wait for one slot
			f.at = f.at.Add(10 * time.Minute)
			if err := d.Tick(t.Context()); err != nil {
				rt.Fatal(err)
			}
			for _, id := range ids {
				dev := k.devices[id]
				hours := rollout.HoursAt(k.r.Plan.Windows, f.local(id))
				fact := rollout.Fact{Action: dev.Action}
				switch {
				case !dev.State.InFlight() || dev.Soaking:
					continue
				case dev.State == rollout.Downloaded && (dev.Parked() || !hours.Installs(dev.State)): // as every door says
					continue
				case dev.State == rollout.Downloaded:
					fact.Event = rollout.SeesTarget
					if actions[id] != dev.Action {
						rt.Fatalf("%s has the image of action %d, and is to install %d", id, actions[id], dev.Action)
					}
				case left[id] > 0:
					left[id]--
					fact.Event, fact.Progress, actions[id] = rollout.SaysDownloading, 100-left[id], dev.Action
				default:
					fact.Event, actions[id] = rollout.SaysDownloaded, dev.Action
				}
				if errs := d.Reports(t.Context(), []director.Report{{Device: id, Fact: fact}}); errs[0] != nil {
					rt.Fatalf("%s of %s: %v", fact.Event, id, errs[0])
				}
			}
		}
		for _, id := range ids {
			if dev := k.devices[id]; dev.State != rollout.Confirmed || dev.Failures > 0 || dev.Attempt != 1 {
				rt.Errorf("%s is %s, with %d failures, after %d offers", id, dev.State, dev.Failures, dev.Attempt)
			}
		}
	})
}

// TestWhoInstallsThoughItIsToWaitCountsAtOnce: also where all slots are taken; nobody else is given one then.
func TestWhoInstallsThoughItIsToWaitCountsAtOnce(t *testing.T) {
	f := &zoned{still: still{at: clock(21, 30), alive: true, reachable: true}, zones: map[muster.DeviceID]*time.Location{"a": time.UTC, "b": time.FixedZone("", -3600), "c": time.FixedZone("", -3600)}}
	m, d := windowed(f, func() time.Time { return f.at }, 1, []rollout.Window{{From: 21 * 60, To: 22 * 60}}, "a", "b", "c")
	k := m.rollouts["r"]
	tick(t, d)
	says(t, d, k.devices["a"], rollout.SaysDownloaded)
	f.at = clock(22, 5)
	tick(t, d)
	if !k.devices["a"].Parked() || k.r.InFlight() != 1 || k.r.Counts[0].By[rollout.Offered] != 1 {
		t.Fatalf("the slot is another's: %+v", k.r.Counts[0])
	}
	says(t, d, k.devices["a"], rollout.SaysInstalling)
	if k.r.InFlight() != 2 || k.r.Counts[0].Parked != 0 {
		t.Fatalf("two are in flight: %+v", k.r.Counts[0])
	}
	for _, dev := range k.devices {
		if dev.State == rollout.Offered {
			says(t, d, dev, rollout.SaysFailed)
		}
	}
	if tick(t, d); k.r.InFlight() != 1 || k.r.Counts[0].By[rollout.Offered] != 0 {
		t.Errorf("the third is offered it while one installs: %+v", k.r.Counts[0])
	}
}
