package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster"
	"muster/firmware/rollout"
	"muster/firmware/talk"
	"muster/server"
	"muster/server/servertest"
)

// heardIt is a message that a device got.
type heardIt struct {
	topic       string
	payload     []byte
	correlation string
	sha256      string
}

// firmwareClient is a device, of MQTT 3.1.1 or 5.
type firmwareClient struct {
	t     *testing.T
	id    string
	say   func(topic string, payload string) byte // the reason code; 0 with 3.1.1
	got   chan heardIt
	leave func()
	late  []heardIt // heard while another was waited for
}

func (u *updating) client5(id, token string) *firmwareClient {
	w := talks(u.t, u.Server, id, token, "")
	c := &firmwareClient{t: u.t, id: id, got: make(chan heardIt, 1000), leave: func() { _ = w.Disconnect(&paho5.Disconnect{}) }}
	w.AddOnPublishReceived(func(p paho5.PublishReceived) (bool, error) {
		m := heardIt{topic: p.Packet.Topic, payload: p.Packet.Payload}
		if p.Packet.Properties != nil {
			m.correlation, m.sha256 = string(p.Packet.Properties.CorrelationData), p.Packet.Properties.User.Get("sha256")
		}
		<-w.got
		c.got <- m
		return true, nil
	})
	c.say = func(topic, payload string) byte {
		ctx, cancel := context.WithTimeout(u.t.Context(), soon)
		defer cancel()
		res, err := w.Publish(ctx, &paho5.Publish{Topic: topic, QoS: 1, Payload: []byte(payload), Properties: &paho5.PublishProperties{CorrelationData: []byte("c7")}})
		if res == nil {
			u.t.Errorf("%s: %v", topic, err)
			return 0xff
		}
		return res.ReasonCode
	}
	for _, f := range []string{"devices/me/firmware/data/+", "devices/me/firmware/error", "devices/me/firmware/cancel", "devices/me/errors", "devices/me/firmware"} {
		if code := w.listens(f); code > 2 {
			u.t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	return c
}

func (u *updating) client3(id, token string) *firmwareClient {
	c := &firmwareClient{t: u.t, id: id, got: make(chan heardIt, 1000)}
	raw := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + u.MQTTAddr()).SetUsername(token).SetClientID(id).SetAutoReconnect(false).SetProtocolVersion(4))
	if tok := raw.Connect(); !tok.WaitTimeout(soon) || tok.Error() != nil {
		u.t.Fatalf("connect: %v", tok.Error())
	}
	c.leave = func() { raw.Disconnect(50) }
	u.t.Cleanup(c.leave)
	c.say = func(topic, payload string) byte {
		if tok := raw.Publish(topic, 1, false, payload); !tok.WaitTimeout(soon) || tok.Error() != nil {
			u.t.Errorf("%s: %v", topic, tok.Error())
		}
		return 0
	}
	for _, f := range []string{"devices/me/firmware/#", "devices/me/errors"} {
		tok := raw.Subscribe(f, 1, func(_ mqtt.Client, m mqtt.Message) { c.got <- heardIt{topic: m.Topic(), payload: m.Payload()} })
		if !tok.WaitTimeout(soon) || tok.Error() != nil {
			u.t.Fatalf("subscribe: %v", tok.Error())
		}
	}
	return c
}

// hears returns the next message at a topic behind devices/me/; with a / at its end, below it.
func (c *firmwareClient) hears(rest string) heardIt {
	c.t.Helper()
	is := func(m heardIt) bool {
		return m.topic == "devices/me/"+rest || strings.HasSuffix(rest, "/") && strings.HasPrefix(m.topic, "devices/me/"+rest)
	}
	for i, m := range c.late {
		if is(m) {
			c.late = append(c.late[:i], c.late[i+1:]...)
			return m
		}
	}
	for end := time.After(soon); ; {
		select {
		case m := <-c.got:
			if is(m) {
				return m
			}
			c.late = append(c.late, m)
		case <-end:
			c.t.Fatalf("%s hears nothing at %s", c.id, rest)
		}
	}
}

// offer returns the next offer, verified as a device does.
func (c *firmwareClient) offer(key ed25519.PublicKey) talk.Offer {
	c.t.Helper()
	var o talk.Offer
	if err := json.Unmarshal(c.hears("firmware").payload, &o); err != nil {
		c.t.Fatal(err)
	}
	if _, err := o.Verify(key, muster.DeviceID(c.id), time.Now()); err != nil {
		c.t.Fatal(err)
	}
	return o
}

