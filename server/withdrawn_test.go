package server_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/rollout"
)

func TestARevokedKeyStopsTheRolloutTakesBackItsOffersAndItsImage(t *testing.T) {
	u, tokens := startUpdating(t, "app", 9_000, "d1", "d2")
	u.begin()
	c, busy := u.client5("d1", tokens["d1"]), u.client5("d2", tokens["d2"])
	o, p := c.offer(u.OfferKeyForTest()), busy.offer(u.OfferKeyForTest())
	c.reports(&o, 1, "downloading", "")
	busy.reports(&p, 1, "installing", "")
	url := func(id string, action int32) string {
		_, signer, _ := u.DeliveryForTest()
		var sum [32]byte
		if _, err := hex.Decode(sum[:], []byte(u.sha256)); err != nil {
			t.Fatal(err)
		}
		return signer.URL(u.URL(), sum, muster.DeviceID(id), int64(action), time.Now().Add(time.Hour))
	}
	get := func(url string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // it may be cut
		return resp.StatusCode
	}
	pub, _ := u.secret.Public().(ed25519.PublicKey)
	if _, err := u.CatalogForTest().RevokeKey(t.Context(), firmware.KeyID(pub), "it was lost", "usr_ann"); err != nil {
		t.Fatal(err)
	}
	if status := get(url("d2", p.Action)); status != http.StatusGone {
		t.Errorf("the image by HTTP: %d", status)
	}
	if m := c.hears("firmware/cancel"); string(m.payload) != fmt.Sprintf(`{"action":%d,"attempt":1}`, o.Action) {
		t.Errorf("taken back: %s", m.payload)
	}
	u.becomes("d1", rollout.Queued)
	r, err := u.ControlForTest().Rollout(t.Context(), u.rollout)
	if err != nil || r.Status != rollout.Paused || r.Reason != rollout.ReleaseWithdrawn {
		t.Errorf("the rollout is %s, %q, %v", r.Status, r.Reason, err)
	}
	u.is("d2", rollout.Installing)
	end := time.Now().Add(soon) // what it may fetch is good for 5 s
	for refused := false; !refused; {
		if time.Now().After(end) {
			t.Fatal("pieces of the image are still sent")
		}
		busy.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":4096}`, p.Action))
		m := busy.hears("firmware/")
		refused = strings.Contains(string(m.payload), `"code":"no_action"`)
	}
	if code := busy.reports(&p, 2, "running", `,"version":"2.0.0"`); code != 0 {
		t.Errorf("what installs is not heard: %#x", code)
	}
	u.is("d2", rollout.Rebooting)
}
