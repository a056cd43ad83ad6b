package broker

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
	"muster/broker/thingsboard"
)

// family of gateways: who may bring whom, and what was said.
type nursery struct {
	*lock
	mu    sync.Mutex
	names []string // adopted, as "id=name profile"
	said  []string
}

func (n *nursery) Adopt(_ context.Context, gateway muster.DeviceID, child thingsboard.Child) error {
	if child.Device == "taken" {
		return muster.Errorf(muster.Forbidden, "taken belongs to another gateway")
	}
	n.change(func() { n.parents[child.Device] = gateway })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names = append(n.names, fmt.Sprintf("%s=%s %s", child.Device, child.Name, child.Profile))
	return nil
}

func (n *nursery) Behind(gateway muster.DeviceID) (all []muster.DeviceID) {
	n.change(func() {
		for id, p := range n.parents {
			if p == gateway {
				all = append(all, id)
			}
		}
	})
	slices.Sort(all)
	return all
}

func (n *nursery) Present(gateway, child muster.DeviceID, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, fmt.Sprint(gateway, " ", child, " ", on))
}

func (n *nursery) heard() (names, said []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, said = n.names, n.said
	n.names, n.said = nil, nil
	return names, said
}

func boardRoom(t testing.TB, s *board, change func(*Config)) (*rig, *nursery) {
	n := &nursery{lock: newLock()}
	n.who["gw"] = Identity{Device: "gw", Brings: true}
	n.parents["kid"] = "gw"
	return guarded(t, n.lock, func(c *Config) {
		c.States, c.Children = s, n
		if change != nil {
			change(c)
		}
	}), n
}

func TestWhatThingsBoardsClientsPublishIsTakenInAsOurs(t *testing.T) {
	for _, tt := range []struct {
		name, topic, payload string
		want                 []string // kind, device, by, topic, payload
	}{
		{"telemetry", "v1/devices/me/telemetry", `{"t":1}`, []string{"0 gw  devices/gw/telemetry {\"t\":1}"}},
		{"attributes", "v1/devices/me/attributes", `{"fw":"1"}`, []string{`1 gw  devices/gw/reported {"fw":"1"}`}},
		{"attributes with an object", "v1/devices/me/attributes", `{"a":{"b":1}}`, []string{
			`1 gw  devices/gw/reported {"a":null}`, `1 gw  devices/gw/reported {"a":{"b":1}}`,
		}},
		{"the answer to an RPC", "v1/devices/me/rpc/response/7", `{"x":1}`, []string{`4 gw  devices/gw/commands/7/result {"status":"ok","result":{"x":1}}`}},
		{"telemetry in the short spelling", "v2/t", `{"t":1}`, []string{"0 gw  devices/gw/telemetry {\"t\":1}"}},
		{"children's telemetry", "v1/gateway/telemetry", `{"kid":[{"ts":1483228800000,"values":{"t":1}}],"Device B":[{"ts":1,"values":{"t":2}}]}`, []string{
			`0 kid gw devices/kid/telemetry [{"ts":1483228800000,"values":{"t":1}}]`, `0 Device..20B gw devices/Device..20B/telemetry [{"ts":1,"values":{"t":2}}]`,
		}},
		{"children's attributes", "v1/gateway/attributes", `{"kid":{"fw":"1"}}`, []string{`1 kid gw devices/kid/reported {"fw":"1"}`}},
		{"a child's answer to an RPC", "v1/gateway/rpc", `{"device":"kid","id":7,"data":{"ok":true}}`, []string{
			`4 kid gw devices/kid/commands/7/result {"status":"ok","result":{"ok":true}}`,
		}},
	} {
		for _, qos := range []byte{0, 1, 2} {
			t.Run(fmt.Sprint(tt.name, ", QoS ", qos), func(t *testing.T) {
				r, _ := boardRoom(t, newBoard(), nil)
				watch := r.client(4, "x", "admin")
				watch.subscribe(0, sub("devices/#", 1))
				c := r.client(4, "c", "gw")
				pk := publishPacket(tt.topic, tt.payload, qos, 1)
				pk.FixedHeader.Retain = true
				c.publish(pk)
				for _, want := range tt.want {
					m := get(t, r.sink.messages, "message")
					if d := cmp.Diff(want, fmt.Sprintf("%d %s %s %s %s", m.Kind, m.Device, m.By, m.Topic, m.Payload)); d != "" {
						t.Errorf("(-want +got):\n%s", d)
					}
					if got := watch.message(string(m.Payload)); got.TopicName != m.Topic || got.FixedHeader.Qos != min(qos, 1) || got.FixedHeader.Retain {
						t.Errorf("delivered at %s with QoS %d", got.TopicName, got.FixedHeader.Qos)
					}
				}
				c.quiet()
				if r.Stats().Retained != 0 {
					t.Error("something was retained")
				}
			})
		}
	}
}

