package broker

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func TestAFullQueueLosesItsOldest(t *testing.T) {
	size := (&message{topic: "devices/a/desired", payload: make([]byte, 1000)}).size()
	tests := []struct {
		name   string
		change func(*Config)
	}{
		{"by count", func(c *Config) { c.MaxQueued = 10 }},
		{"by bytes", func(c *Config) { c.MaxQueuedBytes = 10*size + size/2 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				r := start(t, tt.change)
				c := r.client(version, "c", "token-a", keepSession)
				c.subscribe(0, sub("devices/me/desired", 2))
				other := r.client(version, "other", "token-a", keepSession) // of the same device, and up to date
				other.subscribe(0, sub("devices/me/desired", 0))
				c.leave(r.Broker)
				for i := range 25 {
					payload := fmt.Sprintf("%d%s", i, strings.Repeat(" ", 1000-len(fmt.Sprint(i))))
					if err := r.Publish(t.Context(), "devices/a/desired", []byte(payload), false, byte(1+i%2)); err != nil {
						t.Fatal(err)
					}
				}
				page, _, err := r.Clients(ClientsQuery{Device: "a", Limit: 10, Sort: "dropped"})
				if err != nil || page[0].ClientID != "c" || page[0].Dropped != 15 || page[0].Queued != 10 || page[0].Backlog != 10*size || page[1].Dropped != 0 {
					t.Fatalf("%v: %+v", err, page)
				}
				if n, m := r.lost("a"), r.metric("dropped_total", "queue"); n != 15 || m != 15 {
					t.Errorf("counted %d of the device and %v in all, want 15", n, m)
				}
				c = r.client(version, "c", "token-a", keepSession)
				for i := 15; i < 25; i++ {
					pk := c.next(packets.Publish)
					if got := strings.TrimSpace(string(pk.Payload)); got != fmt.Sprint(i) {
						t.Fatalf("got %s, want %d", got, i)
					}
				}
				c.quiet()
			})
		})
	}
}

func TestADroppedMessageIsForgottenInTheJournalToo(t *testing.T) {
	log := newMemLog()
	small := func(c *Config) { c.MaxQueued = 3 }
	p := boot(t, log, 0, small)
	c := p.client(5, "c", "admin", keepSession)
	c.subscribe(0, sub("t", 2))
	c.leave(p.Broker)
	for i := range 10 {
		if err := p.Publish(t.Context(), "t", fmt.Append(nil, i), false, byte(1+i%2)); err != nil {
			t.Fatal(err)
		}
	}
	p.settled()
	p.crash()
	p = boot(t, log, 0, small)
	p.back(5, "c", "admin").messages(numbers(7, 10)...)
}

func TestReceiveMaximumIsHonoured(t *testing.T) {
	for _, most := range []uint16{1, 2, 300} {
		for qos := byte(1); qos <= 2; qos++ {
			t.Run(fmt.Sprintf("%d messages of QoS %d", most, qos), func(t *testing.T) {
				r := start(t, nil)
				c := r.client(5, "c", "admin", keepSession, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = most })
				c.subscribe(0, sub("t", qos), sub("zero", 0))
				in := min(int(most), maxInflight)
				publish(t, r.Broker, 0, in+7, qos)
				flying := receive(t, c, numbers(0, in))
				c.quiet()
				if err := r.Publish(t.Context(), "zero", []byte("z"), false, 2); err != nil {
					t.Fatal(err)
				}
				c.message("z") // QoS 0 does not count
				c.quiet()
				for i := in; i < in+7; i++ { // each that is complete makes room for one
					c.complete(flying[0])
					flying = append(flying[1:], receive(t, c, numbers(i, i+1))...)
					c.quiet()
				}
				for _, pk := range flying {
					c.complete(pk)
				}
				c.quiet()
			})
		}
	}
}

func publish(t *testing.T, b *Broker, from, to int, qos byte) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := b.Publish(t.Context(), "t", fmt.Append(nil, i), false, qos); err != nil {
			t.Fatal(err)
		}
	}
}

