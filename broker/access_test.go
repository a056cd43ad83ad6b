package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func TestRecheckTakesAwayWhatIsNotAllowedAnyMore(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		l := newLock()
		l.who["svc"] = Identity{Name: "svc", Subscribe: []string{"plant/#", "lab/+"}, Publish: []string{"plant/#"}}
		r := guarded(t, l, nil)
		c, other := r.client(version, "c", "svc", keepSession), r.client(version, "other", "admin")
		c.subscribe(0, sub("plant/a", 1), sub("lab/x", 1), sub("$share/g/lab/y", 1))
		other.publish(publishPacket("plant/a", "before", 1, 1))
		l.change(func() { l.who["svc"] = Identity{Name: "svc", Subscribe: []string{"plant/#"}} })
		c.quietExcept("before")
		other.subscribe(0, sub("#", 0))
		if n := r.Recheck(func(who Identity) bool { return who.Name == "svc" }); n != 1 {
			t.Errorf("asked for %d connections, want 1", n)
		}
		for _, topic := range []string{"lab/x", "lab/y", "plant/a"} {
			if err := r.Publish(t.Context(), topic, []byte(topic), false, 0); err != nil {
				t.Fatal(err)
			}
		}
		c.message("plant/a")
		c.send(publishPacket("plant/a", "after", 1, 2))
		ack := c.next(packets.Puback)
		if version == 5 && ack.ReasonCode != 0x87 {
			t.Errorf("PUBACK %#x for a right that is gone", ack.ReasonCode)
		}
		c.quiet()
		if d := cmp.Diff([]string{"lab/x", "lab/y", "plant/a"}, payloads(gather(t, other)[0])); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// quietExcept reads one message and checks that nothing else has come.
func (c *raw) quietExcept(payload string) {
	c.t.Helper()
	c.message(payload)
	c.quiet()
}

func TestRecheckCutsThoseWhoseCredentialIsGone(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		l := newLock()
		r := guarded(t, l, nil)
		a, b := r.client(version, "c", "token-a"), r.client(version, "c", "token-b")
		l.change(func() { l.gone["a"] = true })
		if n := r.Recheck(func(who Identity) bool { return who.Device != "" }); n != 2 {
			t.Errorf("asked for %d connections, want 2", n)
		}
		if version == 5 {
			if bye := a.next(packets.Disconnect); bye.ReasonCode != 0x87 {
				t.Errorf("DISCONNECT %#x, want 0x87", bye.ReasonCode)
			}
		}
		a.ended()
		b.quiet()
		if n := r.metric("disconnects_total", "rights"); n != 1 {
			t.Errorf("%v disconnects counted", n)
		}
	})
}

func TestAChangeDuringConnectIsNotMissed(t *testing.T) {
	l := newLock()
	r := guarded(t, l, nil)
	l.change(func() { l.gone["a"] = true }) // after Authenticate, as far as the broker can tell
	c := r.dial(5)
	c.send(connectPacket(5, "c", "token-a", ""))
	c.next(packets.Connack)
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x87 {
		t.Errorf("DISCONNECT %#x, want 0x87", bye.ReasonCode)
	}
}

func TestAGatewaySpeaksForItsChildrenOnly(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		l := newLock()
		l.parents["kid"] = "a"
		r := guarded(t, l, nil)
		gw := r.client(version, "gw", "token-a")
		admin := r.client(version, "x", "admin")
		admin.subscribe(0, sub("devices/kid/#", 0))
		gw.send(subscribePacket(1, "devices/kid/commands/+", "devices/kid/desired", "devices/stranger/desired", "devices/kid/telemetry", "devices/+/desired"))
		want := map[byte][]byte{4: {1, 1, 0x80, 0x80, 0x80}, 5: {1, 1, 0x87, 0x87, 0x87}}[version]
		if ack := gw.next(packets.Suback); !slices.Equal(ack.ReasonCodes, want) {
			t.Errorf("SUBACK %#x, want %#x", ack.ReasonCodes, want)
		}
		gw.publish(publishPacket("devices/kid/telemetry", "1", 1, 1))
		if m := get(t, r.sink.messages, "message"); m.Device != "kid" || m.Topic != "devices/kid/telemetry" {
			t.Errorf("the sink got %+v", m)
		}
		gw.publish(publishPacket("devices/kid/reported", "{}", 1, 2))
		if m := get(t, r.sink.messages, "message"); m.Kind != KindReported || m.Device != "kid" || m.By != "a" {
			t.Errorf("the sink got %+v", m)
		}
		admin.messages("1", "{}")
		if err := r.Publish(t.Context(), "devices/kid/commands/7", []byte("do"), false, 1); err != nil {
			t.Fatal(err)
		}
		if got := gw.message("do"); got.TopicName != "devices/kid/commands/7" {
			t.Errorf("delivered at %s", got.TopicName)
		}
		l.change(func() { delete(l.parents, "kid") })
		r.Recheck(func(who Identity) bool { return who.Device == "a" })
		gw.send(publishPacket("devices/kid/telemetry", "2", 1, 3))
		gw.next(packets.Puback)
		if ref := get(t, r.sink.refusals, "refusal"); ref.Device != "a" || ref.Topic != "devices/kid/telemetry" || ref.Code != "topic" {
			t.Errorf("refused: %+v", ref)
		}
		if err := r.Publish(t.Context(), "devices/kid/commands/8", []byte("not yours"), false, 1); err != nil {
			t.Fatal(err)
		}
		gw.quiet()
		none(t, r.sink.messages, "message of a child that is gone")
	})
}

