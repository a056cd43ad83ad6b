package operator

import (
	"context"
	"fmt"

	"muster"
	"muster/firmware/rollout"
)

// Why is why a device does, or does not, get a rollout's release now.
type Why struct {
	Rollout string
	Device  rollout.Device // queued in the last phase when it is not in the rollout
	In      bool           // it is
	Rules   []rollout.Rule // every rule of an offer, in the order in which they are looked at
	Held    string         // name of the rule that holds the release back first; empty when none does, or the device has the release
	Has     bool           // the device was confirmed, or reports the release's version and is at work on no release
	Words   string         // all of it in a sentence
	Version string         // that the device reports; empty when it never did
}

// Why evaluates every rule of an offer for a device. NotFound for a rollout that is not there;
// a device that is not in it is answered all the same.
func (o *Operator) Why(ctx context.Context, id string, device muster.DeviceID) (Why, error) {
	r, err := o.Rollout(ctx, id)
	if err != nil {
		return Why{}, err
	}
	w := Why{Rollout: id}
	if w.Device, w.In, err = o.p.Reader.Standing(ctx, &r, device); err != nil {
		return Why{}, err //nolint:wrapcheck // the store says what it was doing
	}
	if o.p.Prepare != nil {
		if err := o.p.Prepare(ctx, id); err != nil {
			return Why{}, fmt.Errorf("look up the release of rollout %s: %w", id, err)
		}
	}
	facts, now := o.p.Facts.Facts(&r, device), o.now()
	w.Version = facts.Version
	w.Rules = []rollout.Rule{o.inRollout(&r, &w)}
	if o.p.Waits != nil {
		rule, err := o.consent(ctx, &w.Device)
		if err != nil {
			return Why{}, err
		}
		w.Rules = append(w.Rules, rule)
	}
	w.Rules = append(w.Rules, rollout.Explain(&r, &w.Device, &facts, now)...)
	// While another rollout updates the device, what it reports may be another in a moment.
	w.Has = w.Device.State == rollout.Confirmed || facts.Installed && !w.Device.State.InFlight() && !w.Device.Elsewhere
	first, held := w.first()
	if held {
		w.Held = first.Name
	}
	w.Words = words(&w, first, held)
	return w, nil
}

// first returns the rule that holds the release back before all others; false when none does. Nothing is held back from
// who has it, and who the rollout is through with does not wait for it to run.
func (w *Why) first() (rollout.Rule, bool) {
	for _, r := range w.Rules {
		switch {
		case r.Holds, w.Has:
		case w.In && w.Device.State.Ended() && r.Name != "not_ended":
		default:
			return r, true
		}
	}
	return rollout.Rule{}, false
}

// inRollout is the rule that is before all others.
func (o *Operator) inRollout(r *rollout.Rollout, w *Why) rollout.Rule {
	rule := rollout.Rule{Name: "in_rollout", Holds: w.In}
	switch {
	case w.In:
		rule.Detail = fmt.Sprintf("the device is in phase %d of %d", w.Device.Phase+1, len(r.Plan.Phases))
	case r.Of != "":
		rule.Detail = "the device is none that the rollout goes back for"
	case r.Status == rollout.Draft && o.p.Fleet.Matches(r.Query, w.Device.ID):
		rule.Detail = "the rollout has no devices before it starts; this one matches now"
	case r.Status == rollout.Draft:
		rule.Detail = "the rollout has no devices before it starts; this one does not match now"
	case !o.p.Fleet.Matches(r.Query, w.Device.ID):
		rule.Detail = "the device does not match the rollout's query"
	case r.Membership == rollout.Snapshot:
		rule.Detail = "the device matches the rollout's query now, and did not when the rollout was started"
	default:
		rule.Detail = "the device matches the rollout's query now, and joins soon"
	}
	return rule
}

// consentRule is what people at the device are asked for once it has the offer.
const consentRule = "consent"

// consent is the rule of servers that have people at devices asked. It holds no offer back, but what comes after it.
func (o *Operator) consent(ctx context.Context, d *rollout.Device) (rollout.Rule, error) {
	rule := rollout.Rule{Name: consentRule, Holds: true, Detail: "people at the device are asked when it has the offer"}
	if !d.State.InFlight() {
		return rule, nil
	}
	waits, err := o.p.Waits(ctx, d.ID, d.Action)
	if rule.Holds, rule.Detail = !waits, "people at the device want it"; waits {
		rule.Detail = "people at the device have not confirmed it. They are asked by hawkBit's DDI (confirmationBase) alone: at a device that does not poll there nobody is"
	}
	return rule, err
}

// words says it in a sentence.
func words(w *Why, first rollout.Rule, held bool) string {
	s := w.Device.State
	switch {
	case !w.In && w.Has:
		return fmt.Sprintf("The device has the release already: it reports %s. It is not in the rollout: %s.", w.Version, w.Rules[0].Detail)
	case !w.In:
		return "The device does not get the release: " + first.Detail + "."
	case s == rollout.Confirmed:
		return "The device has the release: it reported the version, and stayed healthy."
	case s.Ended() && w.Has:
		return fmt.Sprintf("The device has the release all the same: it reports %s. The rollout is through with it: it is %s%s.", w.Version, s, reasonWords(&w.Device))
	case w.Has:
		return fmt.Sprintf("The device has the release already: it reports %s.", w.Version)
	case s.Ended():
		return fmt.Sprintf("The rollout is through with the device: it is %s%s.", s, reasonWords(&w.Device))
	case s.InFlight() && held && first.Name == consentRule:
		return fmt.Sprintf("The device has action %d, of which no door gives it anything yet: %s.", w.Device.Action, first.Detail)
	case s.InFlight() && !w.Device.Parked():
		return fmt.Sprintf("The device has the offer (action %d), and is %s.", w.Device.Action, s)
	case !held && w.Device.Parked():
		return "Nothing holds the device back: it may install within a second."
	case !held:
		return "Nothing holds the release back: the device is offered it within a second."
	}
	out := "The device waits: " + first.Detail
	if w.Device.Parked() {
		out = fmt.Sprintf("The device has the image (action %d), and waits: %s", w.Device.Action, first.Detail)
	}
	if first.Until > 0 {
		out += ", until " + first.Until.Time().Format("2006-01-02 15:04:05 UTC")
	}
	return out + "."
}

func reasonWords(d *rollout.Device) string {
	switch {
	case d.Reason == "":
		return ""
	case d.Detail == "":
		return ": " + string(d.Reason)
	default:
		return ": " + string(d.Reason) + " (" + d.Detail + ")"
	}
}
