package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"muster"
	"muster/client"
)

// rolloutCmd is muster rollout.
type rolloutCmd struct {
	List    rolloutList    `cmd:"" help:"List rollouts, newest first."`
	Show    rolloutShow    `cmd:"" help:"Show a rollout: how far each phase is, and why devices failed."`
	Create  rolloutCreate  `cmd:"" help:"Write a rollout: a draft, unless --start is given."`
	Start   rolloutStart   `cmd:"" help:"Start a draft."`
	Pause   rolloutPause   `cmd:"" help:"Offer nothing more until the rollout is resumed."`
	Resume  rolloutResume  `cmd:"" help:"Go on with a paused rollout."`
	Abort   rolloutAbort   `cmd:"" help:"End a rollout for good."`
	Approve rolloutApprove `cmd:"" help:"Let the next phase begin at a manual gate."`
	Agree   rolloutAgree   `cmd:"" help:"Agree to a rollout that did not begin yet, as a second person."`
	Replace rolloutReplace `cmd:"" name:"supersede" help:"Take devices from older rollouts of the product."`
	Return  rolloutReturn  `cmd:"" name:"rollback" help:"Make a rollout of the release that the devices had before."`
	Why     rolloutWhy     `cmd:"" help:"Say why a device does, or does not, get a rollout's release."`
	Log     rolloutLog     `cmd:"" help:"List the changes of devices' states, oldest first."`
}

// rolloutOne is what verbs on one rollout have in common.
type rolloutOne struct {
	remote
	ID string `arg:"" help:"The rollout's id, rol_..."`
}

// answer prints what became of a rollout.
func (r *rolloutOne) answer(c *console, x *client.RolloutBody, err error) error {
	if err != nil {
		return r.refused(err)
	}
	return r.print(c, x, func(row func(...any)) {
		row("ID", x.ID)
		row("STATUS", statusOf(&x.Progress))
	})
}

// statusOf is a rollout's status with its reason.
func statusOf(p *client.RolloutProgress) string {
	switch {
	case p.Reason != nil && *p.Reason != "":
		return p.Status + ": " + *p.Reason
	case p.Waiting:
		return p.Status + ": waits for an approval"
	default:
		return p.Status
	}
}

type rolloutList struct {
	remote
	Status string `help:"Only those in this status: draft, scheduled, running, paused, completed or aborted." placeholder:"STATUS"`
	Limit  int64  `default:"100" help:"The most rollouts, up to 1000."`
}

// Run lists rollouts.
func (r *rolloutList) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	page, err := api.ListRollouts(ctx, &client.ListRolloutsParams{Status: r.Status, Limit: r.Limit})
	if err != nil {
		return r.refused(err)
	}
	return r.print(c, page.Items, func(row func(...any)) {
		row("ID", "NAME", "RELEASE", "STATUS", "PHASE", "DEVICES", "ENDED", "CREATED")
		for i := range page.Items {
			x := &page.Items[i]
			row(x.ID, x.Name, x.Release, statusOf(&x.Progress), fmt.Sprintf("%d/%d", x.Progress.Phase, len(x.Progress.Phases)), x.Progress.Devices, x.Progress.Ended, x.CreatedAt)
		}
	})
}

type rolloutShow struct{ rolloutOne }

// Run shows a rollout.
func (r *rolloutShow) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.GetRollout(ctx, r.ID)
	if err != nil {
		return r.refused(err)
	}
	return r.print(c, x, func(row func(...any)) {
		p := &x.Progress
		row("ID", x.ID)
		row("NAME", x.Name)
		row("RELEASE", x.Release+" of "+x.Product)
		row("DEVICES", x.Q)
		row("STATUS", statusOf(p))
		if x.Downgrade != nil && *x.Downgrade {
			row("DOWNGRADE", "devices that report a newer version get it too")
		}
		if p.Telemetry != nil && *p.Telemetry != "" {
			row("TELEMETRY", *p.Telemetry)
		}
		row("IN FLIGHT", fmt.Sprintf("%d of %d", p.InFlight, p.Concurrent))
		row("ENDED", fmt.Sprintf("%d of %d", p.Ended, p.Devices))
		for i := range p.Phases {
			ph := &p.Phases[i]
			now := ""
			if int64(i+1) == p.Phase {
				now = ", now"
			}
			row(fmt.Sprintf("PHASE %d", i+1), fmt.Sprintf("%s (%d devices%s) %s", ph.Name, ph.Devices, now, statesText(ph)))
		}
		for _, n := range x.Reasons {
			row("REASON", fmt.Sprintf("%s: %s (%d devices)", n.State, n.Reason, n.Devices))
		}
	})
}

