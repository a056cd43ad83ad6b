package desk

import (
	"context"
	"fmt"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

const (
	groupSize = 1000 // reports in one transaction, at most
	queueSize = 4096 // reports that wait; who comes then waits in Report
)

// Reporter commits reports; it is the director.
type Reporter interface {
	Reports(ctx context.Context, list []director.Report) []error
}

// Desk answers devices. It is safe for concurrent use.
type Desk struct {
	store    Store
	reporter Reporter
	releases Releases
	patches  Patches
	versions Versions
	consents Consents
	local    Local
	queue    chan waiting
}

// waiting is what a device said, which its sender waits for to be kept.
type waiting struct {
	report director.Report // without a device for none
	runs   Runs            // without a version for none
	done   chan<- error
}

// bare says whether w is a version that is about no action.
func (w *waiting) bare() bool { return w.report.Device == "" }

// nothingOfIt says of an error whether a version is about nothing that the device was offered.
func nothingOfIt(err error) bool {
	kind := muster.KindOf(err)
	return err != nil && (kind == muster.NotFound || kind == muster.Conflict || kind == muster.Stale)
}

// Local returns the time at a device, in its own zone, else in the one of its rollout.
type Local func(device muster.DeviceID, zone string) time.Time

// New returns a Desk, which needs Run to take reports. No patches are offered when patches is nil, and no
// people are asked when consents is nil.
func New(store Store, reporter Reporter, releases Releases, patches Patches, versions Versions, consents Consents, local Local) *Desk {
	return &Desk{store: store, reporter: reporter, releases: releases, patches: patches, versions: versions, consents: consents, local: local, queue: make(chan waiting, queueSize)}
}

// Offer returns what a device is to do now; NotFound when there is nothing.
func (d *Desk) Offer(ctx context.Context, device muster.DeviceID) (Offer, error) {
	a, err := d.store.LastAction(ctx, device)
	if err != nil {
		return Offer{}, err //nolint:wrapcheck // the store says what it was doing
	}
	o := Offer{
		Device: device, Rollout: a.Device.Rollout, Action: a.Device.Action, Attempt: a.Device.Attempt,
		State: a.Device.State, Offered: a.Offered, Hours: rollout.HoursAt(a.Windows, d.local(device, a.Zone)),
	}
	o.Shut, o.Parked = !o.Hours.Tells(o.State), !o.Hours.Installs(o.State) || a.Device.Parked()
	if !o.State.InFlight() {
		if a.Closed >= o.Action || !takenBack(o.State) {
			return Offer{}, errNothing()
		}
		o.Stop = true
	}
	if o.Release, err = d.releases.Release(ctx, a.Release); err != nil {
		return Offer{}, fmt.Errorf("look up the release of rollout %s: %w", o.Rollout, err)
	}
	if o.Release.Withdrawn && !o.Stop && o.State <= rollout.Downloaded { // before its rollout has recalled it
		if a.Closed >= o.Action {
			return Offer{}, errNothing()
		}
		o.Stop = true
	}
	if !o.Stop {
		if o.Waits, err = d.Waits(ctx, device, o.Action); err != nil {
			return Offer{}, err
		}
	}
	if d.patches != nil && !o.Stop && a.Device.Failures == 0 { // who failed, perhaps by a patch, gets the whole image
		for i := range o.Release.Files {
			if p, ok := d.patches.Patch(o.Release.ID, a.Device.From, i); ok {
				o.Release.Files[i].Patch = &p
			}
		}
	}
	return o, nil
}

// takenBack says whether a device in s was told to install what it is not to install any
// more: its rollout was paused, aborted or replaced. Of what ended by the device's own
// doing, or by its silence, it knows.
func takenBack(s rollout.State) bool {
	return s == rollout.Queued || s == rollout.Canceled || s == rollout.Skipped || s == rollout.TimedOut
}

func errNothing() error { return muster.Errorf(muster.NotFound, "the device has no firmware offered") }

// Report takes what a device says, and returns when it is committed. A report names its
// action, except for the versions that a device reports. The errors are those
// of director.Reports: NotFound when nothing is in flight at the device, Stale for what is
// about an action or an attempt that is over, or came before, Conflict for what does not
// happen in the device's state.
func (d *Desk) Report(ctx context.Context, r director.Report) error {
	w := waiting{report: r}
	if r.Version != "" {
		var err error
		if w.runs, err = d.runsOf(ctx, &r); err != nil {
			return err
		}
	}
	if err := d.wait(ctx, w); err != nil || !ends(r.Fact.Event) {
		return err
	}
	return d.store.CloseAction(ctx, r.Device, r.Fact.Action) //nolint:wrapcheck // the store says what it was doing
}

// Runs takes what a device says it runs, which is about no action, and returns when it is kept.
// What was so before the newest offer is not kept.
func (d *Desk) Runs(ctx context.Context, r Runs) error {
	if r.At > 0 {
		a, err := d.store.LastAction(ctx, r.Device)
		if err != nil && muster.KindOf(err) != muster.NotFound {
			return err //nolint:wrapcheck // the store says what it was doing
		}
		if err == nil && r.At < a.Offered {
			return nil
		}
	}
	return d.wait(ctx, waiting{runs: r})
}

// wait has Run take w, and returns what came of it.
func (d *Desk) wait(ctx context.Context, w waiting) error {
	done := make(chan error, 1)
	w.done = done
	select {
	case d.queue <- w:
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to take a firmware report: %w", ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting for a firmware report to be kept: %w", ctx.Err())
	}
}

