package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	paho5 "github.com/eclipse/paho.golang/paho"
)

// TestACommandGoesThereAndBack sends commands with ?wait=10s to devices that speak in
// each of the ways there are.
func TestACommandGoesThereAndBack(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			for _, trip := range []struct {
				name string
				run  func(t *testing.T, m *muster)
			}{
				{"paho 3.1.1 accepts, reports progress, and is done", tripPaho3},
				{"paho 3.1.1 says that it failed", tripFailed},
				{"paho 5 answers at the Response Topic with the Correlation Data", tripPaho5},
				{"a ThingsBoard device answers its server-side RPC", tripThingsBoard},
				{"a ThingsBoard device answers at the short topics", tripShort},
				{"a gateway answers for its child at the child's topics", tripChild},
				{"a ThingsBoard gateway answers for its child", tripGatewayRPC},
				{"a device that was away gets what waits, in order", tripAway},
			} {
				t.Run(trip.name, func(t *testing.T) {
					m.t = t
					trip.run(t, m)
				})
			}
			m.t = t
			m.stop()
		})
	}
}

// ordered reads a command as our topics carry it.
func (s *session3) ordered(prefix, method, params string) (id string) {
	s.t.Helper()
	got := s.next()
	id, ok := strings.CutPrefix(got.topic, prefix)
	var c struct {
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params"`
		Expires string          `json:"expires_at"`
	}
	err := json.Unmarshal([]byte(got.payload), &c)
	if err != nil || !ok || c.Method != method || c.Expires == "" || canonical(s.t, string(c.Params)) != canonical(s.t, params) {
		s.t.Fatalf("heard %s, want %s%s with %s", got, prefix, method, params)
	}
	return id
}

func tripPaho3(t *testing.T, m *muster) {
	d := talk(t, m, "p3", m.device("p3", "token").Token, "", false)
	d.subscribe("devices/me/commands/+", 1)
	o := m.send(t, "p3", "valve/open", `{"percent":40}`)
	id := d.ordered("devices/me/commands/", "valve/open", `{"percent":40}`)
	result := "devices/me/commands/" + id + "/result"
	d.say(result, `{"status":"accepted"}`)
	if c := m.command("p3", id); c.State != "accepted" {
		t.Errorf("the PUBACK came before the report was kept: %+v", c)
	}
	d.say(result, `{"status":"progress","progress":60}`)
	if c := m.command("p3", id); c.State != "progress" || c.Progress != 60 {
		t.Errorf("after 60 %%: %+v", c)
	}
	d.say(result, `{"status":"ok","result":{"percent":40}}`)
	o.ends(id, "succeeded", `{"percent":40}`)
}

func tripFailed(t *testing.T, m *muster) {
	d := talk(t, m, "p3f", m.device("p3f", "token").Token, "", false)
	d.subscribe("devices/p3f/commands/+", 1)
	o := m.send(t, "p3f", "reboot", `{}`)
	id := d.ordered("devices/p3f/commands/", "reboot", `{}`)
	d.say("devices/p3f/commands/"+id+"/result", `{"status":"error","error":{"code":7}}`)
	o.ends(id, "failed", `null`)
	if c := m.command("p3f", id); canonical(t, string(c.Error)) != `{"code":7}` {
		t.Errorf("the error is %s", c.Error)
	}
}

func tripPaho5(t *testing.T, m *muster) {
	c, _ := connect5(t, dial(t, m.mqtt), "p5", m.device("p5", "token").Token, "")
	for _, own := range []string{"devices/me/", "devices/p5/"} {
		if code := c.subscribe(t, own+"commands/+"); code != 1 {
			t.Fatalf("SUBACK %#x", code)
		}
		o := m.send(t, "p5", "blink", `[1,"two",null]`)
		got := c.next(t)
		id := strings.TrimPrefix(got.Topic, own+"commands/")
		if p := got.Properties; p.ResponseTopic != own+"commands/"+id+"/result" || len(p.CorrelationData) == 0 || p.ContentType != "application/json" ||
			p.MessageExpiry == nil || !strings.Contains(string(got.Payload), `"method":"blink"`) {
			t.Fatalf("a command of MQTT 5: %v %s", got, got.Payload)
		}
		answer := &paho5.Publish{
			Topic: got.Properties.ResponseTopic, QoS: 1, Payload: []byte(`{"status":"ok","result":"blinked"}`),
			Properties: &paho5.PublishProperties{CorrelationData: got.Properties.CorrelationData},
		}
		if ack, err := c.Publish(t.Context(), answer); err != nil || ack.ReasonCode != 0 {
			t.Fatalf("the answer: %v %v", ack, err)
		}
		o.ends(id, "succeeded", `"blinked"`)
		if _, err := c.Unsubscribe(t.Context(), &paho5.Unsubscribe{Topics: []string{own + "commands/+"}}); err != nil {
			t.Fatal(err)
		}
	}
}

