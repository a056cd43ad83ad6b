package hazard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAcksForIDsNeverSentAreHarmless(t *testing.T) {
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		c := s.client(t, version, login{id: "liar", receiveMaximum: 2})
		if err := c.subscribe(1, "numbers"); err != nil {
			t.Fatal(err)
		}
		for id := uint16(1); id < 2000; id++ {
			if err := c.send(append(ack(puback, id), ack(pubcomp, id)...)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.ping(); err != nil {
			t.Fatalf("after acknowledgements for nothing: %v", err)
		}
		pub := s.client(t, version, login{id: "pub"})
		for i := range 10 {
			if err := pub.publish("numbers", fmt.Sprint(i), 1); err != nil {
				t.Fatal(err)
			}
		}
		if version == 5 { // what was not sent opens no window
			checkWindow(t, c, 2)
		}
		for i := range 10 {
			if version == 5 && i < 2 {
				continue
			}
			if p, err := c.take(); err != nil || string(p.payload) != fmt.Sprint(i) {
				t.Fatalf("got %v, %v; want number %d", p, err, i)
			}
		}
	})
}

// checkWindow takes n messages, checks that no more come before they are
// acknowledged, and acknowledges them.
func checkWindow(t *testing.T, c *client, n int) {
	t.Helper()
	var ids []uint16
	for range n {
		p, err := c.next(publish)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.id)
	}
	if err := c.ping(); err != nil {
		t.Fatalf("more messages are on their way than Receive Maximum: %v", err)
	}
	for _, id := range ids {
		if err := c.send(ack(puback, id)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPubrelForAnUnknownIDIsAnsweredAndKeepsNothing(t *testing.T) {
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		c := s.client(t, version, login{id: "liar"})
		for id := uint16(1); id <= 5000/slowdown; id++ {
			if err := c.send(ack(pubrel, id)); err != nil {
				t.Fatal(err)
			}
			p, err := c.next(pubcomp)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[byte]byte{4: 0, 5: 0x92}[version]; p.id != id || p.code != want {
				t.Fatalf("got %v, want PUBCOMP %d with %#x", p, id, want)
			}
		}
		if version == 5 { // 3.1.1 knows no answer to a PUBREC for nothing but PUBREL
			if err := c.send(ack(pubrec, 77)); err != nil {
				t.Fatal(err)
			}
			if p, err := c.next(pubrel); err != nil || p.id != 77 || p.code != 0x92 {
				t.Errorf("got %v, %v; want PUBREL 77 with 0x92", p, err)
			}
		}
		if err := c.ping(); err != nil {
			t.Error(err)
		}
	})
}

func TestAPacketOfTheLargestSizeInOneByteWrites(t *testing.T) {
	size := 32 << 10
	if soak() {
		size = 256 << 10
	}
	s := musterFor(t, spec{MaxPacket: size})
	b := s.bystand(t)
	watch := s.client(t, 4, login{id: "watch"})
	if err := watch.subscribe(1, "drip"); err != nil {
		t.Fatal(err)
	}
	c := s.client(t, 5, login{id: "drip", keepAlive: 60})
	payload := strings.Repeat("0123456789abcdef", size/16)
	packet := message{topic: "drip", payload: payload, qos: 1, id: 1}.bytes(5)
	payload = payload[len(packet)-size:]
	packet = message{topic: "drip", payload: payload, qos: 1, id: 1}.bytes(5)
	if len(packet) != size {
		t.Fatalf("the packet has %d bytes, want %d", len(packet), size)
	}
	for i := range packet {
		if err := c.send(packet[i : i+1]); err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	if _, err := c.next(puback); err != nil {
		t.Error(err)
	}
	if p, err := watch.take(); err != nil || string(p.payload) != payload {
		t.Errorf("got %v, %v; want the same message", p, err)
	}
	b.unhurt(t)
	s.settle(t, 4*megabyte)
}

func TestASecondConnectEndsTheConnection(t *testing.T) {
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		c := s.client(t, version, login{id: "eager"})
		if err := c.send(login{id: "eager", user: "admin"}.bytes(version)); err != nil {
			t.Fatal(err)
		}
		code, err := c.end()
		if want := map[byte]byte{4: 0, 5: 0x82}[version]; err != nil || code != want {
			t.Errorf("DISCONNECT %#x, %v; want %#x", code, err, want)
		}
		s.client(t, version, login{id: "eager"})
	})
}

