package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

// endings are how a process may end: on purpose, and by a power cut.
func endings(t *testing.T, f func(t *testing.T, version byte, end func(*process))) {
	versions(t, func(t *testing.T, version byte) {
		t.Run("a restart", func(t *testing.T) { f(t, version, (*process).stop) })
		t.Run("a crash", func(t *testing.T) { f(t, version, (*process).crash) })
	})
}

// back connects a client whose session must be there.
func (p *process) back(version byte, id, user string, change ...func(*packets.Packet)) *raw {
	p.t.Helper()
	c := p.dial(version)
	p.clients = append(p.clients, c)
	pk := connectPacket(version, id, user, "")
	keepSession(&pk)
	for _, f := range change {
		f(&pk)
	}
	c.send(pk)
	if ack := c.next(packets.Connack); ack.ReasonCode != 0 || !ack.SessionPresent {
		p.t.Fatalf("CONNACK %#x, session present %v", ack.ReasonCode, ack.SessionPresent)
	}
	return c
}

func (b *Broker) sessionOf(id string) *session {
	for s := range b.sessions.each {
		if s.clientID == id {
			return s
		}
	}
	return nil
}

func TestSubscriptionsSurviveWithTheirOptions(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, nil)
		admin := p.client(version, "x", "admin", keepSession)
		subs := packets.Subscriptions{sub("a/+", 2), sub("b/#", 0), sub("$share/g/c", 1), sub("gone", 1)}
		if version == 5 {
			subs[0].NoLocal, subs[0].RetainAsPublished, subs[0].RetainHandling = true, true, 2
			subs[1].RetainHandling = 1
		}
		admin.subscribe(7, subs...)
		admin.unsubscribe("gone")
		device := p.client(version, "d", "token-a", keepSession)
		device.subscribe(0, sub("devices/me/desired", 1), sub("$share/h/devices/me/commands/+", 2), sub("devices/a/errors", 0))
		want := map[string][]subscription{}
		for _, id := range []string{"x", "d"} {
			want[id] = p.sessionOf(id).state.Load().subs
		}
		end(p)

		p = boot(t, log, 0, nil)
		for id, subs := range want {
			if d := cmp.Diff(subs, p.sessionOf(id).state.Load().subs, cmp.AllowUnexported(subscription{})); d != "" {
				t.Errorf("session %s (-want +got):\n%s", id, d)
			}
		}
		admin, device = p.back(version, "x", "admin"), p.back(version, "d", "token-a")
		other := p.client(version, "y", "admin")
		other.publish(retainedPacket("a/1", "one", 2, 1))
		other.publish(publishPacket("gone", "none", 1, 2))
		got := admin.message("one")
		if got.FixedHeader.Qos != 2 || got.FixedHeader.Retain != (version == 5) {
			t.Errorf("QoS %d retain %v", got.FixedHeader.Qos, got.FixedHeader.Retain)
		}
		if version == 5 {
			if d := cmp.Diff([]int{7}, got.Properties.SubscriptionIdentifier); d != "" {
				t.Errorf("identifiers %s", d)
			}
			admin.publish(publishPacket("a/2", "mine", 1, 3))
		}
		other.publish(publishPacket("devices/a/commands/1", "do", 1, 4))
		if got := device.message("do"); got.TopicName != "devices/me/commands/1" {
			t.Errorf("delivered at %s", got.TopicName)
		}
		admin.quiet()
	})
}

func TestQueuedMessagesSurviveInOrder(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, nil)
		c := p.client(version, "c", "token-a", keepSession)
		c.subscribe(0, sub("devices/me/commands/+", 2))
		c.leave(p.Broker)
		const n = 60
		for i := range n {
			if i == n/2 {
				end(p)
				p = boot(t, log, 0, nil)
			}
			if err := p.Publish(t.Context(), fmt.Sprintf("devices/a/commands/%d", i), fmt.Append(nil, i), false, byte(1+i%2)); err != nil {
				t.Fatal(err)
			}
		}
		end(p)
		p = boot(t, log, 0, nil)
		c = p.back(version, "c", "token-a")
		for i := range n {
			got := c.next(packets.Publish)
			if string(got.Payload) != fmt.Sprint(i) || got.FixedHeader.Qos != byte(1+i%2) || got.TopicName != fmt.Sprintf("devices/me/commands/%d", i) {
				t.Fatalf("got %s at %s, QoS %d, want %d", got.Payload, got.TopicName, got.FixedHeader.Qos, i)
			}
		}
		c.quiet()
	})
}

