package broker

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFiltersMatchAsTheStandardSays(t *testing.T) {
	tests := []struct {
		filter, topic string
		want          bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"#", "any/thing", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/x", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/monitor", true},
		{"a/b", "a/B", false},
		{"a", "a/b", false},
	}
	for _, tt := range tests {
		if got := matches(tt.filter, tt.topic); got != tt.want {
			t.Errorf("%q matches %q: %v, want %v", tt.filter, tt.topic, got, tt.want)
		}
	}
}

func TestOverlapIsSymmetricAndFollowsFromACommonTopic(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "", "+"})
	filter := rapid.Custom(func(t *rapid.T) string {
		ls := rapid.SliceOfN(level, 1, 4).Draw(t, "levels")
		if rapid.Bool().Draw(t, "open") {
			ls = append(ls, "#")
		}
		return strings.Join(ls, "/")
	})
	topic := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "c"}), 1, 5).Draw(t, "levels"), "/")
	})
	rapid.Check(t, func(t *rapid.T) {
		f, g, name := filter.Draw(t, "f"), filter.Draw(t, "g"), topic.Draw(t, "topic")
		if overlaps(f, g) != overlaps(g, f) {
			t.Fatalf("overlap of %q and %q depends on their order", f, g)
		}
		if matches(f, name) && matches(g, name) && !overlaps(f, g) {
			t.Fatalf("%q and %q both match %q and do not overlap", f, g, name)
		}
		if f == g && !overlaps(f, g) {
			t.Fatalf("%q does not overlap itself", f)
		}
	})
}

// FuzzRights checks on any topic that a device gets nowhere but below its own
// prefix, and that what it may publish or receive has its canonical spelling.
func FuzzRights(f *testing.F) {
	for _, s := range []string{
		"devices/me/telemetry", "devices/a/telemetry/k", "devices/b/telemetry", "devices/a/../b/telemetry", "devices/a",
		"devices/me/", "devices/a/commands/1/result", "$share/g/devices/me/#", "devices/+/desired", "#", "/", "devices//telemetry",
	} {
		f.Add(s)
	}
	r := newRights(Identity{Device: "a"})
	const prefix = "devices/a/"
	f.Fuzz(func(t *testing.T, s string) {
		dst := r.publish(s)
		switch {
		case dst.place == placeNone && dst.why == "":
			t.Fatalf("%q is refused without a reason", s)
		case dst.place != placeNone && !strings.HasPrefix(dst.topic, prefix):
			t.Fatalf("%q goes to %q", s, dst.topic)
		case dst.place == placeSink && !strings.HasPrefix(dst.topic, prefix+"telemetry"), dst.place == placeSink && dst.device != "a":
			t.Fatalf("%q is telemetry %q of %q", s, dst.topic, dst.device)
		}
		_, filter, ok := splitShare(s)
		if !ok || checkFilter(filter) != "" {
			return
		}
		canonical, me, why := r.subscribe(filter)
		if why == "" && (!strings.HasPrefix(canonical, prefix) || me != strings.HasPrefix(filter, "devices/me/")) {
			t.Fatalf("filter %q becomes %q, me %v", filter, canonical, me)
		}
		if r.receive(s) && !strings.HasPrefix(s, prefix) {
			t.Fatalf("%q is delivered", s)
		}
	})
}

func TestEveryTopicOfTheContractHasItsDirection(t *testing.T) {
	r := newRights(Identity{Device: "a"})
	for rest, want := range map[string]struct{ up, down bool }{
		"telemetry": {up: true}, "telemetry/a/b": {up: true}, "reported": {up: true}, "desired": {down: true},
		"commands/c1": {down: true}, "commands/c1/result": {up: true}, "events/door": {up: true}, "logs": {up: true},
		"firmware": {down: true}, "firmware/status": {up: true}, "firmware/get": {up: true}, "firmware/data/4096": {down: true},
		"firmware/error": {down: true}, "firmware/cancel": {down: true}, "firmware/cancel/ack": {up: true},
		"notifications": {down: true}, "notifications/n1/ack": {up: true}, "presence": {down: true}, "errors": {down: true},
		"events": {}, "commands": {}, "unknown": {}, "": {}, "telemetries": {},
	} {
		if got := r.publish("devices/me/"+rest).place != placeNone; got != want.up {
			t.Errorf("may publish %q: %v, want %v", rest, got, want.up)
		}
		if got := r.receive("devices/a/" + rest); got != want.down {
			t.Errorf("may receive %q: %v, want %v", rest, got, want.down)
		}
		if _, _, why := r.subscribe("devices/me/" + rest); (why == "") != want.down {
			t.Errorf("may subscribe %q: %v, want %v", rest, why == "", want.down)
		}
	}
}
