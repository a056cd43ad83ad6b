package operator

import (
	"muster"
	"muster/feed"
	"muster/firmware/rollout"
)

// eventData is what an event of a rollout tells.
type eventData struct {
	Rollout   string         `json:"rollout"`
	Name      string         `json:"name"`
	Release   string         `json:"release"`
	Product   string         `json:"product"`
	Status    rollout.Status `json:"status"`
	Reason    rollout.Reason `json:"reason,omitempty"`
	Phase     string         `json:"phase"`
	Phases    int            `json:"phases"`
	Number    int            `json:"phase_number"` // from 1
	Devices   int            `json:"devices"`
	Confirmed int            `json:"confirmed"`
	Failing   int            `json:"failing"`
	Telemetry string         `json:"telemetry,omitempty"` // what it says, in a sentence
	Vacant    bool           `json:"vacant,omitempty"`    // it waits in a phase that no device is in
}

func newEvent(kind string, r *rollout.Rollout, at muster.Micros) feed.Event {
	d := eventData{
		Rollout: r.ID, Name: r.Name, Release: r.Release, Product: r.Product, Status: r.Status, Reason: r.Reason,
		Phase: r.Plan.Phases[r.Phase].Name, Number: r.Phase + 1, Phases: len(r.Plan.Phases), Telemetry: r.Telemetry, Vacant: r.Vacant(),
	}
	for i := range r.Counts {
		d.Devices += r.Counts[i].Total()
		d.Confirmed += r.Counts[i].By[rollout.Confirmed]
		d.Failing += r.Counts[i].Failing
	}
	return feed.NewEvent(kind, "", at, d)
}

// state is what events compares.
type state struct {
	status  rollout.Status
	reason  rollout.Reason
	phase   int
	waiting bool
}

func stateOf(r *rollout.Rollout) state { return state{r.Status, r.Reason, r.Phase, r.Waiting} }

// events returns what is to be told of a rollout that was in the state before: that it was
// started, paused, resumed, stopped by itself, aborted or completed, began a phase, waits at
// a gate or does so no more, or is held since too few people have agreed. Several may be true at once.
func events(before state, r *rollout.Rollout, at muster.Micros) (out []feed.Event) {
	add := func(kind string) { out = append(out, newEvent(kind, r, at)) }
	is := stateOf(r)
	if is == before {
		return nil
	}
	if is.phase > before.phase {
		add(feed.RolloutPhase)
	}
	if is.status != before.status {
		if byItself(is) {
			add(feed.RolloutStopped)
		}
		switch is.status {
		case rollout.Running:
			add(map[bool]string{true: feed.RolloutResumed, false: feed.RolloutStarted}[before.status == rollout.Paused])
		case rollout.Paused:
			add(feed.RolloutPaused)
		case rollout.Completed:
			add(feed.RolloutCompleted)
		case rollout.Aborted:
			add(feed.RolloutAborted)
		case rollout.Draft, rollout.Scheduled:
		}
	}
	if is.reason == rollout.Unapproved && before.reason != rollout.Unapproved {
		add(feed.RolloutHeld)
	}
	if is.waiting && !before.waiting {
		add(feed.RolloutGate)
	}
	if before.waiting && !is.waiting {
		add(feed.RolloutGateClosed)
	}
	return out
}

// byItself says whether a rollout has stopped without anybody asking for it.
func byItself(s state) bool {
	return (s.status == rollout.Paused || s.status == rollout.Aborted) && s.reason != rollout.ByOperator && s.reason != rollout.Superseded
}
