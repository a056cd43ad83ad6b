package director

import (
	"context"
	"fmt"
	"slices"

	"muster"
	"muster/firmware/rollout"
)

// Report is what a device said, or was seen to be.
type Report struct {
	Device muster.DeviceID
	Fact   rollout.Fact
	// Version is one that the device reports, in the place of Fact's event: whether it is the
	// release's is decided where the release is known.
	Version string
	// Product is what the version is of, where the device says it: that of another product says nothing of
	// the release.
	Product string
	// Restarted says that who reports another version has restarted since it installed, of a door whose devices have no
	// word for that: ThingsBoard's UPDATED.
	Restarted bool

	seen bool     // the fleet knows the version
	of   []string // what the device named versions of, "" for its firmware; none for anything
}

// Reports applies reports in their order, many in one transaction for each rollout, and returns
// an error for each that was not taken: NotFound for a device that is in flight nowhere, and
// those of rollout.Step. What a device did after its newest offer was over is noted: see rollout.After.
// A failure of the store is every report's.
func (d *Director) Reports(ctx context.Context, list []Report) []error {
	errs := make([]error, len(list))
	ids := make([]muster.DeviceID, len(list))
	for i := range list {
		ids[i] = list[i].Device
	}
	where, err := d.store.InFlight(ctx, ids)
	if err != nil {
		for i := range errs {
			errs[i] = fmt.Errorf("look for a device's rollout: %w", err)
		}
		return errs
	}
	var rest []int
	lots := grouped{}
	for i := range list {
		if id, ok := where[list[i].Device]; ok {
			lots.add(id, i)
			continue
		}
		errs[i] = errNotOffered()
		rest = append(rest, i)
	}
	for _, id := range lots.order {
		d.reportsOf(ctx, id, list, lots.by[id], errs)
	}
	if len(rest) > 0 {
		d.late(ctx, list, rest, errs)
	}
	return errs
}

func errNotOffered() error {
	return muster.Errorf(muster.NotFound, "the device has no firmware offered")
}

// grouped are places of reports by rollout, in the order in which the rollouts came.
type grouped struct {
	by    map[string][]int
	order []string
}

func (g *grouped) add(id string, at int) {
	if g.by == nil {
		g.by = map[string][]int{}
	}
	if g.by[id] == nil {
		g.order = append(g.order, id)
	}
	g.by[id] = append(g.by[id], at)
}

// late applies what devices said at which nothing is in flight, where it is news of the newest that they
// were offered: see rollout.After. All else is NotFound, and costs no write.
func (d *Director) late(ctx context.Context, list []Report, at []int, errs []error) {
	ids := make([]muster.DeviceID, len(at))
	for i, k := range at {
		ids[i] = list[k].Device
	}
	last, err := d.store.LastActions(ctx, ids)
	if err != nil {
		for _, k := range at {
			errs[k] = fmt.Errorf("look for a device's last rollout: %w", err)
		}
		return
	}
	lots := grouped{}
	for _, k := range at {
		l, ok := last[list[k].Device]
		if !ok {
			continue
		}
		switch late, ok, err := d.follow(ctx, &l, &list[k]); {
		case err != nil:
			errs[k] = err
		case ok && late != l.Late:
			lots.add(l.Rollout, k)
		case ok:
			errs[k] = nil // it is known
		}
	}
	for _, id := range lots.order {
		d.reportsOf(ctx, id, list, lots.by[id], errs)
	}
}

// follow is rollout.Follows for the newest that a device was offered, as far as can be known without a
// transaction.
func (d *Director) follow(ctx context.Context, l *Last, p *Report) (late rollout.Late, ok bool, err error) {
	if _, ever := rollout.Follows(l.State, l.Retries, "", rollout.SeesTarget); !ever { // it is not followed
		return "", false, nil
	}
	if err := d.o.Prepare(ctx, l.Rollout); err != nil {
		return "", false, fmt.Errorf("look up the release of rollout %s: %w", l.Rollout, err)
	}
	f, err := d.fact(&rollout.Rollout{ID: l.Rollout, Release: l.Release, Product: l.Product}, p)
	if err != nil {
		return "", false, nil //nolint:nilerr // it names no version, or one of what is not known any more
	}
	late, ok = rollout.Follows(l.State, l.Retries, l.Late, f.Event)
	return late, ok || rollout.Known(l.State, l.Retries, f.Event), nil
}

