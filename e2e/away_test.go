package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"

	"muster/server"
	"muster/server/servertest"
)

// inside is a server in this process, whose clock the test moves.
func inside(t *testing.T, args []string) (m *muster, ahead *atomic.Int64) {
	t.Helper()
	ahead = new(atomic.Int64)
	s := servertest.Start(t, func(c *server.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		if len(args) == 2 {
			c.DatabaseURL = args[1]
		}
	})
	return &muster{t: t, http: s.HTTPAddr(), mqtt: s.MQTTAddr(), key: servertest.AdminKey}, ahead
}

// dayPasses moves the clock, and returns when the broker has seen it: it ends then the
// connection of one who has said nothing for so long.
func (m *muster) dayPasses(ahead *atomic.Int64) {
	m.t.Helper()
	w, err := dialWire(m.t.Context(), m.mqtt, 4)
	if err != nil {
		m.t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.connect("witness", m.key, false); err != nil {
		m.t.Fatal(err)
	}
	if _, err := w.Write([]byte{0xc0, 0}); err != nil { // once a ping is answered nothing of CONNECT is noted by the clock any more
		m.t.Fatal(err)
	}
	if head, _, err := w.packet(); err != nil || head != 0xd0 {
		m.t.Fatalf("a ping is answered %#x, %v", head, err)
	}
	ahead.Add(int64(24 * time.Hour))
	if err := w.SetDeadline(time.Now().Add(clientLimit)); err != nil {
		m.t.Fatal(err)
	}
	if head, _, err := w.packet(); err == nil || timedOut(err) {
		m.t.Fatalf("the clock is not looked at: %#x %v", head, err)
	}
}

// returner is a device of MQTT 5 that comes and goes.
type returner struct {
	m         *muster
	id, token string
	keep      bool // its session
	c         *paho5.Client
	heard     chan message
	present   bool // the session was there
}

func (d *returner) come() {
	t := d.m.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	w, err := dialWire(ctx, d.m.mqtt, 5)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan message, 100)
	d.heard = heard
	d.c = paho5.NewClient(paho5.ClientConfig{Conn: w.Conn, OnPublishReceived: []func(paho5.PublishReceived) (bool, error){
		func(p paho5.PublishReceived) (bool, error) {
			heard <- message{p.Packet.Topic, string(p.Packet.Payload), p.Packet.QoS, p.Packet.Retain}
			return true, nil
		},
	}})
	connect := &paho5.Connect{ClientID: d.id, CleanStart: !d.keep, KeepAlive: 30, Username: d.token, UsernameFlag: true, Properties: &paho5.ConnectProperties{}}
	if d.keep {
		week := uint32(7 * 24 * 3600)
		connect.Properties.SessionExpiryInterval = &week
	}
	got, err := d.c.Connect(ctx, connect)
	if err != nil {
		t.Fatalf("connect %s: %v", d.id, err)
	}
	if d.present = got.SessionPresent; d.present {
		return // and so is the subscription
	}
	ack, err := d.c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "devices/me/desired", QoS: 1}}})
	if err != nil || ack.Reasons[0] != 1 {
		t.Fatalf("subscribe: %v %v", ack, err)
	}
}

func (d *returner) leave() {
	d.m.t.Helper()
	if err := d.c.Disconnect(&paho5.Disconnect{}); err != nil {
		d.m.t.Errorf("disconnect: %v", err)
	}
	<-d.c.Done()
}

func (d *returner) report(state string) {
	d.m.t.Helper()
	ctx, cancel := context.WithTimeout(d.m.t.Context(), clientLimit)
	defer cancel()
	if _, err := d.c.Publish(ctx, &paho5.Publish{Topic: "devices/me/reported", Payload: []byte(state), QoS: 1}); err != nil {
		d.m.t.Fatalf("report: %v", err)
	}
}

// told wants the next message to be that document, and returns its version.
func (d *returner) told(state string) (version int64) {
	d.m.t.Helper()
	got := nextOf(d.m.t, d.heard)
	var doc struct {
		Version int64
		State   json.RawMessage
	}
	if err := json.Unmarshal([]byte(got.payload), &doc); err != nil || got.topic != "devices/me/desired" || string(doc.State) != state {
		d.m.t.Fatalf("%s heard %s, want %s", d.id, got, state)
	}
	return doc.Version
}

// toldNothing wants nothing more to have been sent: what the device sends itself over
// another topic comes behind it.
func (d *returner) toldNothing() {
	d.m.t.Helper()
	ctx, cancel := context.WithTimeout(d.m.t.Context(), clientLimit)
	defer cancel()
	_, err := d.c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "devices/me/errors", QoS: 1}}})
	if err != nil {
		d.m.t.Fatalf("subscribe: %v", err)
	}
	if n := len(d.heard); n > 0 {
		d.m.t.Fatalf("%s was told %d messages more, the first is %s", d.id, n, <-d.heard)
	}
}

