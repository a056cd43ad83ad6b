package broker

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

func TestSubscribingIsAllowedByRights(t *testing.T) {
	tests := []struct {
		name, user, filter string
		v3, v5             byte
	}{
		{"a device to what it receives", "token-a", "devices/a/desired", 1, 1},
		{"a device as me", "token-a", "devices/me/commands/+", 1, 1},
		{"a device to all of its own", "token-a", "devices/me/#", 1, 1},
		{"a device to all levels of firmware", "token-a", "devices/a/firmware/#", 1, 1},
		{"a device with a wildcard that covers a topic it receives", "token-a", "devices/me/+", 1, 1},
		{"a device in a shared subscription", "token-a", "$share/g/devices/me/notifications", 1, 1},
		{"a device to another's topic", "token-a", "devices/b/desired", 0x80, 0x87},
		{"a device to another's topic in a shared subscription", "token-a", "$share/g/devices/b/desired", 0x80, 0x87},
		{"a device to every device", "token-a", "devices/+/desired", 0x80, 0x87},
		{"a device to everything", "token-a", "#", 0x80, 0x87},
		{"a device to everything in a shared subscription", "token-a", "$share/g/#", 0x80, 0x87},
		{"a device to what it sends", "token-a", "devices/me/telemetry", 0x80, 0x87},
		{"a device to its prefix alone", "token-a", "devices/a", 0x80, 0x87},
		{"an admin to everything", "admin", "#", 1, 1},
		{"an admin to server topics", "admin", "$SYS/#", 1, 1},
		{"an admin as me", "admin", "devices/me/desired", 0x80, 0x87},
		{"an account without rights", "nobody", "factory/x", 0x80, 0x87},
		{"a # that does not end the filter", "admin", "a/#/b", 0x80, 0x8f},
		{"a wildcard inside a level", "admin", "a/b+", 0x80, 0x8f},
		{"a shared filter without a filter", "admin", "$share/g", 0x80, 0x8f},
		{"a filter with too many levels", "admin", strings.Repeat("a/", 40), 0x80, 0x8f},
	}
	r := start(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				rr := &rig{Broker: r.Broker, t: t}
				c := rr.client(version, "c", tt.user)
				c.send(subscribePacket(77, tt.filter))
				ack := c.next(packets.Suback)
				want := tt.v3
				if version == 5 {
					want = tt.v5
				}
				if ack.PacketID != 77 || !bytes.Equal(ack.ReasonCodes, []byte{want}) {
					t.Errorf("SUBACK %d %#x, want 77 %#x", ack.PacketID, ack.ReasonCodes, want)
				}
				if version == 5 && want >= 0x80 && ack.Properties.ReasonString == "" {
					t.Error("the refusal gives no reason")
				}
			})
		})
	}
}

func TestASubscribeMayBeGrantedInPart(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "token-a")
		c.send(subscribePacket(8, "devices/b/x", "devices/me/desired", "bad/#/x", "devices/a/errors"))
		want := map[byte][]byte{4: {0x80, 1, 0x80, 1}, 5: {0x87, 1, 0x8f, 1}}[version]
		if ack := c.next(packets.Suback); ack.PacketID != 8 || !bytes.Equal(ack.ReasonCodes, want) {
			t.Errorf("SUBACK %d %#x, want 8 %#x", ack.PacketID, ack.ReasonCodes, want)
		}
	})
}

func TestSubscriptionsOfASessionAreBounded(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxSubscriptions = 3 })
	c := r.client(5, "c", "admin")
	c.subscribed("a", "b")
	c.send(subscribePacket(9, "b", "c", "d"))
	if ack := c.next(packets.Suback); !bytes.Equal(ack.ReasonCodes, []byte{1, 0x97, 0x97}) && !bytes.Equal(ack.ReasonCodes, []byte{1, 1, 0x97}) {
		t.Errorf("SUBACK %#x", ack.ReasonCodes)
	}
}

