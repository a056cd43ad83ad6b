package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// RolloutWriter makes, changes and deletes rollouts.
type RolloutWriter interface {
	Create(ctx context.Context, by rollout.Person, s operator.Spec) (rollout.Rollout, error)
	Edit(ctx context.Context, by rollout.Person, id string, c operator.Change) (rollout.Rollout, error)
	Delete(ctx context.Context, id string) error
}

// RolloutRunner has rollouts run.
type RolloutRunner interface {
	Start(ctx context.Context, by rollout.Person, id string) (rollout.Rollout, error)
	Pause(ctx context.Context, id string) (rollout.Rollout, error)
	Resume(ctx context.Context, id string, skip bool) (rollout.Rollout, error)
}

// RolloutJudge says yes to rollouts, and ends them.
type RolloutJudge interface {
	Agree(ctx context.Context, by rollout.Person, id, note string) (rollout.Rollout, error)
	Approve(ctx context.Context, id string) (rollout.Rollout, error)
	Abort(ctx context.Context, id string, force bool) (rollout.Rollout, error)
}

// RolloutSuccessor has one rollout come after another.
type RolloutSuccessor interface {
	Supersede(ctx context.Context, by rollout.Person, id string) (rollout.Rollout, error)
	Rollback(ctx context.Context, by rollout.Person, id string, s operator.Spec) (rollout.Rollout, error)
}

// RolloutViewer says how rollouts are.
type RolloutViewer interface {
	Progress(ctx context.Context, id string) (operator.Progress, error)
	Why(ctx context.Context, id string, device muster.DeviceID) (operator.Why, error)
	Read() operator.Reader
}

// Rollouts is what the API needs of *operator.Operator.
type Rollouts interface {
	RolloutWriter
	RolloutRunner
	RolloutJudge
	RolloutSuccessor
	RolloutViewer
}

// RolloutPath is the part of an input that names a rollout. It is exported because huma looks
// into exported embedded fields only.
type RolloutPath struct {
	Rollout string `path:"rollout" maxLength:"64" doc:"The rollout's id"`
}

// RolloutText is what is written on a rollout, but for its plan. It is exported because huma looks
// into exported embedded fields only.
type RolloutText struct {
	Name         string `json:"name" minLength:"1" maxLength:"100"`
	Release      string `json:"release" minLength:"1" maxLength:"64" doc:"Id of the release"`
	Rollback     string `json:"rollback,omitempty" maxLength:"64" doc:"Id of the release that devices had before, of the same product, for a rollback"`
	Q            string `json:"q,omitempty" maxLength:"2048" doc:"Which devices, in the query language; id:* is all. Absent in a rollback"`
	Membership   string `json:"membership,omitempty" enum:"snapshot,dynamic" doc:"snapshot: those that match when it is started. dynamic: later ones join"`
	Seed         string `json:"seed,omitempty" maxLength:"64" doc:"Of the order of devices; random when absent"`
	StartAt      string `json:"start_at,omitempty" format:"date-time" doc:"Not before; at once when absent"`
	MinApprovals int    `json:"min_approvals,omitempty" minimum:"0" maximum:"16" doc:"How many people besides who wrote it must agree before it starts; at least as many as the server asks for"`
	Supersede    string `json:"supersede,omitempty" enum:"wait,replace" doc:"Devices that are in older rollouts of the product too: wait for those, or have those skip what does not install yet. wait when absent"`
	Downgrade    bool   `json:"downgrade,omitempty" doc:"Devices that report a newer version get the release too; without it they are skipped. Below a security version that a device confirmed it goes only when min_approvals is 1 or more"`
	Note         string `json:"note,omitempty" maxLength:"2000"`
}

type newRollout struct {
	RolloutText

	Plan  rolloutPlan `json:"plan,omitzero" required:"false"`
	Start bool        `json:"start,omitempty" doc:"Start it at once, or have it wait for start_at, instead of a draft"`
}

