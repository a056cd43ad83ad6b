package api

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

func TestTimesAreReadAsRFC3339OrRelativeToNow(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"now":                         now,
		"now-3h":                      now.Add(-3 * time.Hour),
		"now+90m":                     now.Add(90 * time.Minute),
		"now 90m":                     now.Add(90 * time.Minute),
		"now-7d":                      now.AddDate(0, 0, -7),
		"now-2w":                      now.AddDate(0, 0, -14),
		"now-30s":                     now.Add(-30 * time.Second),
		"2026-01-01T00:00:00Z":        time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		"2026-01-01T02:00:00.5 02:00": time.Date(2026, 1, 1, 0, 0, 0, 500_000_000, time.UTC),
	} {
		got, err := parseWhen(in, now)
		if err != nil || got != muster.MicrosOf(want) {
			t.Errorf("%q is %v, %v", in, got.Time(), err)
		}
	}
}

func TestACursorReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.Int64Range(-1<<50, 1<<50).Draw(rt, "from")
		length := rapid.Int64Range(1, 1<<50).Draw(rt, "length")
		c := cursor{
			From: muster.Micros(from), To: muster.Micros(from + length), Desc: rapid.Bool().Draw(rt, "desc"),
			At: muster.Micros(from + rapid.Int64Range(0, length-1).Draw(rt, "at")), Hash: rapid.Uint64().Draw(rt, "hash"), Nth: rapid.IntRange(1, 300).Draw(rt, "nth"),
		}
		got, err := parseCursor(c.String())
		if err != nil || got != c {
			rt.Fatalf("%+v reads back as %+v, %v", c, got, err)
		}
	})
}

func FuzzWhen(f *testing.F) {
	for _, s := range []string{"now", "now-3h", "now+1d", "2026-01-01T00:00:00Z", "now-4294967295w", "now--1h", ""} {
		f.Add(s)
	}
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseWhen(s, now)
		if err != nil && muster.KindOf(err) != muster.Invalid {
			t.Fatalf("%q gives %v", s, err)
		}
		if year := got.Time().Year(); err == nil && (year < 0 || year > 9999) {
			t.Fatalf("%q is in the year %d", s, year)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor{From: 1, To: 9, At: 5, Hash: 1 << 63, Nth: 1}.String())
	f.Add("e30")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCursor(s)
		if err != nil {
			return
		}
		if again, err := parseCursor(c.String()); err != nil || again != c {
			t.Fatalf("%q is %+v, then %+v, %v", s, c, again, err)
		}
	})
}
