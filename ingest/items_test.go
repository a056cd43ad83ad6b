package ingest

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
)

// taken is an Item in words.
type taken struct{ Device, Payload, Omit, Wrong string }

func itemsOf(t testing.TB, body string, named bool) ([]taken, error) {
	t.Helper()
	var got []taken
	err := Items([]byte(body), named, func(i Item) error {
		got = append(got, taken{string(i.Device), string(i.Payload), i.Omit, i.Wrong})
		return nil
	})
	return got, err
}

func TestABodyHoldsMessagesOfDevices(t *testing.T) {
	tests := []struct {
		name, body string
		named      bool
		want       []taken
	}{
		{"one message that names its device", ` {"device":"d1","t":1} `, false, []taken{{"d1", `{"device":"d1","t":1}`, "device", ""}}},
		{"with its time", `{"ts":1772366400,"values":{"device":"x"},"device":"d\u0031"}`, false, []taken{{"d1", `{"ts":1772366400,"values":{"device":"x"},"device":"d\u0031"}`, "device", ""}}},
		{"several", `[{"device":"d1","t":1},{"t":[{"a":"]"}],"device":"d2"}]`, false, []taken{{"d1", `{"device":"d1","t":1}`, "device", ""}, {"d2", `{"t":[{"a":"]"}],"device":"d2"}`, "device", ""}}},
		{"none", `[]`, false, nil},
		{"by device", `{ "devices" : { "d1" : {"t":1} , "d2":[{"t":2}, {"t":3} ],"d3": 5,"d4":[1,2],"d5":[] } }`, false, []taken{
			{"d1", `{"t":1}`, "", ""}, {"d2", `{"t":2}`, "", ""}, {"d2", `{"t":3}`, "", ""}, {"d3", `5`, "", ""}, {"d4", `[1,2]`, "", ""},
		}},
		{"devices that are no object are a value", `{"device":"d1","devices":{"a":1}}`, false, []taken{{"d1", `{"device":"d1","devices":{"a":1}}`, "device", ""}}},
		{"a message that names no device", `{"t":1}`, false, []taken{{"", `{"t":1}`, "device", ""}}},
		{"one whose device is no text", `{"device":7}`, false, []taken{{"", `{"device":7}`, "device", ""}}},
		{"a scalar", `7`, false, []taken{{"", `7`, "device", ""}}},
		{"what is among objects and is none", `[{"device":"d1","t":1},"x\"]",null,[{}]]`, false, []taken{
			{"d1", `{"device":"d1","t":1}`, "device", ""},
			{"", `"x\"]"`, "device", "an array must hold objects"},
			{"", `null`, "device", "an array must hold objects"},
			{"", `[{}]`, "device", "an array must hold objects"},
		}},

		{"named: an object", `{"device":"d1","t":1}`, true, []taken{{"", `{"device":"d1","t":1}`, "", ""}}},
		{"named: devices are values", `{"devices":{"d1":{"t":1}}}`, true, []taken{{"", `{"devices":{"d1":{"t":1}}}`, "", ""}}},
		{"named: each object of an array", `[{"t":1},{"t":2}]`, true, []taken{{"", `{"t":1}`, "", ""}, {"", `{"t":2}`, "", ""}}},
		{"named: a scalar", `7`, true, []taken{{"", `7`, "", ""}}},
		{"named: an array of scalars is one payload", `[1,{"a":2}]`, true, []taken{{"", `[1,{"a":2}]`, "", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := itemsOf(t, tt.body, tt.named)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestOfABodyThatIsNoJSONNothingIsTaken(t *testing.T) {
	for _, body := range []string{"", "x", `[{"device":"d1","t":1},`, `{"device":"d1"}}`, `{"a":1}{"b":2}`} {
		got, err := itemsOf(t, body, false)
		if muster.KindOf(err) != muster.Invalid || len(got) > 0 {
			t.Errorf("%q gives %v and %v", body, got, err)
		}
	}
}

func TestItemsEndWhenTheTakerSaysSo(t *testing.T) {
	full := errors.New("full")
	for _, body := range []string{`[{"a":1},{"a":2}]`, `{"devices":{"d1":[{"a":1},{"a":2}],"d2":{"a":3}}}`} {
		n := 0
		err := Items([]byte(body), false, func(Item) error { n++; return full })
		if n != 1 || !errors.Is(err, full) {
			t.Errorf("%s: %d taken, %v", body, n, err)
		}
	}
}

func TestTheMemberThatNamesTheDeviceIsNoValue(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"flat", `{"device":"d1","t":1}`, `{"t":1}`},
		{"with time", `{"device":"d1","ts":1772366400,"values":{"t":1,"device":"x"}}`, `{"device":"x","t":1} @1772366400000000`},
		{"nested ones are values", `{"a":{"device":2},"device":"d1"}`, `{"a.device":2}`},
		{"twice", `{"device":"d1","t":1,"device":"d2"}`, "malformed: the member device is there twice at byte 30"},
		{"alone", `{"device":"d1"}`, "malformed: the message has no values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newLineDecoder("")
			d.read(&Message{Payload: []byte(tt.body), Omit: DeviceMember}, noon)
			if got := shown(d); got != tt.want {
				t.Errorf("%s is %s, want %s", tt.body, got, tt.want)
			}
			d.read(&Message{Payload: []byte(`{"device":1}`)}, noon)
			if got := shown(d); got != `{"device":1}` {
				t.Errorf("without Omit it is %s", got)
			}
		})
	}
}

func FuzzItems(f *testing.F) {
	for _, s := range []string{`{"device":"d1","t":1}`, `[{"device":"d1"},{"t":{"a":[1,"]"]}}]`, `{"devices":{"d1":[{"t":1}],"d2":3}}`, `[1]`, `"\""`, `[{}, 1 ,"a"]`} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, named bool) {
		n := 0
		err := Items(body, named, func(i Item) error {
			n++
			if !json.Valid(i.Payload) {
				t.Fatalf("%q has the item %q", body, i.Payload)
			}
			d := newLineDecoder(i.Omit)
			d.read(&Message{Payload: i.Payload, Omit: i.Omit}, noon)
			return nil
		})
		if err != nil && json.Valid(body) && muster.KindOf(err) != muster.Invalid {
			t.Fatalf("%q gives %v", body, err)
		}
		if n > len(body) {
			t.Fatalf("%d items in %d bytes", n, len(body))
		}
	})
}
