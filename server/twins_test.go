package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/server/servertest"
)

// listen subscribes and returns what arrives.
func hearAt(t *testing.T, c mqtt.Client, filter string) chan mqtt.Message {
	t.Helper()
	got := make(chan mqtt.Message, 100)
	tok := c.Subscribe(filter, 1, func(_ mqtt.Client, m mqtt.Message) { got <- m })
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("subscribe to %s: %v", filter, tok.Error())
	}
	return got
}

func wantNext(t *testing.T, from chan mqtt.Message, topic, payload string, retained bool) {
	t.Helper()
	select {
	case m := <-from:
		if m.Topic() != topic || string(m.Payload()) != payload || m.Retained() != retained {
			t.Fatalf("%s says %s (retained %v), want %s of %s", m.Topic(), m.Payload(), m.Retained(), payload, topic)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s does not say %s", topic, payload)
	}
}

func TestADeviceIsToldTheNewestDesiredDocumentWhenItComesAndOnEachChange(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "d")
	desired := func(path string, doc any) { call(t, s, http.MethodPatch, "/api/v1"+path, doc, nil) }
	admin := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetUsername(servertest.AdminKey).SetClientID("admin"))
	if tok := admin.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("connect: %v", tok.Error())
	}
	t.Cleanup(func() { admin.Disconnect(100) })
	all := hearAt(t, admin, "devices/+/desired")
	call(t, s, http.MethodPut, "/api/v1/groups/g", map[string]any{}, nil)

	c := connect(t, s, token)
	got := hearAt(t, c, "devices/me/desired")
	desired("/fleet/desired", map[string]any{"mode": "eco"})
	wantNext(t, got, "devices/me/desired", `{"version":1,"state":{"mode":"eco"}}`, false)
	wantNext(t, all, "devices/d/desired", `{"version":1,"state":{"mode":"eco"}}`, false)
	c.Disconnect(100)

	for _, mode := range []string{"fast", "slow", "night"} {
		desired("/devices/d/desired", map[string]any{"mode": mode})
	}
	for range 3 {
		<-all
	}
	desired("/groups/g/desired", map[string]any{"every": 10})
	c = connect(t, s, token)
	got = hearAt(t, c, "devices/me/desired")
	wantNext(t, got, "devices/me/desired", `{"version":4,"state":{"mode":"night"}}`, true)
	// The next is that of the group: nothing else came before.
	call(t, s, http.MethodPatch, "/api/v1/devices/d", map[string]any{"groups": []string{"g"}}, nil)
	wantNext(t, got, "devices/me/desired", `{"version":5,"state":{"every":10,"mode":"night"}}`, false)
	wantNext(t, all, "devices/d/desired", `{"version":5,"state":{"every":10,"mode":"night"}}`, false)
	wantNext(t, hearAt(t, admin, "+/d/desired"), "devices/d/desired", `{"version":5,"state":{"every":10,"mode":"night"}}`, true)

	var page struct{ Items []struct{ ID string } }
	call(t, s, http.MethodGet, "/api/v1/devices?q="+strings.ReplaceAll("twin.desired.every=10 converged=false diverged:mode has:twin", " ", "%20"), nil, &page)
	if len(page.Items) != 1 || page.Items[0].ID != "d" {
		t.Errorf("the query finds %v", page.Items)
	}

	// What the device reports is kept when it is acknowledged.
	tok := c.Publish("devices/me/reported", 1, false, `{"mode":"night","every":1e1,"firmware":{"version":"1.2"}}`)
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("report: %v", tok.Error())
	}
	call(t, s, http.MethodGet, "/api/v1/devices?q=converged=true%20fw:1.2%20twin.reported.every=10", nil, &page)
	if len(page.Items) != 1 || page.Items[0].ID != "d" {
		t.Errorf("after its report the query finds %v", page.Items)
	}
}
