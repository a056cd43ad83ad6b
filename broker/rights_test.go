package broker

import (
	"strings"
	"testing"

	"muster"
	"muster/broker/thingsboard"
	"muster/broker/topic"
)

// family says that device gw is the gateway of kid.
func family(id muster.DeviceID) muster.DeviceID {
	if id == "kid" {
		return "gw"
	}
	return ""
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
	r := newRights(Identity{Device: "a"}, family)
	const prefix = "devices/a/"
	f.Fuzz(func(t *testing.T, s string) {
		dst := r.publish(s)
		switch {
		case dst.place == placeSpelled && dst.topic == s && thingsboard.Is(s): // what it means is looked at when it is translated
		case dst.place == placeNone && dst.why == "":
			t.Fatalf("%q is refused without a reason", s)
		case dst.place != placeNone && !strings.HasPrefix(dst.topic, prefix):
			t.Fatalf("%q goes to %q", s, dst.topic)
		case dst.place == placeSink && !sinks(strings.TrimPrefix(dst.topic, prefix), dst.kind), dst.place == placeSink && dst.device != "a":
			t.Fatalf("%q goes to the sink as kind %d at %q of %q", s, dst.kind, dst.topic, dst.device)
		}
		_, filter, ok := topic.SplitShare(s)
		if !ok || topic.CheckFilter(filter) != "" {
			return
		}
		x, why := r.subscribe(filter)
		if why == "" && x.tb != nil && x.spelled() == filter && (x.own || x.apart) {
			return
		}
		if why == "" && (!x.own || x.me != strings.HasPrefix(filter, "devices/me/")) {
			t.Fatalf("filter %q becomes %+v", filter, x)
		}
	})
}

// sinks says whether the sink takes in what stands behind devices/{id}/ as kind.
func sinks(rest string, kind Kind) bool {
	as, ok, why := taken(rest)
	return ok && why == "" && as == kind
}

func TestEveryTopicOfTheContractHasItsDirection(t *testing.T) {
	r := newRights(Identity{Device: "a"}, family)
	gateway := newRights(Identity{Device: "gw"}, family)
	for rest, want := range map[string]struct{ up, down bool }{
		"telemetry": {up: true}, "telemetry/a/b": {up: true}, "reported": {up: true}, "desired": {down: true},
		"commands/c1": {down: true}, "commands/c1/result": {up: true}, "events/door": {up: true}, "logs": {up: true},
		"firmware": {down: true}, "firmware/status": {up: true}, "firmware/get": {up: true}, "firmware/data/4096": {down: true},
		"firmware/error": {down: true}, "firmware/cancel": {down: true}, "firmware/cancel/ack": {up: true},
		"notifications": {down: true}, "notifications/n1/ack": {up: true}, "presence": {down: true}, "errors": {down: true},
		"events": {}, "commands": {}, "unknown": {}, "": {}, "telemetries": {},
	} {
		for _, c := range []struct {
			r    *rights
			name string
		}{{r, "devices/me/" + rest}, {r, "devices/a/" + rest}, {gateway, "devices/kid/" + rest}} {
			if got := c.r.publish(c.name).place != placeNone; got != want.up {
				t.Errorf("may publish %q: %v, want %v", c.name, got, want.up)
			}
			if _, why := c.r.subscribe(c.name); (why == "") != want.down {
				t.Errorf("may subscribe %q: %v, want %v", c.name, why == "", want.down)
			}
		}
		if got := isDown(rest); got != want.down {
			t.Errorf("may receive %q: %v, want %v", rest, got, want.down)
		}
		if r.publish("devices/kid/"+rest).place != placeNone {
			t.Errorf("a stranger may publish %q of a child", rest)
		}
		if _, why := r.subscribe("devices/kid/" + rest); why == "" {
			t.Errorf("a stranger may subscribe to %q of a child", rest)
		}
	}
}

func TestRightsOfProfilesAndAccounts(t *testing.T) {
	device := newRights(Identity{Device: "a", Publish: []string{"site/7/#"}, Subscribe: []string{"site/+/alarm", "$SYS/broker/uptime"}}, family)
	account := newRights(Identity{Name: "x", Publish: []string{"in/+"}, Subscribe: []string{"devices/+/telemetry/#"}}, family)
	admin := newRights(Identity{Name: "root", Admin: true}, family)
	for _, c := range []struct {
		name    string
		r       *rights
		publish bool
		topic   string
		want    bool
	}{
		{"a profile's topic", device, true, "site/7/x/y", true},
		{"beside a profile's topic", device, true, "site/8/x", false},
		{"a filter a profile's covers", device, false, "site/7/alarm", true},
		{"a filter wider than a profile's", device, false, "site/#", false},
		{"a $SYS topic of a profile", device, false, "$SYS/broker/uptime", true},
		{"another $SYS topic", device, false, "$SYS/broker/sessions", false},
		{"an account's topic", account, true, "in/1", true},
		{"below an account's topic", account, true, "in/1/2", false},
		{"an account's filter", account, false, "devices/+/telemetry/#", true},
		{"narrower than an account's filter", account, false, "devices/a/telemetry", true},
		{"wider than an account's filter", account, false, "devices/+/#", false},
		{"devices/me of an account", account, false, "devices/me/telemetry", false},
		{"everything for an admin", admin, false, "#", true},
		{"$SYS for an admin", admin, false, "$SYS/#", true},
		{"$SYS written by an admin", admin, true, "$SYS/broker/uptime", false},
		{"a gateway's wildcard over its children", newRights(Identity{Device: "gw"}, family), false, "devices/+/desired", false},
		{"a gateway's child whole", newRights(Identity{Device: "gw"}, family), false, "devices/kid/#", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.r.publish(c.topic).place != placeNone
			if !c.publish {
				_, why := c.r.subscribe(c.topic)
				got = why == ""
			}
			if got != c.want {
				t.Errorf("%q: %v, want %v", c.topic, got, c.want)
			}
		})
	}
}
