package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

func expires(seconds uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.Clean = false
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = seconds, true
	}
}

func goodbye(code byte, expiry ...uint32) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: code}
	for _, e := range expiry {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = e, true
	}
	return pk
}

func TestAWillPassesWithItsProperties(t *testing.T) {
	r := start(t, nil)
	admin := r.client(5, "x", "admin")
	admin.subscribe(0, sub("#", 2))
	c := r.client(5, "c", "admin", func(pk *packets.Packet) {
		p := &pk.Connect
		p.WillFlag, p.WillTopic, p.WillPayload, p.WillQos, p.WillRetain = true, "last", []byte("gone"), 2, true
		p.WillProperties = packets.Properties{
			MessageExpiryInterval: 60, ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte("c"),
			User: []packets.UserProperty{{Key: "b", Val: "1"}, {Key: "a", Val: "2"}},
		}
	})
	_ = c.nc.Close()
	got := admin.message("gone")
	if left := got.Properties.MessageExpiryInterval; left < 58 || left > 60 || got.FixedHeader.Qos != 2 {
		t.Errorf("%d s left, QoS %d", left, got.FixedHeader.Qos)
	}
	got.Properties.MessageExpiryInterval = 0
	want := packets.Properties{
		ContentType: "text/plain", ResponseTopic: "r", CorrelationData: []byte("c"),
		User: []packets.UserProperty{{Key: "b", Val: "1"}, {Key: "a", Val: "2"}},
	}
	if d := cmp.Diff(want, got.Properties); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := admin.shown(sub("last", 0)); len(got) != 1 {
		t.Errorf("the will is not retained: %v", got)
	}
}

func TestAWillIsSentOrNotAsTheClientLeaves(t *testing.T) {
	tests := []struct {
		name   string
		v3, v5 bool // whether the will is sent
		leave  func(r *rig, c *raw)
	}{
		{"DISCONNECT", false, false, func(_ *rig, c *raw) { c.send(goodbye(0)) }},
		{"DISCONNECT with will", false, true, func(_ *rig, c *raw) { c.send(goodbye(4)) }},
		{"DISCONNECT of another client", true, true, func(r *rig, c *raw) {
			other := r.client(c.version, "other", "token-a")
			other.send(goodbye(0))
			other.ended()
			_ = c.nc.Close()
		}},
		{"a closed socket", true, true, func(_ *rig, c *raw) { _ = c.nc.Close() }},
		{"a malformed packet", true, true, func(_ *rig, c *raw) { c.write([]byte{0xf0, 0}) }},
		{"a takeover", true, true, func(r *rig, c *raw) { r.client(c.version, "c", "token-a", keep) }},
		{"a kick", true, true, func(r *rig, _ *raw) { r.Kick("a", "for a test") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				r := start(t, nil)
				c := r.client(version, "c", "token-a", withWill("devices/me/telemetry", "gone", 0, 60), keep)
				tt.leave(r, c)
				r.untilGone(t)
				if want := version == 5 && tt.v5 || version == 4 && tt.v3; want {
					get(t, r.sink.messages, "will")
				}
				r.halt()
				none(t, r.sink.messages, "will")
			})
		})
	}
}

func TestADelayedWillIsCancelledByDisconnect(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "gone", 1, 60), keep)
	c.send(goodbye(0))
	r.untilGone(t)
	if s := r.sessionOf("c"); s == nil || s.due() < r.clock.Load()+30_000 {
		t.Error("a will waits, though the client said DISCONNECT")
	}
}

func TestAWillsExpiryBeginsWhenItIsSent(t *testing.T) {
	var k clock
	r := start(t, func(c *Config) { c.Now = k.now })
	admin := r.client(5, "x", "admin")
	admin.subscribe(0, sub("devices/#", 1))
	c := r.client(5, "c", "token-a", withWill("devices/me/events/lost", "gone", 30, 600), keep, func(pk *packets.Packet) {
		pk.Connect.WillProperties.MessageExpiryInterval = 10
	})
	c.leave(r.Broker)
	k.add(t, r.Broker, 20*time.Second)
	admin.quiet()
	k.add(t, r.Broker, 11*time.Second)
	if left := admin.message("gone").Properties.MessageExpiryInterval; left < 9 || left > 10 {
		t.Errorf("%d s left of 10", left)
	}
}

