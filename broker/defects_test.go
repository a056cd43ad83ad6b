package broker

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func TestASessionThatAnotherConnectionEndedIsMadeAnew(t *testing.T) {
	r := start(t, nil)
	fresh := r.newSession("", "root", "c")
	r.sessions.open(fresh)
	fresh.mu.Lock()
	after := fresh.end()
	fresh.mu.Unlock()
	after()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	c := newConn(r.Broker, ours, &Login{})
	done := make(chan bool, 1)
	go r.attach(c, fresh, false, 0, func(present bool) { done <- present })
	if present := get(t, done, "session"); present {
		t.Error("a session that ended is present")
	}
	if s := r.sessionOf("c"); s == nil || s == fresh || s.over() {
		t.Errorf("session %v", s)
	}
}

func TestARetainedMessageAtADevicesNameHurtsNobody(t *testing.T) {
	r := start(t, nil)
	if err := r.Publish(t.Context(), "devices/a", []byte("x"), true, 0); err != nil {
		t.Fatal(err)
	}
	c := r.client(5, "c", "token-a")
	c.subscribe(0, sub("devices/me/#", 1))
	c.quiet()
	if n := r.metric("panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
}

// TestPubrelWaitsForTheLogEvenAfterAReconnect: a PUBREL that leaves before PUBREC is
// durable lets the message arrive twice when the server dies then.
func TestPubrelWaitsForTheLogEvenAfterAReconnect(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		p := boot(t, newMemLog(), 0, nil)
		c := p.client(version, "c", "admin", keepSession)
		c.subscribe(0, sub("t", 2))
		publish(t, p.Broker, 0, 1, 2)
		id := c.next(packets.Publish).PacketID
		p.settled()
		p.grip.close()
		c.send(ackPacket(packets.Pubrec, id))
		eventually(t, "the append", p.grip.waits)
		c.send(ackPacket(packets.Pubrec, id))
		c.quiet()
		c.leave(p.Broker)
		c = p.back(version, "c", "admin")
		c.quiet()
		p.grip.open()
		c.next(packets.Pubrel)
		c.send(ackPacket(packets.Pubcomp, id))
		c.quiet()
	})
}

// TestAFullTableTakesNoSessionAway: MaxSessions is about new sessions.
func TestAFullTableTakesNoSessionAway(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxSessions = 2 })
	for _, id := range []string{"1", "2"} {
		c := r.client(5, id, "admin", expires(600))
		c.leave(r.Broker)
	}
	c := r.dial(5)
	pk := connectPacket(5, "1", "admin", "")
	expires(600)(&pk)
	c.send(pk)
	ack := c.next(packets.Connack)
	if !ack.SessionPresent || ack.Properties.SessionExpiryIntervalFlag {
		t.Errorf("present %v, told an expiry of %d s", ack.SessionPresent, ack.Properties.SessionExpiryInterval)
	}
	c.leave(r.Broker)
	if r.sessionOf("1") == nil {
		t.Error("a session that was kept ends, because there is no room for others")
	}
}

// TestAFlappingClientIsLetInAfterItsWait: the wait is the server's, and not part of
// the time that a client has for its CONNECT.
func TestAFlappingClientIsLetInAfterItsWait(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxTakeovers, c.ConnectTimeout = 1, 300*time.Millisecond })
	for range 2 {
		r.flaps.ended(sessionKey("a", "", "c"), true, r.clock.Load())
	}
	c := r.client(5, "c", "token-a")
	c.quiet()
}

// TestAnExpiredRetainedMessageMakesRoom: what nobody is shown any more must not keep
// others out.
func TestAnExpiredRetainedMessageMakesRoom(t *testing.T) {
	var k clock
	r := start(t, func(c *Config) { c.Now, c.MaxRetainedOwn = k.now, 2 })
	c := r.client(5, "c", "admin")
	for i := range uint16(2) {
		pk := retainedPacket(fmt.Sprint("old/", i), "x", 1, i+1)
		pk.Properties.MessageExpiryInterval = 1
		c.publish(pk)
	}
	k.add(t, r.Broker, 5*time.Second)
	c.publish(retainedPacket("new", "y", 1, 9))
	if got := c.shown(sub("new", 0)); len(got) != 1 {
		t.Errorf("a new message is not retained: %v; %v counted as dropped", got, r.metric("dropped_total", "retained"))
	}
}

// TestAnAliasDoesNotMakeAPacketTooLarge: an alias adds three bytes to its first packet
// (MQTT-3.1.2-24).
func TestAnAliasDoesNotMakeAPacketTooLarge(t *testing.T) {
	r := start(t, nil)
	most := wireSize(t, publishPacket("t", strings.Repeat("x", 200), 0, 0))
	c := r.client(5, "c", "admin", func(pk *packets.Packet) {
		pk.Properties.MaximumPacketSize, pk.Properties.TopicAliasMaximum = uint32(most), 5
	})
	c.subscribe(0, sub("t", 0))
	if err := r.Publish(t.Context(), "t", []byte(strings.Repeat("x", 200)), false, 0); err != nil {
		t.Fatal(err)
	}
	if pk := c.next(packets.Publish); pk.FixedHeader.Remaining+3 > most {
		t.Errorf("a packet of %d bytes, and the client takes %d", pk.FixedHeader.Remaining+3, most)
	}
}

