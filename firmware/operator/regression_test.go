package operator_test

import (
	"strings"
	"testing"

	"muster"
	"muster/feed"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// gated is a rig with a rollout whose canaries are all confirmed, of three phases. What the telemetry
// says is asked of says.
func gated(r *rig, says func(x *rollout.Rollout) (rollout.Verdict, string)) rollout.Rollout {
	r.Helper()
	r.verdicts = says
	x := r.create(starting, func(s *operator.Spec) {
		s.Plan.Phases[0].Gate = rollout.Auto
		half := rollout.Phase{Name: "half", Percent: 50, Success: 50, Gate: rollout.Auto}
		s.Plan.Phases = []rollout.Phase{s.Plan.Phases[0], half, s.Plan.Phases[1]}
	})
	r.tick()
	r.report(rollout.SeesTarget, r.fleet.ids[:10]...)
	for range 3 {
		r.tick()
	}
	return r.must(r.operator.Rollout(r.Context(), x.ID))
}

// rest is a device that is not updated.
func (r *rig) rest(id string) muster.DeviceID {
	r.Helper()
	for _, d := range r.devices(id) {
		if d.State == rollout.Queued {
			return d.ID
		}
	}
	r.Fatal("all are updated")
	return ""
}

func (r *rig) why(id string) string {
	r.Helper()
	w, err := r.operator.Why(r.Context(), id, r.rest(id))
	if err != nil {
		r.Fatal(err)
	}
	return w.Words
}

func TestThePhaseAfterWaitsUntilEnoughTelemetryIsKnownAndSaysSo(t *testing.T) {
	onEach(t, 40, operator.Options{}, func(r *rig) {
		verdict, words := rollout.NotYet, "too little is known"
		asked := 0
		x := gated(r, func(x *rollout.Rollout) (rollout.Verdict, string) {
			if x.Phase > 0 {
				asked++
				return rollout.NotYet, "of the second phase"
			}
			return verdict, words
		})
		if x.Phase != 0 || x.Status != rollout.Running || x.Telemetry != words || x.Counts[0].By[rollout.Confirmed] != 10 {
			r.Fatalf("it does not wait: phase %d, %s, %q", x.Phase, x.Status, x.Telemetry)
		}
		if got := r.why(x.ID); !strings.Contains(got, "in canary; too little is known") {
			r.Errorf("%s", got)
		}
		verdict, words = rollout.Good, "fine"
		r.tick()
		x = r.must(r.operator.Rollout(r.Context(), x.ID))
		if n := r.states(x.ID); x.Phase != 1 || n["offered"] == 0 || x.Telemetry != "of the second phase" || asked == 0 {
			r.Errorf("phase %d, %v, %q: one phase's verdict is another's", x.Phase, n, x.Telemetry)
		}
	})
}

func TestARolloutWhoseTelemetryGotWorseStopsItselfAndTellsWhy(t *testing.T) {
	onEach(t, 40, operator.Options{}, func(r *rig) {
		const words = "avg of \"errors\" is 9 on 10 updated devices and 1 on 30 others: it went up by more than 10 percent"
		x := gated(r, func(x *rollout.Rollout) (rollout.Verdict, string) {
			if x.Counts[0].By[rollout.Confirmed] == 0 {
				return rollout.NotYet, "too little"
			}
			return rollout.Worse, words
		})
		if x.Status != rollout.Paused || x.Reason != rollout.Regression || x.Phase != 0 || x.Telemetry != words {
			r.Fatalf("it goes on: %s %s, phase %d, %q", x.Status, x.Reason, x.Phase, x.Telemetry)
		}
		if n := r.tickStates(x.ID); n["offered"] != 0 || n["queued"] == 0 {
			r.Errorf("stopped, it has %v", n)
		}
		if got := r.why(x.ID); !strings.Contains(got, "paused: regression ("+words+")") {
			r.Errorf("%s", got)
		}
		if !strings.Contains(r.stopped, `"telemetry":"avg of \"errors\"`) || r.events[len(r.events)-1] != feed.RolloutPaused {
			r.Errorf("told: %s, %v", r.stopped, r.events)
		}
		records, err := r.store.AuditAfter(r.Context(), 0, 100)
		if err != nil {
			r.Fatal(err)
		}
		last := records[len(records)-1]
		if last.Action != "rollout.stop" || last.Actor.Kind != "system" || !strings.Contains(string(last.After), `"telemetry":"avg of`) {
			r.Errorf("recorded: %s by %s: %s", last.Action, last.Actor.Kind, last.After)
		}

		r.must(r.operator.Resume(r.ctx(), x.ID, false))
		r.tick()
		x = r.must(r.operator.Rollout(r.Context(), x.ID))
		if x.Status != rollout.Paused || x.Phase != 1 || x.Overruled != 1 {
			r.Errorf("somebody has gone on in spite of one phase's telemetry, and it is %s in phase %d, of %d", x.Status, x.Phase, x.Overruled)
		}
	})
}
