package strict

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestWhatProgramsReadDifferentlyIsRefusedWithAPointer(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
	many := "{"
	for i := range 20 {
		many += `"k` + string(rune('A'+i)) + `":0,`
	}
	tests := []struct{ name, text, pointer, detail string }{
		{"nothing", "", "", "ends before"},
		{"two values", "{} {}", "", "after"},
		{"a member twice", `{"a":{"b":1,"b":2}}`, "/a/b", "twice"},
		{"a member twice, once escaped", `{"a":1,"\u0061":2}`, "/a", "twice"},
		{"a member twice among many", many + `"kC":1}`, "/kC", "twice"},
		{"a member twice among many, escaped", many + `"k\u0043":1}`, "/kC", "twice"},
		{"a name with a slash", `{"a/b~":[0,1e999]}`, "/a~1b~0/1", "too large"},
		{"bytes that are not UTF-8", "{\"a\":\"\xff\"}", "/a", "UTF-8"},
		{"a name that is not UTF-8", "{\"\xc3\":1}", "", "UTF-8"},
		{"half a surrogate pair", `["\ud800"]`, "/0", "escape"},
		{"the other half", `["\udc00"]`, "/0", "escape"},
		{"a pair the wrong way", `["\ud800\ud800"]`, "/0", "escape"},
		{"too deep", "[" + deep + "]", strings.Repeat("/0", MaxDepth), "deep"},
		{"a number beyond a double", `{"a":-1e400}`, "/a", "too large"},
		{"a whole number beyond a double", `[` + strings.Repeat("9", 400) + `]`, "/0", "too large"},
		{"a leading zero", `[01]`, "/0", "comma"},
		{"a trailing comma in an array", `[1,]`, "/1", "not JSON"},
		{"a trailing comma in an object", `{"a":1,}`, "", "name"},
		{"a control character", "[\"\x01\"]", "/0", "control"},
		{"an open text", `["a`, "/0", "ends"},
		{"an open object", `{"a":1`, "/a", "missing"},
		{"a word that is none", `[nul]`, "/0", "not JSON"},
		{"a sign alone", `[-]`, "/0", "digits"},
		{"no exponent", `[1e]`, "/0", "digits"},
		{"an escape that is none", `["\x"]`, "/0", "escape"},
		{"NaN", `NaN`, "", "not JSON"},
		{"a byte order mark", "\ufeff{}", "", "not JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, ok := errors.AsType[*FaultError](Check([]byte(tt.text)))
			if !ok {
				t.Fatal("it is taken")
			}
			if f.Pointer != tt.pointer || !strings.Contains(f.Detail, tt.detail) {
				t.Errorf("pointer %q, detail %q", f.Pointer, f.Detail)
			}
		})
	}
	for _, text := range []string{deep, many + `"z":1}`, `{"a":[],"b":{},"c":[[],[]]}`, ` {"a" : [ 1 , -0.5e-3 , "\ud83d\ude00é😀\"\\\/\b\f\n\r\t" , true , false , null ] } `, `0`, `{"":1}`} {
		if err := Check([]byte(text)); err != nil {
			t.Errorf("%.40s: %v", text, err)
		}
	}
}

// FuzzCheck: nothing is taken that encoding/json does not take, and what only it takes is one of the faults that it
// does not look for.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x\u00e9"],"b":null}`, `{"a":1,"a":2}`, `["\ud800"]`, `[[[[]]]]`, `1e999`, `{} x`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		err := Check(text)
		if err == nil && !json.Valid(text) {
			t.Fatalf("%q is taken and is not JSON", text)
		}
		if err == nil || !json.Valid(text) {
			return
		}
		for _, known := range []string{"twice", "UTF-8", "escape", "deep", "too large"} {
			if strings.Contains(err.Error(), known) {
				return
			}
		}
		t.Fatalf("%q is JSON and refused: %v", text, err)
	})
}

func BenchmarkCheck(b *testing.B) {
	text := []byte(`{"id":"d1","name":"pump 7","tags":{"site":"north","line":"3"},"location":{"lat":52.5,"lon":13.4},"notes":"` + strings.Repeat("x", 400) + `"}`)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(text); err != nil {
			b.Fatal(err)
		}
	}
}
