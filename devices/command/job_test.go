package command_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/devices/command"
)

// twins stands for the twins: it counts what was applied to whom.
type twins struct {
	mu      sync.Mutex
	applied map[muster.DeviceID]int
	patch   string
	refuse  map[muster.DeviceID]error
	away    int // so many times
}

// Desire implements command.Desirer.
func (w *twins) Desire(_ context.Context, ids []muster.DeviceID, patch []byte, by string) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := make([]error, len(ids))
	w.patch = string(patch) + " by " + by
	if w.away > 0 {
		w.away--
		for i := range errs {
			errs[i] = muster.Errorf(muster.Unavailable, "away")
		}
		return errs
	}
	for i, id := range ids {
		if errs[i] = w.refuse[id]; errs[i] == nil {
			w.applied[id]++
		}
	}
	return errs
}

func newTwins() *twins {
	return &twins{applied: map[muster.DeviceID]int{}, refuse: map[muster.DeviceID]error{}}
}

// jobsInBubble runs a test of jobs with a clock of its own on each engine.
func jobsInBubble(t *testing.T, auto bool, run func(t *testing.T, r *rig, w *twins)) {
	onEach(t, func(t *testing.T, e engine) {
		synctest.Test(t, func(t *testing.T) {
			r, w := jobRig(t, e, auto)
			run(t, r, w)
			r.close()
		})
	})
}

func jobRig(t testing.TB, e engine, auto bool) (*rig, *twins) {
	w := newTwins()
	return newRig(t, e, auto, func(o *command.Options) { o.Desirer = w }), w
}

func (r *rig) job(s command.JobSpec) command.Job {
	r.Helper()
	if s.Kind == "" {
		s.Kind, s.Method = command.KindCommand, "m"
	}
	s.By = "me"
	j, err := r.c.CreateJob(context.Background(), s)
	must(r, err)
	return j
}

func (r *rig) jobNow(id int64) command.Job {
	r.Helper()
	j, err := r.c.Job(context.Background(), id)
	must(r, err)
	return j
}

func (r *rig) control(id int64, a command.Action) command.Job {
	r.Helper()
	j, err := r.c.ControlJob(context.Background(), id, a)
	must(r, err)
	return j
}

func (r *rig) wantCounts(id int64, phase command.Phase, want command.Counts) {
	r.Helper()
	j := r.jobNow(id)
	if d := cmp.Diff(want, j.Counts()); d != "" || j.Phase != phase {
		r.Errorf("the job is %s (%s), want %s: %s", j.Phase, j.Reason, phase, d)
	}
}

// targets reads all targets of a job, page by page, and how many are in which state.
func (r *rig) targets(id int64) (list []command.Target, states map[string]int) {
	r.Helper()
	states = map[string]int{}
	for from := int64(0); ; {
		page, next, err := r.c.JobTargets(context.Background(), command.TargetQuery{Job: id, From: from, Limit: 999})
		must(r, err)
		list = append(list, page...)
		if next == 0 {
			break
		}
		from = next
	}
	for i, t := range list {
		states[t.State]++
		if t.Number != int64(i) {
			r.Fatalf("target %d comes as number %d", i, t.Number)
		}
	}
	return list, states
}

// perDevice is how often each device was sent something.
func (r *rig) perDevice() map[muster.DeviceID]int {
	out := map[muster.DeviceID]int{}
	for _, m := range r.wire.sent() {
		out[m.device]++
	}
	return out
}

// answer reports ok, or an error, for every message on the wire since from.
func (r *rig) answer(from int, bad func(muster.DeviceID) bool) int {
	r.Helper()
	log := r.wire.sent()
	for list := range slices.Chunk(log[from:], 500) {
		reports := make([]command.Report, len(list))
		for i, m := range list {
			payload := `{"status":"ok"}`
			if bad != nil && bad(m.device) {
				payload = `{"status":"error","error":"no"}`
			}
			reports[i] = command.Report{Device: m.device, Command: m.id, Payload: []byte(payload)}
		}
		for _, err := range r.c.Results(context.Background(), reports) {
			must(r, err)
		}
	}
	return len(log)
}

func (r *rig) online(ids []muster.DeviceID) {
	for _, id := range ids {
		r.wire.connect(id)
	}
	for _, id := range ids {
		r.c.Ready(id, false)
	}
}

