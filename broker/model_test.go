package broker

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"
)

// modelBudget is how long the model test may take.
const modelBudget = 4 * time.Second

// publisher is a client that sends QoS 1 and 2 as the specification wants it: what is
// not acknowledged when a connection ends is sent again on the next, in order.
type publisher struct {
	*raw
	next uint16
	open []packets.Packet // not acknowledged to the end; a PUBREL stands for a message whose PUBREC came
}

// subscriber is a client that reads as the specification wants it.
type subscriber struct {
	*raw
	id    string
	topic string // its filter, "" while it has none
	known map[uint16]bool
	got   map[byte][]string // payloads by the QoS they came with, without QoS 2 duplicates
	want  map[byte][]string
	mute  bool // it has read something on this connection without answering
}

// drawn is a test whose failures are rapid's, to be made small.
type drawn struct {
	testing.TB
	rt *rapid.T
}

// Fatal implements testing.TB, as do the others.
func (d drawn) Fatal(args ...any) { d.rt.Fatal(args...) }

// Fatalf implements testing.TB.
func (d drawn) Fatalf(format string, args ...any) { d.rt.Fatalf(format, args...) }

// Errorf implements testing.TB.
func (d drawn) Errorf(format string, args ...any) { d.rt.Errorf(format, args...) }

// world is a broker that lives and dies, with its clients.
type world struct {
	t    testing.TB
	log  *memLog
	p    *process
	v    byte
	pub  publisher
	subs []*subscriber
	sent int
	tops map[string][]string // retained values that a topic may have
}

func (w *world) boot() {
	w.p = boot(w.t, w.log, 2000, nil) // so that the log is cleaned all the time
	w.connectAll()
}

func (w *world) connectAll() {
	w.pub.raw = w.p.client(w.v, "publisher", "admin", keepSession)
	for _, s := range w.subs {
		s.raw, s.mute = w.p.client(w.v, s.id, "admin", keepSession), false
	}
	w.resend()
}

// resend sends again what was not acknowledged, and sees it through.
func (w *world) resend() {
	for i := range w.pub.open {
		pk := &w.pub.open[i]
		pk.FixedHeader.Dup = pk.FixedHeader.Type == packets.Publish
		w.pub.send(*pk)
	}
	w.complete()
}

// complete reads until the publisher has all its acknowledgements.
func (w *world) complete() {
	for len(w.pub.open) > 0 {
		pk, err := w.pub.read()
		if err != nil {
			w.t.Fatalf("publisher: %v, %d open", err, len(w.pub.open))
		}
		w.acked(pk)
	}
}

func (w *world) acked(pk packets.Packet) {
	at := slices.IndexFunc(w.pub.open, func(o packets.Packet) bool { return o.PacketID == pk.PacketID })
	if at < 0 {
		w.t.Fatalf("%s for %d, which is not open", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID)
	}
	if pk.FixedHeader.Type == packets.Pubrec {
		if w.pub.open[at].FixedHeader.Type == packets.Publish {
			w.settleRetained(w.pub.open[at])
		}
		w.pub.open[at] = ackPacket(packets.Pubrel, pk.PacketID)
		w.pub.send(w.pub.open[at])
		return
	}
	if w.pub.open[at].FixedHeader.Type == packets.Publish {
		w.settleRetained(w.pub.open[at])
	}
	w.pub.open = slices.Delete(w.pub.open, at, at+1)
}

// settleRetained: an acknowledged retained message is the topic's, or a later one is.
func (w *world) settleRetained(pk packets.Packet) {
	if !pk.FixedHeader.Retain {
		return
	}
	may := w.tops[pk.TopicName]
	if at := slices.Index(may, string(pk.Payload)); at > 0 {
		w.tops[pk.TopicName] = may[at:]
	}
}

