package hazard

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// bystander is a healthy pair of clients that works while others misbehave.
type bystander struct {
	over  chan struct{}
	work  sync.WaitGroup
	trips int
	worst time.Duration
	err   error
}

// bystand starts a bystander.
func (s *server) bystand(t *testing.T) *bystander {
	t.Helper()
	sub, pub := s.client(t, 5, login{id: s.name("bystander-sub")}), s.client(t, 4, login{id: s.name("bystander-pub")})
	if err := sub.subscribe(1, "bystander"); err != nil {
		t.Fatal(err)
	}
	b := &bystander{over: make(chan struct{})}
	b.work.Go(func() {
		pace := time.NewTicker(2 * time.Millisecond) // leaves the machine to the others
		defer pace.Stop()
		for b.err == nil {
			select {
			case <-b.over:
				return
			case <-pace.C:
			}
			var d time.Duration
			d, b.err = pub.trip(sub, "bystander", fmt.Sprint(b.trips))
			b.worst = max(b.worst, d)
			b.trips++
		}
	})
	return b
}

// unhurt ends a bystander's work and checks that nothing held it up.
func (b *bystander) unhurt(t *testing.T) {
	t.Helper()
	close(b.over)
	b.work.Wait()
	if b.err != nil {
		t.Errorf("the bystander is hurt: %v", b.err)
	}
	if b.worst > lowLatency {
		t.Errorf("a bystander's message took %v, want at most %v", b.worst, lowLatency)
	}
	if b.trips == 0 {
		t.Error("the bystander did nothing")
	}
	t.Logf("the bystander made %d round trips, the slowest in %v", b.trips, b.worst)
}

// crowd runs f for every i below n at once and returns the errors.
func crowd(n int, f func(i int) error) error {
	var work sync.WaitGroup
	all := make([]error, n)
	for i := range n {
		work.Go(func() { all[i] = f(i) })
	}
	work.Wait()
	return errors.Join(all...)
}

// address spreads clients over this machine's addresses, as a fleet's are.
func address(i int) string { return fmt.Sprintf("127.0.%d.%d", i/200%8, 2+i%200) }

func TestAFloodOfHalfOpenSocketsHoldsUpNobody(t *testing.T) {
	const sockets = 600
	s := musterFor(t, spec{ConnectTimeout: 2 * time.Second, MaxHalfOpen: 100})
	b := s.bystand(t)
	err := crowd(8, func(int) error {
		for i := range sockets / 8 {
			c, err := s.dial("")
			if err != nil {
				return err
			}
			if i%2 == 0 { // the other half says nothing at all
				_ = c.send(login{id: "slow", user: "admin"}.bytes(4)[:5]) // it may be cut by now
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	r, err := s.eventually("the bound on half-open sockets", func(r report) bool { return r.Files <= s.base.Files+2+100+8 })
	if err != nil {
		t.Errorf("%v: %d files", err, r.Files)
	}
	s.client(t, 4, login{id: "new"})
	if _, err := s.eventually("the deadline", func(r report) bool { return r.Files <= s.base.Files+3 }); err != nil {
		t.Error(err)
	}
	b.unhurt(t)
	s.settle(t, 4*megabyte)
}

func TestAFloodOfConnectsHoldsUpNobody(t *testing.T) {
	s := musterFor(t, spec{})
	b := s.bystand(t)
	err := crowd(8, func(k int) error {
		for i := range 60 {
			c, err := s.dial("")
			if err != nil {
				return err
			}
			l := login{id: fmt.Sprintf("flood-%d-%d", k, i), user: "stranger"}
			if i%2 == 0 {
				l.user = "admin"
			}
			c.version = 4
			if err := c.send(l.bytes(4)); err == nil && i%3 == 0 {
				_, _ = c.read() // a refusal or a welcome, or the end by a limit
			}
			c.reset()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	b.unhurt(t)
	s.settle(t, 4*megabyte)
}

// A power cut ends, and everyone comes back in the same second.
func TestAReconnectStormOfAllClientsAtOnce(t *testing.T) {
	const fleet = 2000 / slowdown
	s := musterFor(t, spec{MaxHalfOpen: 2 * fleet})
	b := s.bystand(t)
	storm := func(version byte, present bool) time.Duration {
		began := time.Now()
		err := crowd(fleet, func(i int) error {
			l := login{id: fmt.Sprint(i), user: fmt.Sprintf("dev-%d", i), keep: true, keepAlive: 600}
			c, err := s.persevere(address(i), version, l)
			if err != nil {
				return err
			}
			if c.hello.present != present {
				return fmt.Errorf("%w: session present %v", errAnswer, c.hello.present)
			}
			if present {
				return c.ping()
			}
			return c.subscribe(1, "devices/me/desired")
		})
		if err != nil {
			t.Errorf("the storm: %.500v", err)
		}
		return time.Since(began)
	}
	first := storm(4, false)
	r, err := s.measure()
	if err != nil {
		t.Fatal(err)
	}
	second := storm(5, true) // every one of them a takeover
	t.Logf("%d clients connect in %v, and again in %v; %d bytes of heap each",
		fleet, first, second, (r.Heap-s.base.Heap)/fleet)
	b.unhurt(t)
	s.settle(t, 32*megabyte)
}

// persevere connects as a good client does: when it is turned away, it comes
// again, for as long as a test waits.
func (s *server) persevere(from string, version byte, l login) (*client, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(s.patience); ; <-tick.C {
		c, err := s.connectFrom(from, version, l)
		if err == nil || time.Now().After(end) {
			return c, err
		}
	}
}

// Two clients with one id throw each other out for ever; the broker slows them
// down.
func TestTwoClientsFightingForAnIDAreSlowedDown(t *testing.T) {
	const span, most = 3 * time.Second, 25
	s := musterFor(t, spec{})
	b := s.bystand(t)
	wins := make([]int, 2)
	err := crowd(2, func(i int) error {
		for end := time.Now().Add(span); time.Now().Before(end); {
			c, err := s.dial("")
			if err != nil {
				return err
			}
			c.wait = time.Until(end) + time.Millisecond
			if c.enter(4, login{id: "fought-for"}) == nil {
				wins[i]++
				_, _ = c.end() // thrown out, or out of time
			}
			c.drop()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if n := wins[0] + wins[1]; n > most || n == 0 {
		t.Errorf("the id changed hands %d times within %v, want 1 to %d", n, span, most)
	}
	b.unhurt(t)
	s.settle(t, 4*megabyte)
}
