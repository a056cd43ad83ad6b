package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestAPacketOverTheMaximumIsRefusedUnread(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, func(c *Config) { c.MaxPacket = 2048 })
		r.sink.hold()
		c := r.client(version, "c", "token-a")
		fits := publishPacket("devices/me/telemetry", strings.Repeat("x", 1000), 1, 1)
		c.send(fits)
		m := get(t, r.sink.messages, "message that fits")
		m.From.Acked(m.Token, nil)
		c.next(packets.Puback)
		head := encode(t, version, publishPacket("devices/me/telemetry/big", strings.Repeat("x", 5000), 1, 2))
		c.write(head[:100]) // the rest never comes
		if version == 5 {
			if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x95 {
				t.Errorf("DISCONNECT %#x, want 0x95", bye.ReasonCode)
			}
		}
		c.ended()
		got := get(t, r.sink.refusals, "refusal")
		if got.Code != "too_large" || got.Size != len(head) || got.Topic != "devices/a/telemetry/big" || got.Device != "a" {
			t.Errorf("kept: %+v, want size %d", got, len(head))
		}
		if r.metric("refused_total", "too_large") != 1 {
			t.Error("not counted")
		}
	})
}

func TestATooLargePacketThatComesInPiecesIsShownWithItsTopic(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxPacket = 2048 })
	head := encode(t, 5, publishPacket("devices/me/telemetry/big", strings.Repeat("x", 5000), 1, 2))
	for _, cut := range []int{3, 4, 5, 20} { // after the fixed header, in and after the topic's size, in the topic
		c := r.client(5, "c", "token-a")
		before := r.metric("received_bytes_total")
		c.write(head[:cut])
		eventually(t, "the first piece is read", func() bool { return r.metric("received_bytes_total") == before+float64(cut) })
		c.write(head[cut:100])
		if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x95 {
			t.Errorf("cut at %d: DISCONNECT %#x, want 0x95", cut, bye.ReasonCode)
		}
		if got := get(t, r.sink.refusals, "refusal"); got.Topic != "devices/a/telemetry/big" || got.Size != len(head) {
			t.Errorf("cut at %d: kept %+v", cut, got)
		}
	}
}

func TestDisconnectReachesAClientThatStillSends(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxPacket = 2048 })
	c := r.client(5, "c", "token-a")
	c.write(encode(t, 5, publishPacket("devices/me/telemetry", strings.Repeat("x", 300_000), 1, 2)))
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x95 {
		t.Errorf("DISCONNECT %#x, want 0x95", bye.ReasonCode)
	}
}

func TestMessagesBeforeATooLargeOneAreHandled(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxPacket = 2048 })
	c := r.client(5, "c", "token-a")
	c.write(append(encode(t, 5, publishPacket("devices/me/telemetry", "ok", 1, 1)),
		encode(t, 5, publishPacket("devices/me/telemetry", strings.Repeat("x", 5000), 1, 2))...))
	if m := get(t, r.sink.messages, "message"); string(m.Payload) != "ok" {
		t.Errorf("payload %q", m.Payload)
	}
	if ack := c.next(packets.Puback); ack.PacketID != 1 {
		t.Errorf("PUBACK %d, want 1", ack.PacketID)
	}
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x95 {
		t.Errorf("DISCONNECT %#x, want 0x95", bye.ReasonCode)
	}
}

func TestALargeConnectIsRefusedUnread(t *testing.T) {
	r := start(t, nil)
	c := r.dial(4)
	c.write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f})
	c.ended()
	if r.metric("disconnects_total", "too_large") != 1 {
		t.Error("not counted")
	}
}

func TestASilentSocketIsClosedAtTheDeadline(t *testing.T) {
	r := start(t, func(c *Config) { c.ConnectTimeout = 50 * time.Millisecond })
	silent, drip := r.dial(4), r.dial(4)
	drip.write([]byte{0x10, 12, 0, 4, 'M'})
	silent.ended()
	drip.ended()
	r.halt()
	if n := r.metric("disconnects_total", "no_connect"); n != 2 {
		t.Errorf("%v connections timed out, want 2", n)
	}
}