// publish sends a message and notes who is to have it.
func (w *world) publish(topic string, qos byte, retain, empty bool) {
	w.sent++
	w.pub.next++
	if retain { // one QoS for a topic: QoS 1 that is sent again may come behind QoS 2 that is not
		qos = topic[len(topic)-1] - '0'
	}
	payload := fmt.Sprintf("%d %s", w.sent, strings.Repeat("x", 200))
	if empty {
		payload = ""
	}
	pk := publishPacket(topic, payload, qos, w.pub.next)
	pk.FixedHeader.Retain = retain
	for _, s := range w.subs {
		if s.topic == topic && payload != "" {
			s.want[qos] = append(s.want[qos], payload)
		}
	}
	if retain {
		w.tops[topic] = append(w.tops[topic], payload)
	}
	w.pub.open = append(w.pub.open, pk)
	w.pub.send(pk)
}

// read takes what has come to a subscriber up to now.
func (s *subscriber) read(answer bool) {
	s.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	for {
		pk, err := s.raw.read()
		if err != nil {
			s.t.Fatalf("subscriber %s: %v", s.id, err)
		}
		if pk.FixedHeader.Type == packets.Pingresp {
			return
		}
		s.take(pk, answer)
	}
}

func (s *subscriber) take(pk packets.Packet, answer bool) {
	kind := byte(0)
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if qos := pk.FixedHeader.Qos; len(pk.Payload) > 0 && (qos == 1 || !s.known[pk.PacketID]) {
			s.got[qos] = append(s.got[qos], string(pk.Payload))
		}
		kind = packets.Puback
		if pk.FixedHeader.Qos == 2 {
			s.known[pk.PacketID] = true
			kind = packets.Pubrec
		}
	case packets.Pubrel:
		delete(s.known, pk.PacketID)
		kind = packets.Pubcomp
	default:
		s.t.Fatalf("subscriber %s got %s", s.id, packets.PacketNames[pk.FixedHeader.Type])
	}
	if answer {
		s.send(ackPacket(kind, pk.PacketID))
	}
	s.mute = s.mute || !answer
}

// check compares what arrived with what had to: QoS 2 exactly, QoS 1 at least, both in
// order.
func (s *subscriber) check(w *world) {
	if s.topic == "" {
		return
	}
	if !slices.Equal(s.got[2], s.want[2]) {
		w.t.Fatalf("subscriber %s: QoS 2 arrived as %v, want %v", s.id, short(s.got[2]), short(s.want[2]))
	}
	var first []string
	for _, g := range s.got[1] {
		if !slices.Contains(first, g) {
			first = append(first, g)
		}
	}
	if !slices.Equal(first, s.want[1]) {
		w.t.Fatalf("subscriber %s: QoS 1 arrived as %v, want %v", s.id, short(first), short(s.want[1]))
	}
}

func short(all []string) (n []int) {
	for _, s := range all {
		first, _, _ := strings.Cut(s, " ")
		v, _ := strconv.Atoi(first)
		n = append(n, v)
	}
	return n
}

// arrived reads until a subscriber has all that was acknowledged to the publisher.
func (w *world) arrived(s *subscriber) {
	if s.mute {
		w.reconnect(s)
	}
	eventually(w.t, "the messages of "+s.id, func() bool {
		s.read(true)
		q := s.queued(w)
		return q == 0 && len(s.known) == 0
	})
	s.check(w)
}