// statesText is how many devices of a phase are in which state, in the order of the states.
func statesText(ph *client.RolloutPhaseProgress) string {
	var out []string
	for s := range strings.FieldsSeq("queued offered downloading downloaded installing rebooting confirmed failed rolled_back timed_out skipped canceled") {
		if n := ph.States[s]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", s, n))
		}
	}
	return strings.Join(out, ", ")
}

type rolloutCreate struct {
	remote
	Name       string `arg:"" help:"For people."`
	Release    string `required:"" help:"Id of the release." placeholder:"ID"`
	Query      string `required:"" help:"Which devices, such as group:cold-chain; id:* is all." placeholder:"QUERY"`
	Rollback   string `help:"Id of the release to go back to." placeholder:"ID"`
	Plan       string `help:"File with the plan as JSON, as docs/rollouts.md has it; 10 canaries, a tenth, all when absent." placeholder:"FILE" type:"existingfile"`
	Concurrent *int64 `help:"Devices in flight at a time, at most." placeholder:"N"`
	Dynamic    bool   `help:"Devices that match later join."`
	Replace    bool   `help:"Take devices from older rollouts of the product."`
	Downgrade  bool   `help:"Devices that report a newer version get the release too."`
	Approvals  *int64 `help:"How many people besides you must agree before it starts." placeholder:"N"`
	Start      bool   `help:"Start it at once."`
}

// maxPlan bounds a plan's file.
const maxPlan = 256 << 10

// plan reads the plan; nil for the server's own.
func (r *rolloutCreate) plan() (*client.RolloutPlan, error) {
	var plan client.RolloutPlan
	if r.Plan == "" && r.Concurrent == nil {
		return nil, nil //nolint:nilnil // the server has one
	}
	if r.Plan != "" {
		info, err := os.Stat(r.Plan)
		if err != nil {
			return nil, fmt.Errorf("look at the plan: %w", err)
		}
		if info.Size() > maxPlan {
			return nil, muster.Errorf(muster.TooLarge, "the plan has more than %d bytes", maxPlan)
		}
		text, err := os.ReadFile(r.Plan)
		if err != nil {
			return nil, fmt.Errorf("read the plan: %w", err)
		}
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.DisallowUnknownFields()
		if err := d.Decode(&plan); err != nil {
			return nil, muster.Errorf(muster.Invalid, "the plan in %s is not one: %w", r.Plan, err)
		}
	}
	if r.Concurrent != nil {
		plan.Concurrent = r.Concurrent
	}
	return &plan, nil
}

// Run makes a rollout.
func (r *rolloutCreate) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	plan, err := r.plan()
	if err != nil {
		return err
	}
	body := &client.NewRollout{
		Name: r.Name, Release: r.Release, Q: &r.Query, Rollback: given(r.Rollback), Plan: plan, MinApprovals: r.Approvals, Start: &r.Start,
	}
	if r.Dynamic {
		body.Membership = given("dynamic")
	}
	if r.Replace {
		body.Supersede = given("replace")
	}
	if r.Downgrade {
		body.Downgrade = &r.Downgrade
	}
	x, err := api.CreateRollout(ctx, body, nil)
	one := rolloutOne{remote: r.remote}
	return one.answer(c, x, err)
}

type rolloutStart struct{ rolloutOne }

// Run starts a rollout.
func (r *rolloutStart) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.StartRollout(ctx, r.ID, nil)
	return r.answer(c, x, err)
}

type rolloutPause struct{ rolloutOne }

