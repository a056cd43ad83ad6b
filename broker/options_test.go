package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

// shown subscribes and returns the retained messages that come, by topic.
func (c *raw) shown(s packets.Subscription) (got []string) {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{s}},
		packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	for pings, acks := 0, 0; pings+acks < 2; {
		pk, err := c.read()
		if err != nil {
			c.t.Fatal(err)
		}
		switch pk.FixedHeader.Type {
		case packets.Pingresp:
			pings++
		case packets.Suback:
			acks++
		case packets.Publish:
			if !pk.FixedHeader.Retain {
				c.t.Errorf("%s is shown without RETAIN", pk.TopicName)
			}
			got = append(got, fmt.Sprintf("%s=%s QoS %d", pk.TopicName, pk.Payload, pk.FixedHeader.Qos))
		}
	}
	return got
}

func TestRetainHandlingSaysWhenRetainedMessagesAreShown(t *testing.T) {
	r := start(t, nil)
	w := r.client(5, "w", "admin")
	for i, topic := range []string{"r/b", "r/a", "s"} {
		w.publish(retainedPacket(topic, topic, byte(i), uint16(i+1)))
	}
	all := []string{"r/a=r/a QoS 1", "r/b=r/b QoS 0"}
	for handling, want := range map[byte][2][]string{0: {all, all}, 1: {all, nil}, 2: {nil, nil}} {
		t.Run(fmt.Sprint(handling), func(t *testing.T) {
			c := r.client(5, "c", "admin")
			s := packets.Subscription{Filter: "r/+", Qos: 2, RetainHandling: handling}
			for i := range 2 { // when it is new, and again
				if d := cmp.Diff(want[i], c.shown(s)); d != "" {
					t.Errorf("time %d (-want +got):\n%s", i+1, d)
				}
			}
		})
	}
	old := r.client(4, "c", "admin")
	for range 2 {
		if d := cmp.Diff(all, old.shown(sub("r/+", 2))); d != "" {
			t.Errorf("3.1.1 (-want +got):\n%s", d)
		}
	}
	if got := old.shown(sub("$share/g/r/+", 2)); got != nil {
		t.Errorf("a shared subscription is shown %v", got)
	}
	if d := cmp.Diff([]string{"s=s QoS 0"}, old.shown(sub("s", 0))); d != "" {
		t.Errorf("at QoS 0 (-want +got):\n%s", d)
	}
}

func TestRetainIsAsPublishedOnlyWhereAskedFor(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin")
	c.subscribe(0, packets.Subscription{Filter: "yes", Qos: 1, RetainAsPublished: true}, sub("no", 1))
	device := r.client(5, "d", "token-a")
	device.subscribe(0, packets.Subscription{Filter: "devices/me/notifications", Qos: 1, RetainAsPublished: true}, sub("devices/me/errors", 1))
	for _, topic := range []string{"yes", "no", "devices/a/notifications", "devices/a/errors"} {
		for _, retain := range []bool{true, false} {
			if err := r.Publish(t.Context(), topic, []byte("x"), retain, 1); err != nil {
				t.Fatal(err)
			}
		}
		to := c
		if strings.HasPrefix(topic, "devices") {
			to = device
		}
		asPublished := topic == "yes" || topic == "devices/a/notifications"
		if got := to.message("x"); got.FixedHeader.Retain != asPublished {
			t.Errorf("%s: RETAIN %v", topic, got.FixedHeader.Retain)
		}
		if got := to.message("x"); got.FixedHeader.Retain {
			t.Errorf("%s: RETAIN, though it was published without", topic)
		}
	}
}

func TestOverlappingFiltersGiveOneCopyOfTheHighestQoS(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "admin")
		c.subscribe(0, sub("a/#", 0), sub("a/+", 2), sub("+/b", 1), sub("a/b", 0))
		device := r.client(version, "d", "token-a")
		device.subscribe(0, sub("devices/me/#", 1), sub("devices/a/notifications", 2), sub("devices/me/+", 0))
		w := r.client(version, "w", "admin")
		for qos := range byte(3) {
			w.publish(publishPacket("a/b", "x", qos, 1))
			if got := c.message("x"); got.FixedHeader.Qos != qos {
				t.Errorf("QoS %d, want %d", got.FixedHeader.Qos, qos)
			}
			w.publish(publishPacket("devices/a/notifications", "y", qos, 2))
			if got := device.message("y"); got.FixedHeader.Qos != qos {
				t.Errorf("device: QoS %d, want %d", got.FixedHeader.Qos, qos)
			}
		}
		c.quiet()
		device.quiet()
	})
}