func TestFreeTopicsAreForThoseWhoMayUseThem(t *testing.T) {
	l := newLock()
	l.who["reader"] = Identity{Name: "reader", ReadFree: true}
	l.who["writer"] = Identity{Name: "writer", WriteFree: true}
	l.who["free"] = Identity{Device: "free", ReadFree: true, WriteFree: true}
	r := guarded(t, l, nil)
	const yes, no = 1, 0x87
	for user, want := range map[string][]byte{"reader": {yes, yes, no, no, no, no}, "writer": {no, no, no, no, no, no}, "free": {yes, yes, no, no, no, no}} {
		c := r.client(5, user, user)
		c.send(subscribePacket(1, "home/+/light", "$share/g/home/#", "#", "+/x", "devices/a/desired", "$SYS/#"))
		if ack := c.next(packets.Suback); !slices.Equal(ack.ReasonCodes, want) {
			t.Errorf("%s: SUBACK %#x, want %#x", user, ack.ReasonCodes, want)
		}
	}
	for user, want := range map[string]byte{"reader": no, "writer": 0, "free": 0} {
		c := r.client(5, user+"2", user)
		c.send(publishPacket("home/kitchen/light", "on", 1, 1))
		if ack := c.next(packets.Puback); ack.ReasonCode != want {
			t.Errorf("%s: PUBACK %#x, want %#x", user, ack.ReasonCode, want)
		}
		for _, topic := range []string{"devices/a/telemetry", "v1/devices/me/telemetry", "provision/request", "/provision/request", "$SYS/broker/uptime"} {
			if user == "free" && topic == "v1/devices/me/telemetry" { // it is the device's own
				continue
			}
			pk := publishPacket(topic, `{"provisionDeviceKey":"k","provisionDeviceSecret":"s"}`, 1, 1)
			c.send(pk)
			if ack := c.next(packets.Puback); ack.ReasonCode != no {
				t.Errorf("%s at %s: PUBACK %#x, want %#x", user, topic, ack.ReasonCode, no)
			}
		}
	}
	none(t, r.sink.messages, "message at the sink")
}

func TestTheServersOwnValuesAreForAdmins(t *testing.T) {
	r := start(t, nil)
	admin := r.client(5, "x", "admin")
	got := map[string]bool{}
	for _, line := range admin.shown(sub("$SYS/broker/#", 0)) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "$SYS/broker/"), "=")
		got[name] = true
	}
	for _, name := range []string{
		"clients/connected", "sessions", "messages/received", "messages/sent", "messages/retained/count", "subscriptions/count",
		"journal/bytes", "uptime",
	} {
		if !got[name] {
			t.Errorf("no $SYS/broker/%s", name)
		}
	}
	if shown := admin.shown(sub("#", 0)); shown != nil {
		t.Errorf("# matches %v (MQTT-4.7.2-1)", shown)
	}
	device := r.client(5, "d", "token-a")
	device.send(subscribePacket(1, "$SYS/broker/uptime", "$share/g/$SYS/#"))
	if ack := device.next(packets.Suback); !slices.Equal(ack.ReasonCodes, []byte{0x87, 0x87}) {
		t.Errorf("a device: SUBACK %#x", ack.ReasonCodes)
	}
	for _, c := range []*raw{admin, device} {
		c.send(publishPacket("$SYS/broker/uptime", "9", 1, 1))
		if ack := c.next(packets.Puback); ack.ReasonCode != 0x87 {
			t.Errorf("PUBACK %#x for a publish to $SYS", ack.ReasonCode)
		}
	}
}