// Run pauses a rollout.
func (r *rolloutPause) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.PauseRollout(ctx, r.ID, nil)
	return r.answer(c, x, err)
}

type rolloutResume struct {
	rolloutOne
	SkipPhase bool `help:"Begin the next phase though this one has not succeeded."`
}

// Run resumes a rollout.
func (r *rolloutResume) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.ResumeRollout(ctx, r.ID, &client.ResumedRollout{SkipPhase: &r.SkipPhase}, nil)
	return r.answer(c, x, err)
}

type rolloutAbort struct {
	rolloutOne
	Force bool `help:"Give up devices that install, too."`
}

// Run aborts a rollout.
func (r *rolloutAbort) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.AbortRollout(ctx, r.ID, &client.AbortedRollout{Force: &r.Force}, nil)
	return r.answer(c, x, err)
}

type rolloutApprove struct{ rolloutOne }

// Run lets the next phase begin.
func (r *rolloutApprove) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.ApproveRollout(ctx, r.ID, nil)
	return r.answer(c, x, err)
}

type rolloutAgree struct {
	rolloutOne
	Note string `help:"What to say of it." placeholder:"TEXT"`
}

// Run agrees to a draft.
func (r *rolloutAgree) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.AgreeToRollout(ctx, r.ID, &client.AgreedRollout{Note: given(r.Note)}, nil)
	return r.answer(c, x, err)
}

type rolloutReplace struct{ rolloutOne }

// Run has a rollout come before older ones.
func (r *rolloutReplace) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.SupersedeRollout(ctx, r.ID, nil)
	return r.answer(c, x, err)
}

type rolloutReturn struct {
	rolloutOne
	Release   string `help:"Id of the release to go back to; what the rollout says when left out." placeholder:"ID"`
	Approvals *int64 `help:"How many people besides you must agree before it starts: 1 or more where the release has a lower security version." placeholder:"N"`
	Start     bool   `help:"Start it at once."`
}

// Run goes back to the release of before.
func (r *rolloutReturn) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.RollbackRollout(ctx, r.ID, &client.RollbackRollout{Release: given(r.Release), MinApprovals: r.Approvals, Start: &r.Start}, nil)
	return r.answer(c, x, err)
}

type rolloutWhy struct {
	rolloutOne
	Device string `arg:"" help:"The device's id."`
}

// Run explains a device.
func (r *rolloutWhy) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	x, err := api.ExplainRolloutDevice(ctx, r.ID, r.Device)
	if err != nil {
		return r.refused(err)
	}
	if !r.JSON {
		c.printf("%s\n\n", shown(x.Words))
	}
	return r.print(c, x, func(row func(...any)) {
		for _, rule := range x.Rules {
			row(map[bool]string{true: "yes", false: "NO"}[rule.Holds], rule.Name, rule.Detail)
		}
	})
}

type rolloutLog struct {
	rolloutOne
	Device string `help:"Only of this device." placeholder:"ID"`
	Limit  int64  `default:"1000" help:"The most changes, up to 100,000."`
}

// Validate refuses a limit that is none.
func (r *rolloutLog) Validate() error {
	if r.Limit < 1 || r.Limit > maxListed {
		return errors.New("--limit is 1 to 100000")
	}
	return nil
}

// Run lists changes, page by page.
func (r *rolloutLog) Run(ctx context.Context, c *console) error {
	api, err := r.open()
	if err != nil {
		return err
	}
	q := client.ListRolloutLogParams{Device: r.Device}
	found, err := pages(r.Limit, func(limit int64, cursor string) ([]client.RolloutChange, *string, error) {
		q.Limit, q.After = limit, cursor
		page, err := api.ListRolloutLog(ctx, r.ID, &q)
		if err != nil {
			return nil, nil, err
		}
		return page.Items, page.Next, nil
	})
	if err != nil {
		return r.refused(err)
	}
	return r.print(c, found, func(row func(...any)) {
		row("AT", "DEVICE", "FROM", "TO", "EVENT", "REASON", "DETAIL")
		for i := range found {
			x := &found[i]
			row(x.At, x.Device, x.From, x.To, x.Event, x.Reason, x.Detail)
		}
	})
}
