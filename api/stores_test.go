package api_test

import (
	"os"
	"testing"

	"muster/api"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// opener opens empty control data; dir is for those who need one.
type opener func(t *testing.T, dir string) (control.Handles, control.Dialect)

// rigMaker is newRig over one store.
type rigMaker func(t *testing.T, change ...func(*api.Deps)) *rig

// onEachStore runs fn on SQLite, and on the PostgreSQL that the environment has.
func onEachStore(t *testing.T, fn func(t *testing.T, newRig rigMaker)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { fn(t, newRig) })
	const env = "MUSTER_TEST_POSTGRES"
	if server := os.Getenv(env); server != "" {
		t.Run(env, func(t *testing.T) {
			fn(t, func(t *testing.T, change ...func(*api.Deps)) *rig {
				return newRigOn(t, postgresControl(server), change...)
			})
		})
	}
}

func sqliteControl(t *testing.T, dir string) (control.Handles, control.Dialect) {
	t.Helper()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite()
}

// postgresControl makes a database without data on a server until the test ends.
func postgresControl(server string) opener {
	return func(t *testing.T, _ string) (control.Handles, control.Dialect) {
		t.Helper()
		h, err := postgres.OpenControl(t.Context(), controltest.Database(t, server))
		if err != nil {
			t.Fatal(err)
		}
		return h, control.Postgres()
	}
}
