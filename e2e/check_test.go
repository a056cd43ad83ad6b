package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// seqQuery is what every engine is asked after a run.
const seqQuery = `SELECT device, value FROM telemetry_points WHERE key = 'seq'`

// rows counts the rows of each (device, seq), as the database itself has them.
type rows struct {
	total int
	of    map[string]map[int]int
}

func (r *rows) add(device string, seq float64) error {
	if seq != math.Trunc(seq) || seq < 0 {
		return fmt.Errorf("device %s has the seq %v, which it never sent", device, seq)
	}
	if r.of[device] == nil {
		r.of[device] = map[int]int{}
	}
	r.of[device][int(seq)]++
	r.total++
	return nil
}

// readSQLite reads telemetry.db of a data directory that no server has open.
func readSQLite(t *testing.T, data string) *rows {
	t.Helper()
	file := url.URL{Scheme: "file", Path: filepath.Join(data, "telemetry.db"), RawQuery: "mode=ro"}
	db, err := sql.Open("sqlite", file.String())
	if err != nil {
		t.Fatalf("open telemetry.db: %v", err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	found, err := db.QueryContext(ctx, seqQuery)
	if err != nil {
		t.Fatalf("read telemetry.db: %v", err)
	}
	defer found.Close()
	r := &rows{of: map[string]map[int]int{}}
	for found.Next() {
		var device string
		var seq float64
		if err := found.Scan(&device, &seq); err != nil {
			t.Fatalf("read telemetry.db: %v", err)
		}
		if err := r.add(device, seq); err != nil {
			t.Error(err)
		}
	}
	if err := found.Err(); err != nil {
		t.Fatalf("read telemetry.db: %v", err)
	}
	return r
}

// readPostgres reads the database at dsn.
func readPostgres(t *testing.T, dsn string) *rows {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := connect(t, dsn)
	defer func() { _ = c.Close(context.Background()) }()
	found, err := c.Query(ctx, seqQuery)
	if err != nil {
		t.Fatalf("read the database: %v", err)
	}
	r := &rows{of: map[string]map[int]int{}}
	var device string
	var seq float64
	_, err = pgx.ForEachRow(found, []any{&device, &seq}, func() error { return r.add(device, seq) })
	if err != nil {
		t.Fatalf("read the database: %v", err)
	}
	return r
}

// check holds the rows to what the devices saw. With exact every acked message is
// there once and none twice; otherwise every acked message is there at least once,
// and at most once more for each time it was sent again.
func (r *rows) check(t *testing.T, devices []*publisher, exact bool) {
	t.Helper()
	acked, lost, extra, unknown, resent := 0, 0, 0, 0, 0
	for _, p := range devices {
		have := r.of[p.id]
		for seq, n := range have {
			most := 1
			switch {
			case seq >= len(p.acked):
				unknown += n
				continue
			case !exact:
				most += int(p.resent[seq])
			}
			extra += max(n-most, 0)
		}
		for seq, ok := range p.acked {
			resent += int(p.resent[seq])
			if ok {
				acked++
			}
			if ok && have[seq] == 0 {
				if lost++; lost <= 5 {
					t.Errorf("device %s, message %d of %d: acked and not in the database", p.id, seq, len(p.acked))
				}
			}
		}
	}
	t.Logf("%d acked, %d sent again, %d rows", acked, resent, r.total)
	if acked == 0 {
		t.Error("nothing was acked")
	}
	if lost > 0 {
		t.Errorf("%d of %d acked messages are not in the database", lost, acked)
	}
	if extra > 0 {
		t.Errorf("%d rows are in the database more often than they may be", extra)
	}
	if unknown > 0 {
		t.Errorf("%d rows are in the database that no device sent", unknown)
	}
}

// timescale returns the server that MUSTER_TEST_TIMESCALE names.
func timescale(t *testing.T) string {
	t.Helper()
	dsn := os.Getenv("MUSTER_TEST_TIMESCALE")
	if dsn == "" {
		missing(t, "MUSTER_TEST_TIMESCALE is not set (scripts/timescale-up.sh prints a DSN)")
	}
	return dsn
}

// sqlOn runs one statement on a connection of its own.
func sqlOn(t *testing.T, dsn, statement string, args ...any) {
	t.Helper()
	c := connect(t, dsn)
	defer func() { _ = c.Close(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := c.Exec(ctx, statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	return c
}
