package server_test

import (
	"net/http"
	"testing"

	"muster/server"
	"muster/server/servertest"
)

// status sends a request as admin and returns the status of the answer.
func status(t *testing.T, s *server.Server, method, path string, body any) int {
	t.Helper()
	status, _ := reply(t, s, method, path, body)
	return status
}

type simulationState struct {
	Running bool
	Devices int
}

func TestASimulationPublishesAndLeavesNothingBehind(t *testing.T) {
	s := servertest.Start(t)
	var got simulationState
	call(t, s, http.MethodPost, "/api/v1/simulation", map[string]any{"devices": 3}, &got)
	if got != (simulationState{true, 3}) {
		t.Fatalf("it is %+v", got)
	}
	online := func() (ids int) {
		var page struct{ Items []struct{ ID string } }
		call(t, s, http.MethodGet, "/api/v1/devices?q=tag:sim+status=online", nil, &page)
		return len(page.Items)
	}
	awaitTrue(t, "three simulated devices to be online", func() bool { return online() == 3 })
	awaitTrue(t, "values of them", func() bool {
		var page struct{ Items []struct{ ID string } }
		call(t, s, http.MethodGet, "/api/v1/devices?q=tag:sim+v.battery", nil, &page)
		return len(page.Items) > 0
	})
	call(t, s, http.MethodPost, "/api/v1/simulation", map[string]any{"devices": 5}, &got)
	if got != (simulationState{true, 5}) {
		t.Errorf("with more it is %+v", got)
	}
	awaitTrue(t, "five of them to be online", func() bool { return online() == 5 })
	call(t, s, http.MethodDelete, "/api/v1/simulation", nil, &got)
	if got != (simulationState{}) {
		t.Errorf("after its end it is %+v", got)
	}
	var page struct{ Items []struct{ ID string } }
	call(t, s, http.MethodGet, "/api/v1/devices", nil, &page)
	if len(page.Items) != 0 {
		t.Errorf("left are %v", page.Items)
	}
}

func TestASimulationTakesNobodysDevice(t *testing.T) {
	s := servertest.Start(t)
	call(t, s, http.MethodPost, "/api/v1/devices", map[string]any{"id": "simulated-0001"}, nil)
	if got := status(t, s, http.MethodPost, "/api/v1/simulation", map[string]any{}); got != http.StatusConflict {
		t.Errorf("it is answered with %d", got)
	}
	call(t, s, http.MethodDelete, "/api/v1/simulation", nil, nil)
	var page struct{ Items []struct{ ID string } }
	call(t, s, http.MethodGet, "/api/v1/devices", nil, &page)
	if len(page.Items) != 1 {
		t.Errorf("there are %v, want the one that nobody simulated", page.Items)
	}
}

func TestAMessageOfTheAPIReachesWhoSubscribesAndNoTopicOfMusters(t *testing.T) {
	s := servertest.Start(t)
	call(t, s, http.MethodPost, "/api/v1/devices", map[string]any{"id": "d"}, nil)
	for _, own := range []string{"telemetry", "telemetry/x", "reported", "desired", "commands/1", "events/x", "logs", "firmware", "firmware/get", "presence", "errors", "notifications", "notify/x", "requests/1", "a/+", "#"} {
		if got := status(t, s, http.MethodPost, "/api/v1/devices/d/messages", map[string]any{"topic": own}); got != http.StatusUnprocessableEntity {
			t.Errorf("%s is answered with %d", own, got)
		}
	}
	if got := status(t, s, http.MethodPost, "/api/v1/devices/d/messages", map[string]any{"topic": "display/text", "payload_text": "x"}); got != http.StatusAccepted {
		t.Errorf("a topic of its own is answered with %d", got)
	}
}