// The fleet has 10,000 devices, in which a wave of one percent is scale.
func TestAJobOf10000InWavesIsPausedResumedRestartedAndAborted(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		ids := r.devices(100 * scale)
		r.online(ids)
		spec := command.JobSpec{Query: "id:d*", Waves: []command.Wave{{Percent: 1}, {Percent: 20}, {Count: 30 * scale}}}
		n, err := r.c.CountJob(command.JobSpec{Query: "id:d*", Kind: command.KindCommand, Method: "m"})
		must(t, err)
		if n != 100*scale {
			t.Fatalf("%d match", n)
		}
		j := r.job(spec)
		if d := cmp.Diff([]int64{scale, 21 * scale, 51 * scale, 100 * scale}, j.Ends); d != "" {
			t.Fatal(d)
		}
		settle()
		r.wantCounts(j.ID, command.Running, command.Counts{Pending: 99 * scale, Running: scale})
		at := r.answer(0, nil)
		settle() // the second wave
		r.wantCounts(j.ID, command.Running, command.Counts{Pending: 79 * scale, Running: 20 * scale, Succeeded: scale})
		r.control(j.ID, command.Pause)
		at = r.answer(at, nil)
		pass(time.Hour)
		r.wantCounts(j.ID, command.Paused, command.Counts{Pending: 79 * scale, Succeeded: 21 * scale})
		r.restart()
		r.online(ids)
		pass(time.Hour)
		r.wantCounts(j.ID, command.Paused, command.Counts{Pending: 79 * scale, Succeeded: 21 * scale})
		r.control(j.ID, command.Resume)
		settle()
		r.wantCounts(j.ID, command.Running, command.Counts{Pending: 49 * scale, Running: 30 * scale, Succeeded: 21 * scale})
		r.restart() // what was delivered stays so
		settle()
		r.control(j.ID, command.NextWave)
		settle()
		r.wantCounts(j.ID, command.Running, command.Counts{Running: 79 * scale, Succeeded: 21 * scale}) // nobody listens
		r.answer(at, nil)
		r.online(ids[:5*scale])
		settle()
		got := r.control(j.ID, command.Stop)
		if got.Phase != command.Aborted || got.Reason == "" || got.Ended == 0 {
			t.Errorf("aborted: %+v", got.JobState)
		}
		settle()
		r.online(ids)
		settle()
		list, states := r.targets(j.ID)
		sent := 0
		for device, n := range r.perDevice() {
			if n != 1 {
				t.Fatalf("%s was sent %d commands", device, n)
			}
			sent++
		}
		counts := r.jobNow(j.ID)
		n5 := counts.Counts()
		if sent < 51*scale || sent > 56*scale || int(n5.Cancelled) != 100*scale-sent || int(n5.Succeeded) != 51*scale || states["cancelled"] != 100*scale-sent || len(list) != 100*scale {
			t.Errorf("%d were sent, counts %+v, states %v", sent, n5, states)
		}
		r.answer(51*scale, nil)
		settle()
		if last := r.jobNow(j.ID); !last.Settled || int(last.Succeeded) != sent {
			t.Errorf("at the end: %+v, %d were sent", last.JobState, sent)
		}
		_, err = r.c.ControlJob(t.Context(), j.ID, command.Resume)
		wantKind(t, err, muster.Conflict)
	})
}

func TestAJobAbortsItselfWhenTooManyFail(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		ids := r.devices(100)
		r.online(ids)
		j := r.job(command.JobSpec{Query: "id:d*", MaxInFlight: 10, Abort: command.Abort{FailedPercent: 20, MinFinished: 20}})
		bad := map[muster.DeviceID]bool{}
		list, _ := r.targets(j.ID)
		for i, x := range list {
			if i < 10 && i%3 == 0 || i >= 10 && i < 12 { // 4 of the first ten
				bad[x.Device] = true
			}
		}
		settle()
		at := r.answer(0, func(id muster.DeviceID) bool { return bad[id] })
		settle()
		r.wantCounts(j.ID, command.Running, command.Counts{Pending: 80, Running: 10, Succeeded: 6, Failed: 4})
		r.answer(at, func(muster.DeviceID) bool { return false })
		settle()
		got := r.jobNow(j.ID)
		if got.Phase != command.Aborted || got.Reason != "4 of 20 finished targets failed or expired" || got.Next != 20 || !got.Settled {
			t.Errorf("the job is %+v", got.JobState)
		}
		_, states := r.targets(j.ID)
		if d := cmp.Diff(map[string]int{"succeeded": 16, "failed": 4, "cancelled": 80}, states); d != "" {
			t.Error(d)
		}
	})
}

