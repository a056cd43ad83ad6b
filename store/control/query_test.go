package control_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/devices/query"
	"muster/devices/query/querytest"
	"muster/firmware/rollout"
	"muster/ingest"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// rig is a database with all that a query asks for.
type rig struct {
	postgres  bool
	c         *control.Control
	db        control.Handles
	telemetry interface {
		ingest.LatestStore
		Close() error
	}
	seq  uint64
	seen map[muster.DeviceID]bool // devices that have had latest values
}

// onEachRig runs a test on SQLite and, where there is a server, on PostgreSQL.
func onEachRig(t *testing.T, run func(t *testing.T, r *rig)) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		controltest.Fill(t, dir)
		tel, err := sqlite.Open(t.Context(), dir, log)
		wantNil(t, err)
		h, err := sqlite.OpenControl(t.Context(), dir)
		wantNil(t, err)
		r := &rig{db: control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, telemetry: tel}
		r.open(t, control.SQLite())
		run(t, r)
	})
	const env = "MUSTER_TEST_POSTGRES" // the latest values are one plain table on every server
	t.Run(env, func(t *testing.T) {
		t.Parallel()
		dsn := database(t, env)
		tel, err := postgres.Open(t.Context(), dsn, log)
		wantNil(t, err)
		h, err := postgres.OpenControl(t.Context(), dsn)
		wantNil(t, err)
		r := &rig{postgres: true, db: h, telemetry: tel}
		r.open(t, control.Postgres())
		run(t, r)
	})
}

func (r *rig) open(t *testing.T, d control.Dialect) {
	t.Helper()
	var err error
	r.seen = map[muster.DeviceID]bool{}
	r.c, err = control.Open(t.Context(), r.db, d)
	wantNil(t, err)
	t.Cleanup(func() {
		wantNil(t, r.c.Close())
		wantNil(t, r.telemetry.Close())
	})
}

