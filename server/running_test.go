package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"muster/api/ddi"
	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
)

// door is one by which a device comes: it is opened, and then says that it installs, and what it runs.
type door struct {
	set      func(c *server.Config)
	open     func(u *updating, token string) (installed func(version string))
	versions string // before anything was installed, said by the door; empty for none
}

func doors() map[string]door {
	return map[string]door{
		"the report running": {open: func(u *updating, token string) func(string) {
			c := u.client5("d1", token)
			return func(version string) {
				o := c.offer(u.OfferKeyForTest())
				c.reports(&o, 1, "installing", "")
				if code := c.reports(&o, 2, "running", `,"version":"`+version+`"`); code != 0 {
					u.t.Errorf("running %s: %#x", version, code)
				}
			}
		}},
		"the reported document": {open: func(u *updating, token string) func(string) {
			c := u.client5("d1", token)
			return func(version string) {
				o := c.offer(u.OfferKeyForTest())
				c.reports(&o, 1, "installing", "")
				if code := c.say("devices/me/reported", `{"x": 1, "firmware": {"version": "`+version+`"}}`); code > 0x10 {
					u.t.Errorf("reported %s: %#x", version, code)
				}
			}
		}},
		"ThingsBoard's telemetry": {open: func(u *updating, token string) func(string) {
			c := u.tbConnects("d1", token, "fw")
			c.info("pump", "0.9.0", "IDLE")
			return func(version string) {
				c.next("v1/devices/me/attributes")
				c.info("pump", "0.9.0", "UPDATING")
				u.becomes("d1", rollout.Installing)
				c.info("pump", version, "UPDATED")
			}
		}, versions: "0.9.0"},
		"DDI's attributes": {open: func(u *updating, token string) func(string) {
			u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"0.9.0"}}`)
			u.ddi(token, http.MethodGet, "", "")
			return func(version string) {
				u.becomes("d1", rollout.Offered)
				u.ddi(token, http.MethodPost, fmt.Sprintf("deploymentBase/%d/feedback", u.row("d1").Action), `{"status":{"execution":"closed","result":{"finished":"success"}}}`)
				u.ddi(token, http.MethodPut, "configData", `{"data":{"fw":"`+version+`"}}`)
			}
		}, versions: "0.9.0"},
		"DDI's word": {set: func(c *server.Config) { c.DDI.Confirm = ddi.ByDDI }, open: func(u *updating, token string) func(string) {
			u.ddi(token, http.MethodGet, "", "")
			return func(string) {
				u.becomes("d1", rollout.Offered)
				u.ddi(token, http.MethodPost, fmt.Sprintf("deploymentBase/%d/feedback", u.row("d1").Action), `{"status":{"execution":"closed","result":{"finished":"success"}}}`)
			}
		}},
	}
}

// ddi sends what a client of hawkBit's does.
func (u *updating) ddi(token, method, rest, body string) {
	u.t.Helper()
	url := "http://" + u.HTTPAddr() + "/default/controller/v1/d1"
	if rest != "" {
		url += "/" + rest
	}
	if status, _, text := ddiCall(u.t, method, url, "TargetToken "+token, body); status != http.StatusOK {
		u.t.Errorf("%s %s is answered %d %s", method, rest, status, text)
	}
}

// runs is the version that GET /devices/d1/firmware shows.
func (u *updating) runs() string {
	u.t.Helper()
	_, _, body := ddiCall(u.t, http.MethodGet, "http://"+u.HTTPAddr()+"/api/v1/devices/d1/firmware", "Bearer "+servertest.AdminKey, "")
	var got struct{ Version string }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		u.t.Fatalf("%s: %v", body, err)
	}
	return got.Version
}

// wantsRuns waits until that is a version.
func (u *updating) wantsRuns(version string) {
	u.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(soon); u.runs() != version; {
		select {
		case <-tick.C:
		case <-end:
			u.t.Fatalf("the device runs %q, want %q", u.runs(), version)
		}
	}
}

// TestTheVersionThatADeviceConfirmsIsItsOwnByEachDoor has a device install a release, and be asked then for
// the same release once more, and for the one before.
func TestTheVersionThatADeviceConfirmsIsItsOwnByEachDoor(t *testing.T) {
	t.Parallel()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for name, d := range doors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := &updating{t: t, image: imageOf(5_000), ids: []string{"d1"}, rollout: "first", soak: time.Millisecond, retry: time.Hour}
			u.Server = servertest.Start(t, func(c *server.Config) {
				c.PresenceGrace = -1
				c.DDI.Idle, c.DDI.Busy, c.DDI.Reboot = time.Second, time.Second, time.Nanosecond
				if d.set != nil {
					d.set(c)
				}
			})
			u.publish("app", "1.0.0")
			old := u.release
			u.publish("app", "2.0.0")
			fresh := u.release
			installed := d.open(u, u.create()["d1"])
			u.wantsRuns(d.versions)

			u.begin()
			installed("2.0.0")
			u.becomes("d1", rollout.Confirmed)
			u.wantsRuns("2.0.0")

			u.rollout, u.release = "again", fresh
			u.begin()
			u.becomes("d1", rollout.Skipped)
			if got := u.row("d1").Reason; got != rollout.AlreadyInstalled {
				t.Errorf("the same release again is skipped as %s", got)
			}

			u.rollout, u.release, u.downgrade = "back", old, true
			u.begin()
			installed("1.0.0")
			u.becomes("d1", rollout.Confirmed)
			if d := u.row("d1"); d.From != "2.0.0" {
				t.Errorf("the release before was offered to a device that had %q", d.From)
			}
			u.wantsRuns("1.0.0")
		})
	}
}
