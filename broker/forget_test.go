package broker

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// What was queued and retained for a device that was deleted does not pass to the
// next device with its id.
func TestADeletedDevicesSessionsAreNobodys(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "c", "token-a", keepSession)
	c.subscribed("devices/me/commands/+")
	_ = c.nc.Close()
	r.untilGone(t)
	if err := r.Publish(t.Context(), "devices/a/commands/1", []byte("secret"), false, 1); err != nil {
		t.Fatal(err)
	}
	live := r.client(5, "live", "token-a")
	kept := publishPacket("devices/me/events/door", "open", 1, 1)
	kept.FixedHeader.Retain = true
	live.send(kept)
	live.next(packets.Puback)
	r.Forget("a", "")
	if bye := live.next(packets.Disconnect); bye.ReasonCode != 0x87 {
		t.Errorf("DISCONNECT %#x, want 0x87", bye.ReasonCode)
	}
	if n := r.retained.tree.Len(); n != 0 {
		t.Errorf("%d retained messages left", n)
	}
	next := r.dial(4)
	again := connectPacket(4, "c", "token-a", "")
	again.Connect.Clean = false
	next.write(encode(t, 4, again))
	if ack := next.next(packets.Connack); ack.SessionPresent {
		t.Error("the next device with the id is given the session of the one before")
	}
	next.quiet()
}