func receive(t *testing.T, c *raw, want []string) (got []packets.Packet) {
	t.Helper()
	for _, w := range want {
		pk := c.next(packets.Publish)
		if string(pk.Payload) != w {
			t.Fatalf("got %s, want %s", pk.Payload, w)
		}
		got = append(got, pk)
	}
	return got
}

// complete acknowledges a message to the end. Between the steps of QoS 2 nothing may
// come: PUBREC makes no room.
func (c *raw) complete(pk packets.Packet) {
	c.t.Helper()
	if pk.FixedHeader.Qos == 1 {
		c.send(ackPacket(packets.Puback, pk.PacketID))
		return
	}
	c.send(ackPacket(packets.Pubrec, pk.PacketID))
	if rel := c.next(packets.Pubrel); rel.PacketID != pk.PacketID {
		c.t.Fatalf("PUBREL %d, want %d", rel.PacketID, pk.PacketID)
	}
	c.quiet()
	c.send(ackPacket(packets.Pubcomp, pk.PacketID))
}

func TestAPubrecWithAnErrorEndsTheMessage(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin", keepSession, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 1 })
	c.subscribe(0, sub("t", 2))
	publish(t, r.Broker, 0, 2, 2)
	pk := c.next(packets.Publish)
	rec := ackPacket(packets.Pubrec, pk.PacketID)
	rec.ReasonCode = 0x97
	c.send(rec)
	c.message("1")
	c.leave(r.Broker)
	c = r.client(5, "c", "admin", keepSession)
	c.quiet()
}

func TestAnAckOfAnUnknownMessageIsHarmless(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "admin")
		c.send(ackPacket(packets.Puback, 9), ackPacket(packets.Pubcomp, 9))
		c.quiet()
		c.send(ackPacket(packets.Pubrec, 9))
		if rel := c.next(packets.Pubrel); rel.PacketID != 9 || version == 5 && rel.ReasonCode != 0x92 {
			t.Errorf("PUBREL %d code %#x", rel.PacketID, rel.ReasonCode)
		}
		c.subscribe(0, sub("t", 2))
		publish(t, r.Broker, 0, 1, 2)
		id := c.next(packets.Publish).PacketID
		c.send(ackPacket(packets.Puback, id), ackPacket(packets.Pubcomp, id)) // neither is an answer to QoS 2's PUBLISH
		c.send(ackPacket(packets.Pubrec, id))
		c.next(packets.Pubrel)
		c.send(ackPacket(packets.Pubcomp, id))
		c.quiet()
	})
}

// clock is a clock that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// add moves the clock and waits until the broker has seen it.
func (c *clock) add(t *testing.T, b *Broker, d time.Duration) {
	t.Helper()
	at := c.now().Add(d).UnixMilli()
	c.ahead.Add(int64(d))
	eventually(t, "the time", func() bool { return b.clock.Load() >= at })
}

func TestMessageExpiryIsCountedDownAndKept(t *testing.T) {
	var k clock
	r := start(t, func(c *Config) { c.Now = k.now })
	c := r.client(5, "c", "admin", keepSession)
	c.subscribe(0, sub("t", 2))
	c.leave(r.Broker)
	w := r.client(5, "w", "admin")
	for i, expiry := range []uint32{2, 100, 0, 3} {
		pk := publishPacket("t", fmt.Sprint(i), byte(1+i%2), uint16(i+1))
		pk.Properties.MessageExpiryInterval = expiry
		w.publish(pk)
	}
	k.add(t, r.Broker, 10*time.Second)
	c = r.client(5, "c", "admin", keepSession)
	got := c.messages("1", "2")
	if left := got[0].Properties.MessageExpiryInterval; left < 88 || left > 90 {
		t.Errorf("%d s are left of 100 after 10", left)
	}
	if left := got[1].Properties.MessageExpiryInterval; left != 0 {
		t.Errorf("a message that does not expire has %d s left", left)
	}
	c.quiet()
	if n := r.metric("dropped_total", "expired"); n != 2 {
		t.Errorf("%v messages counted as expired, want 2", n)
	}
}

