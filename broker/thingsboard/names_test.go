package thingsboard

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster"
)

func TestNamesBecomeIDsAndBack(t *testing.T) {
	for name, want := range map[string]string{
		"sensor-1":             "sensor-1",
		"AA:BB:CC:DD:EE:FF":    "AA:BB:CC:DD:EE:FF",
		"192.168.0.10":         "192.168.0.10",
		"a..b":                 "a..b",
		"Device A":             "Device..20A",
		"Süd/1":                "S..C3..BCd..2F1",
		"me":                   "..6De",
		".":                    "..2E",
		"..":                   "..2E.",
		"x..41":                "x..2E.41",
		"x...41":               "x...2E.41",
		"..b":                  "..2E.b",
		"Датчик температуры 1": "..b0JTQsNGC0YfQuNC6INGC0LXQvNC_0LXRgNCw0YLRg9GA0YsgMQ",
	} {
		id, err := ID(name)
		if err != nil || string(id) != want {
			t.Errorf("%q became %q, %v, want %q", name, id, err, want)
			continue
		}
		if back := Name(id); back != name {
			t.Errorf("%q became %q and came back as %q", name, id, back)
		}
	}
}

func TestAnIDThatNoNameHasIsItsOwnName(t *testing.T) {
	for _, id := range []muster.DeviceID{"..41", "..b", "..b!", "..bQQ", "..7F", "x..FF"} {
		if got := Name(id); got != string(id) {
			t.Errorf("%s is called %q", id, got)
		}
	}
}

func TestNamesThatHaveNoID(t *testing.T) {
	for _, name := range []string{"", "a\x00", "a\nb", "\xff", strings.Repeat("x", 129), strings.Repeat("ü", 47)} {
		if id, err := ID(name); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%q became %q, %v", name, id, err)
		}
	}
	for _, name := range []string{strings.Repeat("ü", 46), strings.Repeat("x", 128), " " + strings.Repeat("x", 124)} {
		if _, err := ID(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNoTwoNamesShareAnID(t *testing.T) {
	near := rapid.StringOfN(rapid.SampledFrom([]rune(`.b0A2E4 ü_-:me`)), 1, 60, -1)
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(near, rapid.StringN(1, 40, 93)).Draw(t, "name")
		id, err := ID(name)
		if err != nil {
			return
		}
		if _, err := muster.ParseDeviceID(string(id)); err != nil {
			t.Fatalf("%q became %q: %v", name, id, err)
		}
		if back := Name(id); back != name { // so ID has an inverse: it is one to one
			t.Fatalf("%q became %q and came back as %q", name, id, back)
		}
	})
}
