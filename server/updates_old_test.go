package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/server/servertest"
)

// logged counts the rows of the rollout's log.
func (u *updating) logged() int {
	u.t.Helper()
	rows, err := u.ControlForTest().RolloutLog(u.t.Context(), operator.LogQuery{Rollout: u.rollout, Limit: 1000})
	if err != nil {
		u.t.Fatal(err)
	}
	return len(rows)
}

// stays fails the test unless nothing became of the device since it was so, by now and for the log.
func (u *updating) stays(was rollout.Device, rows int) {
	u.t.Helper()
	is := u.row("d1")
	if is.State != was.State || is.Deadline != was.Deadline || is.Repeats != was.Repeats || u.logged() != rows {
		u.t.Errorf("with its old version it is %s until %d, and was %s until %d; the log has %d rows, and had %d", is.State, is.Deadline, was.State, was.Deadline, u.logged(), rows)
	}
}

func TestADeviceThatComesBackWithItsOldVersionWhileItInstallsGoesOnByMQTT(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 5_000, "d1")
	u.soak = time.Millisecond
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	c.reports(&o, 1, "installing", "")
	u.becomes("d1", rollout.Installing)
	was, rows := u.row("d1"), u.logged()
	c.leave()

	c = u.client5("d1", tokens["d1"])
	for _, version := range []string{"1.8.9", "1.9.0"} { // the second is taken when the first was looked at
		if code := c.say("devices/me/reported", `{"firmware":{"version":"`+version+`"}}`); code > 0x10 {
			t.Errorf("its old version is answered %#x", code)
		}
		u.wantsRuns(version)
	}
	if code := c.reports(&o, 2, "running", `,"version":"1.9.0"`); code != 0 {
		t.Errorf("its old version by the report running is answered %#x", code)
	}
	u.stays(was, rows)
	c.reports(&o, 3, "rebooting", "")
	if code := c.reports(&o, 4, "running", `,"version":"2.0.0"`); code != 0 {
		t.Errorf("the release's version is answered %#x", code)
	}
	u.becomes("d1", rollout.Confirmed)
	for {
		select {
		case m := <-c.got:
			if strings.HasSuffix(m.topic, "/errors") {
				t.Errorf("it is told of an error: %s", m.payload)
			}
			continue
		default:
		}
		return
	}
}

func TestADeviceThatTellsItsOldVersionAfterARestartOfTheServerGoesOnByDDI(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, start := startsAgain(t, "d1")
	stop := start()
	u.soak = time.Millisecond
	token := u.fill("app")["d1"]
	asked := func(link string) func() bool {
		return func() bool {
			_, _, body := ddiCall(t, http.MethodGet, "http://"+u.HTTPAddr()+"/default/controller/v1/d1", "TargetToken "+token, "")
			return strings.Contains(body, link)
		}
	}
	feedback := func(what string) {
		u.ddi(token, http.MethodPost, fmt.Sprintf("deploymentBase/%d/feedback", u.row("d1").Action), `{"status":{"execution":`+what+`}}`)
	}
	u.ddi(token, http.MethodGet, "", "")
	u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"1.9.0"}}`)
	u.begin()
	u.waits(asked("deploymentBase"), "it is offered nothing")
	feedback(`"proceeding","result":{"finished":"none","progress":{"cnt":1,"of":1}}`)
	u.becomes("d1", rollout.Installing)
	was, rows := u.row("d1"), u.logged()
	stop()

	defer start()()
	u.waits(asked("configData"), "it is not asked for its attributes after the restart")
	for _, version := range []string{"1.8.9", "1.9.0"} {
		u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"`+version+`"}}`)
		u.wantsRuns(version)
	}
	u.stays(was, rows)
	feedback(`"closed","result":{"finished":"success"}`)
	u.becomes("d1", rollout.Rebooting)
	u.waits(asked("configData"), "it is not asked for its attributes when it may run the release")
	u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"2.0.0"}}`)
	u.becomes("d1", rollout.Confirmed)
}

func TestAPlanOfFiveAttemptsGivesFiveWithinADayAndAnotherRolloutWaits(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 5_000, "d1")
	u.retry = 0
	c := u.client5("d1", tokens["d1"])
	u.begin(func(p *rollout.Plan) { p.Attempts = 5 })
	for attempt := 1; attempt <= 5; attempt++ {
		o := c.offer(u.OfferKeyForTest())
		if o.Attempt != attempt {
			t.Fatalf("attempt %d comes after %d that failed", o.Attempt, attempt-1)
		}
		if code := c.reports(&o, 1, "failed", `,"error":"flash"`); code != 0 {
			t.Errorf("failure %d is answered %#x", attempt, code)
		}
	}
	u.becomes("d1", rollout.Failed)
	if d := u.row("d1"); d.Failures != 5 || d.Reason != rollout.DeviceError {
		t.Errorf("after %d attempts it has failed: %s", d.Failures, d.Reason)
	}

	u.rollout = "r2"
	u.begin()
	u.waits(func() bool { return u.row("d1").Due > muster.MicrosOf(time.Now().Add(23*time.Hour)) }, "nothing has it wait for a day")
	u.is("d1", rollout.Queued)
	_, _, why := ddiCall(t, http.MethodGet, "http://"+u.HTTPAddr()+"/api/v1/rollouts/r2/devices/d1/why", "Bearer "+servertest.AdminKey, "")
	if !strings.Contains(why, `"held":"not_blocked"`) || !strings.Contains(why, "in other rollouts, until ") {
		t.Errorf("it waits for %s", why)
	}
}
