package storetest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/ingest"
)

// epoch is the time around which the tests' readings lie.
const epoch = muster.Micros(1_767_225_600_000_000) // 2026-01-01T00:00:00Z

// second and day are in microseconds.
const (
	second = muster.Micros(1_000_000)
	day    = 86_400 * second
)

// text is a value given as JSON text.
type text string

// loose makes a reading's layout one that is not interned.
type loose struct{}

// harness is one open store on its database, with the writer's cursor.
type harness struct {
	t  TB
	db Database
	s  Store
	at ingest.Cursor // where the writer's cursor stands
}

func start(t testing.TB, fresh func(t testing.TB) Database) *harness {
	t.Helper()
	h := &harness{t: t, db: fresh(t)}
	h.open()
	t.Cleanup(func() {
		if h.s != nil {
			h.close()
		}
	})
	return h
}

func (h *harness) open() {
	h.t.Helper()
	s, err := h.db.Open(context.Background())
	if err != nil {
		h.t.Fatalf("open the store: %v", err)
	}
	h.s = s
}

func (h *harness) close() {
	h.t.Helper()
	if err := h.s.Close(); err != nil {
		h.t.Errorf("close the store: %v", err)
	}
	h.s = nil
}

func (h *harness) reopen() {
	h.t.Helper()
	h.close()
	h.open()
}

// batch returns rows as the log's next frame.
func (h *harness) batch(rows ...muster.Reading) ingest.Batch {
	to := ingest.Cursor{Incarnation: "log-1", Seq: h.at.Seq + 1}
	return ingest.Batch{From: h.at, To: to, Readings: rows}
}

// append stores rows as the log's next frame.
func (h *harness) append(rows ...muster.Reading) []ingest.Outcome {
	h.t.Helper()
	return h.appendBatch(h.batch(rows...))
}

func (h *harness) appendBatch(b ingest.Batch) []ingest.Outcome {
	h.t.Helper()
	out, err := h.s.Append(context.Background(), b)
	if err != nil {
		h.t.Fatalf("append %d readings: %v", len(b.Readings), err)
	}
	if b.From != b.To {
		h.at = b.To
	}
	return out
}

// part stores rows as a part of a frame that was split: the cursor stays.
func (h *harness) part(rows ...muster.Reading) []ingest.Outcome {
	h.t.Helper()
	return h.appendBatch(ingest.Batch{From: h.at, To: h.at, Readings: rows})
}

func (h *harness) wantOutcomes(got []ingest.Outcome, want ...ingest.Outcome) {
	h.t.Helper()
	if !slices.Equal(got, want) {
		h.t.Errorf("outcomes are %v, want %v (0 stored, 1 duplicate, 2 replaced)", got, want)
	}
}

// collect runs a range query to its end.
func (h *harness) collect(q ingest.RangeQuery) []muster.Reading {
	h.t.Helper()
	var rows []muster.Reading
	for r, err := range h.s.Range(context.Background(), q) {
		if err != nil {
			h.t.Fatalf("range of %s: %v", q.Device, err)
		}
		rows = append(rows, r)
	}
	return rows
}

// all returns every reading of device.
func (h *harness) all(device muster.DeviceID) []muster.Reading {
	h.t.Helper()
	return h.collect(ingest.RangeQuery{Device: device, From: epoch - 100*365*day, To: epoch + 100*365*day})
}

// wantRows fails unless got holds exactly want, in any order.
func (h *harness) wantRows(got []muster.Reading, want ...muster.Reading) {
	h.t.Helper()
	if diff := gocmp.Diff(plain(want), plain(got), cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); diff != "" {
		h.t.Errorf("stored readings differ (-want +got):\n%s", diff)
	}
}

// wantStored fails unless device has exactly want, by Range.
func (h *harness) wantStored(device muster.DeviceID, want ...muster.Reading) {
	h.t.Helper()
	h.wantRows(h.all(device), want...)
}

