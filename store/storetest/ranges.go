package storetest

import (
	"context"
	"fmt"
	"math"
	"testing"

	"muster"
	"muster/ingest"
)

func testRanges(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	const dev = "range-1"
	var in []muster.Reading
	for i := range 20 {
		at := epoch + muster.Micros(i)*10*second
		switch i % 4 {
		case 0, 1:
			in = append(in, reading(dev, at, "temp", float64(i), "hum", 50.0, "on", true))
		case 2:
			in = append(in, reading(dev, at, "door", text(`"open"`)))
		case 3:
			in = append(in, reading(dev, at, loose{}, "temp", math.NaN(), "note", text(`"x"`)))
		}
	}
	h.append(in...)
	h.append(reading("range-2", epoch+30*second, "temp", 99.0))
	pick := func(q ingest.RangeQuery, want ...muster.Reading) func(t *testing.T) {
		return func(t *testing.T) { inRange(t, h, q, want) }
	}
	const end = epoch + 200*second
	all := ingest.RangeQuery{Device: dev, From: epoch, To: end}

	t.Run("all readings come oldest first", pick(all, in...))
	t.Run("from is in the range and to is not", pick(ingest.RangeQuery{Device: dev, From: in[3].Time, To: in[7].Time}, in[3:7]...))
	t.Run("an empty range has no readings", pick(ingest.RangeQuery{Device: dev, From: in[3].Time, To: in[3].Time}))
	t.Run("a range turned round has no readings", pick(ingest.RangeQuery{Device: dev, From: in[7].Time, To: in[3].Time}))
	t.Run("a range between two readings has none", pick(ingest.RangeQuery{Device: dev, From: in[3].Time + 1, To: in[4].Time}))
	t.Run("a range of one microsecond has its reading", pick(ingest.RangeQuery{Device: dev, From: in[3].Time, To: in[3].Time + 1}, in[3]))
	t.Run("newest first", pick(ingest.RangeQuery{Device: dev, From: epoch, To: end, Desc: true}, reversed(in)...))
	t.Run("a limit takes the oldest", pick(ingest.RangeQuery{Device: dev, From: epoch, To: end, Limit: 3}, in[:3]...))
	t.Run("a limit takes the newest when newest first", pick(ingest.RangeQuery{Device: dev, From: epoch, To: end, Limit: 3, Desc: true}, reversed(in)[:3]...))
	t.Run("a limit beyond what there is gives all", pick(ingest.RangeQuery{Device: dev, From: epoch, To: end, Limit: 1000}, in...))
	t.Run("an unknown device has none", pick(ingest.RangeQuery{Device: "range-0", From: epoch, To: end}))
	t.Run("an unknown key has none", pick(ingest.RangeQuery{Device: dev, Keys: []string{"nope"}, From: epoch, To: end}))
	t.Run("the latest reading by limit one", pick(ingest.RangeQuery{Device: dev, From: epoch, To: end, Limit: 1, Desc: true}, in[19]))

	rangeKeys(t, pick, dev, end, in)
	t.Run("one name with two kinds comes with both", func(t *testing.T) {
		a, b := reading("range-3", epoch, "v", 1.0, "w", 2.0), reading("range-3", epoch+1, "v", text(`"x"`), "w", 2.0)
		h.append(a, b)
		inRange(t, h, ingest.RangeQuery{Device: "range-3", Keys: []string{"v"}, From: epoch, To: end},
			[]muster.Reading{reading("range-3", epoch, "v", 1.0), reading("range-3", epoch+1, "v", text(`"x"`))})
	})
	t.Run("a reading without keys is left out when keys are wanted", func(t *testing.T) {
		e, v := reading("range-4", epoch), reading("range-4", epoch+1, "v", 1.0)
		h.append(e, v)
		inRange(t, h, ingest.RangeQuery{Device: "range-4", Keys: []string{"v"}, From: epoch, To: end}, []muster.Reading{v})
		inRange(t, h, ingest.RangeQuery{Device: "range-4", From: epoch, To: end}, []muster.Reading{e, v})
	})
	t.Run("a range may be left half way, and the writer goes on meanwhile", func(t *testing.T) { rangeHalfWay(t, h, all, in) })
	t.Run("a cancelled range says so", func(t *testing.T) { rangeCancelled(t, h, all) })
}

