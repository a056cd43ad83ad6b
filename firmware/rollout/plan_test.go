package rollout_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
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
	members := membersOf("s", 1000, func(i int) bool { return i%100 == 0 })
	upto := p.Cuts(members, rollout.Snapshot)
	got := placed(&p, members, upto)
	if got[0] != 10 || got[1] != 7 || got[3] != 5 || got[2] < 400 || got[2] > 560 || got[0]+got[1]+got[2]+got[3]+got[4] != len(members) {
		t.Errorf("the phases have %v", got)
	}
	three := membersOf("s", 3, nil)
	if got := placed(&p, three, p.Cuts(three, rollout.Snapshot)); got[1] != 3 {
		t.Errorf("of three devices the phases have %v", got)
	}
	for name, phases := range map[string][]rollout.Phase{
		"behind a count":   {{Count: 100}, {Query: "tag:canary"}, {Percent: 100}},
		"behind a percent": {{Percent: 0.0001}, {Query: "tag:canary"}, {Percent: 100}},
	} {
		p := rollout.Plan{Phases: phases}
		all := membersOf("s", 100, func(int) bool { return true })
		want := map[string]int{"behind a count": 100, "behind a percent": 1}[name]
		if got := placed(&p, all, p.Cuts(all, rollout.Snapshot)); got[0] != want {
			t.Errorf("canaries %s: the phases have %v, the first is to have %d", name, got, want)
		}
	}
}

// membersOf are n devices in the order of their ranks, some of which match the query tag:canary.
func membersOf(seed string, n int, canary func(i int) bool) []rollout.Member {
	out := make([]rollout.Member, n)
	for i := range out {
		out[i] = rollout.Member{Rank: rollout.Rank(seed, muster.DeviceID(fmt.Sprint("d", i))), Matches: func(q string) bool { return q == "tag:canary" && canary != nil && canary(i) }}
	}
	slices.SortFunc(out, func(a, b rollout.Member) int { return cmpRank(a.Rank, b.Rank) })
	return out
}

// placed counts members by their phase.
func placed(p *rollout.Plan, members []rollout.Member, upto []uint64) []int {
	out := make([]int, len(p.Phases))
	for _, m := range members {
		out[p.Place(m, upto)]++
	}
	return out
}

func TestAPercentOfFewDevicesIsOneAtLeastAndAHigherOneOnlyAdds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "devices")
		low := rapid.Float64Range(0.001, 60).Draw(t, "low")
		high := rapid.Float64Range(low, 60).Draw(t, "high")
		members := membersOf(rapid.StringMatching(`[a-z]{6}`).Draw(t, "seed"), n, func(i int) bool { return i%5 == 0 })
		phases := [][]rollout.Phase{
			{{Percent: 0}, {Percent: 100}},
			{{Count: 3}, {Percent: 0}, {Percent: 100}},
			{{Query: "tag:canary"}, {Percent: 0}, {Percent: 100}},
			{{Percent: 0}, {Query: "tag:canary"}, {Percent: 90}, {Percent: 100}},
		}[rapid.IntRange(0, 3).Draw(t, "plan")]
		at := slices.IndexFunc(phases, func(ph rollout.Phase) bool { return ph.Percent == 0 && ph.Count == 0 && ph.Query == "" })
		in := func(percent float64) (set []uint64, upto []uint64) {
			p := rollout.Plan{Phases: slices.Clone(phases)}
			p.Phases[at].Percent = percent
			upto = p.Cuts(members, rollout.Snapshot)
			left := 0
			for _, m := range members {
				switch i := p.Place(m, upto); {
				case i == at:
					set, left = append(set, m.Rank), left+1
				case i > at:
					left++
				}
				r := rollout.Rollout{Plan: p, Upto: upto, Counts: make([]rollout.Counts, len(p.Phases))}
				d := rollout.Device{Rank: m.Rank, Phase: p.Place(m, upto)}
				if seat := r.Seat(&d, func(int) int { return 0 }); seat != d.Phase {
					t.Fatalf("rank %d is placed in phase %d, and has its seat in phase %d", m.Rank, d.Phase, seat)
				}
			}
			if left > 0 && len(set) == 0 {
				t.Fatalf("%v %% of %d devices, of whom %d are left, are none", percent, n, left)
			}
			if again := p.Cuts(members, rollout.Snapshot); !slices.Equal(again, upto) {
				t.Fatalf("cut again it is %v, and was %v", again, upto)
			}
			return set, upto
		}
		few, _ := in(low)
		more, _ := in(high)
		for _, rank := range few {
			if !slices.Contains(more, rank) {
				t.Fatalf("rank %d is among %v %%, and not among %v %%: %v, %v", rank, low, high, few, more)
			}
		}
		if len(few) > 0 && slices.ContainsFunc(members, func(m rollout.Member) bool { return m.Rank < few[0] && slices.Contains(more, m.Rank) }) {
			t.Fatalf("%v %% leave out who has a lower rank", low)
		}
	})
}