func (s *subscriber) queued(w *world) int {
	x := w.p.sessionOf(s.id)
	if x == nil {
		return 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.q == nil {
		return 0
	}
	return x.q.len()
}

// forget begins a subscriber's books anew.
func (s *subscriber) forget() {
	s.known, s.got, s.want = map[uint16]bool{}, map[byte][]string{}, map[byte][]string{}
}

// checkRetained: each topic has one of the values it may have, and if none was left in
// doubt, the last.
func (w *world) checkRetained() {
	for topic, may := range w.tops {
		got := ""
		if x, ok := w.p.retained.tree.Get(topic); ok {
			got = string(x.m.payload)
		}
		if !slices.Contains(may, got) {
			w.t.Fatalf("retained at %s: %v, want one of %v", topic, short([]string{got}), short(may))
		}
	}
}

// crash ends the process at a point where some messages may be under way, and starts
// the next.
func (w *world) crash() {
	for _, s := range w.subs {
		_ = s.nc.Close()
	}
	w.p.crash()
	w.boot()
}

// TestSessionsAgainstAModel drives a broker with random operations, kills it at any
// point, with and without appends held back, and compares what arrives with what a
// specification's broker would have delivered.
func TestSessionsAgainstAModel(t *testing.T) {
	end := time.Now().Add(modelBudget)
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(end) {
			return
		}
		w := &world{t: drawn{t, rt}, log: newMemLog(), v: rapid.SampledFrom([]byte{4, 5}).Draw(rt, "version"), tops: map[string][]string{}}
		for i := range 2 {
			s := &subscriber{id: fmt.Sprint("subscriber", i)}
			s.forget()
			w.subs = append(w.subs, s)
		}
		w.boot()
		topic := func(rt *rapid.T) string { return rapid.SampledFrom([]string{"t/1", "t/2"}).Draw(rt, "topic") }
		one := func(rt *rapid.T) *subscriber { return rapid.SampledFrom(w.subs).Draw(rt, "subscriber") }
		rt.Repeat(map[string]func(*rapid.T){
			"subscribe": func(rt *rapid.T) {
				s := one(rt)
				w.arrived(s)
				if s.topic != "" {
					s.unsubscribe(s.topic)
				}
				s.topic = topic(rt)
				s.forget()
				pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 9}
				pk.Filters = packets.Subscriptions{sub(s.topic, 2)}
				s.send(pk)
				s.retainedThenAck(w)
			},
			"end": func(rt *rapid.T) {
				s := one(rt)
				w.arrived(s)
				s.leave(w.p.Broker)
				s.raw = w.p.client(w.v, s.id, "admin")
				s.leave(w.p.Broker)
				s.raw = w.p.client(w.v, s.id, "admin", keepSession)
				s.topic = ""
				s.forget()
			},
			"publish": func(rt *rapid.T) {
				for range rapid.IntRange(1, 12).Draw(rt, "messages") {
					w.publish(topic(rt), rapid.ByteRange(1, 2).Draw(rt, "qos"), false, false)
				}
				w.complete()
			},
			"retain": func(rt *rapid.T) {
				w.publish(topic(rt), rapid.ByteRange(1, 2).Draw(rt, "qos"), true, rapid.Bool().Draw(rt, "clear"))
				w.complete()
			},
			"read":      func(rt *rapid.T) { one(rt).read(rapid.Bool().Draw(rt, "answer")) },
			"reconnect": func(rt *rapid.T) { w.reconnect(one(rt)) },
			"crash":     func(*rapid.T) { w.crash(); w.checkRetained() },
			"crash under way": func(rt *rapid.T) {
				if rapid.Bool().Draw(rt, "held") {
					w.p.grip.close()
				}
				for range rapid.IntRange(1, 6).Draw(rt, "messages") {
					w.publish(topic(rt), rapid.ByteRange(1, 2).Draw(rt, "qos"), rapid.IntRange(0, 3).Draw(rt, "retain") == 0, false)
				}
				for range rapid.IntRange(0, 2).Draw(rt, "reads") {
					one(rt).read(true)
				}
				w.crash()
				w.checkRetained()
			},
		})
		w.crash()
		for _, s := range w.subs {
			w.arrived(s)
		}
		w.checkRetained()
		w.p.crash()
	})
}

// retainedThenAck reads SUBACK; retained messages that come because of it are not
// counted.
func (s *subscriber) retainedThenAck(w *world) {
	for {
		pk, err := s.raw.read()
		if err != nil {
			s.t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Suback {
			break
		}
		s.take(pk, true)
	}
	eventually(w.t, "the retained messages", func() bool {
		s.read(true)
		return s.queued(w) == 0 && len(s.known) == 0
	})
	w.p.settled() // else a crash brings them back
	s.forget()
}

// reconnect ends a subscriber's connection and makes the next.
func (w *world) reconnect(s *subscriber) {
	s.leave(w.p.Broker)
	s.raw, s.mute = w.p.client(w.v, s.id, "admin", keepSession), false
}