func rangeKeys(t *testing.T, pick func(ingest.RangeQuery, ...muster.Reading) func(*testing.T), dev muster.DeviceID, end muster.Micros, in []muster.Reading) {
	var temps, doors, both []muster.Reading
	for i, r := range in {
		switch i % 4 {
		case 0, 1:
			temps = append(temps, reading(dev, r.Time, "temp", float64(i)))
			both = append(both, reading(dev, r.Time, "temp", float64(i), "on", true))
		case 2:
			doors = append(doors, r)
		case 3:
			temps = append(temps, reading(dev, r.Time, "temp", math.NaN()))
			both = append(both, reading(dev, r.Time, "temp", math.NaN()))
		}
	}
	q := func(limit int, desc bool, keys ...string) ingest.RangeQuery {
		return ingest.RangeQuery{Device: dev, Keys: keys, From: epoch, To: end, Limit: limit, Desc: desc}
	}
	t.Run("only the wanted key comes, holes included", pick(q(0, false, "temp"), temps...))
	t.Run("a JSON key", pick(q(0, false, "door"), doors...))
	t.Run("two wanted keys, one of them not everywhere", pick(q(0, false, "on", "temp"), both...))
	t.Run("a key named twice counts once", pick(q(0, false, "temp", "temp"), temps...))
	t.Run("an unknown key beside a known one changes nothing", pick(q(0, false, "temp", "nope"), temps...))
	t.Run("readings without the wanted key do not count towards the limit", pick(q(3, false, "door"), doors[:3]...))
	t.Run("nor when newest first", pick(q(2, true, "door"), reversed(doors)[:2]...))
}

// inRange fails unless q gives exactly want, in want's order of time.
func inRange(t *testing.T, h *harness, q ingest.RangeQuery, want []muster.Reading) {
	t.Helper()
	at := *h
	at.t = t
	got := at.collect(q)
	at.wantRows(got, want...)
	for i := range min(len(got), len(want)) {
		if got[i].Time != want[i].Time {
			t.Errorf("reading %d has time %d, want %d", i, got[i].Time, want[i].Time)
		}
	}
}

func rangeHalfWay(t *testing.T, h *harness, q ingest.RangeQuery, in []muster.Reading) {
	n := 0
	for r, err := range h.s.Range(t.Context(), q) {
		if err != nil {
			t.Fatalf("range: %v", err)
		}
		if r.Time != in[n].Time {
			t.Errorf("reading %d has time %d, want %d", n, r.Time, in[n].Time)
		}
		h.wantOutcomes(h.append(reading("range-5", epoch+muster.Micros(n), "v", float64(n))), ingest.Stored)
		if err := h.s.Sync(t.Context()); err != nil {
			t.Fatalf("sync while a range is under way: %v", err)
		}
		if n++; n == 5 {
			break
		}
	}
	if got := len(h.all("range-5")); got != 5 {
		t.Errorf("%d readings were appended during the range, want 5", got)
	}
}

func rangeCancelled(t *testing.T, h *harness, q ingest.RangeQuery) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range h.s.Range(ctx, q) {
		last = err
	}
	if last == nil {
		t.Error("a range under a cancelled context ends without an error")
	}
}

func reversed(in []muster.Reading) []muster.Reading {
	out := make([]muster.Reading, len(in))
	for i, r := range in {
		out[len(in)-1-i] = r
	}
	return out
}

func deviceName(prefix string, i int) muster.DeviceID {
	return muster.DeviceID(fmt.Sprintf("%s-%06d", prefix, i))
}
