package server_test

import (
	"context"
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/server"
	"muster/server/servertest"
)

type object = map[string]any

// talker is a MQTT 5 client that keeps what comes.
type talker struct {
	*paho5.Client
	t   *testing.T
	got chan *paho5.Publish
}

func talks(t *testing.T, s *server.Server, id, user, password string) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", s.BrokerAddr())
	if err != nil {
		t.Fatal(err)
	}
	w := &talker{t: t, got: make(chan *paho5.Publish, 100)}
	w.Client = paho5.NewClient(paho5.ClientConfig{Conn: nc, PacketTimeout: 20 * time.Second, OnPublishReceived: []func(paho5.PublishReceived) (bool, error){
		func(p paho5.PublishReceived) (bool, error) { w.got <- p.Packet; return true, nil },
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := w.Connect(ctx, &paho5.Connect{
		ClientID: id, KeepAlive: 30, CleanStart: true, Username: user, UsernameFlag: true, Password: []byte(password), PasswordFlag: password != "",
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Disconnect(&paho5.Disconnect{}) })
	return w
}

// says publishes with QoS 1 and returns the reason code.
func (w *talker) says(topic, payload string) byte {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	res, err := w.Publish(ctx, &paho5.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)})
	if res == nil {
		w.t.Errorf("%s: %v", topic, err)
		return 0xff
	}
	return res.ReasonCode
}

// listens subscribes and returns the reason code.
func (w *talker) listens(filter string) byte {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	res, err := w.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: filter, QoS: 1}}})
	if res == nil {
		w.t.Fatalf("%s: %v", filter, err)
	}
	return res.Reasons[0]
}

// unlistens unsubscribes and returns the reason code.
func (w *talker) unlistens(filter string) byte {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	res, err := w.Unsubscribe(ctx, &paho5.Unsubscribe{Topics: []string{filter}})
	if res == nil {
		w.t.Fatalf("%s: %v", filter, err)
	}
	return res.Reasons[0]
}

// hears returns the next message at a topic.
func (w *talker) hears(topic string) object {
	w.t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case p := <-w.got:
			if p.Topic != topic {
				continue
			}
			var v object
			if err := json.Unmarshal(p.Payload, &v); err != nil {
				w.t.Fatalf("%s: %v", p.Payload, err)
			}
			return v
		case <-end:
			w.t.Fatalf("nothing came at %s", topic)
		}
	}
}

// coldChain makes the topic, to which devices may publish and pump-7 is subscribed.
func coldChain(t *testing.T, s *server.Server) (token string) {
	t.Helper()
	token = create(t, s, "pump-7")
	call(t, s, "POST", "/api/v1/topics", object{"name": "cold-chain", "visibility": "internal", "ack_policy": "any", "devices": "id:*"}, nil)
	call(t, s, "PUT", "/api/v1/topics/cold-chain/subscriptions/device:pump-7", object{"channels": []object{{"channel": "mqtt"}}}, nil)
	return token
}

