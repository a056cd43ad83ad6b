package devices

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

// drawHistory makes a history by transitions at random times.
func drawHistory(t *rapid.T) *history {
	at := rapid.Uint32Range(1_700_000_000, 1_800_000_000).Draw(t, "start")
	h := &history{since: at, upto: at, marks: []moment{{at, never}}}
	for range rapid.IntRange(0, 300).Draw(t, "transitions") {
		at += rapid.SampledFrom([]uint32{0, 1, 30, 4000, 90_000, 40 * daySeconds}).Draw(t, "gap")
		h.mark(state(rapid.IntRange(0, 4).Draw(t, "state")), at)
	}
	return h
}

func TestAHistoryIsReadAsItWasWrittenAndStaysBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		text := h.encode()
		if len(h.marks) > maxMarks || len(h.days) > maxDays || len(text) > maxHistoryText {
			t.Fatalf("%d marks, %d days, %d bytes", len(h.marks), len(h.days), len(text))
		}
		for i, m := range h.marks[1:] {
			if m.at <= h.marks[i].at || m.state == h.marks[i].state {
				t.Fatalf("after %+v comes %+v", h.marks[i], m)
			}
		}
		got, err := decodeHistory(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(h, got, cmp.AllowUnexported(history{}, moment{}, spent{})); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeHistory(f *testing.F) {
	h := &history{since: 1_700_000_000, upto: 1_700_000_000, marks: []moment{{1_700_000_000, never}}}
	f.Add(h.encode())
	for i := range uint32(20) {
		h.mark(state(i%4+1), 1_700_000_000+i*5000)
	}
	f.Add(h.encode())
	f.Add("")
	f.Add("AQAAAAAA")
	f.Add("AQECAwQFBgcICQ")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := decodeHistory(text)
		if err != nil {
			return
		}
		p := track{history: h, state: h.marks[len(h.marks)-1].state}
		now := h.marks[len(h.marks)-1].at
		u := p.uptime(muster.Micros(now) * second)
		if u.Online < 0 || u.Offline < 0 || u.Unknown < 0 || len(p.strip(muster.Micros(now)*second)) > maxMarks {
			t.Errorf("%+v", u)
		}
		again, err := decodeHistory(h.encode())
		if err != nil || !cmp.Equal(h, again, cmp.AllowUnexported(history{}, moment{}, spent{})) {
			t.Errorf("%v", err)
		}
		h.mark(online, now)
	})
}

func TestNobodyBecomesAbsentBecauseTheClockIsSet(t *testing.T) {
	const day = 24 * hour
	start := muster.Micros(2_000_000_000) * second
	for name, step := range map[string]muster.Micros{"forward": 30 * day, "back": -30 * day} {
		t.Run(name, func(t *testing.T) {
			var tr tracker
			tr.init(10 * second)
			for _, id := range []muster.DeviceID{"connected", "lost", "bydata"} {
				tr.add(&Device{ID: id, Created: start, CheckIn: 60})
			}
			at := func(p muster.Micros) time.Time { return p.Time() }
			tr.connected(Connection{Device: "connected", Session: 1, At: at(start)})
			lost := Connection{Device: "lost", Session: 2, At: at(start)}
			tr.connected(lost)
			tr.heard(tr.rows["connected"], start, start)
			tr.heard(tr.rows["bydata"], start, start)
			now := start + 100*second
			tr.disconnected(lost, "keepalive", now-5*second)
			states := func(after muster.Micros) (out []state) {
				for tr.expire(now + after) {
				}
				for _, id := range []muster.DeviceID{"connected", "lost", "bydata"} {
					out = append(out, tr.rows[id].state)
				}
				return out
			}
			if d := cmp.Diff([]state{online, online, online}, states(0)); d != "" {
				t.Fatal("before", d)
			}
			now += step
			tr.shift(step, now)
			if d := cmp.Diff([]state{online, online, online}, states(4*second)); d != "" {
				t.Error("the clock was set and", d)
			}
			if d := cmp.Diff([]state{online, offline, online}, states(6*second)); d != "" {
				t.Error("after the grace", d)
			}
			if d := cmp.Diff([]state{quiet, offline, offline}, states(21*second)); d != "" {
				t.Error("after two check-ins", d)
			}
		})
	}
}

func TestAStepOfTheClockIsToldFromTimeThatPassed(t *testing.T) {
	now := time.Now()
	for what, c := range map[string]struct {
		last time.Time
		want time.Duration
	}{
		"a second passed":              {now.Add(-time.Second), 0},
		"an hour passed":               {now.Add(-time.Hour), 0},
		"a clock without a second one": {now.Add(-time.Hour).Round(0), 0},
	} {
		if got := clockStep(c.last, now); got != c.want {
			t.Errorf("%s: %s", what, got)
		}
	}
}