type changedRollout struct {
	Name         *string      `json:"name,omitempty" minLength:"1" maxLength:"100" nullable:"false"`
	Release      *string      `json:"release,omitempty" minLength:"1" maxLength:"64" nullable:"false"`
	Rollback     *string      `json:"rollback,omitempty" maxLength:"64" nullable:"false" doc:"Empty for none"`
	Q            *string      `json:"q,omitempty" maxLength:"2048" nullable:"false"`
	Membership   *string      `json:"membership,omitempty" enum:"snapshot,dynamic" nullable:"false"`
	Seed         *string      `json:"seed,omitempty" maxLength:"64" nullable:"false"`
	StartAt      *string      `json:"start_at,omitempty" maxLength:"64" nullable:"false" doc:"RFC 3339; empty for at once"`
	MinApprovals *int         `json:"min_approvals,omitempty" minimum:"0" maximum:"16" nullable:"false"`
	Supersede    *string      `json:"supersede,omitempty" enum:"wait,replace" nullable:"false"`
	Downgrade    *bool        `json:"downgrade,omitempty" nullable:"false"`
	Note         *string      `json:"note,omitempty" maxLength:"2000" nullable:"false"`
	Plan         *rolloutPlan `json:"plan,omitempty" doc:"What is absent stays; phases and windows as a whole. Of what runs only concurrent, per_minute and windows"`
}

type rolloutPerson struct {
	ID   string `json:"id" doc:"Of the user or API key"`
	Name string `json:"name,omitempty" doc:"As it was then"`
}

type rolloutApproval struct {
	By     rolloutPerson `json:"by"`
	At     string        `json:"at" format:"date-time"`
	Note   string        `json:"note,omitempty"`
	Counts bool          `json:"counts" doc:"Whether the person may agree now: who is disabled, or lost the right, does not count when the rollout starts"`
}

// RolloutPhaseProgress is how far a phase is.
type RolloutPhaseProgress struct {
	Name    string         `json:"name"`
	Devices int            `json:"devices" minimum:"0"`
	States  map[string]int `json:"states" doc:"Devices by state; states without any are absent"`
	Failing int            `json:"failing" minimum:"0" doc:"Devices that failed and are not confirmed, tried again or not"`
	Soaking int            `json:"soaking" minimum:"0" doc:"Devices that have the version and are not confirmed yet"`
	Late    int            `json:"late" minimum:"0" doc:"Devices that reported the version after the rollout was through with them; a rollback takes them along"`
}

// RolloutProgress is how far a rollout is. It is exported because the live gateway shows it too.
type RolloutProgress struct {
	ID         string                 `json:"id"`
	Status     string                 `json:"status" enum:"draft,scheduled,running,paused,completed,aborted"`
	Reason     string                 `json:"reason,omitempty" doc:"Why it is held, paused or aborted: operator, failure_threshold, success_threshold, nothing_proved (its phase is over, and no device was confirmed), regression, release_revoked, release_deprecated (its time has come, and no rollout begins with the release any more), superseded or approvals (its time has come, and too few people have agreed)"`
	Phase      int                    `json:"phase" minimum:"1" doc:"The phase that it is in, from 1"`
	Waiting    bool                   `json:"waiting" doc:"The phase is over, or no device is in it yet, and a person may let the next begin"`
	Telemetry  string                 `json:"telemetry,omitempty" doc:"What the telemetry of updated devices says against that of the others, in a sentence, in a phase that asks"`
	InFlight   int                    `json:"in_flight" minimum:"0" doc:"Devices that are being updated"`
	Concurrent int                    `json:"concurrent" doc:"Devices that may be"`
	Devices    int                    `json:"devices" minimum:"0" doc:"0 for a draft"`
	Ended      int                    `json:"ended" minimum:"0" doc:"Devices that it is through with"`
	PerMinute  *float64               `json:"per_minute" doc:"Devices that it got through with in a minute, of the last minutes; null while that is not known"`
	EtaS       *int64                 `json:"eta_s" doc:"Seconds to its end at that rate, without waits that are to come; null while that is not known"`
	Phases     []RolloutPhaseProgress `json:"phases" nullable:"false"`
}

