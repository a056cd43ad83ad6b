package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"
)

func TestWhatDevicesSayReachesTheSinkWithItsKind(t *testing.T) {
	l := newLock()
	l.parents["kid"] = "a"
	l.who["bridge"] = Identity{Name: "bridge", Publish: []string{"devices/#"}}
	long := strings.Repeat("x", 64)
	for _, tt := range []struct {
		name, user, topic string
		want              Message
	}{
		{"reported", "token-a", "devices/me/reported", Message{Kind: KindReported, Device: "a", Topic: "devices/a/reported"}},
		{"an event", "token-a", "devices/a/events/door.open", Message{Kind: KindEvent, Device: "a", Topic: "devices/a/events/door.open"}},
		{"an event with the longest type", "token-a", "devices/a/events/" + long, Message{Kind: KindEvent, Device: "a", Topic: "devices/a/events/" + long}},
		{"logs", "token-a", "devices/me/logs", Message{Kind: KindLog, Device: "a", Topic: "devices/a/logs"}},
		{"a result", "token-a", "devices/me/commands/c_1/result", Message{Kind: KindResult, Device: "a", Topic: "devices/a/commands/c_1/result"}},
		{"a child's telemetry by its gateway", "token-a", "devices/kid/telemetry", Message{Device: "kid", By: "a", Topic: "devices/kid/telemetry"}},
		{"a child's event by its gateway", "token-a", "devices/kid/events/x", Message{Kind: KindEvent, Device: "kid", By: "a", Topic: "devices/kid/events/x"}},
		{"reported by an account that may", "bridge", "devices/d/reported", Message{Kind: KindReported, Device: "d", Topic: "devices/d/reported"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := guarded(t, l, nil)
			c := r.client(5, "cid", tt.user)
			c.send(publishPacket(tt.topic, "{}", 1, 9))
			got := get(t, r.sink.messages, "message")
			origin := got.Client.Origin()
			if origin.ClientID != "cid" || origin.Peer != c.nc.LocalAddr().String() || origin.Listener != "tcp" {
				t.Errorf("origin %+v", origin)
			}
			tt.want.Payload, tt.want.QoS = []byte("{}"), 1
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Message{}, "From", "Token", "Client")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if ack := c.next(packets.Puback); ack.ReasonCode > 0x10 || ack.PacketID != 9 {
				t.Errorf("PUBACK %d %#x", ack.PacketID, ack.ReasonCode)
			}
		})
	}
}

func TestTopicsThatOnlyLookLikeWhatTheSinkTakesAreRefused(t *testing.T) {
	r := start(t, nil)
	device, admin := r.client(5, "c", "token-a"), r.client(5, "x", "admin")
	for _, topic := range []string{
		"events/" + strings.Repeat("x", 65), "events/a b", "events/", "events/ü", "events/a/b", "commands/1.2/result", "commands//result",
		"commands/" + strings.Repeat("1", 65) + "/result", "desired", "presence",
	} {
		device.send(publishPacket("devices/me/"+topic, "{}", 1, 1))
		if ack := device.next(packets.Puback); ack.ReasonCode != 0x87 {
			t.Errorf("%s: PUBACK %#x, want 0x87", topic, ack.ReasonCode)
		}
		if topic == "events/a/b" {
			continue // no topic of ours: an admin may
		}
		pk := publishPacket("devices/a/"+topic, "{}", 1, 1)
		pk.FixedHeader.Retain = true
		admin.send(pk)
		if ack := admin.next(packets.Puback); ack.ReasonCode != 0x87 {
			t.Errorf("%s by an admin: PUBACK %#x, want 0x87", topic, ack.ReasonCode)
		}
	}
	none(t, r.sink.messages, "message")
	if n := r.Stats().Retained; n != 0 {
		t.Errorf("%d retained", n)
	}
}