func TestHalfOpenConnectionsAreBounded(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxHalfOpen = 2 })
	first := r.dial(4)
	eventually(t, "the first connection", func() bool { return r.Stats().HalfOpen == 1 })
	second := r.dial(4)
	eventually(t, "the second connection", func() bool { return r.Stats().HalfOpen == 2 })
	known := r.client(4, "c", "token-a") // evicts the oldest
	first.ended()
	known.quiet()
	second.send(connectPacket(4, "d", "token-b", ""))
	second.next(packets.Connack)
}

func TestKeepAliveIsKept(t *testing.T) {
	tests := []struct {
		name      string
		keepalive uint16
		cut       bool
	}{
		{"a silent client is cut after one and a half times its keep alive", 1, true},
		{"43691 s does not overflow", 43691, false},
		{"65535 s does not overflow", 65535, false},
		{"0 is off", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil)
			began := time.Now()
			c := r.client(5, "c", "token-a", func(pk *packets.Packet) { pk.Connect.Keepalive = tt.keepalive })
			if !tt.cut {
				c.quiet()
				c.quiet()
				return
			}
			if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x8d {
				t.Errorf("DISCONNECT %#x, want 0x8d", bye.ReasonCode)
			}
			if d := time.Since(began); d < 1400*time.Millisecond {
				t.Errorf("cut after %v", d)
			}
			get(t, r.watch.events, "presence event")
			if e := get(t, r.watch.events, "presence event"); e.Reason != "keepalive" {
				t.Errorf("reason %q, want keepalive", e.Reason)
			}
		})
	}
}

// malformed is what a client might send after its CONNECT.
func malformed() map[string][]byte {
	longTopic := append([]byte{0x30, 3, 0xff, 0xff}, 'a')
	return map[string][]byte{
		"a reserved type":                       {0x00, 0},
		"a type only servers send":              {0x20, 2, 0, 0},
		"a length of five bytes":                {0x30, 0x80, 0x80, 0x80, 0x80, 0x01},
		"QoS 3":                                 {0x36, 5, 0, 1, 'a', 0, 1},
		"a duplicate of QoS 0":                  {0x38, 3, 0, 1, 'a'},
		"flags of SUBSCRIBE":                    {0x80, 6, 0, 1, 0, 1, 'a', 0},
		"flags of PUBREL":                       {0x60, 2, 0, 1},
		"a topic beyond the packet":             longTopic,
		"a wildcard in a topic":                 {0x30, 3, 0, 1, '#'},
		"an empty topic":                        {0x30, 2, 0, 0},
		"a topic that is no UTF-8":              {0x30, 3, 0, 1, 0xff},
		"packet id 0":                           {0x32, 5, 0, 1, 'a', 0, 0},
		"a PUBLISH without packet id":           {0x32, 3, 0, 1, 'a'},
		"a SUBSCRIBE without filters":           {0x82, 2, 0, 1},
		"a SUBSCRIBE cut short":                 {0x82, 5, 0, 1, 0, 1, 'a'},
		"a SUBSCRIBE without packet id":         {0x82, 0},
		"an UNSUBSCRIBE cut short":              {0xa2, 5, 0, 1, 0, 5, 'a'},
		"an UNSUBSCRIBE without filters":        {0xa2, 2, 0, 1},
		"an empty PUBREL":                       {0x62, 0},
		"an empty PUBACK":                       {0x40, 0},
		"a second CONNECT of one byte":          {0x10, 1, 0},
		"an endless property length":            {0x30, 6, 0, 1, 'a', 0xff, 0xff, 0xff},
		"a SUBSCRIBE cut short before its QoS":  {0x82, 6, 0, 1, 0, 0, 1, 'a'},
		"a DISCONNECT with unknown properties":  {0xe0, 4, 0, 2, 0x7f, 0},
		"an AUTH":                               {0xf0, 0},
		"a property that PUBLISH does not have": {0x30, 6, 0, 1, 'a', 2, 0x17, 1},
	}
}

// harmless are those of malformed that one version reads as a valid packet.
func harmless(name string, version byte) bool {
	switch name {
	case "an endless property length", "a property that PUBLISH does not have":
		return version == 4 // payload
	case "a DISCONNECT with unknown properties":
		return version == 4
	}
	return false
}