// RolloutProgressOf returns p as it is shown.
func RolloutProgressOf(p *operator.Progress) RolloutProgress {
	r := &p.Rollout
	out := RolloutProgress{
		ID: r.ID, Status: string(r.Status), Reason: string(r.Reason), Phase: r.Phase + 1, Waiting: r.Waiting, Telemetry: r.Telemetry, InFlight: p.InFlight, Concurrent: r.Plan.Concurrent,
		Devices: p.Total, Ended: p.Ended, Phases: make([]RolloutPhaseProgress, len(r.Plan.Phases)),
	}
	if p.PerMinute > 0 {
		out.PerMinute = &p.PerMinute
	}
	if p.ETA > 0 {
		out.EtaS = secondsOf(p.ETA)
	}
	for i := range r.Plan.Phases {
		ph := RolloutPhaseProgress{Name: r.Plan.Phases[i].Name, States: map[string]int{}}
		if i < len(r.Counts) { // a draft has none
			c := &r.Counts[i]
			ph.Devices, ph.Failing, ph.Soaking, ph.Late = c.Total(), c.Failing, c.Soaking, c.Late
			for _, s := range rollout.States() {
				if c.By[s] > 0 {
					ph.States[s.String()] = c.By[s]
				}
			}
		}
		out.Phases[i] = ph
	}
	return out
}

// rolloutBody is a rollout as it is shown.
type rolloutBody struct {
	ID string `json:"id" example:"rol_x"`
	RolloutText

	Number    int               `json:"number" doc:"Counts rollouts, from 1"`
	Product   string            `json:"product" doc:"What its release is of"`
	Of        string            `json:"of,omitempty" doc:"A rollback: the rollout whose devices go back"`
	Plan      rolloutPlan       `json:"plan"`
	Forced    bool              `json:"forced,omitempty" doc:"Aborted by force"`
	Approvals []rolloutApproval `json:"approvals" nullable:"false"`
	CreatedBy rolloutPerson     `json:"created_by"`
	CreatedAt string            `json:"created_at" format:"date-time"`
	EditedBy  rolloutPerson     `json:"edited_by" doc:"Who wrote the draft last"`
	StartedBy *rolloutPerson    `json:"started_by,omitempty"`
	StartedAt *string           `json:"started_at" format:"date-time" doc:"When it began to run"`
	EndedAt   *string           `json:"ended_at" format:"date-time" doc:"When it was completed or aborted"`
	Progress  RolloutProgress   `json:"progress"`
	Reasons   []rolloutReason   `json:"reasons,omitempty" doc:"Of one rollout: why devices are where they are, the most frequent first"`
}

type rolloutReason struct {
	State   string `json:"state"`
	Reason  string `json:"reason"`
	Devices int    `json:"devices" minimum:"1"`
}

func (a *API) rolloutOf(p *operator.Progress) rolloutBody {
	r := &p.Rollout
	out := rolloutBody{
		ID: r.ID, Number: int(r.Number), Product: r.Product, Of: r.Of, Plan: planOf(&r.Plan), Forced: r.Forced, Approvals: make([]rolloutApproval, len(r.Approvals)),
		CreatedBy: rolloutPerson(r.CreatedBy), CreatedAt: stamp(r.Created), EditedBy: rolloutPerson(r.EditedBy), StartedAt: stampOrNull(r.Started), EndedAt: stampOrNull(r.Ended),
		Progress: RolloutProgressOf(p),
		RolloutText: RolloutText{
			Name: r.Name, Release: r.Release, Rollback: r.Rollback, Q: r.Query, Membership: string(r.Membership), Seed: r.Seed,
			MinApprovals: r.MinApprovals, Supersede: string(r.Supersede), Downgrade: r.Downgrade, Note: r.Note,
		},
	}
	if r.StartAt != 0 {
		out.StartAt = stamp(r.StartAt)
	}
	if r.StartedBy.ID != "" {
		by := rolloutPerson(r.StartedBy)
		out.StartedBy = &by
	}
	for i, x := range r.Approvals {
		out.Approvals[i] = rolloutApproval{rolloutPerson(x.By), stamp(x.At), x.Note, a.Accounts.May(x.By.ID, accounts.FirmwareWrite)}
	}
	return out
}