// TestTheAsyncAPIDocumentAndTheBrokerAgree does what the document says a device can do, by its own
// examples, and what it does not say.
func TestTheAsyncAPIDocumentAndTheBrokerAgree(t *testing.T) {
	s := servertest.Start(t)
	d := talks(t, s, "pump-7", coldChain(t, s), "")
	var doc struct {
		Channels   map[string]struct{ Address string }
		Operations map[string]struct {
			Action  string
			Channel struct {
				Ref string `json:"$ref"`
			}
		}
		Components struct {
			Messages map[string]struct {
				Payload  struct{ Properties object }
				Examples []struct{ Payload any }
			}
		}
	}
	call(t, s, "GET", "/api/asyncapi.json", nil, &doc)
	up, down := map[string]string{}, map[string]string{}
	for _, op := range doc.Operations {
		name := strings.TrimPrefix(op.Channel.Ref, "#/channels/")
		to := map[string]map[string]string{"receive": up, "send": down}[op.Action]
		if at := doc.Channels[name].Address; strings.HasPrefix(at, "devices/") {
			to[name] = strings.NewReplacer("{id}", "pump-7", "{topic}", "cold-chain", "{type}", "door", "{cid}", "1", "{key}", "a/b", "{offset}", "0", "{nid}", "ntf_x").Replace(at)
		}
	}
	example := func(name string) string {
		m := doc.Components.Messages[name]
		if len(m.Examples) == 0 {
			return ""
		}
		b, err := json.Marshal(m.Examples[0].Payload)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, topic := range down {
		if code := d.listens(topic); code > 2 {
			t.Errorf("%s: subscribing is answered %#x", name, code)
		}
		if code := d.says(topic, example(name)); code != 0x87 {
			t.Errorf("%s: publishing to %s is answered %#x", name, topic, code)
		}
	}
	for name, topic := range up {
		switch name {
		case "commandResult", "notificationAck", "firmwareStatus", "firmwareCancelAck": // the device was never sent what they are about
			if code := d.says(topic, example(name)); code == 0 {
				t.Errorf("%s: an answer to nothing is answered %#x", name, code)
			}
			continue
		}
		if code := d.says(topic, example(name)); code != 0 {
			t.Errorf("%s: publishing %s is answered %#x", name, example(name), code)
		}
	}
	told := d.hears("devices/pump-7/notifications")
	documented := doc.Components.Messages["notification"].Payload.Properties
	for _, k := range slices.Sorted(maps.Keys(told)) {
		if documented[k] == nil {
			t.Errorf("a notification has %s, which the document does not", k)
		}
	}
	if told["title"] != "The door is open" || told["ack"] != true || told["topic"] != "cold-chain" {
		t.Errorf("the device is told %v", told)
	}
	id, _ := told["id"].(string)
	if code := d.says("devices/me/notifications/"+id+"/ack", example("notificationAck")); code != 0 {
		t.Errorf("the answer is answered %#x", code)
	}
	var note struct {
		State   string
		AckedBy string `json:"acked_by"`
	}
	var got struct{ Notification json.RawMessage }
	call(t, s, "GET", "/api/v1/notifications/"+id, nil, &got)
	if err := json.Unmarshal(got.Notification, &note); err != nil || note.State != "acked" || note.AckedBy != "pump-7" {
		t.Errorf("the notification is %s", got.Notification)
	}
}

func TestServiceAccountsUseTheTopicsOfNotificationsByTheirFilters(t *testing.T) {
	s := servertest.Start(t)
	d := talks(t, s, "pump-7", coldChain(t, s), "")
	if code := d.listens("devices/me/notifications"); code > 2 {
		t.Fatalf("subscribing is answered %#x", code)
	}
	account := func(name string, publish, subscribe []string) *talker {
		var made struct{ Secret string }
		call(t, s, "POST", "/api/v1/service-accounts", object{"name": name, "publish": publish, "subscribe": subscribe}, &made)
		return talks(t, s, name, name, made.Secret)
	}
	none := account("none", []string{"devices/+/telemetry"}, []string{"devices/+/telemetry"})
	all := account("all", []string{"devices/+/notify/+", "devices/+/notifications/+/ack"}, []string{"devices/+/notifications", "devices/+/notify/+"})
	for _, filter := range []string{"devices/+/notifications", "devices/pump-7/notifications", "devices/+/notify/+"} {
		if code := none.listens(filter); code != 0x87 {
			t.Errorf("subscribing to %s without the filter is answered %#x", filter, code)
		}
		if code := all.listens(filter); code > 2 {
			t.Errorf("subscribing to %s is answered %#x", filter, code)
		}
	}
	if code := none.says("devices/pump-7/notify/cold-chain", `{"title":"By nobody"}`); code != 0x87 {
		t.Errorf("publishing without the filter is answered %#x", code)
	}
	if code := all.says("devices/pump-7/notify/cold-chain", `{"title":"By an account"}`); code != 0 {
		t.Errorf("publishing is answered %#x", code)
	}
	told := all.hears("devices/pump-7/notifications")
	id, _ := told["id"].(string)
	if told["title"] != "By an account" || d.hears("devices/me/notifications")["id"] != id {
		t.Errorf("the account is told %v", told)
	}
	if code := none.says("devices/pump-7/notifications/"+id+"/ack", ""); code != 0x87 {
		t.Errorf("acking without the filter is answered %#x", code)
	}
	if code := all.says("devices/pump-7/notifications/"+id+"/ack", ""); code != 0 {
		t.Errorf("acking is answered %#x", code)
	}
}

// TestADeviceThatFloodsATopicIsToldAndHarmsNobody has one device notify as fast as it can, and
// another once meanwhile.
func TestADeviceThatFloodsATopicIsToldAndHarmsNobody(t *testing.T) {
	const many = 1000
	s := servertest.Start(t)
	coldChain(t, s)
	loud, calm := talks(t, s, "loud", create(t, s, "loud"), ""), talks(t, s, "calm", create(t, s, "calm"), "")
	var mu sync.Mutex
	codes := map[byte]int{}
	var all sync.WaitGroup
	begun := time.Now()
	for range 50 {
		all.Go(func() {
			for range many / 50 {
				code := loud.says("devices/me/notify/cold-chain", `{"title":"I am loud"}`)
				mu.Lock()
				codes[code]++
				mu.Unlock()
			}
		})
	}
	if code := calm.says("devices/me/notify/cold-chain", `{"title":"I am calm"}`); code != 0 {
		t.Errorf("the calm one is answered %#x", code)
	}
	waited := time.Since(begun)
	all.Wait()
	took := time.Since(begun)
	most := 30 + int(took/(2*time.Second)) + 1
	if n := codes[0]; n < 30 || n > most || codes[0x97] != many-n {
		t.Errorf("in %v it is answered %v", took, codes)
	}
	t.Logf("%d in %v, %v; the calm one waited %v", many, took, codes, waited)

	old := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.BrokerAddr()).SetUsername(create(t, s, "old")).SetClientID("old").SetAutoReconnect(false))
	if tok := old.Connect(); !tok.WaitTimeout(20*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer old.Disconnect(100)
	for i := range 60 {
		if tok := old.Publish("devices/me/notify/cold-chain", 1, false, `{"title":"I am old"}`); !tok.WaitTimeout(20*time.Second) || tok.Error() != nil {
			t.Fatalf("message %d: %v", i, tok.Error())
		}
	}
	if !old.IsConnected() {
		t.Error("a 3.1.1 client is cut")
	}
	var rejected struct {
		Items []struct{ Code, Topic string }
	}
	call(t, s, "GET", "/api/v1/devices/loud/rejected", nil, &rejected)
	if len(rejected.Items) == 0 || rejected.Items[0].Code != "too_many" || rejected.Items[0].Topic != "devices/loud/notify/cold-chain" {
		t.Errorf("what is kept as rejected is %+v", rejected.Items)
	}
	var system struct {
		Sections struct {
			Intake []struct {
				Kind             string
				Stored, Rejected int
			}
		}
	}
	call(t, s, "GET", "/api/v1/system", nil, &system)
	for _, k := range system.Sections.Intake {
		if k.Kind == "notify" && (k.Stored+k.Rejected != many+61 || k.Rejected < codes[0x97]+25) {
			t.Errorf("the System page says %+v", k)
		}
	}
}