func TestWhatWasAcknowledgedIsNotSentAgain(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, nil)
		c := p.client(version, "c", "admin", keepSession)
		c.subscribe(0, sub("t", 2))
		for i := range 10 {
			if err := p.Publish(t.Context(), "t", fmt.Append(nil, i), false, byte(1+i%2)); err != nil {
				t.Fatal(err)
			}
			if i < 7 {
				c.message(fmt.Sprint(i))
			}
		}
		for range 3 {
			c.next(packets.Publish)
		}
		c.quiet()
		p.settled()
		end(p)
		p = boot(t, log, 0, nil)
		c = p.back(version, "c", "admin")
		c.messages("7", "8", "9")
		c.quiet()
	})
}

func TestRetainedMessagesSurviveWithTheirProperties(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, nil)
		c := p.client(version, "c", "admin")
		pk := retainedPacket("r/1", "value", 1, 1)
		if version == 5 {
			pk.Properties = packets.Properties{
				PayloadFormat: 1, PayloadFormatFlag: true, MessageExpiryInterval: 100, ContentType: "text/plain",
				ResponseTopic: "answer", CorrelationData: []byte("42"), User: []packets.UserProperty{{Key: "k", Val: "1"}, {Key: "k", Val: "2"}},
			}
		}
		c.publish(pk)
		c.publish(retainedPacket("r/2", "cleared", 1, 2))
		c.publish(retainedPacket("r/2", "", 1, 3))
		c.publish(retainedPacket("r/3", "old", 2, 4))
		c.publish(retainedPacket("r/3", "new", 1, 5))
		end(p)

		p = boot(t, log, 0, nil)
		c = p.client(version, "c", "admin")
		c.send(subscribePacket(9, "r/+"))
		var got []packets.Packet
		for len(got) < 2 {
			if pk, err := c.read(); err != nil {
				t.Fatal(err)
			} else if pk.FixedHeader.Type == packets.Publish {
				got = append(got, pk)
			}
		}
		if string(got[0].Payload) != "value" || !got[0].FixedHeader.Retain || string(got[1].Payload) != "new" {
			t.Errorf("got %q and %q", got[0].Payload, got[1].Payload)
		}
		left := got[0].Properties.MessageExpiryInterval
		if version == 5 && (left < 90 || left > 100) {
			t.Errorf("%d s are left of 100", left)
		}
		got[0].Properties.MessageExpiryInterval = pk.Properties.MessageExpiryInterval
		if d := cmp.Diff(pk.Properties, got[0].Properties); d != "" {
			t.Errorf("properties (-want +got):\n%s", d)
		}
		if version < 5 {
			return
		}
		end(p)
		p = boot(t, log, 0, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(101 * time.Second) } })
		c = p.client(version, "late", "admin")
		c.subscribe(0, sub("r/1", 0)) // SUBACK comes first: there is nothing to show
		c.quiet()
	})
}

