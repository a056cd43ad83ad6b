package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/accounts"
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
	mostLate      = 1000    // rollouts that devices were late to install of, since the last round
	sealedAtOnce  = 100     // logs under one transaction's audit records
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
	judges   *judges
	updating *updating
	kick     chan struct{} // a round is wanted at once

	mu     sync.Mutex
	coming map[muster.DeviceID]struct{} // who may have what they waited for
	all    bool                         // more than that
	late   map[string]struct{}          // rollouts that a device was late to install of, since the last round
	gone   []muster.DeviceID            // deleted since the last round; of more than mostComing the upkeep knows
}

// buildRollouts makes them over the catalogue and the store.
func (s *Server) buildRollouts() {
	notes := operator.NewNoting(s.stores.control)
	store := director.Store(notes)
	c := shelf{s.firmware}
	r := &rollouts{server: s, store: store, kick: make(chan struct{}, 1), coming: map[muster.DeviceID]struct{}{}, late: map[string]struct{}{}}
	r.fleet = target.New(s.registry, s.twins, c, s.patches.waiting(), s.cfg.Now)
	owner := rand.Text()
	r.updating = newUpdating(s.stores.control, s.registry, s.cfg.Logger)
	r.judges = newJudges(owner, s.stores.control, s.stores.telemetry, s.cfg.Now, s.cfg.Logger, r.wake)
	quorum := rollout.Quorum{Least: s.cfg.Firmware.Approvals, May: func(p rollout.Person) bool { return s.accounts.May(p.ID, accounts.FirmwareWrite) }}
	r.director = director.New(store, r.fleet, s.cfg.Now, director.Options{
		Owner: owner, Told: r.told, Verdict: r.judges.verdict, Prepare: r.prepare, Barred: r.fleet.Barred, Outdated: r.fleet.Outdated, Quorum: quorum, Grace: graceOf(&s.cfg),
	})
	r.desk = desk.New(s.stores.control, r.director, c, s.patches.offered(), runningVersions{r}, s.peopleSaid(), r.fleet.Local)
	parts := operator.Parts{
		Store: s.stores.control, Reader: s.stores.control, Fleet: operator.Devices{Registry: s.registry}, Facts: r.fleet, Releases: stock{s.firmware}, Now: s.cfg.Now,
		Prepare: r.prepare,
	}
	if s.cfg.DDI.AskPeople {
		parts.Waits = r.desk.Waits
	}
	r.operator = operator.New(parts, notes, operator.Options{Told: r.told, Quorum: quorum})
	s.rollouts = r
}

func (r *rollouts) start() {
	loops := r.server.loops
	loops.Go("firmware-desk", r.desk.Run)
	loops.Go("rollouts", r.direct)
	loops.Go("rollouts-updating", r.updating.run)
	if p := r.server.patches; p != nil {
		loops.Go("firmware-patches", p.preparer.Run)
	}
	loops.Go("rollouts-keeper", r.keep)
	loops.Go("rollouts-telemetry", r.judges.run)
}

// told is called with what was committed.
func (r *rollouts) told(id string, changes []rollout.Change) {
	r.fleet.Changed(id, changes)
	r.updating.told(changes)
	r.server.updates.talk.Told(id, changes)
	r.freed(changes)
	if slices.ContainsFunc(changes, func(c rollout.Change) bool { return c.Late == rollout.LateInstalled }) {
		r.wasLate(id)
		return
	}
	if slices.ContainsFunc(changes, func(c rollout.Change) bool { return c.Moved() && c.To.Ended() }) { // its slot is free
		r.wake()
	}
}

// freed notes devices that a rollout is through with, for now or for good: another may wait for them.
func (r *rollouts) freed(changes []rollout.Change) {
	for i := range changes {
		if c := &changes[i]; c.From.InFlight() && !c.To.InFlight() {
			r.came(c.Device)
		}
	}
}

// wasLate notes that a device has a rollout's release after all: a rollback that is under way takes it along.
func (r *rollouts) wasLate(id string) {
	r.mu.Lock()
	if len(r.late) < mostLate {
		r.late[id] = struct{}{} // of more the upkeep knows
	}
	r.mu.Unlock()
	r.wake()
}