func TestAConnectAfterTheDeadlineIsNotAnswered(t *testing.T) {
	s := musterFor(t, spec{ConnectTimeout: 300 * time.Millisecond})
	c, err := s.dial("")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if code, err := c.end(); err != nil || code != 0 {
		t.Errorf("code %#x, %v; want the end without a word", code, err)
	}
	if d := time.Since(began); d < 250*time.Millisecond {
		t.Errorf("cut after %v, before the deadline", d)
	}
	_ = c.send(login{id: "late", user: "admin"}.bytes(4)) // the socket may be gone
	if p, err := c.read(); err == nil {
		t.Errorf("got %v", p)
	}
	r, err := s.measure()
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Metrics["muster_mqtt_connects_total"]; n != 0 {
		t.Errorf("%v clients were admitted", n)
	}
	s.settle(t, 4*megabyte)
}

func TestTopicAliasesAreNotAbused(t *testing.T) {
	tests := []struct {
		name string
		send func(top uint16) []message
		want []byte // the code of DISCONNECT, one of
	}{
		{"alias 0", func(uint16) []message { return []message{{topic: "a", alias: -1}} }, []byte{0x94, 0x82}},
		{"an alias over the maximum", func(top uint16) []message { return []message{{topic: "a", alias: int(top) + 1}} }, []byte{0x94}},
		{"the largest alias", func(uint16) []message { return []message{{topic: "a", alias: 65535}} }, []byte{0x94}},
		{"an alias that was never set", func(uint16) []message { return []message{{alias: 1}} }, []byte{0x82, 0x94}},
		{"neither topic nor alias", func(uint16) []message { return []message{{}} }, []byte{0x82, 0x81, 0x90}},
	}
	s := musterFor(t, spec{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := s.client(t, 5, login{id: s.name("alias")})
			for _, m := range tt.send(uint16(c.hello.numbers[propAliasMaximum])) {
				if err := c.send(m.bytes(5)); err != nil {
					t.Fatal(err)
				}
			}
			if code, err := c.end(); err != nil || !slices.Contains(tt.want, code) {
				t.Errorf("DISCONNECT %#x, %v; want one of %#x", code, err, tt.want)
			}
		})
	}
	s.settle(t, 4*megabyte)
}

// An alias means what it was last set to, asks for the rights of its topic each
// time, and means nothing in the next connection.
func TestATopicAliasIsItsTopic(t *testing.T) {
	s := musterFor(t, spec{})
	watch := s.client(t, 5, login{id: "watch"})
	if err := watch.subscribe(1, "devices/+/reported"); err != nil {
		t.Fatal(err)
	}
	c := s.client(t, 5, login{id: "a", user: "dev-a", keep: true})
	for i, step := range []struct {
		message
		code byte
	}{
		{message{topic: "devices/me/reported", alias: 1}, 0},
		{message{alias: 1}, 0},
		{message{topic: "devices/dev-b/reported", alias: 1}, 0x87},
		{message{alias: 1}, 0x87},
		{message{topic: "devices/me/reported", alias: 1}, 0},
		{message{alias: 1}, 0},
	} {
		step.qos, step.id, step.payload = 1, uint16(i+1), fmt.Sprint(i)
		if err := c.send(step.bytes(5)); err != nil {
			t.Fatal(err)
		}
		if p, err := c.next(puback); err != nil || p.code != step.code && (step.code != 0 || p.code != 0x10) {
			t.Fatalf("step %d: %v, %v; want %#x", i, p, err, step.code)
		}
		if step.code != 0 {
			continue
		}
		if p, err := watch.take(); err != nil || p.topic != "devices/dev-a/reported" || string(p.payload) != step.payload {
			t.Fatalf("step %d: got %v, %v", i, p, err)
		}
	}
	c.drop()
	c = s.client(t, 5, login{id: "a", user: "dev-a", keep: true})
	if err := c.send(message{alias: 1, qos: 1, id: 1}.bytes(5)); err != nil {
		t.Fatal(err)
	}
	if code, err := c.end(); err != nil || code != 0x82 {
		t.Errorf("an alias of the last connection: DISCONNECT %#x, %v; want 0x82", code, err)
	}
	s.settle(t, 4*megabyte)
}

