package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const gatewayKids = 50

// onlooker notes what a service account hears of presence, by device.
type onlooker struct {
	*session3
	heard map[string][]string // "state reason" each
	since map[string][]string
}

// until reads on until ok.
func (w *onlooker) until(ok func() bool) {
	w.t.Helper()
	for !ok() {
		got := w.next()
		id, is := strings.CutPrefix(got.topic, "devices/")
		id, is2 := strings.CutSuffix(id, "/presence")
		var p struct{ State, Since, Reason string }
		if err := json.Unmarshal([]byte(got.payload), &p); err != nil || !is || !is2 {
			w.t.Fatalf("heard %s: %v", got, err)
		}
		w.heard[id] = append(w.heard[id], strings.TrimSpace(p.State+" "+p.Reason))
		w.since[id] = append(w.since[id], p.Since)
	}
}

// all says whether all have been heard of n times.
func (w *onlooker) all(ids []string, n int) func() bool {
	return func() bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return len(w.heard[id]) < n })
	}
}

func (w *onlooker) want(ids []string, want ...string) {
	w.t.Helper()
	for _, id := range ids {
		if !slices.Equal(w.heard[id], want) {
			w.t.Errorf("of %s is heard %q, want %q", id, w.heard[id], want)
		}
		if !slices.IsSorted(w.since[id]) {
			w.t.Errorf("of %s is heard out of order: %q", id, w.since[id])
		}
	}
}

// presence is what GET /devices/{id}/presence says.
func (m *muster) presence(id string) (state, reason string, strip []string) {
	m.t.Helper()
	var p struct {
		State, Reason string
		Strip         []struct{ State string }
	}
	m.ask(http.MethodGet, "/api/v1/devices/"+id+"/presence", nil, http.StatusOK, &p)
	for _, s := range p.Strip {
		strip = append(strip, s.State)
	}
	return p.State, p.Reason, strip
}

// TestPresenceOfFiftyChildrenFollowsTheirGateway cuts a gateway twice: it is back
// within the grace, and then it is not. Another gateway that is cut with it and stays
// away says when the first grace is over.
func TestPresenceOfFiftyChildrenFollowsTheirGateway(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			fiftyChildren(t, e)
		})
	}
}

func fiftyChildren(t *testing.T, e engine) {
	args, _ := e.prepare(t)
	m := serve(t, append(args, "--presence-grace", "4s")...)
	tokens := map[string]string{"gw": m.gateway("gw"), "lost": m.gateway("lost")}
	w := &onlooker{m.account(t, "watcher", nil, []string{"devices/+/presence"}), map[string][]string{}, map[string][]string{}}
	w.subscribe("devices/+/presence", 1)
	w.until(w.all([]string{"gw", "lost"}, 1))
	family := []string{"gw"}
	for i := range gatewayKids {
		family = append(family, fmt.Sprintf("kid-%02d", i))
	}
	kids, both := family[1:], append([]string{"lost", "lost-kid"}, family...)
	come := func(id string, kids ...string) *session3 {
		g := talk(t, m, id, tokens[id], "", false)
		for i, kid := range kids {
			g.say("devices/"+kid+"/telemetry", fmt.Sprintf(`{"n":%d}`, i))
		}
		return g
	}

	gw, lost := come("gw", kids...), come("lost", "lost-kid")
	w.until(func() bool { return w.all([]string{"gw", "lost"}, 2)() && w.all(both, 1)() })
	w.want([]string{"gw", "lost"}, "never", "online")
	w.want(append(slices.Clone(kids), "lost-kid"), "online")
	for i, kid := range kids {
		if d := m.known(kid); d.Parent != "gw" || d.Presence.State != "online" {
			t.Fatalf("a child that is made: %+v", d)
		}
		if got := m.awaitTelemetry(kid, 1); fmt.Sprint(got[0].Values) != fmt.Sprintf("map[n:%d]", i) {
			t.Fatalf("%s has %v", kid, got)
		}
	}

	gw.cut()
	lost.cut()
	gw = come("gw")
	w.until(func() bool { return w.all([]string{"lost"}, 3)() && w.all([]string{"lost-kid"}, 2)() })
	w.want([]string{"lost"}, "never", "online", "offline closed")
	w.want([]string{"lost-kid"}, "online", "offline gateway lost: closed")
	w.want([]string{"gw"}, "never", "online")
	w.want(kids, "online")

	gw.cut()
	w.until(func() bool { return w.all([]string{"gw"}, 3)() && w.all(kids, 2)() })
	for _, kid := range kids {
		if state, reason, _ := m.presence(kid); state != "offline" || reason != "gateway gw: closed" {
			t.Errorf("%s is %s: %q", kid, state, reason)
		}
	}
	come("gw", kids...)
	w.until(func() bool { return w.all([]string{"gw"}, 4)() && w.all(kids, 3)() })
	w.want([]string{"gw"}, "never", "online", "offline closed", "online")
	w.want(kids, "online", "offline gateway gw: closed", "online")
	for _, id := range family {
		state, reason, strip := m.presence(id)
		if past := strings.TrimPrefix(strings.Join(strip, " "), "never "); state != "online" || reason != "" || past != "online offline online" {
			t.Errorf("%s is %s %q after %v", id, state, reason, strip)
		}
	}
	m.stop()
}

