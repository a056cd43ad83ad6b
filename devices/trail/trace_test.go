package trail_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/devices/intake"
	"muster/devices/trail"
)

func readings(device muster.DeviceID, values ...float64) (rs []muster.Reading) {
	l := muster.NewLayout([]muster.Key{{Name: "v"}})
	for _, v := range values {
		rs = append(rs, muster.Reading{Device: device, Layout: l, Numbers: []float64{v}})
	}
	return rs
}

func start(device muster.DeviceID, payload string, values ...float64) *trail.Start {
	return &trail.Start{
		Kind: "telemetry", Device: device, Topic: "devices/" + string(device) + "/telemetry", QoS: 1, Payload: []byte(payload), Size: len(payload),
		Received: 1000, Decoded: 1001, Readings: readings(device, values...),
	}
}

func only(t *testing.T, tr *trail.Trace, device muster.DeviceID) trail.Message {
	t.Helper()
	ms := tr.Messages(device)
	if len(ms) != 1 {
		t.Fatalf("%d messages of %s", len(ms), device)
	}
	return ms[0]
}

func TestAMessageIsFollowedThroughEveryStep(t *testing.T) {
	tr := trail.NewTrace(newClock().now)
	s := start("a", `{"v":1}`, 1)
	f := tr.Begin(s)
	s.Payload[1], s.Readings[0].Numbers[0] = 'X', 99 // the caller's scratch
	m := only(t, tr, "a")
	want(t, "verdict at first", trail.Pending, m.Verdict)
	want(t, "payload", `{"v":1}`, string(m.Raw))
	f.Arrived([]muster.Micros{1002})
	f.Step("durable", 1003)
	f.Step("acked", 1004)
	f.Settled(0, trail.Stored)
	want(t, "verdict before it is stored", trail.Pending, only(t, tr, "a").Verdict)
	f.Step("stored", 1005)
	m = only(t, tr, "a")
	want(t, "verdict", trail.Stored, m.Verdict)
	want(t, "times", [5]muster.Micros{1000, 1001, 1003, 1004, 1005}, [5]muster.Micros{m.Received, m.Decoded, m.Durable, m.Acked, m.Stored})
	want(t, "reading", []float64{1}, m.Items[0].Numbers)
	want(t, "its time is its arrival", [2]muster.Micros{1002, 1002}, [2]muster.Micros{m.Items[0].Time, m.Items[0].Arrival})
	want(t, "topic", "devices/a/telemetry", m.Topic)
}

func TestTheVerdictIsTheWorstOfItsParts(t *testing.T) {
	cases := []struct {
		name    string
		refused bool
		parts   []string
		want    string
	}{
		{"all stored", false, []string{trail.Stored, trail.Stored}, trail.Stored},
		{"one sent again", false, []string{trail.Stored, trail.Duplicate}, trail.Duplicate},
		{"one replaced", false, []string{trail.Replaced, trail.Duplicate}, trail.Replaced},
		{"one refused by the store", false, []string{trail.Rejected, trail.Stored}, trail.Rejected},
		{"one not there yet", false, []string{trail.Stored}, trail.Pending},
		{"one refused by the rules", true, []string{trail.Stored, trail.Stored}, trail.Rejected},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tr := trail.NewTrace(newClock().now)
			s := start("a", "x", 1, 2)
			if tc.refused {
				s.Refused = []trail.Refusal{{Code: "time", Reason: "before 2000"}}
			}
			f := tr.Begin(s)
			f.Arrived([]muster.Micros{1, 2, 3})
			for i, v := range tc.parts {
				f.Settled(i, v)
			}
			f.Step("stored", 5)
			m := only(t, tr, "a")
			want(t, "verdict", tc.want, m.Verdict)
			if (m.Code == "") != (tc.want != trail.Rejected) {
				t.Errorf("code %q", m.Code)
			}
			if tc.refused && (m.Count != 3 || m.Items[2].Arrival != 3 || m.Items[2].Code != "time" || m.Items[0].Verdict != trail.Stored) {
				t.Errorf("items %+v", m.Items)
			}
		})
	}
}