func TestMessagesGoOutSpelledAsTheSubscriptionWas(t *testing.T) {
	tests := []struct{ name, filter, want string }{
		{"as me", "devices/me/commands/+", "devices/me/commands/c1"},
		{"as me with #", "devices/me/#", "devices/me/commands/c1"},
		{"as me, shared", "$share/g/devices/me/commands/#", "devices/me/commands/c1"},
		{"by id", "devices/a/commands/+", "devices/a/commands/c1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				r := start(t, nil)
				c := r.client(version, "c", "token-a", keepSession)
				c.subscribed(tt.filter)
				expectTopic(t, r, c, tt.want)
				_ = c.nc.Close()
				r.untilGone(t)
				if err := r.Publish(t.Context(), "devices/a/commands/c1", []byte("offline"), false, 1); err != nil {
					t.Fatal(err)
				}
				c = r.client(version, "c", "token-a", keepSession)
				if !strings.HasPrefix(tt.filter, "$share") {
					got := c.next(packets.Publish)
					if got.TopicName != tt.want || string(got.Payload) != "offline" {
						t.Errorf("after the reconnect: %q %q", got.TopicName, got.Payload)
					}
					c.send(ackPacket(packets.Puback, got.PacketID))
				}
				expectTopic(t, r, c, tt.want)
			})
		})
	}
}

func expectTopic(t *testing.T, r *rig, c *raw, want string) {
	t.Helper()
	if err := r.Publish(t.Context(), "devices/a/commands/c1", []byte("now"), false, 0); err != nil {
		t.Fatal(err)
	}
	for {
		pk := c.next(packets.Publish)
		if string(pk.Payload) != "now" {
			c.send(ackPacket(packets.Puback, pk.PacketID))
			continue // queued while offline
		}
		if pk.TopicName != want {
			t.Errorf("delivered as %q, want %q", pk.TopicName, want)
		}
		return
	}
}

func TestUnsubscribeUnderstandsBothSpellings(t *testing.T) {
	for sub, unsub := range map[string]string{
		"devices/me/desired": "devices/me/desired", "devices/a/desired": "devices/me/desired", "devices/me/errors": "devices/a/errors",
	} {
		versions(t, func(t *testing.T, version byte) {
			r := start(t, nil)
			c := r.client(version, "c", "token-a")
			c.subscribed(sub)
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 31, Filters: packets.Subscriptions{
				{Filter: unsub}, {Filter: "$share"},
			}})
			ack := c.next(packets.Unsuback)
			if ack.PacketID != 31 || version == 5 && !bytes.Equal(ack.ReasonCodes, []byte{0, 0x11}) {
				t.Errorf("UNSUBACK %d %#x", ack.PacketID, ack.ReasonCodes)
			}
			if err := r.Publish(t.Context(), strings.Replace(sub, "/me/", "/a/", 1), nil, false, 0); err != nil {
				t.Fatal(err)
			}
			c.quiet()
		})
	}
}

func TestADeviceIsDeliveredOnlyWhatIsMeantForIt(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "c", "token-a")
	c.subscribed("devices/me/#")
	admin := r.client(5, "x", "admin")
	admin.subscribed("devices/a/#")
	c.send(publishPacket("devices/me/reported", "{}", 1, 1))
	c.next(packets.Puback)
	c.quiet()
	if got := admin.next(packets.Publish); got.TopicName != "devices/a/reported" {
		t.Errorf("admin got %q", got.TopicName)
	}
}

func TestMessagePropertiesReachSubscribersAndAcksDoNot(t *testing.T) {
	r := start(t, nil)
	admin := r.client(5, "x", "admin")
	admin.subscribed("devices/+/events/#")
	c := r.client(5, "c", "token-a")
	pk := publishPacket("devices/me/events/door", "open", 1, 1)
	pk.Properties.User = []packets.UserProperty{{Key: "k", Val: "v"}}
	pk.Properties.ContentType, pk.Properties.ResponseTopic = "text/plain", "devices/a/reply"
	c.send(pk)
	if ack := c.next(packets.Puback); len(ack.Properties.User) != 0 {
		t.Errorf("PUBACK carries user properties %v", ack.Properties.User)
	}
	got := admin.next(packets.Publish).Properties
	if d := cmp.Diff(pk.Properties.User, got.User); d != "" || got.ContentType != "text/plain" || got.ResponseTopic != "devices/a/reply" {
		t.Errorf("delivered properties %+v", got)
	}
}

