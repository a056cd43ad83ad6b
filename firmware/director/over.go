package director

import (
	"context"
	"fmt"

	"muster"
	"muster/firmware/rollout"
)

// outcome is what came of a report at actions that are over.
type outcome struct {
	alone bool  // it is about these alone, and no news of what is in flight
	err   error // of one that is
	had   *had  // whose release the version is of that it names; nil for none
}

// had is a release that a device has, of an action that is over.
type had struct {
	of    *rollout.Rollout
	since muster.Micros // when that was first heard
}

// nothingOfIt says whether a report was refused for good.
func nothingOfIt(err error) bool {
	kind := muster.KindOf(err)
	return kind == muster.NotFound || kind == muster.Conflict || kind == muster.Stale
}

// spares says whether another version is nothing against what is in flight at a device: it is what the device got of an
// action before, after this one had come as far as it is.
func (d *Director) spares(dev *rollout.Device, h *had) bool {
	return h != nil && dev.State.InFlight() && h.since >= dev.Updated && !d.fleet.Is(h.of, dev.From)
}

// over applies the reports that look picks to actions of their devices that are over, where they are news of
// those: see rollout.After. All else costs no write, and is NotFound where nothing is in flight.
func (d *Director) over(ctx context.Context, list []Report, where map[muster.DeviceID]string, look func(i int) bool) []outcome {
	out := make([]outcome, len(list))
	var some []Report
	var at []int
	for i := range list {
		if look(i) {
			some, at = append(some, list[i]), append(at, i)
		}
	}
	if len(some) == 0 {
		return out
	}
	actions, err := d.store.Actions(ctx, idsOf(some))
	lots := grouped{}
	for i, k := range at {
		p := &some[i]
		if err != nil {
			out[k] = outcome{alone: true, err: fmt.Errorf("look for what a device was offered: %w", err)}
			continue
		}
		out[k] = d.match(ctx, actions[p.Device], where[p.Device], p, func(id string, p Report) { lots.add(id, said{Report: p, at: k}) })
	}
	d.each(ctx, &lots, func(x *said, err error) {
		switch o := &out[x.at]; {
		case err == nil && o.alone:
			o.err = nil
		case err != nil && !nothingOfIt(err): // it is to be said again
			o.alone, o.err = true, err
		case err != nil && o.err != nil:
			o.err = err
		}
	})
	return out
}

// match finds the actions that are over and that a report of their device is news of, and adds it to their
// rollouts. where is the rollout that has the device in flight; empty for none.
func (d *Director) match(ctx context.Context, actions []Action, where string, p *Report, add func(id string, p Report)) outcome {
	o := outcome{alone: where == "", err: errNotOffered()}
	first, named := firstOver(actions, where), false
	if a := numbered(actions, where, p.Fact.Action); a != nil {
		first, named = a, true
	}
	if first != nil && (named || where == "") { // else it is about what is in flight
		switch late, ok, err := d.follow(ctx, first, p); {
		case err != nil:
			return outcome{alone: true, err: err}
		case ok && late != first.Late:
			add(first.Rollout, *p)
			o.alone = true
		case ok:
			o.alone, o.err = true, nil // it is known
		}
	}
	if !p.names() || named {
		return o
	}
	return d.runs(ctx, actions, where, first, p, o, add)
}

// runs finds the newest action that is over and whose release a version is of. first has heard the report already
// where nothing is in flight.
func (d *Director) runs(ctx context.Context, actions []Action, where string, first *Action, p *Report, o outcome, add func(id string, p Report)) outcome {
	bare := *p
	bare.Fact = rollout.Fact{Detail: p.Fact.Detail}
	for i := range actions {
		a := &actions[i]
		if a.Rollout == where || flying(actions, where, a.Release) {
			continue
		}
		r := &rollout.Rollout{ID: a.Rollout, Release: a.Release, Product: a.Product}
		late, is, err := d.installed(ctx, a, r, &bare)
		switch {
		case err != nil:
			return outcome{alone: true, err: err}
		case !is:
			continue
		case where == "" && a == first:
			return o
		case late == a.Late:
			o.had = &had{r, a.Updated}
			if where == "" {
				o.err = nil
			}
		default:
			o.had = &had{r, d.micros()}
			add(a.Rollout, bare)
		}
		return o
	}
	return o
}

// firstOver returns the newest action of a device that is not in flight; nil for none.
func firstOver(actions []Action, where string) *Action {
	for i := range actions {
		if actions[i].Rollout != where {
			return &actions[i]
		}
	}
	return nil
}

// numbered returns the action of a number, if it is not in the rollout that has the device in flight; nil for none.
func numbered(actions []Action, where string, number int32) *Action {
	for i := range actions {
		if a := &actions[i]; number != 0 && a.Number == number && a.Rollout != where {
			return a
		}
	}
	return nil
}

// flying says whether a release is the one in flight.
func flying(actions []Action, where, release string) bool {
	for i := range actions {
		if actions[i].Rollout == where {
			return actions[i].Release == release
		}
	}
	return false
}

// installed says whether a version is that of an action's release, and what is known then of what the device did late.
func (d *Director) installed(ctx context.Context, a *Action, r *rollout.Rollout, p *Report) (late rollout.Late, is bool, err error) {
	late, is = rollout.Follows(a.State, a.Retries, a.Late, rollout.SeesTarget)
	if !is {
		return "", false, nil
	}
	if err := d.o.Prepare(ctx, a.Rollout); err != nil {
		return "", false, fmt.Errorf("look up the release of rollout %s: %w", a.Rollout, err)
	}
	f, err := d.fact(r, p)
	return late, err == nil && f.Event == rollout.SeesTarget, nil
}

// follow is rollout.Follows for an action of a device, as far as can be known without a transaction.
func (d *Director) follow(ctx context.Context, a *Action, p *Report) (late rollout.Late, ok bool, err error) {
	if _, ever := rollout.Follows(a.State, a.Retries, "", rollout.SeesTarget); !ever { // it is not followed
		return "", false, nil
	}
	if err := d.o.Prepare(ctx, a.Rollout); err != nil {
		return "", false, fmt.Errorf("look up the release of rollout %s: %w", a.Rollout, err)
	}
	f, err := d.fact(&rollout.Rollout{ID: a.Rollout, Release: a.Release, Product: a.Product}, p)
	if err != nil {
		return "", false, nil //nolint:nilerr // it names no version, or one of what is not known any more
	}
	late, ok = rollout.Follows(a.State, a.Retries, a.Late, f.Event)
	return late, ok || rollout.Known(a.State, a.Retries, f.Event), nil
}
