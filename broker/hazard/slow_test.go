package hazard

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	lowLatency = slowdown * 2 * time.Second // on a machine that is busy with other tests; a held-up publisher waits for ever
	slowAfter  = 2 * time.Second            // a client that takes nothing for so long is cut
	megabyte   = 1 << 20
)

// stalled returns a subscriber to topic that does not read any more.
func (s *server) stalled(t *testing.T, version, qos byte, l login, topic string) *client {
	t.Helper()
	c := s.client(t, version, l)
	if err := errors.Join(c.subscribe(qos, topic), c.small()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestASlowQoS0SubscriberLosesMessagesAndNobodyElseDoes(t *testing.T) {
	const n, size = 600 / min(slowdown, 2), 100_000 // 30 MB at least
	s := musterFor(t, spec{SlowAfter: slowAfter})
	s.stalled(t, 5, 0, login{id: "stalled"}, "load")
	healthy, pub := s.client(t, 4, login{id: "healthy"}), s.client(t, 4, login{id: "pub"})
	if err := healthy.subscribe(1, "load"); err != nil {
		t.Fatal(err)
	}
	peak, worst := uint64(0), time.Duration(0)
	for i := range n {
		d, err := pub.trip(healthy, "load", fmt.Sprint(i)+strings.Repeat("x", size))
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		worst = max(worst, d)
		if i%100 == 99 {
			r, err := s.measure()
			if err != nil {
				t.Fatal(err)
			}
			peak = max(peak, r.Heap)
		}
	}
	if worst > lowLatency {
		t.Errorf("a message took %v, want at most %v", worst, lowLatency)
	}
	if peak > s.base.Heap+24*megabyte {
		t.Errorf("the heap grew by %d MB", (peak-s.base.Heap)>>20)
	}
	if n := s.metric(t, dropped); n == 0 {
		t.Error("no dropped message is counted")
	}
	t.Logf("slowest message %v, heap up by %d KB", worst, (peak-min(peak, s.base.Heap))>>10)
	s.settle(t, 4*megabyte)
}

func TestAStalledSubscriberIsCutAtTheDeadlineAndItsIDIsFreeAtOnce(t *testing.T) {
	versions(t, spec{SlowAfter: slowAfter}, func(t *testing.T, s *server, version byte) {
		s.stalled(t, version, 1, login{id: "stalled"}, "load")
		pub := s.client(t, 4, login{id: "pub"})
		fill := func() {
			for i := range 150 {
				if err := pub.publish("load", strings.Repeat("x", 100_000), 1); err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
		}
		fill()
		began := time.Now()
		taker := s.client(t, version, login{id: "stalled"})
		if d := time.Since(began); d > lowLatency {
			t.Errorf("taking the id over took %v", d)
		}
		if err := errors.Join(taker.subscribe(1, "load"), taker.small()); err != nil {
			t.Fatal(err)
		}
		if version < 5 {
			return // waiting for the deadline once is enough
		}
		fill()
		if _, err := s.eventually("the cut", func(r report) bool { return r.Metrics["muster_mqtt_connections"] == 1 }); err != nil {
			t.Error(err)
		}
	})
}

// A session's queue is bounded: the oldest messages go, and every one that goes
// is counted.
func TestAQueueThatOverflowsDropsTheOldestAndCountsThem(t *testing.T) {
	const queue, n = 100, 400
	s := musterFor(t, spec{Queue: queue})
	away := login{id: "away", keep: true}
	c := s.client(t, 4, away)
	if err := c.subscribe(1, "numbers"); err != nil {
		t.Fatal(err)
	}
	if err := c.send(goodbyeBytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.end(); err != nil {
		t.Fatal(err)
	}
	pub := s.client(t, 4, login{id: "pub"})
	for i := range n {
		if err := pub.publish("numbers", fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	lost := int(s.metric(t, dropped))
	if lost != n-queue {
		t.Errorf("%d messages are counted as dropped, want %d", lost, n-queue)
	}
	c = s.client(t, 4, away)
	for i := n - queue; i < n; i++ {
		p, err := c.take()
		if err != nil {
			t.Fatal(err)
		}
		if string(p.payload) != fmt.Sprint(i) {
			t.Fatalf("got number %s, want %d: the oldest are dropped", p.payload, i)
		}
	}
	if err := c.ping(); err != nil {
		t.Error(err)
	}
	s.settle(t, 4*megabyte)
}

func TestAQueueIsBoundedInBytesToo(t *testing.T) {
	const n, size = 250 / min(slowdown, 2), 200_000 // 25 MB at least
	s := musterFor(t, spec{})
	away := login{id: "away", keep: true}
	c := s.client(t, 5, away)
	if err := c.subscribe(1, "load"); err != nil {
		t.Fatal(err)
	}
	c.drop()
	pub := s.client(t, 4, login{id: "pub"})
	for i := range n {
		if err := pub.publish("load", strings.Repeat("x", size), 1); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	r, err := s.measure()
	if err != nil {
		t.Fatal(err)
	}
	if r.Heap > s.base.Heap+20*megabyte {
		t.Errorf("the heap grew by %d MB for one absent session", (r.Heap-s.base.Heap)>>20)
	}
	if dropped(r.Metrics) == 0 {
		t.Error("no dropped message is counted")
	}
	c = s.client(t, 5, login{id: "away"}) // a clean start ends the session
	if err := c.ping(); err != nil {
		t.Error(err)
	}
	s.settle(t, 16*megabyte) // the log keeps its last blocks at hand
}

// A client that reads and never acknowledges keeps its own window full and nobody
// else's.
func TestAClientThatNeverAcksGetsItsWindowAndHoldsUpNobody(t *testing.T) {
	const window, queue, n = 10, 100, 300
	s := musterFor(t, spec{Queue: queue})
	mute := login{id: "mute", keep: true, receiveMaximum: window}
	c := s.client(t, 5, mute)
	healthy, pub := s.client(t, 5, login{id: "healthy"}), s.client(t, 5, login{id: "pub"})
	if err := errors.Join(c.subscribe(1, "numbers"), healthy.subscribe(1, "numbers")); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := pub.trip(healthy, "numbers", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	ids := make(map[string]uint16)
	for i := range window {
		p, err := c.next(publish)
		if err != nil {
			t.Fatal(err)
		}
		if string(p.payload) != fmt.Sprint(i) {
			t.Fatalf("got number %s, want %d", p.payload, i)
		}
		ids[string(p.payload)] = p.id
	}
	if err := c.ping(); err != nil {
		t.Errorf("more than Receive Maximum messages are on their way: %v", err)
	}
	c.drop()
	checkAgain(t, s.client(t, 5, mute), ids, window, n)
	s.settle(t, 4*megabyte)
}

// checkAgain takes what a session has left: first what it was sent, with the same
// ids and marked as duplicates, then the newest of the rest, all in order.
func checkAgain(t *testing.T, c *client, ids map[string]uint16, window, n int) {
	t.Helper()
	last := -1
	for i := 0; last < n-1; i++ {
		p, err := c.take()
		if err != nil {
			t.Fatalf("after number %d: %v", last, err)
		}
		now := 0
		if _, err := fmt.Sscan(string(p.payload), &now); err != nil || now <= last {
			t.Fatalf("number %s after %d", p.payload, last)
		}
		last = now
		if i < window && (now != i || !p.dup() || p.id != ids[fmt.Sprint(i)]) {
			t.Fatalf("message %d is %v with %s, want the same again as a duplicate", i, p, p.payload)
		}
	}
	if err := c.ping(); err != nil {
		t.Error(err)
	}
}