func TestOwnMessagesAreNotDeliveredWithNoLocal(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin")
	sub := subscribePacket(1, "x/y")
	sub.Filters[0].NoLocal = true
	c.send(sub)
	c.next(packets.Suback)
	c.send(publishPacket("x/y", "mine", 1, 2))
	c.next(packets.Puback)
	c.quiet()
}

func TestPacketIDsOfBothDirectionsDoNotCollide(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "c", "token-a", keepSession)
	c.subscribed("devices/me/commands/+")
	if err := r.Publish(t.Context(), "devices/a/commands/1", []byte("do"), false, 1); err != nil {
		t.Fatal(err)
	}
	id := c.next(packets.Publish).PacketID
	c.send(publishPacket("devices/me/telemetry", "x", 1, id)) // the same id, and the command not acked
	c.next(packets.Puback)
	c.send(subscribePacket(id, "devices/me/desired"))
	if ack := c.next(packets.Suback); ack.ReasonCodes[0] != 1 || ack.PacketID != id {
		t.Errorf("SUBACK %d %#x, want %d 1", ack.PacketID, ack.ReasonCodes, id)
	}
	c.send(publishPacket("devices/me/telemetry", "x", 2, id))
	c.next(packets.Pubrec)
	c.send(ackPacket(packets.Pubrel, id))
	c.next(packets.Pubcomp)
	_ = c.nc.Close()
	r.untilGone(t)
	c = r.client(4, "c", "token-a", keepSession)
	if got := c.next(packets.Publish); string(got.Payload) != "do" || !got.FixedHeader.Dup {
		t.Errorf("redelivered %q dup %v, want the command", got.Payload, got.FixedHeader.Dup)
	}
}

func TestQoS2ToASubscriberGoesItsWay(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "token-a")
		sub := subscribePacket(1, "devices/me/commands/+")
		sub.Filters[0].Qos = 2
		c.send(sub)
		c.next(packets.Suback)
		for i := range 100 { // more than mochi's receive quota
			if err := r.Publish(t.Context(), fmt.Sprintf("devices/a/commands/%d", i), nil, false, 2); err != nil {
				t.Fatal(err)
			}
		}
		var ids []uint16
		for len(ids) < 100 {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			if pk.FixedHeader.Type == packets.Publish {
				c.send(ackPacket(packets.Pubrec, pk.PacketID))
			} else {
				ids = append(ids, pk.PacketID)
			}
		}
		c.send(publishPacket("devices/me/telemetry", "x", 1, 1))
		c.next(packets.Puback)
		for _, id := range ids {
			c.send(ackPacket(packets.Pubcomp, id))
		}
		c.quiet()
		slices.Sort(ids)
		if len(slices.Compact(ids)) != 100 {
			t.Error("packet ids were used twice")
		}
	})
}

func TestMessagesOfAnOfflineSessionComeInOrder(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "token-a", keepSession)
		c.subscribed("devices/me/commands/+")
		for round := range 2 {
			_ = c.nc.Close()
			r.untilGone(t)
			for i := range 200 {
				if err := r.Publish(t.Context(), fmt.Sprintf("devices/a/commands/%d", i), nil, false, 1); err != nil {
					t.Fatal(err)
				}
			}
			c = r.client(version, "c", "token-a", keepSession)
			for i := range 200 {
				got := c.next(packets.Publish)
				if want := fmt.Sprintf("devices/me/commands/%d", i); got.TopicName != want {
					t.Fatalf("round %d: got %s, want %s", round, got.TopicName, want)
				}
				c.send(ackPacket(packets.Puback, got.PacketID))
			}
			c.quiet()
		}
	})
}

func TestASessionThatExpiresLeavesNothing(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin", func(pk *packets.Packet) {
		pk.Connect.Clean = false
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 1, true
	})
	c.subscribed("devices/+/telemetry")
	_ = c.nc.Close()
	eventually(t, "the session's end", func() bool { return r.Stats().Sessions == 0 })
	if n := r.index.Len(); n != 0 {
		t.Errorf("%d subscriptions left", n)
	}
}