func TestAPercentOfADynamicRolloutIsOfThoseToCome(t *testing.T) {
	p := rollout.Plan{Phases: []rollout.Phase{{Percent: 0.0001}, {Percent: 100}}}
	members := membersOf("s", 20, nil)
	if got := placed(&p, members, p.Cuts(members, rollout.Dynamic)); got[0] != 0 {
		t.Errorf("its canaries are %d of those that are there", got[0])
	}
	if got := placed(&p, members, p.Cuts(members, rollout.Snapshot)); got[0] != 1 {
		t.Errorf("of a snapshot they are %d", got[0])
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

func TestAnHourThatIsLeftOutIsLaterAndOfOneThatComesTwiceTheFirstCountsWhereverTheZoneLies(t *testing.T) {
	for _, c := range []struct{ zone, after, from, to, opens, closes string }{
		{"Europe/Berlin", "2026-03-29 00:00", "02:30", "05:00", "2026-03-29T03:30:00+02:00", "2026-03-29T05:00:00+02:00"},
		{"America/New_York", "2026-03-08 00:00", "02:30", "05:00", "2026-03-08T03:30:00-04:00", "2026-03-08T05:00:00-04:00"},
		{"America/New_York", "2026-03-08 00:00", "01:00", "02:30", "2026-03-08T01:00:00-05:00", "2026-03-08T03:30:00-04:00"},
		{"Australia/Lord_Howe", "2026-10-04 00:00", "02:10", "05:00", "2026-10-04T02:40:00+11:00", "2026-10-04T05:00:00+11:00"},
		{"Europe/Berlin", "2026-10-25 00:00", "02:30", "05:00", "2026-10-25T02:30:00+02:00", "2026-10-25T05:00:00+01:00"},
		{"Europe/Berlin", "2026-10-25 00:00", "01:00", "02:30", "2026-10-25T01:00:00+02:00", "2026-10-25T02:30:00+02:00"},
		{"America/New_York", "2026-11-01 00:00", "01:30", "03:00", "2026-11-01T01:30:00-04:00", "2026-11-01T03:00:00-05:00"},
		{"Pacific/Chatham", "2026-06-01 12:00", "22:00", "04:00", "2026-06-01T22:00:00+12:45", "2026-06-02T04:00:00+12:45"},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		after, err := time.ParseInLocation("2006-01-02 15:04", c.after, zone)
		if err != nil {
			t.Fatal(err)
		}
		windows := []rollout.Window{{From: clock(t, c.from), To: clock(t, c.to)}}
		_, next := rollout.Open(windows, after)
		if got := next.Format(time.RFC3339); got != c.opens {
			t.Errorf("%s: a window from %s opens at %s, want %s", c.zone, c.from, got, c.opens)
		}
		closes, err := time.Parse(time.RFC3339, c.closes)
		if err != nil {
			t.Fatal(err)
		}
		last, _ := rollout.Open(windows, closes.Add(-time.Second).In(zone))
		end, _ := rollout.Open(windows, closes.In(zone))
		if !last || end {
			t.Errorf("%s: a window to %s is open %v a second before %s, and %v then", c.zone, c.to, last, c.closes, end)
		}
	}
}

func clock(t *testing.T, text string) rollout.Clock {
	t.Helper()
	at, err := time.Parse("15:04", text)
	if err != nil {
		t.Fatal(err)
	}
	return rollout.Clock(at.Hour()*60 + at.Minute())
}

func TestTheRateIsKeptOverTimeHoweverLowItIs(t *testing.T) {
	for _, perMinute := range []int{1, 2, 3, 5, 6, 7, 60, 1000} {
		r := &rollout.Rollout{Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
		r.Plan.PerMinute, r.Plan.Concurrent = perMinute, rollout.MaxConcurrent
		const minutes = 33
		for _, every := range []int{1, 11} { // seconds between two rounds; a rollout that is held asks seldom
			r.Tokens = rollout.Bucket{}
			now, offers := muster.Micros(1_700_000_000_000_000), 0
			for range minutes * 60 / every {
				offers += r.Budget(1_000_000, now)
				now += muster.Micros(every) * 1_000_000
			}
			saved := max(1, perMinute/6) // what may be saved up: ten seconds, at least one
			if least, most := perMinute*minutes-1, perMinute*minutes+saved; every == 1 && offers < least || offers > most {
				t.Errorf("%d a minute, asked each %d s: %d offers in %d minutes, want %d to %d", perMinute, every, offers, minutes, least, most)
			}
		}
	}
}

func TestAClockThatIsSetBackDoesNotEndARate(t *testing.T) {
	b := rollout.Rollout{Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
	b.Plan.PerMinute = 1
	now := muster.Micros(1_700_000_000_000_000)
	if b.Budget(9, now) != 1 {
		t.Fatal("the first offer is refused")
	}
	now -= 3600_000_000
	if b.Budget(9, now) != 0 || b.Budget(9, now+60_000_000) != 1 {
		t.Error("the rate does not begin anew when the clock is set back")
	}
}

func TestAPhaseOfSoManyDevicesTakesNoMoreOfThoseThatJoinLater(t *testing.T) {
	r := &rollout.Rollout{Membership: rollout.Dynamic, Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
	r.Upto = r.Plan.Cuts(nil, r.Membership) // nobody matched when it was started
	if r.Advance(rollout.NotAsked, 1) || r.Phase != 0 {
		t.Fatalf("a rollout that waits for its first device is in phase %d", r.Phase)
	}
	const n = 5000
	total := make([]int, 3)
	for i := range n {
		d := rollout.Device{ID: muster.DeviceID(fmt.Sprint("d", i))}
		d.Rank = rollout.Rank("s", d.ID)
		d.Phase = r.Plan.Place(rollout.Member{Rank: d.Rank}, r.Upto)
		total[r.Seat(&d, func(phase int) int { return total[phase] })]++
	}
	if total[0] != 10 || total[1] < n/15 || total[1] > n/7 || total[0]+total[1]+total[2] != n {
		t.Errorf("10 canaries, a tenth, and the rest are %v", total)
	}
	r.Phase = 1
	early := rollout.Device{Phase: 0, Rank: ^uint64(0)}
	if got := r.Seat(&early, func(int) int { return 0 }); got != 2 {
		t.Errorf("who comes when its phase is over, and is not of the tenth, is in phase %d", got)
	}
}

func TestTheTableIsTotalAndEndsAreNeverLeft(t *testing.T) {
	for _, s := range rollout.States() {
		for e := rollout.SaysDownloading; e <= rollout.Unpark; e++ {
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
			case ok && (e == rollout.Park || e == rollout.Unpark) && (s != rollout.Downloaded || next != s):
				t.Errorf("%s waits for a window, or has waited, and is %s", s, next)
			case !s.Ended() && e == rollout.Quit && next != rollout.Canceled:
				t.Errorf("force leaves a device %s", s)
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
		"depends":          func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Missing = "radio 1.0.0" },
		"no_downgrade":     func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Newer = true },
		"security_version": func(r *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { r.Security, d.Secure = 4, 5 },
		"device_there":     func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Gone = true },
		"version_known":    func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Unknown = true },
		"not_blocked":      func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Blocked = now + 1 },
		"attempts_left":    func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Attempt = rollout.MaxAttempt },
		"phase_open":       func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Phase = 1 },
		"not_in_flight":    func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.State = rollout.Offered },
		"no_other_rollout": func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Elsewhere = true },
		"patch_ready":      func(_ *rollout.Rollout, _ *rollout.Device, f *rollout.Facts) { f.Patching = true },
		"retry_due":        func(_ *rollout.Rollout, d *rollout.Device, _ *rollout.Facts) { d.Retry = now + 5 },
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

