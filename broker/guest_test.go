package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func invalid() error { return muster.Errorf(muster.Invalid, "not JSON") }

// guests are a lock that knows who comes to be provisioned or adopted.
func guests() *lock {
	l := newLock()
	l.who["provision"] = Identity{Name: "provision", Place: Provisioning, Admin: true, Publish: []string{"#"}, Subscribe: []string{"#"}}
	l.who["adopt"] = Identity{Name: "adopt", Credential: "key1", Device: "a", Place: Quarantine, Subscribe: []string{"#"}}
	return l
}

func TestWhoComesToBeProvisionedMayAskAndHearTheReplyToItself(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		t.Run("at "+slash+"provision/request", func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				r := guarded(t, guests(), nil)
				c, other := r.client(version, "same id", "provision"), r.client(version, "same id", "provision")
				for _, x := range []*raw{c, other} {
					x.subscribed(slash + "provision/response")
					x.publish(publishPacket(slash+"provision/request", `{"deviceName":"d"}`, 1, 1))
				}
				m := get(t, r.sink.messages, "request")
				if m.Kind != KindRequest || m.Topic != slash+"provision/request" || m.From != nil || m.Device != "" || m.QoS != 1 {
					t.Errorf("the sink got %+v", m)
				}
				if who := m.Client.Origin().Identity; who.Place != Provisioning || who.Admin || who.Publish != nil {
					t.Errorf("identity %+v", who)
				}
				for _, topic := range []string{"provision/response/x", "x", map[string]string{"": "/", "/": ""}[slash] + "provision/response"} {
					if m.Client.Reply(topic, []byte("no")) {
						t.Errorf("a reply at %s was sent", topic)
					}
				}
				if !m.Client.Reply(slash+"provision/response", []byte("welcome")) {
					t.Error("the reply was not sent")
				}
				if got := c.message("welcome"); got.TopicName != slash+"provision/response" || got.FixedHeader.Qos != 1 {
					t.Errorf("reply at %s with QoS %d", got.TopicName, got.FixedHeader.Qos)
				}
				other.quiet()
				c.quiet()
				_ = c.nc.Close()
				eventually(t, "the end", func() bool { return r.Stats().Connections == 1 })
				if m.Client.Reply(slash+"provision/response", []byte("late")) {
					t.Error("a reply to a connection that has ended was sent")
				}
				other.quiet()
			})
		})
	}
}

func TestWhoComesToBeProvisionedMayNothingElse(t *testing.T) {
	r := guarded(t, guests(), nil)
	watch := r.client(5, "x", "admin")
	watch.subscribed("#", "provision/#")
	c := r.client(5, "c", "provision", keepSession, withWill("provision/request", "will", 0, 0))
	for _, topic := range []string{"x", "devices/me/telemetry", "devices/a/telemetry", "provision/response", "provision", "provision/request/x"} {
		c.send(publishPacket(topic, "x", 1, 1))
		if ack := c.next(packets.Puback); ack.ReasonCode != 0x87 {
			t.Errorf("%s: PUBACK %#x, want 0x87", topic, ack.ReasonCode)
		}
	}
	c.send(subscribePacket(1, "#", "provision/#", "+/response", "$share/g/x", "devices/a/desired", "$SYS/#"))
	for i, code := range c.next(packets.Suback).ReasonCodes {
		if code != 0x87 {
			t.Errorf("filter %d: SUBACK %#x, want 0x87", i, code)
		}
	}
	c.subscribed("provision/response")
	if err := r.Publish(t.Context(), "provision/response", []byte("to all"), false, 1); err != nil {
		t.Fatal(err)
	}
	watch.message("to all")
	c.quiet()
	pk := publishPacket("provision/request", "ask", 1, 1)
	pk.FixedHeader.Retain = true
	c.publish(pk)
	get(t, r.sink.messages, "request")
	_ = c.nc.Close()
	eventually(t, "the end", func() bool { s := r.Stats(); return s.Connections == 1 && s.Sessions == 1 })
	watch.quiet()
	none(t, r.sink.messages, "will")
	none(t, r.watch.events, "presence")
	if n := r.Stats().Retained; n != 0 {
		t.Errorf("%d retained", n)
	}
}

func TestOneConnectionMayAskForProvisioningAFewTimesOnly(t *testing.T) {
	r := guarded(t, guests(), nil)
	c := r.client(5, "c", "provision")
	for range maxRequests {
		c.publish(publishPacket("provision/request", "ask", 1, 1))
	}
	c.send(publishPacket("provision/request", "ask", 1, 1))
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x97 {
		t.Errorf("DISCONNECT %#x, want 0x97", bye.ReasonCode)
	}
	c.ended()
	if n := len(r.sink.messages); n != maxRequests {
		t.Errorf("the sink got %d requests", n)
	}
}

