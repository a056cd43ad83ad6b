package broker

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func TestForbiddenTopicsAreRefusedForGood(t *testing.T) {
	topics := []struct{ name, topic, kept, reason string }{
		{"another device's topic", "devices/b/telemetry", "devices/b/telemetry", "own id"},
		{"a topic outside of devices", "factory/line1", "factory/line1", "own id"},
		{"a topic the server writes", "devices/me/desired", "devices/a/desired", "written by the server"},
		{"an unknown topic of its own", "devices/a/nonsense", "devices/a/nonsense", "no such topic"},
		{"a topic that only begins like telemetry", "devices/a/telemetryx", "devices/a/telemetryx", "no such topic"},
		{"a server topic", "$SYS/broker/version", "$SYS/broker/version", "own id"},
		{"a topic with too many levels", "devices/a/telemetry" + strings.Repeat("/x", 40), "devices/a/telemetry" + strings.Repeat("/x", 40), "32 levels"},
		{"a topic that is too long", "devices/a/telemetry/" + strings.Repeat("x", 1100), "devices/a/telemetry/" + strings.Repeat("x", 1100), "1024 bytes"},
	}
	for _, tt := range topics {
		t.Run(tt.name, func(t *testing.T) {
			versions(t, func(t *testing.T, version byte) {
				for qos := range byte(3) {
					t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) { testForbidden(t, version, qos, tt.topic, tt.kept, tt.reason) })
				}
			})
		})
	}
}

func testForbidden(t *testing.T, version, qos byte, topic, kept, reason string) {
	r := start(t, nil)
	c := r.client(version, "c", "token-a")
	c.subscribed("devices/me/errors")
	id := uint16(qos) * 7
	c.send(publishPacket(topic, "secret 42", qos, id))
	var told, ack packets.Packet
	for range 1 + min(int(qos), 1) { // the two may come in either order
		pk, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Publish {
			told = pk
		} else {
			ack = pk
		}
	}
	checkRefusalAck(t, version, qos, id, ack, reason)
	got := get(t, r.sink.refusals, "refusal")
	if got.Device != "a" || got.Topic != kept || got.Payload != "secret 42" || got.Code != "topic" || got.Size != 9 ||
		!strings.Contains(got.Reason, reason) {
		t.Errorf("kept as rejected: %+v", got)
	}
	var p problem
	if err := json.Unmarshal(told.Payload, &p); err != nil {
		t.Fatal(err)
	}
	want := problem{"about:blank", "Forbidden", 403, "topic", got.Reason, kept}
	if d := cmp.Diff(want, p); d != "" || told.TopicName != "devices/me/errors" || told.FixedHeader.Qos != 0 {
		t.Errorf("told at %q (-want +got):\n%s", told.TopicName, d)
	}
	if n := r.metric("refused_total", "topic"); n != 1 {
		t.Errorf("counted %v times, want once", n)
	}
	c.quiet()
	none(t, r.sink.messages, "message at the sink")
}

func checkRefusalAck(t *testing.T, version, qos byte, id uint16, ack packets.Packet, reason string) {
	t.Helper()
	if qos == 0 {
		return
	}
	kind, code := packets.Puback, byte(0)
	if qos == 2 {
		kind = packets.Pubrec
	}
	if version == 5 {
		code = 0x87
		if !strings.Contains(ack.Properties.ReasonString, reason) {
			t.Errorf("reason string %q lacks %q", ack.Properties.ReasonString, reason)
		}
	}
	if ack.FixedHeader.Type != kind || ack.ReasonCode != code || ack.PacketID != id {
		t.Errorf("got %s %d with code %#x, want %s %d with %#x", packets.PacketNames[ack.FixedHeader.Type],
			ack.PacketID, ack.ReasonCode, packets.PacketNames[kind], id, code)
	}
}