// takeBack has the rollbacks that are under way take along who was late.
func (r *rollouts) takeBack(ctx context.Context, open []rollout.Rollout) error {
	r.mu.Lock()
	late := r.late
	r.late = map[string]struct{}{}
	r.mu.Unlock()
	for i := range open {
		if _, is := late[open[i].Of]; !is {
			continue
		}
		if err := r.operator.TakeBack(ctx, &open[i]); err != nil {
			return err //nolint:wrapcheck // it says what it was doing; the upkeep tries again
		}
	}
	return nil
}

// graceOf is how long devices have to come back after a start: who polls comes within the time of
// its poll, which the device lengthens by up to a fifth.
func graceOf(cfg *Config) time.Duration {
	return max(2*time.Minute, cmp.Or(cfg.DDI.Idle, 5*time.Minute)*3/2)
}

// prepare is a director.Options.Prepare.
func (r *rollouts) prepare(ctx context.Context, id string) error {
	if r.fleet.Knows(id) {
		return nil
	}
	x, err := r.server.stores.control.Rollout(ctx, id)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	return r.fleet.Learn(ctx, &x) //nolint:wrapcheck // likewise
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

// cameAll notes that all devices which wait are to be looked at, and has that done.
func (r *rollouts) cameAll() {
	r.mu.Lock()
	r.all = true
	r.mu.Unlock()
	r.wake()
}

// deleted notes that a device is no more: what is in flight at it ends in the next round.
func (r *rollouts) deleted(id muster.DeviceID) {
	r.mu.Lock()
	if len(r.gone) < mostComing {
		r.gone = append(r.gone, id)
	}
	r.mu.Unlock()
	r.wake()
}

// leave ends what is in flight at devices that were deleted.
func (r *rollouts) leave(ctx context.Context) error {
	r.mu.Lock()
	gone := r.gone
	r.gone = nil
	r.mu.Unlock()
	for part := range slices.Chunk(gone, comingBatch) {
		if err := r.director.Leave(ctx, part); err != nil {
			return err //nolint:wrapcheck // it says what it was doing; the upkeep tries again
		}
	}
	return nil
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
	if err := r.leave(ctx); err != nil {
		return err
	}
	open, err := r.director.Open(ctx)
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
	if err := r.takeBack(ctx, open); err != nil {
		return err
	}
	r.judges.watch(open)
	ctx = r.asItself(ctx)
	errs := []error{r.director.Look(ctx, open), r.operator.Tick(ctx, open)}
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
	open, err := r.director.Open(ctx)
	if err != nil {
		return err //nolint:wrapcheck // likewise
	}
	errs := []error{r.wakeAll(ctx, open)}
	for i := range open {
		wrong, err := store.RecountRollout(ctx, open[i].ID)
		if wrong {
			r.server.cfg.Logger.Error("a rollout's counts were not those of its devices, and were put right", "rollout", open[i].ID)
		}
		errs = append(errs, err, r.missing(ctx, open[i].ID), r.join(ctx, &open[i]), r.operator.TakeBack(ctx, &open[i]))
	}
	r.server.patches.foresee(r, open)
	return errors.Join(errs...)
}

// missing has those leave a rollout that were deleted when nobody heard of it: the server was
// stopped just then.
func (r *rollouts) missing(ctx context.Context, id string) error {
	ids, err := r.server.stores.control.DeletedInFlight(ctx, id)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	for part := range slices.Chunk(ids, comingBatch) {
		if err := r.director.Leave(ctx, part); err != nil {
			return err //nolint:wrapcheck // likewise
		}
	}
	return nil
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
func (r *rollouts) seen(ctx context.Context, list []director.Report) {
	for i, err := range r.director.Reports(ctx, list) {
		r.came(list[i].Device)
		switch muster.KindOf(err) {
		case muster.NotFound, muster.Conflict, muster.Stale: // it was offered nothing that this is about
		default:
			if err != nil {
				r.server.cfg.Logger.Warn("a reported version is not noted for the device's rollout", "device", list[i].Device, "err", err)
			}
		}
	}
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
func (s *Server) seenVersions(ctx context.Context, list []director.Report) {
	s.rollouts.seen(ctx, list)
}
