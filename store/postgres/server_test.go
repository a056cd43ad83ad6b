package postgres

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"muster/store/postgres/pgtest"
	"muster/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engines are the servers that a test runs on, by the variable with their URL.
var engines = []struct{ name, env string }{
	{"timescaledb", "MUSTER_TEST_TIMESCALE"},
	{"plain postgresql", "MUSTER_TEST_POSTGRES"},
}

// onEach runs a test on every engine, each time in a database of its own.
func onEach(t *testing.T, run func(t *testing.T, dsn string)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { run(t, pgtest.Empty(t, pgtest.Server(t, e.env))) })
	}
}

// admin runs one statement on a connection of its own.
func admin(t storetest.TB, dsn, sql string, args ...any) {
	t.Helper()
	c := connect(t, dsn)
	defer closeConn(t, c)
	if _, err := c.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func connect(t storetest.TB, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return c
}

func closeConn(t storetest.TB, c *pgx.Conn) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Errorf("close a connection: %v", err)
	}
}

// opened returns a store on dsn that the test's end closes.
func opened(t testing.TB, dsn string) *Telemetry {
	t.Helper()
	s, err := Open(t.Context(), dsn, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// query returns all rows of sql, integers as int64.
func query(t storetest.TB, dsn, sql string) [][]any {
	t.Helper()
	c := connect(t, dsn)
	defer closeConn(t, c)
	rows, err := c.Query(context.Background(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	defer rows.Close()
	var out [][]any
	for rows.Next() {
		v, err := rows.Values()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		for i := range v {
			if n, ok := v[i].(int32); ok {
				v[i] = int64(n)
			}
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func TestConformance(t *testing.T) {
	const maxRejected = 2000
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			dsn := pgtest.Server(t, e.env)
			storetest.Run(t, func(t testing.TB) storetest.Database {
				db := pgtest.Empty(t, dsn)
				return storetest.Database{
					Open: func(ctx context.Context) (storetest.Store, error) {
						return open(ctx, db, slog.New(slog.DiscardHandler), maxRejected)
					},
					SQL: func(t storetest.TB, q string) [][]any { return query(t, db, q) },
					SetSchemaVersion: func(t storetest.TB, version int64) {
						admin(t, db, "INSERT INTO "+schemaTable+" (version_id, is_applied) VALUES ($1, true)", version)
					},
					MaxRejected: maxRejected,
				}
			})
		})
	}
}
