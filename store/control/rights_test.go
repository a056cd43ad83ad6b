package control_test

import (
	"crypto/sha256"
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/store/control"
)

func profiles(t *testing.T, c *control.Control) (out []devices.Profile) {
	t.Helper()
	wantNil(t, c.LoadProfiles(t.Context(), func(p devices.Profile) error { out = append(out, p); return nil }))
	return out
}

func TestProfiles(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		full := devices.Profile{
			Name: "Full", Publish: []string{`a/"{id}"/温`, "b"}, Subscribe: []string{"$SYS/#", `c\d`}, Level: "stored", MessageRate: 7, ByteRate: 1 << 40,
		}
		bare := devices.Profile{Name: "bare"}
		want := func(want ...devices.Profile) {
			t.Helper()
			if d := cmp.Diff(want, profiles(t, c)); d != "" {
				t.Errorf("profiles differ (-want +got):\n%s", d)
			}
		}
		t.Run("a new store has none", func(t *testing.T) { want() })
		t.Run("profiles are put and listed bytewise", func(t *testing.T) {
			wantNil(t, c.PutProfile(ctx, bare))
			wantNil(t, c.PutProfile(ctx, full))
			want(full, bare)
		})
		t.Run("a profile is replaced in all its parts", func(t *testing.T) {
			full.Publish, full.Subscribe, full.Level, full.MessageRate, full.ByteRate = nil, []string{"x"}, "", 0, 3
			wantNil(t, c.PutProfile(ctx, full))
			want(full, bare)
		})
		t.Run("a profile that a device has is not deleted", func(t *testing.T) {
			a := device("a")
			a.Profile = "bare"
			wantNil(t, c.InsertDevices(ctx, []devices.Device{a}, nil))
			wantKind(t, c.DeleteProfile(ctx, "bare"), muster.Conflict)
			want(full, bare)
			a.Profile = "Full"
			wantNil(t, c.UpdateDevices(ctx, []devices.Device{a}))
		})
		t.Run("another is deleted once, and names differ by case", func(t *testing.T) {
			wantKind(t, c.DeleteProfile(ctx, "Bare"), muster.NotFound)
			wantNil(t, c.DeleteProfile(ctx, "bare"))
			wantKind(t, c.DeleteProfile(ctx, "bare"), muster.NotFound)
			want(full)
		})
	})
}

func TestDevicesHaveProfilesAndParents(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		a, b, d, x := device("a"), device("b"), device("d"), device("D")
		a.Parent, b.Parent, d.Profile = "d", "a", "p"
		t.Run("children may be inserted before their parents", func(t *testing.T) {
			wantNil(t, c.InsertDevices(ctx, []devices.Device{a, b, d, x}, nil))
			wantHeld(t, c, held{Devices: []devices.Device{x, a, b, d}})
		})
		t.Run("name, profile and parent are updated, the rest stays", func(t *testing.T) {
			b = devices.Device{ID: "b", Name: "new", Created: b.Created, Profile: "q", Parent: "d"}
			changed := b
			changed.Created = 1
			wantNil(t, c.UpdateDevices(ctx, []devices.Device{changed}))
			wantHeld(t, c, held{Devices: []devices.Device{x, a, b, d}})
		})
		t.Run("a device that is not there is not found", func(t *testing.T) {
			wantKind(t, c.UpdateDevices(ctx, []devices.Device{device("nobody")}), muster.NotFound)
		})
		t.Run("deleting a parent clears it, and no other's", func(t *testing.T) {
			x.Parent = "a"
			wantNil(t, c.UpdateDevices(ctx, []devices.Device{x}))
			wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"d"}))
			a.Parent, b.Parent = "", ""
			wantHeld(t, c, held{Devices: []devices.Device{x, a, b}})
		})
	})
}

