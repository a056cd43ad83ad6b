package desk

import (
	"context"
	"fmt"

	"muster"
	"muster/firmware"
	"muster/firmware/director"
)

// Runs is the version that a device says it runs.
type Runs struct {
	Device  muster.DeviceID
	Version string
	Product string        // that it is of; empty where the device does not say
	Beside  bool          // Product is beside the firmware: ThingsBoard's software
	At      muster.Micros // when that was, of what a device says later; 0 for now
}

// Versions keep what devices say they run, whichever door they say it by: the newest word counts, for rules
// and for pages.
type Versions interface {
	// Say keeps some in their order, in few transactions, and returns an error for each.
	Say(ctx context.Context, list []Runs) []error
}

// runsOf returns what a device that reports a version runs, of the product that it was offered.
func (d *Desk) runsOf(ctx context.Context, r *director.Report) (Runs, error) {
	out := Runs{Device: r.Device, Version: r.Version}
	a, err := d.store.LastAction(ctx, r.Device)
	switch {
	case muster.KindOf(err) == muster.NotFound && err != nil:
		return out, nil //nolint:nilerr // of which product it is nobody knows
	case err != nil:
		return out, err //nolint:wrapcheck // the store says what it was doing
	case r.Fact.Action != 0 && r.Fact.Action != a.Device.Action:
		return out, nil
	}
	release, err := d.releases.Release(ctx, a.Release)
	switch {
	case muster.KindOf(err) == muster.NotFound && err != nil:
		return out, nil //nolint:nilerr // it is not kept any more
	case err != nil:
		return out, fmt.Errorf("look up the release of rollout %s: %w", a.Device.Rollout, err)
	}
	out.Product, out.Beside = release.Manifest.Product, release.Manifest.Type == firmware.Software
	return out, nil
}
