package twin

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func nested(open, end string, n int) string {
	return strings.Repeat(open, n) + strings.Repeat(end, n)
}

func TestADocumentIsCanonical(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"nothing", ` { } `, `{}`},
		{"keys in bytewise order", `{"b":1,"a":2,"B":3,"aa":4}`, `{"B":3,"a":2,"aa":4,"b":1}`},
		{"no spaces", "{ \"a\" :\t[ 1 , {\n\"y\": 1, \"x\" : 2 } ]\r}", `{"a":[1,{"x":2,"y":1}]}`},
		{"numbers as they were written", `{"a":1.50,"b":1E5,"c":-0,"d":1e-3,"e":123456789012345678901234567890}`, `{"a":1.50,"b":1E5,"c":-0,"d":1e-3,"e":123456789012345678901234567890}`},
		{"no escape that is not needed", `{"\u0061\/":"\u00e9\ud83d\ude00\u0022\\\u0008\n\u001f"}`, `{"a/":"é😀\"\\\b\n\u001f"}`},
		{"words", `{"a":true,"b":false,"c":[null]}`, `{"a":true,"b":false,"c":[null]}`},
		{"empty key", `{"":1}`, `{"":1}`},
		{"16 deep", `{"a":` + nested("[", "]", 15) + `}`, `{"a":` + nested("[", "]", 15) + `}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := whole([]byte(tt.in))
			if err != nil || got != tt.want {
				t.Errorf("gives %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestWhatIsNoDocument(t *testing.T) {
	tests := []struct {
		name, in string
		kind     muster.Kind
	}{
		{"nothing", ``, muster.Invalid},
		{"an array", `[]`, muster.Invalid},
		{"a string", `"a"`, muster.Invalid},
		{"null", `null`, muster.Invalid},
		{"two objects", `{}{}`, muster.Invalid},
		{"an object without end", `{"a":1`, muster.Invalid},
		{"a comma at the end", `{"a":1,}`, muster.Invalid},
		{"a comma at the end of an array", `{"a":[1,]}`, muster.Invalid},
		{"a key without quotes", `{a:1}`, muster.Invalid},
		{"a key twice", `{"a":1,"b":2,"a":3}`, muster.Invalid},
		{"a key twice in two spellings", `{"a":1,"\u0061":3}`, muster.Invalid},
		{"a key twice inside", `{"x":[{"a":1,"a":1}]}`, muster.Invalid},
		{"bytes that are not UTF-8", "{\"a\":\"\xff\"}", muster.Invalid},
		{"a lone high surrogate", `{"a":"\ud83d"}`, muster.Invalid},
		{"a lone low surrogate", `{"a":"\ude00x"}`, muster.Invalid},
		{"a high surrogate and a letter", `{"a":"\ud83d\u0061"}`, muster.Invalid},
		{"the character 0", `{"a":"\u0000"}`, muster.Invalid},
		{"an unknown escape", `{"a":"\x41"}`, muster.Invalid},
		{"a short escape", `{"a":"\u00"}`, muster.Invalid},
		{"an escape at the end", `{"a":"\`, muster.Invalid},
		{"a raw control character", "{\"a\":\"\n\"}", muster.Invalid},
		{"a string without end", `{"a":"b}`, muster.Invalid},
		{"a number with a zero before it", `{"a":01}`, muster.Invalid},
		{"a number with a plus", `{"a":+1}`, muster.Invalid},
		{"a number without digits after the point", `{"a":1.}`, muster.Invalid},
		{"a number without an exponent", `{"a":1e}`, muster.Invalid},
		{"an exponent of four digits", `{"a":1e1000}`, muster.Invalid},
		{"a number of 257 bytes", `{"a":` + strings.Repeat("1", 257) + `}`, muster.Invalid},
		{"NaN", `{"a":NaN}`, muster.Invalid},
		{"a comment", `{/* */}`, muster.Invalid},
		{"null", `{"a":{"b":null}}`, muster.Invalid},
		{"17 deep", `{"a":` + nested("[", "]", 16) + `}`, muster.Invalid},
		{"17 objects deep", strings.Repeat(`{"a":`, 16) + `{}` + strings.Repeat("}", 16), muster.Invalid},
		{"over 64 KiB", `{"a":"` + strings.Repeat("x", MaxDocument) + `"}`, muster.TooLarge},
		{"over 256 KiB as it is written", `{"a":1` + strings.Repeat(" ", MaxPatch) + `}`, muster.TooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := whole([]byte(tt.in)); err == nil || muster.KindOf(err) != tt.kind {
				t.Errorf("gives %.100s, %v", got, err)
			}
		})
	}
}

