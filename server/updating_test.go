package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices/query"
	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
)

// toldPlaces is what is said of a device's status: by place.
type toldPlaces map[string]string

// gets reads an answer of the API.
func (u *updating) gets(path string, into any) string {
	u.t.Helper()
	status, _, text := ddiCall(u.t, http.MethodGet, "http://"+u.HTTPAddr()+"/api/v1"+path, "Bearer "+servertest.AdminKey, "")
	if status != http.StatusOK {
		u.t.Fatalf("%s is answered %d %s", path, status, text)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			u.t.Fatal(err)
		}
	}
	return text
}

// counted returns the names of what is counted at least once.
func counted(counts map[string]int) string {
	maps.DeleteFunc(counts, func(_ string, n int) bool { return n == 0 })
	return strings.Join(slices.Sorted(maps.Keys(counts)), " ")
}

// told asks every place where the status of d1, the only device, is told: the socket once the API says status.
func (u *updating) told(k *socket, status string) toldPlaces {
	u.t.Helper()
	out := toldPlaces{}
	var d struct{ Status string }
	u.gets("/devices/d1", &d)
	out["device"] = d.Status
	var list struct{ Items []struct{ Status string } }
	u.gets("/devices", &list)
	out["list"] = list.Items[0].Status
	var fleet struct{ Counts map[string]int }
	u.gets("/fleet", &fleet)
	out["fleet"] = counted(fleet.Counts)
	var facets struct {
		Items []struct{ Values []struct{ Value string } }
	}
	u.gets("/devices:facets?fields=status", &facets)
	for _, v := range facets.Items[0].Values {
		if v.Value != query.Silent {
			out["facets"] += v.Value
		}
	}
	out["csv"] = strings.TrimSpace(strings.TrimPrefix(u.gets("/devices:export?format=csv&columns=status", nil), "status"))
	u.asked(out)
	if out["device"] != status || out["sql"] != status { // presence is written some seconds later
		return out // the socket takes some commands a second
	}
	out["row"] = k.shown(u.t, "devices", `,"q":"","limit":10`, "status")
	out["page"] = k.shown(u.t, "device:d1", "", "status")
	return out
}

// asked puts in which statuses find d1: in the API's memory, and in the store's own SQL.
func (u *updating) asked(out toldPlaces) {
	u.t.Helper()
	for _, s := range muster.Statuses() {
		var found struct{ Items []struct{ ID string } }
		u.gets("/devices?q=status:"+string(s), &found)
		if len(found.Items) > 0 {
			out["query"] += string(s)
		}
		e, err := query.Parse("status:" + string(s))
		if err != nil {
			u.t.Fatal(err)
		}
		n, err := u.ControlForTest().CountDevices(u.t.Context(), e, muster.MicrosOf(time.Now()))
		if err != nil {
			u.t.Fatal(err)
		}
		if n > 0 {
			out["sql"] += string(s)
		}
	}
}

// shown subscribes to a channel, and returns a member of the first item of its snapshot.
func (k *socket) shown(t *testing.T, channel, more, member string) string {
	t.Helper()
	f := k.ask(t, channel, more)
	item, _ := f["item"].(map[string]any)
	if items, ok := f["items"].([]any); ok {
		item, _ = items[0].(map[string]any)
	}
	if err := k.say(fmt.Sprintf(`{"t":"unsub","ch":%q}`, channel)); err != nil {
		t.Fatal(err)
	}
	s, _ := item[member].(string)
	return s
}

// everywhere waits until each place says a status.
func (u *updating) everywhere(status, when string) {
	u.t.Helper()
	k := mustSocket(u.t, u.Server, servertest.AdminKey)
	defer func() { _ = k.conn.Close() }()
	want := toldPlaces{}
	for _, place := range []string{"device", "list", "fleet", "facets", "csv", "query", "sql", "row", "page"} {
		want[place] = status
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(soon); ; {
		diff := cmp.Diff(want, u.told(k, status))
		if diff == "" {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			u.t.Fatalf("%s not everything says %s: %s", when, status, diff)
		}
	}
}

func TestWhatUpdatesIsToldTheSameEverywhere(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for _, engine := range []string{"sqlite", "MUSTER_TEST_TIMESCALE"} {
		t.Run(strings.ToLower(strings.TrimPrefix(engine, "MUSTER_TEST_")), func(t *testing.T) {
			url := ""
			if engine != "sqlite" {
				url, _ = database(t, engine)
			}
			u := &updating{t: t, image: imageOf(5_000), ids: []string{"d1"}, rollout: "r1", soak: time.Millisecond, retry: time.Millisecond}
			u.Server = servertest.Start(t, func(c *server.Config) { c.PresenceGrace, c.DatabaseURL = -1, url })
			token := u.fill("app")["d1"]
			u.everywhere("never", "before it came")
			c := u.client5("d1", token)
			u.everywhere("online", "before the offer")
			u.begin(func(p *rollout.Plan) { p.Phases[0].Failure = rollout.Threshold{Absolute: 100} })
			o := c.offer(u.OfferKeyForTest())
			u.everywhere("online", "with an offer that it did not take yet")
			c.reports(&o, 1, "downloading", "")
			u.everywhere("updating", "while it downloads")
			c.reports(&o, 2, "installing", "")
			u.everywhere("updating", "while it installs")
			c.reports(&o, 3, "failed", "")
			u.becomes("d1", rollout.Queued)
			u.everywhere("online", "after it failed")
			o = c.offer(u.OfferKeyForTest())
			c.reports(&o, 1, "installing", "")
			u.everywhere("updating", "at its second attempt")
			c.leave()
			u.everywhere("offline", "while it restarts")
			c = u.client5("d1", token)
			u.everywhere("updating", "when it is back")
			if code := c.say("devices/me/reported", `{"firmware":{"version":"2.0.0"}}`); code > 0x10 {
				t.Fatalf("reported: %#x", code)
			}
			u.becomes("d1", rollout.Confirmed)
			u.everywhere("online", "after it was confirmed")
		})
	}
}

// An aborted rollout is over at once for who only downloads.
func TestWhoseRolloutWasAbortedUpdatesNoMore(t *testing.T) {
	u, tokens := startUpdating(t, "app", 5_000, "d1")
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	c.reports(&o, 1, "downloading", "")
	u.everywhere("updating", "while it downloads")
	u.stop(rollout.Aborted)
	u.becomes("d1", rollout.Canceled)
	u.everywhere("online", "after the rollout was aborted")
}
