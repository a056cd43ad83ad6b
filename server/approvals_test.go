package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
)

func TestTheServerAsksForApprovalsOfEveryRollout(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u := &updating{t: t, image: imageOf(5_000), ids: []string{"d1"}}
	u.Server = servertest.Start(t, func(c *server.Config) { c.Firmware.Approvals = 2 })
	u.publish("app", "2.0.0")
	u.create()
	call := func(method, rest, body string, want int) string {
		t.Helper()
		status, _, text := ddiCall(t, method, "http://"+u.HTTPAddr()+"/api/v1/rollouts"+rest, "Bearer "+servertest.AdminKey, body)
		if status != want {
			t.Errorf("%s %s %s is answered %d %s, want %d", method, rest, body, status, text, want)
		}
		return text
	}
	spec := `{"name":"all","release":"` + u.release + `","q":"id:*"`
	if text := call(http.MethodPost, "", spec+`,"start":true}`, http.StatusConflict); !strings.Contains(text, "no user owns") {
		t.Errorf("made and started by a key that nobody owns: %s", text)
	}
	var made struct {
		ID           string `json:"id"`
		MinApprovals int    `json:"min_approvals"`
	}
	if err := json.Unmarshal([]byte(call(http.MethodPost, "", spec+`,"min_approvals":1}`, http.StatusCreated)), &made); err != nil || made.MinApprovals != 2 {
		t.Fatalf("the draft is %+v, %v", made, err)
	}
	call(http.MethodPatch, "/"+made.ID, `{"min_approvals":1}`, http.StatusUnprocessableEntity)
	call(http.MethodPatch, "/"+made.ID, `{"min_approvals":3}`, http.StatusOK)
	call(http.MethodPost, "/"+made.ID+"/start", "", http.StatusConflict)
}

func TestAScheduledRolloutOfBeforeTheServerAskedForApprovalsIsHeldAndAnApproverWhoIsDisabledDoesNotCount(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u := &updating{t: t, image: imageOf(5_000), ids: []string{"d1"}, rollout: "r1"}
	u.Server = servertest.Start(t, func(c *server.Config) { c.Firmware.Approvals = 1 })
	u.publish("app", "2.0.0")
	u.create()
	call := func(method, path, body string, want int, into any) {
		t.Helper()
		status, _, text := ddiCall(t, method, "http://"+u.HTTPAddr()+"/api/v1"+path, "Bearer "+servertest.AdminKey, body)
		if status != want {
			t.Fatalf("%s %s is answered %d %s, want %d", method, path, status, text, want)
		}
		if into != nil {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
	}
	var made struct{ User struct{ ID string } }
	call(http.MethodPost, "/users", `{"email":"bob@example.com","name":"Bob","role":"operator","password":"long-enough-0123"}`, http.StatusCreated, &made)
	bob := made.User
	r := &rollout.Rollout{
		ID: u.rollout, Name: "all", Seed: "s", Status: rollout.Scheduled, StartAt: 1, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1, Release: u.release, Product: "pump",
		Counts: make([]rollout.Counts, 1), Upto: []uint64{0}, Record: rollout.Record{CreatedBy: rollout.Person{ID: "usr_ann"}},
	}
	r.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100, Success: 50, Gate: rollout.Auto}}
	r.Counts[0].By[rollout.Queued] = 1
	if err := u.ControlForTest().InsertRollout(t.Context(), r, []rollout.Device{{Rollout: r.ID, ID: "d1", Rank: rollout.Rank("s", "d1")}}); err != nil {
		t.Fatal(err)
	}
	type held struct {
		MinApprovals int `json:"min_approvals"`
		Approvals    []struct{ Counts bool }
		Progress     struct{ Status, Reason string }
	}
	shown := func() (x held) {
		t.Helper()
		call(http.MethodGet, "/rollouts/r1", "", http.StatusOK, &x)
		return x
	}
	u.waits(func() bool { p := shown().Progress; return p.Status == "scheduled" && p.Reason == "approvals" }, "it is not held")
	disable := func(yes bool) {
		t.Helper()
		call(http.MethodPatch, "/users/"+bob.ID, fmt.Sprintf(`{"disabled":%t}`, yes), http.StatusOK, nil)
	}
	disable(true)
	var leased muster.Micros
	err := u.ControlForTest().Decide(t.Context(), r.ID, director.Fence{}, 1, director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		leased = r.Expires
		return nil, r.Agree(rollout.Person{ID: bob.ID}, "", rollout.Quorum{Least: 1}, muster.MicrosOf(time.Now())) // as if before he was disabled
	})
	if err != nil {
		t.Fatal(err)
	}
	u.waits(func() bool { // until it was looked at since
		r, err := u.ControlForTest().Rollout(t.Context(), r.ID)
		return err == nil && r.Expires > leased
	}, "nobody looks after it")
	if x := shown(); x.Progress.Status != "scheduled" || len(x.Approvals) != 1 || x.Approvals[0].Counts || x.MinApprovals != 1 {
		t.Errorf("with one who is disabled it is %+v", x)
	}
	disable(false)
	u.waits(func() bool { return shown().Progress.Status == "running" }, "it does not begin")
}

func TestTheServerAsksForNoMoreApprovalsThanARolloutCanHave(t *testing.T) {
	for n, want := range map[int]bool{-1: true, 17: true} {
		_, err := server.New(t.Context(), server.Config{DataDir: t.TempDir(), LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, Firmware: server.FirmwareConfig{Approvals: n}})
		if got := err != nil && strings.Contains(err.Error(), "rollout-approvals"); got != want {
			t.Errorf("%d approvals: %v", n, err)
		}
	}
}
