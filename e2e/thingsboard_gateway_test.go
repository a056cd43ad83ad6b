package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestAThingsBoardGatewayConnectsUnchanged goes through ThingsBoard's gateway API.
func TestAThingsBoardGatewayConnectsUnchanged(t *testing.T) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			for i, story := range []struct {
				name string
				run  func(t *testing.T, m *muster, id string, g *session3)
			}{
				{"connect, telemetry and disconnect", gatewayTelemetry},
				{"client-side and shared attributes", gatewayAttributes},
				{"attributes are asked for in all forms", gatewayRequest},
				{"what cannot be taken of one device costs the others nothing", gatewayParts},
				{"commands of several devices, with none for who has disconnected", gatewayRPC},
				{"session limits are answered, and devices made claimable", gatewayLimits},
			} {
				t.Run(story.name, func(t *testing.T) {
					m.t = t
					id := fmt.Sprintf("tbgw-%d", i)
					story.run(t, m, id, talk(t, m, id, m.gateway(id), "", false))
				})
			}
			m.t = t
			m.stop()
		})
	}
}

func gatewayTelemetry(t *testing.T, m *muster, id string, g *session3) {
	m.ask(http.MethodPut, "/api/v1/profiles/thermometer", map[string]any{}, http.StatusOK, nil)
	for name, profile := range map[string]string{"Plain A": "", "Plain B": "default", "Thermo C": "thermometer", "Other D": "no such profile"} {
		g.say("v1/gateway/connect", fmt.Sprintf(`{"device":%q,"type":%q}`, name, profile))
		d := m.known(strings.ReplaceAll(name, " ", "..20"))
		if profile != "thermometer" {
			profile = "default"
		}
		if d.Name != name || d.Parent != id || d.Profile != profile || d.Presence.State != "online" {
			t.Errorf("after v1/gateway/connect of %q: %+v", name, d)
		}
	}
	g.say("v1/gateway/telemetry", `{"Plain A":[{"ts":1735689600000,"values":{"t":1}},{"ts":1735689605000,"values":{"t":2}}],`+
		`"Plain B":{"t":3},"new-one":[{"ts":1735689600000,"values":{"t":4},"metadata":{"connector":"modbus","receivedTs":1}}]}`)
	for device, want := range map[string]string{"Plain..20A": "map[t:1] map[t:2]", "Plain..20B": "map[t:3]", "new-one": "map[t:4]"} {
		var got []string
		for _, p := range m.awaitTelemetry(device, strings.Count(want, "map")) {
			got = append(got, fmt.Sprint(p.Values))
		}
		if s := strings.Join(got, " "); s != want || m.known(device).Parent != id {
			t.Errorf("%s has %s, want %s", device, s, want)
		}
	}
	g.say("v1/gateway/disconnect", `{"device":"Plain A"}`)
	if state, reason, _ := m.presence("Plain..20A"); state != "offline" || reason != "gateway "+id+": disconnected" {
		t.Errorf("after v1/gateway/disconnect it is %s: %q", state, reason)
	}
}

func gatewayAttributes(t *testing.T, m *muster, _ string, g *session3) {
	const topic = "v1/gateway/attributes"
	g.say(topic, `{"Attr 1":{"serial":"s1","net":{"a":1}},"Attr 2":{"serial":"s2"}}`)
	g.say(topic, `{"Attr 1":{"net":{"b":2}}}`)
	m.awaitReported("Attr..201", `{"serial":"s1","net":{"b":2}}`)
	m.awaitReported("Attr..202", `{"serial":"s2"}`)
	m.desire("Attr..201", `{"interval":60}`)
	g.subscribe(topic, 1)
	g.hears(topic, `{"device":"Attr 1","data":{"interval":60}}`)
	m.desire("Attr..202", `{"interval":30}`)
	g.hears(topic, `{"device":"Attr 2","data":{"interval":30}}`)
	m.desire("Attr..201", `{"interval":null,"mode":"eco"}`)
	g.hears(topic, `{"device":"Attr 1","data":{"mode":"eco"}}`)
	g.hears(topic, `{"device":"Attr 1","data":{"deleted":["interval"]}}`)
	g.say("v1/gateway/disconnect", `{"device":"Attr 1"}`)
	m.desire("Attr..201", `{"mode":"off"}`)
	m.desire("Attr..202", `{"interval":20}`)
	g.hears(topic, `{"device":"Attr 2","data":{"interval":20}}`)
	g.say("v1/gateway/connect", `{"device":"Attr 1"}`)
	g.hears(topic, `{"device":"Attr 1","data":{"mode":"off"}}`)
}

