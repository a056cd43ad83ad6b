package sqlite

import (
	"log/slog"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/ingest"
)

func latestOf(name string, kind muster.ValueKind, num float64, text string, at, arrival muster.Micros) ingest.LatestValue {
	return ingest.LatestValue{Value: muster.Value{Key: muster.Key{Name: name, Kind: kind}, Num: num, Text: text}, Time: at, Arrival: arrival}
}

func TestLatestValueReadsWhatWasSaved(t *testing.T) {
	dir := t.TempDir()
	tel, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	c, err := OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	row := ingest.LatestRow{Device: "d", Values: []ingest.LatestValue{
		latestOf("big", muster.JSON, 0, "12345678901234567890", 1, 1), latestOf("hole", muster.Number, math.NaN(), "", 9, 9),
		latestOf("hole", muster.JSON, 0, `"x"`, 1, 1), latestOf("list", muster.JSON, 0, `[1]`, 1, 1), latestOf("newer", muster.Number, 1, "", 10, 5),
		latestOf("newer", muster.JSON, 0, `"a\u00e9"`, 6, 6), latestOf("null", muster.JSON, 0, `null`, 1, 1), latestOf("on", muster.Bool, 1, "", 1, 1),
	}}
	if err := tel.SaveLatest(t.Context(), []ingest.LatestRow{row}, ingest.Cursor{Incarnation: "log", Seq: 1}); err != nil {
		t.Fatal(err)
	}
	got := map[string][]any{}
	for _, key := range []string{"big", "hole", "list", "newer", "null", "on", "absent"} {
		var number, text, there any
		err := c.Query.QueryRowContext(t.Context(), `SELECT latest_value(vals, $1, 'number'), latest_value(vals, $1, 'text'), latest_value(vals, $1, 'any')
			FROM telemetry.latest`, key).Scan(&number, &text, &there)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		got[key] = []any{number, text, there}
	}
	want := map[string][]any{
		"big": {12345678901234567890.0, nil, int64(1)}, "hole": {nil, "x", int64(1)}, "list": {nil, nil, int64(1)}, "newer": {nil, "aé", int64(1)},
		"null": {nil, nil, nil}, "on": {1.0, nil, int64(1)}, "absent": {nil, nil, nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("latest_value differs (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"NULL, 1, 'any'", "x'0100', 'k', 1", "'text', 'k', 'any'", "x'', 'k', 'any'", "x'02', 'k', 'any'", "x'0105', 'k', 'any'", "x'010100', 'k', 'any'"} {
		var v any
		err := c.Query.QueryRowContext(t.Context(), "SELECT latest_value("+bad+")").Scan(&v)
		if (err == nil) != (bad[0] == 'N') || v != nil {
			t.Errorf("latest_value(%s) gives %v, %v", bad, v, err)
		}
	}
}

func TestTheQueryPoolWritesNothingAndNeedsNoTelemetry(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var one int
	if err := c.Query.QueryRowContext(t.Context(), "SELECT 1").Scan(&one); err != nil || one != 1 {
		t.Fatalf("without telemetry.db: %d, %v", one, err)
	}
	c.Query.SetMaxIdleConns(0) // what comes is a new connection
	tel, err := Open(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Close()
	for _, statement := range []string{"DELETE FROM telemetry.latest", "CREATE TABLE main.x (a)", "CREATE TABLE telemetry.x (a)"} {
		if _, err := c.Query.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("the pool ran %s", statement)
		}
	}
	var n int
	if err := c.Query.QueryRowContext(t.Context(), "SELECT count(*) FROM telemetry.latest").Scan(&n); err != nil || n != 0 {
		t.Errorf("telemetry is not seen: %d, %v", n, err)
	}
}

func FuzzFindLatest(f *testing.F) {
	f.Add(appendLatest(nil, []ingest.LatestValue{latestOf("a", muster.Number, 1, "", 1, 2), latestOf("b", muster.JSON, 0, `"x"`, 3, 4)}), "a")
	f.Add([]byte{latestVersion, 0xff, 0xff}, "")
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		vals, err := decodeLatest(b)
		if _, errFind := findLatest(b, key); err == nil && errFind != nil {
			t.Errorf("%x holds %v and cannot be searched: %v", b, vals, errFind)
		}
	})
}