func TestAMessageSentAgainAfterACrashIsTakenInOnce(t *testing.T) {
	for _, topic := range []string{"devices/a/telemetry", "t"} {
		t.Run("at "+topic, func(t *testing.T) {
			endings(t, func(t *testing.T, version byte, end func(*process)) {
				log := newMemLog()
				p := boot(t, log, 0, nil)
				reader := p.client(version, "reader", "admin", keepSession)
				reader.subscribe(0, sub("t", 2))
				reader.leave(p.Broker)
				c := p.client(version, "c", "admin", keepSession)
				pk := publishPacket(topic, "once", 2, 77)
				c.send(pk)
				c.next(packets.Pubrec)
				end(p)
				if topic != "t" {
					get(t, p.sink.messages, "message")
				}

				p = boot(t, log, 0, nil)
				c = p.back(version, "c", "admin")
				pk.FixedHeader.Dup = true
				c.send(pk)
				if rec := c.next(packets.Pubrec); rec.PacketID != 77 || rec.ReasonCode != 0 {
					t.Errorf("PUBREC %d code %#x", rec.PacketID, rec.ReasonCode)
				}
				end(p)

				p = boot(t, log, 0, nil)
				c = p.back(version, "c", "admin")
				c.send(ackPacket(packets.Pubrel, 77))
				if comp := c.next(packets.Pubcomp); comp.PacketID != 77 || comp.ReasonCode != 0 {
					t.Errorf("PUBCOMP %d code %#x", comp.PacketID, comp.ReasonCode)
				}
				end(p)

				p = boot(t, log, 0, nil) // the id is free: it is a new message
				c = p.back(version, "c", "admin")
				c.publish(publishPacket(topic, "next", 2, 77))
				reader = p.back(version, "reader", "admin")
				if topic == "t" {
					reader.messages("once", "next")
					reader.quiet()
					return
				}
				if m := get(t, p.sink.messages, "message"); string(m.Payload) != "next" {
					t.Errorf("the sink has got %s", m.Payload)
				}
				none(t, p.sink.messages, "message taken in twice")
			})
		})
	}
}

// receiver is a client that keeps the QoS 2 ids it has received, over connections.
type receiver struct {
	ids       map[uint16]bool
	delivered []string
	packetIDs []uint16
}

func (r *receiver) take(pk packets.Packet) {
	r.packetIDs = append(r.packetIDs, pk.PacketID)
	if r.ids[pk.PacketID] {
		return
	}
	r.ids[pk.PacketID] = true
	r.delivered = append(r.delivered, string(pk.Payload))
}

// TestQoS2ArrivesOnceHoweverOftenTheServerDies kills the server at each step of an
// outbound QoS 2 message, with and without the step being durable.
func TestQoS2ArrivesOnceHoweverOftenTheServerDies(t *testing.T) {
	steps := []string{"PUBLISH came", "PUBREC is not durable", "PUBREL came", "PUBCOMP is not durable", "PUBCOMP is durable"}
	for step, name := range steps {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				log := newMemLog()
				p := boot(t, log, 0, nil)
				c := p.client(version, "c", "admin", keepSession)
				c.subscribe(0, sub("t", 2))
				if err := p.Publish(t.Context(), "t", []byte("once"), false, 2); err != nil {
					t.Fatal(err)
				}
				r := &receiver{ids: map[uint16]bool{}}
				goOn(p, c, r, step)
				p.crash()
				p = boot(t, log, 0, nil)
				c = p.back(version, "c", "admin")
				if step < 4 {
					finishAll(t, c, r)
				}
				c.quiet()
				if d := cmp.Diff([]string{"once"}, r.delivered); d != "" || len(r.ids) != 0 {
					t.Errorf("delivered (-want +got), %d ids left:\n%s", len(r.ids), d)
				}
				for _, id := range r.packetIDs {
					if id != r.packetIDs[0] {
						t.Errorf("packet ids %v, want the same", r.packetIDs)
					}
				}
				if page, _, _ := p.Clients(ClientsQuery{Limit: 1}); page[0].Queued+page[0].Inflight != 0 {
					t.Errorf("messages are left: %+v", page[0])
				}
			})
		})
	}
}