// wantCount fails unless query, a count by SQL, gives want.
func (h *harness) wantCount(query string, want int64) {
	h.t.Helper()
	rows := h.db.SQL(h.t, query)
	if len(rows) != 1 || len(rows[0]) != 1 || rows[0][0] != want {
		h.t.Errorf("%s gives %v, want %d", query, rows, want)
	}
}

func (h *harness) wantCursor(want ingest.Cursor) {
	h.t.Helper()
	got, _, err := h.s.Cursors(context.Background())
	if err != nil {
		h.t.Fatalf("read the cursors: %v", err)
	}
	if got != want {
		h.t.Errorf("the writer's cursor is %+v, want %+v", got, want)
	}
}

// reading builds a reading from pairs of key name and value: float64, bool or
// text; a leading loose{} makes its layout loose.
func reading(device muster.DeviceID, at muster.Micros, pairs ...any) muster.Reading {
	isLoose := len(pairs) > 0 && pairs[0] == any(loose{})
	if isLoose {
		pairs = pairs[1:]
	}
	vals := make([]muster.Value, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		v := muster.Value{Key: muster.Key{Name: pairs[i].(string)}}
		switch x := pairs[i+1].(type) {
		case float64:
			v.Num = x
		case bool:
			v.Key.Kind = muster.Bool
			if x {
				v.Num = 1
			}
		case text:
			v.Key.Kind, v.Text = muster.JSON, string(x)
		default:
			panic(fmt.Sprintf("storetest: a value of type %T", x))
		}
		vals = append(vals, v)
	}
	return readingOf(device, at, isLoose, vals)
}

func readingOf(device muster.DeviceID, at muster.Micros, isLoose bool, vals []muster.Value) muster.Reading {
	slices.SortFunc(vals, func(a, b muster.Value) int { return muster.CompareKeys(a.Key, b.Key) })
	r := muster.Reading{Device: device, Time: at, Arrival: at + second}
	keys := make([]muster.Key, 0, len(vals))
	for _, v := range vals {
		keys = append(keys, v.Key)
		if v.Key.Kind == muster.JSON {
			r.Texts = append(r.Texts, v.Text)
		} else {
			r.Numbers = append(r.Numbers, v.Num)
		}
	}
	r.Layout = muster.NewLayout(keys)
	r.Layout.Loose = isLoose
	return r
}

// plainRow is a reading without what a store may choose: arrival, the layout's
// pointer and whether it is interned, and how JSON is spelled.
type plainRow struct {
	Device muster.DeviceID
	Time   muster.Micros
	Values []muster.Value
}

func plain(rows []muster.Reading) []plainRow {
	out := make([]plainRow, 0, len(rows))
	for _, r := range rows {
		p := plainRow{Device: r.Device, Time: r.Time}
		for v := range r.Values {
			if v.Key.Kind == muster.JSON {
				v.Text = canonical(v.Text)
			}
			p.Values = append(p.Values, v)
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b plainRow) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Time, b.Time),
			strings.Compare(fmt.Sprint(keysOf(a.Values)), fmt.Sprint(keysOf(b.Values))))
	})
	return out
}

func keysOf(vals []muster.Value) []muster.Key {
	keys := make([]muster.Key, 0, len(vals))
	for _, v := range vals {
		keys = append(keys, v.Key)
	}
	return keys
}

// canonical spells a JSON text one way: an engine may change its white space and
// the order of its members. A text that is no JSON is returned marked.
func canonical(s string) string {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "not JSON: " + s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "not JSON: " + s
	}
	return strings.TrimSpace(b.String())
}

// micros reads the view's time column: a time stamp or an RFC 3339 text.
func micros(t TB, v any) muster.Micros {
	t.Helper()
	switch x := v.(type) {
	case time.Time:
		return muster.MicrosOf(x)
	case string:
		at, err := time.Parse(time.RFC3339Nano, x)
		if err != nil {
			t.Fatalf("time in telemetry_points: %v", err)
		}
		return muster.MicrosOf(at)
	}
	t.Fatalf("time in telemetry_points is a %T", v)
	return 0
}