func TestAJobHasNoMoreInFlightThanItMay(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		ids := r.devices(60)
		r.online(ids)
		j := r.job(command.JobSpec{Query: "id:d*", MaxInFlight: 7})
		at := 0
		for at < 60 {
			settle()
			log := r.wire.sent()
			if n := len(log) - at; n != min(7, 60-at) {
				t.Fatalf("%d are in flight", n)
			}
			// One ends, one more starts.
			m := log[at]
			must(t, r.report(m.device, m.id, `{"status":"ok"}`))
			at++
		}
		settle()
		r.wantCounts(j.ID, command.Done, command.Counts{Succeeded: 60})
	})
}

func TestAJobStartsAtItsRate(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		ids := r.devices(90)
		r.online(ids)
		begun := time.Now()
		j := r.job(command.JobSpec{Query: "id:d*", Rate: 30})
		count := func() int64 { return r.jobNow(j.ID).Next }
		pass(time.Millisecond)
		for i := range 20 {
			if n := count(); n != int64(i+1) {
				t.Fatalf("%d were started after %s", n, time.Since(begun))
			}
			pass(2 * time.Second)
		}
		r.control(j.ID, command.Pause)
		n := count()
		pass(10 * time.Minute)
		if count() != n {
			t.Error("a paused job starts targets")
		}
		resumed := time.Now()
		r.control(j.ID, command.Resume)
		pass(time.Minute)
		if got := count() - n; got < 30 || got > 31 {
			t.Errorf("%d were started in %s after the pause", got, time.Since(resumed))
		}
		n = count()
		for range 20 { // restarts give nothing away
			r.restart()
			r.online(ids)
			pass(time.Second)
		}
		if got := count() - n; got < 9 || got > 11 {
			t.Errorf("%d were started in 20 s with restarts", got)
		}
		pass(2 * time.Minute)
		if count() != 90 {
			t.Errorf("%d were started in the end", count())
		}
	})
}

func TestTargetsThatCannotBeSentToFail(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		r.device("d1", "d2", "d3", "d4")
		j := r.job(command.JobSpec{Query: "id:d*", Rate: 1})
		r.control(j.ID, command.Pause)
		list, _ := r.targets(j.ID)
		must(t, r.registry.Delete(t.Context(), list[2].Device, devices.KeepData)) // before it was started
		r.control(j.ID, command.Resume)
		pass(4 * time.Minute)
		must(t, r.registry.Delete(t.Context(), list[1].Device, devices.KeepData)) // after
		settle()
		r.wantCounts(j.ID, command.Running, command.Counts{Running: 2, Failed: 2})
		r.stop()
		must(t, r.store.DeleteDevices(t.Context(), []muster.DeviceID{list[0].Device})) // and while nobody looked
		r.load()
		r.start()
		settle()
		r.wantCounts(j.ID, command.Running, command.Counts{Running: 1, Failed: 3})
		list, _ = r.targets(j.ID)
		for i, want := range []string{"failed", "failed", "failed", "running"} {
			if list[i].State != want || (list[i].Error == "") != (want == "running") {
				t.Errorf("target %d is %+v", i, list[i])
			}
		}
		pass(25 * time.Hour) // the last one expires
		r.wantCounts(j.ID, command.Done, command.Counts{Failed: 3, Expired: 1})
	})
}

func TestAJobChangesWhatDevicesAreWantedToBe(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, w *twins) {
		ids := r.devices(1200)
		w.refuse[ids[7]] = muster.Errorf(muster.TooLarge, "the document is too large")
		w.away = 3
		j := r.job(command.JobSpec{Query: "id:d*", Kind: command.KindDesired, Patch: json.RawMessage(`{"mode": "eco"}`), Waves: []command.Wave{{Count: 100}}})
		pass(time.Minute)
		r.wantCounts(j.ID, command.Done, command.Counts{Succeeded: 1199, Failed: 1})
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, id := range ids {
			if n := w.applied[id]; n != 1 && id != ids[7] {
				t.Fatalf("%s was patched %d times", id, n)
			}
		}
		if w.patch != `{"mode":"eco"} by me` {
			t.Errorf("the patch was %s", w.patch)
		}
		list, _, err := r.c.JobTargets(t.Context(), command.TargetQuery{Job: j.ID, State: "failed", Limit: 10})
		must(t, err)
		if len(list) != 1 || list[0].Device != ids[7] || list[0].Error != "the document is too large" {
			t.Errorf("failed: %+v", list)
		}
	})
}

