package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/devices/trail"
	"muster/ingest"
)

// TestTheTraceTellsWhatBecameOfEachMessage runs the pipeline with the real trace.
func TestTheTraceTellsWhatBecameOfEachMessage(t *testing.T) {
	cases := []struct {
		name    string
		level   ingest.AckLevel
		sent    []string
		verdict []string // newest first
	}{
		{
			"stored, sent again and replaced", ingest.LevelDurable,
			[]string{`{"ts":1763812800,"values":{"a":1}}`, `{"ts":1763812800,"values":{"a":1}}`, `{"ts":1763812800,"values":{"a":2}}`},
			[]string{"replaced ", "duplicate ", "stored "},
		},
		{"refused whole and in part", ingest.LevelDurable, []string{`{"a":`, `[{"a":1},{"ts":"1990-01-01T00:00:00Z","a":1}]`}, []string{"rejected time", "rejected malformed"}},
		{"acked when stored", ingest.LevelStored, []string{`{"a":1}`}, []string{"stored "}},
		{"acked when received", ingest.LevelReceived, []string{`{"a":1}`}, []string{"stored "}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tr := trail.NewTrace(time.Now)
			r := start(t, t.TempDir(), newStore(), func(c *ingest.Config) { c.Tracer, c.Level = tracer{tr}, tc.level })
			a := newAcks()
			for i, p := range tc.sent {
				r.send(t, "d", p, a, uint64(i))
			}
			a.wait(t, len(tc.sent))
			awaitQueueEmpty(t, r)
			r.stop(t, 10*time.Second)
			var got []string
			for _, m := range tr.Messages("d") {
				got = append(got, m.Verdict+" "+m.Code)
				steps := []muster.Micros{m.Received, m.Decoded, m.Durable, m.Stored, m.Acked}
				for i, at := range steps {
					if at == 0 || i < 4 && at < m.Received {
						t.Errorf("%s: steps %v", m.Raw, steps)
					}
				}
				for _, it := range m.Items {
					if it.Arrival == 0 {
						t.Errorf("%s: a part without an arrival", m.Raw)
					}
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.verdict) {
				t.Errorf("verdicts %q, want %q", got, tc.verdict)
			}
		})
	}
}

func TestPoisonIsRejectedInTheTraceAndWhatWasReadBackIsSettled(t *testing.T) {
	tr := trail.NewTrace(time.Now)
	st := newStore()
	st.down, st.poison = true, "bad"
	r := start(t, t.TempDir(), st, func(c *ingest.Config) { c.Tracer = tracer{tr} })
	a := newAcks()
	r.send(t, "bad", `{"i":1}`, a, 0)
	a.wait(t, 1)
	// 24 MiB of others, so that frames no longer fit in memory and are read back.
	const n = 400
	for i := range n {
		m := ingest.Message{Device: "filler", Payload: fmt.Appendf(nil, `{"i":%d,"pad":"%060000d"}`, i, 0), QoS: 1, Untraced: true} // it would fill the trace, too
		if err := r.in.Accept(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	r.send(t, "late", `{"i":2}`, a, 1)
	a.wait(t, 1)
	for _, id := range []muster.DeviceID{"bad", "late"} {
		if ms := tr.Messages(id); len(ms) != 1 || ms[0].Verdict != trail.Pending || ms[0].Acked == 0 {
			t.Errorf("%s while the store is away: %+v", id, ms)
		}
	}
	st.set(func(s *store) { s.down = false })
	awaitQueueEmpty(t, r)
	r.stop(t, 10*time.Second)
	for id, want := range map[muster.DeviceID]string{"bad": "rejected store", "late": "stored "} {
		if ms := tr.Messages(id); len(ms) != 1 || ms[0].Verdict+" "+ms[0].Code != want || ms[0].Stored == 0 {
			t.Errorf("%s: %+v", id, ms)
		}
	}
}

func TestADeviceIsFollowedAtMostTenTimesASecond(t *testing.T) {
	tr := trail.NewTrace(time.Now)
	at := time.Now()
	r := start(t, t.TempDir(), newStore(), func(c *ingest.Config) {
		c.Tracer, c.Now = tracer{tr}, func() time.Time { return at }
	})
	for i := range 100 {
		r.send(t, "d", fmt.Sprintf(`{"i":%d}`, i), nil, 0)
	}
	r.send(t, "d", `bad`, nil, 0)
	ms := tr.Messages("d")
	if len(ms) != 11 || ms[0].Code != "malformed" || string(ms[1].Raw) != `{"i":9}` {
		t.Errorf("%d messages are followed, the newest %s and %s", len(ms), ms[0].Raw, ms[1].Raw)
	}
}

func TestWhatIsRefusedBeforeItIsDecodedIsFollowedUnlessSomebodyElseDoes(t *testing.T) {
	tr := trail.NewTrace(time.Now)
	r := start(t, t.TempDir(), newStore(), func(c *ingest.Config) { c.Tracer = tracer{tr} })
	r.in.Refuse(ingest.Message{Device: "d", Topic: "x", Payload: []byte("cut")}, "too_large", "too large", 5000)
	r.in.Refuse(ingest.Message{Device: "d", Topic: "y", Untraced: true}, "rate", "too many", 1)
	awaitQueueEmpty(t, r)
	ms := tr.Messages("d")
	if len(ms) != 1 || ms[0].Code != "too_large" || ms[0].Size != 5000 || ms[0].Topic != "x" || ms[0].Verdict != trail.Rejected {
		t.Errorf("messages %+v", ms)
	}
}
