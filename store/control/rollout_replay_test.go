package control_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/store/control"
)

// witnessed has the database itself keep what a rollout's rows are at each commit that changes it: a trigger writes
// that in the same transaction, after the devices and the log.
func witnessed(t *testing.T, e engine, db *sql.DB) {
	t.Helper()
	const is = `INSERT INTO witness SELECT NEW.id, NEW.version, NEW.status, NEW.phase, NEW.counts, NEW.log, NEW.owner, NEW.epoch, NEW.expires,
		(SELECT %[1]s(%[2]s(g.phase, g.state, g.failing, g.soaking, g.late, g.n)) FROM (
			SELECT phase, state, failing, soaking, late, COUNT(*) AS n FROM (
				SELECT phase, state, CASE WHEN failing THEN 1 ELSE 0 END AS failing, CASE WHEN soaking THEN 1 ELSE 0 END AS soaking, late
				FROM rollout_device WHERE rollout = NEW.id) d
			GROUP BY phase, state, failing, soaking, late) g);`
	ddl := []string{`CREATE TABLE witness (rollout TEXT NOT NULL, version BIGINT NOT NULL, status TEXT NOT NULL, phase BIGINT NOT NULL, counts TEXT NOT NULL,
		log BIGINT NOT NULL, owner TEXT NOT NULL, epoch BIGINT NOT NULL, expires BIGINT NOT NULL, devices TEXT NOT NULL, PRIMARY KEY (rollout, version))`}
	if e.postgres {
		ddl = append(ddl, `CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN `+fmt.Sprintf(is, "json_agg", "json_build_array")+` RETURN NULL; END $$`,
			`CREATE TRIGGER witness AFTER UPDATE OF version ON rollout FOR EACH ROW EXECUTE FUNCTION witness()`)
	} else {
		ddl = append(ddl, `CREATE TRIGGER witness AFTER UPDATE OF version ON rollout BEGIN `+fmt.Sprintf(is, "json_group_array", "json_array")+` END`)
	}
	for _, text := range ddl {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
}

// moment is a rollout at one commit, as the database kept it there.
type moment struct {
	version int64
	status  rollout.Status
	phase   int
	counts  []rollout.Counts // that it keeps
	rows    []rollout.Counts // that its devices' rows give
	log     int
	owner   string
	epoch   int64
	expires muster.Micros
}

func (m *moment) inFlight() (n int) {
	for i := range m.rows {
		n += m.rows[i].InFlight()
	}
	return n
}

func (m *moment) failing() (n int) {
	for i := range m.rows {
		n += m.rows[i].Failing
	}
	return n
}

// tally counts n devices that are alike.
func tally(counts []rollout.Counts, phase int, state string, failing, soaking bool, late rollout.Late, n int) {
	s, _ := rollout.ParseState(state)
	c := &counts[phase]
	c.By[s] += n
	switch {
	case failing:
		c.Failing += n
	case s == rollout.Rebooting && soaking:
		c.Soaking += n
	}
	if late == rollout.LateInstalled && !s.InFlight() {
		c.Late += n
	}
}

// moments reads what was witnessed of a rollout, in the order of its commits.
func moments(ctx context.Context, tx *sql.Tx, id string) (out []moment, _ error) {
	rows, err := tx.QueryContext(ctx, `SELECT version, status, phase, counts, log, owner, epoch, expires, devices FROM witness WHERE rollout = $1 ORDER BY version`, id)
	if err != nil {
		return nil, fmt.Errorf("read what was witnessed: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var m moment
		var counts, devices string
		if err := rows.Scan(&m.version, &m.status, &m.phase, &counts, &m.log, &m.owner, &m.epoch, &m.expires, &devices); err != nil {
			return nil, fmt.Errorf("read what was witnessed: %w", err)
		}
		var groups [][6]any
		if err := errors.Join(json.Unmarshal([]byte(counts), &m.counts), json.Unmarshal([]byte(devices), &groups)); err != nil {
			return nil, fmt.Errorf("read what was witnessed: %w", err)
		}
		m.rows = make([]rollout.Counts, len(m.counts))
		for _, g := range groups {
			tally(m.rows, int(g[0].(float64)), g[1].(string), g[2].(float64) > 0, g[3].(float64) > 0, rollout.Late(g[4].(string)), int(g[5].(float64)))
		}
		out = append(out, m)
	}
	return out, rows.Err() //nolint:wrapcheck // as it is
}

// watched is a store as coordinators and reporters have it: whenever a decision returns, another connection looks at the
// rows. What it was asked under which lease is kept, for the replay.
type watched struct {
	*control.Control

	id    string // of the rollout that is watched
	rows  *rolloutRows
	fault func(error)   // is told of what must not be
	hold  func()        // moves the clock beyond any lease
	over  chan struct{} // closed when the rollout has come to its end

	mu     sync.Mutex
	writes int                 // under a lease
	holder director.Fence      // of the newest lease
	moved  chan struct{}       // closed when holder changes
	held   bool                // somebody is held up
	asked  map[int64][]decided // by the version that they read
	stale  int                 // writes that were refused
}

// decided is a decision that was committed.
type decided struct {
	fence director.Fence
	lease rollout.Lease // behind it
	now   muster.Micros
}

// errLost is what becomes of a decision whose answer is lost: it was committed.
var errLost = errors.New("the answer was lost")

// Decide implements director.Store.
func (w *watched) Decide(ctx context.Context, id string, f director.Fence, now muster.Micros, s director.Select, decide director.Decide) error {
	if id != w.id {
		return w.Control.Decide(ctx, id, f, now, s, decide) //nolint:wrapcheck // as it is
	}
	lost := f.Owner != "" && w.before(ctx, f)
	var read int64
	var after rollout.Lease
	ran := false
	err := w.Control.Decide(ctx, id, f, now, s, func(r *rollout.Rollout, devices []*rollout.Device) ([]rollout.Change, error) {
		read, ran = r.Version, true
		changes, err := decide(r, devices)
		after = r.Lease
		return changes, err
	})
	w.mu.Lock()
	switch {
	case err == nil && ran:
		w.asked[read] = append(w.asked[read], decided{f, after, now})
		if is := (director.Fence{Owner: after.Owner, Epoch: after.Epoch}); is.Epoch > w.holder.Epoch {
			w.holder = is
			close(w.moved)
			w.moved = make(chan struct{})
		}
	case f.Owner != "" && muster.KindOf(err) == muster.Stale:
		w.stale++
	}
	w.mu.Unlock()
	if err := w.rows.look(ctx, id); err != nil {
		w.fault(err)
	}
	if err == nil && lost {
		return errLost
	}
	return err
}

// before is called before each write under a lease. Now and then it holds the coordinator up, with a lease that passes
// meanwhile, until another one has taken it; and it says whether the answer will be lost.
func (w *watched) before(ctx context.Context, f director.Fence) (lost bool) {
	w.mu.Lock()
	w.writes++
	lost = w.writes%31 == 0
	up := w.writes%11 == 0 && !w.held && w.holder == f
	w.held = w.held || up
	moved := w.moved
	w.mu.Unlock()
	if !up {
		return lost
	}
	w.hold()
	select {
	case <-moved:
	case <-w.over:
	case <-ctx.Done():
	}
	w.mu.Lock()
	w.held = false
	w.mu.Unlock()
	return lost
}

// logged is a row of a rollout's log.
type loggedRow struct {
	number, attempt              int
	action                       int32
	device                       muster.DeviceID
	event, before, after, reason string
	at                           muster.Micros
	late                         rollout.Late
}

func logOf(ctx context.Context, tx *sql.Tx, id string) (out []loggedRow, _ error) {
	rows, err := tx.QueryContext(ctx, `SELECT number, device, action, attempt, event, before, after, reason, at, late FROM rollout_log WHERE rollout = $1 ORDER BY number`, id)
	if err != nil {
		return nil, fmt.Errorf("read a log: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var l loggedRow
		if err := rows.Scan(&l.number, &l.device, &l.action, &l.attempt, &l.event, &l.before, &l.after, &l.reason, &l.at, &l.late); err != nil {
			return nil, fmt.Errorf("read a log: %w", err)
		}
		out = append(out, l)
	}
	return out, rows.Err() //nolint:wrapcheck // as it is
}

// replayed is a rollout as its log says, row by row.
type replayed struct {
	number  int32
	plan    rollout.Plan
	devices map[muster.DeviceID]*rollout.Device
	events  map[string]rollout.Event
	at      muster.Micros
	offers  int
}

func newReplayed(r *rollout.Rollout, devices []rollout.Device) *replayed {
	x := &replayed{number: r.Number, plan: r.Plan, devices: map[muster.DeviceID]*rollout.Device{}, events: map[string]rollout.Event{}}
	for i := range devices {
		x.devices[devices[i].ID] = &rollout.Device{ID: devices[i].ID, Phase: devices[i].Phase}
	}
	for e := rollout.Event(0); e.String() != "unknown"; e++ {
		x.events[e.String()] = e
	}
	return x
}

// take applies a row of the log, and says what is not legal about it.
func (x *replayed) take(l *loggedRow, phase int) error {
	d, e := x.devices[l.device], x.events[l.event]
	before, _ := rollout.ParseState(l.before)
	after, known := rollout.ParseState(l.after)
	switch {
	case d == nil || !known || e.String() != l.event:
		return fmt.Errorf("row %d is of nobody, or says what nobody knows: %+v", l.number, l)
	case before != d.State:
		return fmt.Errorf("row %d has %s leave %s, which is %s", l.number, l.device, before, d.State)
	case l.at < x.at:
		return fmt.Errorf("row %d is of a time before that of the row before", l.number)
	}
	x.at = l.at
	if before == after {
		late, ok := rollout.Follows(before, d.Retries(), d.Late, e)
		if after.InFlight() || !ok || late != l.late || late == d.Late {
			return fmt.Errorf("row %d has %s in %s, which changes nothing, and %q instead of %q", l.number, l.device, after, l.late, d.Late)
		}
		d.Late = l.late
		return nil
	}
	next, may := rollout.Next(before, e)
	retried := after == rollout.Queued && (next == rollout.Failed || next == rollout.TimedOut)
	looped := after == rollout.Failed && l.reason == string(rollout.Looping)
	if !may || after != next && !retried && !looped {
		return fmt.Errorf("row %d has %s go from %s to %s by %s", l.number, l.device, before, after, e)
	}
	d.Retry = 0
	if retried {
		d.Retry = 1
	}
	if after == rollout.Offered {
		d.Attempt++
		x.offers++
		if l.action != x.number<<8|int32(d.Attempt) || d.Phase > phase {
			return fmt.Errorf("row %d offers %s, which is of phase %d, action %d as attempt %d in phase %d", l.number, l.device, d.Phase, l.action, d.Attempt, phase)
		}
	}
	d.State, d.Late = after, l.late
	return nil
}

// by counts the devices by their states.
func (x *replayed) by() (out []rollout.Counts) {
	out = make([]rollout.Counts, len(x.plan.Phases))
	for _, d := range x.devices {
		out[d.Phase].By[d.State]++
	}
	return out
}

// boundary holds a commit, of which rows is what it wrote into the log, against the one before.
func (x *replayed) boundary(was, is *moment, rows []loggedRow, by []decided) error {
	offers := x.offers
	for i := range rows {
		if err := x.take(&rows[i], was.phase); err != nil {
			return err
		}
	}
	offers = x.offers - offers
	fenced := slices.ContainsFunc(by, func(d decided) bool { return d.fence.Owner != "" })
	switch {
	case is.version != was.version+1 || len(rows) != is.log-was.log:
		return fmt.Errorf("it follows on %d, and its %d rows of the log on %d", was.version, len(rows), was.log)
	case !slices.Equal(is.counts, is.rows):
		return fmt.Errorf("the rollout counts %+v, its rows give %+v", is.counts, is.rows)
	case is.inFlight() > x.plan.Concurrent:
		return fmt.Errorf("%d are in flight, %d are allowed", is.inFlight(), x.plan.Concurrent)
	case offers > 0 && (was.status != rollout.Running || is.status != rollout.Running):
		return fmt.Errorf("%d offers of a rollout that was %s, and is %s", offers, was.status, is.status)
	case offers > 0 && !fenced:
		return fmt.Errorf("%d offers that no lease was asked for", offers)
	case was.status.Ended() && is.status != was.status:
		return fmt.Errorf("it leaves its end %s for %s", was.status, is.status)
	}
	counted := x.by()
	for i, ph := range x.plan.Phases {
		c := &is.rows[i]
		switch {
		case counted[i].By != c.By:
			return fmt.Errorf("by the log phase %d has %v, by the rows %v", i, counted[i].By, c.By)
		case is.status == rollout.Running && ph.Failure.Crossed(c.Failing, c.Results()):
			return fmt.Errorf("phase %d has %d of %d failing, and the rollout runs", i, c.Failing, c.Results())
		case was.phase == i && is.phase > i && float64(c.By[rollout.Confirmed])*100 < ph.Success*float64(c.Asked()):
			return fmt.Errorf("phase %d is passed with %d of %d confirmed", i, c.By[rollout.Confirmed], c.Asked())
		}
	}
	return x.leased(was, is, by)
}

// leased looks who wrote a commit: whoever asked under a lease had that of the row that it read, and a lease is taken
// when it has passed.
func (x *replayed) leased(was, is *moment, by []decided) error {
	for _, d := range by {
		if d.fence.Owner != "" && (d.fence.Owner != was.owner || d.fence.Epoch != was.epoch) {
			return fmt.Errorf("%s wrote under epoch %d, and %s had the lease under epoch %d", d.fence.Owner, d.fence.Epoch, was.owner, was.epoch)
		}
	}
	if is.owner == was.owner {
		return nil
	}
	taken := slices.ContainsFunc(by, func(d decided) bool {
		return d.lease.Owner == is.owner && d.lease.Epoch == is.epoch && d.now >= was.expires
	})
	if !taken || is.epoch != was.epoch+1 {
		return fmt.Errorf("%s took the lease under epoch %d from %s (epoch %d) before it had passed", is.owner, is.epoch, was.owner, was.epoch)
	}
	return nil
}

// replay goes through a rollout's log, commit by commit, and returns what it came to.
func (w *watched) replay(t *testing.T, r *rollout.Rollout, devices []rollout.Device) (x *replayed, all []moment) {
	t.Helper()
	tx, err := w.rows.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	all, err = moments(t.Context(), tx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	log, err := logOf(t.Context(), tx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range log {
		if log[i].number != i+1 {
			t.Fatalf("the row behind %d of the log has the number %d", i, log[i].number)
		}
	}
	var version int64
	var end int
	if err := tx.QueryRowContext(t.Context(), `SELECT version, log FROM rollout WHERE id = $1`, r.ID).Scan(&version, &end); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 || all[len(all)-1].version != version || end != len(log) || all[len(all)-1].log != end {
		t.Fatalf("the rollout is at version %d with %d rows in the log, and there are %d, after %d commits", version, end, len(log), len(all))
	}
	x = newReplayed(r, devices)
	was := moment{version: r.Version, status: r.Status, counts: r.Counts, rows: r.Counts}
	for i := range all {
		is := &all[i]
		if is.log < was.log || is.log > len(log) {
			t.Fatalf("at version %d the log has %d rows, after %d", is.version, is.log, was.log)
		}
		if err := x.boundary(&was, is, log[was.log:is.log], w.asked[was.version]); err != nil {
			t.Fatalf("the commit of version %d, log rows %d to %d: %v", is.version, was.log+1, is.log, err)
		}
		was = *is
	}
	return x, all
}
