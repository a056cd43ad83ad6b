package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"muster/firmware/rollout"
)

// deployed polls until hawkBit's door has an action for d1, and returns it.
func (u *updating) deployed(token string) (action int32) {
	u.t.Helper()
	u.waits(func() bool {
		_, base := u.asksDDI(http.MethodGet, token, "d1", "")
		_, rest, found := strings.Cut(base, "/deploymentBase/")
		if !found {
			return false
		}
		_, err := fmt.Sscanf(rest, "%d", &action)
		return err == nil
	}, "hawkBit's door has nothing for the device")
	return action
}

// TestADeviceThatGoesOverFromMQTTToDDIGoesOnThere: before it is offered anything, when it has the offer, and in the middle
// of its download; what it had is its action at the other door.
func TestADeviceThatGoesOverFromMQTTToDDIGoesOnThere(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for name, state := range map[string]rollout.State{"before the rollout": rollout.Queued, "with the offer": rollout.Offered, "while it downloads": rollout.Downloading} {
		t.Run(name, func(t *testing.T) {
			u, tokens := startUpdating(t, "app", 20_000, "d1")
			c, token := u.client5("d1", tokens["d1"]), tokens["d1"]
			want := int32(0)
			if state >= rollout.Offered {
				u.begin()
				o := c.offer(u.OfferKeyForTest())
				if want = o.Action; state == rollout.Downloading {
					c.reports(&o, 1, "downloading", `,"progress":30`)
				}
			}
			c.leave()
			u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"1.0.0"}}`)
			if state == rollout.Queued {
				u.begin()
				u.becomes("d1", rollout.Offered) // it has said what it is, and not polled
			}
			action := u.deployed(token)
			if want != 0 && action != want {
				t.Fatalf("it has action %d, and had %d", action, want)
			}
			if status, body := u.asksDDI(http.MethodGet, token, fmt.Sprintf("d1/softwaremodules/%d/artifacts/pump.bin", action), ""); status != http.StatusOK || len(body) != len(u.image) {
				t.Fatalf("the image is answered %d with %d bytes", status, len(body))
			}
			u.ddi(token, http.MethodPost, fmt.Sprintf("deploymentBase/%d/feedback", action), `{"status":{"execution":"closed","result":{"finished":"success"}}}`)
			u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"2.0.0"}}`)
			u.waits(func() bool { return u.row("d1").Soaking }, "it does not soak")
			if d := u.row("d1"); d.Action != action || d.Attempt != 1 || d.Failures != 0 {
				t.Errorf("it is %+v", d)
			}
		})
	}
}
