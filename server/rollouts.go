package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/feed"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/firmware/target"
)

const (
	directorEvery = time.Second
	keeperEvery   = time.Minute
	mostComing    = 100_000 // devices that have come since the last round; of more all are looked at
	comingBatch   = 500     // of them in one transaction
	mostRollouts  = 10_000  // that are looked after
	sealedAtOnce  = 100     // logs under one transaction's audit records
	goneAtOnce    = 500     // deleted devices in one transaction
)

// rollouts is what goes on by itself about firmware: the director, the desk that devices come
// to, and what both know of the fleet.
type rollouts struct {
	server   *Server
	store    director.Store // through which changes are told
	fleet    *target.Fleet
	director *director.Director
	desk     *desk.Desk
	operator *operator.Operator
	kick     chan struct{} // a round is wanted at once

	mu     sync.Mutex
	coming map[muster.DeviceID]struct{} // who may have what they waited for
	all    bool                         // more than that
	gone   bool                         // devices were deleted
}

// buildRollouts makes them over the catalogue and the store.
func (s *Server) buildRollouts() {
	notes := operator.NewNoting(s.stores.control)
	store := director.Store(notes)
	c := shelf{s.firmware}
	r := &rollouts{server: s, store: store, kick: make(chan struct{}, 1), coming: map[muster.DeviceID]struct{}{}}
	r.fleet = target.New(s.registry, s.twins, c, s.patches.waiting(), s.cfg.Now)
	r.director = director.New(store, r.fleet, s.cfg.Now, director.Options{Owner: rand.Text(), Told: r.told})
	r.desk = desk.New(s.stores.control, r.director, c, s.patches.offered())
	r.operator = operator.New(operator.Parts{
		Store: s.stores.control, Reader: s.stores.control, Fleet: operator.Devices{Registry: s.registry}, Facts: r.fleet, Releases: stock{s.firmware}, Now: s.cfg.Now,
	}, notes, operator.Options{Told: r.told})
	s.rollouts = r
}

func (r *rollouts) start() {
	loops := r.server.loops
	loops.Go("firmware-desk", r.desk.Run)
	loops.Go("rollouts", r.direct)
	if p := r.server.patches; p != nil {
		loops.Go("firmware-patches", p.preparer.Run)
	}
	loops.Go("rollouts-keeper", r.keep)
}

// told is called with what was committed.
func (r *rollouts) told(id string, changes []rollout.Change) {
	r.fleet.Changed(changes)
	r.server.updates.talk.Told(id, changes)
	for i := range changes {
		if changes[i].Moved() && changes[i].To.Ended() { // its slot is free
			r.wake()
			return
		}
	}
}

// wake has the next round begin at once.
func (r *rollouts) wake() {
	select {
	case r.kick <- struct{}{}:
	default: // one is coming
	}
}

// came notes devices for which something changed that an offer may wait for.
func (r *rollouts) came(ids ...muster.DeviceID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if len(r.coming) >= mostComing {
			r.all = true
			return
		}
		r.coming[id] = struct{}{}
	}
}

// left notes that a device was deleted, and has a round begin in which its slot gets free.
func (r *rollouts) left() {
	r.mu.Lock()
	r.gone = true
	r.mu.Unlock()
	r.wake()
}

// release ends what is in flight to devices that were deleted. What fails is tried again by the next round.
func (r *rollouts) release(ctx context.Context) error {
	r.mu.Lock()
	gone := r.gone
	r.gone = false
	r.mu.Unlock()
	if !gone {
		return nil
	}
	rest, err := r.releaseSome(ctx)
	if rest || err != nil {
		r.mu.Lock()
		r.gone = true
		r.mu.Unlock()
	}
	return err
}

// releaseSome is release for as many as one transaction has; rest says that there may be more.
func (r *rollouts) releaseSome(ctx context.Context) (rest bool, err error) {
	ids, err := r.server.stores.control.DeletedInFlight(ctx, goneAtOnce)
	if err != nil || len(ids) == 0 {
		return false, err //nolint:wrapcheck // it says what it was doing
	}
	list := make([]director.Report, len(ids))
	for i, id := range ids {
		list[i] = director.Report{Device: id, Fact: rollout.Fact{Event: rollout.Leaves}}
	}
	for i, err := range r.director.Reports(ctx, list) {
		if k := muster.KindOf(err); err != nil && k != muster.NotFound && k != muster.Stale && k != muster.Conflict { // it ended meanwhile
			return false, fmt.Errorf("end the update of the deleted device %s: %w", ids[i], err)
		}
	}
	return len(ids) == goneAtOnce, nil
}

// cameAll notes that all devices which wait are to be looked at, and has that done.
func (r *rollouts) cameAll() {
	r.mu.Lock()
	r.all = true
	r.mu.Unlock()
	r.wake()
}

func (r *rollouts) presence(ts []devices.Transition) {
	for i := range ts {
		if ts[i].To == muster.PresenceOnline {
			r.came(ts[i].Device)
		}
	}
}

// direct has the director look after rollouts each second, and when something happened that
// lets it go on.
func (r *rollouts) direct(ctx context.Context) error {
	tick := time.NewTicker(directorEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.kick:
		}
		if err := r.round(ctx); err != nil && ctx.Err() == nil {
			r.server.cfg.Logger.Warn("rollouts are not looked after, trying again", "err", err)
		}
	}
}

