package hazard

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What the model leaves out: filters that overlap, shared subscriptions, and
// retained messages that are cleared.

// A message that matches several filters of one client comes at least once, and
// at the highest QoS that they ask for (MQTT 5, 3.3.4: MQTT-3.3.4-2).
func TestOverlappingFiltersBringEachMessageAtTheHighestQoS(t *testing.T) {
	s := musterFor(t, spec{})
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		prefix := fmt.Sprintf("overlap-%d/", run)
		version := rapid.SampledFrom([]byte{4, 5}).Draw(t, "version")
		sub, err := s.connect(version, login{id: s.name("sub")})
		if err != nil {
			t.Fatal(err)
		}
		pub, err := s.connect(4, login{id: s.name("pub")})
		if err != nil {
			t.Fatal(err)
		}
		highest := byte(0)
		for _, f := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a/b", "a/+", "+/b", "a/#", "#", "+/+"}), 2, 4, rapid.ID).Draw(t, "filters") {
			qos := byte(rapid.IntRange(0, 2).Draw(t, "qos"))
			highest = max(highest, qos)
			if err := sub.subscribe(qos, prefix+f); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 5 {
			if err := pub.publish(prefix+"a/b", itoa(i), 1); err != nil {
				t.Fatal(err)
			}
		}
		checkCopies(t, sub, 5, min(highest, 1))
		sub.drop()
		pub.drop()
	})
	s.settle(t, 4*megabyte)
}

// checkCopies takes what has come and checks that each of n numbers did, in order,
// at the QoS given at best.
func checkCopies(t *rapid.T, sub *client, n int, highest byte) {
	if err := sub.send(pingBytes()); err != nil {
		t.Fatal(err)
	}
	best := make(map[string]byte)
	for last := -1; ; {
		p, err := sub.next0()
		if err != nil {
			t.Fatal(err)
		}
		if p.kind == pingresp && len(best) == n {
			return
		}
		if p.kind == pingresp { // the ping may overtake a message
			continue
		}
		i := slices.Index([]string{"0", "1", "2", "3", "4"}, string(p.payload))
		if p.kind != publish || p.qos() > highest || i < last {
			t.Fatalf("got %v with %q after number %d", p, p.payload, last)
		}
		last = i
		best[string(p.payload)] = max(best[string(p.payload)], p.qos()+1)
		if p.qos() == 1 {
			if err := sub.send(ack(puback, p.id)); err != nil {
				t.Fatal(err)
			}
		}
		if len(best) < n {
			continue
		}
		for number, qos := range best {
			if qos != highest+1 {
				t.Fatalf("number %s came at QoS %d at best, want %d", number, qos-1, highest)
			}
		}
		return
	}
}

// Each message of a shared subscription goes to exactly one of its members, and
// what one leaves unacknowledged goes to another.
func TestASharedSubscriptionGivesEachMessageToOneMember(t *testing.T) {
	const members, n = 3, 90
	s := musterFor(t, spec{})
	var all []*client
	for i := range members {
		c := s.client(t, 5, login{id: fmt.Sprintf("member-%d", i)})
		if err := c.subscribe(1, "$share/crew/jobs"); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	pub := s.client(t, 4, login{id: "pub"})
	for i := range n {
		if err := pub.publish("jobs", itoa(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	seen, shares := make(map[string]int), make([]int, members)
	for round := 0; round < 100 && len(seen) < n; round++ { // a ping may overtake the last jobs
		for i, c := range all {
			shares[i] += takeJobs(t, c, i > 0, seen) // the first keeps its acknowledgements back
		}
	}
	if len(seen) != n || slices.Contains(shares, 0) {
		t.Fatalf("%d of %d jobs came, %v to each member", len(seen), n, shares)
	}
	for job, times := range seen {
		if times != 1 {
			t.Errorf("job %s came %d times", job, times)
		}
	}
	s.settle(t, 4*megabyte)
}

// takeJobs takes what has come for a member by the answer to a ping.
func takeJobs(t *testing.T, c *client, acknowledge bool, seen map[string]int) (taken int) {
	t.Helper()
	if err := c.send(pingBytes()); err != nil {
		t.Fatal(err)
	}
	for {
		p, err := c.next0()
		if err == nil && p.kind == publish && acknowledge {
			err = c.send(ack(puback, p.id))
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.kind == pingresp {
			return taken
		}
		seen[string(p.payload)]++
		taken++
	}
}

func TestWhatAMemberLeavesUnacknowledgedGoesToAnother(t *testing.T) {
	const n = 10
	s := musterFor(t, spec{})
	first := s.client(t, 5, login{id: "first"})
	if err := first.subscribe(1, "$share/crew/jobs"); err != nil {
		t.Fatal(err)
	}
	pub := s.client(t, 4, login{id: "pub"})
	for i := range n {
		if err := pub.publish("jobs", itoa(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if _, err := first.next(publish); err != nil {
			t.Fatal(err)
		}
	}
	second := s.client(t, 5, login{id: "second"})
	if err := second.subscribe(1, "$share/crew/jobs"); err != nil {
		t.Fatal(err)
	}
	first.drop() // its session ends with the connection
	for i := range n {
		p, err := second.take()
		if err != nil || string(p.payload) != itoa(i) {
			t.Fatalf("got %v, %v; want job %d, in order", p, err, i)
		}
	}
	s.settle(t, 4*megabyte)
}

// The last retained message of a topic comes with a new subscription, an empty one
// clears it, and neither is marked as retained for those who had subscribed before.
func TestRetainedMessagesAreReplacedAndCleared(t *testing.T) {
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		pub, old := s.client(t, version, login{id: "pub"}), s.client(t, version, login{id: "old"})
		// The ping makes sure that the search for retained messages is over.
		if err := errors.Join(old.subscribe(1, "state/+"), old.ping()); err != nil {
			t.Fatal(err)
		}
		for i, payload := range []string{"one", "two", "", "three", ""} {
			m := message{topic: "state/x", payload: payload, qos: 1, id: uint16(i + 1), retain: true}
			if err := pub.send(m.bytes(version)); err != nil {
				t.Fatal(err)
			}
			if _, err := pub.next(puback); err != nil {
				t.Fatal(err)
			}
			if p, err := old.take(); err != nil || p.retain() || string(p.payload) != payload {
				t.Fatalf("live: got %v with %q, %v; want %q not marked as retained", p, p.payload, err, payload)
			}
			fresh := s.client(t, version, login{id: s.name("fresh")})
			if err := fresh.subscribe(1, "state/#"); err != nil {
				t.Fatal(err)
			}
			if payload != "" {
				if p, err := fresh.take(); err != nil || !p.retain() || string(p.payload) != payload {
					t.Fatalf("new: got %v with %q, %v; want %q marked as retained", p, p.payload, err, payload)
				}
			}
			if err := fresh.ping(); err != nil {
				t.Fatalf("new, after %q: %v", payload, err)
			}
			if err := old.ping(); err != nil {
				t.Fatalf("live, after %q: %v", payload, err)
			}
		}
	})
}
