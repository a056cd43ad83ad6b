package control_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/store/control"
)

// rolloutRows looks at a rollout in the rows, by connections of its own.
type rolloutRows struct {
	h      control.Handles
	moment *sql.TxOptions // of a transaction that sees one moment
	end    func()         // is called when the rollout has come to its end

	mu      sync.Mutex
	looks   int
	version int64
	offers  int // in the log
	over    bool
	status  rollout.Status
	reason  rollout.Reason
}

// newRolloutRows opens a database once more.
func newRolloutRows(t *testing.T, e engine) *rolloutRows {
	t.Helper()
	l := &rolloutRows{h: e.open(t)}
	if e.postgres {
		l.moment = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	return l
}

func (l *rolloutRows) begin(ctx context.Context) (*sql.Tx, error) {
	tx, err := l.h.Read.BeginTx(ctx, l.moment)
	if err != nil {
		return nil, fmt.Errorf("look at the rows: %w", err)
	}
	return tx, nil
}

// look looks at all of a rollout's rows as they are at one moment, and says what must not be.
func (l *rolloutRows) look(ctx context.Context, id string) error {
	l.mu.Lock() // so that each sees what the one before saw, or what came later
	defer l.mu.Unlock()
	tx, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var counts, plan string
	var log, rows, offers int
	var version int64
	if err := tx.QueryRowContext(ctx, `SELECT status, reason, counts, plan, log, version FROM rollout WHERE id = $1`, id).Scan(&l.status, &l.reason, &counts, &plan, &log, &version); err != nil {
		return fmt.Errorf("look at the rollout: %w", err)
	}
	var kept []rollout.Counts
	var p rollout.Plan
	if err := errors.Join(json.Unmarshal([]byte(counts), &kept), json.Unmarshal([]byte(plan), &p)); err != nil {
		return fmt.Errorf("look at the rollout: %w", err)
	}
	got, err := talliedRows(ctx, tx, id, len(kept))
	if err != nil {
		return err
	}
	const logged = `SELECT COUNT(*), COALESCE(SUM(CASE WHEN after = 'offered' THEN 1 ELSE 0 END), 0) FROM rollout_log WHERE rollout = $1`
	if err := tx.QueryRowContext(ctx, logged, id).Scan(&rows, &offers); err != nil {
		return fmt.Errorf("look at the log: %w", err)
	}
	inFlight := 0
	for i := range got {
		inFlight += got[i].InFlight()
	}
	switch {
	case !slices.Equal(got, kept):
		return fmt.Errorf("the rollout counts %+v, its rows give %+v", kept, got)
	case inFlight > p.Concurrent:
		return fmt.Errorf("%d are in flight, %d are allowed", inFlight, p.Concurrent)
	case l.over && offers > l.offers:
		return fmt.Errorf("%d offers after it stopped", offers-l.offers)
	case rows != log || version < l.version:
		return fmt.Errorf("the log has %d rows, its number is %d; at version %d, after %d", rows, log, version, l.version)
	}
	l.looks++
	l.version, l.offers = version, offers
	if !l.over && l.status != rollout.Running && l.reason != rollout.ByOperator {
		l.over = true
		l.end()
	}
	return nil
}

// talliedRows counts a rollout's devices.
func talliedRows(ctx context.Context, tx *sql.Tx, id string, phases int) ([]rollout.Counts, error) {
	got := make([]rollout.Counts, phases)
	all, err := tx.QueryContext(ctx, `SELECT phase, state, failing, soaking, late, COUNT(*) FROM rollout_device WHERE rollout = $1
		GROUP BY phase, state, failing, soaking, late`, id)
	if err != nil {
		return nil, fmt.Errorf("look at the devices: %w", err)
	}
	defer func() { _ = all.Close() }()
	for all.Next() {
		var phase, n int
		var state string
		var failing, soaking bool
		var late rollout.Late
		if err := all.Scan(&phase, &state, &failing, &soaking, &late, &n); err != nil {
			return nil, fmt.Errorf("look at the devices: %w", err)
		}
		tally(got, phase, state, failing, soaking, late, n)
	}
	return got, all.Err() //nolint:wrapcheck // as it is
}

// crowd is three coordinators, and others, at one rollout at the same time: one clock, one store.
type crowd struct {
	t       *testing.T
	store   *watched
	clock   atomic.Int64 // Unix time in ms
	id      string
	devices []rollout.Device
	bad     func(i int) bool // of which devices the update fails
	pausing bool             // a person pauses it, and lets it go on
	pauses  int
	cancel  context.CancelFunc

	mu    sync.Mutex
	asked map[muster.DeviceID]rollout.Change // what each was offered last, of those that have not ended
}

func (c *crowd) now() time.Time { return time.UnixMilli(c.clock.Load()) }

// leaseHere is how long coordinators have a lease.
const leaseHere = 10 * time.Second

// mostTurns ends what does not end, and lastTurns is how often each goes on when the rollout has come to its end.
const (
	mostTurns = 5000
	lastTurns = 6
)

// turns calls do until the rollout is over, and some more; with what it may fail with.
func (c *crowd) turns(ctx context.Context, do func(ctx context.Context, turn int) error) {
	left := lastTurns
	for turn := range mostTurns {
		select {
		case <-ctx.Done():
			return
		case <-c.store.over:
			left--
		default:
		}
		if left == 0 {
			return
		}
		if err := do(ctx, turn); err != nil && ctx.Err() == nil {
			c.fault(err)
			return
		}
	}
	c.fault(fmt.Errorf("%s has not ended after %d turns", c.id, mostTurns))
}

// fault ends the test with what must not be.
func (c *crowd) fault(err error) {
	if !errors.Is(err, context.Canceled) {
		c.t.Errorf("%s: %v", c.id, err)
	}
	c.cancel()
}

// told is how devices learn of their offers.
func (c *crowd) told(id string, changes []rollout.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range changes {
		switch ch := &changes[i]; {
		case id == c.id && ch.Event == rollout.Offer:
			c.asked[ch.Device] = *ch
		case ch.To.Ended():
			delete(c.asked, ch.Device)
		}
	}
}

// coordinate is one coordinator.
func (c *crowd) coordinate(ctx context.Context, name string) {
	node := director.New(c.store, there{c.now}, c.now, director.Options{Owner: name, Lease: leaseHere, Batch: 7, Told: c.told})
	c.turns(ctx, func(ctx context.Context, _ int) error {
		c.clock.Add(1000)
		if err := node.Tick(ctx); err != nil && !errors.Is(err, errLost) {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// report hands in what devices say. The first of those that do also has the person and the upkeep.
func (c *crowd) report(ctx context.Context, n int) {
	dice := rand.New(rand.NewPCG(3, uint64(n)))
	node := director.New(c.store, there{c.now}, c.now, director.Options{Told: c.told})
	c.turns(ctx, func(ctx context.Context, turn int) error {
		if n == 0 && turn%5 == 0 {
			if err := c.upkeep(ctx); err != nil {
				return err
			}
		}
		if n == 0 && c.pausing && turn%9 > 6 {
			if err := c.person(ctx, turn%9 == 7); err != nil {
				return err
			}
		}
		for _, err := range node.Reports(ctx, c.reports(dice)) {
			if k := muster.KindOf(err); err != nil && k != muster.NotFound && k != muster.Conflict && k != muster.Stale {
				return fmt.Errorf("report: %w", err)
			}
		}
		return nil
	})
}

// reports has random devices say something: what is told twice, is of an attempt before, or comes of who was offered
// nothing is among it.
func (c *crowd) reports(dice *rand.Rand) (out []director.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.devices {
		ask, asked := c.asked[c.devices[i].ID]
		if x := dice.Float64(); x > 0.5 || !asked && x > 0.03 {
			continue
		}
		e := rollout.SeesTarget
		switch x := dice.Float64(); {
		case x < 0.1:
			e = rollout.SaysDownloading
		case x < 0.2:
			e = rollout.SaysInstalling
		case c.bad(i):
			e = rollout.SaysFailed
		}
		p := director.Report{Device: c.devices[i].ID, Fact: rollout.Fact{Event: e, Detail: "said \x00 so"}}
		if asked && dice.IntN(2) == 0 {
			p.Fact.Action, p.Fact.Attempt = ask.Action-int32(dice.IntN(5)/4), ask.Attempt
		}
		out = append(out, p)
		if dice.IntN(8) == 0 {
			out = append(out, p)
		}
	}
	return out
}

// person pauses a rollout that runs, or lets it go on.
func (c *crowd) person(ctx context.Context, pause bool) error {
	err := c.store.Decide(ctx, c.id, director.Fence{}, muster.MicrosOf(c.now()), director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		var err error
		switch {
		case r.Status == rollout.Running && pause:
			c.pauses++
			_, err = r.Pause()
		case r.Status == rollout.Paused && r.Reason == rollout.ByOperator && !pause:
			_, err = r.Resume(false, rollout.Quorum{}, muster.MicrosOf(c.now()))
		}
		return nil, err //nolint:wrapcheck // the verb's own
	})
	if err != nil {
		return fmt.Errorf("pause or resume: %w", err)
	}
	return nil
}

// upkeep looks whether the counts are right, and vouches for the log.
func (c *crowd) upkeep(ctx context.Context) error {
	wrong, err := c.store.RecountRollout(ctx, c.id)
	if err == nil && wrong {
		err = errors.New("its counts were put right")
	}
	if err == nil {
		_, err = c.store.SealRollouts(audit.With(ctx, audit.Actor{Kind: audit.System, Name: "rollouts"}, c.now), 100)
	}
	return err //nolint:wrapcheck // the store says which
}

// run has all of them do their work at the same time, until the rollout has come to its end.
func (c *crowd) run() {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	c.cancel = cancel
	c.asked = map[muster.DeviceID]rollout.Change{}
	c.clock.Store(1_800_000_000_000)
	w := c.store
	w.fault = c.fault
	w.hold = func() { c.clock.Add(leaseHere.Milliseconds() + 1) }
	w.over, w.moved, w.asked = make(chan struct{}), make(chan struct{}), map[int64][]decided{}
	w.rows.end = func() { close(w.over) }
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() { c.coordinate(ctx, fmt.Sprint("n", i)) })
		all.Go(func() { c.report(ctx, i) })
	}
	all.Wait()
	if ctx.Err() != nil && !c.t.Failed() {
		c.t.Errorf("%s has not ended in time", c.id)
	}
}

// crowdAt makes a rollout of 90 devices, and a crowd that is at it. Of a good release the updates of some devices fail, too
// few to stop it; of a bad one those of most.
func crowdAt(t *testing.T, e engine, store *control.Control, name string) (*crowd, *rollout.Rollout) {
	t.Helper()
	r, devices := rolloutOf(name, 90, 9)
	c := &crowd{t: t, id: name, devices: devices, pausing: name == "good"}
	c.store = &watched{Control: store, id: name, rows: newRolloutRows(t, e)}
	c.bad = func(i int) bool { return devices[i].Phase == 1 && i%25 == 0 }
	if name == "bad" {
		c.bad = func(i int) bool { return i%5 < 3 }
		r.Plan.Concurrent, r.Plan.Deadlines.Offered = 5, time.Minute
		r.Plan.Phases[0].Success, r.Plan.Phases[0].Failure.MinSample = 100, 6
	} else {
		always := 1000 * time.Hour // the clock goes as fast as the machine does
		r.Plan.Deadlines = rollout.Deadlines{Offered: always, Downloading: always, Installing: always, Rebooting: always}
		r.Plan.Phases[0].Failure.MinSample, r.Plan.Phases[1].Failure.MinSample = 10, 50
	}
	if err := store.InsertRollout(t.Context(), r, devices); err != nil {
		t.Fatal(err)
	}
	return c, r
}

func TestTheCapAndTheStopStandInTheRowsAtEveryCommitWithThreeCoordinators(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		h := e.open(t)
		witnessed(t, e, h.Write)
		store, err := control.Open(t.Context(), h, e.dialect)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = store.Close() }()
		for _, name := range []string{"good", "bad"} { // in this order: of bad, devices wait in flight
			c, r := crowdAt(t, e, store, name)
			c.run()
			x, all := c.store.replay(t, r, c.devices)
			c.ended(x, all)
			if err := c.store.rows.h.Close(); err != nil {
				t.Error(err)
			}
		}
		_, err = store.VerifyRollouts(t.Context(), func(id, what string) { t.Errorf("%s: %s", id, what) })
		if err != nil {
			t.Error(err)
		}
	})
}

