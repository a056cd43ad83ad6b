package control_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/rollout"
)

func TestWhatADeviceConfirmedAndWhatHappenedInAnActionIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		const dev = "dev-000003"
		x := openCounter(t, e, 10)
		if _, _, err := x.store.InstalledAction(t.Context(), dev); muster.KindOf(err) != muster.NotFound {
			t.Errorf("before anything was confirmed: %v", err)
		}
		o := x.is(dev, "offered", false)
		x.says(dev, rollout.Fact{Event: rollout.SaysInstalling, Action: o.Action})
		x.says(dev, rollout.Fact{Event: rollout.SeesTarget, Action: o.Action})
		x.at = x.at.Add(5e9)
		x.tick()
		if action, release, err := x.store.InstalledAction(t.Context(), dev); err != nil || action != o.Action || release != "rel" {
			t.Errorf("confirmed is %d of %q, %v; want %d", action, release, err, o.Action)
		}
		log, err := x.store.ActionLog(t.Context(), dev, o.Action, 10)
		want := []string{"rebooting -> confirmed", "installing -> rebooting", "offered -> installing", "queued -> offered"}
		if d := cmp.Diff(want, log); err != nil || d != "" {
			t.Errorf("the log of the action: %v\n%s", err, d)
		}
		if log, err = x.store.ActionLog(t.Context(), dev, o.Action, 1); err != nil || !slices.Equal(log, want[:1]) {
			t.Errorf("the newest of the log is %q, %v", log, err)
		}
		if log, err = x.store.ActionLog(t.Context(), "dev-000004", o.Action+1, 10); err != nil || len(log) != 0 {
			t.Errorf("the log of no action is %q, %v", log, err)
		}
	})
}

func TestAConsentIsReadAsItWasKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		for _, want := range []desk.Consent{{}, {Action: 513}, {Action: 513, Auto: true, Initiator: "jo", Remark: "all \u00fc", Since: 7}, {Action: 600}} {
			if want != (desk.Consent{}) {
				if err := c.SetConsent(t.Context(), "a", want); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := c.Consent(t.Context(), "a"); err != nil || got != want {
				t.Errorf("kept %+v, read %+v, %v", want, got, err)
			}
		}
		if got, err := c.Consent(t.Context(), "b"); err != nil || got != (desk.Consent{}) {
			t.Errorf("another device has %+v, %v", got, err)
		}
	})
}
