package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"muster/api"
	"muster/server"
	"muster/server/servertest"
)

// as sends a request with a key and returns the answer.
func as(t *testing.T, s *server.Server, key, method, path string, body any) (status int, answer []byte) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTPAddr()+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// names follows the pages of the list of clients.
func names(t *testing.T, s *server.Server, key, query string) (names []string) {
	t.Helper()
	after := ""
	for range 50 {
		status, answer := as(t, s, key, http.MethodGet, "/api/v1/clients?"+query+after, nil)
		var l struct {
			Items []api.Client
			Next  string
		}
		if err := json.Unmarshal(answer, &l); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s %v", status, answer, err)
		}
		for _, c := range l.Items {
			names = append(names, fmt.Sprintf("%s%s/%s", c.Device, c.Account, c.ClientID))
		}
		if l.Next == "" {
			return names
		}
		after = "&after=" + url.QueryEscape(l.Next)
	}
	t.Fatal("the list does not end")
	return nil
}

func madeKey(t *testing.T, s *server.Server, scopes ...string) string {
	t.Helper()
	var made struct{ Secret string }
	call(t, s, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": scopes}, &made)
	return made.Secret
}

func TestTheAPIListsAndCutsLiveClients(t *testing.T) {
	s := servertest.Start(t)
	first, second := create(t, s, "dev-1"), create(t, s, "dev-2")
	reader, writer := madeKey(t, s, "devices:read"), madeKey(t, s, "devices:write")
	one, other := dial(t, s, "one", first, ""), dial(t, s, "other", first, "")
	two := dial(t, s, "two", second, "")
	dial(t, s, "admin-1", servertest.AdminKey, "")
	admin := dial(t, s, "admin-2", servertest.AdminKey, "")

	accounts := names(t, s, servertest.AdminKey, "q=admin-")
	account, _, _ := strings.Cut(accounts[1], "/")
	if len(accounts) != 2 || !strings.HasPrefix(account, "MUSTER_ADMIN_KEY") {
		t.Fatalf("an admin finds %v", accounts)
	}
	devices := []string{"dev-1/one", "dev-1/other", "dev-2/two"}
	for _, limit := range []string{"limit=1", "limit=2", "limit=3", ""} {
		if d := cmp.Diff(slices.Concat(accounts, devices), names(t, s, servertest.AdminKey, limit)); d != "" {
			t.Errorf("an admin sees by %s: %s", limit, d)
		}
		if d := cmp.Diff(devices, names(t, s, reader, limit)); d != "" {
			t.Errorf("a reader sees by %s: %s", limit, d)
		}
	}
	if got := names(t, s, reader, "q=admin"); got != nil {
		t.Errorf("a reader finds %v", got)
	}
	if d := cmp.Diff(devices[:2], names(t, s, reader, "device=dev-1&sort=received&limit=1")); d != "" {
		t.Error(d)
	}

	kick := func(key string, want int, body map[string]string) {
		t.Helper()
		if status, answer := as(t, s, key, http.MethodPost, "/api/v1/clients:kick", body); status != want {
			t.Errorf("%v gives %d %s, want %d", body, status, answer, want)
		}
	}
	kick(writer, http.StatusForbidden, map[string]string{"account": account, "client_id": "admin-2"})
	kick(reader, http.StatusForbidden, map[string]string{"device": "dev-1", "client_id": "one"})
	kick(writer, http.StatusNotFound, map[string]string{"device": "dev-1", "client_id": "two"})
	since := time.Now()
	kick(writer, http.StatusNoContent, map[string]string{"device": "dev-1", "client_id": "one"})
	one.wantCut(t, since)
	since = time.Now()
	kick(servertest.AdminKey, http.StatusNoContent, map[string]string{"account": account, "client_id": "admin-2"})
	admin.wantCut(t, since)
	other.wantLive(t)
	two.wantLive(t)
}

func TestWhatADeviceHasLostIsVisibleOnIt(t *testing.T) {
	s := servertest.Start(t, func(c *server.Config) { c.MQTT.MaxQueued = 2 })
	token := create(t, s, "d")
	o := mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetUsername(token).SetClientID("keeper").SetCleanSession(false)
	c := mqtt.NewClient(o)
	for _, do := range []func() mqtt.Token{c.Connect, func() mqtt.Token { return c.Subscribe("devices/me/commands/+", 1, nil) }} {
		if tok := do(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("connect and subscribe: %v", tok.Error())
		}
	}
	c.Disconnect(100)
	admin := dial(t, s, "admin", servertest.AdminKey, "")
	waitAway(t, s)
	for i := range 5 {
		if tok := admin.Publish(fmt.Sprintf("devices/d/commands/%d", i), 1, false, "x"); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatalf("publish: %v", tok.Error())
		}
	}
	var d struct{ MQTT api.DeviceSessions }
	call(t, s, http.MethodGet, "/api/v1/devices/d", nil, &d)
	if d.MQTT.Backlog <= 2*len("devices/d/commands/0x") {
		t.Errorf("the backlog is %d bytes", d.MQTT.Backlog)
	}
	d.MQTT.Backlog = 0
	if diff := cmp.Diff(api.DeviceSessions{Sessions: 1, Queued: 2, Dropped: 3}, d.MQTT); diff != "" {
		t.Error(diff)
	}
}

// waitAway waits until the broker has seen that a client is gone.
func waitAway(t *testing.T, s *server.Server) {
	t.Helper()
	end := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var l struct{ Items []api.Client }
		call(t, s, http.MethodGet, "/api/v1/clients?q=keeper", nil, &l)
		if len(l.Items) == 1 && !l.Items[0].Connected {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the client does not go")
		}
	}
}
