package operator

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/firmware/rollout"
	"muster/internal/precondition"
)

// The bounds of what people write.
const (
	MaxName      = 100  // bytes
	MaxNote      = 2000 // bytes
	MaxSeed      = 64   // bytes
	MaxApprovals = rollout.MaxApprovals
)

// Spec is what a rollout is to be.
type Spec struct {
	Name         string
	Release      string
	Rollback     string // release to go back to; may be empty
	Query        string
	Membership   rollout.Membership
	Seed         string // random when empty
	Plan         rollout.Plan
	StartAt      muster.Micros // not before; 0 for at once
	MinApprovals int           // at least the server's own count
	Supersede    rollout.Supersede
	Downgrade    bool // devices that report a newer version get the release too
	Note         string
	Of           string // a rollback of this rollout: its devices instead of Query's
	Start        bool   // at once, instead of a draft
}

// Create makes a rollout: a draft without devices, or one that starts with those that match now.
// Invalid names what is wrong; NotFound is about the release. With Start the errors are
// those of Start too.
func (o *Operator) Create(ctx context.Context, by rollout.Person, s Spec) (rollout.Rollout, error) {
	now := o.now()
	r := rollout.Rollout{
		ID: newID(), Name: s.Name, Release: s.Release, Rollback: s.Rollback, Query: s.Query, Membership: s.Membership, Seed: s.Seed, Plan: s.Plan,
		Status: rollout.Draft, StartAt: s.StartAt, Version: 1,
		Record: rollout.Record{
			Of: s.Of, Note: s.Note, Supersede: s.Supersede, Downgrade: s.Downgrade, CreatedBy: by, Created: now, EditedBy: by, MinApprovals: max(s.MinApprovals, o.o.Quorum.Least),
		},
	}
	if r.Seed == "" {
		r.Seed = rand.Text()
	}
	if err := o.check(ctx, &r); err != nil {
		return r, err
	}
	var devices []rollout.Device
	if s.Start {
		var err error
		if devices, err = o.begin(ctx, &r, by); err != nil {
			return r, err
		}
	}
	ctx = feed.With(ctx)
	feed.Note(ctx, newEvent(feed.RolloutCreated, &r, now))
	feed.Note(ctx, events(state{status: rollout.Draft}, &r, now)...)
	noted := func() { audit.Note(ctx, "rollout.create", objectOf(r.ID), nil, ViewOf(&r)) }
	if err := o.p.Store.InsertRollout(ctx, &r, devices, noted); err != nil {
		return r, err //nolint:wrapcheck // the store says what it was doing
	}
	return o.after(ctx, &r)
}

// check says what of a draft is wrong, and looks up what its release is of.
func (o *Operator) check(ctx context.Context, r *rollout.Rollout) error {
	switch {
	case !isText(r.Name, MaxName) || r.Name == "":
		return muster.InvalidAt("name", "a name has 1 to %d bytes of plain text", MaxName)
	case !isText(strings.NewReplacer("\n", "", "\t", "").Replace(r.Note), MaxNote):
		return muster.InvalidAt("note", "a note has at most %d bytes of plain text", MaxNote)
	case !isText(r.Seed, MaxSeed):
		return muster.InvalidAt("seed", "a seed has at most %d bytes of plain text", MaxSeed)
	case r.Membership != rollout.Snapshot && r.Membership != rollout.Dynamic:
		return muster.InvalidAt("membership", "membership is %s or %s", rollout.Snapshot, rollout.Dynamic)
	case r.Supersede != rollout.Wait && r.Supersede != rollout.Replace:
		return muster.InvalidAt("supersede", "supersede is %s or %s", rollout.Wait, rollout.Replace)
	case r.MinApprovals < 0 || r.MinApprovals > MaxApprovals:
		return muster.InvalidAt("min_approvals", "min_approvals is 0 to %d", MaxApprovals)
	case len(r.Query) > rollout.MaxQuery || r.Query == "" && r.Of == "":
		return muster.InvalidAt("q", "a query has 1 to %d bytes; id:* is all devices", rollout.MaxQuery)
	case r.Of != "" && r.Membership != rollout.Snapshot:
		return muster.InvalidAt("membership", "a rollback has the devices that the other rollout updated: a snapshot")
	case r.Of != "" && !r.Downgrade:
		return muster.InvalidAt("downgrade", "a rollback brings devices an older version: it is a downgrade")
	}
	if r.Query != "" {
		if err := o.p.Fleet.Check(r.Query); err != nil {
			return muster.At(err, "q")
		}
	}
	if err := r.Plan.Check(o.p.Fleet.Check); err != nil {
		return err
	}
	known, err := o.p.Releases.Known(ctx, r.Release)
	if err != nil {
		return muster.At(err, "release")
	}
	r.Product, r.Security = known.Product, known.Security
	if r.Rollback == "" {
		return nil
	}
	switch back, err := o.p.Releases.Known(ctx, r.Rollback); {
	case err != nil:
		return muster.At(err, "rollback")
	case back.Product != r.Product:
		return muster.InvalidAt("rollback", "the release to go back to is of %s, the other of %s", back.Product, r.Product)
	}
	return nil
}

