package server_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"muster/server"
	"muster/server/servertest"
	"muster/store/postgres/pgtest"
)

// figures is what the System page says of this server and its database.
type figures struct {
	Sections struct {
		Nodes []struct {
			ID         string
			Host       string
			CPUs       int    `json:"cpus"`
			Goroutines int    `json:"goroutines"`
			Heap       uint64 `json:"heap_bytes"`
			Held       uint64 `json:"held_bytes"`
		}
		Database struct {
			Engine, Version, Timescale string
			Bytes                      int64
			Down                       bool
		}
		Timings map[string]struct {
			Count uint64
			P99   float64 `json:"p99_ms"`
		}
		Live map[string]int64
	}
}

func systemFigures(t *testing.T, s *server.Server) (f figures) {
	t.Helper()
	call(t, s, http.MethodGet, "/api/v1/system", nil, &f)
	return f
}

func TestTheSystemPageHasTheNodeItsDatabaseAndHowQuickTheyAre(t *testing.T) {
	dir := t.TempDir()
	s := servertest.Start(t, func(c *server.Config) { c.DataDir = dir })
	token := create(t, s, "d")
	c := dial(t, s, "d", token, "")
	c.wantLive(t)
	call(t, s, http.MethodPost, "/api/v1/telemetry?device=d", map[string]any{"v": 1}, nil)
	ledger(t, s, 1)
	f := systemFigures(t, s).Sections
	if len(f.Nodes) != 1 || len(f.Nodes[0].ID) != 16 || f.Nodes[0].CPUs < 1 || f.Nodes[0].Goroutines < 10 || f.Nodes[0].Heap == 0 || f.Nodes[0].Held < f.Nodes[0].Heap {
		t.Errorf("the nodes are %+v", f.Nodes)
	}
	info, err := os.Stat(filepath.Join(dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	if f.Database.Engine != "sqlite" || f.Database.Down || f.Database.Bytes < info.Size() {
		t.Errorf("the database is %+v, and control.db alone has %d bytes", f.Database, info.Size())
	}
	for _, name := range []string{"log", "store"} {
		if got := f.Timings[name]; got.Count < 1 || got.P99 <= 0 {
			t.Errorf("%s takes %+v", name, got)
		}
	}
	if _, ok := f.Live["connections"]; !ok {
		t.Errorf("the live gateway says %v", f.Live)
	}
}

func TestTheSystemPageSaysWhatPostgreSQLIs(t *testing.T) {
	url := pgtest.Empty(t, pgtest.Server(t, "MUSTER_TEST_TIMESCALE"))
	s := servertest.Start(t, func(c *server.Config) { c.DatabaseURL = url })
	f := systemFigures(t, s).Sections.Database
	if f.Engine != "postgres" || f.Version == "" || f.Timescale == "" || f.Bytes < 1<<20 {
		t.Errorf("%+v", f)
	}
}