func TestTelemetryGoesToTheSinkInCanonicalSpelling(t *testing.T) {
	tests := []struct{ name, user, topic, want string }{
		{"plain", "token-a", "devices/a/telemetry", "devices/a/telemetry"},
		{"with a key", "token-a", "devices/a/telemetry/env/t", "devices/a/telemetry/env/t"},
		{"as me", "token-a", "devices/me/telemetry", "devices/a/telemetry"},
		{"as me with a key", "token-a", "devices/me/telemetry/t", "devices/a/telemetry/t"},
		{"by an admin", "admin", "devices/a/telemetry", "devices/a/telemetry"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil)
			c := r.client(5, "c", tt.user)
			pk := publishPacket(tt.topic, "21.5", 1, 9)
			pk.Properties.ContentType = "text/plain"
			c.send(pk, pk)
			for range 2 { // the second time from the cache of the last topic
				m := get(t, r.sink.messages, "message")
				m.From, m.Token, m.Client = nil, 0, nil
				want := Message{Device: "a", Topic: tt.want, Payload: []byte("21.5"), ContentType: "text/plain", QoS: 1}
				if d := cmp.Diff(want, m); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				c.next(packets.Puback)
			}
		})
	}
}

func TestQoS0TelemetryHasNobodyToTell(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "c", "token-a")
	c.send(publishPacket("devices/a/telemetry", "1", 0, 0))
	if m := get(t, r.sink.messages, "message"); m.From != nil || m.QoS != 0 {
		t.Errorf("got %+v, want no From", m)
	}
	c.quiet()
}

func TestSinkErrorsBecomeTheRightAnswer(t *testing.T) {
	tests := []struct {
		name string
		err  error
		v5   byte
		cut  bool // 3.1.1: no ack and the end, else a plain ack
	}{
		{"invalid is refused for good", muster.Errorf(muster.Invalid, "not JSON"), 0x99, false},
		{"forbidden is refused for good", muster.Errorf(muster.Forbidden, "not JSON"), 0x87, false},
		{"busy is refused for now", muster.Errorf(muster.Busy, "not JSON"), 0x97, true},
		{"a fault of the server is refused for now", fmt.Errorf("disk: not JSON"), 0x97, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for qos := byte(1); qos <= 2; qos++ {
				testSinkError(t, qos, tt.err, tt.v5, tt.cut)
			}
		})
	}
}

func testSinkError(t *testing.T, qos byte, err error, v5 byte, cut bool) {
	kind := packets.Puback
	if qos == 2 {
		kind = packets.Pubrec
	}
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		r.sink.answers(func(Message) (error, bool) { return err, true })
		c := r.client(version, "c", "token-a")
		pk := publishPacket("devices/me/telemetry", "x", qos, 3)
		pk.Properties.User = []packets.UserProperty{{Key: "k", Val: "v"}}
		c.send(pk)
		if version < 5 && cut {
			c.ended()
			return
		}
		ack := c.next(kind)
		want := byte(0)
		if version == 5 {
			want = v5
			if muster.KindOf(err) != muster.Internal && ack.Properties.ReasonString != "not JSON" {
				t.Errorf("reason string %q", ack.Properties.ReasonString)
			}
		}
		if ack.PacketID != 3 || ack.ReasonCode != want || len(ack.Properties.User) != 0 {
			t.Errorf("ack %d code %#x user properties %v, want 3, %#x, none", ack.PacketID, ack.ReasonCode, ack.Properties.User, want)
		}
		c.quiet()
	})
}

func TestNoAckFollowsARefusalForNow(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	c := r.client(4, "c", "token-a")
	c.send(publishPacket("devices/me/telemetry", "1", 1, 1), publishPacket("devices/me/telemetry", "2", 1, 2))
	first, second := get(t, r.sink.messages, "message"), get(t, r.sink.messages, "message")
	second.From.Acked(second.Token, nil)
	first.From.Acked(first.Token, muster.Errorf(muster.Busy, "log full"))
	c.ended()
}

