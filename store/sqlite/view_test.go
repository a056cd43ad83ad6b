package sqlite

import (
	"context"
	"log/slog"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/ingest"
)

func openTest(t testing.TB) (*Telemetry, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(context.Background(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, dir
}

// edgeFloats are floats at which a decoder by hand goes wrong.
var edgeFloats = []float64{
	0, math.Copysign(0, -1), 1, -1, 0.1, -0.1, 1e-310, -1e-310, 5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308,
	math.MaxFloat64, -math.MaxFloat64, math.Inf(1), math.Inf(-1), 1 << 53, 1<<53 + 2, 4503599627370495.5, math.Pi, 1e22, 1e23,
}

// TestViewDecodesEveryFloat holds the view's arithmetic to Go, for readings that are
// interned and for loose ones.
func TestViewDecodesEveryFloat(t *testing.T) {
	s, _ := openTest(t)
	layout := muster.NewLayout([]muster.Key{{Name: "a"}, {Name: "b"}})
	loose := muster.NewLayout([]muster.Key{{Name: "a"}, {Name: "b"}})
	loose.Loose = true
	at := muster.Micros(0)
	holds := func(t interface {
		Helper()
		Fatalf(string, ...any)
	}, l *muster.Layout, f, g float64,
	) {
		t.Helper()
		at++
		r := muster.Reading{Device: "d", Time: at, Layout: l, Numbers: []float64{f, g}}
		if _, err := s.Append(context.Background(), ingest.Batch{Readings: []muster.Reading{r}}); err != nil {
			t.Fatalf("append: %v", err)
		}
		var a, b float64
		err := s.read.QueryRow(`SELECT (SELECT value FROM telemetry_points WHERE device = 'd' AND key = 'a' AND time = x.at),
			(SELECT value FROM telemetry_points WHERE device = 'd' AND key = 'b' AND time = x.at)
			FROM (SELECT strftime('%Y-%m-%dT%H:%M:%S', ? / 1000000, 'unixepoch') || printf('.%06dZ', ? % 1000000) AS at) x`, int64(at), int64(at)).Scan(&a, &b)
		if err != nil {
			t.Fatalf("read the view for %v and %v: %v", f, g, err)
		}
		if a != f || b != g {
			t.Fatalf("the view shows %v and %v, want %v and %v", a, b, f, g)
		}
	}
	for i, f := range edgeFloats {
		g := edgeFloats[(i+7)%len(edgeFloats)]
		holds(t, layout, f, g)
		holds(t, loose, f, g)
	}
	rapid.Check(t, func(rt *rapid.T) {
		bits := rapid.Uint64().Filter(func(b uint64) bool { return !math.IsNaN(math.Float64frombits(b)) })
		l := rapid.SampledFrom([]*muster.Layout{layout, loose}).Draw(rt, "layout")
		holds(rt, l, math.Float64frombits(bits.Draw(rt, "a")), math.Float64frombits(bits.Draw(rt, "b")))
	})
}

// TestStockShellReadsTheView runs the sqlite3 program, which knows nothing of us.
func TestStockShellReadsTheView(t *testing.T) {
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("SKIPPED: the sqlite3 program is not installed")
	}
	s, dir := openTest(t)
	l := muster.NewLayout([]muster.Key{{Name: "n"}, {Name: "on", Kind: muster.Bool}, {Name: "hole"}, {Name: "s", Kind: muster.JSON}, {Name: "o", Kind: muster.JSON}})
	r := muster.Reading{Device: "d-1", Time: 1_767_225_600_000_001, Layout: l, Numbers: []float64{math.NaN(), -21.5, 1}, Texts: []string{`[1,9007199254740993]`, `"a \"b\""`}}
	loose := r
	ll := *l
	ll.Loose = true
	loose.Device, loose.Layout = "d-2", &ll
	if _, err := s.Append(t.Context(), ingest.Batch{Readings: []muster.Reading{r, loose}}); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), shell, "-readonly", "-nullvalue", "NULL", filepath.Join(dir, "telemetry.db"),
		`SELECT * FROM telemetry_points ORDER BY device, key`).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	one := func(d string) string {
		at := d + "|"
		return strings.Join([]string{
			"2026-01-01T00:00:00.000001Z|" + at + "n|-21.5|NULL",
			"2026-01-01T00:00:00.000001Z|" + at + "o|NULL|[1,9007199254740993]",
			"2026-01-01T00:00:00.000001Z|" + at + "on|1.0|NULL",
			"2026-01-01T00:00:00.000001Z|" + at + "s|NULL|a \"b\"",
		}, "\n") + "\n"
	}
	if diff := cmp.Diff(one("d-1")+one("d-2"), string(out)); diff != "" {
		t.Errorf("the shell's output differs (-want +got):\n%s", diff)
	}
}

func TestAQueryOfOneDeviceSeeksInTheIndex(t *testing.T) {
	s, _ := openTest(t)
	for name, query := range map[string]string{
		"range":            rangeSQL(false),
		"range descending": rangeSQL(true),
		"view":             `SELECT * FROM telemetry_points WHERE device = ?`,
	} {
		t.Run(name, func(t *testing.T) {
			args := []any{1, 2, 3}
			if name == "view" {
				args = []any{"d"}
			}
			rows, err := s.read.Query(`EXPLAIN QUERY PLAN `+query, args...)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var plan strings.Builder
			for rows.Next() {
				var a, b, c int
				var detail string
				if err := rows.Scan(&a, &b, &c, &detail); err != nil {
					t.Fatal(err)
				}
				plan.WriteString(detail + "\n")
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(plan.String(), "USING INDEX telemetry_default_key (device_id=?") ||
				strings.Contains(plan.String(), "TEMP B-TREE") || strings.Contains(plan.String(), "SCAN t\n") {
				t.Errorf("the plan is\n%s", plan.String())
			}
		})
	}
}
