package broker

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

// bound is an account that is bound to devices a and b, until left is true to a alone.
func bound(left *atomic.Bool) Identity {
	return Identity{
		Name: "bound", Subscribe: []string{"devices/+/telemetry/#", "devices/+/presence", "plant/#"},
		Publish: []string{"devices/+/commands/+", "plant/#"}, ReadFree: true, WriteFree: true,
		May: func(id muster.DeviceID) bool { return id == "a" || id == "b" && !left.Load() },
	}
}

func TestAnAccountThatIsBoundToSomeDevicesUsesNoOtherTopics(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		var left atomic.Bool
		l := newLock()
		l.who["bound"] = bound(&left)
		r := guarded(t, l, nil)
		c, all := r.client(version, "c", "bound"), r.client(version, "all", "admin")
		all.subscribe(0, sub("devices/+/commands/+", 0), sub("plant/#", 0))
		filters := []string{
			"devices/a/telemetry", "devices/b/telemetry/#", "devices/x/telemetry", "devices/+/telemetry/#", "#", "devices/#", "+/+/telemetry",
			"plant/a", "devices/a/commands/+/result", "$share/g/devices/+/telemetry", "$share/g/devices/a/telemetry",
		}
		no := map[byte]byte{4: 0x80, 5: 0x87}[version]
		c.send(subscribePacket(1, filters...))
		want := []byte{1, 1, no, 1, no, no, no, no, no, no, no}
		if ack := c.next(packets.Suback); !slices.Equal(ack.ReasonCodes, want) {
			t.Errorf("SUBACK %#x, want %#x", ack.ReasonCodes, want)
		}
		for i, topic := range []string{"devices/x/commands/1", "plant/a", "free/topic", "devices/a/commands/1"} {
			c.send(publishPacket(topic, topic, 1, uint16(2+i)))
			c.next(packets.Puback)
		}
		all.quietExcept("devices/a/commands/1")
		left.Store(true)
		c.send(publishPacket("devices/b/commands/1", "late", 1, 9))
		c.next(packets.Puback)
		all.quiet()
	})
}

func TestAnAccountHearsOfADeviceOnlyWhileItIsBoundToIt(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		for _, qos := range []byte{0, 1} {
			var left atomic.Bool
			l := newLock()
			l.who["bound"] = bound(&left)
			r := guarded(t, l, nil)
			if err := r.Publish(t.Context(), "devices/x/telemetry/old", []byte("retained outside"), true, 1); err != nil {
				t.Fatal(err)
			}
			if err := r.Publish(t.Context(), "devices/b/telemetry/old", []byte("retained"), true, 1); err != nil {
				t.Fatal(err)
			}
			c := r.client(version, "c", "bound")
			c.subscribe(0, sub("devices/+/telemetry/#", qos))
			c.message("retained")
			say := func(id, payload string) {
				t.Helper()
				if err := r.Publish(t.Context(), "devices/"+id+"/telemetry", []byte(payload), false, qos); err != nil {
					t.Fatal(err)
				}
			}
			say("x", "outside")
			say("b", "in")
			c.quietExcept("in")
			left.Store(true)
			say("b", "left")
			say("a", "still")
			c.quietExcept("still")
			left.Store(false)
			say("b", "back")
			c.quietExcept("back")
		}
	})
}

func TestWhatCameWhileAnAccountWasAwayIsJudgedWhenItIsBack(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		var left atomic.Bool
		l := newLock()
		l.who["bound"] = bound(&left)
		r := guarded(t, l, nil)
		c := r.client(version, "c", "bound", keepSession)
		c.subscribe(0, sub("devices/+/telemetry", 1))
		_ = c.nc.Close()
		eventually(t, "the end of the connection", func() bool { return r.Stats().Connections == 0 })
		for _, id := range []string{"x", "b", "a"} {
			if err := r.Publish(t.Context(), "devices/"+id+"/telemetry", []byte(id), false, 1); err != nil {
				t.Fatal(err)
			}
		}
		left.Store(true)
		r.client(version, "c", "bound", keepSession).quietExcept("a")
	})
}