// The examples of RFC 7396, appendix A, whose target and patch are objects.
func TestMergePatchesOfTheRFC(t *testing.T) {
	tests := []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"foo"}`, `{"b":{"c":null,"d":1},"a":{"x":[null]}}`, `{"a":{"x":[null]},"b":{"d":1}}`},
	}
	for _, tt := range tests {
		if got, err := patched(tt.target, []byte(tt.patch)); err != nil || got != tt.want {
			t.Errorf("%s with %s gives %s, %v, want %s", tt.target, tt.patch, got, err, tt.want)
		}
	}
}

// mergePatch is the pseudo code of RFC 7396, section 2.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if o, ok := target.(map[string]any); ok {
		maps.Copy(out, o)
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
			continue
		}
		out[k] = mergePatch(out[k], v)
	}
	return out
}

func decode(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// values draws documents with few keys, so that they meet.
func values(nulls bool) *rapid.Generator[string] {
	key := rapid.SampledFrom([]string{"a", "b", "c", "a.b", "", "é", "q\"\n"})
	return rapid.Custom(func(t *rapid.T) string {
		var draw func(depth int) string
		draw = func(depth int) string {
			switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
			case kind == 0 && nulls:
				return "null"
			case kind <= 2:
				return rapid.SampledFrom([]string{"1", "1.0", "10e-1", "-0", "2", "true", "0.10"}).Draw(t, "number")
			case kind <= 4:
				return strconv.Quote(rapid.SampledFrom([]string{"x", "y", "tab\t"}).Draw(t, "string"))
			case kind == 5:
				return "[" + draw(depth+1) + ",{\"b\":1,\"a\":[2]}]"
			case depth > 4:
				return "{}"
			}
			var out []string
			for _, k := range rapid.SliceOfNDistinct(key, 0, 4, rapid.ID).Draw(t, "keys") {
				text, _ := json.Marshal(k)
				out = append(out, string(text)+": "+draw(depth+1))
			}
			return "{" + strings.Join(out, " ,") + "}"
		}
		for {
			if s := draw(1); s[0] == '{' {
				return s
			}
		}
	})
}

func TestMergePatchesAreThoseOfTheRFC(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		target, err := patched(empty, []byte(values(true).Draw(r, "target")))
		if err != nil {
			r.Fatal(err)
		}
		patch := values(true).Draw(r, "patch")
		got, err := patched(target, []byte(patch))
		if err != nil {
			r.Fatal(err)
		}
		if want := mergePatch(decode(t, target), decode(t, patch)); !reflect.DeepEqual(decode(t, got), want) {
			r.Fatalf("%s with %s gives %s", target, patch, got)
		}
		again, err := patched(got, []byte(patch))
		if err != nil || again != got {
			r.Fatalf("applied again it gives %s, %v", again, err)
		}
	})
}

// naive returns the leaves of a document, by path.
func naive(prefix string, v any, into map[string]any) {
	o, ok := v.(map[string]any)
	if !ok || len(o) == 0 && prefix != "" {
		into[prefix] = v
		return
	}
	for k, v := range o {
		naive(joinPath(prefix, k), v, into)
	}
}

func sameValue(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		if !ok {
			return false
		}
		p, _ := x.Float64()
		q, _ := y.Float64()
		return p == q
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !sameValue(x[i], y[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if _, ok := y[k]; !ok || !sameValue(x[k], y[k]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

// at goes down by what cutPath says.
func at(t testing.TB, v any, path string) (any, bool) {
	for path != "" {
		key, rest, ok := cutPath(path)
		if !ok {
			t.Fatalf("the path %s cannot be read", path)
		}
		o, isObject := v.(map[string]any)
		if !isObject {
			return nil, false
		}
		if v, ok = o[unquote(`"`+key+`"`)]; !ok {
			return nil, false
		}
		path = rest
	}
	return v, true
}

// naiveDiverged returns the paths of desired that reported does not have.
func naiveDiverged(t testing.TB, desired, reported any) map[string]bool {
	t.Helper()
	want := map[string]bool{}
	all := map[string]any{}
	naive("", desired, all)
	delete(all, "") // an empty document
	for path, v := range all {
		got, ok := at(t, reported, path)
		if o, isObject := v.(map[string]any); isObject && len(o) == 0 {
			if _, ok = got.(map[string]any); !ok {
				want[path] = true
			}
			continue
		}
		if !ok || !sameValue(v, got) {
			want[path] = true
		}
	}
	return want
}

func TestWhatDivergesIsEveryLeafThatIsNotReported(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		desired, _ := patched(empty, []byte(values(false).Draw(r, "desired")))
		reported, _ := patched(empty, []byte(values(false).Draw(r, "reported")))
		d, _ := parseOrEmpty(desired)
		p, _ := parseOrEmpty(reported)
		paths, count := diverged(&d, &p)
		want := naiveDiverged(t, decode(t, desired), decode(t, reported))
		have := map[string]bool{}
		for _, path := range paths {
			have[path] = true
		}
		if diff := cmp.Diff(want, have); diff != "" || count != len(want) {
			r.Fatalf("%s and %s: %s", desired, reported, diff)
		}
	})
}

func TestLookupFindsWhatIsAtAPath(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		doc, _ := patched(empty, []byte(values(false).Draw(r, "doc")))
		n, _ := parseOrEmpty(doc)
		leaves(&n, "", func(path string, leaf *node) {
			if got, ok := lookup(doc, path); !ok || got != leaf.text() {
				r.Fatalf("%s at %s is %s", doc, path, got)
			}
			if _, ok := lookup(doc, path+".nothing"); ok {
				r.Fatalf("%s has %s.nothing", doc, path)
			}
		})
	})
	for _, path := range []string{".", "a.", ".a", "a..b", `"`, `"a`, `"a"b`, `"a".`, "b", `\`, `"\ud800"`} {
		if got, ok := lookup(`{"a":{"b":1}}`, path); ok {
			t.Errorf("%s gives %s", path, got)
		}
	}
	if got, ok := lookup(`{"a\\b":{"c":1}}`, `a\b.c`); !ok || got != "1" {
		t.Errorf("a key with a backslash gives %s, %v", got, ok)
	}
}

func TestNumbersAreEqualByWhatTheyAreWorth(t *testing.T) {
	same := [][]string{
		{"0", "-0", "0.000", "0e5", "-0.0E-999"},
		{"21.5", "21.50", "215e-1", "0.215E+2", "2150e-2"},
		{"100", "1e2", "1E+02", "100.0"},
		{"-1", "-1.0", "-10e-1"},
		{"[1,2.0]", "[1.0,2]"},
		{`{"a":1.0}`, `{"a":1}`},
	}
	for _, alone := range []string{"9007199254740993", "9007199254740992", "1e-999", "1e999", "0.1", "1", "[1,[2]]", `["1"]`, `["1.0"]`, "true", `"1"`} {
		same = append(same, []string{alone})
	}
	for i, xs := range same {
		for j, ys := range same {
			for _, x := range xs {
				for _, y := range ys {
					if equal(x, y) != (i == j) {
						t.Errorf("%s and %s: %v", x, y, i != j)
					}
				}
			}
		}
	}
}

func TestDiffNamesChangedAndRemovedLeaves(t *testing.T) {
	changed, removed, err := Diff(
		[]byte(`{"a":1,"b":{"c":2,"d":3},"e":{},"f":[1]}`),
		[]byte(`{"a":1.0,"b":{"c":4},"f":[2],"g":{"h":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"b.c", "f", "g.h"}, changed) + cmp.Diff([]string{"b.d", "e"}, removed); d != "" {
		t.Error(d)
	}
	if changed, removed, err := Diff(nil, nil); err != nil || changed != nil || removed != nil {
		t.Errorf("nothing gives %v %v %v", changed, removed, err)
	}
}

