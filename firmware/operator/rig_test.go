package operator_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// fleet are devices that match id:* all, canary the first ten, and none nobody.
type fleet struct {
	ids      []muster.DeviceID
	canaries []muster.DeviceID // in the place of the first ten
	now      func() time.Time
	held     func(r *rollout.Rollout, id muster.DeviceID, f *rollout.Facts)
	of       map[string]string // version of a release; 2.0.0 where it is not said
}

func (f *fleet) Check(q string) error {
	if q == "id:*" || q == "canary" || q == "none" {
		return nil
	}
	return muster.InvalidAt("0", "nobody knows %s", q)
}

func (f *fleet) MatchAll(q string) ([]muster.DeviceID, error) {
	switch q {
	case "id:*":
		return f.ids, nil
	case "canary":
		if f.canaries != nil {
			return f.canaries, nil
		}
		return f.ids[:10], nil
	default:
		return nil, f.Check(q)
	}
}

func (f *fleet) Matches(q string, id muster.DeviceID) bool {
	ids, err := f.MatchAll(q)
	return err == nil && slices.Contains(ids, id)
}

func (f *fleet) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	facts := rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: f.now(), Version: "1.0.0"}
	if f.held != nil {
		f.held(r, id, &facts)
	}
	return facts
}

func (f *fleet) Is(r *rollout.Rollout, version string) bool {
	return version == cmp.Or(f.of[r.Release], "2.0.0")
}

func (*fleet) Version(*rollout.Rollout, muster.DeviceID) string { return "" }

func (*fleet) Knows(string) bool { return true }

func (*fleet) Life(muster.DeviceID) rollout.Life { return rollout.Life{There: true} }

// catalogue has releases of products, some of which may not be offered.
type catalogue struct {
	products map[string]string
	mu       sync.Mutex
	bad      map[string]bool
	outdated map[string]bool  // deprecated
	security map[string]int64 // 7 where it is not said
}

func (c *catalogue) Known(_ context.Context, release string) (operator.Release, error) {
	p, ok := c.products[release]
	if !ok {
		return operator.Release{}, muster.Errorf(muster.NotFound, "there is no such release")
	}
	security, ok := c.security[release]
	if !ok {
		security = 7
	}
	return operator.Release{Product: p, Security: security}, nil
}

func (c *catalogue) Startable(ctx context.Context, release string) error {
	if c.outdated[release] {
		return muster.Errorf(muster.Conflict, "the release is deprecated")
	}
	return c.Offerable(ctx, release)
}

func (c *catalogue) Offerable(_ context.Context, release string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad[release] {
		return muster.Errorf(muster.Conflict, "the release is not signed by enough keys")
	}
	return nil
}

// rig is an Operator and a Director over one store.
type rig struct {
	*testing.T
	store     *control.Control
	operator  *operator.Operator
	director  *director.Director
	fleet     *fleet
	catalogue *catalogue
	at        time.Time
	told      map[string]int
	events    []string
	stopped   string // data of the newest rollout.stopped
	verdicts  func(r *rollout.Rollout) (rollout.Verdict, string)
}

var ann, bob, eve = rollout.Person{ID: "usr_ann", Name: "Ann"}, rollout.Person{ID: "usr_bob", Name: "Bob"}, rollout.Person{ID: "usr_eve", Name: "Eve"}

func (r *rig) now() time.Time { return r.at }

func newRig(t *testing.T, h control.Handles, d control.Dialect, n int, o operator.Options) *rig {
	t.Helper()
	store, err := control.Open(t.Context(), h, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	r := &rig{T: t, store: store, at: time.Unix(1_800_000_000, 0), told: map[string]int{}}
	store.OnEvents(func(events []feed.Event) {
		for _, e := range events {
			r.events = append(r.events, e.Type)
			if e.Type == feed.RolloutStopped {
				r.stopped = string(e.Data)
			}
		}
	})
	r.fleet = &fleet{now: r.now}
	for i := range n {
		r.fleet.ids = append(r.fleet.ids, muster.DeviceID(fmt.Sprintf("dev-%06d", i)))
	}
	r.catalogue = &catalogue{products: map[string]string{"rel_1": "pump", "rel_2": "pump", "rel_3": "pump", "rel_x": "valve"}, bad: map[string]bool{}, outdated: map[string]bool{}, security: map[string]int64{}}
	notes := operator.NewNoting(store)
	told := func(id string, changes []rollout.Change) { r.told[id] += len(changes) }
	o.Told = told
	r.operator = operator.New(operator.Parts{Store: store, Reader: store, Fleet: r.fleet, Facts: r.fleet, Releases: r.catalogue, Now: r.now}, notes, o)
	r.director = director.New(notes, r.fleet, r.now, director.Options{Owner: "n1", Told: told, Verdict: r.verdict, Quorum: o.Quorum, Outdated: r.outdated})
	return r
}

// outdated is what the catalogue says, as the server's fleet has it.
func (r *rig) outdated(x *rollout.Rollout) bool { return r.catalogue.outdated[x.Release] }

// verdict is what the test has the telemetry say; nothing when it has it say nothing.
func (r *rig) verdict(x *rollout.Rollout) (rollout.Verdict, string) {
	if r.verdicts == nil {
		return rollout.NotAsked, ""
	}
	return r.verdicts(x)
}

func sqliteRig(t *testing.T, n int, o operator.Options) *rig {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite(), n, o)
}