// fetch gets a part of the image, in pieces of n bytes, four asked for at a time.
func (c *firmwareClient) fetch(o *talk.Offer, from, to int64, n int) []byte {
	c.t.Helper()
	var image []byte
	for off := from; off < to; {
		c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":%d,"len":%d,"n":4}`, o.Action, off, n))
		for i := 0; i < 4 && off < to; i++ {
			m := c.hears("firmware/data/" + strconv.FormatInt(off, 10))
			image = append(image, m.payload...)
			off += int64(len(m.payload))
		}
	}
	return image
}

func (c *firmwareClient) reports(o *talk.Offer, seq int, state, more string) byte {
	c.t.Helper()
	return c.say("devices/me/firmware/status", fmt.Sprintf(`{"action":%d,"attempt":%d,"seq":%d,"state":%q%s}`, o.Action, o.Attempt, seq, state, more))
}

func versionsOf(t *testing.T, f func(t *testing.T, client func(u *updating, id, token string) *firmwareClient, five bool)) {
	t.Run("MQTT 3.1.1", func(t *testing.T) { f(t, (*updating).client3, false) })
	t.Run("MQTT 5", func(t *testing.T) { f(t, (*updating).client5, true) })
}

func TestAWholeUpdateOverMQTTGoesOnAtAnyOffsetAfterACut(t *testing.T) {
	versionsOf(t, func(t *testing.T, client func(u *updating, id, token string) *firmwareClient, five bool) {
		u, tokens := startUpdating(t, "app", 300_001, "d1")
		c := client(u, "d1", tokens["d1"])
		u.begin()
		o := c.offer(u.OfferKeyForTest())
		if o.State != "offered" || o.Files[0].Size != int64(len(u.image)) || o.Chunks.MaxLen != 65536 {
			t.Errorf("offered: %+v", o)
		}
		c.reports(&o, 1, "downloading", `,"progress":1`)
		half := c.fetch(&o, 0, 133_333, 10_007)
		c.leave()

		c = client(u, "d1", tokens["d1"])
		again := c.offer(u.OfferKeyForTest())
		if again.Action != o.Action || again.Attempt != o.Attempt || again.State != "downloading" {
			t.Errorf("offered again: %+v", again)
		}
		rest := c.fetch(&o, int64(len(half)), int64(len(u.image)), 65_536)
		if !bytes.Equal(append(half, rest...), u.image) {
			t.Fatalf("%d and %d bytes are not the image", len(half), len(rest))
		}
		for i, state := range []string{"downloaded", "installing", "rebooting"} {
			if code := c.reports(&o, 2+i, state, ""); code != 0 {
				t.Errorf("%s: %#x", state, code)
			}
		}
		u.is("d1", rollout.Rebooting)
		if code := c.reports(&o, 4, "rebooting", ""); code != 0 { // its acknowledgement was lost
			t.Errorf("the same report again: %#x", code)
		}
		c.reports(&o, 5, "running", `,"version":"2.0.0"`)
		if d := u.row("d1"); d.State != rollout.Rebooting || !d.Soaking {
			t.Errorf("%+v", d)
		}
		if five {
			c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":256}`, o.Action))
			if m := c.hears("firmware/data/0"); m.correlation != "c7" || m.sha256 != o.Files[0].SHA256 {
				t.Errorf("correlation %q, sha256 %q", m.correlation, m.sha256)
			}
		}
	})
}

func TestAnOfferThatIsTakenBackIsToldUntilTheDeviceHasAnswered(t *testing.T) {
	t.Parallel()
	versionsOf(t, func(t *testing.T, client func(u *updating, id, token string) *firmwareClient, _ bool) {
		u, tokens := startUpdating(t, "app", 9_000, "d1")
		c := client(u, "d1", tokens["d1"])
		u.begin()
		o := c.offer(u.OfferKeyForTest())
		c.reports(&o, 1, "downloading", "")
		u.stop(rollout.Paused)
		want := fmt.Sprintf(`{"action":%d,"attempt":1}`, o.Action)
		if m := c.hears("firmware/cancel"); string(m.payload) != want {
			t.Errorf("taken back: %s, want %s", m.payload, want)
		}
		c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":4096}`, o.Action))
		if m := c.hears("firmware/error"); !strings.Contains(string(m.payload), `"code":"no_action"`) {
			t.Errorf("pieces of what was taken back: %s", m.payload)
		}
		c.leave()
		c = client(u, "d1", tokens["d1"])
		if m := c.hears("firmware/cancel"); string(m.payload) != want {
			t.Errorf("told again: %s", m.payload)
		}
		if code := c.say("devices/me/firmware/cancel/ack", fmt.Sprintf(`{"action":%d,"stopped":true}`, o.Action)); code != 0 {
			t.Errorf("answered: %#x", code)
		}
		if last, err := u.ControlForTest().LastAction(t.Context(), "d1"); err != nil || last.Closed != o.Action {
			t.Errorf("%+v, %v", last, err)
		}
		u.is("d1", rollout.Queued)
	})
}

