package rollout_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/rollout"
)

// world is a rollout with its devices, as a store would hold them.
type world struct {
	r       rollout.Rollout
	devices []*rollout.Device
	now     muster.Micros
	ended   map[muster.DeviceID]rollout.State
	offered int
	// forgiven are the devices that failed when it was resumed last.
	forgiven map[muster.DeviceID]bool
	// unasked are those that were parked, and went on though nobody gave them a slot.
	unasked map[muster.DeviceID]bool
}

// resume goes on in spite of what paused the rollout.
func (w *world) resume(t *rapid.T) {
	if changed, err := w.r.Resume(rapid.Bool().Draw(t, "skip"), rollout.Quorum{}, w.now); err != nil || !changed {
		return
	}
	for _, d := range w.devices {
		if w.r.Forgiven[d.Phase] == w.r.Counts[d.Phase].Failing { // all of the phase
			w.forgiven[d.ID] = d.Failing
		}
	}
}

// old counts the failing devices of a phase that somebody went on in spite of.
func (w *world) old(phase int) (n int) {
	for _, d := range w.devices {
		if d.Phase == phase && d.Failing && w.forgiven[d.ID] {
			n++
		}
	}
	return n
}

func newWorld(t *rapid.T, m rollout.Membership) *world {
	w := &world{now: 1_700_000_000_000_000, ended: map[muster.DeviceID]rollout.State{}, forgiven: map[muster.DeviceID]bool{}, unasked: map[muster.DeviceID]bool{}}
	w.r = rollout.Rollout{
		ID: "r", Number: 3, Seed: rapid.StringMatching(`[a-z]{4}`).Draw(t, "seed"), Status: rollout.Running, Membership: m,
		Plan: rollout.Plan{
			Concurrent: rapid.IntRange(1, 6).Draw(t, "concurrent"), PerMinute: rapid.SampledFrom([]int{0, 0, 30}).Draw(t, "per minute"),
			Attempts: rapid.IntRange(1, 3).Draw(t, "attempts"), RetryAfter: time.Second, Soak: time.Second,
			OnFailure: rapid.SampledFrom([]rollout.Outcome{rollout.Pauses, rollout.Aborts}).Draw(t, "on failure"),
			Deadlines: rollout.Deadlines{Offered: 9 * time.Second, Downloading: 9 * time.Second, Installing: 9 * time.Second, Rebooting: 9 * time.Second},
		},
	}
	stop := rollout.Threshold{Absolute: rapid.IntRange(1, 5).Draw(t, "absolute"), Percent: 50, MinSample: 4}
	w.r.Plan.Phases = []rollout.Phase{
		{Name: "canary", Count: 2, Success: 50, Failure: stop, Soak: time.Second, Gate: rapid.SampledFrom([]rollout.Gate{rollout.Auto, rollout.Manual}).Draw(t, "gate")},
		{Name: "half", Percent: 50, Success: 50, Failure: stop, Gate: rollout.Auto},
		{Name: "all", Percent: 100, Success: 50, Failure: stop, Gate: rollout.Auto},
	}
	w.fill(rapid.IntRange(0, 25).Draw(t, "devices"))
	return w
}

func (w *world) fill(n int) {
	var members []rollout.Member
	for i := range n {
		d := &rollout.Device{Rollout: w.r.ID, ID: muster.DeviceID(fmt.Sprint("d", i))}
		d.Rank = rollout.Rank(w.r.Seed, d.ID)
		w.devices, members = append(w.devices, d), append(members, rollout.Member{Rank: d.Rank})
	}
	slices.SortFunc(members, func(a, b rollout.Member) int { return cmpRank(a.Rank, b.Rank) })
	w.r.Upto = w.r.Plan.Cuts(members, w.r.Membership)
	w.r.Counts = make([]rollout.Counts, len(w.r.Plan.Phases))
	for _, d := range w.devices {
		d.Phase = w.r.Plan.Place(rollout.Member{Rank: d.Rank}, w.r.Upto)
		w.r.Counts[d.Phase].By[rollout.Queued]++
	}
}

