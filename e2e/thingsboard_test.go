package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAThingsBoardDeviceConnectsUnchanged goes through ThingsBoard's device API with
// paho 3.1.1, as its examples do: the token as user name, its topics, its payloads.
func TestAThingsBoardDeviceConnectsUnchanged(t *testing.T) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			for i, story := range []struct {
				name string
				run  func(t *testing.T, m *muster, id, token string)
			}{
				{"telemetry in its forms", boardTelemetry},
				{"client-side attributes replace what each key had", boardAttributes},
				{"a bad payload is acked, kept as rejected and told, and the device stays", boardBad},
				{"attributes are asked for by client and shared keys", boardRequest},
				{"shared attributes are told on change, and all of them on coming back", boardShared},
				{"a client-side RPC is answered by a service account", boardRPC},
				{"getSessionLimits is answered by the server", boardLimits},
				{"a device is claimed by the secret it gave", boardClaim},
				{"only the documented filters are granted", boardFilters},
				{"a device registers itself, with each kind of credentials", boardRegisters},
			} {
				t.Run(story.name, func(t *testing.T) {
					m.t = t
					id := fmt.Sprintf("tb-%d", i)
					token := rand.Text()[:20] // as long as those that ThingsBoard makes
					m.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": id, "token": token}, http.StatusCreated, nil)
					story.run(t, m, id, token)
				})
			}
			m.t = t
			m.stop()
		})
	}
}

func boardTelemetry(t *testing.T, m *muster, id, _ string) {
	const at = "2025-01-01T00:00:00" // as milliseconds 1735689600000
	for i, p := range []struct{ topic, payload, want string }{
		{"v1/devices/me/telemetry", `{temperature:25}`, `{"temperature":25}`}, // the shell took the quotes away
		{"v1/devices/me/telemetry", `{"temperature":"21.5"}`, `{"temperature":"21.5"}`},
		{"v1/devices/me/telemetry", `[{"a":1,"b":2}]`, `{"a":1,"b":2}`},
		{"v1/devices/me/telemetry", `{"ts":1735689600000,"values":{"on":true,"json":{"n":{"x":1}}}}`, at + `{"json.n.x":1,"on":true}`},
		{"v1/devices/me/telemetry", `{"ts":1735689600000,"on":false}`, at + `{"on":false}`},
		{"v2/t", `{'b':1}`, `{"b":1}`},
		{"v2/t/j", `{"ts":1735689600,"values":{"b":2},"more":3}`, at + `{"more":3,"values.b":2}`},
	} {
		device := fmt.Sprintf("%s-%d", id, i)
		talk(t, m, device, m.device(device, "token").Token, "", false).say(p.topic, p.payload)
		got := m.awaitTelemetry(device, 1)[0]
		values, err := json.Marshal(got.Values)
		if stamp, ok := strings.CutSuffix(p.want, string(values)); err != nil || !ok || !strings.HasPrefix(got.Time, stamp) {
			t.Errorf("%s becomes %s at %s, want %s", p.payload, values, got.Time, p.want)
		}
	}
}

func boardAttributes(t *testing.T, m *muster, id, token string) {
	d := talk(t, m, id, token, "", false)
	d.say("v1/devices/me/attributes", `{"net":{"a":1}}`)
	m.awaitReported(id, `{"net":{"a":1}}`)
	d.say("v1/devices/me/attributes", `{"net":{"b":2}}`)
	m.awaitReported(id, `{"net":{"b":2}}`)
	d.say("v2/a", `{"net":null,"mode":"eco","deep":{"x":null,"y":1}}`)
	m.awaitReported(id, `{"net":{"b":2},"mode":"eco","deep":{"y":1}}`)
	d.say("devices/me/reported", `{"net":{"c":3},"mode":null}`)
	m.awaitReported(id, `{"net":{"b":2,"c":3},"deep":{"y":1}}`)
}

func boardBad(t *testing.T, m *muster, id, token string) {
	d := talk(t, m, id, token, "", false)
	d.subscribe("devices/me/errors", 1)
	for i, bad := range []struct{ topic, payload, reason string }{
		{"v1/devices/me/telemetry", `{"a":`, ""},
		{"v1/devices/me/telemetry", `{"a":1}//x`, ""},
		{"v1/devices/me/attributes", `[1]`, ""},
		{"v1/devices/me/attributes", strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), "16 levels"},
		{"v1/devices/me/attributes", `{"a":"` + strings.Repeat("x", 64<<10) + `"}`, "65536"},
		{"v1/devices/me/attributes/request/x", `{}`, "whole number"},
		{"v1/devices/me/nothing", `{}`, "no such topic"},
		{"v2/t/p", "\x0a\x00", "Protocol Buffers"},
	} {
		d.say(bad.topic, bad.payload) // it has its PUBACK
		if got := d.next(); got.topic != "devices/me/errors" || !strings.Contains(got.payload, `"status":4`) || !strings.Contains(got.payload, bad.reason) {
			t.Errorf("of %.60s at %s it is told %s, want %q", bad.payload, bad.topic, got, bad.reason)
		}
		if got := m.awaitRejected(id, i+1)[0]; got.Reason == "" || !strings.Contains(got.Reason, bad.reason) {
			t.Errorf("%.60s at %s is kept as %+v, want %q", bad.payload, bad.topic, got, bad.reason)
		}
	}
	d.say("v1/devices/me/telemetry", `{"fine":1}`)
	m.awaitTelemetry(id, 1)
}

