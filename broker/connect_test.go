package broker

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster/devices"
)

func TestConnectIsAnsweredWithTheRightCode(t *testing.T) {
	r := start(t, nil)
	tests := []struct {
		name           string
		id, user, pass string
		change         func(*packets.Packet)
		v3, v5         byte
	}{
		{"a token as user name lets a device in", "c", "token-a", "", nil, 0, 0},
		{"any password beside a token does not matter", "c", "token-a", "whatever", nil, 0, 0},
		{"device id and secret let a device in", "c", "a", "secret", nil, 0, 0},
		{"an empty password is allowed", "c", "token-a", "", emptyPassword, 0, 0},
		{"a last will with an empty payload is allowed", "c", "token-a", "", func(pk *packets.Packet) {
			pk.Connect.WillFlag, pk.Connect.WillTopic = true, "devices/me/reported"
		}, 0, 0},
		{"a wrong secret is a bad password", "c", "a", "wrong", nil, 4, 0x86},
		{"an unknown token is a bad user name", "c", "token-x", "", nil, 4, 0x86},
		{"anonymous is not authorized", "c", "", "", nil, 5, 0x87},
		{"a disabled device is not authorized", "c", "banned", "", nil, 5, 0x87},
		{"a busy authenticator makes the server unavailable", "c", "busy", "", nil, 3, 0x89},
		{"a broken authenticator makes the server unavailable", "c", "broken", "", nil, 3, 0x88},
		{"a client id over 256 bytes is not valid", strings.Repeat("x", 257), "token-a", "", nil, 2, 0x85},
		{"a kept session needs a client id in 3.1.1", "", "token-a", "", func(pk *packets.Packet) { pk.Connect.Clean = false }, 2, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				rr := &rig{Broker: r.Broker, t: t}
				c := rr.dial(version)
				pk := connectPacket(version, tt.id, tt.user, tt.pass)
				if tt.change != nil {
					tt.change(&pk)
				}
				c.send(pk)
				want := tt.v3
				if version == 5 {
					want = tt.v5
				}
				ack := c.next(packets.Connack)
				if ack.ReasonCode != want {
					t.Fatalf("CONNACK %#x, want %#x", ack.ReasonCode, want)
				}
				if want == 0 {
					c.quiet()
					return
				}
				if version == 5 && ack.Properties.ReasonString == "" {
					t.Error("the refusal gives no reason")
				}
				c.ended()
			})
		})
	}
}

func emptyPassword(pk *packets.Packet) { pk.Connect.PasswordFlag = true }

func TestConnackTellsTheServersLimits(t *testing.T) {
	r := start(t, func(c *Config) { c.Window, c.MaxPacket = 7, 5000 })
	c := r.dial(5)
	c.send(connectPacket(5, "", "token-a", ""))
	got := c.next(packets.Connack).Properties
	if got.ReceiveMaximum != 7 || got.MaximumPacketSize != 5000 || got.TopicAliasMaximum != maxAliases {
		t.Errorf("limits in CONNACK: %+v", got)
	}
	if got.AssignedClientID == "" {
		t.Error("no client id assigned to a client without one")
	}
}

func TestUnknownProtocolVersionIsTold(t *testing.T) {
	r := start(t, nil)
	c := r.dial(4)
	c.write([]byte{0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 9, 2, 0, 60, 0, 0})
	if ack := c.next(packets.Connack); ack.ReasonCode != 1 {
		t.Errorf("CONNACK %d, want 1", ack.ReasonCode)
	}
	c.ended()
}

func TestExtendedAuthenticationIsRefused(t *testing.T) {
	r := start(t, nil)
	c := r.dial(5)
	pk := connectPacket(5, "c", "token-a", "")
	pk.Properties.AuthenticationMethod = "SCRAM"
	c.send(pk)
	if ack := c.next(packets.Connack); ack.ReasonCode != 0x8c {
		t.Errorf("CONNACK %#x, want 0x8c", ack.ReasonCode)
	}
	c = r.client(5, "c", "token-a")
	c.write([]byte{0xf0, 2, 0x18, 0})
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x82 {
		t.Errorf("DISCONNECT %#x after AUTH, want 0x82", bye.ReasonCode)
	}
}

func TestSecondConnectEndsTheConnection(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		c := r.client(version, "c", "token-a")
		c.send(connectPacket(version, "c", "token-a", ""))
		if version == 5 {
			if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x82 {
				t.Errorf("DISCONNECT %#x, want 0x82", bye.ReasonCode)
			}
		}
		c.ended()
	})
}