// join has one more device in a dynamic rollout.
func (w *world) join() {
	if w.r.Membership != rollout.Dynamic || w.r.Status.Ended() || len(w.devices) > 40 {
		return
	}
	d := &rollout.Device{Rollout: w.r.ID, ID: muster.DeviceID(fmt.Sprint("new", len(w.devices)))}
	d.Rank = rollout.Rank(w.r.Seed, d.ID)
	d.Phase = w.r.Plan.Place(rollout.Member{Rank: d.Rank}, w.r.Upto)
	d.Phase = w.r.Seat(d, func(phase int) int { return w.r.Counts[phase].Total() })
	w.devices = append(w.devices, d)
	w.r.Counts[d.Phase].By[rollout.Queued]++
}

// offer is what a coordinator does in one transaction.
func (w *world) offer(t *rapid.T) {
	w.unpark(t)
	var due []*rollout.Device
	for _, d := range w.devices {
		if d.State == rollout.Queued && d.Phase <= w.r.Phase && d.Due <= w.now {
			due = append(due, d)
		}
	}
	slices.SortFunc(due, func(a, b *rollout.Device) int { return cmpRank(a.Rank, b.Rank) })
	n := w.r.Budget(min(len(due), rapid.IntRange(1, 9).Draw(t, "at once")), w.now)
	if n > 0 && w.r.Status != rollout.Running {
		t.Fatalf("%d are offered while the rollout is %s", n, w.r.Status)
	}
	for _, d := range due[:n] {
		w.step(t, d, rollout.Fact{Event: rollout.Offer})
		w.offered++
	}
}

// park has a device that has the image wait for its window with it.
func (w *world) park(t *rapid.T) {
	for _, d := range w.devices {
		if d.State == rollout.Downloaded && rapid.Bool().Draw(t, "its window closes") {
			w.step(t, d, rollout.Fact{Event: rollout.Park})
			d.Due = w.now + muster.Micros(rapid.IntRange(0, 9_000_000).Draw(t, "until it opens"))
		}
	}
}

// unpark gives slots to those whose window has opened, in the order of their ranks.
func (w *world) unpark(t *rapid.T) {
	if w.r.Status != rollout.Running {
		return
	}
	var due []*rollout.Device
	for _, d := range w.devices {
		if d.Parked() && d.Due <= w.now {
			due = append(due, d)
		}
	}
	slices.SortFunc(due, func(a, b *rollout.Device) int { return cmpRank(a.Rank, b.Rank) })
	for _, d := range due {
		if action, attempt := d.Action, d.Attempt; w.r.InFlight() < w.r.Plan.Concurrent {
			w.step(t, d, rollout.Fact{Event: rollout.Unpark})
			if d.Parked() || d.Action != action || d.Attempt != attempt || d.Deadline <= w.now {
				t.Fatalf("its window has opened, and it is %+v", d)
			}
		}
	}
}