func tripThingsBoard(t *testing.T, m *muster) {
	rpc(t, m, "tb", "v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/")
}

func tripShort(t *testing.T, m *muster) {
	rpc(t, m, "tb-short", "v2/r/req/", "v2/r/res/")
}

func rpc(t *testing.T, m *muster, device, requests, responses string) {
	t.Helper()
	d := talk(t, m, device, m.device(device, "token").Token, "", false)
	d.subscribe(requests+"+", 1)
	for answer, result := range map[string]string{`{"pin":4,"on":true}`: `{"on":true,"pin":4}`, `{"error":"no pin"}`: `{"error":"no pin"}`, `not JSON`: `"not JSON"`, ``: `null`} {
		o := m.send(t, device, "setGpio", `{"pin":4}`)
		got := d.next()
		id, ok := strings.CutPrefix(got.topic, requests)
		if !ok || canonical(t, got.payload) != `{"method":"setGpio","params":{"pin":4}}` {
			t.Fatalf("heard %s", got)
		}
		d.say(responses+id, answer)
		o.ends(id, "succeeded", result)
	}
}

func tripChild(t *testing.T, m *muster) {
	g := talk(t, m, "gw-plain", m.device("gw-plain", "token").Token, "", false)
	m.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": "behind", "parent": "gw-plain", "credential": "none"}, http.StatusCreated, nil)
	g.subscribe("devices/behind/commands/+", 1)
	o := m.send(t, "behind", "read", `{"register":3}`)
	id := g.ordered("devices/behind/commands/", "read", `{"register":3}`)
	g.say("devices/behind/commands/"+id+"/result", `{"status":"ok","result":[1,2]}`)
	o.ends(id, "succeeded", `[1,2]`)
}

func tripGatewayRPC(t *testing.T, m *muster) {
	g := talk(t, m, "gw-rpc", m.gateway("gw-rpc"), "", false)
	g.subscribe("v1/gateway/rpc", 1)
	g.say("v1/gateway/connect", `{"device":"Pump 1"}`)
	o := m.send(t, "Pump..201", "setSpeed", `{"rpm":900}`)
	var asked struct {
		Device string
		Data   struct {
			ID     int64
			Method string
			Params json.RawMessage
		}
	}
	got := g.next()
	err := json.Unmarshal([]byte(got.payload), &asked)
	if err != nil || got.topic != "v1/gateway/rpc" || asked.Device != "Pump 1" || asked.Data.Method != "setSpeed" || string(asked.Data.Params) != `{"rpm":900}` {
		t.Fatalf("heard %s", got)
	}
	g.say("v1/gateway/rpc", fmt.Sprintf(`{"device":"Pump 1","id":%d,"data":{"success":true}}`, asked.Data.ID))
	o.ends(fmt.Sprint(asked.Data.ID), "succeeded", `{"success":true}`)
}

func tripAway(t *testing.T, m *muster) {
	token := m.device("away", "token").Token
	var want []string
	for i := range 3 {
		var c order
		m.ask(http.MethodPost, "/api/v1/devices/away/commands", map[string]any{"method": "step", "params": i}, http.StatusCreated, &c)
		if want = append(want, c.ID); c.State != "queued" {
			t.Fatalf("a command for who is away: %+v", c)
		}
	}
	d := talk(t, m, "away", token, "", false)
	d.subscribe("v1/devices/me/rpc/request/+", 1)
	for i, id := range want {
		d.hears("v1/devices/me/rpc/request/"+id, fmt.Sprintf(`{"method":"step","params":%d}`, i))
		d.say("v1/devices/me/rpc/response/"+id, fmt.Sprint(i))
		if c := m.command("away", id); c.State != "succeeded" || string(c.Result) != fmt.Sprint(i) {
			t.Errorf("command %d: %+v", i, c)
		}
	}
}

// command is one as it is now.
func (m *muster) command(device, id string) order {
	m.t.Helper()
	var c order
	m.ask(http.MethodGet, "/api/v1/devices/"+device+"/commands/"+id, nil, http.StatusOK, &c)
	return c
}
