package api_test

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/api"
	"muster/ingest"
)

// broken is a store that fails: at once, or after some readings.
type broken struct {
	ingest.RangeStore
	err error
}

func (b broken) Rejected(context.Context, muster.DeviceID, int) ([]muster.Rejected, error) {
	return nil, b.err
}

// failsAfter gives readings and then an error.
type failsAfter struct {
	ingest.RangeStore
	readings []muster.Reading
}

func (f failsAfter) Range(_ context.Context, q ingest.RangeQuery) iter.Seq2[muster.Reading, error] {
	return func(yield func(muster.Reading, error) bool) {
		for _, r := range f.readings {
			if r.Time >= q.From && !yield(r, nil) {
				return
			}
		}
		yield(muster.Reading{}, errors.New("disk is gone"))
	}
}

// waits tells when it is asked and answers when the request is broken off.
type waits struct {
	ingest.RangeStore
	asked chan struct{}
}

func (w waits) Rejected(ctx context.Context, _ muster.DeviceID, _ int) ([]muster.Rejected, error) {
	close(w.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAClientThatGoesAwayBreaksItsRequestOffAndIsNoFault(t *testing.T) {
	asked := make(chan struct{})
	r := newRig(t, func(d *api.Deps) { d.Telemetry = waits{d.Telemetry, asked} })
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/api/v1/rejected", nil)
	r.must(err)
	bearer(r.admin)(req)
	go func() { <-asked; cancel() }()
	if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
		res.Body.Close()
		t.Error("the request got an answer")
	}
	r.server.Close() // waits for the handler
	families, err := r.gather.Gather()
	r.must(err)
	if got := fmt.Sprint(families); !strings.Contains(got, `"499"`) || strings.Contains(got, `"500"`) {
		t.Errorf("the metrics are %s", got)
	}
	if strings.Contains(r.log.String(), "a request failed") {
		t.Errorf("it is logged as a fault: %s", r.log)
	}
}

const ranged = "/api/v1/devices/a/telemetry"

func item(second int, values map[string]any) any {
	return map[string]any{"time": stampAt(second), "values": values}
}

func TestTelemetryIsReadByKeysTimeLimitAndOrder(t *testing.T) {
	r := newRig(t)
	r.device("a")
	var in []muster.Reading
	for i := range 10 {
		in = append(in, numbers("a", i, "t", float64(i)+0.5, "h", float64(i)))
	}
	r.store(in)
	tests := []struct {
		name  string
		query string
		want  []any
		more  bool
	}{
		{"by keys", query("keys", "t", "limit", "1"), []any{item(0, map[string]any{"t": 0.5})}, true},
		{"by time, the end not included", query("keys", "h", "from", stampAt(3), "to", stampAt(5)), []any{item(3, map[string]any{"h": 3.0}), item(4, map[string]any{"h": 4.0})}, false},
		{"newest first", query("order", "desc", "limit", "1"), []any{item(9, map[string]any{"t": 9.5, "h": 9.0})}, true},
		{"by time with an offset", query("from", "2026-01-01T01:00:09+01:00", "keys", "h"), []any{item(9, map[string]any{"h": 9.0})}, false},
		{"an unescaped plus", "?from=2026-01-01T01:00:09+01:00&keys=h", []any{item(9, map[string]any{"h": 9.0})}, false},
		{"an unknown key", query("keys", "nope"), []any{}, false},
		{"an empty range", query("from", stampAt(5), "to", stampAt(5)), []any{}, false},
		{"a relative range that is long over", query("from", "now+1h"), []any{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := r.as("GET", ranged+tt.query, nil).wantStatus(t, 200).decode(t)
			if d := cmp.Diff(any(tt.want), got["items"]); d != "" {
				t.Error(d)
			}
			if (got["next"] != nil) != tt.more {
				t.Errorf("next is %v", got["next"])
			}
		})
	}
	for _, bad := range []string{
		"from=yesterday", "to=now-3y", "from=now-", "from=now3h", "from=now-99999999999999999999s", "from=now-4294967295w", "limit=100001", "limit=0",
		"order=up", "format=xml", "keys=a,,b", "cursor=AAAA", "cursor=!", "format=csv", "step=1h", "cursor=e30",
	} {
		r.as("GET", ranged+"?"+bad, nil).wantProblem(t, 422, "invalid")
	}
	r.as("GET", "/api/v1/devices/b/telemetry", nil).wantProblem(t, 404, "not_found")
}

func TestValuesKeepTheirKindInEveryFormat(t *testing.T) {
	r := newRig(t)
	r.device("a")
	at := numbers("a", 1, "x", 1.0).Time
	l := muster.NewLayout([]muster.Key{
		{Name: "big", Kind: muster.JSON},
		{Name: "hole"},
		{Name: "num"},
		{Name: "on", Kind: muster.Bool},
		{Name: "obj", Kind: muster.JSON},
		{Name: "text", Kind: muster.JSON},
		{Name: "nil", Kind: muster.JSON},
		{Name: "word", Kind: muster.JSON},
	})
	r.store([]muster.Reading{{
		Device: "a", Time: at, Arrival: at, Layout: l,
		Numbers: []float64{math.NaN(), 1e6, 1},
		Texts:   []string{"12345678901234567890", "null", `{"a":[1]}`, `"a \"b\", c"`, `"null"`},
	}})
	a := r.as("GET", ranged, nil).wantStatus(t, 200)
	if want := `"big":12345678901234567890`; !strings.Contains(string(a.body), want) {
		t.Errorf("no %s in %s", want, a.body)
	}
	values := a.decode(t)["items"].([]any)[0].(map[string]any)["values"].(map[string]any)
	delete(values, "big")
	want := map[string]any{"hole": nil, "num": 1e6, "on": true, "obj": map[string]any{"a": []any{1.0}}, "text": `a "b", c`, "nil": nil, "word": "null"}
	if d := cmp.Diff(want, values); d != "" {
		t.Error(d)
	}
	c := r.as("GET", ranged+query("format", "csv", "keys", "text,num,hole,on,absent,obj,big,nil,word"), nil).wantStatus(t, 200)
	rows, err := csv.NewReader(strings.NewReader(string(c.body))).ReadAll()
	r.must(err)
	wantRows := [][]string{
		{"time", "text", "num", "hole", "on", "absent", "obj", "big", "nil", "word"},
		{stampAt(1), `a "b", c`, "1000000", "", "true", "", `{"a":[1]}`, "12345678901234567890", "", "null"},
	}
	if d := cmp.Diff(wantRows, rows); d != "" {
		t.Error(d)
	}
	n := r.as("GET", ranged+query("format", "ndjson", "keys", "num"), nil).wantStatus(t, 200)
	if got, want := string(n.body), `{"time":"`+stampAt(1)+`","values":{"num":1000000}}`+"\n"; got != want {
		t.Errorf("ndjson is %q", got)
	}
	if n.header() != "application/x-ndjson" || !strings.HasPrefix(c.header(), "text/csv") || a.header() != "application/json" {
		t.Errorf("content types are %q, %q, %q", n.header(), c.header(), a.header())
	}
}

// follow reads a whole range page by page and returns the values of key v.
func follow(r *rig, q string, each func(page int)) []float64 {
	r.Helper()
	var got []float64
	next := ""
	for page := 0; ; page++ {
		a := r.as("GET", ranged+"?"+q+"&cursor="+next, nil).wantStatus(r, 200).decode(r)
		for _, i := range a["items"].([]any) {
			got = append(got, i.(map[string]any)["values"].(map[string]any)["v"].(float64))
		}
		var more bool
		if next, more = a["next"].(string); !more {
			return got
		}
		each(page)
	}
}

func TestTheCursorOfTelemetryLosesAndRepeatsNothing(t *testing.T) {
	r := newRig(t)
	r.device("a")
	var in []muster.Reading
	want := map[float64]int{}
	for i := range 60 {
		// Three readings share each time, told apart by their layouts.
		in = append(in, numbers("a", i/3, "v", float64(i), fmt.Sprint("k", i%3), 1.0))
		want[float64(i)] = 1
	}
	r.store(in)
	for _, order := range []string{"asc", "desc"} {
		for limit := 1; limit < 8; limit++ {
			// keys=v makes readings of one time equal in layout
			for _, keys := range []string{"", "&keys=v"} {
				got := map[float64]int{}
				for _, v := range follow(r, fmt.Sprintf("order=%s&limit=%d%s", order, limit, keys), func(int) {}) {
					got[v]++
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("%s, limit %d%s: %s", order, limit, keys, d)
				}
			}
		}
	}
}

func TestEqualReadingsOfOneTimeAreAllGiven(t *testing.T) {
	r := newRig(t)
	r.device("a")
	r.store([]muster.Reading{
		numbers("a", 1, "v", 7.0, "k1", 1.0), numbers("a", 1, "v", 7.0, "k2", 1.0), numbers("a", 1, "v", 7.0, "k3", 1.0),
	})
	for limit := 1; limit <= 4; limit++ {
		if got := follow(r, fmt.Sprintf("keys=v&limit=%d", limit), func(int) {}); !cmp.Equal(got, []float64{7, 7, 7}) {
			t.Errorf("limit %d gives %v", limit, got)
		}
	}
}

func TestTheCursorOfTelemetryIsStableUnderChange(t *testing.T) {
	r := newRig(t)
	r.device("a")
	for i := range 6 {
		r.store([]muster.Reading{numbers("a", 10+i, "v", float64(i))})
	}
	got := follow(r, "limit=2&to=now", func(page int) {
		r.store([]muster.Reading{numbers("a", page, "v", 100.0), numbers("a", 30+page, "v", 200+float64(page))})
	})
	if d := cmp.Diff([]float64{0, 1, 2, 3, 4, 5, 200, 201, 202, 203}, got); d != "" {
		t.Error(d)
	}
	first := r.as("GET", ranged+"?limit=2", nil).decode(t)["next"].(string)
	r.as("GET", ranged+"?order=desc&cursor="+first, nil).wantProblem(t, 422, "invalid")
}

func TestALongRangeIsStreamedAndItsCursorIsATrailer(t *testing.T) {
	r := newRig(t)
	r.device("a")
	var in []muster.Reading
	for i := range 2500 {
		in = append(in, numbers("a", i, "v", float64(i)))
	}
	r.store(in)
	a := r.as("GET", ranged+"?limit=2400&format=csv&keys=v", nil).wantStatus(t, 200)
	rows, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	r.must(err)
	if len(rows) != 2401 || rows[2400][1] != "2399" {
		t.Errorf("there are %d rows, the last is %v", len(rows), rows[len(rows)-1])
	}
	next := a.Trailer.Get("Next-Cursor")
	a = r.as("GET", ranged+"?limit=2400&format=ndjson&cursor="+next, nil).wantStatus(t, 200)
	if lines := strings.Count(string(a.body), "\n"); lines != 100 || !strings.Contains(string(a.body), `"v":2400}`) || a.Trailer.Get("Next-Cursor") != "" {
		t.Errorf("the rest has %d lines, and next is %q", lines, a.Trailer.Get("Next-Cursor"))
	}
	all := r.as("GET", ranged+"?limit=2500", nil).wantStatus(t, 200).decode(t)
	if n := len(all["items"].([]any)); n != 2500 || all["next"] != nil {
		t.Errorf("json gives %d items and next %v", n, all["next"])
	}
}

func TestAStoreThatFailsHalfWayCutsTheAnswer(t *testing.T) {
	var in []muster.Reading
	for i := range 1500 {
		in = append(in, numbers("a", i, "v", float64(i)))
	}
	for _, format := range []string{"json", "ndjson", "csv"} {
		r := newRig(t, func(d *api.Deps) { d.Telemetry = failsAfter{d.Telemetry, in} })
		r.device("a")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+ranged+"?limit=5000&keys=v&format="+format, nil)
		r.must(err)
		bearer(r.admin)(req)
		req.Header.Set("Accept-Encoding", "identity")
		res, err := http.DefaultTransport.RoundTrip(req)
		r.must(err)
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		held := format == "json" && res.StatusCode == http.StatusInternalServerError // nothing of it had been sent
		if !held && (res.StatusCode != http.StatusOK || err == nil) {
			t.Errorf("%s: the answer looks whole: %d", format, res.StatusCode)
		}
		if !strings.Contains(r.log.String(), "disk is gone") {
			t.Errorf("%s: the fault is not logged", format)
		}
	}
	r := newRig(t, func(d *api.Deps) { d.Telemetry = failsAfter{d.Telemetry, nil} })
	r.device("a")
	r.as("GET", ranged, nil).wantProblem(t, 500, "internal")
}