func TestSessionExpiryIsBoundedAndTold(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxSessionExpiry = time.Hour })
	for asked, told := range map[uint32]uint32{0xffffffff: 3600, 3601: 3600, 3600: 0, 5: 0, 0: 0} {
		c := r.dial(5)
		pk := connectPacket(5, "c", "admin", "")
		expires(asked)(&pk)
		c.send(pk)
		ack := c.next(packets.Connack)
		if ack.Properties.SessionExpiryInterval != told || ack.Properties.SessionExpiryIntervalFlag != (told > 0) {
			t.Errorf("asked for %d s, told %d (%v), want %d", asked, ack.Properties.SessionExpiryInterval, ack.Properties.SessionExpiryIntervalFlag, told)
		}
		if got := r.sessionOf("c").state.Load().expiry; got != time.Duration(min(asked, 3600))*time.Second {
			t.Errorf("asked for %d s, got %v", asked, got)
		}
		c.leave(r.Broker)
	}
	r.client(4, "old", "admin", keep)
	if got := r.sessionOf("old").state.Load().expiry; got != time.Hour {
		t.Errorf("a 3.1.1 session is kept for %v", got)
	}
}

func TestSessionExpiryMayBeChangedAtDisconnect(t *testing.T) {
	tests := []struct {
		name     string
		asked    uint32
		changed  []uint32
		want     time.Duration // kept for, 0: not
		protocol bool          // it is an error
	}{
		{"not", 600, nil, 600 * time.Second, false},
		{"to less", 600, []uint32{5}, 5 * time.Second, false},
		{"to none", 600, []uint32{0}, 0, false},
		{"to for ever, which is bounded", 600, []uint32{0xffffffff}, 7 * 24 * time.Hour, false},
		{"of none to none", 0, []uint32{0}, 0, false},
		{"of none to some", 0, []uint32{5}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := newMemLog()
			p := boot(t, log, 0, nil)
			c := p.client(5, "c", "admin", expires(tt.asked))
			c.subscribe(0, sub("t", 1))
			c.send(goodbye(0, tt.changed...))
			if tt.protocol {
				if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x82 {
					t.Errorf("DISCONNECT %#x, want 0x82", bye.ReasonCode)
				}
			}
			c.ended()
			eventually(t, "the end", func() bool { n, _ := p.conns.count(); return n == 0 })
			for range 2 { // and after a crash
				s := p.sessionOf("c")
				if (s != nil) != (tt.want > 0) || s != nil && s.state.Load().expiry != tt.want {
					t.Fatalf("session %v, want one kept for %v", s, tt.want)
				}
				p.settled()
				p.crash()
				p = boot(t, log, 0, nil)
			}
		})
	}
}

func TestTakingASessionOver(t *testing.T) {
	for _, clean := range []bool{false, true} {
		versions(t, func(t *testing.T, version byte) {
			r := start(t, nil)
			old := r.client(version, "c", "admin", keepSession)
			old.subscribe(0, sub("t", 2))
			publish(t, r.Broker, 0, 4, 2)
			flying := receive(t, old, numbers(0, 4))
			old.complete(flying[0])
			old.send(ackPacket(packets.Pubrec, flying[1].PacketID))
			old.next(packets.Pubrel)
			c := r.dial(version)
			pk := connectPacket(version, "c", "admin", "")
			keepSession(&pk)
			pk.Connect.Clean = clean
			c.send(pk)
			if version == 5 {
				if bye := old.next(packets.Disconnect); bye.ReasonCode != 0x8e {
					t.Errorf("DISCONNECT %#x, want 0x8e", bye.ReasonCode)
				}
			}
			old.ended()
			if ack := c.next(packets.Connack); ack.SessionPresent == clean {
				t.Errorf("clean start %v: session present %v", clean, ack.SessionPresent)
			}
			if clean {
				publish(t, r.Broker, 0, 1, 1)
				c.quiet()
				return
			}
			if rel := c.next(packets.Pubrel); rel.PacketID != flying[1].PacketID {
				t.Errorf("PUBREL %d, want %d", rel.PacketID, flying[1].PacketID)
			}
			for i, pk := range receive(t, c, numbers(2, 4)) {
				if !pk.FixedHeader.Dup || pk.PacketID != flying[i+2].PacketID {
					t.Errorf("sent again as %d, DUP %v", pk.PacketID, pk.FixedHeader.Dup)
				}
			}
			c.quiet()
		})
	}
}