func boardRequest(t *testing.T, m *muster, id, token string) {
	d := talk(t, m, id, token, "", false)
	d.subscribe("v1/devices/me/attributes/response/+", 1)
	d.subscribe("v2/a/res/+", 1)
	d.say("v1/devices/me/attributes", `{"serial":"s1","net":{"a":1},"both":1}`)
	m.awaitReported(id, `{"serial":"s1","net":{"a":1},"both":1}`)
	m.desire(id, `{"interval":60,"both":2}`)
	for i, ask := range []struct{ payload, answer string }{
		{`{"clientKeys":"serial,net,none","sharedKeys":"interval"}`, `{"client":{"serial":"s1","net":{"a":1}},"shared":{"interval":60}}`},
		{`{"sharedKeys":"interval,both"}`, `{"shared":{"interval":60,"both":2}}`},
		{`{"clientKeys":"none"}`, `{}`},
		{`{}`, `{"client":{"serial":"s1","net":{"a":1},"both":1},"shared":{"interval":60,"both":2}}`},
	} {
		d.say(fmt.Sprint("v1/devices/me/attributes/request/", i+1), ask.payload)
		d.hears(fmt.Sprint("v1/devices/me/attributes/response/", i+1), ask.answer)
	}
	d.say("v2/a/req/7", `{"sharedKeys":"interval"}`)
	d.hears("v2/a/res/7", `{"shared":{"interval":60}}`)
}

func boardShared(t *testing.T, m *muster, id, token string) {
	m.desire(id, `{"interval":60,"mode":"eco","net":{"ssid":"a","key":1}}`)
	d := talk(t, m, id, token, "", true)
	const topic = "v1/devices/me/attributes"
	d.subscribe(topic, 1)
	d.hears(topic, `{"interval":60,"mode":"eco","net":{"ssid":"a","key":1}}`)
	m.desire(id, `{"interval":30}`)
	d.hears(topic, `{"interval":30}`)
	m.desire(id, `{"net":{"ssid":"b"}}`)
	d.hears(topic, `{"net":{"ssid":"b","key":1}}`)
	m.desire(id, `{"mode":null,"net":null}`)
	d.hears(topic, `{"deleted":["mode","net"]}`)
	m.desire(id, `{"interval":20,"extra":true}`)
	d.hears(topic, `{"interval":20,"extra":true}`)
	m.ask(http.MethodPatch, "/api/v1/fleet/desired", map[string]any{"region-" + id: "eu"}, http.StatusOK, nil)
	d.hears(topic, `{"region-`+id+`":"eu"}`)
	d.cut()
	m.desire(id, `{"interval":10}`)
	m.desire(id, `{"interval":5,"extra":null}`)
	again := talk(t, m, id, token, "", true) // its subscription is there still
	again.hears(topic, `{"interval":5,"region-`+id+`":"eu"}`)
	m.ask(http.MethodPatch, "/api/v1/fleet/desired", map[string]any{"region-" + id: nil}, http.StatusOK, nil)
	again.hears(topic, `{"deleted":["region-`+id+`"]}`)
	again.leave(true)
	fresh := talk(t, m, id, token, "", false)
	fresh.subscribe(topic, 1)
	fresh.hears(topic, `{"interval":5}`)
}

func boardRPC(t *testing.T, m *muster, id, token string) {
	helper := m.account(t, "rpc-"+id, []string{"devices/+/requests/+/response"}, []string{"devices/+/requests/+"})
	helper.subscribe("devices/+/requests/+", 1)
	d := talk(t, m, id, token, "", false)
	for _, own := range [][2]string{{"v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"}, {"v2/r/req/", "v2/r/res/"}} {
		d.subscribe(own[1]+"+", 1)
		d.say(own[0]+"3", `{"method":"getTime","params":{"zone":"utc"}}`)
		helper.hears("devices/"+id+"/requests/3", `{"method":"getTime","params":{"zone":"utc"}}`)
		helper.say("devices/"+id+"/requests/3/response", `{"time":1735689600}`)
		d.hears(own[1]+"3", `{"time":1735689600}`)
		must(t, d.c.Unsubscribe(own[1]+"+"))
	}
}

func boardLimits(t *testing.T, m *muster, id, token string) {
	d := talk(t, m, id, token, "", false)
	d.subscribe("v1/devices/me/rpc/response/+", 1)
	d.say("v1/devices/me/rpc/request/1", `{"method":"getSessionLimits","params":{}}`)
	d.hears("v1/devices/me/rpc/response/1", `{"maxPayloadSize":262144,"maxInflightMessages":64,"rateLimits":{"messages":"20000:1"}}`)
}

