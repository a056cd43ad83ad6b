package api_test

import (
	"testing"

	"muster"
)

const charted = "/api/v1/devices/a/telemetry/chart"

func TestAChartHasMinAndMaxOfEachPixelAndTheSilences(t *testing.T) {
	r := newRig(t)
	r.device("a")
	var in []muster.Reading
	for i := range 100 {
		if i >= 40 && i < 60 {
			continue
		}
		in = append(in, numbers("a", i, "x", float64(i)))
	}
	r.store(in)
	got := r.as("GET", charted+query("from", stampAt(0), "to", stampAt(100), "px", "10"), nil).wantStatus(t, 200).decode(t)
	item := got["items"].([]any)[0].(object)
	if got["readings"] != 80.0 || got["whole"] != true || got["step_ms"] != 10_000.0 || item["key"] != "x" || item["count"] != 80.0 {
		t.Errorf("the chart is %v", got)
	}
	base := float64(int64(in[0].Time) / 1000)
	var low, high, times []any
	for _, from := range []float64{0, 10, 20, 30, 60, 70, 80, 90} {
		low, high, times = append(low, from), append(high, from+9), append(times, base+from*1000)
	}
	r.same("the least", low, item["min"])
	r.same("the greatest", high, item["max"])
	r.same("the times", times, item["t"])
	r.same("the silences", []any{[]any{base + 39_000, base + 60_000}}, item["gaps"])
	for _, bad := range []string{"?from=yesterday", "?from=now-1h&to=now-2h", "?from=now-1h&px=0", "?from=now-1h&px=4001", "?from=now-1h&keys=a,,b", "?from=now-1h&step=5"} {
		r.as("GET", charted+bad, nil).wantProblem(t, 422, "invalid")
	}
	r.as("GET", "/api/v1/devices/b/telemetry/chart?from=now-1h", nil).wantProblem(t, 404, "not_found")
	empty := r.as("GET", charted+"?from=now-1s&to=now&keys=y", nil).wantStatus(t, 200).decode(t)
	if items := empty["items"].([]any); len(items) != 0 {
		t.Errorf("nothing is drawn as %v", items)
	}
}

func TestAChartNeedsTheRightToReadTelemetry(t *testing.T) {
	r := newRig(t)
	r.device("a")
	r.do("GET", charted+"?from=now-1h", nil, bearer(r.key("devices:read"))).wantProblem(t, 403, "forbidden")
}
