package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

const (
	replaceBatch = 1000 // devices in one transaction
	mostOlder    = 1000 // rollouts of one product that are open at a time and looked at
)

// Supersede has a rollout take its devices from older rollouts of the same product: these skip
// those that have not begun to install, with the reason superseded. What fails of that after it is
// noted is done by Tick. What people had agreed to is agreed to no more when this is new to a rollout that did not
// begin yet. Conflict for a draft, and for a rollout that has ended.
func (o *Operator) Supersede(ctx context.Context, by rollout.Person, id string) (rollout.Rollout, error) {
	r, err := o.decide(ctx, id, "rollout.supersede", func(r *rollout.Rollout) (bool, error) {
		if r.Status == rollout.Draft || r.Status.Ended() {
			return false, muster.Errorf(muster.Conflict, "the rollout is %s", r.Status)
		}
		if r.Supersede != rollout.Replace {
			r.Rewritten(by)
		}
		r.Supersede, r.Replacing = rollout.Replace, true
		return true, nil
	})
	if err != nil {
		return r, err
	}
	return o.after(ctx, &r)
}

// Tick goes on with what a verb began and could not end: devices that are taken from older
// rollouts. Call it each second with the rollouts that are open.
func (o *Operator) Tick(ctx context.Context, open []rollout.Rollout) error {
	var errs []error
	for i := range open {
		if open[i].Status == rollout.Running && open[i].Replacing {
			errs = append(errs, o.replace(ctx, &open[i]))
		}
	}
	return errors.Join(errs...)
}

// replace takes the devices of r from older rollouts.
func (o *Operator) replace(ctx context.Context, r *rollout.Rollout) error {
	older, err := o.p.Reader.OlderRollouts(ctx, r.Product, r.Number, mostOlder)
	if err != nil {
		return fmt.Errorf("look for what rollout %s supersedes: %w", r.ID, err)
	}
	for i := range older {
		if older[i].Status == rollout.Draft {
			continue
		}
		if err := o.takeFrom(ctx, older[i].ID, r.ID); err != nil {
			return fmt.Errorf("supersede rollout %s: %w", older[i].ID, err)
		}
	}
	err = o.notes.Decide(ctx, r.ID, director.Fence{}, o.now(), director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		r.Replacing = false
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("end the succession of rollout %s: %w", r.ID, err)
	}
	return nil
}

// takeFrom has an older rollout skip the devices of a newer one.
func (o *Operator) takeFrom(ctx context.Context, older, newer string) error {
	for {
		ids, err := o.p.Reader.Overlap(ctx, older, newer, replaceBatch)
		if err != nil || len(ids) == 0 {
			return err //nolint:wrapcheck // replace says what was done
		}
		var changes []rollout.Change
		now := o.now()
		err = o.notes.Decide(ctx, older, director.Fence{}, now, director.Select{IDs: ids}, func(r *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
			changes = changes[:0]
			for _, d := range list {
				if c, err := rollout.Step(r, d, rollout.Fact{Event: rollout.Replaced}, now); err == nil { // else it has begun to install
					changes = append(changes, c)
				}
			}
			return changes, nil
		})
		if err != nil {
			return err //nolint:wrapcheck // replace says what was done
		}
		o.changed(older)
		o.o.Told(older, changes)
	}
}

// TakeBack adds to a rollback that is under way the devices that got the release since it was started: they
// were given up, and installed it all the same. It does nothing to any other rollout.
func (o *Operator) TakeBack(ctx context.Context, r *rollout.Rollout) error {
	if r.Of == "" || r.Status == rollout.Draft || r.Status.Ended() {
		return nil
	}
	ids, err := o.members(ctx, r)
	if err != nil {
		return fmt.Errorf("look for what rollback %s is to take along: %w", r.ID, err)
	}
	here, err := o.p.Store.RolloutDevices(ctx, r.ID)
	if err != nil {
		return fmt.Errorf("look for what rollback %s has: %w", r.ID, err)
	}
	var joiners []rollout.Device
	for _, id := range ids {
		if _, is := here[id]; !is {
			d := rollout.Device{Rollout: r.ID, ID: id, Rank: rollout.Rank(r.Seed, id), Updated: o.now()}
			d.Phase = r.Plan.Place(rollout.Member{Rank: d.Rank, Matches: func(q string) bool { return o.p.Fleet.Matches(q, id) }}, r.Upto)
			joiners = append(joiners, d)
		}
	}
	if len(joiners) == 0 {
		return nil
	}
	if _, err := o.p.Store.JoinRollout(ctx, r.ID, joiners); err != nil {
		return fmt.Errorf("have rollback %s take devices along: %w", r.ID, err)
	}
	o.changed(r.ID)
	return nil
}

// Rollback makes a rollout of the release that devices had before, for those that got, or are
// getting, the release of rollout id. What s leaves empty is as there: the release is
// its Rollback, the plan its own, and it is a downgrade. It may be done more than once: who got the release since an
// earlier one was through with it is in the next. Conflict while that rollout runs, is to run, or never did.
func (o *Operator) Rollback(ctx context.Context, by rollout.Person, id string, s Spec) (rollout.Rollout, error) {
	r, err := o.Rollout(ctx, id)
	if err != nil {
		return r, err
	}
	if r.Status != rollout.Paused && !r.Status.Ended() || r.Started == 0 {
		return r, muster.Errorf(muster.Conflict, "the rollout is %s: pause or abort it first, or both would go on", r.Status)
	}
	s.Of, s.Query, s.Membership, s.Downgrade = id, "", rollout.Snapshot, true
	if s.Release == "" {
		s.Release = r.Rollback
	}
	if s.Release == "" {
		return r, muster.InvalidAt("release", "the rollout does not say which release devices had before: name it")
	}
	if s.Name == "" {
		s.Name = "Rollback of " + r.Name
		s.Name = strings.ToValidUTF8(s.Name[:min(len(s.Name), MaxName)], "")
	}
	if len(s.Plan.Phases) == 0 {
		s.Plan = r.Plan
	}
	return o.Create(ctx, by, s)
}
