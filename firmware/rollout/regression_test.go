package rollout_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/regression"
	"muster/firmware/rollout"
)

func TestAPlanSaysWhatTheTelemetryOfAPhaseIsAsked(t *testing.T) {
	p := rollout.DefaultPlan()
	p.Phases[1].Regression = regression.Gate{Key: "t", Aggregate: regression.P95, Worse: regression.Up, Percent: 5, Window: time.Hour, Devices: 3}
	anything := func(string) error { return nil }
	if err := p.Check(anything); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(p)
	if err != nil || strings.Count(string(text), `"regression"`) != 1 {
		t.Errorf("%s, %v", text, err)
	}
	var back rollout.Plan
	if err := json.Unmarshal(text, &back); err != nil || back.Phases[1].Regression != p.Phases[1].Regression || back.Phases[0].Regression.Asked() {
		t.Errorf("%+v, %v", back.Phases, err)
	}
	p.Phases[1].Regression.Window = 0
	if err := p.Check(anything); muster.KindOf(err) != muster.Invalid || !slices.Equal(muster.FieldsOf(err), []string{"plan/phases/1/regression/window_s"}) {
		t.Errorf("a gate without a window: %v at %v", err, muster.FieldsOf(err))
	}
}

func TestWhatTelemetrySaysIsSaidToWhoWaitsAndStaysWhenItStopped(t *testing.T) {
	r := draftOf(func(r *rollout.Rollout) {
		r.Status, r.Started = rollout.Running, began
		r.Counts[0].By[rollout.Queued], r.Counts[1].By[rollout.Queued] = 1, 1
	})
	waits := &rollout.Device{Phase: 1}
	said := func(rule string) string {
		for _, x := range rollout.Explain(r, waits, &rollout.Facts{Hardware: true, Source: true, Signed: true}, began) {
			if x.Name == rule {
				return x.Detail
			}
		}
		return ""
	}
	r.Hear("too little is known")
	if got := said("phase_open"); !strings.HasSuffix(got, "; too little is known") {
		t.Errorf("who waits for the phase is told %q", got)
	}
	r.Hear("it is worse")
	r.Advance(rollout.Worse, began)
	r.Hear("another thing")
	if got := said("rollout_running"); r.Telemetry != "it is worse" || got != "the rollout is paused: regression (it is worse)" {
		t.Errorf("it stopped for %q, and says %q", r.Telemetry, got)
	}
	r.Phase, r.Status, r.Waiting = 0, rollout.Running, true
	if err := r.Approve(began); err != nil || r.Phase != 1 || r.Telemetry != "" {
		t.Errorf("phase %d begins with %q: %v", r.Phase, r.Telemetry, err)
	}
}