func TestTheServersKeepAliveIsImposedAndTold(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxKeepAlive = 30 * time.Second })
	for asked, told := range map[uint16]uint16{0: 30, 31: 30, 65535: 30, 30: 0, 5: 0} {
		c := r.dial(5)
		pk := connectPacket(5, "c", "admin", "")
		pk.Connect.Keepalive = asked
		c.send(pk)
		ack := c.next(packets.Connack)
		want := asked
		if told > 0 {
			want = told
		}
		page, _, _ := r.Clients(ClientsQuery{Limit: 1})
		if ack.Properties.ServerKeepAlive != told || page[0].KeepAlive != int(want) {
			t.Errorf("asked for %d: told %d, kept %d", asked, ack.Properties.ServerKeepAlive, page[0].KeepAlive)
		}
		c.leave(r.Broker)
	}
	c := r.client(4, "old", "admin", func(pk *packets.Packet) { pk.Connect.Keepalive = 600 })
	if page, _, _ := r.Clients(ClientsQuery{Limit: 1}); page[0].KeepAlive != 600 {
		t.Errorf("a 3.1.1 client, which cannot be told, has %d", page[0].KeepAlive)
	}
	c.quiet()
}

func TestALongKeepAliveIsKeptToTheSecond(t *testing.T) {
	for _, s := range []int{1, 43691, 65535} {
		versions(t, func(t *testing.T, version byte) {
			var k clock
			r := start(t, func(c *Config) { c.Now, c.Tick = k.now, 200*time.Millisecond })
			c := r.client(version, "c", "admin", func(pk *packets.Packet) { pk.Connect.Keepalive = uint16(s) })
			c.quiet()
			if s > 1 {
				k.add(t, r.Broker, time.Duration(s)*time.Second*3/2-2*time.Second)
				eventually(t, "a turn of the wheel", func() bool { return r.connectedFor() })
				c.quiet()
			}
			k.add(t, r.Broker, time.Duration(s)*time.Second*3/2+time.Second)
			if version == 5 {
				if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x8d {
					t.Errorf("DISCONNECT %#x, want 0x8d", bye.ReasonCode)
				}
			}
			c.ended()
		})
	}
}

func (r *rig) connectedFor() bool { n, _ := r.conns.count(); return n == 1 }

func TestAClientIDIsAssigned(t *testing.T) {
	r := start(t, nil)
	seen := map[string]bool{}
	for range 3 {
		c := r.dial(5)
		c.send(connectPacket(5, "", "admin", ""))
		id := c.next(packets.Connack).Properties.AssignedClientID
		if id == "" || seen[id] || r.sessionOf(id) == nil {
			t.Errorf("assigned %q", id)
		}
		seen[id] = true
	}
	old := r.client(4, "", "admin")
	old.quiet()
	c := r.dial(4)
	pk := connectPacket(4, "", "admin", "")
	pk.Connect.Clean = false
	c.send(pk)
	if ack := c.next(packets.Connack); ack.ReasonCode != 2 {
		t.Errorf("CONNACK %d for a kept session without a client id, want 2", ack.ReasonCode)
	}
}

func TestAuthIsRefused(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "admin")
		c.write([]byte{0xf0, 2, 0x19, 0})
		if version == 5 {
			if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x82 {
				t.Errorf("DISCONNECT %#x, want 0x82", bye.ReasonCode)
			}
		}
		c.ended()
	})
	r := start(t, nil)
	c := r.dial(5)
	pk := connectPacket(5, "c", "admin", "")
	pk.Properties.AuthenticationMethod = "SCRAM-SHA-256"
	c.send(pk)
	ack := c.next(packets.Connack)
	if ack.ReasonCode != 0x8c || !strings.Contains(ack.Properties.ReasonString, "not supported") {
		t.Errorf("CONNACK %#x %q, want 0x8c", ack.ReasonCode, ack.Properties.ReasonString)
	}
	c.ended()
}