// ends says whether a device that said so knows that its action is over.
func ends(e rollout.Event) bool {
	return e == rollout.SaysFailed || e == rollout.SaysDenied || e == rollout.SaysCanceled
}

// Stopped notes that a device knows that an action is over: it does not install it.
// NotFound when the device never had it.
func (d *Desk) Stopped(ctx context.Context, device muster.DeviceID, action int32) error {
	a, err := d.store.LastAction(ctx, device)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	if action == 0 || action > a.Device.Action {
		return errNothing()
	}
	return d.store.CloseAction(ctx, device, action) //nolint:wrapcheck // likewise
}

// Run commits reports, as many in one transaction as have come while the one before was
// written, until ctx ends. Those that wait then get its error.
func (d *Desk) Run(ctx context.Context) error {
	defer d.refuse()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // the loop's own end
		case first := <-d.queue:
			d.commit(ctx, d.group(first))
		}
	}
}

// group returns first and what waits behind it.
func (d *Desk) group(first waiting) []waiting {
	group := []waiting{first}
	for len(group) < groupSize {
		select {
		case next := <-d.queue:
			group = append(group, next)
		default:
			return group
		}
	}
	return group
}

// writeTimeout bounds the transactions of one group.
const writeTimeout = 10 * time.Second

func (d *Desk) commit(ctx context.Context, group []waiting) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	errs := d.say(ctx, group)
	var list []director.Report
	at := make([]int, 0, len(group)) // of list in group
	for i := range group {
		switch {
		case errs[i] != nil:
			continue
		case group[i].bare():
			list = append(list, director.SeenReport(group[i].runs.Device, group[i].runs.Product))
		default:
			list = append(list, group[i].report)
		}
		at = append(at, i)
	}
	if len(list) > 0 {
		for i, err := range d.reporter.Reports(ctx, list) {
			if !group[at[i]].bare() || !nothingOfIt(err) {
				errs[at[i]] = err
			}
		}
	}
	for i := range group {
		group[i].done <- errs[i]
	}
}

// say has the versions of a group kept, in its order and before its reports, and returns an error for each
// that is to be said again. What no document takes is the report's alone.
func (d *Desk) say(ctx context.Context, group []waiting) []error {
	errs := make([]error, len(group))
	var list []Runs
	var at []int
	for i := range group {
		if group[i].runs.Version != "" {
			list, at = append(list, group[i].runs), append(at, i)
		}
	}
	if len(list) == 0 {
		return errs
	}
	for i, err := range d.versions.Say(ctx, list) {
		switch muster.KindOf(err) {
		case muster.Invalid, muster.TooLarge, muster.NotFound:
			if group[at[i]].bare() {
				errs[at[i]] = err
			}
		default:
			errs[at[i]] = err
		}
	}
	return errs
}

// refuse ends the wait of those that came last.
func (d *Desk) refuse() {
	for {
		select {
		case w := <-d.queue:
			w.done <- muster.Errorf(muster.Busy, "the server is stopping")
		default:
			return
		}
	}
}