func boardClaim(t *testing.T, m *muster, id, token string) {
	d := talk(t, m, id, token, "", false)
	d.subscribe("devices/me/errors", 1)
	d.say("v1/devices/me/claim", `{"secretKey":"value","durationMs":60000}`) // ThingsBoard's example
	other := m.device(id+"-2", "token").Token
	talk(t, m, id+"-2", other, "", false).say("v2/c", `{"secretKey":"value"}`)
	for _, device := range []string{id, id + "-2"} {
		m.ask(http.MethodPost, "/api/v1/claims", map[string]string{"device": device, "code": "value"}, http.StatusOK, nil)
		if m.known(device).Tags["owner"] == "" {
			t.Errorf("%s has no owner", device)
		}
	}
	d.say("v1/devices/me/claim", `{}`)
	if got := d.next(); !strings.Contains(got.payload, "a claiming secret has 4 to 256 bytes") {
		t.Errorf("without a secret it is told %s", got)
	}
}

func boardFilters(t *testing.T, m *muster, id, token string) {
	d := talk(t, m, id, token, "", false)
	for _, filter := range []string{
		"v1/devices/me/#", "v1/devices/me/+", "v1/devices/+/attributes", "v1/gateway/#", "v2/fw/#", "v2/a/p", "v1/devices/me/rpc/request/1",
	} {
		d.refused(filter)
	}
}

// registration is what is answered at /provision/response.
type registration struct {
	Status, ProvisionDeviceStatus, ErrorMsg, CredentialsType string
	CredentialsValue                                         any
}

func (s *session3) registers(payload string) (r registration) {
	s.t.Helper()
	s.say("/provision/request", payload)
	got := s.next()
	err := json.Unmarshal([]byte(got.payload), &r)
	if err != nil || got.topic != "/provision/response" || r.Status != r.ProvisionDeviceStatus {
		s.t.Fatalf("%s is answered %s", payload, got)
	}
	return r
}

func boardRegisters(t *testing.T, m *muster, id, _ string) {
	m.ask(http.MethodPut, "/api/v1/profiles/"+id, map[string]any{}, http.StatusOK, nil)
	var p struct{ Key, Secret string }
	m.ask(http.MethodPut, "/api/v1/profiles/"+id+"/provisioning", map[string]string{"strategy": "create"}, http.StatusOK, &p)
	g := talk(t, m, "guest", "provision", "", false)
	g.subscribe("/provision/response", 1)
	request := func(more string) registration {
		return g.registers(fmt.Sprintf(`{"provisionDeviceKey":%q,"provisionDeviceSecret":%q%s}`, p.Key, p.Secret, more))
	}
	a := request(`,"deviceName":"Reg A"`)
	token, _ := a.CredentialsValue.(string)
	if a.Status != "SUCCESS" || a.CredentialsType != "ACCESS_TOKEN" || token == "" {
		t.Fatalf("a token of the server: %+v", a)
	}
	talk(t, m, "a", token, "", false).say("v1/devices/me/telemetry", `{"a":1}`)
	if m.awaitTelemetry("Reg..20A", 1); m.known("Reg..20A").Name != "Reg A" || m.known("Reg..20A").Profile != id {
		t.Errorf("registered: %+v", m.known("Reg..20A"))
	}
	const own = "a-token-of-its-own-long-enough"
	if a = request(`,"deviceName":"reg-b","credentialsType":"ACCESS_TOKEN","token":"` + own + `"`); a.Status != "SUCCESS" || a.CredentialsValue != own {
		t.Fatalf("its own token: %+v", a)
	}
	talk(t, m, "b", own, "", false)
	a = request(`,"deviceName":"reg-c","credentialsType":"MQTT_BASIC","clientId":"client-c","username":"user-c","password":"password of reg-c"`)
	if a.Status != "SUCCESS" || a.CredentialsType != "MQTT_BASIC" || fmt.Sprint(a.CredentialsValue) != "map[clientId:client-c password:password of reg-c userName:user-c]" {
		t.Fatalf("client id, user name and password: %+v", a)
	}
	talk(t, m, "client-c", "user-c", "password of reg-c", false).say("v1/devices/me/telemetry", `{"c":1}`)
	m.awaitTelemetry("reg-c", 1)
	if a = request(``); a.Status != "SUCCESS" {
		t.Errorf("without a name: %+v", a)
	}
	for more, want := range map[string]string{`,"deviceName":"reg-b"`: "taken", `,"deviceName":"reg-e","credentialsType":"LWM2M_CREDENTIALS"`: "none of ACCESS_TOKEN"} {
		if a = request(more); a.Status != "FAILURE" || !strings.Contains(a.ErrorMsg, want) {
			t.Errorf("%s: %+v, want %q", more, a, want)
		}
	}
	p.Secret += "x"
	if a = request(`,"deviceName":"reg-f"`); a.Status != "NOT_FOUND" || a.ErrorMsg == "" {
		t.Errorf("a wrong secret: %+v", a)
	}
	m.unknown("reg-f")
	g.refused("v1/devices/me/attributes")
}
