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

// View is a rollout in the audit log: all that is kept of it and changes by a decision, so that the audit log
// vouches for it (see control.VerifyAudited). No member is left out when it is empty; what is left out is not compared. What
// devices do is in the rollout's own log.
type View struct {
	Number     int32              `json:"number,omitempty"` // left out before it has one
	Name       string             `json:"name"`
	Release    string             `json:"release"`
	Product    string             `json:"product"`
	Security   int64              `json:"security_version"`
	Rollback   string             `json:"rollback"`
	Query      string             `json:"q"`
	Membership rollout.Membership `json:"membership"`
	Seed       string             `json:"seed"`
	Status     rollout.Status     `json:"status"`
	Reason     rollout.Reason     `json:"reason"`
	Phase      int                `json:"phase"` // from 1
	PhaseAt    muster.Micros      `json:"phase_at"`
	Passed     muster.Micros      `json:"passed"`
	Waiting    bool               `json:"waiting"`
	Forced     bool               `json:"forced"`
	StartAt    muster.Micros      `json:"start_at"`
	Of         string             `json:"of"`
	Supersede  rollout.Supersede  `json:"supersede"`
	Replacing  bool               `json:"replacing"`
	Downgrade  bool               `json:"downgrade"`
	Needs      int                `json:"min_approvals"`
	Approvals  []rollout.Approval `json:"approvals"`
	CreatedBy  rollout.Person     `json:"created_by"`
	Created    muster.Micros      `json:"created"`
	EditedBy   rollout.Person     `json:"edited_by"`
	StartedBy  rollout.Person     `json:"started_by"`
	Started    muster.Micros      `json:"started"`
	Ended      muster.Micros      `json:"ended"`
	Forgiven   []int              `json:"forgiven"` // gets less by itself, without a record: see Loose
	Overruled  int                `json:"overruled"`
	Note       string             `json:"note"`
	Telemetry  string             `json:"telemetry"` // likewise while it runs
	Upto       []uint64           `json:"upto"`
	Plan       rollout.Plan       `json:"plan"`
}

// ViewOf returns it.
func ViewOf(r *rollout.Rollout) View {
	return View{
		Number: r.Number, Name: r.Name, Release: r.Release, Product: r.Product, Security: r.Security, Rollback: r.Rollback, Query: r.Query, Membership: r.Membership,
		Seed: r.Seed, Status: r.Status, Reason: r.Reason, Phase: r.Phase + 1, PhaseAt: r.PhaseAt, Passed: r.Passed, Waiting: r.Waiting, Forced: r.Forced,
		StartAt: r.StartAt, Of: r.Of, Supersede: r.Supersede, Replacing: r.Replacing, Downgrade: r.Downgrade, Needs: r.MinApprovals, Approvals: r.Approvals, CreatedBy: r.CreatedBy,
		Created: r.Created, EditedBy: r.EditedBy, StartedBy: r.StartedBy, Started: r.Started, Ended: r.Ended, Forgiven: r.Forgiven, Overruled: r.Overruled, Note: r.Note,
		Telemetry: r.Telemetry, Upto: r.Upto, Plan: r.Plan,
	}
}

// Loose are the members of a View that change between two records: whoever compares looks at them by Loosened.
func Loose() []string { return []string{"forgiven", "telemetry"} }

// Loosened returns which of the Loose members are not as they may have become since a record: what telemetry
// says changes while a rollout runs, and devices that were forgiven get fewer.
func Loosened(was, is *View) (out []string) {
	for i, n := range is.Forgiven {
		if n < 0 || i >= len(was.Forgiven) && n > 0 || i < len(was.Forgiven) && n > was.Forgiven[i] {
			out = append(out, "forgiven")
			break
		}
	}
	if was.Telemetry != is.Telemetry && was.Status != rollout.Running {
		out = append(out, "telemetry")
	}
	return out
}

func objectOf(id string) string { return "rollouts/" + id }

// standing is what of a View changes by itself. Each change has a record.
type standing struct {
	state
	phaseAt, passed, started, ended muster.Micros
	replacing                       bool
	needs                           int
}

func standingOf(r *rollout.Rollout) standing {
	return standing{stateOf(r), r.PhaseAt, r.Passed, r.Started, r.Ended, r.Replacing, r.MinApprovals}
}

// Noting is a director.Store that tells what becomes of rollouts: in the transaction in which one
// starts, stops, ends, has its successes or begins a phase by itself, it notes that for the feed and the audit log.
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
		before, was := standingOf(r), ViewOf(r)
		changes, err := decide(r, devices)
		if is := standingOf(r); err != nil || is == before {
			return changes, err
		}
		feed.Note(ctx, events(before.state, r, now)...)
		audit.Note(ctx, actionOf(before, r), objectOf(id), was, ViewOf(r))
		return changes, nil
	})
	if err == nil {
		n.changes.Add(1)
	}
	return err //nolint:wrapcheck // a store in the middle
}

// actionOf names in the audit log what a rollout did by itself.
func actionOf(before standing, r *rollout.Rollout) string {
	switch is := standingOf(r); {
	case r.Status == rollout.Scheduled:
		return "rollout.hold"
	case r.Status == before.status && r.Phase > before.phase:
		return "rollout.phase"
	case r.Status == before.status && before.waiting && !r.Waiting:
		return "rollout.gate_closed"
	case r.Status == before.status && r.Waiting != before.waiting:
		return "rollout.gate"
	case r.Status == before.status && is.replacing != before.replacing:
		return "rollout.replace" // it has taken the devices that it was to
	case r.Status == before.status:
		return "rollout.soak" // the phase has its successes, or has not any more
	case r.Status == rollout.Running:
		return "rollout.run"
	case r.Status == rollout.Completed:
		return "rollout.complete"
	default:
		return "rollout.stop"
	}
}