// TestWhatADeviceReportsExcludesItOnlyOnceNoOtherRolloutUpdatesIt: it may report another version by then.
func TestWhatADeviceReportsExcludesItOnlyOnceNoOtherRolloutUpdatesIt(t *testing.T) {
	r := &rollout.Rollout{Status: rollout.Running, Security: 1, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
	for what, f := range map[string]*rollout.Facts{
		"it has the release": {Signed: true, Installed: true, Hardware: true, Source: true}, "other hardware": {Signed: true, Source: true}, "an older version": {Signed: true, Hardware: true},
		"a newer version": {Signed: true, Hardware: true, Source: true, Newer: true}, "a higher security version": {Signed: true, Hardware: true, Source: true},
	} {
		for elsewhere, want := range map[bool]rollout.Reason{true: "", false: rollout.Ineligible} {
			if f.Installed && !elsewhere {
				want = rollout.AlreadyInstalled
			}
			held, _ := rollout.Held(r, &rollout.Device{Elsewhere: elsewhere, Secure: 2}, f, 1)
			if held.Excludes != want || elsewhere && held.Name != "no_other_rollout" {
				t.Errorf("%s, elsewhere %t: held by %s, skipped as %q, want %q", what, elsewhere, held.Name, held.Excludes, want)
			}
		}
	}
}

// TestADeviceWhoseHardwareNobodyKnowsWaits: one that was made ahead has yet to say what it is.
func TestADeviceWhoseHardwareNobodyKnowsWaits(t *testing.T) {
	r := &rollout.Rollout{Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
	f := &rollout.Facts{Signed: true, Source: true, NoHardware: true, Reachable: true}
	if held, is := rollout.Held(r, &rollout.Device{}, f, 1); !is || held.Name != "hardware" || held.Excludes != "" || !strings.Contains(held.Detail, "hw.board") {
		t.Errorf("no hardware is known: held by %+v, want it to wait", held)
	}
	f.NoHardware = false
	if held, _ := rollout.Held(r, &rollout.Device{}, f, 1); held.Name != "hardware" || held.Excludes != rollout.Ineligible {
		t.Errorf("other hardware: held by %+v, want it skipped", held)
	}
}

// TestAnOlderReleaseGoesToADeviceOnlyByADowngrade, and below the security version that it confirmed only when a
// person who is not who wrote it, which must be known, has agreed.
func TestAnOlderReleaseGoesToADeviceOnlyByADowngrade(t *testing.T) {
	ann, agreed := rollout.Person{ID: "usr_ann"}, []rollout.Approval{{By: rollout.Person{ID: "usr_bob"}}}
	for what, c := range map[string]struct {
		record rollout.Record
		newer  bool
		secure int64
		want   string // the rule that holds it back
		says   string
	}{
		"not newer":                                {rollout.Record{CreatedBy: ann}, false, 3, "", "not newer than"},
		"newer":                                    {rollout.Record{CreatedBy: ann, Approvals: agreed}, true, 3, "no_downgrade", "the rollout is no downgrade"},
		"newer, by a downgrade":                    {rollout.Record{CreatedBy: ann, Downgrade: true}, true, 3, "", "the rollout is a downgrade"},
		"more secure, by no downgrade":             {rollout.Record{CreatedBy: ann, MinApprovals: 1, Approvals: agreed}, false, 4, "security_version", "confirmed 4; to go below that takes a downgrade"},
		"more secure, and nobody agreed":           {rollout.Record{CreatedBy: ann, Downgrade: true}, true, 4, "security_version", "takes a downgrade that another person has agreed to"},
		"more secure, agreed to":                   {rollout.Record{CreatedBy: ann, Downgrade: true, MinApprovals: 1, Approvals: agreed}, true, 4, "", "a downgrade that another person has agreed to"},
		"more secure, and nobody had to agree":     {rollout.Record{CreatedBy: ann, Downgrade: true, Approvals: agreed}, true, 4, "security_version", "takes a downgrade"},
		"more secure, written by nobody knows who": {rollout.Record{CreatedBy: rollout.Person{ID: "key_ci"}, Downgrade: true, MinApprovals: 1, Approvals: agreed}, true, 4, "security_version", "takes a downgrade"},
	} {
		r := &rollout.Rollout{Status: rollout.Running, Security: 3, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3), Record: c.record}
		f := &rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: time.Unix(1e9, 0), Newer: c.newer}
		rules := rollout.Explain(r, &rollout.Device{Secure: c.secure}, f, 1)
		first, held := rollout.First(rules)
		if first.Name != c.want || held != (c.want != "") || held && first.Excludes != rollout.Ineligible {
			t.Errorf("%s: held by %+v, want %q", what, first, c.want)
		}
		if !slices.ContainsFunc(rules, func(r rollout.Rule) bool { return strings.Contains(r.Detail, c.says) }) {
			t.Errorf("%s: it is not said: %q", what, c.says)
		}
	}
}

func TestWhenADeviceIsTriedAgainIsNotWhenItIsLookedAtAgain(t *testing.T) {
	for retry, want := range map[muster.Micros]muster.Micros{0: 0, 7: 0, 1_000: 1_000} {
		r := &rollout.Rollout{Status: rollout.Running, Counts: make([]rollout.Counts, 1)}
		rules := rollout.Explain(r, &rollout.Device{Due: math.MaxInt64, Retry: retry}, &rollout.Facts{}, 7)
		i := slices.IndexFunc(rules, func(r rollout.Rule) bool { return r.Name == "retry_due" })
		if i < 0 || rules[i].Until != want || rules[i].Holds != (retry <= 7) {
			t.Errorf("retry at %d: %+v, want until %d", retry, rules, want)
		}
	}
}