func TestLatestShowsTheNewestValueOfEachKey(t *testing.T) {
	r := newRig(t)
	r.device("a")
	if got := r.as("GET", ranged+"/latest", nil).wantStatus(t, 200).decode(t); !cmp.Equal(got, map[string]any{"device": "a", "values": map[string]any{}}) {
		t.Errorf("a silent device gives %v", got)
	}
	at := func(s int) muster.Micros { return numbers("a", s, "x", 0.0).Time }
	value := func(name string, kind muster.ValueKind, num float64, text string, time, arrival int) ingest.LatestValue {
		return ingest.LatestValue{
			Value: muster.Value{Key: muster.Key{Name: name, Kind: kind}, Num: num, Text: text}, Time: at(time), Arrival: at(arrival),
		}
	}
	r.live.rows["a"] = ingest.LatestRow{Device: "a", Values: []ingest.LatestValue{
		value("changed", muster.Number, 1, "", 90, 1), value("changed", muster.JSON, 0, `"now text"`, 2, 3),
		value("hole", muster.Number, math.NaN(), "", 1, 1),
		value("on", muster.Bool, 1, "", 1, 2),
		value("t", muster.Number, 1.5, "", 1, 1),
	}}
	shown := func(v any, time, arrival int) any {
		return map[string]any{"value": v, "time": stampAt(time), "arrival": stampAt(arrival)}
	}
	want := map[string]any{"device": "a", "values": map[string]any{
		"changed": shown("now text", 2, 3), "hole": shown(nil, 1, 1), "on": shown(true, 1, 2), "t": shown(1.5, 1, 1),
	}}
	if d := cmp.Diff(want, r.as("GET", ranged+"/latest", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	some := r.as("GET", ranged+"/latest?keys=t,nope", nil).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(map[string]any{"t": shown(1.5, 1, 1)}, some["values"]); d != "" {
		t.Error(d)
	}
}

func TestRejectedMessagesAreShownWithTheirReason(t *testing.T) {
	r := newRig(t)
	r.device("a")
	one := muster.Rejected{Device: "a", Arrival: numbers("a", 1, "x", 0.0).Time, Topic: "devices/a/telemetry", Code: "malformed", Reason: "no JSON", Payload: []byte("{"), Size: 1}
	two := one
	two.Device, two.Arrival, two.Payload, two.Size = "b", one.Arrival+1_000_000, []byte{0xff, 0}, 5000
	r.store(nil, one, two)
	b := map[string]any{"time": stampAt(2), "device": "b", "topic": "devices/a/telemetry", "code": "malformed", "reason": "no JSON", "payload": "/wA=", "size": 5000.0}
	a := map[string]any{"time": stampAt(1), "device": "a", "topic": "devices/a/telemetry", "code": "malformed", "reason": "no JSON", "payload": "ew==", "payload_text": "{", "size": 1.0}
	if d := cmp.Diff(map[string]any{"items": []any{b, a}, "next": nil}, r.as("GET", "/api/v1/rejected", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]any{"items": []any{a}, "next": nil}, r.as("GET", "/api/v1/devices/a/rejected", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	if n := len(r.as("GET", "/api/v1/rejected?limit=1", nil).decode(t)["items"].([]any)); n != 1 {
		t.Errorf("limit 1 gives %d", n)
	}
}