func TestConnectionsOverTheLimitAreTurnedAway(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxConnections = 1 })
	r.client(4, "one", "token-a")
	c := r.dial(4)
	c.send(connectPacket(4, "two", "token-a", ""))
	if ack := c.next(packets.Connack); ack.ReasonCode != 3 {
		t.Errorf("CONNACK %d, want 3", ack.ReasonCode)
	}
	c = r.dial(5)
	c.send(connectPacket(5, "two", "token-a", ""))
	if ack := c.next(packets.Connack); ack.ReasonCode != 0x89 {
		t.Errorf("CONNACK %#x, want 0x89", ack.ReasonCode)
	}
}

func TestPresenceIsToldOfADevicesConnection(t *testing.T) {
	tests := []struct {
		name   string
		end    func(*rig, *raw)
		reason string
	}{
		{"a DISCONNECT", func(_ *rig, c *raw) {
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		}, "disconnected"},
		{"a closed socket", func(_ *rig, c *raw) { _ = c.nc.Close() }, "closed"},
		{"a kick", func(r *rig, _ *raw) { r.Kick("a", "credential deleted") }, "credential deleted"},
		{"a stop", func(r *rig, _ *raw) { r.halt() }, "server stopped"},
		{"a protocol error", func(_ *rig, c *raw) { c.write([]byte{0, 0}) }, "protocol error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil)
			c := r.client(5, "c1", "token-a")
			up := get(t, r.watch.events, "presence event")
			want := devices.Connection{
				Device: "a", Session: 1, Peer: c.nc.LocalAddr().String(), ClientID: "c1", Protocol: 5, Transport: "tcp",
				KeepAlive: 60e9,
			}
			if d := cmp.Diff(presenceEvent{Up: true, Conn: want}, up, cmpopts.IgnoreFields(devices.Connection{}, "At")); d != "" {
				t.Errorf("connected (-want +got):\n%s", d)
			}
			tt.end(r, c)
			down := get(t, r.watch.events, "presence event")
			if d := cmp.Diff(presenceEvent{Conn: up.Conn, Reason: tt.reason}, down); d != "" {
				t.Errorf("disconnected (-want +got):\n%s", d)
			}
		})
	}
}

func TestPresenceIsNotToldOfAccounts(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "c", "admin")
	c.quiet()
	r.halt()
	none(t, r.watch.events, "presence event")
}

func TestTakeoverLeavesTheDeviceOnline(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		first := r.client(version, "same", "token-a")
		second := r.client(version, "same", "token-a")
		if version == 5 {
			if bye := first.next(packets.Disconnect); bye.ReasonCode != 0x8e {
				t.Errorf("DISCONNECT %#x, want 0x8e", bye.ReasonCode)
			}
		}
		first.ended()
		last := map[bool]uint64{}
		for range 3 {
			e := get(t, r.watch.events, "presence event")
			last[e.Up] = max(last[e.Up], e.Conn.Session)
			if !e.Up && e.Reason != "taken over" {
				t.Errorf("reason %q, want taken over", e.Reason)
			}
		}
		if last[true] != 2 || last[false] != 1 {
			t.Errorf("sessions up %d and down %d, want 2 and 1", last[true], last[false])
		}
		second.quiet()
	})
}

func TestClientIDsOfDifferentIdentitiesDoNotCollide(t *testing.T) {
	r := start(t, nil)
	a := r.client(5, "same", "token-a")
	a.subscribed("devices/me/desired")
	b := r.client(5, "same", "token-b", keepSession)
	b.quiet()
	a.quiet()
	if err := r.Publish(t.Context(), "devices/a/desired", []byte("1"), false, 1); err != nil {
		t.Fatal(err)
	}
	if got := a.next(packets.Publish); got.TopicName != "devices/me/desired" {
		t.Errorf("topic %q", got.TopicName)
	}
	b.quiet()
}

func TestReconnectStormOfOneClientEndsWithOneConnection(t *testing.T) {
	r := start(t, nil)
	const n = 40
	done := make(chan *raw, n)
	for range n {
		c := r.dial(4)
		go func() {
			c.write(encode(t, 4, connectPacket(4, "same", "token-a", "")))
			done <- c
		}()
	}
	for range n {
		get(t, done, "connection")
	}
	for up, down := 0, 0; up < n || down < n-1; {
		if get(t, r.watch.events, "presence event").Up {
			up++
		} else {
			down++
		}
	}
	if got := r.Stats().Sessions; got != 1 {
		t.Errorf("%d sessions, want 1", got)
	}
	last := r.client(4, "same", "token-a")
	last.subscribed("devices/me/desired")
	if err := r.Publish(t.Context(), "devices/a/desired", nil, false, 0); err != nil {
		t.Fatal(err)
	}
	last.next(packets.Publish)
}