func TestWhatIsDroppedSaysSo(t *testing.T) {
	tr := trail.NewTrace(newClock().now)
	tr.Begin(start("a", "x", 1)).Step("dropped", 5)
	want(t, "verdict", trail.Dropped, only(t, tr, "a").Verdict)
}

func TestAReadingReadBackFromTheLogIsFoundByItsArrival(t *testing.T) {
	tr := trail.NewTrace(newClock().now)
	values := make([]float64, 12)
	f := tr.Begin(start("a", "x", values...))
	var at []muster.Micros
	for i := range values {
		at = append(at, muster.Micros(100+i))
	}
	f.Arrived(at)
	tr.Settled("b", 100, trail.Stored, 5)
	tr.Settled("a", 99, trail.Stored, 5)
	want(t, "verdict after strangers'", trail.Pending, only(t, tr, "a").Verdict)
	for _, arrival := range at {
		tr.Settled("a", arrival, trail.Stored, 5)
	}
	m := only(t, tr, "a")
	want(t, "verdict, also with more readings than are kept", trail.Stored, m.Verdict)
	want(t, "kept and counted", [2]int{10, 12}, [2]int{len(m.Items), m.Count})
}

func TestTheNewestTwentyOfADeviceAreKeptAndTheFirst4KiBOfEach(t *testing.T) {
	tr := trail.NewTrace(newClock().now)
	for i := range 50 {
		tr.Begin(start("a", fmt.Sprintf("%d %s", i, strings.Repeat("x", 5000)), 1))
	}
	ms := tr.Messages("a")
	want(t, "messages", 20, len(ms))
	for i, m := range ms {
		if !strings.HasPrefix(string(m.Raw), fmt.Sprintf("%d ", 49-i)) || len(m.Raw) != 4096 || m.Size < 5000 {
			t.Errorf("message %d is %.5s, %d of %d bytes", i, m.Raw, len(m.Raw), m.Size)
		}
	}
	tr.Forget("a")
	want(t, "after the device was deleted", 0, len(tr.Messages("a")))
}