func TestAcksLeaveInPublishOrderAndNeverEarly(t *testing.T) {
	const clients, messages = 25, 320
	versions(t, func(t *testing.T, version byte) {
		window := 64
		if version == 5 {
			window = messages // sending more than it was told is its end
		}
		r := start(t, func(c *Config) { c.Window = window })
		kept := newLedger()
		r.sink.hold()
		cs := make([]*raw, clients)
		for i := range cs {
			cs[i] = r.client(version, "c", fmt.Sprintf("dev-%d", i))
		}
		var wg sync.WaitGroup
		wg.Go(func() { ackInBursts(r, kept, clients*messages) })
		for i, c := range cs {
			wg.Go(func() { publishAll(t, c, messages) })
			wg.Go(func() { checkAcks(t, c, kept, fmt.Sprintf("dev-%d", i), messages) })
		}
		wg.Wait()
	})
}

// ledger is what the sink has acknowledged, by device and message number.
type ledger struct {
	mu   sync.Mutex
	kept map[string]bool
}

func newLedger() *ledger { return &ledger{kept: make(map[string]bool)} }

// ackInBursts acknowledges n messages late, from one goroutine, in bursts that
// mix the clients.
func ackInBursts(r *rig, l *ledger, n int) {
	var burst []Message
	for n > 0 {
		burst = append(burst, <-r.sink.messages)
		if len(burst) < 1+rand.IntN(200) && len(r.sink.messages) > 0 {
			continue
		}
		l.mu.Lock()
		for _, m := range burst {
			l.kept[string(m.Device)+" "+string(m.Payload)] = true
		}
		l.mu.Unlock()
		for _, m := range burst {
			m.From.Acked(m.Token, nil)
		}
		n -= len(burst)
		burst = burst[:0]
	}
}

func publishAll(t *testing.T, c *raw, n int) {
	for i := range n {
		if _, err := c.nc.Write(encode(t, c.version, publishPacket("devices/me/telemetry", fmt.Sprint(i+1), 1, uint16(i+1)))); err != nil {
			t.Error(err)
			return
		}
	}
}

func checkAcks(t *testing.T, c *raw, l *ledger, device string, n int) {
	for i := 1; i <= n; i++ {
		ack, err := c.read()
		if err != nil {
			t.Errorf("%s, ack %d: %v", device, i, err)
			return
		}
		l.mu.Lock()
		kept := l.kept[fmt.Sprintf("%s %d", device, i)]
		l.mu.Unlock()
		if ack.FixedHeader.Type != packets.Puback || int(ack.PacketID) != i || !kept {
			t.Errorf("%s: got %s %d (kept: %v), want PUBACK %d", device, packets.PacketNames[ack.FixedHeader.Type], ack.PacketID, kept, i)
			return
		}
	}
}

func TestOtherAcksDoNotOvertakeTheSinks(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		r.sink.hold()
		c := r.client(version, "c", "token-a")
		c.send(publishPacket("devices/me/telemetry", "1", 1, 1), publishPacket("devices/me/requests/1", "{}", 1, 2),
			publishPacket("devices/me/nonsense", "{}", 2, 3), publishPacket("devices/me/telemetry", "2", 2, 4))
		first, last := get(t, r.sink.messages, "message"), get(t, r.sink.messages, "message")
		last.From.Acked(last.Token, nil)
		c.quiet() // no ack has left
		first.From.Acked(first.Token, nil)
		var got []uint16
		for range 4 {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, pk.PacketID)
		}
		if !slices.Equal(got, []uint16{1, 2, 3, 4}) {
			t.Errorf("acks in the order %v", got)
		}
	})
}

