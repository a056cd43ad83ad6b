package ingest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAPreviewShowsWhatWouldBeKeptAndRejected(t *testing.T) {
	for _, tt := range []struct {
		name, topic, payload string
		kept, rejected       []string
	}{
		{"a flat object", "tele/plug/SENSOR", `{"a":1,"b":{"c":true}}`, []string{`{"a":1,"b.c":true}`}, nil},
		{"a scalar at a telemetry topic", "devices/me/telemetry/room/temp", `21.5`, []string{`{"room.temp":21.5}`}, nil},
		{"a scalar elsewhere", "stat", `21.5`, []string{`{"value":21.5}`}, nil},
		{"an array, one of it too old", "t", `[{"ts":1767225600000,"values":{"a":1}},{"ts":"1990-01-01T00:00:00Z","a":2}]`, []string{`2026-01-01T00:00:00Z {"a":1}`}, []string{"time stamp 1990-01-01T00:00:00Z is before 2000"}},
		{"text", "t", `ON`, nil, []string{"malformed JSON: not a value at byte 0"}},
		{"nothing", "t", ``, nil, []string{"the payload is empty"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			messages, rejected := Preview(tt.topic, []byte(tt.payload), testNow)
			var kept []string
			for _, m := range messages {
				text := string(m.Values)
				if m.Time != 0 {
					text = m.Time.Time().Format(time.RFC3339) + " " + text
				}
				kept = append(kept, text)
			}
			if d := cmp.Diff(tt.kept, kept) + cmp.Diff(tt.rejected, rejected); d != "" {
				t.Error(d)
			}
		})
	}
}
