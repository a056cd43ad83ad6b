package trail_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"muster"
	"muster/devices/intake"
	"muster/devices/trail"
)

type logRig struct {
	*trail.Logs
	*clock
	store *store
}

func newLogs(t *testing.T) *logRig {
	r := &logRig{clock: newClock(), store: newStore(t)}
	r.Logs = trail.NewLogs(trail.LogsConfig{Store: r.store, Now: r.now, Logger: discard()})
	return r
}

func (r *logRig) page(t testing.TB, q trail.PageQuery) ([]trail.PlacedLine, *trail.LinePlace) {
	t.Helper()
	q.Device = "a"
	if q.Before == (trail.LinePlace{}) {
		q.Before.Arrival = math.MaxInt64
	}
	if q.Limit == 0 {
		q.Limit = 10_000
	}
	lines, next, err := r.Page(context.Background(), q)
	must(t, err)
	return lines, next
}

// texts returns what q finds, as "level text".
func (r *logRig) texts(t testing.TB, q trail.PageQuery) []string {
	t.Helper()
	lines, _ := r.page(t, q)
	out := []string{}
	for _, l := range lines {
		out = append(out, l.Level.String()+" "+l.Text)
	}
	return out
}

func (r *logRig) send(t testing.TB, payloads ...string) []string {
	t.Helper()
	var ms []intake.Message
	for _, p := range payloads {
		ms = append(ms, r.message(intake.Log, "a", "", p))
	}
	return show(r.Take(context.Background(), ms))
}

func TestWhatALogMessageMayBe(t *testing.T) {
	now := muster.MicrosOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	cases := []struct {
		name, payload string
		want          string // lines as "level text fields", with +s when stamped; or "!code"
	}{
		{"an object", `{"level":"warn","msg":"low battery"}`, "warn low battery"},
		{"message instead of msg", `{"level":"error","message":"x"}`, "error x"},
		{"other fields are kept", `{"level":"debug","msg":"x","volt":3.30,"a":[1]}`, `debug x {"a":[1],"volt":3.30}`},
		{"no level is info", `{"msg":"x"}`, "info x"},
		{"a level nobody knows is info, and kept", `{"level":"loud","msg":"x"}`, `info x {"level":"loud"}`},
		{
			"syslog's numbers", `[{"level":0,"msg":"a"},{"level":3,"msg":"b"},{"level":"4","msg":"c"},{"level":6,"msg":"d"},{"level":7,"msg":"e"}]`,
			"error a|error b|warn c|info d|debug e",
		},
		{
			"syslog's words", `[{"level":"emerg","msg":"a"},{"level":"ERR","msg":"b"},{"level":"Warning","msg":"c"},{"level":"notice","msg":"d"}]`,
			"error a|error b|warn c|info d",
		},
		{"numbers of JavaScript's libraries", `[{"level":50,"msg":"a"},{"level":40,"msg":"b"},{"level":20,"msg":"c"}]`, "error a|warn b|debug c"},
		{"ts", `{"ts":1763812800,"msg":"x"}`, "+1763812800 info x"},
		{"a ts of a clock that was never set is a field", `{"ts":1000000007,"msg":"x"}`, `+1000000007 info x`},
		{"an uptime is a field", `{"ts":12.5,"msg":"x"}`, `info x {"ts":12.5}`},
		{"a ts far ahead is a field", `{"ts":"2027-01-01T00:00:00Z","msg":"x"}`, `info x {"ts":"2027-01-01T00:00:00Z"}`},
		{"a msg that is no text", `{"msg":{"a":1}}`, `info {"a":1}`},
		{"no msg at all", `{"a":1}`, `info  {"a":1}`},
		{"an array of texts", `["a","b"]`, "info a|info b"},
		{"an array of anything", `[1,null,{"msg":"x"}]`, "info 1|info |info x"},
		{"text", "I (32) wifi: up\r\n\r\n  W  \nE done", "info I (32) wifi: up|info   W  |info E done"},
		{"a broken object is text", `{"msg":`, `info {"msg":`},
		{"1,000 lines", strings.Repeat("x\n", 1000), strings.TrimSuffix(strings.Repeat("info x|", 1000), "|")},
		{"more than 1,000 lines", strings.Repeat("x\n", 1001), "!malformed"},
		{"more than 1,000 objects", "[" + strings.Repeat("1,", 1000) + "1]", "!malformed"},
		{"an empty array", "[]", "!malformed"},
		{"nothing", " \n", "!malformed"},
		{"bytes", "\xff\x00", "!text"},
		{"more than 64 KiB", strings.Repeat("x", 64<<10+1), "!too_large"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			lines, err := trail.ParseLines([]byte(tc.payload), now)
			if err != nil {
				want(t, "refusal", tc.want, "!"+intake.CodeOf(err))
				return
			}
			var got []string
			for _, l := range lines {
				s := strings.TrimSuffix(l.Level.String()+" "+l.Text+" "+l.Fields, " ")
				if l.Stamped {
					s = fmt.Sprintf("+%d %s", l.Time/1_000_000, s)
				} else if l.Time != now {
					t.Errorf("time %s", l.Time.Time())
				}
				got = append(got, s)
			}
			want(t, "lines", tc.want, strings.Join(got, "|"))
		})
	}
}

