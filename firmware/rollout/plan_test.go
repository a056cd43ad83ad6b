package rollout_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/rollout"
)

func TestAHigherPercentOnlyAddsDevices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Float64Range(0, 100).Draw(t, "low")
		high := rapid.Float64Range(low, 100).Draw(t, "high")
		rank := rapid.Uint64().Draw(t, "rank")
		in := func(percent float64) bool {
			p := rollout.Plan{Phases: []rollout.Phase{{Percent: percent}, {Percent: 100}}}
			return p.Place(rollout.Member{Rank: rank}, nil) == 0
		}
		if in(low) && !in(high) {
			t.Fatalf("rank %d is in the first %v %%, and not in the first %v %%", rank, low, high)
		}
	})
}

func TestAPercentIsThatOfTheDevicesWhateverTheSeed(t *testing.T) {
	const n = 100_000
	for _, seed := range []string{"", "a", "2026-11"} {
		for _, percent := range []float64{0.1, 1, 10, 50, 99} {
			p := rollout.Plan{Phases: []rollout.Phase{{Percent: percent}, {Percent: 100}}}
			in := 0
			for i := range n {
				if p.Place(rollout.Member{Rank: rollout.Rank(seed, muster.DeviceID(fmt.Sprintf("dev-%06d", i)))}, nil) == 0 {
					in++
				}
			}
			want := n * percent / 100
			if off := math.Abs(float64(in) - want); off > 5*math.Sqrt(want) {
				t.Errorf("with the seed %q %v %% of %d devices are %d", seed, percent, n, in)
			}
		}
	}
}

func TestCountsAreExactAndCanariesAreTakenByTheirQuery(t *testing.T) {
	p := rollout.Plan{Phases: []rollout.Phase{{Query: "tag:canary"}, {Count: 7}, {Percent: 50}, {Count: 5}, {Percent: 100}}}
	var ranks []uint64
	ids := make([]muster.DeviceID, 1000)
	canary := func(i int) bool { return i%100 == 0 }
	for i := range ids {
		ids[i] = muster.DeviceID(fmt.Sprint("d", i))
		if !canary(i) {
			ranks = append(ranks, rollout.Rank("s", ids[i]))
		}
	}
	slices.Sort(ranks)
	upto := p.Cuts(ranks)
	got := make([]int, len(p.Phases))
	for i, id := range ids {
		m := rollout.Member{Rank: rollout.Rank("s", id), Matches: func(q string) bool { return q == "tag:canary" && canary(i) }}
		got[p.Place(m, upto)]++
	}
	if got[0] != 10 || got[1] != 7 || got[3] != 5 || got[2] < 400 || got[2] > 560 || got[0]+got[1]+got[2]+got[3]+got[4] != len(ids) {
		t.Errorf("the phases have %v", got)
	}
	few := p.Cuts(ranks[:3])
	for _, r := range ranks[:3] {
		if at := p.Place(rollout.Member{Rank: r}, few); at != 1 {
			t.Errorf("of three devices one is in phase %d", at)
		}
	}
}