// TestAGatewayTakesOverAndMakesOnlyWhatItMay has gateways publish for devices that are
// not theirs, by both versions.
func TestAGatewayTakesOverAndMakesOnlyWhatItMay(t *testing.T) {
	m := serve(t)
	brings, plain := m.gateway("brings"), m.device("plain", "token").Token
	other := talk(t, m, "other", m.gateway("other"), "", false)
	other.say("devices/of-other/telemetry", `{"a":1}`)
	m.awaitTelemetry("of-other", 1)
	m.device("own", "token")
	m.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": "orphan", "credential": "none"}, http.StatusCreated, nil)
	m.ask(http.MethodPut, "/api/v1/profiles/made-before", map[string]any{}, http.StatusOK, nil)
	m.ask(http.MethodPut, "/api/v1/profiles/made-before/provisioning", map[string]string{"strategy": "preprovisioned"}, http.StatusOK, nil)
	m.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": "waits", "profile": "made-before", "credential": "none"}, http.StatusCreated, nil)
	for _, try := range []struct {
		name, gateway, token, device, says string
		exists                             bool
	}{
		{"a device with credentials of its own", "brings", brings, "own", "credentials of its own", true},
		{"a device that waits to register itself", "brings", brings, "waits", "waits to register itself", true},
		{"a device of another gateway", "brings", brings, "of-other", "another gateway", true},
		{"a device that does not exist, without create_children", "plain", plain, "new", "not behind this gateway", false},
		{"a device of nobody, without create_children", "plain", plain, "orphan", "not behind this gateway", true},
	} {
		t.Run(try.name, func(t *testing.T) {
			m.t = t
			before := len(m.rejected(try.gateway))
			c3 := talk(t, m, try.gateway+"-3", try.token, "", false)
			c3.subscribe("devices/me/errors", 1)
			c3.say("v1/gateway/connect", `{"device":"`+try.device+`"}`)
			c3.say("v1/gateway/telemetry", `{"`+try.device+`":[{"ts":1735689600000,"values":{"a":1}}]}`)
			for range 2 {
				if got := c3.next(); !strings.Contains(got.payload, `"status":403`) || !strings.Contains(got.payload, try.says) {
					t.Errorf("it is told %s, want 403 and %q", got, try.says)
				}
			}
			c5, _ := connect5(t, dial(t, m.mqtt), try.gateway+"-5", try.token, "")
			if code, _ := c5.publish(t, "devices/"+try.device+"/telemetry", `{"a":1}`); code != 0x87 {
				t.Errorf("MQTT 5, its topic: PUBACK %#x, want 0x87", code)
			}
			if got := m.awaitRejected(try.gateway, before+3); len(got) != before+3 {
				t.Errorf("%d messages are kept as rejected, want %d", len(got)-before, 3)
			}
			if !try.exists {
				m.unknown(try.device)
				return
			}
			parent := map[string]string{"of-other": "other"}[try.device]
			if d := m.known(try.device); d.Parent != parent {
				t.Errorf("its parent is %q", d.Parent)
			}
		})
	}
	m.t = t
	for device, n := range map[string]int{"own": 0, "of-other": 1, "orphan": 0} {
		if got := m.telemetry(device); len(got) != n {
			t.Errorf("%s has %v", device, got)
		}
	}
	c3 := talk(t, m, "brings-3", brings, "", false)
	c3.say("devices/orphan/telemetry", `{"a":1}`)
	if m.awaitTelemetry("orphan", 1); m.known("orphan").Parent != "brings" {
		t.Error("a device of nobody that cannot sign in is not taken over")
	}
	m.stop()
}

// rejected is what a device's rejected messages are now.
func (m *muster) rejected(id string) []refusal {
	m.t.Helper()
	return m.awaitRejected(id, 0)
}
