package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"muster"
	"muster/ingest"
)

func TestErasingTouchesFewChunksAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		const weeks = 300
		var rs []muster.Reading
		for w := range weeks {
			rs = append(rs, numbers("doomed", muster.Micros(w)*week, 1), numbers("other", muster.Micros(w)*week, 1))
		}
		stored(t, s, rs...)
		calls := 0
		for left := true; left; calls++ {
			err := pgx.BeginFunc(t.Context(), s.write, func(tx pgx.Tx) (err error) {
				if left, err = s.erase(t.Context(), tx, "doomed"); err != nil {
					return err
				}
				var locked int
				err = tx.QueryRow(t.Context(), `SELECT count(DISTINCT c.oid) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
					WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND (c.relname LIKE '\_hyper\_%' OR c.relname LIKE 'telemetry\_default\_%')`).Scan(&locked)
				if locked == 0 || locked > maxWeeks {
					t.Errorf("call %d locks %d chunks, want 1 to %d", calls, locked, maxWeeks)
				}
				return err
			})
			if err != nil || calls > weeks {
				t.Fatalf("call %d: %v", calls, err)
			}
		}
		if want := weeks/maxWeeks + 1; calls != want {
			t.Errorf("%d calls erase %d weeks, want %d", calls, weeks, want)
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default`, weeks)
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_points WHERE device = 'other'`, weeks)
		wantCount(t, dsn, `SELECT count(*) FROM erased_device`, 0)
	})
}

func TestErasingDeletesABoundedNumberOfReadingsOfOneTime(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		const sets = eraseRows + 10
		for from := 0; from < sets; from += ingest.MaxBatch { // as many sets of keys at one time
			var rs []muster.Reading
			for i := from; i < min(from+ingest.MaxBatch, sets); i++ {
				l := muster.NewLayout([]muster.Key{{Name: "k" + string(rune('a'+i%26)) + string(rune(0x4e00+i/26))}})
				l.Loose = i%2 == 0
				rs = append(rs, muster.Reading{Device: "doomed", Time: 7, Layout: l, Numbers: []float64{1}})
			}
			stored(t, s, rs...)
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default`, sets)
		left, err := s.Erase(t.Context(), "doomed")
		if err != nil || !left {
			t.Fatalf("erase: %v, %v", left, err)
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default`, sets-eraseRows)
		if left, err = s.Erase(t.Context(), "doomed"); err != nil || left {
			t.Errorf("erase: %v, %v", left, err)
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default`, 0)
	})
}

func TestErasingASealedChunkGoesThroughTheHypertable(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		for w := range 3 {
			stored(t, s, numbers("doomed", muster.Micros(w)*week, 1), numbers("doomed", muster.Micros(w+1)*week-1, 1), numbers("other", muster.Micros(w)*week, 1))
		}
		var id int32
		err := pgx.BeginFunc(t.Context(), s.write, func(tx pgx.Tx) error {
			if err := tx.QueryRow(t.Context(), `SELECT id FROM telemetry_device WHERE name = 'doomed'`).Scan(&id); err != nil {
				return err
			}
			room := int64(1)
			p := part{low: week, sealed: true}
			before, err := p.erase(t.Context(), tx, &grave{id, 2 * week}, &room)
			if before != week {
				t.Errorf("nothing is left from %d on, want %d", before, week)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_points WHERE device = 'doomed'`, 4)
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_points WHERE device = 'other'`, 3)
	})
}