func TestWhoDoesNotAskToBeProvisionedForAMinuteIsCut(t *testing.T) {
	r := guarded(t, guests(), nil)
	c, sample := r.client(5, "c", "provision"), r.client(5, "d", "adopt")
	now := r.clock.Load()
	for _, x := range r.conns.every() {
		x.tick(now + guestIdle.Milliseconds() - time.Second.Milliseconds())
	}
	c.quiet() // which is no request
	for _, x := range r.conns.every() {
		x.heard.Store(now + guestIdle.Milliseconds())
		x.tick(r.clock.Load() + guestIdle.Milliseconds())
	}
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x98 {
		t.Errorf("DISCONNECT %#x, want 0x98", bye.ReasonCode)
	}
	c.ended()
	sample.quiet()
	if n := r.metric("disconnects_total", "idle"); n != 1 {
		t.Errorf("%v disconnects counted", n)
	}
}

func TestQuarantineKeepsSamplesAndNothingElse(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := guarded(t, guests(), nil)
		watch, device := r.client(version, "x", "admin"), r.client(version, "a", "token-a")
		watch.subscribed("#", "devices/#", "a/b")
		c := r.client(version, "c", "adopt", keepSession, withWill("a/b", "will", 0, 0))
		get(t, r.watch.events, "the device's presence")
		c.subscribed("#", "devices/a/desired", "$share/g/a/b", "a/b")
		for i, topic := range []string{"a/b", "devices/a/telemetry", "v1/devices/me/telemetry", "devices/me/events/x"} {
			pk := publishPacket(topic, "x", byte(i%3), uint16(i+1))
			pk.FixedHeader.Retain = true
			c.publish(pk)
			m := get(t, r.sink.messages, "sample")
			if m.Kind != KindSample || m.Topic != topic || m.Device != "" || m.From != nil || string(m.Payload) != "x" {
				t.Errorf("the sink got %+v", m)
			}
			if o := m.Client.Origin(); o.ClientID != "c" || o.Identity.Credential != "key1" || o.Identity.Place != Quarantine || o.Identity.Device != "" {
				t.Errorf("origin %+v", o)
			}
		}
		for _, topic := range []string{"a/b", "devices/a/desired"} {
			if err := r.Publish(t.Context(), topic, []byte(topic), false, 1); err != nil {
				t.Fatal(err)
			}
			watch.message(topic)
		}
		c.quiet()
		_ = c.nc.Close()
		eventually(t, "the end", func() bool { return r.Stats().Sessions == 2 })
		watch.quiet()
		device.quiet()
		none(t, r.sink.messages, "will")
		none(t, r.watch.events, "presence")
	})
}

func TestSamplesAboveTheirRateAreAckedAndDropped(t *testing.T) {
	r := guarded(t, guests(), nil)
	c := r.client(4, "c", "adopt")
	const sent = 100
	for i := range uint16(sent) {
		c.publish(publishPacket("t", "x", 1, i+1))
	}
	kept := len(r.sink.messages)
	if kept < rateBurst*sampleRate || kept > sent/2 {
		t.Errorf("%d samples kept", kept)
	}
	if n := r.metric("dropped_total", "quarantine"); int(n) != sent-kept {
		t.Errorf("%v dropped, %d kept", n, kept)
	}
}

func TestGuestsAreBounded(t *testing.T) {
	r := guarded(t, guests(), nil)
	c := r.client(5, "c", "adopt")
	r.guests.Add(maxGuests - 1)
	full := r.dial(5)
	full.send(connectPacket(5, "c", "provision", ""))
	if ack := full.next(packets.Connack); ack.ReasonCode != 0x89 {
		t.Errorf("CONNACK %#x, want 0x89", ack.ReasonCode)
	}
	r.client(5, "d", "token-a").quiet()
	c.quiet()
	_ = c.nc.Close()
	eventually(t, "a place", func() bool { return r.guests.Load() == maxGuests-1 })
	r.client(5, "c", "provision").quiet()
}

func TestARecheckOfGuestsCutsThoseWhoseKeyOrPlaceHasChanged(t *testing.T) {
	l := guests()
	r := guarded(t, l, nil)
	var cs []*raw
	for i, user := range []string{"provision", "adopt"} {
		cs = append(cs, r.client(5, fmt.Sprint(i), user))
	}
	all := func(Identity) bool { return true }
	if n := r.Recheck(all); n != 2 {
		t.Errorf("asked for %d", n)
	}
	cs[0].quiet()
	cs[1].quiet()
	l.change(func() {
		l.gone["provision"] = true
		l.who["adopt"] = Identity{Name: "adopt", Admin: true}
	})
	r.Recheck(all)
	for i, code := range []byte{0x87, 0x98} {
		if bye := cs[i].next(packets.Disconnect); bye.ReasonCode != code {
			t.Errorf("DISCONNECT %#x, want %#x", bye.ReasonCode, code)
		}
		cs[i].ended()
	}
}
