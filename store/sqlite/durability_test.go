package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/ingest"
)

var oneKey = muster.NewLayout([]muster.Key{{Name: "v"}})

// numbered returns n readings of device from microsecond from on.
func numbered(device muster.DeviceID, from, n int) []muster.Reading {
	out := make([]muster.Reading, n)
	for i := range out {
		out[i] = muster.Reading{Device: device, Time: muster.Micros(from + i), Layout: oneKey, Numbers: []float64{float64(from + i)}}
	}
	return out
}

func mustAppend(t testing.TB, s *Telemetry, rows []muster.Reading) {
	t.Helper()
	if _, err := s.Append(context.Background(), ingest.Batch{Readings: rows}); err != nil {
		t.Fatal(err)
	}
}

func count(t testing.TB, s *Telemetry, device muster.DeviceID) int {
	t.Helper()
	n := 0
	for _, err := range s.Range(context.Background(), ingest.RangeQuery{Device: device, To: 1 << 60}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// reopenCopy opens a store on copies of the named files, as a start after the
// process or the machine died would find them.
func reopenCopy(t *testing.T, dir string, files ...string) *Telemetry {
	t.Helper()
	to := t.TempDir()
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), to, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestWhatWasAppendedSurvivesAKill(t *testing.T) {
	s, dir := openTest(t)
	mustAppend(t, s, numbered("d", 0, 100))
	after := reopenCopy(t, dir, "telemetry.db", "telemetry.db-wal")
	if n := count(t, after, "d"); n != 100 {
		t.Errorf("%d readings after a kill, want 100", n)
	}
}

func TestSyncPutsAllThatWasAppendedInTheMainFile(t *testing.T) {
	s, dir := openTest(t)
	mustAppend(t, s, numbered("d", 0, 5000))
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := reopenCopy(t, dir, "telemetry.db") // the log is lost with what was not flushed
	if n := count(t, after, "d"); n != 5000 {
		t.Errorf("%d readings in the main file after Sync, want 5000", n)
	}
}

func TestSyncWorksWhileAReaderHoldsAnOldSnapshot(t *testing.T) {
	s, _ := openTest(t)
	mustAppend(t, s, numbered("d", 0, 10))
	for _, err := range s.Range(t.Context(), ingest.RangeQuery{Device: "d", To: 1 << 60}) {
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, numbered("d", 100, 10))
		if err := s.Sync(t.Context()); err != nil {
			t.Fatalf("sync: %v", err)
		}
		break
	}
	var syncs, synchronous int
	if err := s.write.QueryRow(`SELECT syncs FROM durability`).Scan(&syncs); err != nil || syncs != 1 {
		t.Errorf("the log was flushed %d times, error %v; want once", syncs, err)
	}
	if err := s.write.QueryRow(`PRAGMA synchronous`).Scan(&synchronous); err != nil || synchronous != 1 {
		t.Errorf("synchronous is %d after it, error %v; want 1 (NORMAL)", synchronous, err)
	}
}

func TestErrorsSayWhetherTryingAgainCanHelp(t *testing.T) {
	t.Run("a full disk is unavailable, and the same batch is stored once there is room", func(t *testing.T) {
		s, _ := openTest(t)
		var pages int
		if err := s.write.QueryRow(`PRAGMA page_count`).Scan(&pages); err != nil {
			t.Fatal(err)
		}
		setPages := func(n int) {
			if _, err := s.write.Exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, n)); err != nil {
				t.Fatal(err)
			}
		}
		setPages(pages + 1)
		b := ingest.Batch{To: ingest.Cursor{Incarnation: "i", Seq: 1}, Readings: numbered("d", 0, 5000)}
		if _, err := s.Append(t.Context(), b); muster.KindOf(err) != muster.Unavailable {
			t.Errorf("append answers %v of kind %v, want unavailable", err, muster.KindOf(err))
		}
		setPages(1 << 30)
		if w, _, err := s.Cursors(t.Context()); err != nil || w != (ingest.Cursor{}) {
			t.Errorf("the cursor is %v, error %v", w, err)
		}
		if _, err := s.Append(t.Context(), b); err != nil {
			t.Errorf("append with room: %v", err)
		}
		if n := count(t, s, "d"); n != 5000 {
			t.Errorf("%d readings, want 5000", n)
		}
	})
	t.Run("a lock held by another process is unavailable", func(t *testing.T) {
		s, dir := openTest(t)
		db, err := sql.Open("sqlite", filepath.Join(dir, "telemetry.db")+"?_txlock=immediate")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = s.Append(ctx, ingest.Batch{Readings: numbered("d", 0, 1)})
		if muster.KindOf(err) != muster.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("append answers %v of kind %v, want unavailable by the deadline", err, muster.KindOf(err))
		}
	})
	t.Run("what the database refuses is invalid", func(t *testing.T) {
		s, _ := openTest(t)
		if _, err := s.write.Exec(`CREATE TRIGGER no BEFORE INSERT ON telemetry_default WHEN NEW.time = 7 BEGIN SELECT RAISE(ABORT, 'no'); END`); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(t.Context(), ingest.Batch{Readings: numbered("d", 0, 100)}); muster.KindOf(err) != muster.Invalid {
			t.Errorf("append answers %v of kind %v, want invalid", err, muster.KindOf(err))
		}
		if n := count(t, s, "d"); n != 0 {
			t.Errorf("%d readings are kept of a refused batch", n)
		}
	})
	t.Run("a batch over the largest size is invalid", func(t *testing.T) {
		s, _ := openTest(t)
		if _, err := s.Append(t.Context(), ingest.Batch{Readings: numbered("d", 0, ingest.MaxBatch+1)}); muster.KindOf(err) != muster.Invalid {
			t.Errorf("append answers %v, want invalid", err)
		}
	})
	t.Run("a file that is no database is an error on opening", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "telemetry.db"), make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("a file of zeros opens as a store")
		}
	})
}