func TestSysIsShownAnew(t *testing.T) {
	r := start(t, func(c *Config) { c.SysInterval = patience / 1000 })
	admin := r.client(5, "x", "admin")
	admin.subscribe(0, sub("$SYS/broker/clients/connected", 0))
	for {
		pk := admin.next(packets.Publish)
		if !pk.FixedHeader.Retain && string(pk.Payload) == "1" {
			return // told as it changes, not only as it was
		}
	}
}

func TestOneClientIsKicked(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		one, two, admin := r.client(version, "1", "token-a"), r.client(version, "2", "token-a"), r.client(version, "1", "admin")
		if err := r.KickClient("a", "", "1", "enough"); err != nil {
			t.Fatal(err)
		}
		if version == 5 {
			if bye := one.next(packets.Disconnect); bye.ReasonCode != 0x98 || bye.Properties.ReasonString != "enough" {
				t.Errorf("DISCONNECT %#x %q", bye.ReasonCode, bye.Properties.ReasonString)
			}
		}
		one.ended()
		two.quiet()
		admin.quiet()
		if err := r.KickClient("", "root", "1", "enough"); err != nil {
			t.Fatal(err)
		}
		for _, who := range [][3]string{{"a", "", "1"}, {"a", "", "9"}, {"", "root", "2"}} {
			eventually(t, "the client's end", func() bool {
				return muster.KindOf(r.KickClient(muster.DeviceID(who[0]), who[1], who[2], "x")) == muster.NotFound
			})
		}
	})
}

func TestClientsAreSearchedSortedAndPaged(t *testing.T) {
	r := start(t, nil)
	for i, id := range []string{"a1", "a2", "b1"} {
		c := r.client(5, id, "admin", keepSession)
		for range i {
			c.publish(publishPacket("up", "x", 1, 1))
		}
		c.subscribe(0, sub("t/"+id, 1))
	}
	for topic, n := range map[string]int{"t/a1": 3, "t/b1": 5} {
		for range n {
			if err := r.Publish(t.Context(), topic, []byte("xx"), false, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := func(q ClientsQuery) (ids []string, total int) {
		t.Helper()
		page, total, err := r.Clients(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			ids = append(ids, c.ClientID)
		}
		return ids, total
	}
	for sort, want := range map[string][]string{
		"": {"a1", "a2", "b1"}, "id": {"a1", "a2", "b1"}, "sent": {"b1", "a1", "a2"}, "received": {"b1", "a2", "a1"},
		"backlog": {"b1", "a1", "a2"}, "queued": {"a1", "a2", "b1"}, "dropped": {"a1", "a2", "b1"},
	} {
		if got, n := list(ClientsQuery{Sort: sort, Limit: 10}); !slices.Equal(got, want) || n != 3 {
			t.Errorf("by %q: %v of %d, want %v", sort, got, n, want)
		}
	}
	if got, n := list(ClientsQuery{Search: "a", Offset: 1, Limit: 1}); !slices.Equal(got, []string{"a2"}) || n != 2 {
		t.Errorf("page of a search: %v of %d", got, n)
	}
	if got, n := list(ClientsQuery{Offset: 9}); len(got) != 0 || n != 3 {
		t.Errorf("behind the end: %v of %d", got, n)
	}
	if _, _, err := r.Clients(ClientsQuery{Sort: "colour"}); muster.KindOf(err) != muster.Invalid {
		t.Errorf("an unknown order: %v", err)
	}
	page, _, _ := r.Clients(ClientsQuery{Search: "b1", Limit: 1})
	c := page[0]
	if !c.Connected || c.Account != "root" || c.Protocol != 5 || c.Listener != "tcp" || c.Peer == "" || c.KeepAlive != 60 ||
		c.Subscriptions != 1 || c.Inflight != 5 || c.Queued != 0 || c.Received != 2 || c.Sent != 5 || c.SentBytes == 0 || c.ReceivedBytes == 0 {
		t.Errorf("described as %+v", c)
	}
}
