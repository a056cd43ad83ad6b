package controltest_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"muster/devices"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/postgres/pgtest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func onSQLite(t *testing.T, dir string) control.Handles {
	t.Helper()
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	return control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}
}

func onPostgres(t *testing.T, dsn string) control.Handles {
	t.Helper()
	h, err := postgres.OpenControl(t.Context(), dsn)
	must(t, err)
	return h
}

// isNew fails the test unless a database is migrated to the last and holds nothing, and puts a
// device into it.
func isNew(t *testing.T, h control.Handles, d control.Dialect) {
	t.Helper()
	c, have, know, err := control.Look(t.Context(), h, d)
	must(t, err)
	if have != know || have == 0 {
		t.Errorf("the schema is at %d, want %d", have, know)
	}
	n := 0
	must(t, c.LoadDevices(t.Context(), func(devices.Device) error { n++; return nil }))
	if n != 0 {
		t.Errorf("it has %d devices, want none", n)
	}
	must(t, c.InsertDevices(t.Context(), []devices.Device{{ID: "d", Profile: "default"}}, nil))
	must(t, c.Close())
}

func TestEachCopyIsMigratedAndItsOwn(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		for range 2 {
			dir := filepath.Join(t.TempDir(), "data")
			controltest.Fill(t, dir)
			isNew(t, onSQLite(t, dir), control.SQLite())
		}
	})
	t.Run("postgres", func(t *testing.T) {
		server := pgtest.Server(t, "MUSTER_TEST_POSTGRES")
		for range 2 {
			isNew(t, onPostgres(t, controltest.Database(t, server)), control.Postgres())
		}
	})
}

func TestAFileThatIsThereStays(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control.db")
	must(t, os.WriteFile(path, []byte("mine"), 0o600))
	controltest.Fill(t, dir)
	if got, err := os.ReadFile(path); err != nil || string(got) != "mine" {
		t.Errorf("the file holds %q, error %v; want what it held", got, err)
	}
}
