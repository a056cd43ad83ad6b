package control_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/trail"
	"muster/store/control"
	"muster/store/sqlite"
)

// everything is the place before which all events and lines are.
const everything = muster.Micros(math.MaxInt64)

func event(device string, at muster.Micros, kind string) trail.Event {
	return trail.Event{
		Device: muster.DeviceID(device), Type: kind, Time: at, Arrival: at + 7, By: "gw", Payload: `{"n": 1.50, "é":"\u0000"}`, Mark: int64(len(kind)),
	}
}

func events(t *testing.T, c *control.Control, q trail.EventQuery) []trail.Event {
	t.Helper()
	if q.Before == (trail.EventPlace{}) {
		q.Before.Time = everything
	}
	out, err := c.Events(t.Context(), q)
	wantNil(t, err)
	return out
}

func same[T any](t *testing.T, want, got T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("it differs (-want +got):\n%s", d)
	}
}

func TestEvents(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("a"), device("b")}, nil))
		a1, a2, b1 := event("a", 1, "x"), event("a", 2, "y"), event("b", 1, "x")
		a2.System, a2.By = true, ""
		t.Run("new ones are told from those that are there, also within one call, and strangers are left out", func(t *testing.T) {
			fresh, err := c.AppendEvents(ctx, []trail.Event{a1, a1, event("gone", 1, "x")})
			wantNil(t, err)
			same(t, []bool{true, false, false}, fresh)
			fresh, err = c.AppendEvents(ctx, []trail.Event{a1, a2, b1})
			wantNil(t, err)
			same(t, []bool{false, true, true}, fresh)
			fresh, err = c.AppendEvents(ctx, nil)
			wantNil(t, err)
			same(t, []bool{}, fresh)
		})
		t.Run("they come back letter for letter, the newest first", func(t *testing.T) {
			same(t, []trail.Event{a2, a1}, events(t, c, trail.EventQuery{Device: "a", Limit: 10}))
		})
		t.Run("by type, time, place and number", func(t *testing.T) {
			same(t, []trail.Event{a1}, events(t, c, trail.EventQuery{Device: "a", Type: "x", Limit: 10}))
			same(t, []trail.Event{a2}, events(t, c, trail.EventQuery{Device: "a", From: 2, Limit: 10}))
			same(t, []trail.Event{a1}, events(t, c, trail.EventQuery{Device: "a", Before: trail.EventPlace{Time: 2, Mark: a2.Mark}, Limit: 10}))
			same(t, []trail.Event{a2}, events(t, c, trail.EventQuery{Device: "a", Limit: 1}))
		})
		t.Run("they go with their device", func(t *testing.T) {
			wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"a"}))
			same(t, nil, events(t, c, trail.EventQuery{Device: "a", Limit: 10}))
			same(t, []trail.Event{b1}, events(t, c, trail.EventQuery{Device: "b", Limit: 10}))
		})
	})
}

func TestEventsAreTrimmedAndExpire(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("a"), device("b")}, nil))
		var es []trail.Event
		for i := range 300 {
			es = append(es, event("a", muster.Micros(i), "x"), event("b", muster.Micros(i), "x"))
		}
		_, err := c.AppendEvents(ctx, es)
		wantNil(t, err)
		for keep, want := range map[int]int{400: 300, 300: 300} {
			left, err := c.TrimEvents(ctx, "b", keep)
			wantNil(t, err)
			same(t, want, left)
		}
		left, err := c.TrimEvents(ctx, "a", 100)
		wantNil(t, err)
		same(t, 100, left)
		got := events(t, c, trail.EventQuery{Device: "a", Limit: 1000})
		if len(got) != 100 || got[99].Time != 200 {
			t.Errorf("%d events are left of a", len(got))
		}
		for _, want := range []int{80, 80, 40, 0} {
			n, err := c.ExpireEvents(ctx, 200, 80)
			wantNil(t, err)
			same(t, want, n)
		}
		same(t, 100, len(events(t, c, trail.EventQuery{Device: "a", Limit: 1000})))
		same(t, 100, len(events(t, c, trail.EventQuery{Device: "b", Limit: 1000})))
	})
}

func logRow(device string, at muster.Micros, lines ...trail.Line) trail.LogRow {
	r := trail.LogRow{Device: muster.DeviceID(device), Arrival: at, Mark: int64(at) * 3, Count: len(lines), Lines: lines}
	for _, l := range lines {
		r.Top = max(r.Top, l.Level)
	}
	return r
}

