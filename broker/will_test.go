package broker

import (
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

func withWill(topic, payload string, delay, expiry uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		p := &pk.Connect
		p.WillFlag, p.WillTopic, p.WillPayload, p.WillQos = true, topic, []byte(payload), 1
		p.WillProperties.WillDelayInterval = delay
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = expiry, expiry > 0
	}
}

func TestAWillIsSentWithItsClientsRights(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		admin := r.client(version, "x", "admin")
		admin.subscribed("devices/#", "factory/#")

		c := r.client(version, "1", "token-a", withWill("devices/me/requests/1", "gone", 0, 0))
		_ = c.nc.Close()
		got := admin.next(packets.Publish)
		if got.TopicName != "devices/a/requests/1" || string(got.Payload) != "gone" {
			t.Errorf("will delivered as %q %q", got.TopicName, got.Payload)
		}
		admin.send(ackPacket(packets.Puback, got.PacketID))

		c = r.client(version, "2", "token-a", withWill("factory/alarm", "gone", 0, 0))
		_ = c.nc.Close()
		if ref := get(t, r.sink.refusals, "refusal"); ref.Code != "topic" || ref.Topic != "factory/alarm" || ref.Payload != "gone" {
			t.Errorf("forbidden will: %+v", ref)
		}
		if got := admin.next(packets.Publish); got.TopicName != "devices/a/errors" {
			t.Errorf("delivered %q", got.TopicName)
		}

		c = r.client(version, "3", "token-a", withWill("devices/me/telemetry", "0", 0, 0))
		_ = c.nc.Close()
		if m := get(t, r.sink.messages, "message"); m.Topic != "devices/a/telemetry" || string(m.Payload) != "0" || m.QoS != 1 {
			t.Errorf("telemetry will: %+v", m)
		}
		if got := admin.next(packets.Publish); got.TopicName != "devices/a/telemetry" {
			t.Errorf("delivered %q", got.TopicName)
		}
	})
}

func TestAWillIsNotSentAfterDisconnectOrStop(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "1", "token-a", withWill("devices/me/telemetry", "gone", 0, 0))
	stays := r.client(4, "2", "token-a", withWill("devices/me/telemetry", "gone", 0, 0))
	stays.quiet()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	c.ended()
	r.halt()
	none(t, r.sink.messages, "will")
}

func TestADelayedWillIsWithdrawnByTheSessionsReturn(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "first", 1, 60), keep)
	_ = c.nc.Close()
	r.untilGone(t)
	c = r.client(5, "c", "token-a", withWill("devices/me/telemetry", "second", 1, 60), keep)
	began := time.Now()
	_ = c.nc.Close()
	if m := get(t, r.sink.messages, "will"); string(m.Payload) != "second" {
		t.Errorf("got the will %q, want second", m.Payload)
	}
	if d := time.Since(began); d < 900*time.Millisecond {
		t.Errorf("the will came after %v, want 1 s", d)
	}
}

func keep(pk *packets.Packet) { pk.Connect.Clean = false }

func TestADelayedWillIsSentWhenACleanStartEndsItsSession(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "gone", 3600, 7200), keep)
	_ = c.nc.Close()
	r.untilGone(t)
	r.client(5, "c", "token-a")
	if m := get(t, r.sink.messages, "will"); string(m.Payload) != "gone" {
		t.Errorf("got the will %q", m.Payload)
	}
}

func TestADelayedWillDoesNotOutliveItsSession(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "gone", 3600, 0))
	_ = c.nc.Close()
	if m := get(t, r.sink.messages, "will"); string(m.Payload) != "gone" {
		t.Errorf("got the will %q", m.Payload)
	}
}

func TestATakenOverSessionsDelayedWillIsSentOnlyIfItEnds(t *testing.T) {
	for _, clean := range []bool{false, true} {
		r := start(t, nil)
		old := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "gone", 3600, 7200), keep)
		next := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "next", 3600, 7200), keep,
			func(pk *packets.Packet) { pk.Connect.Clean = clean })
		old.next(packets.Disconnect)
		r.untilGone(t)
		if clean {
			if m := get(t, r.sink.messages, "will"); string(m.Payload) != "gone" {
				t.Errorf("got the will %q", m.Payload)
			}
		}
		next.quiet()
		for s := range r.sessions.each {
			s.mu.Lock()
			if s.will != nil {
				t.Errorf("clean %v: a will waits, though the session is connected", clean)
			}
			s.mu.Unlock()
		}
		none(t, r.sink.messages, "will")
	}
}