// rolloutTag is the tag of what people wrote on a rollout, and did to it: counts do not matter.
func rolloutTag(r rollout.Rollout) string {
	record := r.Record
	record.Forgiven, record.Replacing, record.Started, record.Ended, record.Telemetry = nil, false, 0, 0, ""
	return tagOf([]any{r.Name, r.Release, r.Rollback, r.Query, r.Membership, r.Seed, r.Plan, r.Status, r.Reason, r.StartAt, r.Phase, record})
}

// personOf is who asks, and whether it is a person: a key acts for the user who owns it.
func (a *API) personOf(ctx context.Context) (rollout.Person, bool) {
	who := a.asking(ctx)
	return rollout.Person{ID: cmp.Or(who.User, who.ID), Name: who.Name}, who.User != ""
}

// rolloutAnswer shows one, as a document.
func (a *API) rolloutAnswer(ctx context.Context, r rollout.Rollout, err error) (*body[rolloutBody], error) {
	if err != nil {
		return nil, err
	}
	p := operator.ProgressOf(r)
	documented(ctx, rolloutTag(r))
	return &body[rolloutBody]{a.rolloutOf(&p)}, nil
}

func parseStart(text string) (muster.Micros, error) {
	if text == "" {
		return 0, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() < 2000 || t.Year() > 2200 {
		return 0, muster.InvalidAt("start_at", "start_at is a time such as 2026-03-01T08:30:00Z")
	}
	return muster.MicrosOf(t), nil
}

// spec reads what a new rollout is to be, over the default plan.
func (n *newRollout) spec() (operator.Spec, error) {
	s := operator.Spec{
		Name: n.Name, Release: n.Release, Rollback: n.Rollback, Query: n.Q, Membership: rollout.Membership(cmp.Or(n.Membership, string(rollout.Snapshot))), Seed: n.Seed,
		Plan: rollout.DefaultPlan(), MinApprovals: n.MinApprovals, Supersede: rollout.Supersede(cmp.Or(n.Supersede, string(rollout.Wait))), Downgrade: n.Downgrade, Note: n.Note, Start: n.Start,
	}
	var err error
	if s.StartAt, err = parseStart(n.StartAt); err != nil {
		return s, err
	}
	change, err := n.Plan.change()
	if err == nil {
		change(&s.Plan)
	}
	return s, err
}

func (c *changedRollout) read() (operator.Change, error) {
	out := operator.Change{Name: c.Name, Release: c.Release, Rollback: c.Rollback, Query: c.Q, Seed: c.Seed, MinApprovals: c.MinApprovals, Downgrade: c.Downgrade, Note: c.Note}
	out.Membership, out.Supersede = (*rollout.Membership)(c.Membership), (*rollout.Supersede)(c.Supersede)
	if c.StartAt != nil {
		at, err := parseStart(*c.StartAt)
		if err != nil {
			return out, err
		}
		out.StartAt = &at
	}
	if c.Plan == nil {
		return out, nil
	}
	var err error
	out.Plan, err = c.Plan.change()
	return out, err
}

// madeRollout is the answer to who makes a rollout.
type madeRollout struct {
	Location string `header:"Location"`
	Body     rolloutBody
}

func (a *API) madeRollout(ctx context.Context, r rollout.Rollout, err error) (*madeRollout, error) {
	shown, err := a.rolloutAnswer(ctx, r, err)
	if err != nil {
		return nil, err
	}
	return &madeRollout{prefix + "/rollouts/" + r.ID, shown.Body}, nil
}

func (a *API) rolloutRoutes() {
	tags := []string{"rollouts"}
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-rollouts", Method: http.MethodGet, Path: "/rollouts", Tags: tags, Summary: "List rollouts, newest first",
	}, a.listRollouts)
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "create-rollout", Method: http.MethodPost, Path: "/rollouts", DefaultStatus: http.StatusCreated, Tags: tags, MaxBodyBytes: rolloutBytes,
		Summary:     "Write a rollout, and start it with start",
		Description: "A draft has no devices: those that match are found when it is started. At most 1,000,000 devices match.", Errors: []int{404, 409},
	}, a.createRollout)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-rollout", Method: http.MethodGet, Path: "/rollouts/{rollout}", Tags: tags, Summary: "Get a rollout, and how far it is", Errors: []int{404},
	}, a.getRollout)
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "change-rollout", Method: http.MethodPatch, Path: "/rollouts/{rollout}", Tags: tags, MaxBodyBytes: rolloutBytes, Summary: "Change a rollout",
		Description: "What is absent stays. A draft can be changed in all; of one that was started, or is scheduled, only concurrent, per_minute and windows of the plan change. What changes before it began takes back what people agreed to: approvals is empty then, and one that needs them is held at its time.",
		Errors:      []int{404, 409},
	}, func(ctx context.Context, in *struct {
		RolloutPath
		Conditions
		Body changedRollout
	},
	) (*body[rolloutBody], error) {
		change, err := in.Body.read()
		if err != nil {
			return nil, err
		}
		if ctx, err = bound(ctx, in.Conditions, rolloutTag); err != nil {
			return nil, err
		}
		by, _ := a.personOf(ctx)
		r, err := a.Rollouts.Edit(ctx, by, in.Rollout, change)
		return a.rolloutAnswer(ctx, r, err)
	})
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "delete-rollout", Method: http.MethodDelete, Path: "/rollouts/{rollout}", Tags: tags, Summary: "Delete a draft",
		Description: "What was started is kept.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		RolloutPath
		Conditions
	},
	) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, rolloutTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Rollouts.Delete(ctx, in.Rollout)
	})
	a.rolloutVerbs()
	a.rolloutDeviceRoutes()
}