// TestAllAtOnce has writers, readers, Sync and Shrink meet; the race detector watches.
func TestAllAtOnce(t *testing.T) {
	s, _ := openTest(t)
	var wg sync.WaitGroup
	run := func(f func(i int) error) {
		wg.Go(func() {
			for i := range 30 {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 2 {
		device := muster.DeviceID(fmt.Sprintf("w-%d", w))
		run(func(i int) error {
			_, err := s.Append(context.Background(), ingest.Batch{
				Readings: numbered(device, i*50, 60),
				Rejected: []muster.Rejected{{Device: device, Arrival: muster.Micros(i), Topic: "t", Code: "c", Reason: "r"}},
			})
			return err
		})
	}
	run(func(i int) error {
		row := ingest.LatestRow{Device: "w-0", Values: []ingest.LatestValue{{Value: muster.Value{Key: muster.Key{Name: "v"}, Num: float64(i)}}}}
		return s.SaveLatest(context.Background(), []ingest.LatestRow{row}, ingest.Cursor{Seq: uint64(i)})
	})
	run(func(int) error { return s.Sync(context.Background()) })
	run(func(int) error { return s.Shrink(context.Background()) })
	for range 12 { // more than the read pool has
		run(func(int) error {
			last := muster.Micros(-1)
			for r, err := range s.Range(context.Background(), ingest.RangeQuery{Device: "w-1", To: 1 << 60}) {
				if err != nil {
					return err
				}
				if r.Time <= last || r.Numbers[0] != float64(r.Time) {
					return fmt.Errorf("reading at %d after %d has %v", r.Time, last, r.Numbers)
				}
				last = r.Time
			}
			return nil
		})
	}
	wg.Wait()
	for _, d := range []muster.DeviceID{"w-0", "w-1"} {
		if n := count(t, s, d); n != 29*50+60 {
			t.Errorf("%s has %d readings, want %d", d, n, 29*50+60)
		}
		if r, err := s.Rejected(t.Context(), d, 100); err != nil || len(r) != 30 {
			t.Errorf("%s has %d rejected, error %v; want 30", d, len(r), err)
		}
	}
}

func TestControlIsDurableAndKeepsForeignKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by open?#%41") // characters that a URI would take amiss
	c, err := OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := os.Stat(filepath.Join(dir, "control.db")); err != nil {
		t.Errorf("control.db is not where it was asked for: %v", err)
	}
	for pragma, want := range map[string]string{"synchronous": "2", "foreign_keys": "1", "journal_mode": "wal", "busy_timeout": "5000"} {
		var got string
		if err := c.Write.QueryRow(`PRAGMA ` + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("PRAGMA %s of the write handle is %q, error %v; want %q", pragma, got, err, want)
		}
	}
	if n := c.Write.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("the write handle has up to %d connections, want 1", n)
	}
	if _, err := c.Write.Exec(`CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p (id)); INSERT INTO p VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write.Exec(`INSERT INTO c VALUES (2)`); err == nil {
		t.Error("a row without its parent is taken")
	}
	if _, err := c.Read.Exec(`INSERT INTO p VALUES (2)`); err == nil {
		t.Error("the read pool can write")
	}
	var n int
	if err := c.Read.QueryRow(`SELECT count(*) FROM p`).Scan(&n); err != nil || n != 1 {
		t.Errorf("the read pool sees %d rows, error %v; want 1", n, err)
	}
}