// isText says whether s is at most limit bytes of text without control characters.
func isText(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Change is what of a rollout is to change; nil for as it is. Of what does not run yet all may,
// and else of the plan alone what rollout.Replan says.
type Change struct {
	Name         *string
	Release      *string
	Rollback     *string
	Query        *string
	Membership   *rollout.Membership
	Seed         *string
	StartAt      *muster.Micros
	MinApprovals *int
	Supersede    *rollout.Supersede
	Downgrade    *bool
	Note         *string
	Plan         func(p *rollout.Plan) // changes it
}

// draft says whether c changes what only a draft may have changed.
func (c *Change) draft() bool {
	return c.Name != nil || c.Release != nil || c.Rollback != nil || c.Query != nil || c.Membership != nil || c.Seed != nil || c.StartAt != nil ||
		c.MinApprovals != nil || c.Supersede != nil || c.Downgrade != nil || c.Note != nil
}

// Edit changes a rollout. What people had agreed to is agreed to no more when one changes that did not begin yet.
// Conflict for what may not change any more.
func (o *Operator) Edit(ctx context.Context, by rollout.Person, id string, c Change) (rollout.Rollout, error) {
	seen, err := o.Rollout(ctx, id)
	if err != nil {
		return seen, err
	}
	if n := c.MinApprovals; n != nil && *n < o.o.Quorum.Least {
		return seen, muster.InvalidAt("min_approvals", "the server asks for %d approvals of every rollout: a rollout may ask for more", o.o.Quorum.Least)
	}
	edited := seen // checked beside the transaction: the catalogue is asked
	o.edit(&edited, &c)
	if seen.Status == rollout.Draft {
		err = o.check(ctx, &edited)
	} else {
		err = edited.Plan.Check(func(string) error { return nil }) // its queries are as they were
	}
	if err != nil {
		return seen, err
	}
	do := func(r *rollout.Rollout) (bool, error) {
		switch {
		case r.Status != rollout.Draft && c.draft():
			return false, muster.Errorf(muster.Conflict, "the rollout is %s: drafts alone change like that", r.Status)
		case r.Status == rollout.Draft && r.Version != seen.Version:
			return false, muster.Errorf(muster.Stale, "it was changed meanwhile: get it again")
		}
		plan := r.Plan
		if c.Plan != nil {
			c.Plan(&plan)
		}
		if err := r.Replan(plan); err != nil {
			return false, err
		}
		if r.Status == rollout.Draft {
			o.edit(r, &c)
			r.Product, r.Security = edited.Product, edited.Security
		}
		r.Rewritten(by)
		return true, nil
	}
	if seen.Status == rollout.Draft {
		return o.decide(ctx, id, editing, do)
	}
	ctx, now := feed.With(ctx), o.now()
	err = o.p.Store.RescheduleRollout(ctx, id, now, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		return nil, o.apply(ctx, r, editing, now, do)
	})
	if err != nil {
		return seen, err //nolint:wrapcheck // the store says what it was doing
	}
	o.changed(id)
	return o.Rollout(ctx, id)
}