func TestAMessageOfManyPartsIsAckedWithTheWorstWhenTheLastIsKept(t *testing.T) {
	for _, tt := range []struct {
		name    string
		second  error
		version byte
		code    byte
	}{
		{"all kept", nil, 5, 0},
		{"one refused for good", invalid(), 5, 0x99},
		{"one refused for now", muster.Errorf(muster.Busy, "full"), 5, 0x97},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := boardRoom(t, newBoard(), nil)
			r.sink.hold()
			c := r.client(tt.version, "c", "gw")
			c.send(publishPacket("v1/gateway/telemetry", `{"kid":[{"ts":1,"values":{"t":1}}],"b":[{"ts":1,"values":{"t":2}}],"c":{"t":3}}`, 1, 7),
				publishPacket("devices/me/telemetry", "1", 1, 8))
			var held []Message
			for range 4 {
				held = append(held, get(t, r.sink.messages, "message"))
			}
			held[3].From.Acked(held[3].Token, nil)
			held[2].From.Acked(held[2].Token, nil)
			held[1].From.Acked(held[1].Token, tt.second)
			held[2].From.Acked(held[2].Token, nil) // again, which counts for nothing
			c.quiet()
			held[0].From.Acked(held[0].Token, nil)
			if ack := c.next(packets.Puback); ack.PacketID != 7 || ack.ReasonCode != tt.code {
				t.Errorf("PUBACK %d %#x, want 7 %#x", ack.PacketID, ack.ReasonCode, tt.code)
			}
			if ack := c.next(packets.Puback); ack.PacketID != 8 {
				t.Errorf("PUBACK %d, want 8", ack.PacketID)
			}
		})
	}
}

func TestWhatThingsBoardsClientsMayNotPublishIsRefusedWithTheReason(t *testing.T) {
	r, n := boardRoom(t, newBoard(), nil)
	n.who["plain"] = Identity{Device: "plain"}
	for _, tt := range []struct {
		user, topic, payload, code string
		ack                        byte
	}{
		{"gw", "v1/devices/me/attributes", `[1]`, "malformed", 0x99},
		{"gw", "v1/devices/me/nothing", `{}`, "malformed", 0x99},
		{"gw", "v1/gateway/connect", `{"device":"taken"}`, "topic", 0x87},
		{"gw", "v1/gateway/telemetry", `{"taken":[{"ts":1,"values":{"t":1}}]}`, "topic", 0x87},
		{"gw", "v1/gateway/disconnect", `{"device":"stranger"}`, "topic", 0x87},
		{"plain", "v1/gateway/connect", `{"device":"new"}`, "topic", 0x87},
		{"plain", "v1/gateway/attributes", `{"kid":{"a":1}}`, "topic", 0x87},
		{"plain", "v1/gateway/attributes/request", `{"id":1,"device":"kid","client":true,"key":"a"}`, "topic", 0x87},
		{"plain", "/provision/request", `{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}`, "topic", 0x87},
		{"plain", "devices/kid/telemetry", `{}`, "topic", 0x87},
		{"gw", "devices/taken/telemetry", `{}`, "topic", 0x87},
	} {
		c := r.client(5, "c", tt.user)
		c.send(publishPacket(tt.topic, tt.payload, 1, 1))
		if ack := c.next(packets.Puback); ack.ReasonCode != tt.ack || ack.Properties.ReasonString == "" {
			t.Errorf("%s %s: PUBACK %#x %q, want %#x", tt.user, tt.topic, ack.ReasonCode, ack.Properties.ReasonString, tt.ack)
		}
		if got := get(t, r.sink.refusals, "refusal"); got.Code != tt.code || got.Device != muster.DeviceID(tt.user) {
			t.Errorf("%s: kept as rejected %+v", tt.topic, got)
		}
	}
	none(t, r.sink.messages, "message")
	if names, said := n.heard(); names != nil || said != nil {
		t.Errorf("adopted %v, said %v", names, said)
	}
}