func TestAThreshold(t *testing.T) {
	for name, c := range map[string]struct {
		t        rollout.Threshold
		failures int
		results  int
		crossed  bool
	}{
		"none is never crossed":                 {rollout.Threshold{}, 100, 100, false},
		"an absolute one, below":                {rollout.Threshold{Absolute: 3}, 2, 2, false},
		"an absolute one, at it":                {rollout.Threshold{Absolute: 3}, 3, 1000, true},
		"a percentage before the sample":        {rollout.Threshold{Percent: 10, MinSample: 20}, 19, 19, false},
		"a percentage at the sample":            {rollout.Threshold{Percent: 10, MinSample: 20}, 2, 20, true},
		"a percentage just below":               {rollout.Threshold{Percent: 10, MinSample: 20}, 2, 21, false},
		"no failure crosses nothing":            {rollout.Threshold{Absolute: 1, Percent: 0.1}, 0, 50, false},
		"whichever of both is reached, the one": {rollout.Threshold{Absolute: 5, Percent: 50, MinSample: 4}, 2, 4, true},
	} {
		if got := c.t.Crossed(c.failures, c.results); got != c.crossed {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	night := rollout.Window{From: 22 * 60, To: 4 * 60}
	sunday := rollout.Window{Days: []time.Weekday{time.Sunday}, From: 60, To: 5 * 60}
	for name, c := range map[string]struct {
		windows []rollout.Window
		at      string // in Berlin
		open    bool
		next    string
	}{
		"none is always open":  {nil, "2026-11-22 12:00", true, ""},
		"before it":            {[]rollout.Window{night}, "2026-11-22 21:59", false, "2026-11-22 22:00"},
		"at its beginning":     {[]rollout.Window{night}, "2026-11-22 22:00", true, ""},
		"after midnight":       {[]rollout.Window{night}, "2026-11-23 03:59", true, ""},
		"at its end":           {[]rollout.Window{night}, "2026-11-23 04:00", false, "2026-11-23 22:00"},
		"on another day":       {[]rollout.Window{sunday}, "2026-11-23 02:00", false, "2026-11-29 01:00"},
		"the first of several": {[]rollout.Window{sunday, night}, "2026-11-23 12:00", false, "2026-11-23 22:00"},
		"a window over the hour that is left out":          {[]rollout.Window{{From: 90, To: 210}}, "2026-03-29 03:10", true, ""},
		"a window within the hour that is left out, after": {[]rollout.Window{{From: 135, To: 165}}, "2026-03-29 03:20", true, ""},
		"from noon to noon":                                {[]rollout.Window{{From: 720, To: 720}}, "2026-11-22 11:59", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			at, err := time.ParseInLocation("2006-01-02 15:04", c.at, berlin)
			if err != nil {
				t.Fatal(err)
			}
			open, next := rollout.Open(c.windows, at)
			got := ""
			if !next.IsZero() {
				got = next.Format("2006-01-02 15:04")
			}
			if open != c.open || got != c.next {
				t.Errorf("open %v, next %q", open, got)
			}
		})
	}
}

func TestTheTableIsTotalAndEndsAreNeverLeft(t *testing.T) {
	for _, s := range rollout.States() {
		for e := rollout.SaysDownloading; e <= rollout.Leaves; e++ {
			next, ok := rollout.Next(s, e)
			switch {
			case next >= rollout.State(len(rollout.States())):
				t.Errorf("%s, %s: no state", s, e)
			case !ok && next != s:
				t.Errorf("%s, %s: refused, and leads to %s", s, e, next)
			case s.Ended() && ok:
				t.Errorf("%s is left by %s", s, e)
			case ok && next == rollout.Confirmed && (s != rollout.Rebooting || e != rollout.Soaked):
				t.Errorf("%s is confirmed by %s", s, e)
			case ok && e == rollout.Abort && s >= rollout.Installing:
				t.Errorf("a device is canceled while it is %s", s)
			case !s.Ended() && e == rollout.Quit && next != rollout.Canceled:
				t.Errorf("force leaves a device %s", s)
			case !s.Ended() && e == rollout.Leaves && next != rollout.Skipped:
				t.Errorf("a device that is deleted is %s", s)
			}
		}
		if p, ok := rollout.ParseState(s.String()); !ok || p != s {
			t.Errorf("%s is read as %s", s, p)
		}
	}
	if _, ok := rollout.Next(rollout.State(200), rollout.Offer); ok || rollout.State(200).String() != "unknown" {
		t.Error("a state that is none goes on")
	}
}

func TestADeviceIsOfferedTheReleaseOnlyIfEveryRuleHoldsAndTheFirstThatDoesNotIsNamed(t *testing.T) {
	good := func() (*rollout.Rollout, *rollout.Device, *rollout.Facts) {
		r := &rollout.Rollout{Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
		return r, &rollout.Device{}, &rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: time.Unix(1e9, 0)}
	}
	const now = 1_700_000_000_000_000
	for rule, breaks := range map[string]func(*rollout.Rollout, *rollout.Device, *rollout.Facts){
		"":                 func(*rollout.Rollout, *rollout.Device, *rollout.Facts) {},
		"rollout_running":  func(r *rollout.Rollout, _ *rollout.Device, _ *rollout.Facts) { r.Status = rollout.Paused },
		"not_ended":        func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.State = rollout.Failed },
		"release_valid":    func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Withdrawn = true },
		"release_signed":   func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Signed = false },
		"not_installed":    func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Installed = true },
		"hardware":         func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Hardware = false },
		"source_version":   func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Source = false },
		"security_version": func(r *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { r.Security, d.Secure = 4, 5 },
		"device_there":     func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Gone = true },
		"version_known":    func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Unknown = true },
		"not_blocked":      func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Blocked = now + 1 },
		"attempts_left":    func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Attempt = rollout.MaxAttempt },
		"phase_open":       func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Phase = 1 },
		"not_in_flight":    func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.State = rollout.Offered },
		"no_other_rollout": func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Elsewhere = true },
		"patch_ready":      func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Patching = true },
		"retry_due":        func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Due = now + 5 },
		"window_open": func(r *rollout.Rollout, _ *rollout.Device, _ *rollout.Facts) {
			r.Plan.Windows = []rollout.Window{{From: 1, To: 2}}
		},
		"reachable": func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Reachable = false },
		"slot_free": func(r *rollout.Rollout, _ *rollout.Device, _ *rollout.Facts) {
			r.Counts[0].By[rollout.Installing] = 100
		},
		"rate": func(r *rollout.Rollout, _ *rollout.Device, _ *rollout.Facts) {
			r.Plan.PerMinute, r.Tokens = 1, rollout.Bucket{At: now}
		},
	} {
		r, d, f := good()
		breaks(r, d, f)
		first, held := rollout.First(rollout.Explain(r, d, f, now))
		if first.Name != rule || held != (rule != "") {
			t.Errorf("%q is broken: %+v", rule, first)
		}
		if held && first.Detail == "" {
			t.Errorf("%s says nothing", rule)
		}
	}
}
