package ingest

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

var testNow = muster.MicrosOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))

func newTestDecoder() *decoder {
	return &decoder{layouts: NewLayouts(), mint: func() bool { return true }}
}

// show writes messages as "time {json}" and refused ones as "code: reason".
func show(d *decoder) []string {
	var out []string
	for _, m := range d.messages {
		at := "-"
		if m.time != 0 {
			at = m.time.Time().Format(time.RFC3339Nano)
		}
		r := muster.Reading{Layout: m.layout, Numbers: m.numbers, Texts: m.texts}
		out = append(out, at+" "+string(AppendJSON(nil, &r)))
	}
	for _, r := range d.refused {
		out = append(out, r.fault.code+": "+r.fault.reason)
	}
	return out
}

func TestPayloadsBecomeMessages(t *testing.T) {
	tests := []struct{ name, tail, payload, want string }{
		{"flat", "", `{"temp":21.5,"hum":40}`, `- {"hum":40,"temp":21.5}`},
		{"ts and values", "", `{"ts":1763812800000,"values":{"a":1}}`, `2025-11-22T12:00:00Z {"a":1}`},
		{"values without ts", "", `{"values":{"a":1}}`, `- {"a":1}`},
		{"values beside other keys is a value", "", `{"values":{"a":1},"b":2}`, `- {"b":2,"values.a":1}`},
		{"ts in a flat object", "", `{"a":1,"ts":1763812800}`, `2025-11-22T12:00:00Z {"a":1}`},
		{"timestamp as RFC 3339", "", `{"timestamp":"2025-11-22T13:00:00.25+01:00","a":1}`, `2025-11-22T12:00:00.25Z {"a":1}`},
		{"seconds with a fraction", "", `{"ts":1763812800.5,"a":1}`, `2025-11-22T12:00:00.5Z {"a":1}`},
		{"microseconds", "", `{"ts":1763812800000001,"a":1}`, `2025-11-22T12:00:00.000001Z {"a":1}`},
		{"nanoseconds", "", `{"ts":1763812800000001999,"a":1}`, `2025-11-22T12:00:00.000001Z {"a":1}`},
		{"t and time are values", "", `{"t":1763812800,"time":"x"}`, `- {"t":1763812800,"time":"x"}`},
		{"a small ts is a value", "", `{"ts":12345,"a":1}`, `- {"a":1,"ts":12345}`},
		{"nesting flattens", "", `{"a":{"b":{"c":1},"d":true}}`, `- {"a.b.c":1,"a.d":true}`},
		{"an empty object is kept", "", `{"a":{}}`, `- {"a":{}}`},
		{"arrays and text are kept", "", `{"a":[1, "x"],"b":"y\n"}`, `- {"a":[1, "x"],"b":"y\n"}`},
		{"null is a hole", "", `{"a":null,"b":1}`, `- {"a":null,"b":1}`},
		{"of two keys the later wins", "", `{"a":1,"a":2}`, `- {"a":2}`},
		{"also when it flattens", "", `{"a.b":1,"a":{"b":"x"}}`, `- {"a.b":"x"}`},
		{"integers beyond 2^53 keep their digits", "", `{"a":9007199254740993}`, `- {"a":9007199254740993}`},
		{"numbers beyond float64 keep their digits", "", `{"a":1e400}`, `- {"a":1e400}`},
		{"array of flat", "", `[{"a":1},{"a":2}]`, `- {"a":1}|- {"a":2}`},
		{"array of both", "", ` [ {"ts":1763812800,"values":{"a":1}} , {"b":2} ] `, `2025-11-22T12:00:00Z {"a":1}|- {"b":2}`},
		{"an empty array is no message", "", `[]`, `malformed: an array must hold objects at byte 0`},
		{"scalar takes its key from the tail", "temp", `21.5`, `- {"temp":21.5}`},
		{"a deep tail", "room/temp", `true`, `- {"room.temp":true}`},
		{"text scalar", "door", `"open"`, `- {"door":"open"}`},
		{"scalar without a tail", "", `-3`, `- {"value":-3}`},
		{"object under a tail", "room", `{"temp":1,"ts":1763812800}`, `2025-11-22T12:00:00Z {"room.temp":1}`},
		{"values under a tail", "room", `{"ts":1763812800,"values":{"temp":1}}`, `2025-11-22T12:00:00Z {"room.temp":1}`},
		{"array of numbers under a tail", "xyz", `[1,2,3]`, `- {"xyz":[1,2,3]}`},
		{"escaped key", "", `{"a\u00e9\ud83d\ude00":1}`, "- {\"a\u00e9\U0001F600\":1}"},

		{"empty", "", ``, `malformed: the payload is empty`},
		{"cut", "", `{"a":1`, `malformed: malformed JSON: expected ',' or '}' at byte 6`},
		{"trailing", "", `{"a":1}x`, `malformed: malformed JSON: something follows the value at byte 7`},
		{"bare word", "door", `open`, `malformed: malformed JSON: not a value at byte 0`},
		{"NaN", "temp", `NaN`, `malformed: malformed JSON: not a value at byte 0`},
		{"NaN inside", "", `{"a":NaN}`, `malformed: malformed JSON: not a value at byte 5`},
		{"leading zero", "", `{"a":01}`, `malformed: malformed JSON: not a value at byte 5`},
		{"no values", "", `{}`, `malformed: the message has no values`},
		{"only a time", "", `{"ts":1763812800}`, `malformed: the message has no values`},
		{"empty values", "", `{"ts":1763812800,"values":{}}`, `malformed: the message has no values`},
		{"far ahead", "", `{"ts":"2026-11-23T12:00:01Z","a":1}`, `time: time stamp 2026-11-23T12:00:01Z is more than 24 h ahead`},
		{"before 2000", "", `{"ts":"1999-12-31T23:59:59Z","a":1}`, `time: time stamp 1999-12-31T23:59:59Z is before 2000`},
		{"ts of the wrong type", "", `{"ts":"yesterday","values":{"a":1}}`, `time: ts is neither RFC 3339 nor a number of at least 1e9`},
		{"array of scalars", "", `[1,2]`, `malformed: an array must hold objects at byte 0`},
		{"array with a scalar", "", `[{"a":1},2]`, `malformed: an array must hold objects at byte 9`},
		{
			"one bad message of three", "", `[{"a":1},{"ts":"1990-01-01T00:00:00Z","a":2},{"a":3}]`,
			`- {"a":1}|- {"a":3}|time: time stamp 1990-01-01T00:00:00Z is before 2000`,
		},
		{"NUL in text", "", `{"a":"x\u0000"}`, `text: text with U+0000 can not be stored`},
		{"lone surrogate", "", `{"a":"\ud800"}`, `malformed: malformed JSON: half of a surrogate pair at byte 6`},
		{"not UTF-8", "", "{\"a\":\"\xff\"}", `malformed: malformed JSON: text is not UTF-8 at byte 6`},
		{"deep nesting", "", strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), `malformed: nested deeper than 16 levels`},
		{"deep arrays", "", `{"a":` + strings.Repeat(`[`, 5000) + strings.Repeat("]", 5000) + `}`, `malformed: nested deeper than 16 levels`},
		{"long key", "", `{"` + strings.Repeat("k", 257) + `":1}`, `malformed: a key must have 1 to 256 bytes`},
		{"empty key", "", `{"":1}`, `malformed: a key must have 1 to 256 bytes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newTestDecoder()
			for range 2 { // the second pass takes the known shape
				d.decode(tt.tail, []byte(tt.payload), testNow)
				if diff := cmp.Diff(strings.Split(tt.want, "|"), trimAt(show(d), tt.want)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// trimAt drops " at byte n" where the wanted text has none.
func trimAt(got []string, want string) []string {
	for i, g := range got {
		if before, _, found := strings.Cut(g, " at byte "); found && !strings.Contains(want, " at byte ") {
			got[i] = before
		}
	}
	return got
}

func TestTooMuchInOnePayloadIsRefusedWhole(t *testing.T) {
	d := newTestDecoder()
	d.decode("", []byte("["+strings.Repeat(`{"a":1},`, maxArray)+`{"a":1}]`), testNow)
	if len(d.messages) != 0 || len(d.refused) != 1 {
		t.Errorf("%d messages, %d refused", len(d.messages), len(d.refused))
	}
	var b strings.Builder
	for i := range maxKeys + 1 {
		fmt.Fprintf(&b, `,"k%d":1`, i)
	}
	d.decode("", []byte("{"+b.String()[1:]+"}"), testNow)
	if len(d.messages) != 0 || len(d.refused) != 1 {
		t.Errorf("%d messages, %d refused", len(d.messages), len(d.refused))
	}
}

func TestADeviceThatMintsLayoutsBecomesLoose(t *testing.T) {
	in := &device{}
	d := &decoder{layouts: NewLayouts(), mint: in.mayMint}
	loose := 0
	for i := range 200 {
		d.decode("", fmt.Appendf(nil, `{"k%d":%d}`, i, i), testNow)
		if d.messages[0].layout.Loose {
			loose++
		}
	}
	if loose != 200-maxDeviceLayouts {
		t.Errorf("%d of 200 layouts are loose, want %d", loose, 200-maxDeviceLayouts)
	}
	d.decode("", []byte(`{"k3":1}`), testNow)
	if d.messages[0].layout.Loose {
		t.Error("a layout that is known already became loose")
	}
}

// FuzzDecode: what the decoder takes, encoding/json takes too, with the same
// numbers; and nothing panics or outgrows its limits.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"ts":1763812800,"values":{"a":{"b":[1,{"c":"\u00e9"}]}}}`, `[{"a":1},{"b":true}]`, `1e5`, `"x"`, `[1]`} {
		f.Add("k/l", []byte(s))
		f.Add("", []byte(s))
	}
	f.Fuzz(func(t *testing.T, tail string, payload []byte) {
		d := newTestDecoder()
		d.decode(tail, payload, testNow)
		if len(d.messages) == 0 && len(d.refused) == 0 {
			t.Fatal("a payload vanished")
		}
		if len(d.messages) > 0 && !json.Valid(payload) {
			t.Fatalf("took what is not JSON: %q", payload)
		}
		for _, m := range d.messages {
			r := muster.Reading{Layout: m.layout, Numbers: m.numbers, Texts: m.texts}
			out := AppendJSON(nil, &r)
			if !json.Valid(out) {
				t.Fatalf("made what is not JSON: %q from %q", out, payload)
			}
		}
	})
}

func TestNumbersAreThoseOfStrconv(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.OneOf(rapid.Float64(), rapid.Custom(func(t *rapid.T) float64 {
			return float64(rapid.Int64Range(-1e9, 1e9).Draw(t, "n")) / math.Pow10(rapid.IntRange(0, 6).Draw(t, "e"))
		})).Draw(t, "v")
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := newTestDecoder()
		d.decode("k", text, testNow)
		if len(d.messages) != 1 {
			t.Fatalf("%s: %v", text, show(d))
		}
		if m := d.messages[0]; m.layout.Keys[0].Kind == muster.Number && math.Float64bits(m.numbers[0]) != math.Float64bits(v) {
			t.Fatalf("%s read as %v", text, m.numbers[0])
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	payload := []byte(`{"ts":1763812800000,"values":{"temperature":21.5,"humidity":40.1,"battery":87,"rssi":-71,"v1":1.25,"v2":2.5,"v3":3.75,"v4":4,"on":true,"n":123456}}`)
	d := newTestDecoder()
	b.ReportAllocs()
	for b.Loop() {
		d.decode("", payload, testNow)
	}
}