func TestAGatewayThatMayBringsItsChildrenWithIt(t *testing.T) {
	r, n := boardRoom(t, newBoard(), nil)
	c := r.client(4, "c", "gw")
	c.publish(publishPacket("v1/gateway/connect", `{"device":"Device A","type":"thermo"}`, 1, 1))
	c.publish(publishPacket("v1/gateway/telemetry", `{"Device A":[{"ts":1,"values":{"t":1}}],"b":[{"ts":1,"values":{"t":1}}]}`, 1, 2))
	c.publish(publishPacket("devices/new/events/x", `{}`, 1, 3))
	c.publish(publishPacket("devices/new/events/x", `{}`, 1, 4))
	c.publish(publishPacket("v1/gateway/disconnect", `{"device":"Device A"}`, 1, 5))
	names, said := n.heard()
	if d := cmp.Diff([]string{"Device..20A=Device A thermo", "b=b ", "new= "}, names); d != "" {
		t.Errorf("adopted (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"gw Device..20A true", "gw Device..20A false"}, said); d != "" {
		t.Errorf("present (-want +got):\n%s", d)
	}
	if got := len(r.sink.messages); got != 4 {
		t.Errorf("the sink got %d messages, want 4", got)
	}
}

func TestAChildThatIsBroughtIsKeptUnderItsOwnId(t *testing.T) {
	r, n := boardRoom(t, newBoard(), nil)
	c := r.client(4, "c", "gw")
	c.publish(publishPacket("devices/first/events/x", `{}`, 1, 1))
	for i := range 20 { // over the place in memory where its topic was read
		c.publish(publishPacket("devices/gw/events/xxxxxxxxxxxxx", `{"xxxxxxxxxxxxxxxxxxxx":1}`, 1, uint16(2+i)))
	}
	if names, _ := n.heard(); !slices.Equal(names, []string{"first= "}) {
		t.Errorf("adopted %v", names)
	}
	if got := n.Behind("gw"); !slices.Contains(got, "first") {
		t.Errorf("the children are %q", got)
	}
}

func TestRequestsOfThingsBoardsClientsAreAnsweredToThem(t *testing.T) {
	r, _ := boardRoom(t, newBoard(), nil)
	c, other := r.client(4, "c", "gw"), r.client(4, "d", "gw")
	for _, x := range []*raw{c, other} {
		x.subscribed("v1/devices/me/attributes/response/+", "v1/gateway/attributes/response", "v1/devices/me/rpc/response/+")
	}
	for _, tt := range []struct {
		topic, payload string
		device, by     muster.DeviceID
		answer         string
	}{
		{"v1/devices/me/attributes/request/5", `{"clientKeys":"a","sharedKeys":"b"}`, "gw", "", `{"client":{"a":1},"shared":{"b":2}}`},
		{"v1/gateway/attributes/request", `{"id":5,"device":"kid","client":true,"key":"a"}`, "kid", "gw", `{"id":5,"device":"kid","value":1}`},
	} {
		c.publish(publishPacket(tt.topic, tt.payload, 1, 1))
		m := get(t, r.sink.messages, "request")
		if m.Kind != KindRequest || m.Ask == nil || m.From != nil || m.Device != tt.device || m.By != tt.by || m.Topic != tt.topic {
			t.Fatalf("the sink got %+v", m)
		}
		a, err := m.Ask.Attributes([]byte(`{"a":1}`), []byte(`{"b":2}`))
		if err != nil {
			t.Fatal(err)
		}
		if !m.Client.Reply(a.Topic, a.Payload) {
			t.Error("the answer was not sent")
		}
		if got := c.message(tt.answer); got.TopicName != a.Topic {
			t.Errorf("answered at %s", got.TopicName)
		}
	}
	c.send(publishPacket("v1/devices/me/rpc/request/9", `{"method":"getSessionLimits","params":{}}`, 0, 0))
	if got := c.next(packets.Publish); got.TopicName != "v1/devices/me/rpc/response/9" || !bytes.Contains(got.Payload, []byte(`"gatewayRateLimits":{`)) {
		t.Errorf("limits %s at %s", got.Payload, got.TopicName)
	}
	other.quiet()
	guest := guests()
	p := guarded(t, guest, nil)
	g := p.client(4, "g", "provision")
	g.publish(publishPacket("/provision/request", `{"deviceName":"d","provisionDeviceKey":"k","provisionDeviceSecret":"s"}`, 1, 1))
	if m := get(t, p.sink.messages, "request"); m.Ask == nil || m.Ask.Provision.Key != "k" {
		t.Errorf("the sink got %+v", m)
	}
	g.publish(publishPacket("/provision/request", `{`, 1, 1))
	if m := get(t, p.sink.messages, "request"); m.Ask != nil || string(m.Payload) != "{" {
		t.Errorf("the sink got %+v", m)
	}
}

func TestThingsBoardsClientsAreToldInTheirSpelling(t *testing.T) {
	s := newBoard("devices/gw/desired", `{"version":1,"state":{"a":1,"b":2}}`, "devices/kid/desired", `{"version":1,"state":{"k":1}}`)
	r, _ := boardRoom(t, s, nil)
	c := r.client(4, "c", "gw", keepSession)
	c.subscribeKept(3, sub("v1/devices/me/attributes", 1), sub("v1/devices/me/rpc/request/+", 1), sub("v1/gateway/attributes", 1),
		sub("v1/gateway/rpc", 0), sub("devices/me/desired", 1))
	check := func(topic, payload string) {
		t.Helper()
		if got := c.message(payload); got.TopicName != topic || got.FixedHeader.Retain {
			t.Errorf("%s at %s, RETAIN %v", payload, got.TopicName, got.FixedHeader.Retain)
		}
	}
	r.becomes(s, "devices/gw/desired", `{"version":2,"state":{"a":1,"c":3}}`)
	check("v1/devices/me/attributes", `{"c":3}`) // what differs, and what is gone
	check("v1/devices/me/attributes", `{"deleted":["b"]}`)
	check("devices/me/desired", `{"version":2,"state":{"a":1,"c":3}}`)
	r.becomes(s, "devices/kid/desired", `{"version":2,"state":{"k":2}}`)
	check("v1/gateway/attributes", `{"device":"kid","data":{"k":2}}`)
	command := func(id muster.DeviceID, cid string) (<-chan Outcome, bool) {
		return r.command(t, id, cid, func(d *Delivery) { d.Payload = []byte(`{"method":"go","params":[1]}`) })
	}
	done, _ := command("gw", "7")
	check("v1/devices/me/rpc/request/7", `{"method":"go","params":[1]}`)
	outcomeIs(t, r, done, Acked)
	done, _ = command("kid", "8")
	check("v1/gateway/rpc", `{"device":"kid","data":{"id":8,"method":"go","params":[1]}}`)
	outcomeIs(t, r, done, Sent)
	if _, ok := command("gw", "not-a-number"); ok {
		t.Error("a command that ThingsBoard's clients cannot read was sent")
	}
	c.publish(publishPacket("v1/gateway/disconnect", `{"device":"kid"}`, 1, 1))
	if _, ok := command("kid", "9"); ok {
		t.Error("a command for a child that is not there was sent")
	}
	r.becomes(s, "devices/kid/desired", `{"version":3,"state":{"k":3}}`)
	c.quiet()
	c.send(publishPacket("v1/gateway/connect", `{"device":"kid"}`, 1, 2))
	for range 2 { // what was missed may come before or after the acknowledgement
		pk, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Publish {
			if string(pk.Payload) != `{"device":"kid","data":{"k":3}}` {
				t.Errorf("told %s", pk.Payload)
			}
			c.send(ackPacket(packets.Puback, pk.PacketID))
		}
	}
	_ = c.nc.Close()
	eventually(t, "the end", func() bool { return r.Stats().Connections == 0 })
	c = r.client(4, "c", "gw", keepSession)
	got := []string{}
	for range 3 {
		pk := c.next(packets.Publish)
		got = append(got, pk.TopicName+" "+string(pk.Payload))
		c.send(ackPacket(packets.Puback, pk.PacketID))
	}
	slices.Sort(got)
	want := []string{
		`devices/me/desired {"version":2,"state":{"a":1,"c":3}}`, `v1/devices/me/attributes {"a":1,"c":3}`,
		`v1/gateway/attributes {"device":"kid","data":{"k":3}}`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("after coming back (-want +got):\n%s", d)
	}
	c.quiet()
}

func TestThingsBoardsFiltersAreGrantedToDevicesAsTheyAreDocumented(t *testing.T) {
	r, _ := boardRoom(t, newBoard(), nil)
	c := r.client(5, "c", "gw")
	c.send(subscribePacket(1, "v1/devices/me/attributes", "v1/devices/me/#", "v1/gateway/+", "$share/g/v1/devices/me/attributes", "v1/devices/me/rpc/request/+",
		"/provision/response", "provision/response")) // these two are for who comes to be provisioned
	if ack := c.next(packets.Suback); !slices.Equal(ack.ReasonCodes, []byte{1, 0x8f, 0x8f, 0x8f, 1, 0x87, 0x87}) {
		t.Errorf("SUBACK %#x", ack.ReasonCodes)
	}
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 2, Filters: packets.Subscriptions{
		{Filter: "devices/me/commands/+"}, {Filter: "v1/devices/me/rpc/request/+"},
	}})
	if ack := c.next(packets.Unsuback); !slices.Equal(ack.ReasonCodes, []byte{0x11, 0}) {
		t.Errorf("UNSUBACK %#x", ack.ReasonCodes)
	}
	if _, ok := r.command(t, "gw", "1", func(d *Delivery) { d.Payload = []byte(`{"method":"x"}`) }); ok {
		t.Error("sent to who has unsubscribed")
	}
}