func TestADeviceThatGoesOnAfterItWasToldToStopIsFollowedAndTakenBack(t *testing.T) {
	u := &updating{t: t, image: imageOf(9_000), ids: []string{"d1"}, rollout: "r1", soak: time.Millisecond, retry: time.Hour}
	u.Server = servertest.Start(t, func(c *server.Config) { c.PresenceGrace = -1 })
	u.publish("app", "1.0.0")
	old := u.release
	u.publish("app", "2.0.0")
	c := u.client5("d1", u.create()["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	c.reports(&o, 1, "downloading", "")
	u.stop(rollout.Aborted)
	c.hears("firmware/cancel")
	u.becomes("d1", rollout.Canceled)
	if code := c.say("devices/me/firmware/cancel/ack", fmt.Sprintf(`{"action":%d,"stopped":false}`, o.Action)); code != 0 {
		t.Errorf("answered: %#x", code)
	}
	if d := u.row("d1"); d.Late != rollout.LateInstalling || d.State != rollout.Canceled {
		t.Errorf("it goes on, and is %s, late %q", d.State, d.Late)
	}

	// A rollback begins before the device is through.
	u.rollout, u.release = "back", old
	u.beginOf("r1")
	if code := c.reports(&o, 2, "rebooting", ""); code != 0 {
		t.Errorf("it restarts: %#x", code)
	}
	if code := c.reports(&o, 3, "running", `,"version":"2.0.0"`); code != 0 {
		t.Errorf("it runs: %#x", code)
	}
	back := c.offer(u.OfferKeyForTest())
	if back.Rollout != "back" {
		t.Errorf("it is offered %s of %s", back.Rollout, u.release)
	}
	u.rollout = "r1"
	if d := u.row("d1"); d.Late != rollout.LateInstalled {
		t.Errorf("it is late %q", d.Late)
	}
}

func TestWhatADeviceMayNotSayIsRefusedInWords(t *testing.T) {
	u, tokens := startUpdating(t, "app", 5_000, "d1", "d2")
	one, other := u.client5("d1", tokens["d1"]), u.client5("d2", tokens["d2"])
	u.begin()
	o, theirs := one.offer(u.OfferKeyForTest()), other.offer(u.OfferKeyForTest())
	if _, err := theirs.Verify(u.OfferKeyForTest(), "d1", time.Now()); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("another device's offer: %v", err)
	}
	theirs.Device = "d1"
	if _, err := theirs.Verify(u.OfferKeyForTest(), "d1", time.Now()); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("another device's offer, with its name changed: %v", err)
	}
	if _, err := o.Verify(u.OfferKeyForTest(), "d1", time.Now().Add(25*time.Hour)); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("an old offer: %v", err)
	}
	for name, c := range map[string]struct {
		topic, payload string
		code           byte
	}{
		"a report of a foreign action":         {"status", `{"action":999999,"seq":9,"state":"downloading"}`, 0x99},
		"a report that is no JSON":             {"status", `downloading`, 0x99},
		"a report of a state there is none of": {"status", fmt.Sprintf(`{"action":%d,"state":"confirmed"}`, o.Action), 0x99},
		"a report with a member twice":         {"status", fmt.Sprintf(`{"action":%d,"action":1,"state":"downloaded"}`, o.Action), 0x99},
		"running without a version":            {"status", fmt.Sprintf(`{"action":%d,"state":"running"}`, o.Action), 0x99},
		"an answer about an action to come":    {"cancel/ack", `{"action":999999}`, 0x99},
		"another device's topic":               {"", "", 0x87},
	} {
		topic := "devices/me/firmware/" + c.topic
		if c.topic == "" {
			topic, c.payload = "devices/d2/firmware/status", fmt.Sprintf(`{"action":%d,"state":"failed"}`, o.Action)
		}
		if code := one.say(topic, c.payload); code != c.code {
			t.Errorf("%s: %#x, want %#x", name, code, c.code)
		}
		if m := one.hears("errors"); !json.Valid(m.payload) {
			t.Errorf("%s: %s", name, m.payload)
		}
	}
	u.is("d1", rollout.Offered)
	for get, code := range map[string]string{
		`{"action":999999,"off":0,"len":4096}`:                             "no_action",
		fmt.Sprintf(`{"action":%d,"off":5000,"len":4096}`, o.Action):       "out_of_range",
		fmt.Sprintf(`{"action":%d,"off":0,"len":4096,"file":1}`, o.Action): "no_file",
		fmt.Sprintf(`{"action":%d,"off":0,"len":65537}`, o.Action):         "malformed",
		fmt.Sprintf(`{"action":%d,"off":0,"len":256,"n":9}`, o.Action):     "malformed",
		fmt.Sprintf(`{"action":%d,"off":-1,"len":256}`, o.Action):          "malformed",
		`{"action":1,"off":0,"len":256,"path":"../../etc/passwd"}`:         "malformed",
		strings.Repeat(" ", 5000):                                          "malformed",
	} {
		one.say("devices/me/firmware/get", get)
		var e struct{ Code, Detail string }
		if err := json.Unmarshal(one.hears("firmware/error").payload, &e); err != nil || e.Code != code || e.Detail == "" {
			t.Errorf("%.60s: %+v, want %s (%v)", get, e, code, err)
		}
	}
	if u.OfferKeyForTest().Equal(ed25519.PublicKey(make([]byte, 32))) {
		t.Error("the key is empty")
	}
}

