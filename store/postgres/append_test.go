package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster"
	"muster/ingest"
	"muster/store/postgres/pgtest"
)

func TestInfo(t *testing.T) {
	t.Run("a server with timescaledb keeps telemetry in a hypertable", func(t *testing.T) {
		i := opened(t, pgtest.Empty(t, pgtest.Server(t, "MUSTER_TEST_TIMESCALE"))).Info()
		if i.Server == "" || i.Timescale == "" || i.Licence == "" || !i.Hypertable {
			t.Errorf("info is %+v, want all of it", i)
		}
	})
	t.Run("a plain server keeps telemetry in native partitions", func(t *testing.T) {
		i := opened(t, pgtest.Empty(t, pgtest.Server(t, "MUSTER_TEST_POSTGRES"))).Info()
		if i.Server == "" || i.Timescale != "" || i.Licence != "" || i.Hypertable {
			t.Errorf("info is %+v, want a server's version only", i)
		}
	})
}

func TestAppendRefuses(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		loose := texts("d", 0, `"\u0000"`)
		loose.Layout.Loose = true
		named := numbers("d", 0, 1)
		named.Layout = muster.NewLayout([]muster.Key{{Name: "bad\xff"}})
		looseNamed := named
		looseNamed.Layout = &muster.Layout{Keys: named.Layout.Keys, Numbers: 1, Loose: true}
		cases := map[string]muster.Reading{
			"U+0000 inside a JSON text":             texts("d", 0, `{"a":"x\u0000y"}`),
			"U+0000 inside a loose JSON text":       loose,
			"half a surrogate pair":                 texts("d", 0, `"\ud800"`),
			"a number with a huge exponent":         texts("d", 0, `[1,{"e":1e131071}]`),
			"a key that is not UTF-8":               named,
			"a loose key that is not UTF-8":         looseNamed,
			"a time before year 1":                  numbers("d", minTime-1, 1),
			"a time after year 9999":                numbers("d", endTime, 1),
			"a JSON text nested beyond the limit":   texts("d", 0, strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000)+"x"),
			"a JSON text that is not UTF-8":         texts("d", 0, "\"\xff\""),
			"a JSON text that closes the object":    texts("d", 0, `1},"x":{"y":2`),
			"a cursor that bigint does not hold":    {},
			"a loose JSON text that adds a value":   looseText(`1,"other":2`),
			"a text with a raw control character":   texts("d", 0, "\"\x00\""),
			"a number the JSON grammar does not":    texts("d", 0, `01`),
			"a literal the JSON grammar does not":   texts("d", 0, `NaN`),
			"a text with something after the value": texts("d", 0, `1 2`),
		}
		for name, r := range cases {
			t.Run(name+" is refused for good", func(t *testing.T) {
				b := ingest.Batch{Readings: []muster.Reading{numbers("good", 0, 1), r}}
				if r.Layout == nil {
					b = ingest.Batch{To: ingest.Cursor{Incarnation: "log", Seq: 1 << 63}}
				}
				_, err := s.Append(t.Context(), b)
				wantKind(t, err, muster.Invalid)
			})
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default`, 0)
	})
}

func looseText(text string) muster.Reading {
	r := texts("d", 0, text)
	r.Layout.Loose = true
	return r
}

func TestJSONByMeaning(t *testing.T) {
	same := [][2]string{
		{`{"a":1.0,"b":[1e2]}`, ` { "b" : [100], "a" : 1 } `},
		{`"\u00e9\/"`, `"é/"`},
		{`-0.0`, `0`},
		{`{"a":1,"a":2}`, `{"a":2}`},
		{`1234567890123456789012345`, `1.234567890123456789012345e24`},
	}
	other := [][2]string{{`1`, `"1"`}, {`[1,2]`, `[2,1]`}, {`null`, `false`}, {`9007199254740993`, `9007199254740992`}, {`{"a":null}`, `{}`}}
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		n := 0
		check := func(pairs [][2]string, want ingest.Outcome) {
			for _, p := range pairs {
				n++
				at := muster.Micros(n) * 1_000_000
				a, b := texts("x", at, p[0]), texts("x", at, p[1])
				if got := stored(t, s, a, b); got[1] != want {
					t.Errorf("in one batch %s after %s is %d, want %d", p[1], p[0], got[1], want)
				}
				a.Device, b.Device = "y", "y"
				stored(t, s, a)
				if got := stored(t, s, b); got[0] != want {
					t.Errorf("in the next batch %s after %s is %d, want %d", p[1], p[0], got[0], want)
				}
			}
		}
		t.Run("another spelling of an equal JSON value is a duplicate", func(t *testing.T) { check(same, ingest.Duplicate) })
		t.Run("another JSON value replaces", func(t *testing.T) { check(other, ingest.Replaced) })
	})
}

func TestPartitionDropped(t *testing.T) {
	dsn := pgtest.Empty(t, pgtest.Server(t, "MUSTER_TEST_POSTGRES"))
	s := opened(t, dsn)
	stored(t, s, numbers("d", 0, 1))
	admin(t, dsn, `DROP TABLE telemetry_default_19700101`)
	t.Run("a reading for a partition that retention dropped is stored", func(t *testing.T) {
		if got := stored(t, s, numbers("d", 5, 1)); got[0] != ingest.Stored {
			t.Errorf("the outcome is %d, want stored", got[0])
		}
		wantCount(t, dsn, `SELECT count(*) FROM telemetry_default_19700101`, 1)
	})
	t.Run("a detached partition makes append unavailable, not invalid", func(t *testing.T) {
		admin(t, dsn, `ALTER TABLE telemetry_default DETACH PARTITION telemetry_default_19700101`)
		_, err := s.Append(t.Context(), ingest.Batch{Readings: []muster.Reading{numbers("d", 6, 1)}})
		wantKind(t, err, muster.Unavailable)
	})
}

func TestSplit(t *testing.T) {
	var rows []row
	for i := range 1000 {
		r := numbers("d", muster.Micros(i*7919%1000)*week+muster.Micros(i), 1)
		rows = append(rows, row{Reading: &r, at: i, device: 1, set: &set{id: 1}})
	}
	parts := split(dedupe(rows, make([]ingest.Outcome, len(rows))))
	total := 0
	for _, p := range parts {
		weeks := map[int32]bool{}
		for _, r := range p {
			weeks[weekOf(r.Time)] = true
		}
		if total += len(p); len(weeks) > maxWeeks {
			t.Errorf("a part touches %d weeks, want at most %d", len(weeks), maxWeeks)
		}
	}
	if total != len(rows) || len(parts) != 16 {
		t.Errorf("%d rows in %d parts, want %d in 16", total, len(parts), len(rows))
	}
	if parts := split(nil); len(parts) != 1 || len(parts[0]) != 0 {
		t.Errorf("no rows make %d parts, want one that is empty", len(parts))
	}
}

func TestWideLayout(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		keys := make([]muster.Key, 3000)
		r := muster.Reading{Device: "wide", Numbers: make([]float64, len(keys))}
		for i := range keys {
			keys[i].Name = fmt.Sprintf("key-%04d", i)
			r.Numbers[i] = float64(i)
		}
		r.Layout = muster.NewLayout(keys)
		stored(t, s, r)
		got := rangeOf(t, s, ingest.RangeQuery{Device: "wide", To: 1})
		if len(got) != 1 || !slices.Equal(got[0].Numbers, r.Numbers) {
			t.Errorf("%d readings come back, or with other numbers", len(got))
		}
		got = rangeOf(t, s, ingest.RangeQuery{Device: "wide", To: 1, Keys: []string{"key-2999", "key-0007"}})
		if len(got) != 1 || !slices.Equal(got[0].Numbers, []float64{7, 2999}) {
			t.Errorf("two keys of 3,000 come back as %v", got)
		}
	})
}

func rangeOf(t *testing.T, s *Telemetry, q ingest.RangeQuery) []muster.Reading {
	t.Helper()
	var out []muster.Reading
	for r, err := range s.Range(t.Context(), q) {
		if err != nil {
			t.Fatalf("range: %v", err)
		}
		out = append(out, r)
	}
	return out
}

func TestRangePages(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		var rs []muster.Reading
		for i := range 2*pageRows + 300 { // three readings at each time: a page may end among them
			at := muster.Micros(i/3) * 1_000_000
			switch i % 3 {
			case 0:
				rs = append(rs, numbers("d", at, float64(i)))
			case 1:
				rs = append(rs, texts("d", at, fmt.Sprint(i)))
			case 2:
				r := looseText(fmt.Sprint(i))
				r.Time = at
				rs = append(rs, r)
			}
		}
		stored(t, s, rs...)
		for _, desc := range []bool{false, true} {
			t.Run(fmt.Sprintf("each reading comes once over several pages, newest first %v", desc), func(t *testing.T) {
				got := rangeOf(t, s, ingest.RangeQuery{Device: "d", To: endTime, Desc: desc})
				seen := map[string]bool{}
				for i, r := range got {
					seen[fmt.Sprint(r.Numbers, r.Texts)] = true
					if i > 0 && (r.Time < got[i-1].Time) != desc && r.Time != got[i-1].Time {
						t.Fatalf("reading %d is out of order", i)
					}
				}
				if len(got) != len(rs) || len(seen) != len(rs) {
					t.Errorf("%d readings, %d different, want %d", len(got), len(seen), len(rs))
				}
			})
			t.Run(fmt.Sprintf("one key of several pages, newest first %v", desc), func(t *testing.T) {
				got := rangeOf(t, s, ingest.RangeQuery{Device: "d", Keys: []string{"j"}, To: endTime, Desc: desc, Limit: 1200})
				if len(got) != 1200 {
					t.Errorf("%d readings, want 1200", len(got))
				}
			})
		}
		t.Run("a page that is full by size goes on with the next reading", func(t *testing.T) {
			long := `"` + strings.Repeat("x", 250_000) + `"`
			var big []muster.Reading
			for i := range 40 {
				big = append(big, texts("big", muster.Micros(i), long))
			}
			stored(t, s, big...)
			if got := rangeOf(t, s, ingest.RangeQuery{Device: "big", To: 100}); len(got) != 40 || got[39].Time != 39 {
				t.Errorf("%d readings, want 40", len(got))
			}
		})
	})
}

func TestRangePlan(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s := opened(t, dsn)
		var rs []muster.Reading
		for i := range 3000 {
			rs = append(rs, numbers("d", muster.Micros(i)*day/10, 1))
		}
		stored(t, s, rs...)
		for _, desc := range []bool{false, true} {
			for _, keys := range []bool{false, true} {
				t.Run(fmt.Sprintf("a page is read along the index on a table never analysed: newest first %v, keys %v", desc, keys), func(t *testing.T) {
					args := []any{1, endTime.Time(), minTime.Time(), 1 << 30, 10}
					if desc {
						args = []any{1, minTime.Time(), endTime.Time(), -1 << 30, 10}
					}
					if keys {
						args = append(args, []int32{1}, []string{"v"}, []int32{1})
					}
					rows, err := s.read.Query(t.Context(), "EXPLAIN (COSTS OFF) "+rangeSQL(desc, keys), args...)
					var plan []string
					sorts := false
					err = collect(rows, err, func() error {
						var line string
						err := rows.Scan(&line)
						plan = append(plan, line)
						sorts = sorts || strings.Trim(line, " ->") == "Sort"
						return err
					})
					if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, "Index Scan") || sorts {
						t.Errorf("error %v, the plan is\n%s", err, text)
					}
				})
			}
		}
	})
}