func TestAKeyMakesOneJob(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		r.device("d")
		spec := command.JobSpec{Query: "id:d*", Key: "k"}
		a := r.job(spec)
		r.restart()
		if b := r.job(spec); b.ID != a.ID {
			t.Error("the key made two jobs")
		}
		spec.Query = "id:e*"
		_, err := r.c.CreateJob(t.Context(), command.JobSpec{Query: "id:e*", Kind: command.KindCommand, Method: "m", By: "me", Key: "k"})
		wantKind(t, err, muster.Conflict)
		pass(25 * time.Hour)
		if b := r.job(spec); b.ID == a.ID {
			t.Error("the key counts after a day")
		}
		r.wantCounts(a.ID, command.Done, command.Counts{Expired: 1})
	})
}

func TestWhatAJobMayNotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := jobRig(t, onSQLite(t, true), true)
		r.device("d")
		ok := command.JobSpec{Query: "id:d*", Kind: command.KindCommand, Method: "m"}
		for name, change := range map[string]func(*command.JobSpec){
			"no kind":             func(s *command.JobSpec) { s.Kind = "" },
			"no method":           func(s *command.JobSpec) { s.Method = "" },
			"a patch of commands": func(s *command.JobSpec) { s.Patch = json.RawMessage("{}") },
			"a method of desired": func(s *command.JobSpec) { s.Kind = command.KindDesired; s.Patch = json.RawMessage("{}") },
			"a patch that is no object": func(s *command.JobSpec) {
				*s = command.JobSpec{Query: "id:*", Kind: command.KindDesired, Patch: json.RawMessage("[]")}
			},
			"no patch":                    func(s *command.JobSpec) { *s = command.JobSpec{Query: "id:*", Kind: command.KindDesired} },
			"a query and devices":         func(s *command.JobSpec) { s.Devices = []muster.DeviceID{"d"} },
			"1,001 devices":               func(s *command.JobSpec) { s.Query, s.Devices = "", make([]muster.DeviceID, command.MaxNamed+1) },
			"no query":                    func(s *command.JobSpec) { s.Query = "" },
			"a query that is none":        func(s *command.JobSpec) { s.Query = "?=(" },
			"a wave of nothing":           func(s *command.JobSpec) { s.Waves = []command.Wave{{}} },
			"a wave of both":              func(s *command.JobSpec) { s.Waves = []command.Wave{{Percent: 1, Count: 1}} },
			"a wave of 101 percent":       func(s *command.JobSpec) { s.Waves = []command.Wave{{Percent: 101}} },
			"a wave of less than nothing": func(s *command.JobSpec) { s.Waves = []command.Wave{{Count: -1}} },
			"101 waves":                   func(s *command.JobSpec) { s.Waves = make([]command.Wave, 101) },
			"a negative rate":             func(s *command.JobSpec) { s.Rate = -1 },
			"a rate over the highest":     func(s *command.JobSpec) { s.Rate = command.MaxRate + 1 },
			"a negative number in flight": func(s *command.JobSpec) { s.MaxInFlight = -1 },
			"101 percent of failures":     func(s *command.JobSpec) { s.Abort.FailedPercent = 101 },
			"half a second to live":       func(s *command.JobSpec) { s.TTL = time.Second / 2 },
		} {
			s := ok
			change(&s)
			if _, err := r.c.CreateJob(t.Context(), s); err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("%s: the answer is %v", name, err)
			}
		}
		for range command.MaxJobs {
			j := r.job(command.JobSpec{Query: "id:d*"})
			r.control(j.ID, command.Pause)
		}
		_, err := r.c.CreateJob(t.Context(), ok)
		wantKind(t, err, muster.Busy)
		list, next, err := r.c.Jobs(t.Context(), 0, command.MaxJobs-1)
		must(t, err)
		if len(list) != command.MaxJobs-1 || next != list[len(list)-1].ID || list[0].ID < list[1].ID {
			t.Errorf("a page of %d, next %d", len(list), next)
		}
		r.control(list[0].ID, command.Stop)
		r.job(command.JobSpec{Query: "id:d*"})
		_, err = r.c.ControlJob(t.Context(), 999_999, command.Pause)
		wantKind(t, err, muster.NotFound)
		_, _, err = r.c.JobTargets(t.Context(), command.TargetQuery{Job: 999_999, Limit: 1})
		wantKind(t, err, muster.NotFound)
		r.close()
	})
}

func TestAJobWithoutTargetsIsDone(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		j := r.job(command.JobSpec{Query: "id:nothing*", Waves: []command.Wave{{Percent: 10}}})
		settle()
		r.wantCounts(j.ID, command.Done, command.Counts{})
	})
}

