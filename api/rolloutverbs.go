package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

type resumedRollout struct {
	SkipPhase bool `json:"skip_phase,omitempty" doc:"Begin the next phase though this one has not succeeded"`
}

type abortedRollout struct {
	Force bool `json:"force,omitempty" doc:"Devices that install count as canceled too; what they report later is noted apart, as late"`
}

type agreedRollout struct {
	Note string `json:"note,omitempty" maxLength:"2000"`
}

type rollbackRollout struct {
	Name         string       `json:"name,omitempty" maxLength:"100" doc:"Made of the other's when absent"`
	Release      string       `json:"release,omitempty" maxLength:"64" doc:"Id of the release to go back to; what the other says when absent"`
	Plan         *rolloutPlan `json:"plan,omitempty" doc:"What is absent is as in the other's plan"`
	MinApprovals int          `json:"min_approvals,omitempty" minimum:"0" maximum:"16" doc:"1 or more where the release has a lower security version"`
	Note         string       `json:"note,omitempty" maxLength:"2000"`
	Start        bool         `json:"start,omitempty" doc:"Start it at once, instead of a draft"`
}

// verb registers an operation that does something to a rollout and answers with it. Its body may be left out.
func verb[B any](a *API, id, name, summary, description string, do func(ctx context.Context, rollout string, b *B) (rollout.Rollout, error)) {
	op := huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: "/rollouts/{rollout}/" + name, Tags: []string{"rollouts"}, Summary: summary, Description: description, Errors: []int{404, 409},
	}
	route(a, accounts.FirmwareWrite, op, func(ctx context.Context, in *struct {
		RolloutPath
		Conditions
		Body *B
	},
	) (*body[rolloutBody], error) {
		ctx, err := bound(ctx, in.Conditions, rolloutTag)
		if err != nil {
			return nil, err
		}
		given := in.Body
		if given == nil {
			given = new(B)
		}
		r, err := do(ctx, in.Rollout, given)
		return a.rolloutAnswer(ctx, r, err)
	})
}

// bareVerb is verb without a body.
func bareVerb(a *API, id, name, summary, description string, do func(ctx context.Context, rollout string) (rollout.Rollout, error)) {
	op := huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: "/rollouts/{rollout}/" + name, Tags: []string{"rollouts"}, Summary: summary, Description: description, Errors: []int{404, 409},
	}
	route(a, accounts.FirmwareWrite, op, func(ctx context.Context, in *struct {
		RolloutPath
		Conditions
	},
	) (*body[rolloutBody], error) {
		ctx, err := bound(ctx, in.Conditions, rolloutTag)
		if err != nil {
			return nil, err
		}
		r, err := do(ctx, in.Rollout)
		return a.rolloutAnswer(ctx, r, err)
	})
}

func (a *API) rolloutVerbs() {
	bareVerb(a, "start-rollout", "start", "Start a draft", "The devices that match now are found. The release must be one that may be offered, and enough people must have agreed.",
		func(ctx context.Context, id string) (rollout.Rollout, error) {
			by, _ := a.personOf(ctx)
			return a.Rollouts.Start(ctx, by, id)
		})
	bareVerb(a, "pause-rollout", "pause", "Offer nothing more until the rollout is resumed", "What was offered and does not install yet is taken back within a second.",
		func(ctx context.Context, id string) (rollout.Rollout, error) { return a.Rollouts.Pause(ctx, id) })
	verb(a, "resume-rollout", "resume", "Go on with a paused rollout", "In spite of what paused it: failures of phases that have too many are not counted again.",
		func(ctx context.Context, id string, b *resumedRollout) (rollout.Rollout, error) {
			return a.Rollouts.Resume(ctx, id, b.SkipPhase)
		})
	verb(a, "abort-rollout", "abort", "End a rollout for good",
		"Nothing more is offered, and what does not install yet is taken back within a second. Devices that install are waited for, unless force gives them up too, which may be said later.",
		func(ctx context.Context, id string, b *abortedRollout) (rollout.Rollout, error) {
			return a.Rollouts.Abort(ctx, id, b.Force)
		})
	bareVerb(a, "approve-rollout", "approve", "Let the next phase begin at a manual gate", "409 where none waits.",
		func(ctx context.Context, id string) (rollout.Rollout, error) { return a.Rollouts.Approve(ctx, id) })
	verb(a, "agree-to-rollout", "approvals", "Agree to a rollout that did not begin yet, as a second person", "It needs a user, or a key that a user owns, who neither made nor wrote it. Who changes the rollout takes it back. One that is scheduled and held for it begins.",
		func(ctx context.Context, id string, b *agreedRollout) (rollout.Rollout, error) {
			by, person := a.personOf(ctx)
			if !person {
				return rollout.Rollout{}, muster.Errorf(muster.Forbidden, "this needs a user: an API key that no user owns is no second person")
			}
			return a.Rollouts.Agree(ctx, by, id, b.Note)
		})
	bareVerb(a, "supersede-rollout", "supersede", "Take the rollout's devices from older rollouts of the product",
		"Those skip, as superseded, the devices that do not install yet. Where this is new to a rollout that did not begin yet it takes back what people agreed to.",
		func(ctx context.Context, id string) (rollout.Rollout, error) {
			by, _ := a.personOf(ctx)
			return a.Rollouts.Supersede(ctx, by, id)
		})
	a.rollbackRoute()
}

func (a *API) rollbackRoute() {
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "rollback-rollout", Method: http.MethodPost, Path: "/rollouts/{rollout}/rollback", DefaultStatus: http.StatusCreated, Tags: []string{"rollouts"}, MaxBodyBytes: rolloutBytes,
		Summary:     "Make a rollout of the release that devices had before",
		Description: "For the devices that have, or install, the release of this one, which must be paused or over. It is a downgrade. To a release of a lower security version it starts only when another person has agreed: make it with min_approvals. It may be made more than once, for who got the release late.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		RolloutPath
		Body *rollbackRollout
	},
	) (*madeRollout, error) {
		b := in.Body
		if b == nil {
			b = &rollbackRollout{}
		}
		s := operator.Spec{Name: b.Name, Release: b.Release, MinApprovals: b.MinApprovals, Note: b.Note, Start: b.Start, Supersede: rollout.Wait}
		if b.Plan != nil {
			old, err := a.Rollouts.Read().Rollout(ctx, in.Rollout)
			if err != nil {
				return nil, err
			}
			change, err := b.Plan.change()
			if err != nil {
				return nil, err
			}
			s.Plan = old.Plan
			change(&s.Plan)
		}
		by, _ := a.personOf(ctx)
		r, err := a.Rollouts.Rollback(ctx, by, in.Rollout, s)
		return a.madeRollout(ctx, r, err)
	})
}
