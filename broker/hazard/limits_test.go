package hazard

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// versions runs a test for both versions of MQTT against one server.
func versions(t *testing.T, sp spec, f func(t *testing.T, s *server, version byte)) {
	t.Helper()
	s := musterFor(t, sp)
	t.Run("MQTT 3.1.1", func(t *testing.T) { f(t, s, 4) })
	s.hangUp()
	t.Run("MQTT 5", func(t *testing.T) { f(t, s, 5) })
	s.settle(t, 4*megabyte)
}

// A client somewhat over its rate is delayed and loses nothing.
func TestAClientOverItsRateIsDelayedFirst(t *testing.T) {
	tests := []struct {
		name string
		spec spec
		size int // of each message
		n    int
	}{
		{"messages", spec{MessageRate: 100}, 10, 350},
		{"bytes", spec{ByteRate: 50_000}, 1000, 175},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := musterFor(t, tt.spec)
			c := s.client(t, 5, login{id: "fast"})
			began := time.Now()
			for i := range tt.n {
				if err := c.publish("load", strings.Repeat("x", tt.size), 1); err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			if d := time.Since(began); d < time.Second { // three and a half, less a burst of two
				t.Errorf("three and a half seconds' worth took %v", d)
			}
			if err := c.ping(); err != nil {
				t.Error(err)
			}
			s.settle(t, 4*megabyte)
		})
	}
}