// TestARightThatWasTakenAwayCountsForWhatWaits: a session that was away when a right
// went gets no more of what it may not read.
func TestARightThatWasTakenAwayCountsForWhatWaits(t *testing.T) {
	l := newLock()
	l.who["svc"] = Identity{Name: "svc", Subscribe: []string{"plant/#"}}
	r := guarded(t, l, nil)
	c := r.client(5, "c", "svc", keepSession)
	c.subscribe(0, sub("plant/secret", 1))
	c.leave(r.Broker)
	l.change(func() { l.who["svc"] = Identity{Name: "svc"} })
	r.Recheck(func(who Identity) bool { return who.Name == "svc" })
	if err := r.Publish(t.Context(), "plant/secret", []byte("secret"), false, 1); err != nil {
		t.Fatal(err)
	}
	c = r.client(5, "c", "svc", keepSession)
	if got := payloads(gather(t, c)[0]); len(got) > 0 {
		t.Errorf("gets %q, which was published after its right had gone", got)
	}
}

// TestRetainedQoS0IsBoundedWhileTheLogIsStuck and the next: every way into the journal
// is held back or refused while too much is not durable.
func TestRetainedQoS0IsBoundedWhileTheLogIsStuck(t *testing.T) {
	p := boot(t, newMemLog(), 0, nil)
	c := p.client(4, "c", "admin")
	p.settled()
	p.grip.close()
	all := encode(t, 4, retainedPacket("r", strings.Repeat("x", 100<<10), 0, 0))
	var g group
	g.start(func() {
		for range 150 {
			_, _ = c.nc.Write(all)
		}
	})
	eventually(t, "a full journal, or all", func() bool { return p.journal.Full() || p.in[0].Load() == 150 })
	p.client(4, "other", "token-b").quiet()
	if n := p.journal.Stats().PendingBytes; n > 9<<20 {
		t.Errorf("%d bytes wait for the log, more than 9 MiB", n)
	}
	p.grip.open()
	g.close()
	if err := g.wait(t.Context(), "the publisher"); err != nil {
		t.Fatal(err)
	}
	c.quiet()
	if n := p.in[0].Load(); n != 150 {
		t.Errorf("%d of 150 came through", n)
	}
}

func TestTelemetryForAKeptSessionIsBoundedWhileTheLogIsStuck(t *testing.T) {
	p := boot(t, newMemLog(), 0, func(c *Config) { c.MaxQueuedBytes = 1 << 20 })
	kept := p.client(4, "kept", "admin", keepSession)
	kept.subscribe(0, sub("devices/+/telemetry", 1))
	kept.leave(p.Broker)
	c := p.client(4, "c", "token-a")
	p.settled()
	p.grip.close()
	var g group
	g.start(func() {
		for i := range uint16(150) {
			_, _ = c.nc.Write(encode(t, 4, publishPacket("devices/me/telemetry", strings.Repeat("x", 100<<10), 1, i+1)))
		}
	})
	eventually(t, "an end of taking in", func() bool {
		return p.journal.Full() || len(p.sink.messages) == 150 || len(p.sink.messages) == p.cfg.Window
	})
	p.client(4, "other", "token-b").publish(publishPacket("devices/me/logs", "x", 0, 0))
	if n := p.journal.Stats().PendingBytes; n > 9<<20 {
		t.Errorf("%d bytes wait for the log, more than 9 MiB", n)
	}
	p.grip.open()
	for range 150 {
		c.next(packets.Puback)
	}
	g.close()
	if err := g.wait(t.Context(), "the telemetry"); err != nil {
		t.Fatal(err)
	}
}

// TestACleanSessionsPublisherGoesOnWhileTheLogIsStuck: what needs no log does not wait
// for it.
func TestACleanSessionsPublisherGoesOnWhileTheLogIsStuck(t *testing.T) {
	p := boot(t, newMemLog(), 0, nil)
	kept := p.client(4, "kept", "admin", keepSession)
	kept.subscribe(0, sub("kept", 1))
	kept.leave(p.Broker)
	clean := p.client(4, "clean", "admin")
	clean.subscribe(0, sub("clean", 1))
	p.settled()
	p.grip.close()
	flood := p.client(4, "flood", "admin")
	var g group
	g.start(func() {
		for i := range uint16(64) {
			if _, err := flood.nc.Write(encode(t, 4, publishPacket("kept", strings.Repeat("x", 200<<10), 1, i+1))); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		p.grip.open()
		_ = flood.nc.Close()
		g.wg.Wait()
	})
	eventually(t, "a full journal", p.journal.Full)
	c := p.client(4, "c", "admin")
	c.send(publishPacket("clean", "x", 1, 1), packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	for _, want := range []byte{packets.Puback, packets.Pingresp} {
		pk, err := c.readBy(2 * time.Second)
		if err != nil || pk.FixedHeader.Type != want {
			t.Fatalf("got %s, %v, want %s", packets.PacketNames[pk.FixedHeader.Type], err, packets.PacketNames[want])
		}
	}
	clean.message("x")
}

// readBy is read with a shorter deadline.
func (c *raw) readBy(d time.Duration) (packets.Packet, error) {
	got := make(chan packets.Packet, 1)
	fail := make(chan error, 1)
	go func() {
		pk, err := c.read()
		if err != nil {
			fail <- err
			return
		}
		got <- pk
	}()
	select {
	case pk := <-got:
		return pk, nil
	case err := <-fail:
		return packets.Packet{}, err
	case <-time.After(d):
		_ = c.nc.Close()
		<-fail
		return packets.Packet{}, muster.Errorf(muster.Busy, "nothing within %v", d)
	}
}