func TestLogs(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("a"), device("b")}, nil))
		calm := logRow("a", 1, trail.Line{Time: 1, Level: trail.Debug, Text: "é\x00\n"})
		grave := logRow("a", 2, trail.Line{Time: 5, Stamped: true, Level: trail.Error, Text: "x", Fields: `{"k":1.50}`}, trail.Line{Text: ""})
		other := logRow("b", 1, trail.Line{Time: 1, Text: "b"})
		wantNil(t, c.AppendLogs(ctx, []trail.LogRow{calm, grave, other, logRow("gone", 1, trail.Line{})}))
		wantNil(t, c.AppendLogs(ctx, []trail.LogRow{grave})) // again: no second one
		read := func(q trail.LogQuery) []trail.LogRow {
			t.Helper()
			if q.Arrival == 0 {
				q.Arrival = everything
			}
			q.Device, q.Limit = "a", 10
			rows, err := c.Logs(ctx, q)
			wantNil(t, err)
			return rows
		}
		same(t, []trail.LogRow{grave, calm}, read(trail.LogQuery{}))
		same(t, []trail.LogRow{grave}, read(trail.LogQuery{Level: trail.Warn}))
		same(t, []trail.LogRow{grave}, read(trail.LogQuery{From: 2}))
		same(t, []trail.LogRow{grave, calm}, read(trail.LogQuery{Arrival: 2, Mark: 6}))
		same(t, []trail.LogRow{calm}, read(trail.LogQuery{Arrival: 2, Mark: 5}))
		left, err := c.TrimLogs(ctx, "a", 3)
		wantNil(t, err)
		same(t, 3, left)
		left, err = c.TrimLogs(ctx, "a", 1)
		wantNil(t, err)
		same(t, 2, left)
		same(t, []trail.LogRow{grave}, read(trail.LogQuery{}))
		n, err := c.ExpireLogs(ctx, 2, 10)
		wantNil(t, err)
		same(t, 1, n) // b's
		wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"a"}))
		same(t, nil, read(trail.LogQuery{}))
	})
}

func TestWhatIsOldAndTooMuchIsFoundByAnIndex(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		h := e.open(t)
		c, err := control.Open(t.Context(), h, e.dialect)
		wantNil(t, err)
		defer func() { wantNil(t, c.Close()) }()
		for index, query := range map[string]string{
			"device_event_time":  `SELECT device, time, mark FROM device_event WHERE time < 5 ORDER BY time LIMIT 10`,
			"device_log_arrival": `SELECT device, arrival, mark FROM device_log WHERE arrival < 5 ORDER BY arrival LIMIT 10`,
			"device_event_":      `SELECT time, mark FROM device_event WHERE device = 'a' AND (time, mark) < (5, 6) ORDER BY time DESC, mark DESC LIMIT 10`,
			"device_log_":        `SELECT arrival, count FROM device_log WHERE device = 'a' AND (arrival, mark) <= (5, 6) ORDER BY arrival DESC, mark DESC`,
		} {
			plan := explain(t, e, h.Write, query)
			if !strings.Contains(strings.ReplaceAll(plan, "sqlite_autoindex_", ""), index) || strings.Contains(plan, "SCAN") && !strings.Contains(plan, "USING") || strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "Sort") {
				t.Errorf("the plan does not use %s alone: %s", index, plan)
			}
		}
	})
}

// BenchmarkLogs stores 500 lines of 10 devices: as one row per device, and as one row
// per line.
func BenchmarkLogs(b *testing.B) {
	c := benchControl(b)
	var ds []devices.Device
	for i := range 10 {
		ds = append(ds, device(fmt.Sprint("d", i)))
	}
	if err := c.InsertDevices(b.Context(), ds, nil); err != nil {
		b.Fatal(err)
	}
	line := trail.Line{Time: muster.MicrosOf(time.Now()), Level: trail.Info, Text: "wifi: connected to the access point on channel 11, rssi -67"}
	for _, per := range []int{50, 1} {
		b.Run(fmt.Sprintf("lines per row=%d", per), func(b *testing.B) {
			at := muster.Micros(per) << 40
			for range b.N {
				var rows []trail.LogRow
				for i := range 500 / per {
					at++
					r := logRow(string(ds[i%10].ID), at)
					for range per {
						r.Lines = append(r.Lines, line)
					}
					r.Count = per
					rows = append(rows, r)
				}
				if err := c.AppendLogs(b.Context(), rows); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(500*b.N), "ns/line")
		})
	}
}

// BenchmarkEvents stores 500 events of 100 devices in one transaction.
func BenchmarkEvents(b *testing.B) {
	c := benchControl(b)
	var ds []devices.Device
	for i := range 100 {
		ds = append(ds, device(fmt.Sprint("d", i)))
	}
	if err := c.InsertDevices(b.Context(), ds, nil); err != nil {
		b.Fatal(err)
	}
	at := muster.Micros(1)
	for range b.N {
		var es []trail.Event
		for i := range 500 {
			at++
			es = append(es, event(string(ds[i%100].ID), at, "boot"))
		}
		if _, err := c.AppendEvents(b.Context(), es); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(500*b.N), "ns/event")
}

// benchControl is a control store on SQLite.
func benchControl(b *testing.B) *control.Control {
	b.Helper()
	h, err := sqlite.OpenControl(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	c, err := control.Open(b.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}