// A client that goes on far over its rate is cut, and told why where that can be.
func TestAFloodingClientIsCutWithItsReason(t *testing.T) {
	for name, sp := range map[string]spec{
		"messages": {MessageRate: 100, OverTime: 500 * time.Millisecond},
		"bytes":    {ByteRate: 20_000, OverTime: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, sp, func(t *testing.T, s *server, version byte) {
				b := s.client(t, 4, login{id: "bystander"}) // within every rate
				c := s.client(t, version, login{id: "flood"})
				burst := bytes.Repeat(message{topic: "load", payload: strings.Repeat("x", 100)}.bytes(version), 100)
				c.wait = 6 * time.Second
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for end := time.Now().Add(c.wait); time.Now().Before(end); {
						if c.send(burst) != nil {
							return
						}
					}
				}()
				code, err := c.end()
				c.drop()
				<-sent
				if err != nil {
					t.Error(err)
				}
				if want := map[byte]byte{4: 0, 5: 0x97}[version]; code != want && code != 0x96 {
					t.Errorf("DISCONNECT %#x, want %#x", code, want)
				}
				if err := b.ping(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestTheSubscriptionsOfASessionAreLimited(t *testing.T) {
	const most = 10
	versions(t, spec{MaxSubscriptions: most}, func(t *testing.T, s *server, version byte) {
		c := s.client(t, version, login{id: "greedy"})
		var filters []string
		for i := range most + 3 {
			filters = append(filters, fmt.Sprintf("topic/%d", i))
		}
		codes, err := c.subscribed(1, filters...)
		if err != nil {
			t.Fatal(err)
		}
		full := map[byte]byte{4: 0x80, 5: 0x97}[version]
		want := append(slices.Repeat([]byte{1}, most), full, full, full)
		if !bytes.Equal(codes, want) {
			t.Errorf("SUBACK %#x, want %#x", codes, want)
		}
		if err := c.subscribe(1, "topic/0"); err != nil {
			t.Errorf("a subscription that exists is refused: %v", err)
		}
	})
}

func TestTheDepthOfTopicsIsLimited(t *testing.T) {
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		c := s.client(t, version, login{id: "deep"})
		deep := strings.Repeat("a/", 200) + "a"
		for _, filter := range []string{deep, "$share/g/" + deep, deep + "/#", strings.Repeat("/", 60_000), strings.Repeat("+/", 30_000) + "#"} {
			codes, err := c.subscribed(1, filter)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[byte]byte{4: 0x80, 5: 0x8f}[version]; codes[0] != want {
				t.Errorf("SUBACK %#x for %.30q..., want %#x", codes[0], filter, want)
			}
		}
		if err := c.send(message{topic: deep, payload: "x", qos: 1, id: 9}.bytes(version)); err != nil {
			t.Fatal(err)
		}
		p, err := c.next(puback)
		if err != nil || version == 5 && p.code < 0x80 {
			t.Errorf("a message to a topic of 201 levels: %v, %v; want it refused", p, err)
		}
	})
}

// A quota bounds the topics that one client fills with retained messages; others
// still have room.
func TestTheRetainedTopicsOfOneClientAreLimited(t *testing.T) {
	const topics, quota = 100_000 / slowdown, 1000
	s := musterFor(t, spec{MaxRetained: quota})
	c := s.client(t, 5, login{id: "hoarder"})
	var burst []byte
	for i := range topics {
		burst = append(burst, message{topic: fmt.Sprintf("hoard/%d", i), payload: "worthless", retain: true}.bytes(5)...)
		if len(burst) > 60_000 || i == topics-1 {
			if err := c.send(burst); err != nil {
				t.Fatal(err)
			}
			burst = burst[:0]
		}
	}
	if err := c.ping(); err != nil {
		t.Fatal(err)
	}
	r, err := s.measure()
	if err != nil {
		t.Fatal(err)
	}
	if n := retained(r.Metrics); n < 1 || n > quota {
		t.Errorf("%v topics are retained, want at most %d", n, quota)
	}
	if r.Heap > s.base.Heap+8*megabyte {
		t.Errorf("the heap grew by %d MB", (r.Heap-s.base.Heap)>>20)
	}
	if n := dropped(r.Metrics); n < topics-quota {
		t.Errorf("%v messages are counted as not retained, want %d", n, topics-quota)
	}
	s.othersMayRetain(t)
	s.settle(t, 8*megabyte)
}

func (s *server) othersMayRetain(t *testing.T) {
	t.Helper()
	other := s.client(t, 5, login{id: "1", user: "dev-1"})
	m := message{topic: "devices/dev-1/reported", payload: "{}", qos: 1, id: 1, retain: true}
	if err := other.send(m.bytes(5)); err != nil {
		t.Fatal(err)
	}
	if p, err := other.next(puback); err != nil || p.code >= 0x80 {
		t.Errorf("another client's retained message: %v, %v", p, err)
	}
	late := s.client(t, 5, login{id: "late"})
	if err := late.subscribe(1, "devices/+/reported"); err != nil {
		t.Fatal(err)
	}
	if p, err := late.take(); err != nil || !p.retain() || string(p.payload) != "{}" {
		t.Errorf("another client's retained message is not kept: %v, %v", p, err)
	}
}

func TestWillsToForbiddenTopicsAreNeverPublished(t *testing.T) {
	tests := []struct {
		name string
		will will
	}{
		{"another device's telemetry", will{topic: "devices/dev-b/telemetry", qos: 1}},
		{"another device's commands, retained", will{topic: "devices/dev-b/commands/1", qos: 1, retain: true}},
		{"what only the server writes", will{topic: "devices/me/desired", qos: 1, retain: true}},
		{"the server's own topics", will{topic: "$SYS/broker/uptime"}},
		{"a topic of nobody", will{topic: "anything", qos: 2}},
		{"a wildcard", will{topic: "devices/+/commands/1", qos: 1}},
		{"all", will{topic: "#", qos: 1}},
		{"a shared subscription's name", will{topic: "$share/g/anything", qos: 1}},
		{"201 levels", will{topic: "devices/me/" + strings.Repeat("x/", 199) + "x", qos: 1}},
		{"another device's, late", will{topic: "devices/dev-b/commands/1", qos: 1, delay: 1}},
	}
	s := musterFor(t, spec{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer s.hangUp()
			tt.will.payload = "forged"
			for _, version := range []byte{4, 5} {
				if err := forbiddenWill(s, version, tt.will); err != nil {
					t.Errorf("version %d: %v", version, err)
				}
			}
		})
	}
	s.settle(t, 4*megabyte)
}

// A client that can take only small packets is sent none that is larger, and
// holds up nobody.
func TestNothingLargerThanTheClientsMaximumIsSent(t *testing.T) {
	s := musterFor(t, spec{})
	for _, most := range []uint32{1, 2, 4, 5, 12, 20, 40, 60} {
		t.Run(fmt.Sprintf("%d bytes", most), func(t *testing.T) {
			defer s.hangUp()
			b := s.bystand(t)
			c, err := s.dial("")
			if err != nil {
				t.Fatal(err)
			}
			c.version = 5
			l := login{id: fmt.Sprintf("tiny-%d", most), user: "admin", keep: true, maximumPacket: most}
			if err := c.send(slices.Concat(l.bytes(5), subscribeBytes(5, 1, 1, "load"), pingBytes())); err != nil {
				t.Fatal(err)
			}
			pub := s.client(t, 5, login{id: s.name("pub")})
			for i := range 20 {
				if err := pub.publish("load", strings.Repeat("x", i*10), 1); err != nil {
					t.Fatal(err)
				}
			}
			// A malformed packet ends the connection at the latest, so that all can be read.
			_ = c.send(pingBytes(), message{topic: "a\x00b", qos: 1, id: 3}.bytes(5))
			checkSizes(t, c, most)
			b.unhurt(t)
		})
	}
	s.settle(t, 4*megabyte)
}

// checkSizes reads to the end of the connection.
func checkSizes(t *testing.T, c *client, most uint32) {
	t.Helper()
	for {
		p, err := c.read()
		if errors.Is(err, errWire) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		if p.size > int(most) {
			t.Errorf("got %v, which is over %d bytes", p, most)
		}
	}
}