// ended looks at what came of a rollout, and that it was as hard as it is meant to be.
func (c *crowd) ended(x *replayed, all []moment) {
	c.t.Helper()
	last := all[len(all)-1]
	owners, failedAfter, most := map[string]bool{}, 0, 0
	for i := range all {
		most = max(most, all[i].inFlight())
		owners[all[i].owner] = true
		if i > 0 && all[i].status == rollout.Paused && all[i-1].status == rollout.Running && c.id == "bad" {
			failedAfter = last.failing() - all[i-1].failing() - all[i-1].inFlight()
		}
	}
	c.t.Logf("%s: %d commits under %d leases, %d looks, %d rows in the log, %d offers, %d at a time, %d failing, %d pauses, %d stale writes refused",
		c.id, len(all), last.epoch, c.store.rows.looks, last.log, x.offers, most, last.failing(), c.pauses, c.store.stale)
	want := map[string]rollout.Status{"good": rollout.Completed, "bad": rollout.Paused}[c.id]
	switch {
	case last.status != want:
		c.t.Errorf("%s ends %s", c.id, last.status)
	case most < x.plan.Concurrent:
		c.t.Errorf("%s had %d at a time at most: its cap was not reached", c.id, most)
	case c.id == "bad" && (last.phase > 0 || failedAfter > 0):
		c.t.Errorf("bad stops in phase %d, with %d failures more than were in flight", last.phase, failedAfter)
	case c.id == "good" && (c.store.stale < 3 || len(owners) < 3):
		c.t.Errorf("%s: %d stale writes under %d leases: nobody was held up", c.id, c.store.stale, last.epoch)
	case c.pausing && c.pauses < 3:
		c.t.Errorf("%s was paused %d times", c.id, c.pauses)
	}
}