func TestADeviceThatRunsItsOldVersionHasRolledBack(t *testing.T) {
	u, tokens := startUpdating(t, "app", 5_000, "d1")
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	if code := c.reports(&o, 1, "running", `,"version":"1.9.0"`); code != 0x99 { // before it has begun to install
		t.Errorf("the old version before the update: %#x", code)
	}
	u.is("d1", rollout.Offered)
	c.reports(&o, 2, "installing", "")
	c.reports(&o, 3, "rebooting", "")
	if code := c.reports(&o, 4, "running", `,"version":"1.9.0"`); code != 0 {
		t.Errorf("the old version: %#x", code)
	}
	u.is("d1", rollout.RolledBack)
}

func TestADeviceThatFetchesForEverIsStoppedAtThreeTimesTheSize(t *testing.T) {
	u, tokens := startUpdating(t, "app", 60_000, "d1")
	c := u.client5("d1", tokens["d1"])
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	const most = 3 * 60_000
	got, told := 0, ""
	for tries := 0; tries < 60 && told == ""; tries++ { // a piece that does not come is asked for again, as devices do
		c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":30000,"n":1}`, o.Action))
		select {
		case m := <-c.got:
			switch m.topic {
			case "devices/me/firmware/data/0":
				got += len(m.payload)
			case "devices/me/firmware/error":
				if strings.Contains(string(m.payload), `"code":"budget"`) {
					told = string(m.payload)
				}
			}
		case <-time.After(2 * time.Second):
		}
	}
	if told == "" || got > most || got < most/2 {
		t.Errorf("it got %d bytes of %d, and was told %q", got, most, told)
	}
}

func TestAGatewayFetchesForADeviceBehindIt(t *testing.T) {
	u, tokens := startUpdating(t, "app", 20_000, "gw", "kid")
	call(t, u.Server, "PATCH", "/api/v1/devices/kid", map[string]any{"parent": "gw"}, nil)
	w := talks(t, u.Server, "gw", tokens["gw"], "")
	for _, f := range []string{"devices/+/firmware", "devices/+/firmware/data/+", "devices/+/firmware/error"} {
		if code := w.listens(f); code > 2 {
			t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	w.says("devices/kid/telemetry", `{"t":1}`) // it is there
	u.begin()
	offer := w.hears("devices/kid/firmware")
	if code := w.says("devices/kid/firmware/status", asJSON(t, map[string]any{"action": offer["action"], "state": "downloading"})); code != 0 {
		t.Errorf("its report: %#x", code)
	}
	u.is("kid", rollout.Downloading)
	if code := w.says("devices/kid/firmware/get", asJSON(t, map[string]any{"action": offer["action"], "off": 4096, "len": 4096})); code != 0 {
		t.Errorf("its request: %#x", code)
	}
	for end := time.After(soon); ; {
		select {
		case p := <-w.got:
			if p.Topic != "devices/kid/firmware/data/4096" {
				continue
			}
			if !bytes.Equal(p.Payload, u.image[4096:8192]) {
				t.Error("not the piece")
			}
			return
		case <-end:
			t.Fatal("no piece comes")
		}
	}
}
