package storetest

import (
	"fmt"
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"muster"
	"muster/ingest"
)

// model is what a store must hold: the values by device, time and layout.
type model map[modelKey]muster.Reading

type modelKey struct {
	device muster.DeviceID
	at     muster.Micros
	layout string
}

func modelKeyOf(r muster.Reading) modelKey {
	return modelKey{r.Device, r.Time, fmt.Sprint(r.Layout.Loose, r.Layout.Keys)}
}

// put stores r as the contract says and returns the outcome.
func (m model) put(r muster.Reading) ingest.Outcome {
	k := modelKeyOf(r)
	old, there := m[k]
	m[k] = r
	switch {
	case !there:
		return ingest.Stored
	case sameValues(old, r):
		return ingest.Duplicate
	}
	return ingest.Replaced
}

func sameValues(a, b muster.Reading) bool {
	for i, n := range a.Numbers {
		if n != b.Numbers[i] && !(math.IsNaN(n) && math.IsNaN(b.Numbers[i])) {
			return false
		}
	}
	for i, s := range a.Texts {
		if canonical(s) != canonical(b.Texts[i]) {
			return false
		}
	}
	return true
}

// testModel appends random batches with duplicates, replacements, replays and
// reopenings, and holds outcomes and contents to the model.
func testModel(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	shared := sharedLayouts()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := model{}
		devices := []muster.DeviceID{deviceName("m"+strconv.Itoa(run), 0), deviceName("m"+strconv.Itoa(run), 1)}
		var log [][]muster.Reading
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"new", "new", "new", "part", "replay", "reopen"}).Draw(rt, "step") {
			case "new":
				rows := drawRows(rt, devices, shared)
				log = append(log, rows)
				checkAppend(rt, h, m, h.batch(rows...))
			case "part":
				rows := drawRows(rt, devices, shared)
				log = append(log, rows)
				checkAppend(rt, h, m, ingest.Batch{From: h.at, To: h.at, Readings: rows})
			case "replay":
				for _, rows := range log[rapid.IntRange(0, len(log)).Draw(rt, "replay from"):] {
					checkAppend(rt, h, m, ingest.Batch{From: h.at, To: h.at, Readings: rows})
				}
			case "reopen":
				h.reopen()
			}
		}
		checkContents(rt, h, m, devices)
	})
}

func checkAppend(rt *rapid.T, h *harness, m model, b ingest.Batch) {
	want := make([]ingest.Outcome, 0, len(b.Readings))
	for _, r := range b.Readings {
		want = append(want, m.put(r))
	}
	at := *h
	at.t = rt
	at.wantOutcomes(at.appendBatch(b), want...)
	h.at = at.at
}

func checkContents(rt *rapid.T, h *harness, m model, devices []muster.DeviceID) {
	at := *h
	at.t = rt
	for _, d := range devices {
		var want []muster.Reading
		points := int64(0)
		for k, r := range m {
			if k.device == d {
				want = append(want, r)
				points += visible(r)
			}
		}
		at.wantStored(d, want...)
		at.wantCount(`SELECT count(*) FROM telemetry_points WHERE device = '`+string(d)+`'`, points)
	}
}

// visible counts the values of r that are no holes.
func visible(r muster.Reading) int64 {
	n := int64(len(r.Texts))
	for _, v := range r.Numbers {
		if !math.IsNaN(v) {
			n++
		}
	}
	return n
}

// sharedLayouts returns interned layouts and loose ones. No set of keys is both: a
// store may or may not take those for the same layout.
func sharedLayouts() []*muster.Layout {
	var out []*muster.Layout
	for _, prefix := range []string{"", "loose-"} {
		a, b, s := muster.Key{Name: prefix + "a"}, muster.Key{Name: prefix + "b", Kind: muster.Bool}, muster.Key{Name: prefix + "a", Kind: muster.JSON}
		for _, keys := range [][]muster.Key{{a}, {s}, {a, b}, {a, b, s}} {
			l := muster.NewLayout(keys)
			l.Loose = prefix != ""
			out = append(out, l)
		}
	}
	return append(out, muster.NewLayout(nil))
}

// drawRows draws readings from a domain so small that most keys meet again.
func drawRows(rt *rapid.T, devices []muster.DeviceID, layouts []*muster.Layout) []muster.Reading {
	rows := make([]muster.Reading, rapid.IntRange(0, 40).Draw(rt, "rows"))
	for i := range rows {
		l := rapid.SampledFrom(layouts).Draw(rt, "layout")
		r := muster.Reading{
			Device: rapid.SampledFrom(devices).Draw(rt, "device"),
			Time:   epoch + muster.Micros(rapid.IntRange(0, 3).Draw(rt, "time"))*day/2,
			Layout: l,
		}
		for range l.Numbers {
			r.Numbers = append(r.Numbers, rapid.SampledFrom([]float64{0, 1, -2.5, math.NaN()}).Draw(rt, "number"))
		}
		for range len(l.Keys) - l.Numbers {
			r.Texts = append(r.Texts, rapid.SampledFrom([]string{`"x"`, `"y"`, `null`, `[1,2]`, `{"k":"v"}`}).Draw(rt, "text"))
		}
		rows[i] = r
	}
	return rows
}