func TestMemoryIsBoundedAndWhoSentLeastRecentlyGoes(t *testing.T) {
	c := newClock()
	tr := trail.NewTrace(c.now)
	tr.Begin(start("watched", "x", 1))
	tr.Messages("watched")
	now := c.micros()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const devices = 100_000
	for i := range devices {
		s := start(muster.DeviceID(fmt.Sprint("device-", i)), `{"v":1,"some":"more","bytes":[1,2,3]}`, 1)
		s.Received = now
		tr.Begin(s)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
	kept := 0
	for i := range devices {
		if tr.Has(muster.DeviceID(fmt.Sprint("device-", i))) {
			kept++
		}
	}
	t.Logf("%.1f MiB for %d devices", used, kept)
	if used > 36 {
		t.Errorf("%.1f MiB of heap", used)
	}
	if !tr.Has("watched") || tr.Has("device-0") || !tr.Has(muster.DeviceID(fmt.Sprint("device-", devices-1))) || kept < 20_000 {
		t.Errorf("%d devices are kept, and the wrong ones", kept)
	}
	runtime.KeepAlive(tr)
}

func TestHowManyAreFollowed(t *testing.T) {
	c := newClock()
	tr := trail.NewTrace(c.now)
	now := c.micros()
	wanted := func(device muster.DeviceID, refused bool, at muster.Micros, of int) (n int) {
		for range of {
			if tr.Wants(device, refused, at) {
				n++
			}
		}
		return n
	}
	want(t, "of a burst", 1000, wanted("a", false, now, 5000))
	want(t, "a second later", 1000, wanted("a", false, now+1_000_000, 5000))
	want(t, "of refused ones beyond that", 200, wanted("a", true, now+1_000_000, 5000))
	tr.Messages("a")
	want(t, "of a device that is looked at", 5000, wanted("a", false, now+1_000_000, 5000))
	want(t, "of others", 0, wanted("b", false, now+1_000_000, 100))
	late := now + 16*60*1_000_000
	want(t, "of the others long after", 1000, wanted("b", false, late, 5000))
	want(t, "of a device that was looked at long ago", 0, wanted("a", false, late, 100))
	c.add(16 * time.Minute)
	for i := range 300 {
		c.add(time.Millisecond)
		tr.Messages(muster.DeviceID(fmt.Sprint(i)))
	}
	wanted("b", false, c.micros(), 5000)
	want(t, "of the first of too many that are looked at", 0, wanted("0", false, c.micros(), 1)+wanted("43", false, c.micros(), 1))
	want(t, "of the last of them", 1, wanted("299", false, c.micros(), 1))
}

func TestIntakeIsFollowedAtTenASecond(t *testing.T) {
	c := newClock()
	tr := trail.NewTrace(c.now)
	it := tr.Intake()
	m := c.message(intake.Event, "a", "door", `{"open":true}`)
	followed := 0
	for range 100 {
		if tt := it.Begin(&m, c.micros()); tt != nil {
			followed++
			tt.Step(intake.StepDecoded, 5)
			tt.Step(intake.StepStored, 6)
			if followed == 10 {
				tt.Refused("rate", "too many")
			}
		}
	}
	if followed < 10 || followed > 11 {
		t.Errorf("%d of 100 are followed", followed)
	}
	ms := tr.Messages("a")
	var verdicts []string
	for _, m := range ms {
		verdicts = append(verdicts, m.Verdict+m.Code)
	}
	if ms[0].Kind != "event" || ms[0].Topic != "devices/a/events/door" || string(ms[0].Raw) != `{"open":true}` ||
		ms[0].Decoded != 5 || ms[0].Stored != 6 || verdicts[len(ms)-1] != "stored" || verdicts[len(ms)-10] != "rejectedrate" {
		t.Errorf("messages %+v", verdicts)
	}
}

func TestTheTraceIsSafeForAll(t *testing.T) {
	c := newClock()
	tr := trail.NewTrace(c.now)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				id := muster.DeviceID(fmt.Sprint((w + i) % 5))
				f := tr.Begin(start(id, "x", 1, 2))
				f.Arrived([]muster.Micros{muster.Micros(i), muster.Micros(i + 1)})
				f.Step("durable", 1)
				tr.Settled(id, muster.Micros(i), trail.Stored, 2)
				f.Settled(1, trail.Stored)
				for _, m := range tr.Messages(id) {
					if len(m.Items) != 2 {
						t.Errorf("items %v", m.Items)
					}
				}
				if i%500 == 0 {
					tr.Forget(id)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkTrace(b *testing.B) {
	c := newClock()
	b.Run("over the rate", func(b *testing.B) {
		tr := trail.NewTrace(c.now)
		now := c.micros()
		for range b.N {
			tr.Wants("a", false, now)
		}
	})
	for _, devices := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("one followed of %d devices", devices), func(b *testing.B) {
			tr := trail.NewTrace(c.now)
			starts := make([]*trail.Start, devices)
			for i := range starts {
				starts[i] = start(muster.DeviceID(fmt.Sprint("device-", i)), `{"temperature":21.5,"humidity":40,"pressure":1013.2}`, 1)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				f := tr.Begin(starts[i%devices])
				f.Arrived([]muster.Micros{1})
				f.Step("durable", 1)
				f.Step("acked", 1)
				f.Settled(0, trail.Stored)
				f.Step("stored", 1)
			}
		})
	}
}

func TestAClockThatIsSetBackStopsNothing(t *testing.T) {
	c := newClock()
	tr := trail.NewTrace(c.now)
	now := c.micros()
	for range 2000 {
		tr.Wants("a", false, now)
	}
	if !tr.Wants("a", false, now-3600*1_000_000) {
		t.Error("an hour earlier nothing is followed")
	}
	r := newEvents(t)
	for range 101 {
		r.send(t, "1")
	}
	r.add(-time.Hour)
	r.send(t, "1")
	r.add(time.Second)
	want(t, "a second after the clock was set back", "", r.send(t, "2"))
}
