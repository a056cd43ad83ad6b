package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/server/servertest"
)

// TestWhatADeviceSaysBesideTelemetryIsKeptAndTraced sends one of each as a device and
// reads what the API says of it.
func TestWhatADeviceSaysBesideTelemetryIsKeptAndTraced(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "d")
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.BrokerAddr()).SetUsername(token).SetClientID("d"))
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer c.Disconnect(100)
	publish := func(topic, payload string) {
		t.Helper()
		if tok := c.Publish("devices/me/"+topic, 1, false, payload); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("%s: %v", topic, tok.Error())
		}
	}
	publish("telemetry", `{"a":1}`)
	publish("events/door", `{"open":true}`)
	publish("logs", `{"level":4,"msg":"low battery"}`)
	publish("events/door", "\xff\xfe")
	publish("reported", `{"a":1}`)

	type page struct {
		Items []map[string]any `json:"items"`
	}
	read := func(what string) string {
		t.Helper()
		var p page
		call(t, s, "GET", "/api/v1/devices/d/"+what, nil, &p)
		var out []string
		for _, i := range p.Items {
			switch what {
			case "events":
				out = append(out, fmt.Sprint(i["type"], " ", i["payload"]))
			case "logs":
				out = append(out, fmt.Sprint(i["level"], " ", i["text"]))
			case "rejected":
				out = append(out, fmt.Sprint(i["code"], " ", i["topic"]))
			default:
				out = append(out, fmt.Sprint(i["kind"], " ", i["verdict"], " ", i["acked_at"] != nil, " ", i["stored_at"] != nil))
			}
		}
		return strings.Join(out, "; ")
	}
	for what, want := range map[string]string{
		"events": "door map[open:true]", "logs": "warn low battery", "rejected": "text devices/d/events/door",
		"trace": "reported stored true true; event rejected true true; log stored true true; event stored true true; telemetry stored true true",
	} {
		awaitTrue(t, what+" to be "+want, func() bool { return read(what) == want })
	}
	var system struct {
		Sections struct {
			Intake []struct {
				Kind                                        string
				Received, Stored, Rejected, Dropped, Queued int
			}
		}
	}
	call(t, s, "GET", "/api/v1/system", nil, &system)
	if got := fmt.Sprint(system.Sections.Intake); got != "[{reported 1 1 0 0 0} {event 2 1 1 0 0} {log 1 1 0 0 0} {result 0 0 0 0 0} {notify 0 0 0 0 0} {notification_ack 0 0 0 0 0} {firmware 0 0 0 0 0}]" {
		t.Errorf("the System page says of intake %s", got)
	}
}

func awaitTrue(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
