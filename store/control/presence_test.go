package control_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/feed"
	"muster/store/control"
	"muster/store/postgres"
)

func presenceRows(t *testing.T, c *control.Control) (rows []devices.PresenceRow) {
	t.Helper()
	wantNil(t, c.LoadPresence(t.Context(), func(r devices.PresenceRow) error { rows = append(rows, r); return nil }))
	return rows
}

func historyRows(t *testing.T, c *control.Control) (rows []devices.HistoryRow) {
	t.Helper()
	wantNil(t, c.LoadHistory(t.Context(), func(r devices.HistoryRow) error { rows = append(rows, r); return nil }))
	return rows
}

func TestPresenceAndItsHistoryAreKeptAndGoWithTheirDevice(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.InsertDevices(ctx, []devices.Device{{ID: "a", Profile: "default"}, {ID: "b", Profile: "default"}}, nil))
		if at, err := c.LoadAlive(ctx); at != 0 || err != nil {
			t.Errorf("alive is %d, %v before the first time", at, err)
		}
		for _, at := range []muster.Micros{7, 1_893_456_000_000_001} {
			wantNil(t, c.SaveAlive(ctx, at))
			if got, err := c.LoadAlive(ctx); got != at || err != nil {
				t.Errorf("alive is %d, %v", got, err)
			}
		}
		row := func(id muster.DeviceID, rhythm int64, link string) devices.PresenceRow {
			return devices.PresenceRow{
				Device: id, Rhythm: rhythm, Link: link,
				Presence: muster.Presence{State: muster.PresenceQuiet, Since: 5, LastSeen: 1_893_456_000_000_001, Reason: "silent"},
			}
		}
		wantNil(t, c.SavePresence(ctx, []devices.PresenceRow{row("a", 1, "data"), row("b", 604800, "gateway"), row("gone", 3, ""), row("a", 2, "connection")}))
		if d := cmp.Diff([]devices.PresenceRow{row("a", 2, "connection"), row("b", 604800, "gateway")}, presenceRows(t, c)); d != "" {
			t.Error(d)
		}
		long := strings.Repeat("A", 2200)
		wantNil(t, c.SaveHistory(ctx, []devices.HistoryRow{{Device: "b", History: "x"}, {Device: "a", History: "y"}, {Device: "gone", History: "z"}, {Device: "b", History: long}}))
		if d := cmp.Diff([]devices.HistoryRow{{Device: "a", History: "y"}, {Device: "b", History: long}}, historyRows(t, c)); d != "" {
			t.Error(d)
		}
		wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"b"}))
		if p, h := presenceRows(t, c), historyRows(t, c); len(p) != 1 || len(h) != 1 {
			t.Errorf("after the deletion %d presences and %d histories are there", len(p), len(h))
		}
	})
}

// BenchmarkPresenceOf100kDevices saves a change of every device, in the batches of the
// registry, and their histories.
func BenchmarkPresenceOf100kDevices(b *testing.B) {
	for _, name := range []string{"sqlite", "MUSTER_TEST_POSTGRES"} {
		b.Run(name, func(b *testing.B) {
			var c *control.Control
			if name == "sqlite" {
				c = benchControl(b)
			} else {
				c = postgresControl(b, name)
			}
			const n = 100_000
			ps := make([]devices.PresenceRow, n)
			hs := make([]devices.HistoryRow, n)
			ds := make([]devices.Device, n)
			for i := range n {
				id := muster.DeviceID(fmt.Sprintf("device-%06d", i))
				ds[i] = devices.Device{ID: id, Profile: "default"}
				ps[i] = devices.PresenceRow{Device: id, Link: "connection", Rhythm: 60}
				hs[i] = devices.HistoryRow{Device: id, History: strings.Repeat("AQID", 60)}
			}
			for part := range slices.Chunk(ds, devices.MaxBatch) {
				if err := c.InsertDevices(b.Context(), part, nil); err != nil {
					b.Fatal(err)
				}
			}
			for _, told := range []bool{false, true} {
				b.Run(map[bool]string{false: "presence", true: "presence with an event each"}[told], func(b *testing.B) {
					for i := 0; b.Loop(); i++ {
						for part := range slices.Chunk(ps, 1000) {
							ctx := feed.With(b.Context())
							for j := range part {
								part[j].Presence = muster.Presence{State: muster.PresenceOnline, Since: muster.Micros(i), LastSeen: muster.Micros(i)}
								if told {
									feed.Note(ctx, feed.NewEvent(feed.PresenceOnline, part[j].Device, muster.Micros(i), part[j]))
								}
							}
							if err := c.SavePresence(ctx, part); err != nil {
								b.Fatal(err)
							}
						}
					}
					b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s")
				})
			}
			b.Run("history", func(b *testing.B) {
				for b.Loop() {
					for part := range slices.Chunk(hs, 500) {
						if err := c.SaveHistory(b.Context(), part); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		})
	}
}

func postgresControl(b *testing.B, env string) *control.Control {
	b.Helper()
	h, err := postgres.OpenControl(context.WithoutCancel(b.Context()), database(b, env))
	if err != nil {
		b.Fatal(err)
	}
	c, err := control.Open(b.Context(), h, control.Postgres())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}