// Garbage ends its own connection, whatever it is, and nothing else.
func TestGarbageOfAllKindsHurtsNobody(t *testing.T) {
	rounds := 400
	if soak() {
		rounds = 20_000
	}
	s := musterFor(t, spec{ConnectTimeout: 2 * time.Second, MaxPacket: 4096})
	b := s.bystand(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	err := crowd(8, func(k int) error {
		r := rand.New(rand.NewPCG(seed, uint64(k)))
		for range rounds / 8 {
			if err := s.babble(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("%.500v", err)
	}
	b.unhurt(t)
	s.settle(t, 8*megabyte)
}

// babble opens a connection, sends garbage and closes it; the server may end it
// before or not.
func (s *server) babble(r *rand.Rand) error {
	c, err := s.dial("")
	if err != nil {
		return err
	}
	defer c.reset()
	version := byte(4 + r.IntN(2))
	admitted := r.IntN(4) > 0
	if admitted {
		if err := c.enter(version, login{id: fmt.Sprintf("babble-%d", r.Uint64()), keep: r.IntN(10) == 0}); err != nil {
			return err
		}
	}
	for range 1 + r.IntN(4) {
		_ = c.send(garbage(r, version)) // the server may have ended it
	}
	_ = c.send(pingBytes())
	c.wait = 200 * time.Millisecond
	for range 20 {
		_, err := c.read()
		if admitted && errors.Is(err, errWire) {
			return err // before that, garbage may have chosen another version
		}
		if err != nil {
			return nil // ended, or waiting for the rest of a packet
		}
	}
	return nil
}

// garbage returns bytes that are sometimes close to MQTT and sometimes not.
func garbage(r *rand.Rand, version byte) []byte {
	topic := strings.Repeat("a/", r.IntN(40)) + "a"
	valid := [][]byte{
		login{id: "x", user: "admin", will: &will{topic: topic}}.bytes(version),
		message{topic: topic, payload: "x", qos: byte(r.IntN(3)), id: 1, alias: r.IntN(3)}.bytes(version),
		subscribeBytes(version, 1, byte(r.IntN(3)), topic, "#", "$share/g/"+topic),
		unsubscribeBytes(version, 1, topic),
		ack(byte(puback+r.IntN(4)), uint16(r.IntN(3))),
		pingBytes(), goodbyeBytes(),
	}
	p := slices.Clone(valid[r.IntN(len(valid))])
	switch r.IntN(5) {
	case 0: // noise
		for i := range p {
			p[i] = byte(r.Uint32())
		}
	case 1: // one bit is wrong
		p[r.IntN(len(p))] ^= 1 << r.IntN(8)
	case 2: // cut short, with the right length
		if len(p) > 3 && len(p) < 128 {
			p = frame(p[0], p[2:2+r.IntN(len(p)-2)])
		}
	case 3: // a property list of any kind
		p = frame(p[0], append([]byte{0, 1, byte(r.IntN(12))}, noise(r, 10)...))
	default: // another type with this body
		p[0] = byte(r.Uint32())
	}
	return p
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