func TestEverySubscriptionIdentifierThatMatchesIsTold(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin", keepSession)
	c.subscribe(1, sub("a/#", 1))
	c.subscribe(268_435_455, sub("a/+", 2))
	c.subscribe(0, sub("+/b", 1))
	c.subscribe(1, sub("#", 0))
	c.subscribe(5, sub("other", 0))
	device := r.client(5, "d", "token-a", keepSession)
	device.subscribe(3, sub("devices/me/notifications", 1))
	device.subscribe(4, sub("devices/me/#", 1))
	ids := func(pk packets.Packet) []int {
		return slices.Sorted(slices.Values(pk.Properties.SubscriptionIdentifier))
	}
	want := []int{1, 1, 268_435_455}
	if err := r.Publish(t.Context(), "a/b", []byte("x"), false, 2); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, ids(c.message("x"))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	c.leave(r.Broker)
	device.leave(r.Broker)
	for _, topic := range []string{"a/b", "devices/a/notifications"} {
		if err := r.Publish(t.Context(), topic, []byte("x"), false, 2); err != nil {
			t.Fatal(err)
		}
	}
	c, device = r.client(5, "c", "admin", keepSession), r.client(5, "d", "token-a", keepSession)
	if d := cmp.Diff(want, ids(c.message("x"))); d != "" {
		t.Errorf("from the queue (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{3, 4}, ids(device.message("x"))); d != "" {
		t.Errorf("of the device's own topics (-want +got):\n%s", d)
	}
	c.subscribe(0, sub("a/#", 1), sub("#", 1)) // a new SUBSCRIBE without one takes it away
	c.unsubscribe("a/+")
	if err := r.Publish(t.Context(), "a/b", []byte("x"), false, 0); err != nil {
		t.Fatal(err)
	}
	if got := ids(c.message("x")); len(got) != 0 {
		t.Errorf("identifiers %v, want none", got)
	}
}

func TestNoLocalKeepsOnlyOnesOwnMessagesBack(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin")
	other := r.client(5, "other", "admin")
	c.subscribe(0, packets.Subscription{Filter: "t", Qos: 1, NoLocal: true})
	c.publish(publishPacket("t", "mine", 1, 1))
	other.publish(publishPacket("t", "theirs", 1, 1))
	c.message("theirs")
	c.subscribe(0, sub("#", 0)) // one without No Local still counts
	c.send(publishPacket("t", "mine", 2, 2))
	kinds := map[byte]int{}
	for range 2 {
		pk, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		kinds[pk.FixedHeader.Type]++
		if pk.FixedHeader.Type == packets.Publish && pk.FixedHeader.Qos != 0 {
			t.Errorf("QoS %d of the subscription with No Local", pk.FixedHeader.Qos)
		}
	}
	if kinds[packets.Publish] != 1 || kinds[packets.Pubrec] != 1 {
		t.Errorf("got %v", kinds)
	}
	s := packets.Subscription{Filter: "$share/g/x", Qos: 1, NoLocal: true}
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 3, Filters: packets.Subscriptions{s}})
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x82 {
		t.Errorf("DISCONNECT %#x for No Local on a shared subscription, want 0x82", bye.ReasonCode)
	}
}

func TestRequestAndUserPropertiesPassThroughInOrder(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin", keepSession)
	c.subscribe(0, sub("request", 2))
	w, old := r.client(5, "w", "admin"), r.client(4, "old", "admin")
	old.subscribe(0, sub("request", 0))
	pk := publishPacket("request", "x", 2, 1)
	pk.Properties = packets.Properties{
		PayloadFormat: 1, PayloadFormatFlag: true, ContentType: "application/json", ResponseTopic: "answer/here",
		CorrelationData: []byte{0, 1, 255}, MessageExpiryInterval: 1000,
		User: []packets.UserProperty{{Key: "z", Val: "1"}, {Key: "a", Val: "2"}, {Key: "z", Val: "1"}, {Key: "", Val: ""}},
	}
	for _, offline := range []bool{false, true} {
		if offline {
			c.leave(r.Broker)
		}
		w.publish(pk)
		if offline {
			c = r.client(5, "c", "admin", keepSession)
		}
		got := c.message("x").Properties
		if left := got.MessageExpiryInterval; left < 995 || left > 1000 {
			t.Errorf("offline %v: %d s left", offline, left)
		}
		got.MessageExpiryInterval = 1000
		if d := cmp.Diff(pk.Properties, got); d != "" {
			t.Errorf("offline %v (-want +got):\n%s", offline, d)
		}
		old.message("x")
	}
	old.send(publishPacket("request", "plain", 0, 0))
	if d := cmp.Diff(packets.Properties{}, c.message("plain").Properties); d != "" {
		t.Errorf("of a 3.1.1 message:\n%s", d)
	}
}

func TestReasonsAndUserPropertiesAreWithheldWhereNotWanted(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", func(pk *packets.Packet) {
		pk.Properties.RequestProblemInfo, pk.Properties.RequestProblemInfoFlag = 0, true
	})
	c.send(subscribePacket(1, "devices/b/desired"))
	if ack := c.next(packets.Suback); ack.ReasonCodes[0] != 0x87 || ack.Properties.ReasonString != "" {
		t.Errorf("SUBACK %#x %q", ack.ReasonCodes, ack.Properties.ReasonString)
	}
	for qos, kind := range map[byte]byte{1: packets.Puback, 2: packets.Pubrec} {
		c.send(publishPacket("elsewhere", "x", qos, 3))
		if ack := c.next(kind); ack.ReasonCode != 0x87 || ack.Properties.ReasonString != "" {
			t.Errorf("%s %#x %q", packets.PacketNames[kind], ack.ReasonCode, ack.Properties.ReasonString)
		}
	}
	r.Kick("a", "a reason that DISCONNECT may say all the same (MQTT 5, 3.1.2.11.7)")
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x98 {
		t.Errorf("DISCONNECT %#x", bye.ReasonCode)
	}
}