func TestMalformedPacketsEndTheirConnectionOnly(t *testing.T) {
	for name, bad := range malformed() {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				r := start(t, nil)
				bystander := r.client(version, "bystander", "token-b")
				c := r.client(version, "c", "token-a")
				c.write(bad)
				if harmless(name, version) {
					if name[:12] != "a DISCONNECT" {
						c.quiet()
					}
					bystander.quiet()
					return
				}
				pk, err := c.read()
				if version == 5 && err == nil && pk.FixedHeader.Type == packets.Disconnect && pk.ReasonCode >= 0x80 {
					pk, err = c.read()
				}
				if err == nil {
					t.Errorf("got %s, want the end", packets.PacketNames[pk.FixedHeader.Type])
				} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
					t.Error("the connection does not end")
				}
				bystander.quiet()
			})
		})
	}
}

func TestAPanicEndsItsConnectionOnlyAndIsLoggedOnce(t *testing.T) {
	r := start(t, nil)
	bystander := r.client(5, "bystander", "token-b")
	for i := range 3 {
		c := r.client(5, fmt.Sprint(i), "token-a")
		c.subscribed("devices/me/desired")
		c.write([]byte{0x82, 6, 0, 1, 0, 0, 1, 'a'}) // MQTT 5, without the options byte
		if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x81 {
			t.Errorf("DISCONNECT %#x, want 0x81", bye.ReasonCode)
		}
		c.ended()
	}
	bystander.quiet()
	r.halt()
	if got := r.Stats().Sessions; got != 0 {
		t.Errorf("%d sessions left, want none", got)
	}
}

func TestAStalledReaderHurtsNobodyElse(t *testing.T) {
	for _, version := range []byte{4, 5} {
		r := start(t, nil)
		stalled := r.client(version, "stalled", "admin", func(pk *packets.Packet) {
			pk.Connect.Keepalive = 0
			pk.Properties.ReceiveMaximum = 200
		})
		healthy, pub := r.client(version, "healthy", "admin"), r.client(version, "pub", "admin")
		stalled.subscribed("load")
		healthy.subscribed("load")
		big := strings.Repeat("x", 100_000)
		for i := range 300 { // 30 MB, far more than sockets and the outbox hold
			pub.send(publishPacket("load", big, 1, uint16(i+1)))
			pub.next(packets.Puback)
			got := healthy.next(packets.Publish)
			healthy.send(ackPacket(packets.Puback, got.PacketID))
		}
		pub.quiet()
		r.client(version, "stalled", "admin").quiet() // its id can be taken over
	}
}

func TestALiveClientGetsEverythingInOrder(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		sub, pub := r.client(version, "sub", "admin"), r.client(version, "pub", "admin")
		sub.subscribed("numbers")
		for i := range uint32(2000) {
			pub.send(publishPacket("numbers", string(binary.BigEndian.AppendUint32(nil, i)), 1, uint16(i%60000+1)))
			pub.next(packets.Puback)
			got := sub.next(packets.Publish)
			if binary.BigEndian.Uint32(got.Payload) != i {
				t.Fatalf("message %d is %x", i, got.Payload)
			}
			sub.send(ackPacket(packets.Puback, got.PacketID))
		}
	})
}

func TestMessagesAreNotSentOverTheClientsMaximum(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 60 })
	c.subscribed("devices/me/desired")
	if err := r.Publish(t.Context(), "devices/a/desired", bytes.Repeat([]byte("x"), 100), false, 0); err != nil {
		t.Fatal(err)
	}
	c.send(publishPacket("devices/b/telemetry", "x", 1, 1))
	if ack := c.next(packets.Puback); ack.ReasonCode != 0x87 || ack.Properties.ReasonString != "" {
		t.Errorf("PUBACK %#x with reason %q, want 0x87 without one", ack.ReasonCode, ack.Properties.ReasonString)
	}
	c.quiet()
}

func TestAClientThatWantsNoReasonsGetsNone(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", func(pk *packets.Packet) {
		pk.Properties.RequestProblemInfoFlag = true
		pk.Properties.RequestProblemInfo = 0
	})
	c.send(publishPacket("devices/b/telemetry", "x", 1, 1), subscribePacket(2, "#"))
	if ack := c.next(packets.Puback); ack.ReasonCode != 0x87 || ack.Properties.ReasonString != "" {
		t.Errorf("PUBACK %#x with reason %q", ack.ReasonCode, ack.Properties.ReasonString)
	}
	if ack := c.next(packets.Suback); ack.ReasonCodes[0] != 0x87 || ack.Properties.ReasonString != "" {
		t.Errorf("SUBACK %#x with reason %q", ack.ReasonCodes, ack.Properties.ReasonString)
	}
}
