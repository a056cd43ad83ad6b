package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"muster/ingest"
	"muster/store/storetest"
)

var (
	_ ingest.Store       = (*Telemetry)(nil)
	_ ingest.LatestStore = (*Telemetry)(nil)
	_ ingest.RangeStore  = (*Telemetry)(nil)
	_ ingest.Eraser      = (*Telemetry)(nil)
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Database {
		dir := t.TempDir()
		return storetest.Database{
			Open: func(ctx context.Context) (storetest.Store, error) {
				s, err := open(ctx, dir, slog.New(slog.DiscardHandler), 2000)
				if err != nil {
					return nil, err // a nil *Telemetry would be a Store that is not nil
				}
				return s, nil
			},
			SQL: func(t storetest.TB, query string) [][]any { return query1(t, dir, query) },
			SetSchemaVersion: func(t storetest.TB, version int64) {
				query1(t, dir, fmt.Sprintf(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, 1)`, version))
			},
			MaxRejected: 2000,
		}
	})
}

// query1 runs one statement on a connection of its own.
func query1(t storetest.TB, dir, query string) [][]any {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "telemetry.db"))
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Errorf("%s: %v", query, err)
		}
	}()
	rows, err := db.QueryContext(context.Background(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var out [][]any
	for rows.Next() {
		vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		out = append(out, vals)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}