func TestAnExpiredRetainedMessageIsNotShown(t *testing.T) {
	var k clock
	r := start(t, func(c *Config) { c.Now = k.now })
	c := r.client(5, "c", "admin")
	pk := retainedPacket("r", "short", 1, 1)
	pk.Properties.MessageExpiryInterval = 5
	c.publish(pk)
	c.subscribe(0, sub("r", 0))
	c.message("short")
	k.add(t, r.Broker, 6*time.Second)
	c.subscribe(0, sub("r", 0))
	c.quiet()
}

func TestAPacketOfTheClientsMaximumIsSentAndALargerIsNot(t *testing.T) {
	r := start(t, nil)
	probe := r.client(5, "probe", "admin")
	probe.subscribe(0, sub("t", 1))
	fits := wireSize(t, publishPacket("t", strings.Repeat("x", 100), 1, 1))
	c := r.client(5, "c", "admin", keepSession, func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = uint32(fits) })
	c.subscribe(0, sub("t", 1))
	for _, n := range []int{101, 100, 99, 5000, 1} {
		if err := r.Publish(t.Context(), "t", []byte(strings.Repeat("x", n)), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{100, 99, 1} {
		c.message(strings.Repeat("x", n))
	}
	c.quiet()
	if n := r.metric("dropped_total", "too_large"); n != 2 {
		t.Errorf("%v counted, want 2", n)
	}
	c.leave(r.Broker)
	c = r.client(5, "c", "admin", keepSession) // what was too large does not come back
	c.quiet()
}

func wireSize(t *testing.T, pk packets.Packet) int {
	t.Helper()
	return len(encode(t, 5, pk))
}

func TestTopicAliasesAreGivenWithinTheClientsMaximum(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "admin", func(pk *packets.Packet) { pk.Properties.TopicAliasMaximum = 2 })
	c.subscribe(0, sub("#", 1))
	names := map[uint16]string{}
	var got []string
	var want []string
	for i := range 12 {
		topic := fmt.Sprintf("topic/%d", i%3)
		if err := r.Publish(t.Context(), topic, nil, false, byte(i%2)); err != nil {
			t.Fatal(err)
		}
		want = append(want, topic)
		pk := c.next(packets.Publish)
		a := pk.Properties.TopicAlias
		switch {
		case a > 2:
			t.Fatalf("topic alias %d over the maximum", a)
		case pk.TopicName == "" && a == 0:
			t.Fatal("neither topic nor alias")
		case pk.TopicName == "":
			pk.TopicName = names[a]
		case a > 0:
			if i >= 3 {
				t.Error("a topic is spelled out again with its alias")
			}
			names[a] = pk.TopicName
		}
		got = append(got, pk.TopicName)
		if pk.FixedHeader.Qos == 1 {
			c.send(ackPacket(packets.Puback, pk.PacketID))
		}
	}
	if d := cmp.Diff(want, got); d != "" || len(names) != 2 {
		t.Errorf("aliases %v (-want +got):\n%s", names, d)
	}
	plain := r.client(5, "plain", "admin")
	plain.subscribe(0, sub("t", 0))
	if err := r.Publish(t.Context(), "t", nil, false, 0); err != nil {
		t.Fatal(err)
	}
	if pk := plain.next(packets.Publish); pk.Properties.TopicAlias != 0 {
		t.Error("an alias for a client that takes none")
	}
}

func TestAliasesEndWithTheirConnection(t *testing.T) {
	r := start(t, nil)
	five := func(pk *packets.Packet) { pk.Properties.TopicAliasMaximum = 5 }
	c := r.client(5, "c", "admin", keepSession, five)
	c.subscribe(0, sub("t", 1))
	publish(t, r.Broker, 0, 2, 1)
	receive(t, c, numbers(0, 2))
	c.leave(r.Broker)
	c = r.client(5, "c", "admin", keepSession, five)
	if pk := c.next(packets.Publish); pk.TopicName != "t" || pk.Properties.TopicAlias != 1 {
		t.Errorf("the first message of a connection has topic %q and alias %d", pk.TopicName, pk.Properties.TopicAlias)
	}
	if pk := c.next(packets.Publish); pk.TopicName != "" || pk.Properties.TopicAlias != 1 {
		t.Errorf("the second has topic %q and alias %d", pk.TopicName, pk.Properties.TopicAlias)
	}
}