func cmpRank(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (w *world) step(t *rapid.T, d *rollout.Device, f rollout.Fact) {
	before, running := *d, w.r.Status == rollout.Running
	defer func() {
		w.unasked[d.ID] = d.State.InFlight() && !d.Parked() && (w.unasked[d.ID] || before.Parked() && f.Event != rollout.Unpark)
	}()
	c, err := rollout.Step(&w.r, d, f, w.now)
	if err != nil {
		if *d != before {
			t.Fatalf("%s is refused, and changes %+v to %+v", f.Event, before, *d)
		}
		return
	}
	if c.From != before.State || c.To != d.State {
		t.Fatalf("the change is %+v, of %s to %s", c, before.State, d.State)
	}
	if (c.Stops != "") != (running && w.r.Status != rollout.Running) {
		t.Fatalf("the change says %q, the rollout is %s", c.Stops, w.r.Status)
	}
	if c.Stops != "" && w.r.Reason != rollout.TooManyFailures {
		t.Fatalf("it stopped for %s", w.r.Reason)
	}
}

func (w *world) report(t *rapid.T) {
	if len(w.devices) == 0 {
		return
	}
	d := w.devices[rapid.IntRange(0, len(w.devices)-1).Draw(t, "device")]
	f := rollout.Fact{
		Event:   rollout.Event(rapid.IntRange(0, int(rollout.SeesOther)).Draw(t, "event")),
		Action:  rapid.SampledFrom([]int32{0, d.Action, d.Action, d.Action + 1}).Draw(t, "action"),
		Attempt: rapid.SampledFrom([]int{0, d.Attempt, d.Attempt, d.Attempt - 1}).Draw(t, "attempt"),
		Seq:     rapid.SampledFrom([]int64{0, d.Seq + 1, d.Seq + 1, d.Seq}).Draw(t, "seq"),
	}
	stale := f.Action != 0 && f.Action != d.Action || f.Attempt != 0 && f.Attempt != d.Attempt || f.Seq != 0 && f.Seq <= d.Seq
	before := *d
	w.step(t, d, f)
	if stale && *d != before {
		t.Fatalf("a stale %+v changes %+v", f, before)
	}
}

func (w *world) pass(t *rapid.T) {
	w.now += muster.Micros(rapid.IntRange(1, 12_000_000).Draw(t, "µs"))
	for _, d := range w.devices {
		if e, ok := d.Overdue(rollout.Life{There: rapid.Bool().Draw(t, "alive")}, w.now); ok {
			w.step(t, d, rollout.Fact{Event: e})
		}
	}
}

func (w *world) advance(t *rapid.T) {
	was, phase := w.r.Status, w.r.Phase
	done := w.r.Counts[phase].Open() == 0
	moved := w.r.Advance(rollout.NotAsked, w.now)
	if w.r.Phase > phase+1 || w.r.Phase > phase && !moved {
		t.Fatalf("from phase %d to %d, %v", phase, w.r.Phase, moved)
	}
	c := &w.r.Counts[phase]
	asked, moot := 0, 0 // of those in the phase: who was to get it, and who has nothing to do with it
	for _, d := range w.devices {
		switch {
		case d.Phase != phase:
		case d.State != rollout.Skipped || d.Reason == rollout.Denied || d.Reason == rollout.Blocked:
			asked++
		case d.Reason != rollout.Ineligible:
			moot++
		}
	}
	if over := w.r.Phase > phase || w.r.Status == rollout.Completed && was == rollout.Running; over && c.By[rollout.Confirmed]*100 < 50*asked {
		t.Fatalf("phase %d is passed with %+v, %d were asked", phase, c, asked)
	} else if over && done && c.By[rollout.Confirmed] == 0 && c.Total() > moot {
		t.Fatalf("phase %d has proved nothing, and is passed with %+v", phase, c)
	}
	if w.r.Waiting && w.r.Status == rollout.Running && c.By[rollout.Confirmed]*100 < 50*asked {
		t.Fatalf("phase %d waits for a person with %+v, %d were asked", phase, c, asked)
	}
	if vacant := w.r.Membership == rollout.Dynamic && c.Total() == 0; vacant && (w.r.Phase > phase || w.r.Status == rollout.Paused && was == rollout.Running) {
		t.Fatalf("phase %d, which nobody is in, is passed by itself: it is %s in phase %d", phase, w.r.Status, w.r.Phase)
	}
	if was == rollout.Running && w.r.Status == rollout.Paused && !done {
		t.Fatalf("the rollout pauses with open devices: %+v", w.r)
	}
}

// tally counts why a device was skipped.
func tally(c *rollout.Counts, d *rollout.Device) {
	switch {
	case d.State != rollout.Skipped:
	case d.Reason == rollout.Denied || d.Reason == rollout.Blocked:
		c.Missed++
	case d.Reason == rollout.Ineligible:
		c.Unfit++
	}
}

// check looks at what must always be so.
func (w *world) check(t *rapid.T) {
	counts := make([]rollout.Counts, len(w.r.Plan.Phases))
	inFlight, unasked := 0, 0
	for _, d := range w.devices {
		counts[d.Phase].By[d.State]++
		if d.Failing {
			counts[d.Phase].Failing++
		} else if d.State == rollout.Rebooting && d.Soaking {
			counts[d.Phase].Soaking++
		}
		if d.Late == rollout.LateInstalled && !d.State.InFlight() {
			counts[d.Phase].Late++
		}
		tally(&counts[d.Phase], d)
		if d.Parked() {
			counts[d.Phase].Parked++
		} else if d.State.InFlight() {
			inFlight++
			if w.unasked[d.ID] {
				unasked++
			}
			if d.Deadline == 0 {
				t.Fatalf("%s may be silent for ever: %+v", d.ID, d)
			}
		}
		if s, ok := w.ended[d.ID]; ok && s != d.State {
			t.Fatalf("%s left its end %s for %s", d.ID, s, d.State)
		}
		if d.State.Ended() {
			w.ended[d.ID] = d.State
		}
		if want := int32(3<<8 + d.Attempt); d.Attempt > 0 && d.Action != want {
			t.Fatalf("%s has action %d in attempt %d", d.ID, d.Action, d.Attempt)
		}
		if d.Phase > w.r.Phase && d.Attempt > 0 {
			t.Fatalf("%s of phase %d was offered the release in phase %d", d.ID, d.Phase, w.r.Phase)
		}
		if d.State == rollout.Confirmed && d.Failing || d.State == rollout.Skipped && d.Reason == "" {
			t.Fatalf("%+v", d)
		}
	}
	if !slices.Equal(counts, w.r.Counts) {
		t.Fatalf("counts are %+v, devices give %+v", w.r.Counts, counts)
	}
	if inFlight-unasked > w.r.Plan.Concurrent || inFlight != w.r.InFlight() {
		t.Fatalf("%d are in flight, %d are counted, %d are allowed", inFlight, w.r.InFlight(), w.r.Plan.Concurrent)
	}
	for i, c := range counts {
		old := w.old(i)
		if w.r.Status == rollout.Running && w.r.Plan.Phases[i].Failure.Crossed(c.Failing-old, c.Results()-old) {
			t.Fatalf("phase %d goes on with %+v, of which %d were forgiven", i, c, old)
		}
	}
}

func TestARolloutKeepsItsCapStopsItselfAndNeverLeavesAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.SampledFrom([]rollout.Membership{rollout.Snapshot, rollout.Dynamic}).Draw(t, "membership"))
		t.Repeat(map[string]func(*rapid.T){
			"":        w.check,
			"offer":   w.offer,
			"report":  w.report,
			"report2": w.report,
			"report3": w.report,
			"pass":    w.pass,
			"park":    w.park,
			"join":    func(*rapid.T) { w.join() },
			"advance": w.advance,
			"approve": func(*rapid.T) { _ = w.r.Approve(w.now) },
			"pause":   func(*rapid.T) { _, _ = w.r.Pause() },
			"resume":  w.resume,
			"supersede": func(t *rapid.T) {
				if len(w.devices) > 0 {
					d := w.devices[rapid.IntRange(0, len(w.devices)-1).Draw(t, "device")]
					e := rapid.SampledFrom([]rollout.Event{rollout.Replaced, rollout.Recall, rollout.Abort, rollout.Quit}).Draw(t, "what")
					w.step(t, d, rollout.Fact{Event: e})
				}
			},
			"exclude": func(t *rapid.T) {
				if len(w.devices) > 0 {
					why := rapid.SampledFrom([]rollout.Reason{rollout.Ineligible, rollout.AlreadyInstalled, rollout.Blocked, rollout.Deleted}).Draw(t, "why")
					w.step(t, w.devices[rapid.IntRange(0, len(w.devices)-1).Draw(t, "device")], rollout.Fact{Event: rollout.Exclude, Reason: why})
				}
			},
		})
	})
}

func TestARolloutOfObedientDevicesEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rollout.Snapshot)
		for range 10_000 {
			w.offer(t)
			for _, d := range w.devices {
				if d.State.InFlight() && !d.Soaking {
					w.step(t, d, rollout.Fact{Event: rollout.SeesTarget, Action: d.Action})
				}
			}
			w.now += 3_000_000
			for _, d := range w.devices {
				if e, ok := d.Overdue(rollout.Life{There: true}, w.now); ok {
					w.step(t, d, rollout.Fact{Event: e})
				}
			}
			w.check(t)
			w.r.Advance(rollout.NotAsked, w.now)
			if w.r.Waiting {
				if err := w.r.Approve(w.now); err != nil {
					t.Fatal(err)
				}
			}
			if w.r.Status == rollout.Completed {
				break
			}
		}
		confirmed := 0
		for _, c := range w.r.Counts {
			confirmed += c.By[rollout.Confirmed]
		}
		if w.r.Status != rollout.Completed || confirmed != len(w.devices) || w.offered != len(w.devices) {
			t.Fatalf("it is %s with %d of %d confirmed, %d offers", w.r.Status, confirmed, len(w.devices), w.offered)
		}
	})
}
