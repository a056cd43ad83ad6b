package operator

import (
	"context"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/internal/precondition"
)

// decide does a verb to a rollout, in one transaction with its record and its events, and
// returns what became of it. do says whether it changed anything.
func (o *Operator) decide(ctx context.Context, id, action string, do func(r *rollout.Rollout) (bool, error)) (rollout.Rollout, error) {
	ctx, now := feed.With(ctx), o.now()
	err := o.p.Store.Decide(ctx, id, director.Fence{}, now, director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		return nil, o.apply(ctx, r, action, now, do)
	})
	if err != nil {
		return rollout.Rollout{}, err //nolint:wrapcheck // the store says what it was doing
	}
	o.changed(id)
	return o.Rollout(ctx, id)
}

// apply does a verb in a transaction.
func (o *Operator) apply(ctx context.Context, r *rollout.Rollout, action string, now muster.Micros, do func(r *rollout.Rollout) (bool, error)) error {
	if err := precondition.Check(ctx, *r); err != nil {
		return err //nolint:wrapcheck // the condition's own words
	}
	before, was := stateOf(r), ViewOf(r)
	changed, err := do(r)
	switch {
	case err != nil:
		return err
	case !changed:
		audit.Nothing(ctx)
		return nil
	}
	feed.Note(ctx, events(before, r, now)...)
	audit.Note(ctx, action, objectOf(r.ID), was, ViewOf(r))
	return nil
}

// Agree notes that a second person agrees to a rollout that did not begin yet: see rollout.Agree. One that was
// held for it begins within a second. Forbidden when nobody knows who the first person is.
func (o *Operator) Agree(ctx context.Context, by rollout.Person, id, note string) (rollout.Rollout, error) {
	if !isText(note, MaxNote) {
		return rollout.Rollout{}, muster.InvalidAt("note", "a note has at most %d bytes of plain text", MaxNote)
	}
	return o.decide(ctx, id, "rollout.agree", func(r *rollout.Rollout) (bool, error) {
		if err := o.o.Quorum.Written(r, muster.Forbidden); err != nil {
			return false, err //nolint:wrapcheck // its own words
		}
		return true, r.Agree(by, note, o.o.Quorum, o.now())
	})
}

// Start has a draft run, or wait for its time, with the devices that match now. Conflict when
// it is no draft, not enough people have agreed, the release may not be offered, or no device
// matches; Stale when it is changed meanwhile.
func (o *Operator) Start(ctx context.Context, by rollout.Person, id string) (rollout.Rollout, error) {
	seen, err := o.Rollout(ctx, id)
	if err != nil {
		return seen, err
	}
	begun := seen
	devices, err := o.begin(ctx, &begun, by)
	if err != nil {
		return seen, err
	}
	ctx = feed.With(ctx)
	err = o.p.Store.EnlistRollout(ctx, id, devices, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		now := o.now()
		return nil, o.apply(ctx, r, "rollout.start", now, func(r *rollout.Rollout) (bool, error) {
			if r.Version != seen.Version {
				return false, muster.Errorf(muster.Stale, "it was changed meanwhile: get it again")
			}
			r.Upto, r.Counts, r.Replacing = begun.Upto, begun.Counts, begun.Replacing
			return true, r.Start(by, o.o.Quorum, now)
		})
	})
	if err != nil {
		return seen, err //nolint:wrapcheck // the store says what it was doing
	}
	return o.after(ctx, &seen)
}

// after returns a rollout that was just made or started, once it has taken devices from older ones
// where it is to. What of that fails is done by Tick.
func (o *Operator) after(ctx context.Context, r *rollout.Rollout) (rollout.Rollout, error) {
	o.changed(r.ID)
	now, err := o.Rollout(ctx, r.ID)
	if err != nil || !now.Replacing || now.Status != rollout.Running {
		return now, err
	}
	if err := o.replace(ctx, &now); err != nil {
		return now, nil //nolint:nilerr // it was started, and Tick goes on
	}
	return o.Rollout(ctx, r.ID)
}

// Pause stops a rollout until it is resumed: see rollout.Pause. When it returns nothing is
// offered any more; what was offered is taken back by the director.
func (o *Operator) Pause(ctx context.Context, id string) (rollout.Rollout, error) {
	return o.decide(ctx, id, "rollout.pause", (*rollout.Rollout).Pause)
}

// Resume has a paused rollout go on: see rollout.Resume. Conflict too when the release may not be
// offered any more, and, before it began, when none begins with it or too few people have agreed.
func (o *Operator) Resume(ctx context.Context, id string, skip bool) (rollout.Rollout, error) {
	seen, err := o.Rollout(ctx, id)
	if err != nil {
		return seen, err
	}
	may := o.p.Releases.Offerable
	if seen.Started == 0 {
		may = o.p.Releases.Startable
	}
	if err := may(ctx, seen.Release); err != nil {
		return seen, err //nolint:wrapcheck // the catalogue says why
	}
	return o.decide(ctx, id, "rollout.resume", func(r *rollout.Rollout) (bool, error) { return r.Resume(skip, o.o.Quorum, o.now()) })
}

// Abort ends a rollout for good: see rollout.Abort. When it returns nothing is offered any
// more; what was offered is taken back by the director.
func (o *Operator) Abort(ctx context.Context, id string, force bool) (rollout.Rollout, error) {
	return o.decide(ctx, id, "rollout.abort", func(r *rollout.Rollout) (bool, error) { return r.Abort(force, rollout.ByOperator, o.now()) })
}

// Approve lets the next phase begin at a manual gate. Conflict where none waits.
func (o *Operator) Approve(ctx context.Context, id string) (rollout.Rollout, error) {
	return o.decide(ctx, id, "rollout.approve", func(r *rollout.Rollout) (bool, error) { return true, r.Approve(o.now()) })
}