// SeenReport is a report of a device that has just said which versions it has, which the fleet knows by now:
// those of some products, where "" is its firmware; of none given it may be any.
func SeenReport(device muster.DeviceID, of ...string) Report {
	return Report{Device: device, of: of, seen: true}
}

// hear applies a fact that a device reports: to what is in flight at it, else, also when a fact of the same
// group has just ended that, to what was.
func hear(r *rollout.Rollout, d *rollout.Device, f rollout.Fact, now muster.Micros) (rollout.Change, error) {
	if d.State.InFlight() {
		return rollout.Step(r, d, f, now) //nolint:wrapcheck // its own words
	}
	return rollout.After(r, d, f, now) //nolint:wrapcheck // likewise
}

// reportsOf applies the reports at some places to one rollout.
func (d *Director) reportsOf(ctx context.Context, id string, list []Report, at []int, errs []error) {
	ids, seen := make([]muster.DeviceID, 0, len(at)), map[muster.DeviceID]bool{}
	for _, i := range at {
		if dev := list[i].Device; !seen[dev] {
			seen[dev], ids = true, append(ids, dev)
		}
	}
	err := d.o.Prepare(ctx, id)
	if err != nil {
		err = fmt.Errorf("look up the release of rollout %s: %w", id, err)
	} else {
		err = d.apply(ctx, id, list, at, ids, errs)
	}
	if err != nil {
		for _, i := range at {
			errs[i] = err
		}
	}
}

// apply is reportsOf in a transaction, with the devices that the reports are about.
func (d *Director) apply(ctx context.Context, id string, list []Report, at []int, ids []muster.DeviceID, errs []error) error {
	_, _, err := d.decide(ctx, id, Fence{}, Select{IDs: ids}, func(r *rollout.Rollout, devices []*rollout.Device) (out []rollout.Change, _ error) {
		by := make(map[muster.DeviceID]*rollout.Device, len(devices))
		for _, dev := range devices {
			by[dev.ID] = dev
		}
		now := d.micros()
		for _, i := range at {
			dev := by[list[i].Device]
			if dev == nil {
				errs[i] = errNotOffered()
				continue
			}
			fact, err := d.fact(r, &list[i])
			if errs[i] = err; err != nil {
				continue
			}
			if list[i].Restarted && fact.Event == rollout.SeesOther && dev.State == rollout.Installing {
				out = step(r, dev, rollout.Fact{Event: rollout.SaysRebooting, Action: fact.Action, Attempt: fact.Attempt}, now, out)
			}
			switch c, err := hear(r, dev, fact, now); {
			case err == nil:
				out = append(out, c)
			case muster.KindOf(err) != muster.Conflict || !rollout.Known(dev.State, dev.Retries(), fact.Event):
				errs[i] = err
			}
		}
		return out, nil
	})
	return err
}

// fact returns what a report is to a rollout.
func (d *Director) fact(r *rollout.Rollout, p *Report) (rollout.Fact, error) {
	f, version := p.Fact, p.Version
	if r.Product != "" && (p.Product != "" && p.Product != r.Product || len(p.of) > 0 && !slices.Contains(p.of, r.Product) && !slices.Contains(p.of, "")) {
		return f, muster.Errorf(muster.Conflict, "the version is of another product")
	}
	if (p.seen || version != "") && !d.fleet.Knows(r.ID) { // an unknown release's version is no other one
		return f, muster.Errorf(muster.Unavailable, "the rollout's release is not known yet")
	}
	if p.seen {
		version = d.fleet.Version(r, p.Device)
	}
	switch {
	case version == "" && p.seen:
		return f, muster.Errorf(muster.Conflict, "the device reports no version")
	case version == "":
	case d.fleet.Is(r, version):
		f.Event = rollout.SeesTarget
	default:
		f.Event = rollout.SeesOther
	}
	return f, nil
}