func TestServiceAccounts(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		s1 := accounts.ServiceAccount{
			ID: "svc_1", Name: "grafana", Hash: sha256.Sum256([]byte("1")), Publish: []string{"a/#", `"é"`}, Subscribe: []string{"#"}, Created: 1, Expires: 2,
		}
		s2 := accounts.ServiceAccount{ID: "svc_2", Name: "b", Hash: sha256.Sum256([]byte("2")), Disabled: true, Created: 3}
		want := func(want ...accounts.ServiceAccount) {
			t.Helper()
			got, err := c.ServiceAccounts(ctx)
			wantNil(t, err)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("service accounts differ (-want +got):\n%s", d)
			}
		}
		want()
		wantNil(t, c.InsertServiceAccount(ctx, s2))
		wantNil(t, c.InsertServiceAccount(ctx, s1))
		wantKind(t, c.InsertServiceAccount(ctx, s1), muster.Conflict)
		want(s1, s2)
		s1.Publish, s1.Subscribe, s1.Disabled = nil, []string{"x"}, true
		changed := s1
		changed.Name, changed.Created = "not changed", 99
		wantNil(t, c.UpdateServiceAccount(ctx, changed))
		s2.Disabled = false
		wantNil(t, c.UpdateServiceAccount(ctx, s2))
		want(s1, s2)
		wantKind(t, c.UpdateServiceAccount(ctx, accounts.ServiceAccount{ID: "svc_9"}), muster.NotFound)
		wantNil(t, c.DeleteServiceAccount(ctx, "svc_1"))
		wantKind(t, c.DeleteServiceAccount(ctx, "svc_1"), muster.NotFound)
		want(s2)
	})
}

func TestDevicesOfTheSchemaBeforeProfilesGetTheDefaultOne(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		a := device("a")
		c, err := control.Open(t.Context(), e.open(t), e.dialect)
		wantNil(t, err)
		wantNil(t, c.Close())
		h := e.open(t)
		unmigrate(t, h.Write)
		_, err = h.Write.ExecContext(t.Context(), `INSERT INTO device (id, name, created) VALUES ($1, $2, $3)`, string(a.ID), a.Name, int64(a.Created))
		wantNil(t, err)
		wantNil(t, h.Close())
		wantHeld(t, e.control(t), held{Devices: []devices.Device{a}})
	})
}

// unmigrate has only what the first migration makes.
func unmigrate(t *testing.T, db *sql.DB) {
	t.Helper()
	tables, cascade := `SELECT tablename FROM pg_tables WHERE schemaname = current_schema()`, " CASCADE"
	if _, err := db.ExecContext(t.Context(), `SELECT 1 FROM sqlite_master`); err == nil {
		tables, cascade = `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`, ""
	}
	rows, err := db.QueryContext(t.Context(), tables)
	wantNil(t, err)
	defer rows.Close()
	var statements []string
	for rows.Next() {
		var name string
		wantNil(t, rows.Scan(&name))
		if name != "muster_control_schema" {
			statements = append(statements, `DROP TABLE `+name+cascade)
		}
	}
	wantNil(t, rows.Err())
	wantNil(t, rows.Close()) // before the tables go
	first, err := os.ReadFile("migrations/00001_control.sql")
	wantNil(t, err)
	statements = append(statements, string(first), `DELETE FROM muster_control_schema WHERE version_id > 1`)
	for _, s := range statements {
		_, err := db.ExecContext(t.Context(), s)
		wantNil(t, err)
	}
}

func TestWhatFindsDevicesByParentAndProfileUsesItsIndex(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		h := e.open(t)
		c, err := control.Open(t.Context(), h, e.dialect)
		wantNil(t, err)
		defer func() { wantNil(t, c.Close()) }()
		for index, query := range map[string]string{
			"device_parent":  `UPDATE device SET parent = '' WHERE parent = 'x' AND parent <> ''`,
			"device_profile": `UPDATE device SET id = id WHERE profile = 'x' AND profile <> 'default'`,
		} {
			if plan := explain(t, e, h.Write, query); !strings.Contains(plan, index) {
				t.Errorf("the plan does not use %s: %s", index, plan)
			}
		}
	})
}

func explain(t *testing.T, e engine, db *sql.DB, query string) string {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	wantNil(t, err)
	defer func() { wantNil(t, tx.Rollback()) }()
	verb := "EXPLAIN QUERY PLAN "
	if e.postgres {
		verb = "EXPLAIN "
		_, err := tx.ExecContext(t.Context(), "SET LOCAL enable_seqscan = off") // a table without rows is not worth an index
		wantNil(t, err)
	}
	rows, err := tx.QueryContext(t.Context(), verb+query)
	wantNil(t, err)
	defer func() { wantNil(t, rows.Close()) }()
	columns, err := rows.Columns()
	wantNil(t, err)
	var plan []string
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(sql.NullString)
		}
		wantNil(t, rows.Scan(values...))
		plan = append(plan, values[len(values)-1].(*sql.NullString).String)
	}
	wantNil(t, rows.Err())
	return strings.Join(plan, "\n")
}