func FuzzPatch(f *testing.F) {
	for _, s := range []string{`{"a":{"b":1,"c":null},"d":[{"y":1,"x":"\u00e9"}]}`, `{"a":1.50e-3}`, `{"\ud83d\ude00":""}`, `{"a":"\"}`, `{"a":{}}`, "{\"a\":\"\x01\"}"} {
		f.Add([]byte(s), []byte(`{"a":{"b":2}}`))
	}
	f.Fuzz(func(t *testing.T, target, patch []byte) {
		doc, err := patched(empty, target)
		if err != nil {
			return
		}
		if !json.Valid(target) {
			t.Fatalf("%q is taken and is not JSON", target)
		}
		if again, err := whole([]byte(doc)); err != nil || again != doc {
			t.Fatalf("%q is not canonical: %q, %v", doc, again, err)
		}
		got, err := patched(doc, patch)
		if err != nil {
			return
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(got)); err != nil || compact.String() != got {
			t.Fatalf("%q: %v", got, err)
		}
		if want := mergePatch(decode(t, doc), decode(t, string(patch))); !reflect.DeepEqual(decode(t, got), want) {
			t.Fatalf("%s with %s gives %s, want %v", doc, patch, got, want)
		}
		n, _ := parseOrEmpty(got)
		leaves(&n, "", func(path string, leaf *node) {
			if v, ok := lookup(got, path); !ok || v != leaf.text() {
				t.Fatalf("%s at %q is %s", got, path, v)
			}
		})
		d, _ := parseOrEmpty(doc)
		if paths, count := diverged(&n, &d); len(paths) != min(count, MaxDiverged) {
			t.Fatalf("%d paths of %d", len(paths), count)
		}
		if changed, removed, err := Diff([]byte(got), []byte(got)); err != nil || len(changed)+len(removed) > 0 {
			t.Fatalf("%s differs from itself: %v %v %v", got, changed, removed, err)
		}
	})
}

func FuzzLookup(f *testing.F) {
	f.Add(`a.b`)
	f.Add(`"a.b".c`)
	f.Add(`a\`)
	f.Fuzz(func(t *testing.T, path string) {
		doc := `{"":{"":1},"a":{"b":[1,"]\\\""],"c":{}},"a.b":{"c":"\\"},"x\\y":0,"é":true}`
		v, ok := lookup(doc, path)
		if ok && !json.Valid([]byte(v)) {
			t.Fatalf("%q gives %q", path, v)
		}
	})
}