// failer is a test or a property's check.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func (r *rig) exec(t failer, text string, args ...any) {
	t.Helper()
	if _, err := r.db.Write.ExecContext(context.Background(), text, args...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func ok(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// update has d in a rollout: in one of the states of an update, or near one.
func (r *rig) update(t failer, i int, d *querytest.Device) {
	t.Helper()
	states := []rollout.Device{{State: rollout.Offered}, {State: rollout.Confirmed}, {State: rollout.Downloaded, Deadline: rollout.AtWindow}}
	if d.Updating {
		states = []rollout.Device{{State: rollout.Downloading}, {State: rollout.Downloaded}, {State: rollout.Installing}, {State: rollout.Rebooting}}
	}
	is := states[i%len(states)]
	if is.Updating() != d.Updating {
		t.Fatalf("%+v is not what is wanted", is)
	}
	r.exec(t, `INSERT INTO rollout_device (rollout, device, rank, phase, state, reason, detail, action, attempt, `+
		`failures, seq, failing, repeats, progress, came, due, deadline, soaking, updated)
		VALUES ('r', $1, $2, 0, $3, '', '', 0, 0, 0, 0, FALSE, 0, 0, '', 0, $4, FALSE, 0)`, string(d.ID), i, is.State.String(), int64(is.Deadline))
}

// fill puts a fleet in the place of the one before.
func (r *rig) fill(t failer, f *querytest.Fleet) {
	t.Helper()
	ctx := context.Background()
	for _, table := range []string{"rollout_device", "rollout", "twin", "presence", "credential", "device_tag", "device_member", "device"} {
		r.exec(t, "DELETE FROM "+table)
	}
	for _, g := range f.Static {
		ok(t, r.c.PutGroup(ctx, devices.Group{Name: g}))
	}
	var ds []devices.Device
	var creds []devices.Credential
	var rows []devices.PresenceRow
	for _, d := range f.Devices {
		made, err := registered(d)
		ok(t, err)
		ds = append(ds, made)
		if d.Credential {
			creds = append(creds, devices.Credential{ID: "cred_" + string(d.ID), Device: d.ID, Kind: devices.Token})
		}
		if d.Presence != nil {
			rows = append(rows, devices.PresenceRow{Device: d.ID, Presence: d.Presence.Presence})
		}
	}
	ok(t, r.c.InsertDevices(ctx, ds, creds))
	ok(t, r.c.SavePresence(ctx, rows))
	for i, d := range f.Devices {
		r.update(t, i, d)
		if d.Presence != nil && d.Presence.Rhythm > 0 {
			r.exec(t, "UPDATE presence SET rhythm = $1 WHERE device = $2", d.Presence.Rhythm, string(d.ID))
		}
		if w := d.Twin; w != nil {
			diverged, err := json.Marshal(append([]string{}, w.Diverged...))
			ok(t, err)
			r.exec(t, `INSERT INTO twin (device, effective, reported, converged, diverged)
				VALUES ($1, $2, $3, $4, $5)`, string(d.ID), w.Effective, w.Reported, w.Converged, string(diverged))
		}
	}
	r.saveLatest(t, f)
}

// saveLatest also empties the rows of devices of earlier fleets.
func (r *rig) saveLatest(t failer, f *querytest.Fleet) {
	t.Helper()
	rows := map[muster.DeviceID]ingest.LatestRow{}
	for id := range r.seen {
		rows[id] = ingest.LatestRow{Device: id}
	}
	for _, d := range f.Devices {
		if len(d.Latest) == 0 {
			continue
		}
		r.seen[d.ID] = true
		row := ingest.LatestRow{Device: d.ID}
		for _, l := range d.Latest {
			row.Values = append(row.Values, ingest.LatestValue{Value: l.Value, Time: l.Time, Arrival: l.Arrival})
		}
		rows[d.ID] = row
	}
	r.seq++
	ok(t, r.telemetry.SaveLatest(context.Background(), slices.Collect(maps.Values(rows)), ingest.Cursor{Incarnation: "log", Seq: r.seq}))
}

func registered(d *querytest.Device) (devices.Device, error) {
	tags, err := devices.TagsOf(d.Tags)
	if err != nil {
		return devices.Device{}, err
	}
	groups, err := devices.GroupsOf(d.Groups)
	return devices.Device{
		ID: d.ID, Name: d.Name, Created: d.Created, Profile: d.Profile, Parent: d.Parent, Tags: tags, Groups: groups,
		Location: devices.Location{Set: d.Located, Lat: d.Lat, Lon: d.Lon}, CheckIn: d.CheckIn, Notes: d.Notes, Firmware: d.Firmware,
	}, err
}

// wantFound fails unless SQL finds what Eval finds, whole, page by page, and counted.
func (r *rig) wantFound(t failer, f *querytest.Fleet, text string) {
	t.Helper()
	ctx := context.Background()
	e, err := query.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	want := f.Matches(e)
	if e, err = query.Expand(e, f.Resolve); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	got, err := r.c.SelectDevices(ctx, e, querytest.Now, "", 100)
	if err != nil {
		statement, args := r.c.SelectSQL(e, querytest.Now, 100)
		t.Fatalf("%s: %v: %v\n%s\n%v", text, err, unwrapped(err), statement, args)
	}
	if !slices.Equal(got, want) {
		statement, args := r.c.SelectSQL(e, querytest.Now, 100)
		t.Fatalf("%s: SQL finds %v, want %v\n%s\n%v", text, got, want, statement, args)
	}
	if n, err := r.c.CountDevices(ctx, e, querytest.Now); err != nil || n != len(want) {
		t.Fatalf("%s: counted %d, %v, want %d", text, n, err, len(want))
	}
	if len(want) > 1 {
		page, err := r.c.SelectDevices(ctx, e, querytest.Now, want[0], 1)
		if err != nil || !slices.Equal(page, want[1:2]) {
			t.Fatalf("%s: after %s comes %v, %v, want %s", text, want[0], page, err, want[1])
		}
	}
}

func unwrapped(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}

func TestMemoryAndSQLFindTheSameDevices(t *testing.T) {
	onEachRig(t, func(t *testing.T, r *rig) {
		rapid.Check(t, func(t *rapid.T) {
			f := querytest.DrawFleet(t, 6)
			r.fill(t, f)
			groups := slices.Concat(f.Static, slices.Sorted(maps.Keys(f.Saved)))
			for range 25 {
				r.wantFound(t, f, querytest.DrawQuery(t, groups))
			}
		})
	})
}

// TestEveryTermOnEveryLeaf asks all that can be asked of one value, of every value.
func TestEveryTermOnEveryLeaf(t *testing.T) {
	leaves := []string{
		"0", "-0", "1", "1.0", "1e0", "0.1", "0.10000000000000001", "9007199254740993", "12345678901234567890", "1e400", "-1e400", "1e-400", "5e-324",
		"true", "false", "null", `""`, `"1"`, `"a"`, `"A\u00e9"`, `"😀"`, `"a\"b\\"`, "[]", "[1]", "{}", `{"b":1}`,
	}
	onEachRig(t, func(t *testing.T, r *rig) {
		f := &querytest.Fleet{Devices: []*querytest.Device{{ID: "bare"}}}
		for i, text := range leaves {
			d := &querytest.Device{ID: muster.DeviceID(fmt.Sprintf("d%02d", i)), Twin: &querytest.Twin{Reported: `{"a":` + text + `}`, Effective: "{}"}}
			d.Latest = []querytest.Latest{{Value: muster.Value{Key: muster.Key{Name: "a", Kind: muster.JSON}, Text: text}, Time: 1, Arrival: 1}}
			f.Devices = append(f.Devices, d)
		}
		slices.SortFunc(f.Devices, func(a, b *querytest.Device) int { return strings.Compare(string(a.ID), string(b.ID)) })
		r.fill(t, f)
		for _, field := range []string{"v.a", "twin.reported.a", "twin.reported.a.b", "twin.reported.a.0"} {
			r.wantFound(t, f, field)
			for _, op := range []string{"=", "!=", "<", "<=", ">", ">="} {
				for _, v := range []string{"0", "1", "0.1", "9007199254740992", "9007199254740993", "12345678901234567891", "1.7976931348623157e308", "5e-324", "-1"} {
					r.wantFound(t, f, field+op+v)
				}
			}
			for _, rest := range []string{"=true", "=false", "!=true", `=""`, `="1"`, "=a", "=A*", `="a\"b\\"`, "=😀", "~a", "~É", `~""`, "=null1", `!="1"`, "=*", "!=*"} {
				r.wantFound(t, f, field+rest)
			}
		}
	})
}

func TestTheNewestOfSeveralKindsOfAKeyCounts(t *testing.T) {
	latest := func(name string, kind muster.ValueKind, num float64, text string, at, arrival muster.Micros) querytest.Latest {
		return querytest.Latest{Value: muster.Value{Key: muster.Key{Name: name, Kind: kind}, Num: num, Text: text}, Time: at, Arrival: arrival}
	}
	onEachRig(t, func(t *testing.T, r *rig) {
		f := &querytest.Fleet{Devices: []*querytest.Device{
			{ID: "a", Latest: []querytest.Latest{latest("k", muster.Number, 5, "", 10, 10), latest("k", muster.JSON, 0, `"x"`, 20, 5), latest("z", muster.Bool, 1, "", 7, 7)}},
			{ID: "b", Latest: []querytest.Latest{latest("j", muster.JSON, 0, `"x"`, 1, 1), latest("k", muster.Number, 5, "", 10, 10), latest("k", muster.JSON, 0, `"x"`, 11, 12)}},
			{ID: "c", Latest: []querytest.Latest{latest("k", muster.Number, 5, "", 10, 10), latest("k", muster.JSON, 0, `"x"`, 10, 10)}},
		}}
		r.fill(t, f)
		for text, want := range map[string]string{"v.k=5": "[a]", `v.k="x"`: "[b c]", "v.k": "[a b c]", "v.z=true": "[a]", "v.j~X": "[b]", "v.k<9 v.z": "[a]"} {
			r.wantFound(t, f, text)
			if got := fmt.Sprint(f.Matches(parsed(t, text))); got != want {
				t.Errorf("%s finds %s, want %s", text, got, want)
			}
		}
	})
}

func parsed(t *testing.T, text string) *query.Expr {
	t.Helper()
	e, err := query.Parse(text)
	wantNil(t, err)
	return e
}

func TestSelectRefusesAMeaninglessLimit(t *testing.T) {
	onEachRig(t, func(t *testing.T, r *rig) {
		for _, limit := range []int{0, -1, control.MaxSelected + 1} {
			_, err := r.c.SelectDevices(t.Context(), &query.Expr{}, 0, "", limit)
			wantKind(t, err, muster.Invalid)
		}
	})
}

// TestIndexedTermsUseTheirIndex asks both planners, with enough devices that a scan is
// worth avoiding.
func TestIndexedTermsUseTheirIndex(t *testing.T) {
	onEachRig(t, func(t *testing.T, r *rig) {
		r.manyDevices(t)
		for _, text := range []string{
			"id=d100", "id:d100*", "group:small", "profile:rare", "parent:gw", "tag:site=b7", "tag:rare", "fw=9.9", "group:small status!=online v.t>1",
			"(tag:site=b7 twin.reported.a=1) not name:x", "id=d100 or id=d101", "tag:site=b7 seen>10m",
		} {
			statement, args := r.c.SelectSQL(parsed(t, text), querytest.Now, 100)
			if plan := r.plan(t, statement, args); scansDevices(plan) {
				t.Errorf("%s scans all devices:\n%s", text, plan)
			}
		}
		for _, text := range []string{"name:x", "not id=d100", "id=d100 or name:x", "v.t>1"} {
			statement, args := r.c.SelectSQL(parsed(t, text), querytest.Now, 10_000)
			if plan := r.plan(t, statement, args); !scansDevices(plan) {
				t.Errorf("%s should scan; the test cannot tell:\n%s", text, plan)
			}
		}
	})
}

// manyDevices makes 5,000 devices, of which few have what the indexed terms ask for.
func (r *rig) manyDevices(t *testing.T) {
	t.Helper()
	var ds []devices.Device
	for i := range 5000 {
		tags := map[string]string{"site": fmt.Sprintf("b%d", i%500)}
		d := devices.Device{ID: muster.DeviceID(fmt.Sprintf("d%d", i)), Profile: "default"}
		d.Groups, _ = devices.GroupsOf([]string{"big"})
		if i%1000 == 0 {
			tags["rare"] = "x"
			d.Profile, d.Parent, d.Firmware = "rare", "gw", "9.9"
			d.Groups, _ = devices.GroupsOf([]string{"small"})
		}
		d.Tags, _ = devices.TagsOf(tags)
		ds = append(ds, d)
	}
	for _, name := range []string{"small", "big"} {
		wantNil(t, r.c.PutGroup(t.Context(), devices.Group{Name: name}))
	}
	wantNil(t, r.c.InsertDevices(t.Context(), ds, nil))
	r.exec(t, "ANALYZE")
}

func (r *rig) selects() *sql.DB {
	if r.db.Query != nil {
		return r.db.Query
	}
	return r.db.Read
}

func (r *rig) plan(t *testing.T, statement string, args []any) string {
	t.Helper()
	explain := "EXPLAIN QUERY PLAN "
	if r.postgres {
		explain = "EXPLAIN "
	}
	rows, err := r.selects().QueryContext(t.Context(), explain+statement, args...)
	wantNil(t, err)
	defer func() { _ = rows.Close() }()
	var lines []string
	for rows.Next() {
		var id, parent, unused int
		var line string
		if r.postgres {
			wantNil(t, rows.Scan(&line))
		} else {
			wantNil(t, rows.Scan(&id, &parent, &unused, &line))
		}
		lines = append(lines, line)
	}
	wantNil(t, rows.Err())
	return strings.Join(lines, "\n")
}

// scansDevices reports whether a plan reads the whole table device, by its rows or by
// its primary key in order.
func scansDevices(plan string) bool {
	lines := strings.Split(plan, "\n")
	for i, line := range lines {
		line = strings.TrimLeft(line, " ->")
		ordered := (strings.HasPrefix(line, "Index Scan") || strings.HasPrefix(line, "Index Only Scan")) && strings.Contains(line, " on device d ")
		if ordered && (i+1 == len(lines) || !strings.Contains(lines[i+1], "Index Cond")) {
			return true
		}
		if strings.HasPrefix(line, "SCAN d") || strings.HasPrefix(line, "Seq Scan on device d ") {
			return true
		}
	}
	return false
}
