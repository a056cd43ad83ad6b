package postgres

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
	"muster/ingest"
)

func TestCopyReader(t *testing.T) {
	var rows []staged
	for i := range 3000 {
		r := numbers("d", muster.Micros(i), float64(i))
		rows = append(rows, staged{row: row{Reading: &r, at: i, device: 1, set: &set{id: 1}}})
	}
	whole, err := io.ReadAll(&copyReader{rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the stream has the header, every row and the end", func(t *testing.T) {
		const fixed = 2 + (4 + 8) + (4 + 4) + (4 + 4) + (4 + 20 + 12) + 4
		if want := len(copyHeader) + len(rows)*fixed + 2; len(whole) != want {
			t.Errorf("%d bytes, want %d", len(whole), want)
		}
	})
	t.Run("it is the same read in small pieces", func(t *testing.T) {
		var got bytes.Buffer
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, &copyReader{rows: rows}, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), whole) {
			t.Error("the streams differ")
		}
	})
}

func TestNumbersRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := rapid.SliceOf(rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(-1)))).Draw(rt, "numbers")
		got, err := decodeNumbers(appendNumbers(nil, want)[4:])
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); err != nil || diff != "" {
			rt.Fatalf("error %v, differs (-want +got):\n%s", err, diff)
		}
	})
}

func drawValues(rt *rapid.T) []muster.Value {
	number := rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(1)), rapid.Just(math.Inf(-1)))
	keys := rapid.SliceOfDistinct(rapid.Custom(func(rt *rapid.T) muster.Key {
		return muster.Key{Name: rapid.StringN(1, 20, -1).Draw(rt, "name"), Kind: rapid.SampledFrom([]muster.ValueKind{muster.Number, muster.Bool, muster.JSON}).Draw(rt, "kind")}
	}), func(k muster.Key) muster.Key { return k }).Draw(rt, "keys")
	slices.SortFunc(keys, muster.CompareKeys)
	var out []muster.Value
	for _, k := range keys {
		v := muster.Value{Key: k}
		if k.Kind == muster.JSON {
			b, _ := json.Marshal(rapid.String().Draw(rt, "text"))
			v.Text = string(b)
		} else {
			v.Num = number.Draw(rt, "number")
		}
		out = append(out, v)
	}
	return out
}

func TestLatestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var want []ingest.LatestValue
		for _, v := range drawValues(rt) {
			want = append(want, ingest.LatestValue{Value: v, Time: muster.Micros(rapid.Int64().Draw(rt, "time")), Arrival: 5})
		}
		b, err := encodeLatest(want)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := decodeLatest(b)
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); err != nil || diff != "" {
			rt.Fatalf("error %v, differs (-want +got):\n%s", err, diff)
		}
	})
}

func TestLooseRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var keys []muster.Key
		var in, out muster.Reading
		for _, v := range drawValues(rt) {
			keys = append(keys, v.Key)
			if v.Key.Kind == muster.JSON {
				in.Texts = append(in.Texts, v.Text)
			} else {
				in.Numbers = append(in.Numbers, v.Num)
			}
		}
		in.Layout = muster.NewLayout(keys)
		in.Layout.Loose = true
		err := decodeLoose(appendLoose(nil, &in), nil, &out)
		if diff := cmp.Diff(in, out, cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); err != nil || diff != "" {
			rt.Fatalf("error %v, differs (-want +got):\n%s", err, diff)
		}
	})
}

func TestLooseID(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var keys []muster.Key
		for _, v := range drawValues(rt) {
			keys = append(keys, v.Key)
		}
		if id := looseID(keys); id >= 0 || id == math.MinInt32 {
			rt.Fatalf("the id of %v is %d, want a negative one above the least", keys, id)
		}
	})
}

func TestCacheForgetsWhatIsNotAskedFor(t *testing.T) {
	c := newCache[int, int](10)
	for i := range 1000 {
		c.put(i, i)
		if v, ok := c.get(0); !ok || v != 0 {
			t.Fatalf("what is asked for each time is forgotten after %d", i)
		}
		if len(c.young)+len(c.old) > 20 {
			t.Fatalf("%d entries are kept, want at most 20", len(c.young)+len(c.old))
		}
	}
	if _, ok := c.get(500); ok {
		t.Error("an old entry is still there")
	}
}

func FuzzDecode(f *testing.F) {
	b, err := encodeLatest([]ingest.LatestValue{{Value: muster.Value{Key: muster.Key{Name: "a"}, Num: 1}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"n":{"a":1},"b":{"c":0},"j":{"d":"x"}}`))
	f.Add(appendNumbers(nil, []float64{1, math.NaN()})[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var r muster.Reading
		if err := decodeLoose(b, nil, &r); err == nil && len(r.Numbers)+len(r.Texts) != len(r.Layout.Keys) {
			t.Errorf("%d numbers and %d texts of %d keys", len(r.Numbers), len(r.Texts), len(r.Layout.Keys))
		}
		if ns, err := decodeNumbers(b); err == nil && len(ns)*4 > len(b) {
			t.Errorf("%d numbers out of %d bytes", len(ns), len(b))
		}
		if vs, err := decodeLatest(b); err != nil && vs != nil {
			t.Errorf("values beside the error %v", err)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`1e401`, `"1e401"`, `[1E+400,"\"",-2.50e-3]`, `{"e1":1e0400}`, `0e999`, `tru`} {
		f.Add(s, `[1]`)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !json.Valid([]byte(a)) || !json.Valid([]byte(b)) {
			return
		}
		if got, want := hugeExponent(a), exponentBeyond(a); got != want {
			t.Fatalf("hugeExponent(%q) is %v, want %v", a, got, want)
		}
		if hugeExponent(a) || hugeExponent(b) {
			return
		}
		if !sameJSON(a, a) || sameJSON(a, b) != sameJSON(b, a) {
			t.Errorf("sameJSON is no equality on %q and %q", a, b)
		}
		x, okX := new(big.Rat).SetString(a)
		y, okY := new(big.Rat).SetString(b)
		if okX && okY && sameJSON(a, b) != (x.Cmp(y) == 0) {
			t.Errorf("sameJSON(%q, %q) is %v", a, b, sameJSON(a, b))
		}
	})
}

// exponentBeyond asks a JSON decoder for every number of text.
func exponentBeyond(text string) bool {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		n, ok := token.(json.Number)
		if !ok {
			continue
		}
		if i := strings.IndexAny(string(n), "eE"); i >= 0 {
			e, ok := new(big.Int).SetString(strings.TrimLeft(string(n)[i+1:], "+"), 10)
			if ok && e.CmpAbs(big.NewInt(maxExponent)) > 0 {
				return true
			}
		}
	}
}
