package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"muster"
	"muster/ingest"
	"muster/store/postgres/pgtest"
)

const day = 24 * 3600 * muster.Micros(1_000_000)

// numbers is a reading of one key.
func numbers(device string, at muster.Micros, v float64) muster.Reading {
	layout := muster.NewLayout([]muster.Key{{Name: "v"}})
	return muster.Reading{Device: muster.DeviceID(device), Time: at, Layout: layout, Numbers: []float64{v}}
}

// texts is a reading of one JSON key.
func texts(device string, at muster.Micros, text string) muster.Reading {
	layout := muster.NewLayout([]muster.Key{{Name: "j", Kind: muster.JSON}})
	return muster.Reading{Device: muster.DeviceID(device), Time: at, Layout: layout, Texts: []string{text}}
}

func stored(t *testing.T, s *Telemetry, rs ...muster.Reading) []ingest.Outcome {
	t.Helper()
	out, err := s.Append(t.Context(), ingest.Batch{Readings: rs})
	if err != nil {
		t.Fatalf("append: %v (%v)", err, errors.Unwrap(err))
	}
	return out
}

func wantKind(t *testing.T, err error, want muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != want {
		t.Errorf("the answer is %v of kind %v, want kind %v", err, muster.KindOf(err), want)
	}
}

func wantCount(t *testing.T, dsn, sql string, want int64) {
	t.Helper()
	if got := query(t, dsn, sql); len(got) != 1 || got[0][0] != want {
		t.Errorf("%s gives %v, want %d", sql, got, want)
	}
}

