package rollout_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/rollout"
)

func TestAnOldVersionWhileADeviceInstallsIsNoRollBack(t *testing.T) {
	r, ds := flight(t, 1, nil)
	d := ds[0]
	step(t, r, d, rollout.Fact{Event: rollout.SaysInstalling}, rollout.Installing)
	before, counts := *d, r.Counts[0]
	if _, err := rollout.Step(r, d, rollout.Fact{Event: rollout.SeesOther}, began+60_000_000); muster.KindOf(err) != muster.Conflict || err == nil {
		t.Errorf("its old version: %v", err)
	}
	if *d != before || r.Counts[0] != counts {
		t.Errorf("its old version changes %+v to %+v", before, *d)
	}
	if !rollout.Known(rollout.Installing, false, rollout.SeesOther) || rollout.Known(rollout.Installing, false, rollout.SaysFailed) {
		t.Error("its old version is an error to it, or its failure is none")
	}
	step(t, r, d, rollout.Fact{Event: rollout.SaysRebooting}, rollout.Rebooting)
	step(t, r, d, rollout.Fact{Event: rollout.SeesOther}, rollout.RolledBack)

	r, ds = flight(t, 2, func(p *rollout.Plan) { p.Attempts = 1 })
	step(t, r, ds[0], rollout.Fact{Event: rollout.SaysInstalling}, rollout.Installing)
	step(t, r, ds[0], rollout.Fact{Event: rollout.SaysFailed}, rollout.Failed)
	step(t, r, ds[1], rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting) // it soaks
	step(t, r, ds[1], rollout.Fact{Event: rollout.SeesOther}, rollout.RolledBack)
}

func TestWhatIsRepeatedGivesNoMoreTime(t *testing.T) {
	minute := muster.Micros(time.Minute / time.Microsecond)
	for _, e := range []rollout.Event{rollout.SaysDownloading, rollout.SaysDownloaded, rollout.SaysInstalling, rollout.SaysRebooting} {
		r, ds := flight(t, 1, nil)
		d := ds[0]
		if _, err := rollout.Step(r, d, rollout.Fact{Event: e, Progress: 40}, began+minute); err != nil {
			t.Fatal(err)
		}
		end := d.Deadline
		if limit := muster.Micros(r.Plan.Deadlines.Of(d.State) / time.Microsecond); end != began+minute+limit {
			t.Errorf("%s: it has until %d", e, end-began)
		}
		for i, progress := range []int{40, 40, 7, 40, 0} {
			if _, err := rollout.Step(r, d, rollout.Fact{Event: e, Progress: progress}, began+muster.Micros(2+i)*minute); err != nil || d.Deadline != end {
				t.Errorf("%s again, at %d %%: it has %d more, %v", e, progress, d.Deadline-end, err)
			}
		}
		if _, err := rollout.Step(r, d, rollout.Fact{Event: e, Progress: 41}, began+10*minute); err != nil || (d.Deadline > end) != (e == rollout.SaysDownloading) {
			t.Errorf("%s, one percent further: it has %d more, %v", e, d.Deadline-end, err)
		}
	}
}

func TestADeviceThatRestartsAgainAndAgainWhileItSoaksIsStopped(t *testing.T) {
	r, ds := flight(t, 1, func(p *rollout.Plan) { p.Attempts = 5 })
	d := ds[0]
	step(t, r, d, rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
	for range 3 {
		step(t, r, d, rollout.Fact{Event: rollout.SaysRebooting}, rollout.Rebooting)
		step(t, r, d, rollout.Fact{Event: rollout.SeesTarget}, rollout.Rebooting)
	}
	if c := step(t, r, d, rollout.Fact{Event: rollout.SaysRebooting}, rollout.Failed); c.Reason != rollout.Looping || d.Late != rollout.LateInstalled {
		t.Errorf("%+v, late %q", c, d.Late)
	}
}

// TestADeviceThatOnlyRepeatsWhatItSaidLeavesItsSlotInTime has a device say some things over and over, alone or in
// turns: it takes its slot for the time of the states that it says it is in, once, and as often as it may begin again.
func TestADeviceThatOnlyRepeatsWhatItSaidLeavesItsSlotInTime(t *testing.T) {
	all := []rollout.Event{rollout.SaysDownloading, rollout.SaysDownloaded, rollout.SaysInstalling, rollout.SaysRebooting, rollout.SeesTarget, rollout.SeesOther}
	some := [][]rollout.Event{all, all[:1], all[1:3], all[2:4], all[3:5], all} // what it says is among these
	rapid.Check(t, func(t *rapid.T) {
		hours := func(name string) time.Duration {
			return time.Duration(rapid.IntRange(1, 5).Draw(t, name)) * time.Hour
		}
		r := &rollout.Rollout{Number: 1, Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 1)}
		r.Plan.Phases, r.Plan.Soak = r.Plan.Phases[:1], hours("soak")
		r.Plan.Deadlines = rollout.Deadlines{Offered: hours("offered"), Downloading: hours("downloading"), Installing: hours("installing"), Rebooting: hours("rebooting")}
		r.Counts[0].By[rollout.Queued] = 1
		d, now := &rollout.Device{}, began
		if _, err := rollout.Step(r, d, rollout.Fact{Event: rollout.Offer}, now); err != nil {
			t.Fatal(err)
		}
		says := rapid.SampledFrom(some).Draw(t, "of")
		rounds := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) rollout.Fact {
			return rollout.Fact{Event: rapid.SampledFrom(says).Draw(t, "event"), Progress: rapid.IntRange(0, 100).Draw(t, "progress")}
		}), 1, 4).Draw(t, "what it says")
		downloads := map[int]bool{} // percents that it reports
		for _, f := range rounds {
			downloads[f.Progress] = downloads[f.Progress] || f.Event == rollout.SaysDownloading
		}
		limit := r.Plan.Deadlines
		way := time.Duration(1+len(downloads))*limit.Downloading + 2*limit.Installing + limit.Rebooting + r.Plan.Soak
		most := limit.Offered + 4*way // it begins again three times, and is stopped at the fourth
		step := time.Duration(rapid.IntRange(1, 50).Draw(t, "minutes")) * time.Minute
		for i := 0; d.State.InFlight(); i++ {
			now += muster.Micros(step / time.Microsecond)
			if at := time.Duration(now-began) * time.Microsecond; at > most+2*step {
				t.Fatalf("after %v, of at most %v, it is %s: it says %+v", at, most, d.State, rounds)
			}
			_, _ = rollout.Step(r, d, rounds[i%len(rounds)], now) // what does not happen then changes nothing
			if e, due := d.Overdue(rollout.Life{There: rapid.Bool().Draw(t, "there")}, now); due {
				if _, err := rollout.Step(r, d, rollout.Fact{Event: e}, now); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
