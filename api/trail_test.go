package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/devices/intake"
	"muster/devices/trail"
)

func (r *rig) items(path string) (items []any, next any) {
	r.Helper()
	page := r.as("GET", path, nil).wantStatus(r, 200).decode(r)
	return page["items"].([]any), page["next"]
}

// fields returns some fields of items.
func fields(items []any, names ...string) (out []string) {
	for _, it := range items {
		var s []string
		for _, n := range names {
			s = append(s, fmt.Sprint(it.(object)[n]))
		}
		out = append(out, strings.Join(s, " "))
	}
	return out
}

func (r *rig) same(what string, want, got any) {
	r.Helper()
	if d := cmp.Diff(want, got); d != "" {
		r.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func micros(second int) muster.Micros {
	return muster.MicrosOf(time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC))
}

func (r *rig) take(o intake.Owner, device muster.DeviceID, tail, payload string, arrival muster.Micros) {
	r.Helper()
	for _, err := range o.Take(r.Context(), []intake.Message{{Device: device, By: "gw", Tail: tail, Payload: []byte(payload), Arrival: arrival}}) {
		r.must(err)
	}
}

func TestEventsAreListed(t *testing.T) {
	r := newRig(t)
	r.device("d")
	for i := range 5 {
		r.take(r.events, "d", []string{"door", "boot"}[i%2], fmt.Sprintf(`{"n":%d}`, i), micros(i))
	}
	r.must(r.events.Append(t.Context(), []trail.Event{{Device: "d", Type: "rotated", Time: micros(9)}}))
	items, next := r.items("/api/v1/devices/d/events?limit=4")
	r.same("page", []string{"rotated system <nil>", "door device gw", "boot device gw", "door device gw"}, fields(items, "type", "source", "by"))
	r.same("an event", object{
		"type": "door", "time": stampAt(4), "arrival": stampAt(4), "source": "device", "by": "gw", "payload": object{"n": 4.0},
	}, items[1])
	items, next = r.items(fmt.Sprint("/api/v1/devices/d/events?limit=4&cursor=", next))
	r.same("next page", []string{"map[n:1]", "map[n:0]"}, fields(items, "payload"))
	r.same("its cursor", nil, next)
	items, _ = r.items("/api/v1/devices/d/events" + query("type", "boot"))
	r.same("by type", []string{"map[n:3]", "map[n:1]"}, fields(items, "payload"))
	items, _ = r.items("/api/v1/devices/d/events" + query("from", "2026-01-01T00:00:01Z", "to", "2026-01-01T00:00:03Z"))
	r.same("by time", []string{"map[n:2]", "map[n:1]"}, fields(items, "payload"))
}

func TestLogLinesAreListed(t *testing.T) {
	r := newRig(t)
	r.device("d")
	r.take(r.logs, "d", "", `[{"level":"debug","msg":"one"},{"level":4,"msg":"Two","volt":3.5,"ts":1767225700}]`, micros(1))
	r.take(r.logs, "d", "", "three\nfour", micros(2))
	items, next := r.items("/api/v1/devices/d/logs?limit=3")
	r.same("page", []string{"info four <nil>", "info three <nil>", "warn Two map[volt:3.5]"}, fields(items, "level", "text", "fields"))
	r.same("a line", object{
		"time": stampAt(100), "arrival": stampAt(1), "level": "warn", "text": "Two", "fields": object{"volt": 3.5},
	}, items[2])
	items, next = r.items(fmt.Sprint("/api/v1/devices/d/logs?limit=3&cursor=", next))
	r.same("next page", []string{"debug one"}, fields(items, "level", "text"))
	r.same("its cursor", nil, next)
	items, _ = r.items("/api/v1/devices/d/logs" + query("level", "warn"))
	r.same("by level", []string{"Two"}, fields(items, "text"))
	items, _ = r.items("/api/v1/devices/d/logs" + query("q", "VOLT", "from", "2026-01-01T00:00:00Z"))
	r.same("by text", []string{"Two"}, fields(items, "text"))
}

func TestTheTraceShowsWhatBecameOfEachMessage(t *testing.T) {
	r := newRig(t)
	r.device("d")
	f := r.trace.Begin(&trail.Start{
		Kind: "telemetry", Device: "d", Topic: "devices/d/telemetry", QoS: 1, Payload: []byte(`{"a":1}`), Size: 7, Received: micros(0), Decoded: micros(1),
		Readings: []muster.Reading{numbers("d", 3, "a", 1.0)},
	})
	f.Arrived([]muster.Micros{micros(4)})
	f.Settled(0, trail.Duplicate)
	f.Step("durable", micros(2))
	f.Step("acked", micros(5))
	f.Step("stored", micros(6))
	r.trace.Begin(&trail.Start{
		Kind: "other", Device: "d", Topic: "devices/d/up", Payload: []byte("\xff" + strings.Repeat("é", 3000)), Size: 6001, Received: micros(7),
		Refused: []trail.Refusal{{Code: "topic", Reason: "no such topic"}},
	})
	for kind, payload := range map[intake.Kind]string{intake.Log: "up\nand running", intake.Event: `{"open":true}`} {
		m := intake.Message{Kind: kind, Device: "d", By: "gw", Topic: "devices/d/x", Payload: []byte(payload)}
		r.trace.Intake().Begin(&m, micros(20)).Step("stored", micros(30))
	}
	text := strings.Repeat("é", 3000)
	r.trace.Begin(&trail.Start{Kind: "event", Device: "d", Topic: "t", Payload: []byte("x" + text), Size: 6001, Received: micros(40)})

	items, _ := r.items("/api/v1/devices/d/trace")
	r.same("messages", 5, len(items))
	cutText := items[0].(object)
	if s := cutText["payload_text"].(string); s != "x"+text[:4094] || cutText["decoded"] != nil || cutText["verdict"] != "pending" {
		t.Errorf("a long text shows %d bytes, decoded %v, verdict %v", len(s), cutText["decoded"], cutText["verdict"])
	}
	byKind := object{}
	for _, it := range items[1:] {
		byKind[it.(object)["kind"].(string)] = it
	}
	r.same("telemetry", object{
		"kind": "telemetry", "topic": "devices/d/telemetry", "qos": 1.0, "payload": "eyJhIjoxfQ==", "payload_text": `{"a":1}`, "size": 7.0, "count": 1.0,
		"decoded": []any{object{"time": stampAt(3), "arrival": stampAt(4), "values": object{"a": 1.0}, "verdict": "duplicate"}}, "verdict": "duplicate",
		"received_at": stampAt(0), "decoded_at": stampAt(1), "durable_at": stampAt(2), "acked_at": stampAt(5), "stored_at": stampAt(6),
	}, byKind["telemetry"])
	other := byKind["other"].(object)
	if _, ok := other["payload_text"]; ok || other["code"] != "topic" || other["reason"] != "no such topic" || other["verdict"] != "rejected" || other["stored_at"] != nil {
		t.Errorf("a refused message: %v", other)
	}
	r.same("an event", []any{object{"open": true}, "stored", "gw"}, []any{byKind["event"].(object)["decoded"], byKind["event"].(object)["verdict"], byKind["event"].(object)["by"]})
	r.same("log lines", []string{"info up", "info and running"}, fields(byKind["log"].(object)["decoded"].([]any), "level", "text"))
}

func TestWhoMaySeeTheTrail(t *testing.T) {
	r := newRig(t)
	r.device("d")
	for _, what := range []string{"events", "logs", "trace"} {
		t.Run(what, func(t *testing.T) {
			path := "/api/v1/devices/d/" + what
			empty := r.do("GET", path, nil, bearer(r.key(accounts.DevicesRead))).wantStatus(t, 200).decode(t)
			if d := cmp.Diff(object{"items": []any{}, "next": nil}, empty); d != "" {
				t.Error(d)
			}
			r.do("GET", path, nil, bearer(r.key(accounts.TelemetryRead))).wantProblem(t, 403, "forbidden")
			r.do("GET", path, nil).wantProblem(t, 401, "unauthorized")
			r.as("GET", "/api/v1/devices/none/"+what, nil).wantProblem(t, 404, "not_found")
		})
	}
}

func TestWhatTheTrailMayNotBeAsked(t *testing.T) {
	r := newRig(t)
	r.device("d")
	for name, q := range map[string]string{
		"an unknown parameter": "events?kind=x", "a limit of 0": "events?limit=0", "a limit of 1,001": "logs?limit=1001",
		"a broken time": "events?from=yesterday", "a broken end": "events?to=never", "a broken cursor": "events?cursor=!", "a cursor of nonsense": "logs?cursor=e30x",
		"an unknown level": "logs?level=loud", "a broken time of lines": "logs?from=x", "a parameter of the trace": "trace?limit=1",
	} {
		t.Run(name, func(t *testing.T) { r.as("GET", "/api/v1/devices/d/"+q, nil).wantProblem(t, 422, "invalid") })
	}
}