// goOn goes step steps far.
func goOn(p *process, c *raw, r *receiver, step int) {
	pk := c.next(packets.Publish)
	r.take(pk)
	if step == 0 {
		return
	}
	if step == 1 {
		p.grip.close()
	}
	c.send(ackPacket(packets.Pubrec, pk.PacketID))
	if step == 1 {
		c.quiet() // no PUBREL before it is durable that PUBLISH must not come again
		return
	}
	c.next(packets.Pubrel)
	if step == 2 {
		return
	}
	delete(r.ids, pk.PacketID)
	if step == 3 {
		p.grip.close()
	}
	c.send(ackPacket(packets.Pubcomp, pk.PacketID))
	c.quiet()
	if step == 4 {
		p.settled()
	}
}

// finishAll answers what comes until a message is complete.
func finishAll(t *testing.T, c *raw, r *receiver) {
	t.Helper()
	for {
		pk, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		switch pk.FixedHeader.Type {
		case packets.Publish:
			if !pk.FixedHeader.Dup {
				t.Error("sent again without DUP")
			}
			r.take(pk)
			c.send(ackPacket(packets.Pubrec, pk.PacketID))
		case packets.Pubrel:
			delete(r.ids, pk.PacketID)
			c.send(ackPacket(packets.Pubcomp, pk.PacketID))
			return
		}
	}
}

func TestPacketIDsStayTheSame(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, nil)
		c := p.client(version, "c", "admin", keepSession)
		c.subscribe(0, sub("t", 2))
		ids := map[string]uint16{}
		for i := range 9 {
			if err := p.Publish(t.Context(), "t", fmt.Append(nil, i), false, byte(1+i%2)); err != nil {
				t.Fatal(err)
			}
			pk := c.next(packets.Publish)
			ids[string(pk.Payload)] = pk.PacketID
			if i%3 == 0 && pk.FixedHeader.Qos == 1 {
				c.send(ackPacket(packets.Puback, pk.PacketID))
				delete(ids, string(pk.Payload))
			}
		}
		c.quiet()
		p.settled()
		end(p)
		p = boot(t, log, 0, nil)
		c = p.back(version, "c", "admin")
		got := map[string]uint16{}
		for range ids {
			pk := c.next(packets.Publish)
			got[string(pk.Payload)] = pk.PacketID
			if !pk.FixedHeader.Dup {
				t.Errorf("%s is sent again without DUP", pk.Payload)
			}
		}
		if d := cmp.Diff(ids, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		c.quiet()
	})
}

func TestAnEndedSessionStaysEnded(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, nil)
		c := p.client(version, "c", "admin", keepSession)
		c.subscribe(0, sub("t", 2))
		c.leave(p.Broker)
		if err := p.Publish(t.Context(), "t", []byte("old"), false, 2); err != nil {
			t.Fatal(err)
		}
		c = p.client(version, "c", "admin", keepSession, func(pk *packets.Packet) { pk.Connect.Clean = version == 5 })
		if version == 4 { // a clean session first, which ends with its connection
			c.leave(p.Broker)
			c = p.client(version, "c", "admin")
			c.leave(p.Broker)
			c = p.client(version, "c", "admin", keepSession)
		}
		c.subscribe(0, sub("u", 1))
		end(p)
		p = boot(t, log, 0, nil)
		c = p.back(version, "c", "admin")
		if err := p.Publish(t.Context(), "t", []byte("not wanted"), false, 1); err != nil {
			t.Fatal(err)
		}
		c.quiet()
	})
}

func TestASessionsTimeGoesOnWhileTheServerIsDown(t *testing.T) {
	endings(t, func(t *testing.T, version byte, end func(*process)) {
		log := newMemLog()
		p := boot(t, log, 0, func(c *Config) { c.MaxSessionExpiry = time.Minute })
		c := p.client(version, "c", "admin", keepSession)
		c.subscribe(0, sub("t", 1))
		c.leave(p.Broker)
		p.settled()
		end(p)
		p = boot(t, log, 0, func(c *Config) { c.Now = func() time.Time { return time.Now().Add(2 * time.Minute) } })
		eventually(t, "the session's end", func() bool { return p.Stats().Sessions == 0 && p.index.Len() == 0 })
		p.settled()
		end(p)
		p = boot(t, log, 0, nil)
		if n := p.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions come back", n)
		}
	})
}