const editing = "rollout.update" // in the audit log

// edit does c to a draft.
func (o *Operator) edit(r *rollout.Rollout, c *Change) {
	set(&r.Name, c.Name)
	set(&r.Release, c.Release)
	set(&r.Rollback, c.Rollback)
	set(&r.Query, c.Query)
	set(&r.Membership, c.Membership)
	set(&r.Seed, c.Seed)
	set(&r.StartAt, c.StartAt)
	set(&r.Supersede, c.Supersede)
	set(&r.Downgrade, c.Downgrade)
	set(&r.Note, c.Note)
	if c.MinApprovals != nil {
		r.MinApprovals = *c.MinApprovals
	}
	if r.Seed == "" {
		r.Seed = rand.Text()
	}
	if c.Plan != nil {
		c.Plan(&r.Plan)
	}
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// Delete deletes a draft. Conflict for anything else: what was done is kept.
func (o *Operator) Delete(ctx context.Context, id string) error {
	err := o.p.Store.DeleteRollout(ctx, id, func(r *rollout.Rollout) error {
		if err := precondition.Check(ctx, *r); err != nil {
			return err //nolint:wrapcheck // the condition's own words
		}
		if r.Status != rollout.Draft {
			return muster.Errorf(muster.Conflict, "the rollout is %s: drafts alone are deleted", r.Status)
		}
		audit.Note(ctx, "rollout.delete", objectOf(id), ViewOf(r), nil)
		return nil
	})
	o.changed(id)
	return err //nolint:wrapcheck // the store says what it was doing
}

// begin starts a draft that is not kept yet, or not yet with its devices, and returns those.
// Conflict when there are none, a phase by a query has none, or the release may not be offered.
func (o *Operator) begin(ctx context.Context, r *rollout.Rollout, by rollout.Person) ([]rollout.Device, error) {
	now := o.now()
	trial := *r
	if err := trial.Start(by, o.o.Quorum, now); err != nil { // before the work
		return nil, err //nolint:wrapcheck // its own words
	}
	if o.o.Quorum.Needs(r) > 0 && !by.Known() {
		return nil, muster.Errorf(muster.Forbidden, "others must agree to the rollout, and an API key that no user owns starts no such one: start it as a user")
	}
	if err := o.p.Releases.Startable(ctx, r.Release); err != nil {
		return nil, muster.At(err, "release")
	}
	ids, err := o.members(ctx, r)
	if err != nil {
		return nil, err
	}
	switch {
	case len(ids) == 0 && r.Membership == rollout.Snapshot:
		return nil, muster.Errorf(muster.Conflict, "no device matches: there is nothing to roll out")
	case len(ids) > MaxDevices:
		return nil, muster.Errorf(muster.TooLarge, "%d devices match, a rollout has at most %d", len(ids), MaxDevices)
	}
	if err := o.lowering(ctx, r, ids); err != nil {
		return nil, err
	}
	devices, err := o.place(r, ids, now)
	if err == nil {
		err = vacant(r)
	}
	if err != nil {
		return nil, err
	}
	r.Replacing = r.Supersede == rollout.Replace
	return devices, r.Start(by, o.o.Quorum, now) //nolint:wrapcheck // its own words
}

// lowering is a Conflict when a rollout is to bring devices below a security version that they confirmed, or, a
// rollback, below that of the release that they got, and nobody has to agree to it. When somebody has, Start asks.
func (o *Operator) lowering(ctx context.Context, r *rollout.Rollout, ids []muster.DeviceID) error {
	if !r.Downgrade || o.o.Quorum.Needs(r) > 0 {
		return nil
	}
	confirmed, err := o.p.Reader.ConfirmedAbove(ctx, r.Product, r.Security, ids)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	if r.Of != "" {
		of, err := o.Rollout(ctx, r.Of)
		if err != nil {
			return err
		}
		confirmed = max(confirmed, of.Security)
	}
	if confirmed <= r.Security {
		return nil
	}
	return muster.At(muster.Errorf(muster.Conflict, "the release's security version is %d, and devices of the rollout have %d: below that they go only when another person has agreed; "+
		"make it a draft with min_approvals 1 or more, have that person agree, and start it then", r.Security, confirmed), "min_approvals")
}

// members returns which devices a rollout has when it starts now.
func (o *Operator) members(ctx context.Context, r *rollout.Rollout) ([]muster.DeviceID, error) {
	if r.Of == "" {
		return o.p.Fleet.MatchAll(r.Query) //nolint:wrapcheck // it says what is wrong with the query
	}
	var out []muster.DeviceID
	for after := muster.DeviceID(""); len(out) <= MaxDevices; after = out[len(out)-1] {
		page, err := o.p.Reader.GotRelease(ctx, r.Of, after, memberPage)
		if err != nil {
			return nil, err //nolint:wrapcheck // the store says what it was doing
		}
		out = append(out, page...)
		if len(page) < memberPage {
			break
		}
	}
	return out, nil
}

// memberPage is how many devices of another rollout are read at once.
const memberPage = 10_000

// place puts devices into the phases of r, and counts them there.
func (o *Operator) place(r *rollout.Rollout, ids []muster.DeviceID, now muster.Micros) ([]rollout.Device, error) {
	canaries := map[string]map[muster.DeviceID]struct{}{}
	for i := range r.Plan.Phases {
		q := r.Plan.Phases[i].Query
		if q == "" || canaries[q] != nil {
			continue
		}
		found, err := o.p.Fleet.MatchAll(q)
		if err != nil {
			return nil, err //nolint:wrapcheck // it says what is wrong with the query
		}
		canaries[q] = make(map[muster.DeviceID]struct{}, len(found))
		for _, id := range found {
			canaries[q][id] = struct{}{}
		}
	}
	devices, members := make([]rollout.Device, len(ids)), make([]rollout.Member, len(ids))
	for i, id := range ids {
		devices[i] = rollout.Device{Rollout: r.ID, ID: id, Rank: rollout.Rank(r.Seed, id), Updated: now}
		members[i] = rollout.Member{Rank: devices[i].Rank, Matches: func(q string) bool { _, is := canaries[q][id]; return is }}
	}
	byRank := slices.SortedFunc(slices.Values(members), func(a, b rollout.Member) int { return cmp.Compare(a.Rank, b.Rank) })
	r.Upto, r.Counts = r.Plan.Cuts(byRank, r.Membership), make([]rollout.Counts, len(r.Plan.Phases))
	for i := range devices {
		devices[i].Phase = r.Plan.Place(members[i], r.Upto)
		r.Counts[devices[i].Phase].By[rollout.Queued]++
	}
	return devices, nil
}

// vacant names the first phase by a query that none of a rollout's devices is in: a Conflict, for such a canary shows
// nothing. Of Dynamic membership one may join, and a rollback has the phases of what it takes back.
func vacant(r *rollout.Rollout) error {
	if r.Membership != rollout.Snapshot || r.Of != "" {
		return nil
	}
	for i := range r.Plan.Phases {
		if ph := &r.Plan.Phases[i]; ph.Query != "" && r.Counts[i].Total() == 0 {
			return muster.Errorf(muster.Conflict, "phase %s would have no device: its query matches none of the rollout's that no phase before it has", r.PhaseName(i))
		}
	}
	return nil
}
