package muster_test

import (
	"strings"
	"testing"

	"muster"
)

func TestWhichFiltersAreFilters(t *testing.T) {
	tests := []struct {
		name, filter string
		ok           bool
	}{
		{"a plain topic", "a/b", true},
		{"a lone +", "+", true},
		{"a lone #", "#", true},
		{"+ as a level", "a/+/b", true},
		{"# as the last level", "a/#", true},
		{"+ before #", "+/#", true},
		{"empty levels", "//", true},
		{"letters of any script", "é/温", true},
		{"32 levels", strings.Repeat("a/", 31) + "a", true},
		{"33 levels are too many", strings.Repeat("a/", 32) + "a", false},
		{"1,024 bytes", strings.Repeat("a", 1024), true},
		{"1,025 bytes are too many", strings.Repeat("a", 1025), false},
		{"nothing", "", false},
		{"+ beside a letter", "a+/b", false},
		{"+ before a letter", "+a", false},
		{"two + in a level", "++", false},
		{"# beside a letter", "a#", false},
		{"# before a level", "#/a", false},
		{"# and # in a level", "a/##", false},
		{"a NUL", "a\x00", false},
		{"a newline", "a\nb", false},
		{"no UTF-8", "a\xff", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := muster.CheckFilter(tt.filter)
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
			if err != nil && muster.KindOf(err) != muster.Invalid {
				t.Errorf("kind is %v", muster.KindOf(err))
			}
		})
	}
}

func TestWhichFiltersCanBeRights(t *testing.T) {
	many := make([]string, muster.MaxFilters+1)
	for i := range many {
		many[i] = "a"
	}
	tests := []struct {
		name               string
		publish, subscribe []string
		says               string // empty when they can
	}{
		{"none", nil, nil, ""},
		{"32 of each", many[1:], many[1:], ""},
		{"33 to publish", many, nil, "publish has 33 filters"},
		{"33 to subscribe", nil, many, "subscribe has 33 filters"},
		{"$SYS to subscribe", nil, []string{"$SYS/#"}, ""},
		{"$SYS to publish", []string{"$SYS/#"}, nil, "publish[0]: topics that begin with $"},
		{"$SYSTEM", nil, []string{"a", "$SYSTEM/#"}, "subscribe[1]: topics that begin with $"},
		{"a shared subscription", nil, []string{"$share/g/a"}, "subscribe[0]: topics that begin with $"},
		{"everything", []string{"#"}, []string{"#"}, ""},
		{"devices/me", nil, []string{"devices/me/commands/+"}, "subscribe[0]: me stands for"},
		{"a device whose name begins with me", nil, []string{"devices/meter/presence"}, ""},
		{"a broken filter", []string{"ok", "a#"}, nil, "publish[1]: # in a topic filter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := muster.CheckRights(tt.publish, tt.subscribe)
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) || muster.KindOf(err) != muster.Invalid {
				t.Errorf("got %v, want Invalid with %q", err, tt.says)
			}
		})
	}
}

func TestWhichTopicsAreFree(t *testing.T) {
	tests := map[string]bool{
		"a": true, "a/b": true, "/a": true, "/": true, "home/devices/x": true, "v10/x": true, "devicesx": true, "//provision": true,
		"": false, "devices": false, "devices/": false, "devices/x/telemetry": false, "v1/devices/me/telemetry": false, "v2/fw/x": false,
		"provision/request": false, "/provision/request": false, "/provision": false, "$SYS/x": false, "$": false, "$share/g/a": false,
	}
	for topic, want := range tests {
		if muster.FreeTopic(topic) != want {
			t.Errorf("FreeTopic(%q) is %v", topic, !want)
		}
	}
}

func TestWhichFiltersMatchFreeTopicsOnly(t *testing.T) {
	tests := map[string]bool{
		"a": true, "a/#": true, "a/+/devices": true, "/a/#": true, "home/+": true,
		"#": false, "+": false, "+/a": false, "/+/a": false, "/#": false, "devices/#": false, "devices/+/telemetry": false,
		"v1/#": false, "v2/#": false, "provision/#": false, "/provision/+": false, "$SYS/#": false, "": false,
	}
	for filter, want := range tests {
		if muster.FreeFilter(filter) != want {
			t.Errorf("FreeFilter(%q) is %v", filter, !want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"a/+/#", "devices/{id}/x", "$SYS/#", "#/a", "+a", "a\x00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ok := muster.CheckFilter(s) == nil
		if want := plainlyValid(s); ok != want {
			t.Errorf("CheckFilter(%q) is %v, want %v", s, ok, want)
		}
	})
}

// plainlyValid is the rule once more, level by level.
func plainlyValid(s string) bool {
	levels := strings.Split(s, "/")
	if s == "" || len(s) > muster.MaxFilter || len(levels) > muster.MaxFilterLevels || strings.ToValidUTF8(s, "") != s {
		return false
	}
	for _, c := range s {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return false
		}
	}
	for i, l := range levels {
		wild := strings.ContainsAny(l, "+#")
		if wild && l != "+" && (l != "#" || i != len(levels)-1) {
			return false
		}
	}
	return true
}