func TestDeadServer(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		p, through := proxied(t, dsn)
		s := opened(t, through)
		stored(t, s, numbers("d", 0, 1))
		try := func(at muster.Micros) error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := s.Append(ctx, ingest.Batch{Readings: []muster.Reading{numbers("d", at, 1)}})
			return err
		}
		within := func(at muster.Micros) {
			t.Helper()
			began := time.Now()
			wantKind(t, try(at), muster.Unavailable)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("append took %v under a deadline of 2s", took)
			}
		}
		recovers := func(at muster.Micros) {
			t.Helper()
			var err error
			for range writeConns + 1 { // each connection may find out by itself
				if err = try(at); err == nil {
					return
				}
			}
			t.Errorf("append still fails after the server is back: %v", err)
		}
		t.Run("a server that is gone makes append unavailable", func(t *testing.T) {
			p.stop()
			within(1)
		})
		t.Run("append works again by itself when the server is back", func(t *testing.T) {
			p.start(t)
			recovers(2)
		})
		t.Run("a server that takes connections and never answers makes append unavailable within its deadline", func(t *testing.T) {
			p.stop()
			p.setMute(true)
			p.start(t)
			within(3)
		})
		t.Run("and append works again after that", func(t *testing.T) {
			p.stop()
			p.setMute(false)
			p.start(t)
			recovers(4)
		})
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default WHERE time IN ('epoch', timestamptz 'epoch' + interval '2us', timestamptz 'epoch' + interval '4us')`, 3)
	})
}

func TestOpenRefused(t *testing.T) {
	dsn := pgtest.Server(t, "MUSTER_TEST_POSTGRES")
	const password = "s3cret-Pa55"
	p, through := proxied(t, strings.Replace(dsn, "postgres@", "postgres:"+password+"@", 1))
	p.stop()
	closed := through
	mute, hanging := proxied(t, strings.Replace(dsn, "postgres@", "postgres:"+password+"@", 1))
	mute.setMute(true)
	cases := []struct {
		name, url string
		kind      muster.Kind
		says      string
	}{
		{"nobody listens", closed, muster.Unavailable, "does not answer: connect: connection refused"},
		{"the server never answers", hanging, muster.Unavailable, "does not answer: no answer within 4s"},
		{"the host does not exist", "postgres://u:" + password + "@host.invalid/db", muster.Unavailable, "does not answer: no such host host.invalid"},
		{"the database does not exist", strings.Replace(dsn, "/postgres?", "/no_such_database?", 1), muster.Invalid, "refuses muster: database \"no_such_database\" does not exist (SQLSTATE 3D000)"},
		{"the URL is malformed", "postgres://u:" + password + "@host:port/db", muster.Invalid, "the database URL cannot be read"},
		{"the URL has an unreadable setting", "postgres://u:" + password + "@host/db?connect_timeout=x", muster.Invalid, "the database URL cannot be read"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			s, err := Open(t.Context(), c.url, slog.New(slog.DiscardHandler))
			if err == nil {
				_ = s.Close()
			}
			wantKind(t, err, c.kind)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("open took %v, want at most 5s", took)
			}
			if !strings.Contains(muster.Public(err), c.says) || strings.Contains(muster.Public(err), "\n") {
				t.Errorf("open says %q, want one sentence with %q", muster.Public(err), c.says)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(fmt.Sprintf("%+v", e), password) {
					t.Errorf("an error of type %T shows the password", e)
				}
			}
		})
	}
}

func TestClassify(t *testing.T) {
	cases := []struct {
		state string
		want  muster.Kind
	}{
		{"22021", muster.Invalid},
		{"22P05", muster.Invalid},
		{"23502", muster.Invalid},
		{"23505", muster.Invalid},
		{"54000", muster.Invalid},
		{"54001", muster.Invalid},
		{"08006", muster.Unavailable},
		{"40001", muster.Unavailable},
		{"40P01", muster.Unavailable},
		{"42501", muster.Unavailable},
		{"53100", muster.Unavailable},
		{"53300", muster.Unavailable},
		{"57014", muster.Unavailable},
		{"57P01", muster.Unavailable},
		{"55P03", muster.Unavailable},
		{"XX000", muster.Unavailable},
	}
	for _, c := range cases {
		t.Run("SQLSTATE "+c.state+" is "+c.want.String(), func(t *testing.T) {
			err := classify("store a batch", fmt.Errorf("copy: %w", &pgconn.PgError{Code: c.state, Message: "value 42 of the device"}))
			wantKind(t, err, c.want)
			if msg := muster.Public(err); !strings.Contains(msg, c.state) || strings.Contains(msg, "42 of") {
				t.Errorf("the message is %q, want the SQLSTATE in it and not the server's words", msg)
			}
		})
	}
	t.Run("no answer is unavailable", func(t *testing.T) { wantKind(t, classify("x", context.DeadlineExceeded), muster.Unavailable) })
	t.Run("no failure is no error", func(t *testing.T) {
		if err := classify("x", nil); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestTwoProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		stores := make([]*Telemetry, 4)
		t.Run("several open an empty database at once", func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range stores {
				wg.Go(func() {
					var err error
					if stores[i], err = Open(context.Background(), dsn, slog.New(slog.DiscardHandler)); err != nil {
						t.Errorf("open: %v (%v)", err, errors.Unwrap(err))
					}
				})
			}
			wg.Wait()
		})
		if t.Failed() {
			t.FailNow()
		}
		for _, s := range stores {
			t.Cleanup(func() { _ = s.Close() })
		}
		t.Run("several that append the same new devices and rows make each once", func(t *testing.T) {
			var rs []muster.Reading
			for i := range 500 {
				rs = append(rs, numbers(fmt.Sprintf("d-%03d", i%50), muster.Micros(i)*day, float64(i)))
			}
			together(t, stores, func(s *Telemetry) error {
				_, err := s.Append(context.Background(), ingest.Batch{Readings: rs})
				return err
			})
			wantCount(t, dsn, `SELECT count(*) FROM telemetry_default`, 500)
			wantCount(t, dsn, `SELECT count(*) FROM telemetry_device`, 50)
			wantCount(t, dsn, `SELECT count(*) FROM metric_set`, 1)
		})
		t.Run("of several that move the cursor from one place, one does and the others conflict", func(t *testing.T) {
			var mu sync.Mutex
			moved := 0
			together(t, stores, func(s *Telemetry) error {
				_, err := s.Append(context.Background(), ingest.Batch{To: ingest.Cursor{Incarnation: "log", Seq: 9}})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					moved++
				} else if muster.KindOf(err) != muster.Conflict {
					return err
				}
				return nil
			})
			if moved != 1 {
				t.Errorf("%d moved the cursor, want 1", moved)
			}
		})
	})
}

// together calls do for every store at once and fails on any error.
func together(t *testing.T, stores []*Telemetry, do func(*Telemetry) error) {
	t.Helper()
	var wg sync.WaitGroup
	for _, s := range stores {
		wg.Go(func() {
			if err := do(s); err != nil {
				t.Errorf("append: %v (%v)", err, errors.Unwrap(err))
			}
		})
	}
	wg.Wait()
}
