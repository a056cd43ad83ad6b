package storetest

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"muster"
	"muster/ingest"
)

func testValues(t *testing.T, fresh func(t testing.TB) Database) {
	h := start(t, fresh)
	nan := math.NaN()
	cases := []struct {
		name string
		row  muster.Reading
	}{
		{"numbers at the edges", reading("v-1", epoch, "a", 0.0, "b", math.MaxFloat64, "c", -math.MaxFloat64, "d", 5e-324, "e", 1e-310, "f", 0.1)},
		{"infinite numbers", reading("v-2", epoch, "a", math.Inf(1), "b", math.Inf(-1))},
		{"booleans", reading("v-3", epoch, "a", true, "b", false)},
		{"a hole among values", reading("v-4", epoch, "a", 1.0, "b", nan, "c", 3.0)},
		{"nothing but holes", reading("v-5", epoch, "a", nan, "b", nan)},
		{"a string", reading("v-6", epoch, "a", text(`"open"`))},
		{"a string with escapes and other scripts", reading("v-7", epoch, "a", text(`"\"quoted\"\n\\ 温度 é 😀"`))},
		{"an array, an object, null, true and false", reading("v-8", epoch,
			"a", text(`[1,2,{"x":null}]`), "b", text(`{"x":{"y":[true]}}`), "c", text(`null`), "d", text(`true`), "e", text(`false`))},
		{"an integer beyond 2^53", reading("v-9", epoch, "a", text(`9007199254740993`), "b", text(`-18446744073709551617`))},
		{"all kinds at once", reading("v-10", epoch, "a", 1.5, "b", true, "c", text(`"x"`), "d", nan, "e", text(`[]`), "f", 2.5)},
		{"one name with three kinds", reading("v-11", epoch, "a", 1.5, "a", true, "a", text(`"x"`))},
		{"an empty layout", reading("v-12", epoch)},
		{"names with odd characters", reading("v-13", epoch, `a"b`, 1.0, `a.b`, 2.0, `a\b`, text(`"x"`), `$[0]`, text(`"y"`), `a b`, 3.0, "温度", 4.0, `'`, 5.0, `{x,y}`, 6.0, `NULL`, 7.0)},
		{"the longest name", reading("v-14", epoch, strings.Repeat("n", 256), 1.0)},
		{"a long text", reading("v-15", epoch, "a", text(`"`+strings.Repeat("x", 200_000)+`"`))},
		{"a time before 1970", reading("v-16", -1, "a", 1.0)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h.wantOutcomes(h.append(c.row), ingest.Stored)
			h.wantStored(c.row.Device, c.row)
			h.wantOutcomes(h.append(c.row), ingest.Duplicate)
		})
		t.Run(c.name+", loose", func(t *testing.T) {
			r := c.row
			l := *r.Layout
			l.Loose = true
			r.Device, r.Layout = "loose-"+r.Device, &l
			h.wantOutcomes(h.append(r), ingest.Stored)
			h.wantStored(r.Device, r)
			h.wantOutcomes(h.append(r), ingest.Duplicate)
		})
	}
	t.Run("a key whose type changes at the same time stamp keeps both", func(t *testing.T) {
		a, b, c := reading("turns", epoch, "v", 1.0), reading("turns", epoch, "v", text(`"one"`)), reading("turns", epoch, "v", true)
		h.wantOutcomes(h.append(a, b), ingest.Stored, ingest.Stored)
		h.wantOutcomes(h.append(c), ingest.Stored)
		h.wantStored("turns", a, b, c)
	})
	t.Run("a layout of 200 keys of mixed kinds", func(t *testing.T) {
		pairs := make([]any, 0, 400)
		for i := range 200 {
			pairs = append(pairs, fmt.Sprintf("k%03d", i), []any{float64(i), i%2 == 0, text(fmt.Sprintf(`"%d"`, i))}[i%3])
		}
		r := reading("wide", epoch, pairs...)
		h.wantOutcomes(h.append(r), ingest.Stored)
		h.wantStored("wide", r)
	})
}
