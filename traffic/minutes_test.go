package traffic_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/traffic"
)

func TestMinutesAddUpToTheTotalsAndLeaveGapsOut(t *testing.T) {
	var m traffic.Minutes
	start := time.Date(2026, 5, 1, 10, 0, 30, 0, time.UTC)
	if since, got := m.From(time.Time{}); !since.IsZero() || len(got) != 0 {
		t.Errorf("before the start: %v, %v", since, got)
	}
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for s := range 91 { // ten a second until 10:02:00, the store five behind
		m.Note(at(s), traffic.Totals{Received: uint64(100 + 10*s), Stored: uint64(50 + 10*s)})
	}
	m.Note(at(300), traffic.Totals{Received: 5000, Stored: 5000}) // the machine slept
	m.Note(at(301), traffic.Totals{Received: 5007, Stored: 5003})
	want := []traffic.Minute{
		{At: at(-30), Counted: 29 * time.Second, Totals: traffic.Totals{Received: 290, Stored: 290}},
		{At: at(30), Counted: time.Minute, Totals: traffic.Totals{Received: 600, Stored: 600}},
		{At: at(90), Counted: time.Second, Totals: traffic.Totals{Received: 10, Stored: 10}},
		{At: at(270), Counted: time.Second, Totals: traffic.Totals{Received: 7, Stored: 3}},
	}
	since, got := m.From(time.Time{})
	if d := cmp.Diff(want, got); d != "" || !since.Equal(start) {
		t.Errorf("since %v: %s", since, d)
	}
	if _, got := m.From(at(90)); cmp.Diff(want[2:], got) != "" {
		t.Errorf("from 10:02: %v", got)
	}
}

func TestMinutesForgetAfterADay(t *testing.T) {
	var m traffic.Minutes
	start := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	for s := 0; s <= 25*3600; s += 20 {
		m.Note(start.Add(time.Duration(s)*time.Second), traffic.Totals{Received: uint64(s)})
	}
	_, got := m.From(time.Time{})
	if len(got) != traffic.KeptMinutes {
		t.Fatalf("%d minutes", len(got))
	}
	if first, last := got[0], got[len(got)-1]; last.At.Sub(first.At) != (traffic.KeptMinutes-1)*time.Minute || first.Received != 60 || last.Received != 20 {
		t.Errorf("from %+v to %+v", first, last)
	}
	m.Note(start, traffic.Totals{Received: 1 << 40}) // the clock is set back
	m.Note(start.Add(time.Second), traffic.Totals{Received: 1<<40 + 3})
	_, got = m.From(time.Time{})
	if last := got[len(got)-1]; last.Received != 3 || !last.At.Equal(start) {
		t.Errorf("after the clock was set back: %+v", last)
	}
}