// finds is which devices match a query.
func (m *muster) finds(q string) string {
	m.t.Helper()
	var page struct{ Items []struct{ ID string } }
	m.ask(http.MethodGet, "/api/v1/devices?sort=id&q="+url.QueryEscape(q), nil, http.StatusOK, &page)
	out := []string{}
	for _, i := range page.Items {
		out = append(out, i.ID)
	}
	return fmt.Sprint(out)
}

// patch changes a desired document, if it matches.
func (m *muster) patch(path, ifMatch, doc string) (status int, version int64) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+m.http+"/api/v1"+path+"/desired", bytes.NewBufferString(doc))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	req.Header.Set("Content-Type", "application/merge-patch+json")
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	var got struct{ Version int64 }
	if err := json.Unmarshal(raw, &got); err != nil {
		m.t.Fatalf("patch %s answers %d: %s", path, resp.StatusCode, raw)
	}
	return resp.StatusCode, got.Version
}

func (m *muster) patched(path, doc string) (version int64) {
	m.t.Helper()
	status, version := m.patch(path, "", doc)
	if status != http.StatusOK {
		m.t.Fatalf("patch %s: %d", path, status)
	}
	return version
}

// TestATwinConvergesAfterThreeDaysOffline changes what two devices are wanted to be at
// every level while they are away: each is told once, the newest.
func TestATwinConvergesAfterThreeDaysOffline(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m, ahead := inside(t, args)
			m.ask(http.MethodPut, "/api/v1/profiles/meter", map[string]any{}, http.StatusOK, nil)
			m.ask(http.MethodPut, "/api/v1/groups/cold", map[string]any{}, http.StatusOK, nil)
			var both []*returner
			for _, id := range []string{"clean", "kept"} {
				var made struct{ Credential credential }
				m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": id, "credential": "token", "profile": "meter", "groups": []string{"cold"}}, http.StatusCreated, &made)
				both = append(both, &returner{m: m, id: id, token: made.Credential.Token, keep: id == "kept"})
			}
			first := m.patched("/profiles/meter", `{"every":60}`)
			for _, d := range both {
				d.come()
				if v := d.told(`{"every":60}`); v != first {
					t.Errorf("%s is told version %d, want %d", d.id, v, first)
				}
				d.report(`{"every":60,"fw_version":"1"}`)
				d.leave()
			}
			if got := m.finds("converged=true"); got != "[clean kept]" {
				t.Fatalf("converged are %s", got)
			}
			versions := changedWhileAway(t, m, ahead)
			if got := m.finds("converged=false seen>2d diverged:every status=offline"); got != "[clean kept]" {
				t.Errorf("after three days the query finds %s; of all devices %s are not converged, %s offline", got, m.finds("converged=false"), m.finds("status=offline"))
			}
			for _, d := range both {
				comesBack(t, d, versions[d.id])
			}
			if got := m.finds("converged=false"); got != "[]" {
				t.Errorf("when they have reported, %s are not converged", got)
			}
			if got := m.finds("converged=true twin.reported.every=5"); got != "[clean kept]" {
				t.Errorf("when they have reported, the query finds %s", got)
			}
			for _, d := range both {
				d.leave()
			}
		})
	}
}

// changedWhileAway lets three days pass, and returns the newest version of each device.
func changedWhileAway(t *testing.T, m *muster, ahead *atomic.Int64) map[string]int64 {
	t.Helper()
	m.dayPasses(ahead)
	m.patched("/fleet", `{"mode":"eco","every":900}`)
	m.patched("/profiles/meter", `{"every":30}`)
	m.dayPasses(ahead)
	m.patched("/groups/cold", `{"every":10,"net":{"ssid":"a"}}`)
	m.patched("/profiles/meter", `{"every":20}`) // which the group overrides
	m.dayPasses(ahead)
	out := map[string]int64{}
	for _, id := range []string{"clean", "kept"} {
		seen := m.patched("/devices/"+id, `{"every":6}`)
		old := fmt.Sprintf("%q", fmt.Sprint(seen))
		status, v := m.patch("/devices/"+id, old, `{"every":5}`)
		if out[id] = v; status != http.StatusOK || v <= seen {
			t.Errorf("a change of what was seen answers %d, version %d after %d", status, v, seen)
		}
		if status, _ := m.patch("/devices/"+id, old, `{"every":4}`); status != http.StatusPreconditionFailed {
			t.Errorf("a change of an old version answers %d, want 412", status)
		}
	}
	return out
}

func comesBack(t *testing.T, d *returner, version int64) {
	t.Helper()
	const want = `{"every":5,"mode":"eco","net":{"ssid":"a"}}`
	d.come()
	if d.present != d.keep {
		t.Errorf("the session of %s was there: %v", d.id, d.present)
	}
	if v := d.told(want); v != version {
		t.Errorf("%s is told version %d, want %d", d.id, v, version)
	}
	d.toldNothing()
	d.report(`{"every":5,"mode":"eco"}`)
	if got := d.m.finds("converged=false diverged:net.ssid id=" + d.id); got != "["+d.id+"]" {
		t.Errorf("with half a report the query finds %s", got)
	}
	d.report(`{"net":{"ssid":"a"}}`)
	d.toldNothing()
}