func TestOldJobsGo(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		ids := r.devices(700)
		r.online(ids)
		old := r.job(command.JobSpec{Query: "id:d*"})
		settle()
		r.answer(0, nil)
		settle()
		pass(80 * 24 * time.Hour)
		young := r.job(command.JobSpec{Query: "id:d*"})
		pass(11 * 24 * time.Hour)
		must(t, r.c.Prune(t.Context()))
		_, err := r.c.Job(t.Context(), old.ID)
		wantKind(t, err, muster.NotFound)
		if _, states := r.targets(young.ID); states["expired"] != 700 {
			t.Errorf("the younger job has %v", states)
		}
	})
}

// TestAJobThatIsKilledNeitherSkipsNorDoublesATarget stops the server at random places,
// with a store that fails at times.
func TestAJobThatIsKilledNeitherSkipsNorDoublesATarget(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		open := func(t *testing.T) *rig {
			r, _ := jobRig(t, e, true)
			r.devices(40)
			return r
		}
		checkInBubble(t, open, func(rt *rapid.T, r *rig) {
			r.wire.mu.Lock()
			r.wire.log = nil
			r.wire.mu.Unlock()
			ids := r.wireAll()
			spec := command.JobSpec{
				Query: "id:d*", Rate: rapid.SampledFrom([]int{0, 0, 6000, 60_000}).Draw(rt, "rate"),
				MaxInFlight: rapid.SampledFrom([]int{0, 0, 3, 20}).Draw(rt, "in flight"),
				Waves:       rapid.SampledFrom([][]command.Wave{nil, {{Percent: 10}}, {{Count: 1}, {Count: 2}, {Count: 30}}}).Draw(rt, "waves"),
			}
			j := r.job(spec)
			answered := 0
			for range rapid.IntRange(1, 12).Draw(rt, "steps") {
				switch rapid.SampledFrom([]string{"kill", "stop", "fail", "pause", "answer", "pass"}).Draw(rt, "step") {
				case "kill":
					r.store.setDown(true)
					r.restart()
					r.store.setDown(false)
					r.online(ids)
				case "stop":
					r.restart()
					r.online(ids)
				case "fail":
					r.store.fail(rapid.SliceOfN(rapid.SampledFrom([]string{"before", "after", ""}), 1, 3).Draw(rt, "plan")...)
				case "pause":
					_, _ = r.c.ControlJob(context.Background(), j.ID, rapid.SampledFrom([]command.Action{command.Pause, command.Resume, command.NextWave}).Draw(rt, "action"))
				case "answer":
					answered = r.tryAnswer(answered)
				case "pass":
					pass(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond)
				}
			}
			r.store.setDown(false)
			pass(10 * time.Second)
			_, _ = r.c.ControlJob(context.Background(), j.ID, command.Resume)
			for i := 0; r.jobNow(j.ID).Phase != command.Done; i++ {
				if i > 400 {
					rt.Fatalf("the job does not end: %+v", r.jobNow(j.ID).JobState)
				}
				r.online(ids)
				settle()
				r.tryAnswer(0)
				pass(time.Second)
			}
			counts := r.jobNow(j.ID)
			if diff := cmp.Diff(command.Counts{Succeeded: 40}, counts.Counts()); diff != "" {
				rt.Fatal(diff)
			}
			seen := map[muster.DeviceID]map[string]bool{}
			for _, m := range r.wire.sent() {
				if seen[m.device] == nil {
					seen[m.device] = map[string]bool{}
				}
				seen[m.device][m.id] = true
			}
			for _, id := range ids {
				if len(seen[id]) != 1 {
					rt.Fatalf("%s was sent %d different commands", id, len(seen[id]))
				}
			}
		})
	})
}

func (r *rig) wireAll() (ids []muster.DeviceID) {
	ids = r.registry.MatchAll(nil)
	r.online(ids)
	return ids
}

// tryAnswer reports ok on what was sent since from; a store that fails may refuse it.
func (r *rig) tryAnswer(from int) int {
	log := r.wire.sent()
	for list := range slices.Chunk(log[min(from, len(log)):], 500) {
		reports := make([]command.Report, len(list))
		for i, m := range list {
			reports[i] = command.Report{Device: m.device, Command: m.id, Payload: []byte(`{"status":"ok"}`)}
		}
		for _, err := range r.c.Results(context.Background(), reports) {
			if err != nil && muster.KindOf(err) != muster.Unavailable {
				r.Error(fmt.Errorf("a report is refused: %w", err))
			}
		}
	}
	return len(log)
}
