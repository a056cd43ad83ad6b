package operator

import (
	"context"
	"sync/atomic"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/firmware/director"
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

// view is a rollout in the audit log.
type view struct {
	Name       string             `json:"name"`
	Release    string             `json:"release"`
	Query      string             `json:"q"`
	Membership rollout.Membership `json:"membership"`
	Status     rollout.Status     `json:"status"`
	Reason     rollout.Reason     `json:"reason,omitempty"`
	Phase      int                `json:"phase"` // from 1
	Waiting    bool               `json:"waiting,omitempty"`
	Forced     bool               `json:"forced,omitempty"`
	StartAt    muster.Micros      `json:"start_at,omitempty"`
	Of         string             `json:"of,omitempty"`
	Supersede  rollout.Supersede  `json:"supersede,omitempty"`
	Downgrade  bool               `json:"downgrade,omitempty"`
	Needs      int                `json:"min_approvals,omitempty"`
	Approvals  []rollout.Approval `json:"approvals,omitempty"`
	Note       string             `json:"note,omitempty"`
	Telemetry  string             `json:"telemetry,omitempty"`
	Plan       rollout.Plan       `json:"plan"`
}

func viewOf(r *rollout.Rollout) view {
	return view{
		Name: r.Name, Release: r.Release, Query: r.Query, Membership: r.Membership, Status: r.Status, Reason: r.Reason, Phase: r.Phase + 1, Waiting: r.Waiting,
		Forced: r.Forced, StartAt: r.StartAt, Of: r.Of, Supersede: r.Supersede, Downgrade: r.Downgrade, Needs: r.MinApprovals, Approvals: r.Approvals, Note: r.Note, Telemetry: r.Telemetry, Plan: r.Plan,
	}
}

func objectOf(id string) string { return "rollouts/" + id }

// Noting is a director.Store that tells what becomes of rollouts: in the transaction in which one
// starts, stops, ends or begins a phase by itself, it notes that for the feed and the audit log.
// It is safe for concurrent use.
type Noting struct {
	director.Store
	changes atomic.Uint64
}

// NewNoting returns a Noting over store.
func NewNoting(store director.Store) *Noting { return &Noting{Store: store} }

// Decide implements director.Store.
func (n *Noting) Decide(ctx context.Context, id string, f director.Fence, now muster.Micros, s director.Select, decide director.Decide) error {
	ctx = feed.With(ctx)
	if audit.Of(ctx) == nil {
		ctx = audit.With(ctx, audit.Actor{Kind: audit.System, Name: "rollouts"}, now.Time)
	}
	err := n.Store.Decide(ctx, id, f, now, s, func(r *rollout.Rollout, devices []*rollout.Device) ([]rollout.Change, error) {
		before, was := stateOf(r), viewOf(r)
		changes, err := decide(r, devices)
		if is := stateOf(r); err != nil || is == before {
			return changes, err
		}
		feed.Note(ctx, events(before, r, now)...)
		audit.Note(ctx, actionOf(before, r), objectOf(id), was, viewOf(r))
		return changes, nil
	})
	if err == nil {
		n.changes.Add(1)
	}
	return err //nolint:wrapcheck // a store in the middle
}

// actionOf names in the audit log what a rollout did by itself.
func actionOf(before state, r *rollout.Rollout) string {
	switch {
	case r.Status == rollout.Scheduled:
		return "rollout.hold"
	case r.Status == before.status && r.Phase > before.phase:
		return "rollout.phase"
	case r.Status == before.status && before.waiting:
		return "rollout.gate_closed"
	case r.Status == before.status:
		return "rollout.gate"
	case r.Status == rollout.Running:
		return "rollout.run"
	case r.Status == rollout.Completed:
		return "rollout.complete"
	default:
		return "rollout.stop"
	}
}
