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

// names says whether a report is of a version, which may be that of another action than the one in flight.
func (p *Report) names() bool { return p.seen || p.Version != "" }

// Reports applies reports in their order, many in one transaction for each rollout, and returns
// an error for each that was not taken: NotFound for a device that is in flight nowhere, and
// those of rollout.Step. A report is about the action that it names, and a version about the action whose release it
// is of, also when that is over and another is in flight: what a device did then is noted, see rollout.After.
// A failure of the store is every report's.
func (d *Director) Reports(ctx context.Context, list []Report) []error {
	where, err := d.store.InFlight(ctx, idsOf(list))
	if err != nil {
		errs := make([]error, len(list))
		for i := range errs {
			errs[i] = fmt.Errorf("look for a device's rollout: %w", err)
		}
		return errs
	}
	over := d.over(ctx, list, where, func(i int) bool { return list[i].names() || where[list[i].Device] == "" })
	errs := make([]error, len(list))
	lots := grouped{}
	for i := range list {
		if id := where[list[i].Device]; id != "" && !over[i].alone {
			lots.add(id, said{list[i], i, over[i].had})
			continue
		}
		errs[i] = over[i].err
	}
	d.each(ctx, &lots, func(x *said, err error) {
		if errs[x.at] = err; err != nil && x.had != nil && muster.KindOf(err) == muster.Conflict {
			errs[x.at] = nil // it was news of what is over
		}
	})
	stale := func(i int) bool {
		return errs[i] != nil && muster.KindOf(errs[i]) == muster.Stale && list[i].Fact.Action != 0 && !list[i].names() && where[list[i].Device] != ""
	}
	for i, o := range d.over(ctx, list, where, stale) {
		if stale(i) && o.alone && o.err == nil {
			errs[i] = nil
		}
	}
	return errs
}

// idsOf returns the devices of reports, each once.
func idsOf(list []Report) []muster.DeviceID {
	ids, seen := make([]muster.DeviceID, 0, len(list)), make(map[muster.DeviceID]struct{}, len(list))
	for i := range list {
		if _, is := seen[list[i].Device]; !is {
			seen[list[i].Device], ids = struct{}{}, append(ids, list[i].Device)
		}
	}
	return ids
}

func errNotOffered() error {
	return muster.Errorf(muster.NotFound, "the device has no firmware offered")
}

// said is a report on its way to a rollout.
type said struct {
	Report

	at  int  // in the list
	had *had // nil when the version is that of no action that is over
}

// grouped are reports by rollout, in the order in which the rollouts came.
type grouped struct {
	by    map[string][]said
	order []string
}

func (g *grouped) add(id string, x said) {
	if g.by == nil {
		g.by = map[string][]said{}
	}
	if g.by[id] == nil {
		g.order = append(g.order, id)
	}
	g.by[id] = append(g.by[id], x)
}

// each applies reports to their rollouts, and tells what came of each.
func (d *Director) each(ctx context.Context, g *grouped, came func(x *said, err error)) {
	for _, id := range g.order {
		lot := g.by[id]
		for i, err := range d.reportsOf(ctx, id, lot) {
			came(&lot[i], err)
		}
	}
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

// reportsOf applies reports to one rollout, and returns an error for each.
func (d *Director) reportsOf(ctx context.Context, id string, lot []said) []error {
	errs := make([]error, len(lot))
	err := d.o.Prepare(ctx, id)
	if err != nil {
		err = fmt.Errorf("look up the release of rollout %s: %w", id, err)
	} else {
		err = d.apply(ctx, id, lot, errs)
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// apply is reportsOf in a transaction, with the devices that the reports are about.
func (d *Director) apply(ctx context.Context, id string, lot []said, errs []error) error {
	ids, seen := make([]muster.DeviceID, 0, len(lot)), map[muster.DeviceID]bool{}
	for i := range lot {
		if dev := lot[i].Device; !seen[dev] {
			seen[dev], ids = true, append(ids, dev)
		}
	}
	_, _, err := d.decide(ctx, id, Fence{}, Select{IDs: ids}, func(r *rollout.Rollout, devices []*rollout.Device) (out []rollout.Change, _ error) {
		by := make(map[muster.DeviceID]*rollout.Device, len(devices))
		for _, dev := range devices {
			by[dev.ID] = dev
		}
		now := d.micros()
		for i := range lot {
			if dev := by[lot[i].Device]; dev != nil {
				out, errs[i] = d.take(r, dev, &lot[i], now, out)
				continue
			}
			errs[i] = errNotOffered()
		}
		return out, nil
	})
	return err
}

// take applies a report to a device, and appends what came of it.
func (d *Director) take(r *rollout.Rollout, dev *rollout.Device, x *said, now muster.Micros, out []rollout.Change) ([]rollout.Change, error) {
	fact, err := d.fact(r, &x.Report)
	if err != nil {
		return out, err
	}
	if fact.Event == rollout.SeesOther && d.spares(dev, x.had) {
		return out, nil
	}
	if x.Restarted && fact.Event == rollout.SeesOther && dev.State == rollout.Installing {
		out = step(r, dev, rollout.Fact{Event: rollout.SaysRebooting, Action: fact.Action, Attempt: fact.Attempt}, now, out)
	}
	switch c, err := hear(r, dev, fact, now); {
	case err == nil:
		out = append(out, c)
		d.bound(r, dev, now)
	case muster.KindOf(err) != muster.Conflict || !rollout.Known(dev.State, dev.Retries(), fact.Event):
		return out, err
	}
	return out, nil
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
