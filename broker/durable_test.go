package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func TestNoAckForAKeptSessionBeforeTheLogHasTheMessage(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		for _, retain := range []bool{false, true} {
			t.Run(fmt.Sprintf("QoS %d, retained %v", qos, retain), func(t *testing.T) {
				versions(t, func(t *testing.T, version byte) {
					p := boot(t, newMemLog(), 0, nil)
					reader := p.client(version, "reader", "admin", keepSession)
					if !retain {
						reader.subscribe(0, sub("t", 2))
					}
					c := p.client(version, "c", "admin")
					p.settled()
					p.grip.close()
					pk := publishPacket("t", "x", qos, 1)
					pk.FixedHeader.Retain = retain
					c.send(pk)
					eventually(t, "the append", p.grip.waits)
					c.quiet()
					p.grip.open()
					kind := packets.Puback
					if qos == 2 {
						kind = packets.Pubrec
					}
					if ack := c.next(kind); ack.PacketID != 1 || ack.ReasonCode != 0 {
						t.Errorf("ack %d code %#x", ack.PacketID, ack.ReasonCode)
					}
				})
			})
		}
	}
}

func TestNoSubackOrUnsubackOfAKeptSessionBeforeTheLogHasIt(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		p := boot(t, newMemLog(), 0, nil)
		c, clean := p.client(version, "c", "admin", keepSession), p.client(version, "clean", "admin")
		p.settled()
		p.grip.close()
		c.send(subscribePacket(5, "t"))
		eventually(t, "the append", p.grip.waits)
		c.quiet()
		clean.subscribed("t") // has nothing to wait for
		p.grip.open()
		c.next(packets.Suback)
		p.settled()
		p.grip.close()
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 6, Filters: packets.Subscriptions{{Filter: "t"}}})
		eventually(t, "the append", p.grip.waits)
		c.quiet()
		p.grip.open()
		c.next(packets.Unsuback)
	})
}

func TestPubrecAndPubcompOfAKeptSessionWaitForTheLog(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		p := boot(t, newMemLog(), 0, nil)
		c := p.client(version, "c", "admin", keepSession)
		p.settled()
		p.grip.close()
		c.send(publishPacket("t", "x", 2, 1))
		eventually(t, "the append", p.grip.waits)
		c.quiet()
		p.grip.open()
		c.next(packets.Pubrec)
		p.settled()
		p.grip.close()
		c.send(ackPacket(packets.Pubrel, 1))
		eventually(t, "the append", p.grip.waits)
		c.quiet()
		p.grip.open()
		c.next(packets.Pubcomp)
	})
}

func TestTheServersOwnPublishWaitsForTheLog(t *testing.T) {
	p := boot(t, newMemLog(), 0, nil)
	c := p.client(4, "c", "admin", keepSession)
	c.subscribe(0, sub("t", 1))
	p.settled()
	p.grip.close()
	done := make(chan error, 1)
	go func() { done <- p.Publish(t.Context(), "t", []byte("x"), false, 1) }()
	eventually(t, "the append", p.grip.waits)
	none(t, done, "end of Publish")
	p.grip.open()
	if err := get(t, done, "end of Publish"); err != nil {
		t.Error(err)
	}
}

func TestWhenTheLogIsFullOnlyPublishersToKeptSessionsAreSlowed(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		const window = 4
		p := boot(t, newMemLog(), 0, func(c *Config) { c.Window = window })
		kept := p.client(version, "kept", "admin", keepSession)
		kept.subscribe(0, sub("kept", 1))
		clean := p.client(version, "clean", "admin")
		clean.subscribe(0, sub("clean", 1))
		p.settled()
		p.grip.breakWith(muster.Errorf(muster.Busy, "the log is full"))

		c, device, other := p.client(version, "c", "admin"), p.client(version, "d", "token-a"), p.client(version, "o", "admin")
		for i := range uint16(window) {
			c.send(publishPacket("kept", fmt.Sprint(i), 1, i+1))
		}
		for range window { // a kept session that is connected gets QoS 1 at once
			kept.send(ackPacket(packets.Puback, kept.next(packets.Publish).PacketID))
		}
		if version == 4 { // a fifth one is not read: 3.1.1 knows no Receive Maximum
			c.send(publishPacket("kept", "late", 1, window+1))
		} else {
			c.quiet() // no PUBACK
		}
		kept.quiet()
		for i := range uint16(20) {
			device.publish(publishPacket("devices/me/telemetry", "1", 1, i+1))
			other.publish(publishPacket("clean", fmt.Sprint(i), 1, i+1))
			clean.message(fmt.Sprint(i))
		}
		if n := p.metric("journal_errors_total"); n == 0 {
			t.Error("the log's refusals are not counted")
		}
		p.grip.breakWith(nil)
		for i := range uint16(window) {
			if ack := c.next(packets.Puback); ack.PacketID != i+1 || ack.ReasonCode != 0 {
				t.Errorf("PUBACK %d code %#x, want %d", ack.PacketID, ack.ReasonCode, i+1)
			}
		}
		if version == 4 {
			c.next(packets.Puback)
		}
	})
}

func TestAPublisherIsHeldBackWhileTooMuchIsNotDurable(t *testing.T) {
	p := boot(t, newMemLog(), 0, func(c *Config) { c.Window = 65535; c.MaxQueuedBytes = 1 << 20 })
	kept := p.client(4, "kept", "admin", keepSession)
	kept.subscribe(0, sub("kept", 1))
	kept.leave(p.Broker)
	c := p.client(4, "c", "admin")
	p.settled()
	p.grip.close()
	const size, n = 100 << 10, 150
	sent := make(chan struct{})
	all := encode(t, 4, publishPacket("kept", strings.Repeat("x", size), 1, 1))
	go func() {
		defer close(sent)
		for range n {
			if _, err := c.nc.Write(all); err != nil {
				return
			}
		}
	}()
	eventually(t, "a full journal", p.journal.Full)
	if n := p.journal.Stats().PendingBytes; n > 8<<20+2*size {
		t.Errorf("%d bytes wait for the log", n)
	}
	p.grip.open()
	for range n {
		c.next(packets.Puback)
	}
	get(t, sent, "end of sending")
}
