package sqlite

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
	"muster/ingest"
)

func TestLatestValuesAreDecodedAsTheyWereEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in []ingest.LatestValue
		for range rapid.IntRange(0, 20).Draw(t, "values") {
			v := ingest.LatestValue{Time: muster.Micros(rapid.Int64().Draw(t, "time")), Arrival: muster.Micros(rapid.Int64().Draw(t, "arrival"))}
			v.Key = muster.Key{Name: rapid.String().Draw(t, "name"), Kind: muster.ValueKind(rapid.IntRange(0, 2).Draw(t, "kind"))}
			if v.Key.Kind == muster.JSON {
				v.Text = rapid.String().Draw(t, "text")
			} else {
				v.Num = math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
			}
			in = append(in, v)
		}
		out, err := decodeLatest(appendLatest(nil, in))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, out, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("values differ (-in +out):\n%s", diff)
		}
	})
}

func FuzzDecodeLatest(f *testing.F) {
	f.Add(appendLatest(nil, []ingest.LatestValue{{Value: muster.Value{Key: muster.Key{Name: "a", Kind: muster.JSON}, Text: `"x"`}, Time: -5}}))
	f.Add([]byte{latestVersion, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		vals, err := decodeLatest(b)
		if err != nil {
			return
		}
		again, err := decodeLatest(appendLatest(nil, vals))
		if err != nil {
			t.Fatalf("what was decoded is not decoded again: %v", err)
		}
		if diff := cmp.Diff(vals, again, cmpopts.EquateNaNs()); diff != "" {
			t.Fatalf("values differ:\n%s", diff)
		}
	})
}

func TestNestingIsBounded(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	cases := map[string]struct {
		text    string
		refused bool
	}{
		"as deep as allowed":            {nested(maxNesting), false},
		"one deeper":                    {nested(maxNesting + 1), true},
		"objects count too":             {strings.Repeat(`{"a":`, maxNesting+1) + "1" + strings.Repeat("}", maxNesting+1), true},
		"brackets in a string do not":   {`"` + strings.Repeat(`[\"`, 2*maxNesting) + `"`, false},
		"many brackets side by side":    {"[" + strings.Repeat("[],", 2*maxNesting) + "[]]", false},
		"a backslash before the quote":  {`["\\",` + nested(maxNesting) + `]`, true},
		"an escaped quote in a string ": {`["\"",` + nested(maxNesting-1) + `]`, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := appendTexts(nil, []string{c.text})
			if refused := muster.KindOf(err) == muster.Invalid && err != nil; refused != c.refused {
				t.Errorf("refused: %v (%v), want %v", refused, err, c.refused)
			}
		})
	}
	t.Run("the view reads what is as deep as allowed, loose or not", func(t *testing.T) {
		s, _ := openTest(t)
		l := muster.NewLayout([]muster.Key{{Name: "deep", Kind: muster.JSON}})
		loose := *l
		loose.Loose = true
		deep := nested(maxNesting)
		mustAppend(t, s, []muster.Reading{{Device: "d", Layout: l, Texts: []string{deep}}, {Device: "d", Layout: &loose, Texts: []string{deep}}})
		var n int
		if err := s.read.QueryRow(`SELECT count(*) FROM telemetry_points WHERE text = ?`, deep).Scan(&n); err != nil || n != 2 {
			t.Errorf("the view shows %d of 2, error %v", n, err)
		}
	})
}

func TestAFullCacheIsEmptied(t *testing.T) {
	to := map[string]int64{"a": 1, "b": 2}
	mergeInto(to, map[string]int64{"c": 3}, 3)
	if diff := cmp.Diff(map[string]int64{"a": 1, "b": 2, "c": 3}, to); diff != "" {
		t.Error(diff)
	}
	mergeInto(to, map[string]int64{"d": 4}, 3)
	if diff := cmp.Diff(map[string]int64{"d": 4}, to); diff != "" {
		t.Error(diff)
	}
	var c layoutCache
	for i := range int64(maxLayoutCache + 1) {
		c.put(i, oneKey)
	}
	if n := len(c.byID); n != 1 {
		t.Errorf("%d layouts are cached after the overflow, want 1", n)
	}
}

func TestLooseIDsDependOnTheKeysAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) muster.Key {
			return muster.Key{Name: rapid.StringN(1, 4, 8).Draw(t, "name"), Kind: muster.ValueKind(rapid.IntRange(0, 2).Draw(t, "kind"))}
		}), 0, 6, func(k muster.Key) muster.Key { return k }).Draw(t, "keys")
		shuffled := rapid.Permutation(keys).Draw(t, "shuffled")
		a, b := muster.NewLayout(append([]muster.Key(nil), keys...)), muster.NewLayout(shuffled)
		if looseID(a) != looseID(b) || looseID(a) >= 0 {
			t.Fatalf("ids are %d and %d", looseID(a), looseID(b))
		}
		if len(keys) > 0 {
			if fewer := muster.NewLayout(append([]muster.Key(nil), keys[1:]...)); looseID(fewer) == looseID(a) {
				t.Fatal("a set without one key has the same id")
			}
		}
	})
}