// onEach runs a test on SQLite and, where there is a server, on PostgreSQL, beside each other.
func onEach(t *testing.T, n int, o operator.Options, run func(r *rig)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		run(sqliteRig(t, n, o))
	})
	server := os.Getenv("MUSTER_TEST_POSTGRES")
	if server == "" {
		return // store/control says that it must be there in CI
	}
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		h, err := postgres.OpenControl(t.Context(), controltest.Database(t, server))
		if err != nil {
			t.Fatal(err)
		}
		run(newRig(t, h, control.Postgres(), n, o))
	})
}

// spec is a rollout of two phases to all devices.
func spec(change ...func(*operator.Spec)) operator.Spec {
	s := operator.Spec{
		Name: "Pumps", Release: "rel_2", Rollback: "rel_1", Query: "id:*", Membership: rollout.Snapshot, Supersede: rollout.Wait, Seed: "s", Plan: rollout.DefaultPlan(),
	}
	stop := rollout.Threshold{Absolute: 2}
	s.Plan.Phases = []rollout.Phase{
		{Name: "canary", Query: "canary", Success: 50, Failure: stop, Gate: rollout.Manual},
		{Name: "all", Percent: 100, Success: 50, Failure: stop, Gate: rollout.Auto},
	}
	s.Plan.Soak, s.Plan.Attempts, s.Plan.Concurrent = 0, 1, 1000
	for _, c := range change {
		c(&s)
	}
	return s
}

func starting(s *operator.Spec) { s.Start = true }

func (r *rig) must(got rollout.Rollout, err error) rollout.Rollout {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
	return got
}

func (r *rig) create(change ...func(*operator.Spec)) rollout.Rollout {
	r.Helper()
	return r.must(r.operator.Create(r.ctx(), ann, spec(change...)))
}

// ctx is that of a request of Ann's.
func (r *rig) ctx() context.Context {
	return audit.With(r.Context(), audit.Actor{Kind: audit.User, ID: ann.ID}, r.now)
}

func (r *rig) tick() {
	r.Helper()
	r.at = r.at.Add(time.Second)
	if err := r.director.Tick(r.Context()); err != nil {
		r.Fatal(err)
	}
	r.ticks()
}

// ticks has the operator go on with what a verb began.
func (r *rig) ticks() {
	r.Helper()
	open, err := r.store.Open(r.Context(), 1000)
	if err == nil {
		err = r.operator.Tick(r.Context(), open)
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) report(e rollout.Event, ids ...muster.DeviceID) {
	r.Helper()
	list := make([]director.Report, len(ids))
	for i, id := range ids {
		list[i] = director.Report{Device: id, Fact: rollout.Fact{Event: e}}
	}
	for i, err := range r.director.Reports(r.Context(), list) {
		if err != nil {
			r.Fatalf("%s of %s: %v", e, ids[i], err)
		}
	}
}

func (r *rig) tickStates(id string) map[string]int {
	r.Helper()
	r.tick()
	return r.states(id)
}

// states counts the devices of a rollout by state, from the rows.
func (r *rig) states(id string) map[string]int {
	r.Helper()
	out := map[string]int{}
	for _, d := range r.devices(id) {
		out[d.State.String()]++
	}
	return out
}

func (r *rig) devices(id string) (out []rollout.Device) {
	r.Helper()
	q := operator.DeviceQuery{Rollout: id, Phase: -1, Limit: 1000}
	for {
		page, err := r.store.RolloutMembers(r.Context(), q)
		if err != nil {
			r.Fatal(err)
		}
		out = append(out, page...)
		if len(page) < q.Limit {
			return out
		}
		q.After = page[len(page)-1].ID
	}
}

// actions are those of the audit log, with the kind of who did them.
func (r *rig) actions() (out []string) {
	r.Helper()
	records, err := r.store.AuditAfter(r.Context(), 0, 1000)
	if err != nil {
		r.Fatal(err)
	}
	for _, rec := range records {
		out = append(out, strings.TrimPrefix(rec.Action, "rollout.")+" "+rec.Actor.Kind)
	}
	return out
}

func wantKind(t *testing.T, what string, err error, want muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}