func TestAFullWindowStopsTheReading(t *testing.T) {
	r := start(t, func(c *Config) { c.Window = 5 })
	r.sink.hold()
	c, other := r.client(4, "c", "token-a"), r.client(4, "c", "token-b")
	for i := range uint16(8) {
		c.send(publishPacket("devices/me/telemetry", "x", 1, i+1))
	}
	var held []Message
	for range 5 {
		held = append(held, get(t, r.sink.messages, "message"))
	}
	other.quiet()
	none(t, r.sink.messages, "sixth message")
	held[0].From.Acked(held[0].Token, nil)
	get(t, r.sink.messages, "sixth message")
	if ack := c.next(packets.Puback); ack.PacketID != 1 {
		t.Errorf("PUBACK %d, want 1", ack.PacketID)
	}
}

func TestQoS2IsTakenInOnceAndAckedWhenKept(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		r.sink.hold()
		c := r.client(version, "c", "token-a")
		c.send(publishPacket("devices/me/telemetry", "1", 2, 5))
		m := get(t, r.sink.messages, "message")
		again := publishPacket("devices/me/telemetry", "1", 2, 5)
		again.FixedHeader.Dup = true
		c.send(again)
		c.quiet() // no PUBREC before the message is kept
		m.From.Acked(m.Token, nil)
		if rec := c.next(packets.Pubrec); rec.PacketID != 5 || rec.ReasonCode != 0 {
			t.Errorf("PUBREC %d code %#x", rec.PacketID, rec.ReasonCode)
		}
		c.send(again)
		if rec := c.next(packets.Pubrec); rec.PacketID != 5 || rec.ReasonCode != 0 {
			t.Errorf("second PUBREC %d code %#x", rec.PacketID, rec.ReasonCode)
		}
		none(t, r.sink.messages, "duplicate at the sink")
		c.send(ackPacket(packets.Pubrel, 5))
		if comp := c.next(packets.Pubcomp); comp.PacketID != 5 || comp.ReasonCode != 0 {
			t.Errorf("PUBCOMP %d code %#x", comp.PacketID, comp.ReasonCode)
		}
		c.send(ackPacket(packets.Pubrel, 5))
		comp := c.next(packets.Pubcomp)
		if want := map[byte]byte{4: 0, 5: 0x92}[version]; comp.ReasonCode != want {
			t.Errorf("PUBCOMP of an unknown id has code %#x, want %#x", comp.ReasonCode, want)
		}
		c.send(publishPacket("devices/me/telemetry", "2", 2, 5))
		get(t, r.sink.messages, "new message with the released id")
	})
}

func TestQoS2SurvivesAReconnect(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		r.sink.hold()
		c := r.client(version, "c", "token-a", keepSession)
		c.send(publishPacket("devices/me/telemetry", "kept", 2, 1), publishPacket("devices/me/telemetry", "held", 2, 2))
		kept, held := get(t, r.sink.messages, "message"), get(t, r.sink.messages, "message")
		kept.From.Acked(kept.Token, nil)
		c.next(packets.Pubrec)
		_ = c.nc.Close()
		r.untilGone(t)
		c = r.client(version, "c", "token-a", keepSession)
		for id, text := range map[uint16]string{1: "kept", 2: "held"} {
			pk := publishPacket("devices/me/telemetry", text, 2, id)
			pk.FixedHeader.Dup = true
			c.send(pk)
		}
		if rec := c.next(packets.Pubrec); rec.PacketID != 1 {
			t.Errorf("PUBREC %d, want 1", rec.PacketID)
		}
		c.quiet()
		held.From.Acked(held.Token, nil)
		if rec := c.next(packets.Pubrec); rec.PacketID != 2 {
			t.Errorf("PUBREC %d, want 2", rec.PacketID)
		}
		none(t, r.sink.messages, "duplicate at the sink")
	})
}