// rolloutBytes is the largest body of a rollout: 32 queries and more.
const rolloutBytes = 256 << 10

func (a *API) listRollouts(ctx context.Context, in *struct {
	Status  string `query:"status" enum:"draft,scheduled,running,paused,completed,aborted" doc:"Only those in this status"`
	Release string `query:"release" maxLength:"64" doc:"Only those of this release"`
	After
},
) (*body[page[rolloutBody]], error) {
	before, err := parseNumber(in.After.After)
	if err != nil || before > rollout.MaxNumber {
		return nil, errCursor()
	}
	found, err := a.Rollouts.Read().Rollouts(ctx, operator.Query{Status: rollout.Status(in.Status), Release: in.Release, Before: int32(before), Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	found, next := paged(found, in.Limit, func(r *rollout.Rollout) string { return idOrEmpty(int64(r.Number)) })
	items := make([]rolloutBody, len(found))
	for i := range found {
		p := operator.ProgressOf(found[i])
		items[i] = a.rolloutOf(&p)
	}
	return list(items, next), nil
}

func (a *API) createRollout(ctx context.Context, in *body[newRollout]) (*madeRollout, error) {
	spec, err := in.Body.spec()
	if err != nil {
		return nil, err
	}
	by, _ := a.personOf(ctx)
	r, err := a.Rollouts.Create(ctx, by, spec)
	return a.madeRollout(ctx, r, err)
}

// shownReasons is how many reasons one rollout shows.
const shownReasons = 20

func (a *API) getRollout(ctx context.Context, in *RolloutPath) (*body[rolloutBody], error) {
	p, err := a.Rollouts.Progress(ctx, in.Rollout)
	if err != nil {
		return nil, err
	}
	reasons, err := a.Rollouts.Read().RolloutReasons(ctx, in.Rollout, shownReasons)
	if err != nil {
		return nil, err
	}
	out := a.rolloutOf(&p)
	for _, n := range reasons {
		out.Reasons = append(out.Reasons, rolloutReason{n.State, string(n.Reason), n.Devices})
	}
	documented(ctx, rolloutTag(p.Rollout))
	return &body[rolloutBody]{out}, nil
}