func TestLongLinesAreCut(t *testing.T) {
	long := strings.Repeat("é", 3000)
	lines, err := trail.ParseLines(fmt.Appendf(nil, `{"msg":%q,"f":%q}`, long, long), 1)
	must(t, err)
	if l := lines[0]; len(l.Text) > 2048 || !strings.HasSuffix(l.Text, "é…") || !utf8.ValidString(l.Text) || l.Fields != `{"cut":6008}` {
		t.Errorf("%d bytes of text, fields %s", len(l.Text), l.Fields)
	}
}

func FuzzParseLines(f *testing.F) {
	for _, s := range []string{`{"level":"warn","msg":"x","ts":1763812800}`, `["a",{"msg":1},null]`, "a\nb\r\n\n", `{"level":`, "\xff", "[]", `{"":{}}`, `[[[]]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		lines, err := trail.ParseLines(payload, 1_763_812_800_000_000)
		if (err == nil) == (len(lines) == 0) {
			t.Fatalf("%d lines and %v", len(lines), err)
		}
		for _, l := range lines {
			if len(l.Text) > 2048 || l.Fields != "" && !json.Valid([]byte(l.Fields)) || l.Level > trail.Error {
				t.Errorf("line %+v", l)
			}
		}
	})
}

func TestLinesAreKeptReadAndFoundAgain(t *testing.T) {
	r := newLogs(t)
	want(t, "answers", []string{"", "", ""}, r.send(t, `[{"level":"debug","msg":"one"},{"level":"error","msg":"Two"}]`, "three", `{"msg":"four","peer":"Gate"}`))
	want(t, "answers", []string{""}, r.send(t, `{"level":"warn","msg":"five"}`))
	want(t, "all", []string{"warn five", "info four", "info three", "error Two", "debug one"}, r.texts(t, trail.PageQuery{}))
	want(t, "warnings", []string{"warn five", "error Two"}, r.texts(t, trail.PageQuery{Level: trail.Warn}))
	want(t, "by text", []string{"error Two"}, r.texts(t, trail.PageQuery{Text: "tWO"}))
	want(t, "by field", []string{"info four"}, r.texts(t, trail.PageQuery{Text: "gate"}))
	want(t, "since", []string{"warn five"}, r.texts(t, trail.PageQuery{From: r.micros()}))
	want(t, "none", []string{}, r.texts(t, trail.PageQuery{Text: "zero"}))
}

func TestAStampedLineThatIsSentAgainShowsOnce(t *testing.T) {
	r := newLogs(t)
	r.send(t, `{"ts":1763812800.25,"msg":"x"}`, `{"msg":"y"}`)
	r.send(t, `{"ts":1763812800.25,"msg":"x"}`, `{"ts":1763812800.25,"msg":"z"}`, `{"msg":"y"}`)
	want(t, "lines", []string{"info y", "info z", "info x", "info y"}, r.texts(t, trail.PageQuery{}))
}

func TestLinesOverTheRateAreSaidInOneLine(t *testing.T) {
	r := newLogs(t)
	send := func(n int) {
		t.Helper()
		var payloads []string
		for i := range n {
			payloads = append(payloads, fmt.Sprint("line ", i))
		}
		for _, s := range r.send(t, payloads...) {
			want(t, "answer", "", s)
		}
	}
	send(1000)
	want(t, "lines of a flood", 500, len(r.texts(t, trail.PageQuery{})))
	must(t, r.Flush(t.Context()))
	want(t, "said by the loop", []string{"warn 500 lines dropped: more than 50 a second, or 500 at once"}, r.texts(t, trail.PageQuery{Text: "dropped"}))
	must(t, r.Flush(t.Context()))
	want(t, "said once", 501, len(r.texts(t, trail.PageQuery{})))
	send(500)
	r.add(time.Second)
	r.store.fail = func() error { return muster.Errorf(muster.Unavailable, "away") }
	want(t, "answers while the store is away", []string{"unavailable: away", "malformed: the payload is empty"}, r.send(t, "later", ""))
	r.store.fail = nil
	want(t, "answers", []string{""}, r.send(t, "later"))
	want(t, "said before the next line", []string{"info later", "warn 500 lines dropped: more than 50 a second, or 500 at once"},
		r.texts(t, trail.PageQuery{})[:2])
	want(t, "lines in all", 503, len(r.texts(t, trail.PageQuery{})))
}

func TestWhatWasDroppedIsSaidWhenTheServerStops(t *testing.T) {
	r := newLogs(t)
	r.send(t, strings.Repeat("x\n", 700))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.Run(ctx))
	want(t, "lines", "warn 200 lines dropped: more than 50 a second, or 500 at once", r.texts(t, trail.PageQuery{})[0])
}

func TestTheNewestLinesOfADeviceAreKept(t *testing.T) {
	r := newLogs(t)
	for i := range 30 {
		r.add(10 * time.Second)
		want(t, "answers", []string{""}, r.send(t, strings.Repeat(fmt.Sprintf("batch %d\n", i), 100)))
	}
	runUntil(t, r.Trim, func() bool { return len(r.texts(t, trail.PageQuery{})) == trail.MaxLines })
	lines := r.texts(t, trail.PageQuery{})
	want(t, "newest and oldest", []string{"info batch 29", "info batch 10"}, []string{lines[0], lines[len(lines)-1]})
	r.add(7*24*time.Hour - 100*time.Second)
	runUntil(t, r.Trim, func() bool { return len(r.texts(t, trail.PageQuery{})) == 1000 })
}

func TestPagesOfLinesAreWholeAndOrdered(t *testing.T) {
	r := newLogs(t)
	sent := 0
	rapid.Check(t, func(rt *rapid.T) {
		_, err := r.store.ExpireLogs(t.Context(), math.MaxInt64, 1000)
		must(t, err)
		first := sent
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 5), 0, 6).Draw(rt, "lines in messages") {
			r.add(time.Second)
			payload := ""
			for range n {
				payload += fmt.Sprintf("%d\n", sent)
				sent++
			}
			want(t, "answers", []string{""}, r.send(t, payload))
		}
		size := rapid.IntRange(1, 700).Draw(rt, "page size")
		next := &trail.LinePlace{Arrival: math.MaxInt64}
		expect := sent - 1
		for next != nil {
			var page []trail.PlacedLine
			page, next = r.page(t, trail.PageQuery{Limit: size, Before: *next})
			for _, l := range page {
				if l.Text != fmt.Sprint(expect) {
					rt.Fatalf("line %s where %d is due", l.Text, expect)
				}
				expect--
			}
		}
		if expect != first-1 {
			rt.Errorf("the pages end before line %d", expect)
		}
	})
}