func TestThingsBoardsSubscriptionsSurviveARestart(t *testing.T) {
	log := newMemLog()
	x := new(readies)
	p := boot(t, log, 0, func(c *Config) { c.Ready = x.told })
	c := p.client(4, "c", "token-a", keepSession)
	c.subscribed("v1/devices/me/rpc/request/+", "v1/devices/me/attributes/response/+", "v1/gateway/rpc")
	c.quiet() // Ready is told behind the SUBACK
	if d := cmp.Diff([]string{"a false", "a true"}, x.take()); d != "" {
		t.Errorf("ready (-want +got):\n%s", d)
	}
	p.settled()
	p.crash()
	p = boot(t, log, 0, func(c *Config) { c.Ready = x.told })
	c = p.client(4, "c", "token-a", keepSession)
	c.quiet()
	if d := cmp.Diff([]string{"a false", "a true"}, x.take()); d != "" {
		t.Errorf("ready after the restart (-want +got):\n%s", d)
	}
	done, ok := p.command(t, "a", "7", func(d *Delivery) { d.Payload, d.Expires = []byte(`{"method":"go"}`), time.Now().Add(time.Hour) })
	if !ok {
		t.Fatal("nobody listens")
	}
	if got := c.message(`{"method":"go","params":{}}`); got.TopicName != "v1/devices/me/rpc/request/7" {
		t.Errorf("at %s", got.TopicName)
	}
	outcomeIs(t, p.rig, done, Acked)
	c.publish(publishPacket("v1/devices/me/attributes/request/1", `{}`, 1, 1))
	if m := get(t, p.sink.messages, "request"); !m.Client.Reply("v1/devices/me/attributes/response/1", []byte("{}")) {
		t.Error("the answer was not sent")
	}
	c.message("{}")
}
