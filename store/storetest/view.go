package storetest

import (
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func testView(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	nan := math.NaN()
	pairs := []any{
		"n", 21.5, "neg", -0.1, "tiny", 1e-310, "max", math.MaxFloat64, "zero", 0.0, "hole", nan,
		"on", true, "off", false, "s", text(`"open \"door\""`), "big", text(`9007199254740993`), "list", text(`[1]`), "nil", text(`null`), `odd "n.a$me`, text(`"x"`),
	}
	want := [][]any{
		{"big", nil, "9007199254740993"},
		{"list", nil, "[1]"},
		{"max", math.MaxFloat64, nil},
		{"n", 21.5, nil},
		{"neg", -0.1, nil},
		{"nil", nil, "null"},
		{`odd "n.a$me`, nil, "x"},
		{"off", 0.0, nil},
		{"on", 1.0, nil},
		{"s", nil, `open "door"`},
		{"tiny", 1e-310, nil},
		{"zero", 0.0, nil},
	}
	t.Run("telemetry_points shows each value once and leaves holes out", func(t *testing.T) {
		h.append(reading("view-1", epoch, pairs...))
		diffRows(t, h.byKey(`SELECT key, value, text FROM telemetry_points WHERE device = 'view-1'`), want)
	})
	t.Run("telemetry_points shows a loose reading all the same", func(t *testing.T) {
		h.append(reading("view-2", epoch, append([]any{loose{}}, pairs...)...))
		diffRows(t, h.byKey(`SELECT key, value, text FROM telemetry_points WHERE device = 'view-2'`), want)
	})
	t.Run("telemetry_points shows the time to the microsecond", func(t *testing.T) {
		at := epoch + 123_456
		h.append(reading("view-3", at, "a", 1.0), reading("view-3", epoch-day+7, loose{}, "a", 0.0))
		got := h.db.SQL(t, `SELECT time FROM telemetry_points WHERE device = 'view-3' ORDER BY time`)
		if len(got) != 2 || micros(t, got[0][0]) != epoch-day+7 || micros(t, got[1][0]) != at {
			t.Errorf("times are %v, want %v and %v", got, (epoch - day + 7).Time(), at.Time())
		}
	})
	t.Run("telemetry_points shows the value that replaced another", func(t *testing.T) {
		h.append(reading("view-4", epoch, "a", 1.0))
		h.append(reading("view-4", epoch, "a", 2.0))
		diffRows(t, h.db.SQL(t, `SELECT key, value, text FROM telemetry_points WHERE device = 'view-4'`), [][]any{{"a", 2.0, nil}})
	})
	t.Run("an empty reading has no row in telemetry_points", func(t *testing.T) {
		h.append(reading("view-5", epoch), reading("view-5", epoch+1, loose{}))
		h.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = 'view-5'`, 0)
	})
	t.Run("telemetry_points can be aggregated", func(t *testing.T) {
		h.append(reading("view-6", epoch, "a", 1.0), reading("view-6", epoch+1, "a", 2.0), reading("view-6", epoch+2, "b", 4.0))
		diffRows(t, h.db.SQL(t, `SELECT key, avg(value), count(*) FROM telemetry_points WHERE device = 'view-6' GROUP BY key ORDER BY key`),
			[][]any{{"a", 1.5, int64(2)}, {"b", 4.0, int64(1)}})
	})
}

// byKey answers query sorted by its first column bytewise, which an engine's own
// collation may not do.
func (h *harness) byKey(query string) [][]any {
	h.t.Helper()
	rows := h.db.SQL(h.t, query)
	sortRows(rows)
	return rows
}

func diffRows(t TB, got, want [][]any) {
	t.Helper()
	sortRows(want)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("telemetry_points differs (-want +got):\n%s", diff)
	}
}

func sortRows(rows [][]any) {
	slices.SortStableFunc(rows, func(a, b []any) int { return strings.Compare(a[0].(string), b[0].(string)) })
}
