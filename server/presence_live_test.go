package server_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/server"
	"muster/server/servertest"
)

type shownPresence struct {
	State, Reason string
	Strip         []struct{ State string }
}

func presenceOf(t *testing.T, s *server.Server, id string) (p shownPresence) {
	t.Helper()
	call(t, s, http.MethodGet, "/api/v1/devices/"+id+"/presence", nil, &p)
	return p
}

func TestAStopAndAStartMakeNobodyOffline(t *testing.T) {
	dir := t.TempDir()
	same := func(c *server.Config) { c.DataDir = dir }
	var token string
	var client mqtt.Client
	t.Run("first", func(t *testing.T) {
		s := servertest.Start(t, same)
		token = create(t, s, "d")
		client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetUsername(token).SetAutoReconnect(false))
		if tok := client.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	})
	client.Disconnect(0)
	t.Run("second", func(t *testing.T) {
		s := servertest.Start(t, same)
		if p := presenceOf(t, s, "d"); p.State != "unknown" || p.Reason != "server restarted" {
			t.Errorf("after the start it is %+v", p)
		}
		connect(t, s, token)
		p := presenceOf(t, s, "d")
		if p.State != "online" {
			t.Errorf("when it is back it is %+v", p)
		}
		for _, stretch := range p.Strip {
			if stretch.State == "offline" {
				t.Errorf("it was offline: %+v", p.Strip)
			}
		}
	})
}

func TestChangesOfPresenceReachSubscribers(t *testing.T) {
	s := servertest.Start(t, func(c *server.Config) { c.PresenceGrace = -1 })
	token := create(t, s, "d")
	got := make(chan mqtt.Message, 10)
	admin := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetUsername(servertest.AdminKey).SetClientID("watcher"))
	for _, do := range []func() mqtt.Token{admin.Connect, func() mqtt.Token {
		return admin.Subscribe("devices/+/presence", 1, func(_ mqtt.Client, m mqtt.Message) { got <- m })
	}} {
		if tok := do(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	defer admin.Disconnect(0)
	want := func(state, reason string) {
		t.Helper()
		select {
		case m := <-got:
			var p struct{ State, Reason, Since string }
			if err := json.Unmarshal(m.Payload(), &p); err != nil || m.Topic() != "devices/d/presence" || p.State != state || p.Reason != reason || p.Since == "" {
				t.Errorf("%s %s, want %s", m.Topic(), m.Payload(), state)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s does not come", state)
		}
	}
	want("never", "")
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetUsername(token).SetClientID("d"))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	want("online", "")
	c.Disconnect(100)
	want("offline", "disconnected")
}

func TestWhatAGatewayPublishesBringsItsChildOnlineAndWhatAnAccountDoesNot(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "g")
	for _, id := range []string{"event", "value", "other"} {
		call(t, s, http.MethodPost, "/api/v1/devices", map[string]string{"id": id, "parent": "g", "credential": "none"}, nil)
	}
	gateway, admin := connect(t, s, token), mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://"+s.MQTTAddr()).SetUsername(servertest.AdminKey))
	if tok := admin.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer admin.Disconnect(0)
	for _, tok := range []mqtt.Token{
		admin.Publish("devices/other/events/boot", 1, false, "{}"),
		gateway.Publish("devices/event/events/boot", 1, false, "{}"),
		gateway.Publish("devices/value/telemetry", 1, false, `{"a":1}`),
	} {
		if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for presenceOf(t, s, "value").State != "online" { // PUBACK may come a moment before
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the child does not come")
		}
	}
	if p := presenceOf(t, s, "event"); p.State != "online" {
		t.Errorf("a child whose event came is %+v", p)
	}
	if p := presenceOf(t, s, "other"); p.State != "never" {
		t.Errorf("a device that an account speaks for is %+v", p)
	}
	gateway.Disconnect(250)
	for presenceOf(t, s, "value").State != "offline" {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("the child does not go")
		}
	}
	if p := presenceOf(t, s, "event"); p.Reason != "gateway g: disconnected" {
		t.Errorf("a child of a gateway that left is %+v", p)
	}
}
