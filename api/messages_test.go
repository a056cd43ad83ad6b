package api_test

import (
	"context"
	"fmt"
	"testing"

	"muster"
	"muster/api"
)

// PublishToDevice implements api.MessagePublisher.
func (m *mqttClients) PublishToDevice(_ context.Context, device muster.DeviceID, rest string, payload []byte, retain bool, qos byte) error {
	if rest == "desired" {
		return muster.InvalidAt("topic", "this is one of Muster's own topics")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.published = append(m.published, fmt.Sprintf("%s %s %s %v %d", device, rest, payload, retain, qos))
	return nil
}

// simulated is a Simulator of numbers.
type simulated struct{ n int }

func (s *simulated) Simulation() api.Simulation {
	return api.Simulation{Running: s.n > 0, Devices: s.n}
}

func (s *simulated) Simulate(_ context.Context, n int) (api.Simulation, error) {
	s.n = n
	return s.Simulation(), nil
}

func (s *simulated) EndSimulation(context.Context) (api.Simulation, error) {
	s.n = 0
	return s.Simulation(), nil
}

func TestAMessageIsPublishedAtATopicOfADevice(t *testing.T) {
	r := newRig(t)
	r.device("a")
	const at = "/api/v1/devices/a/messages"
	r.as("POST", at, object{"topic": "display/text", "payload_text": "on"}).wantStatus(t, 202)
	r.as("POST", at, object{"topic": "x", "payload": "AAE=", "qos": 2, "retain": true}).wantStatus(t, 202)
	r.mqtt.mu.Lock()
	got := fmt.Sprintf("%q", r.mqtt.published)
	r.mqtt.mu.Unlock()
	if got != `["a display/text on false 1" "a x \x00\x01 true 2"]` {
		t.Errorf("published is %s", got)
	}
	for _, bad := range []object{{}, {"topic": ""}, {"topic": "desired"}, {"topic": "x", "qos": 3}, {"topic": "x", "payload": "AAE=", "payload_text": "y"}} {
		r.as("POST", at, bad).wantProblem(t, 422, "invalid")
	}
	r.as("POST", "/api/v1/devices/b/messages", object{"topic": "x"}).wantProblem(t, 404, "not_found")
	r.do("POST", at, object{"topic": "x"}, bearer(r.key("devices:write"))).wantProblem(t, 403, "forbidden")
}

func TestASimulationIsStartedAndEnded(t *testing.T) {
	r := newRig(t)
	const at = "/api/v1/simulation"
	r.same("at first", object{"running": false, "devices": 0.0}, r.as("GET", at, nil).wantStatus(t, 200).decode(t))
	r.same("by itself", object{"running": true, "devices": 25.0}, r.as("POST", at, object{}).wantStatus(t, 200).decode(t))
	r.same("fewer", object{"running": true, "devices": 3.0}, r.as("POST", at, object{"devices": 3}).wantStatus(t, 200).decode(t))
	r.as("POST", at, object{"devices": 26}).wantProblem(t, 422, "invalid")
	r.do("POST", at, object{}, bearer(r.key("devices:read"))).wantProblem(t, 403, "forbidden")
	r.do("DELETE", at, nil, bearer(r.key("devices:read"))).wantProblem(t, 403, "forbidden")
	r.same("at the end", object{"running": false, "devices": 0.0}, r.as("DELETE", at, nil).wantStatus(t, 200).decode(t))
}