func TestWhatIsRelayedIsAckedAndDelivered(t *testing.T) {
	r := start(t, nil)
	admin := r.client(5, "x", "admin")
	admin.subscribed("devices/#")
	c := r.client(5, "c", "token-a")
	for _, topic := range []string{"requests/7", "requests/8"} {
		c.publish(publishPacket("devices/me/"+topic, topic, 1, 1))
		if got := admin.message(topic); got.TopicName != "devices/a/"+topic {
			t.Errorf("delivered at %s", got.TopicName)
		}
	}
	none(t, r.sink.messages, "message")
}

func TestSubscribersGetWhatTheSinkHasKeptAndNothingElse(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	admin := r.client(5, "x", "admin")
	admin.subscribed("devices/+/reported", "devices/+/events/#")
	c := r.client(5, "c", "token-a")
	c.send(publishPacket("devices/me/reported", "refused", 1, 1), publishPacket("devices/me/events/x", "kept", 1, 2), publishPacket("devices/me/events/y", "at once", 0, 0))
	refused, kept, once := get(t, r.sink.messages, "message"), get(t, r.sink.messages, "message"), get(t, r.sink.messages, "message")
	if once.From != nil {
		t.Error("QoS 0 came with an Acker")
	}
	admin.message("at once")
	admin.quiet()
	kept.From.Acked(kept.Token, nil)
	admin.message("kept")
	c.quiet() // its PUBACK waits for the first's
	refused.From.Acked(refused.Token, invalid())
	if ack := c.next(packets.Puback); ack.PacketID != 1 || ack.ReasonCode != 0x99 {
		t.Errorf("PUBACK %d %#x, want 1 with 0x99", ack.PacketID, ack.ReasonCode)
	}
	if ack := c.next(packets.Puback); ack.PacketID != 2 || ack.ReasonCode != 0 {
		t.Errorf("PUBACK %d %#x, want 2", ack.PacketID, ack.ReasonCode)
	}
	admin.quiet()
}

func TestAcksLeaveInPublishOrderInWhateverOrderTheSinkGivesThem(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	c := r.client(5, "c", "token-a")
	watch := r.client(5, "x", "admin")
	watch.subscribed("devices/a/events/+")
	topics := []string{"telemetry", "reported", "events/e", "logs", "commands/1/result"}
	rapid.Check(t, func(t *rapid.T) {
		const n = 20
		var sent []uint16
		for i := range uint16(n) {
			c.send(publishPacket("devices/me/"+rapid.SampledFrom(topics).Draw(t, "topic"), "{}", rapid.SampledFrom([]byte{1, 2}).Draw(t, "qos"), i+1))
			sent = append(sent, i+1)
		}
		held := make([]Message, n)
		for i := range held {
			held[i] = get(c.t, r.sink.messages, "message")
		}
		for _, i := range rapid.Permutation(slices.Collect(indexes(n))).Draw(t, "order") {
			held[i].From.Acked(held[i].Token, nil)
			held[i].From.Acked(held[i].Token, nil) // which it survives
		}
		var got []uint16
		for range n {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, pk.PacketID)
			if pk.FixedHeader.Type == packets.Pubrec {
				c.send(ackPacket(packets.Pubrel, pk.PacketID))
			}
		}
		var acks []uint16
		seen := map[uint16]bool{}
		for _, id := range got { // PUBCOMPs come in between
			if !seen[id] {
				acks = append(acks, id)
				seen[id] = true
			}
		}
		for len(acks) < n {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			if pk.FixedHeader.Type == packets.Pubrec {
				c.send(ackPacket(packets.Pubrel, pk.PacketID))
			}
			if !seen[pk.PacketID] {
				acks = append(acks, pk.PacketID)
				seen[pk.PacketID] = true
			}
		}
		if !slices.Equal(acks, sent) {
			t.Fatalf("acknowledged in the order %v", acks)
		}
		c.settleComps()
	})
}

func indexes(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// settleComps reads what PUBCOMPs are left, up to the answer of a ping.
func (c *raw) settleComps() {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	for {
		pk, err := c.read()
		if err != nil {
			c.t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Pingresp {
			return
		}
	}
}
