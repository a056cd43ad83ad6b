package command

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

// TestEveryStateAnswersEveryEvent holds the whole table: a letter is the state after
// the event, a dash a refusal.
func TestEveryStateAnswersEveryEvent(t *testing.T) {
	letters := map[byte]State{
		'q': Queued, 's': Sent, 'd': Delivered, 'a': Accepted, 'p': Progress, 'S': Succeeded, 'F': Failed, 'E': Expired, 'C': Cancelled,
	}
	want := [states]string{ // send lost ack accept progress ok error expire cancel
		Queued:    "s--apSFEC",
		Sent:      "-qdapSFEC",
		Delivered: "-ddapSFEC",
		Accepted:  "-aaapSFEC",
		Progress:  "-ppppSFEC",
		Succeeded: "-SSSSS---",
		Failed:    "-FFFF-F--",
		Expired:   "-EE----E-",
		Cancelled: "-CC-----C",
	}
	for s := range State(states) {
		for e := range event(events) {
			v := next(s, e)
			letter := want[s][e]
			if letter == '-' {
				if v.refused == "" {
					t.Errorf("%s takes event %d and becomes %s", s, e, v.to)
				}
				continue
			}
			if v.refused != "" || v.to != letters[letter] {
				t.Errorf("%s after event %d is %s (%s), want %s", s, e, v.to, v.refused, letters[letter])
			}
			if s.Final() && v.to != s {
				t.Errorf("%s is final and becomes %s", s, v.to)
			}
		}
	}
}

func TestStatesHaveNames(t *testing.T) {
	for s := range State(states) {
		got, err := ParseState(s.String())
		if err != nil || got != s {
			t.Errorf("%s is read as %s, %v", s, got, err)
		}
	}
	if _, err := ParseState("unknown"); muster.KindOf(err) != muster.Invalid {
		t.Errorf("a state that is none: %v", err)
	}
	if State(200).String() != "unknown" {
		t.Error("a state out of range has a name")
	}
}

func TestNoStretchOfTimeHasMoreStartsThanItsRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, MaxRate).Draw(t, "rate")
		now := muster.Micros(1_700_000_000_000_000)
		var last muster.Micros
		p := newPace(rate, last, now)
		type start struct {
			at muster.Micros
			n  int64
		}
		var starts []start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += muster.Micros(rapid.Int64Range(0, 20_000_000).Draw(t, "passed"))
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				p = newPace(rate, last, now)
			}
			n := min(p.allowed(now), rapid.Int64Range(0, 5000).Draw(t, "wanted"))
			if n > 0 {
				p.take(n)
				last = now
				starts = append(starts, start{now, n})
			}
		}
		burst := max(1, int64(rate)/600)
		for i := range starts {
			sum := int64(0)
			for j := i; j < len(starts); j++ {
				sum += starts[j].n
				span := int64(starts[j].at - starts[i].at)
				if limit := span*int64(rate)/60_000_000 + 1 + burst; sum > limit {
					t.Fatalf("%d starts in %d us at %d a minute, at most %d are allowed", sum, span, rate, limit)
				}
			}
		}
	})
}

func TestAJobThatMayStartAtItsRateStartsAllInTime(t *testing.T) {
	for _, rate := range []int{1, 7, 59, 60, 61, 600, 1000, 60_000, MaxRate} {
		now := muster.Micros(1_700_000_000_000_000)
		began := now
		p := newPace(rate, 0, now)
		started := int64(0)
		end := began + 10*minute
		if rate > 1000 { // each start is a step
			end = began + minute/10
		}
		for now < end {
			n := p.allowed(now)
			p.take(n)
			started += n
			if p.allowed(now) != 0 {
				t.Fatalf("%d a minute: more are allowed at once after all were taken", rate)
			}
			if at := p.next(); at <= now {
				t.Fatalf("%d a minute: the next is due at %d, now is %d", rate, at, now)
			}
			now = p.next()
			if p.allowed(now-1) != 0 || p.allowed(now) == 0 {
				t.Fatalf("%d a minute: the next start is not due at the time it says", rate)
			}
		}
		if want := int64(rate) * int64(end-began) / int64(minute); started < want || started > want+1 {
			t.Errorf("%d a minute: %d were started, want %d", rate, started, want)
		}
	}
}

func TestWavesEndWhereTheyShould(t *testing.T) {
	tests := []struct {
		name  string
		waves []Wave
		total int64
		want  []int64
	}{
		{"no waves are one", nil, 7, []int64{7}},
		{"no targets are one wave", nil, 0, []int64{0}},
		{"percents are of all and rounded up", []Wave{{Percent: 1}, {Percent: 10}}, 150, []int64{2, 17, 150}},
		{"counts", []Wave{{Count: 3}, {Count: 4}}, 7, []int64{3, 7}},
		{"what is left is one more", []Wave{{Count: 3}}, 7, []int64{3, 7}},
		{"waves behind the last target are none", []Wave{{Count: 7}, {Count: 1}, {Percent: 50}}, 7, []int64{7}},
		{"a wave larger than all", []Wave{{Count: 100}}, 7, []int64{7}},
		{"all in hundredths", []Wave{{Percent: 50}, {Percent: 50}}, 3, []int64{2, 3}},
		{"waves of no targets", []Wave{{Percent: 50}, {Percent: 50}}, 0, []int64{0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ends(tt.waves, tt.total)
			if len(got) != len(tt.want) {
				t.Fatalf("ends are %v, want %v", got, tt.want)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("ends are %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func FuzzReport(f *testing.F) {
	for _, s := range []string{
		`{"status":"ok"}`, `{"status":"ok","result":{"a":[1,2]}}`, `{"status":"error","error":"no"}`, `{"status":"progress","progress":41.9}`,
		`{"status":"accepted","progress":null,"result":null}`, `{"status":"OK"}`, `{"status":1}`, `[]`, `null`, `{`, "{\"status\":\"ok\",\"result\":\"\xff\"}",
		`{"status":"progress","progress":1e400}`, `{"status":"progress","progress":-1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		r, err := parseReport(payload)
		if err != nil {
			if muster.KindOf(err) != muster.Invalid {
				t.Fatalf("an error of kind %v", muster.KindOf(err))
			}
			return
		}
		if !r.ev.report() || statuses[r.status] != r.ev || r.progress < -1 || r.progress > 100 || len(r.result) > MaxParams || len(r.err) > MaxParams {
			t.Errorf("read as %+v", r)
		}
	})
}

// BenchmarkMemoryOfAnOpenCommand takes in 200,000 commands of as many devices, and of
// 1,000 devices.
func BenchmarkMemoryOfAnOpenCommand(b *testing.B) {
	for _, devices := range []int{200_000, 1000} {
		b.Run("devices="+strconv.Itoa(devices), func(b *testing.B) {
			const n = 200_000
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				var d desk
				d.init()
				for i := range n {
					d.add(Open{ID: int64(i), Device: muster.DeviceID("device-" + strconv.Itoa(i%devices)), Method: "method", Expires: muster.Micros(i * 7919 % n)}, nil)
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "bytes/command")
				runtime.KeepAlive(&d)
			}
		})
	}
}

func TestAMessageSaysWhatItShould(t *testing.T) {
	at := muster.MicrosOf(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC))
	got := string(message("reboot", []byte(`{"in":5}`), at))
	if want := `{"method":"reboot","params":{"in":5},"expires_at":"2026-01-02T03:04:05.6Z"}`; got != want {
		t.Errorf("the message is %s, want %s", got, want)
	}
}
