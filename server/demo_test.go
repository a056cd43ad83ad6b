package server_test

import (
	"net/http"
	"testing"
	"time"

	"muster/server"
	"muster/server/servertest"
)

func TestTheDemoShowsARolloutThatRunsFailsAndStopsItself(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, func(c *server.Config) {
		c.Demo = true
		c.DDI.Idle, c.DDI.Busy = time.Second, time.Second
	})
	u := &updating{Server: s, t: t}
	u.waits(func() bool {
		var list struct{ Items []gatedState }
		call(t, s, http.MethodGet, "/api/v1/rollouts", nil, &list)
		if len(list.Items) != 1 {
			t.Fatalf("the demo has %d rollouts", len(list.Items))
		}
		p := list.Items[0].Progress
		confirmed := 0
		for _, ph := range p.Phases {
			confirmed += ph.States["confirmed"]
		}
		return p.Status == "paused" && p.Reason == "failure_threshold" && confirmed > 0
	}, "the demo's rollout does not stop itself after some have the release")
}