// round is one look at everything.
func (r *rollouts) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	open, err := r.store.Open(ctx, mostRollouts)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	if err := r.fleet.Refresh(ctx, open); err != nil {
		return err //nolint:wrapcheck // likewise
	}
	if err := r.server.patches.refresh(ctx, open); err != nil {
		return err
	}
	if err := r.admit(ctx, open); err != nil {
		return err
	}
	ctx = r.asItself(ctx)
	if err := r.release(ctx); err != nil {
		return err
	}
	errs := []error{r.director.Tick(ctx), r.operator.Tick(ctx)}
	for {
		n, err := r.server.stores.control.SealRollouts(ctx, sealedAtOnce)
		if errs = append(errs, err); err != nil || n < sealedAtOnce {
			return errors.Join(errs...)
		}
	}
}

// asItself has the audit log say that nobody asked.
func (r *rollouts) asItself(ctx context.Context) context.Context {
	return feed.With(audit.With(ctx, audit.Actor{Kind: audit.System, Name: "rollouts"}, r.server.cfg.Now))
}

// admit makes those due who have come.
func (r *rollouts) admit(ctx context.Context, open []rollout.Rollout) error {
	r.mu.Lock()
	ids, all := slices.Collect(maps.Keys(r.coming)), r.all
	r.coming, r.all = map[muster.DeviceID]struct{}{}, false
	r.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	if all {
		return r.wakeAll(ctx, open)
	}
	for part := range slices.Chunk(ids, comingBatch) {
		if _, err := r.server.stores.control.WakeDevices(ctx, part, muster.MicrosOf(r.server.cfg.Now())); err != nil {
			r.came(ids...)
			return err //nolint:wrapcheck // it says what it was doing
		}
	}
	return nil
}

func (r *rollouts) wakeAll(ctx context.Context, open []rollout.Rollout) error {
	for i := range open {
		if err := r.server.stores.control.WakeRollout(ctx, open[i].ID, muster.MicrosOf(r.server.cfg.Now())); err != nil {
			return err //nolint:wrapcheck // it says what it was doing
		}
	}
	return nil
}

// keep does each minute what makes good whatever was missed: it reads who failed of late,
// has all that sleep looked at, lets devices join, and counts.
func (r *rollouts) keep(ctx context.Context) error {
	tick := time.NewTicker(keeperEvery)
	defer tick.Stop()
	for {
		if err := r.upkeep(ctx); err != nil && ctx.Err() == nil {
			r.server.cfg.Logger.Warn("the upkeep of rollouts failed, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *rollouts) upkeep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(r.asItself(ctx), time.Minute)
	defer cancel()
	store := r.server.stores.control
	failed, err := store.FailuresSince(ctx, target.FailuresSince(r.server.cfg.Now()), target.MaxFailures)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	r.fleet.SetFailures(failed)
	open, err := r.store.Open(ctx, mostRollouts)
	if err != nil {
		return err //nolint:wrapcheck // likewise
	}
	r.left() // one that was deleted when the process ended
	errs := []error{r.wakeAll(ctx, open)}
	for i := range open {
		wrong, err := store.RecountRollout(ctx, open[i].ID)
		if wrong {
			r.server.cfg.Logger.Error("a rollout's counts were not those of its devices, and were put right", "rollout", open[i].ID)
		}
		errs = append(errs, err, r.join(ctx, &open[i]))
	}
	r.server.patches.foresee(r, open)
	return errors.Join(errs...)
}

// join adds the devices that match a dynamic rollout by now.
func (r *rollouts) join(ctx context.Context, x *rollout.Rollout) error {
	if x.Membership != rollout.Dynamic || x.Status != rollout.Running {
		return nil
	}
	query, err := r.server.registry.Compile(x.Query)
	if err != nil {
		return fmt.Errorf("read the query of rollout %s: %w", x.ID, err)
	}
	here, err := r.server.stores.control.RolloutDevices(ctx, x.ID)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	var joiners []rollout.Device
	now := muster.MicrosOf(r.server.cfg.Now())
	for _, id := range r.server.registry.MatchAll(query) {
		if _, ok := here[id]; !ok {
			d := rollout.Device{Rollout: x.ID, ID: id, Rank: rollout.Rank(x.Seed, id), Updated: now}
			d.Phase = x.Plan.Place(rollout.Member{Rank: d.Rank, Matches: func(q string) bool { return r.matches(q, id) }}, x.Upto)
			joiners = append(joiners, d)
		}
	}
	if len(joiners) == 0 {
		return nil
	}
	_, err = r.server.stores.control.JoinRollout(ctx, x.ID, joiners)
	return err //nolint:wrapcheck // it says what it was doing
}

func (r *rollouts) matches(query string, id muster.DeviceID) bool {
	e, err := r.server.registry.Compile(query)
	return err == nil && r.server.registry.Matches(id, e)
}

// seen is told of devices that have just said which versions they have.
func (r *rollouts) seen(ctx context.Context, ids []muster.DeviceID) {
	for i, err := range r.director.Seen(ctx, ids) {
		switch muster.KindOf(err) {
		case muster.NotFound, muster.Conflict, muster.Stale: // it was offered nothing that this is about
		default:
			if err != nil {
				r.server.cfg.Logger.Warn("a reported version is not noted for the device's rollout", "device", ids[i], "err", err)
			}
		}
	}
	r.came(ids...)
}

// asks is told that a device which holds no connection asks for its firmware, and says
// whether something waits for it, which the next round may offer.
func (r *rollouts) asks(ctx context.Context, id muster.DeviceID) (waits bool, err error) {
	r.fleet.Asked(id)
	n, err := r.server.stores.control.WakeDevices(ctx, []muster.DeviceID{id}, muster.MicrosOf(r.server.cfg.Now()))
	if n > 0 {
		r.wake()
	}
	return n > 0, err //nolint:wrapcheck // it says what it was doing
}

// seenVersions is rollouts.seen, of a server whose rollouts are built later.
func (s *Server) seenVersions(ctx context.Context, ids []muster.DeviceID) { s.rollouts.seen(ctx, ids) }
