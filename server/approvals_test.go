package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

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
	if text := call(http.MethodPost, "", spec+`,"start":true}`, http.StatusConflict); !strings.Contains(text, "2 people") {
		t.Errorf("made and started by one: %s", text)
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

func TestTheServerAsksForNoMoreApprovalsThanARolloutCanHave(t *testing.T) {
	for n, want := range map[int]bool{-1: true, 17: true} {
		_, err := server.New(t.Context(), server.Config{DataDir: t.TempDir(), LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, Firmware: server.FirmwareConfig{Approvals: n}})
		if got := err != nil && strings.Contains(err.Error(), "rollout-approvals"); got != want {
			t.Errorf("%d approvals: %v", n, err)
		}
	}
}