func gatewayRequest(t *testing.T, m *muster, _ string, g *session3) {
	g.say("v1/gateway/attributes", `{"Ask":{"serial":"s1","both":1}}`)
	m.awaitReported("Ask", `{"serial":"s1","both":1}`)
	m.desire("Ask", `{"interval":60,"both":2}`)
	g.subscribe("v1/gateway/attributes/response", 1)
	for i, ask := range [][2]string{
		{`"client":true,"key":"serial"`, `"value":"s1"`},
		{`"client":false,"key":"interval"`, `"value":60`},
		{`"client":true,"keys":["serial","both"]`, `"values":{"serial":"s1","both":1}`},
		{`"client":["serial","both"],"shared":["interval","both"]`, `"values":{"serial":"s1","interval":60,"both":2}`},
	} {
		g.say("v1/gateway/attributes/request", fmt.Sprintf(`{"id":%d,"device":"Ask",%s}`, i, ask[0]))
		g.hears("v1/gateway/attributes/response", fmt.Sprintf(`{"id":%d,"device":"Ask",%s}`, i, ask[1]))
	}
}

func gatewayParts(t *testing.T, m *muster, id string, g *session3) {
	g.subscribe("devices/me/errors", 1)
	long := strings.Repeat("ü", 60)
	g.say("v1/gateway/telemetry", `{"Good 1":[{"v":1}],"Bad":7,"`+long+`":[{"v":1}],"Good 2":[{"v":2}]}`)
	for device, want := range map[string]string{"Good..201": "map[v:1]", "Good..202": "map[v:2]"} {
		if got := m.awaitTelemetry(device, 1); fmt.Sprint(got[0].Values) != want {
			t.Errorf("%s has %v", device, got)
		}
	}
	var reasons []string
	for _, r := range m.awaitRejected(id, 2) {
		reasons = append(reasons, r.Topic+" "+r.Reason)
	}
	slices.Sort(reasons)
	for i, want := range []string{`the device "Bad": `, `the device "` + long + `": `} {
		if !strings.HasPrefix(reasons[i], "v1/gateway/telemetry ") || !strings.Contains(reasons[i], want) {
			t.Errorf("kept as rejected: %q, want %q", reasons[i], want)
		}
	}
	m.unknown("Bad")
}

func gatewayRPC(t *testing.T, m *muster, _ string, g *session3) {
	g.subscribe("v1/gateway/rpc", 1)
	for _, name := range []string{"rpc-1", "rpc-2"} {
		g.say("v1/gateway/connect", `{"device":"`+name+`"}`)
	}
	post := func(device string) (c order) {
		m.ask(http.MethodPost, "/api/v1/devices/"+device+"/commands", map[string]any{"method": "go"}, http.StatusCreated, &c)
		return c
	}
	told := func(device, id string) string {
		return `{"device":"` + device + `","data":{"id":` + id + `,"method":"go","params":{}}}`
	}
	one := post("rpc-1")
	g.hears("v1/gateway/rpc", told("rpc-1", one.ID))
	g.say("v1/gateway/disconnect", `{"device":"rpc-1"}`)
	g.say("v1/gateway/rpc", `{"device":"rpc-1","id":`+one.ID+`,"data":"late"}`)
	if c := m.command("rpc-1", one.ID); c.State != "succeeded" || string(c.Result) != `"late"` {
		t.Errorf("the answer: %+v", c)
	}
	waits, two := post("rpc-1"), post("rpc-2")
	g.hears("v1/gateway/rpc", told("rpc-2", two.ID))
	if c := m.command("rpc-1", waits.ID); c.State != "queued" {
		t.Errorf("the command of who has disconnected: %+v", c)
	}
	g.say("v1/gateway/connect", `{"device":"rpc-1"}`)
	g.hears("v1/gateway/rpc", told("rpc-1", waits.ID))
	m.await("a one-way RPC to be delivered", clientLimit, func() bool { return m.command("rpc-1", waits.ID).State == "delivered" })
}

func gatewayLimits(t *testing.T, m *muster, _ string, g *session3) {
	g.subscribe("v1/devices/me/rpc/response/+", 1)
	g.say("v1/devices/me/rpc/request/1", `{"method":"getSessionLimits","params":{}}`)
	if got := g.next(); got.topic != "v1/devices/me/rpc/response/1" || !strings.Contains(got.payload, `"gatewayRateLimits":{"messages":"20000:1"}`) {
		t.Errorf("its limits are %s", got)
	}
	g.say("v1/gateway/claim", `{"Claim A":{"secretKey":"secretA","durationMs":60000},"Claim B":{"secretKey":"secretB"}}`)
	for name, secret := range map[string]string{"Claim..20A": "secretA", "Claim..20B": "secretB"} {
		m.ask(http.MethodPost, "/api/v1/claims", map[string]string{"device": name, "code": secret}, http.StatusOK, nil)
		if d := m.known(name); d.Tags["owner"] == "" || d.Name != strings.ReplaceAll(name, "..20", " ") {
			t.Errorf("claimed: %+v", d)
		}
	}
}