func TestTelemetryReachesSubscribersOnceItIsKept(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	admin := r.client(5, "x", "admin")
	admin.subscribed("devices/+/telemetry", "$share/g/devices/+/telemetry/#")
	device := r.client(4, "c", "token-a")
	device.send(publishPacket("devices/me/telemetry", "kept", 1, 1), publishPacket("devices/me/telemetry/k", "bad", 1, 2))
	kept, bad := get(t, r.sink.messages, "message"), get(t, r.sink.messages, "message")
	admin.quiet()
	kept.From.Acked(kept.Token, nil)
	bad.From.Acked(bad.Token, muster.Errorf(muster.Invalid, "bad"))
	got := admin.next(packets.Publish)
	if got.TopicName != "devices/a/telemetry" || string(got.Payload) != "kept" || got.FixedHeader.Qos != 1 {
		t.Errorf("delivered %q %q QoS %d", got.TopicName, got.Payload, got.FixedHeader.Qos)
	}
	shared := admin.next(packets.Publish) // a shared subscription stands apart from the others (MQTT 5, 4.8.2)
	admin.send(ackPacket(packets.Puback, got.PacketID), ackPacket(packets.Puback, shared.PacketID))
	device.next(packets.Puback)
	device.next(packets.Puback)
	admin.quiet()
	device.send(publishPacket("devices/me/telemetry", "fast", 0, 0))
	for range 2 {
		if got := admin.next(packets.Publish); string(got.Payload) != "fast" {
			t.Errorf("delivered %q, want fast", got.Payload)
		}
	}
	admin.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 5, Filters: packets.Subscriptions{
		{Filter: "devices/+/telemetry"}, {Filter: "$share/g/devices/+/telemetry/#"},
	}})
	admin.next(packets.Unsuback)
	if hit := r.index.Match("devices/a/telemetry"); len(hit.Plain)+len(hit.Shared) > 0 {
		t.Error("telemetry is still copied, though nobody subscribes")
	}
}

func TestRetainedTelemetryIsRetained(t *testing.T) {
	r := start(t, nil)
	device := r.client(4, "c", "token-a")
	pk := publishPacket("devices/me/telemetry", "last", 1, 1)
	pk.FixedHeader.Retain = true
	device.send(pk)
	device.next(packets.Puback)
	eventually(t, "the copy behind the ack", func() bool {
		_, ok := r.retained.tree.Get("devices/a/telemetry")
		return ok
	})
	admin := r.client(5, "x", "admin")
	admin.subscribed("devices/a/#")
	if got := admin.next(packets.Publish); string(got.Payload) != "last" || !got.FixedHeader.Retain {
		t.Errorf("got %q retain %v", got.Payload, got.FixedHeader.Retain)
	}
}

func TestRetainedTopicsAreBounded(t *testing.T) {
	r := start(t, nil)
	r.cfg.MaxRetained = 1
	for _, topic := range []string{"x/1", "x/2", "x/1"} {
		if err := r.Publish(t.Context(), topic, []byte("v"), true, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.retained.tree.Len(); got != 1 || r.metric("dropped_total", "retained") != 1 {
		t.Errorf("%d topics retained, want 1", got)
	}
}

func TestTopicAliasesStandForTheirTopic(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "c", "token-a")
	named := publishPacket("devices/me/telemetry", "1", 0, 0)
	named.Properties.TopicAlias, named.Properties.TopicAliasFlag = 3, true
	short := publishPacket("", "2", 0, 0)
	short.Properties.TopicAlias, short.Properties.TopicAliasFlag = 3, true
	c.send(named, short)
	for _, want := range []string{"1", "2"} {
		if m := get(t, r.sink.messages, "message"); m.Topic != "devices/a/telemetry" || string(m.Payload) != want {
			t.Errorf("%s %s, want payload %s", m.Topic, m.Payload, want)
		}
	}
	short.Properties.TopicAlias = 4
	c.send(short)
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x82 {
		t.Errorf("DISCONNECT %#x for an alias never set, want 0x82", bye.ReasonCode)
	}
	c = r.client(5, "c", "token-a")
	short.Properties.TopicAlias = 17
	c.send(short)
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x94 {
		t.Errorf("DISCONNECT %#x for an alias over the maximum, want 0x94", bye.ReasonCode)
	}
}
