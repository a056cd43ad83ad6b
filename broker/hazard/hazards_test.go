package hazard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// P1.
func TestATruncatedSubscribeEndsItsConnectionOnly(t *testing.T) {
	known{harm: errCrashed, attack: func(s *server) error {
		bystander, err := s.connect(5, login{id: "bystander"})
		if err != nil {
			return err
		}
		for _, p := range cutShort(subscribeBytes(5, 1, 1, "a")) {
			c, err := s.connect(5, login{id: s.name("attacker")})
			if err != nil {
				return err
			}
			if err := c.send(p); err != nil {
				return err
			}
			_, endErr := c.end()
			if s.spec.Target == stock && s.died() {
				return fmt.Errorf("%w after SUBSCRIBE %x", errCrashed, p)
			}
			if endErr != nil {
				return endErr
			}
			if err := bystander.ping(); err != nil {
				return err
			}
		}
		return nil
	}}.run(t)
}

// cutShort returns a packet with its body cut at every length, the longest first,
// and its remaining length put right.
func cutShort(p []byte) [][]byte {
	var all [][]byte
	for n := len(p) - 1; n > 2; n-- {
		all = append(all, frame(p[0], p[2:n]))
	}
	return all
}

// P2.
func TestReceiveMaximumDoesNotDeadlock(t *testing.T) {
	known{harm: errFrozen, attack: receiveMaximumFlood}.run(t)
}

// receiveMaximumFlood has 20 clients publish to one that takes 20 messages at a
// time, never more than 200 ahead of it, which every queue can hold.
func receiveMaximumFlood(s *server) error {
	const publishers, each, ahead, maximum = 20, 300, 200, 20
	sub, err := s.connect(5, login{id: "sub", receiveMaximum: maximum})
	if err != nil {
		return err
	}
	if err := sub.subscribe(1, "load/#"); err != nil {
		return err
	}
	credit := make(chan struct{}, ahead)
	for range ahead {
		credit <- struct{}{}
	}
	over := make(chan struct{}) // the subscriber has ended
	failed := make(chan error, publishers)
	var work sync.WaitGroup
	for i := range publishers {
		work.Go(func() { failed <- publishOnCredit(s, fmt.Sprintf("pub-%d", i), each, credit, over) })
	}
	err = takeInGroups(sub, publishers*each, maximum, credit)
	close(over)
	if err != nil {
		s.hangUp()
	}
	work.Wait()
	close(failed)
	for perr := range failed {
		err = errors.Join(err, perr)
	}
	return err
}

func publishOnCredit(s *server, id string, n int, credit, over chan struct{}) error {
	c, err := s.connect(4, login{id: id})
	for i := 0; i < n && err == nil; i++ {
		select {
		case <-credit:
		case <-over:
			return nil
		}
		err = c.publish("load/"+id, fmt.Sprint(i), 1)
	}
	return err
}

// takeInGroups takes n messages and acknowledges them by groups.
func takeInGroups(sub *client, n, group int, credit chan struct{}) error {
	var acks []byte
	for i := range n {
		p, err := sub.next(publish)
		if err != nil {
			return fmt.Errorf("message %d of %d: %w", i, n, err)
		}
		acks = append(acks, ack(puback, p.id)...)
		if len(acks) >= 4*group || i == n-1 {
			if err := sub.send(acks); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
			acks = acks[:0]
		}
		select {
		case credit <- struct{}{}:
		default: // a message that came twice
		}
	}
	return nil
}

// P3.
func TestAStalledQoS1SubscriberHoldsUpNobody(t *testing.T) {
	known{harm: errFrozen, spare: 16 << 20, attack: func(s *server) error {
		stalled, healthy, err := s.pair("stalled", "healthy", "load")
		if err != nil {
			return err
		}
		if err := stalled.small(); err != nil {
			return err
		}
		pub, err := s.connect(4, login{id: "pub"})
		if err != nil {
			return err
		}
		for i := range 300 { // 30 MB, more than sockets and any queue hold
			if _, err := pub.trip(healthy, "load", fmt.Sprint(i)+strings.Repeat("x", 100_000)); err != nil {
				return fmt.Errorf("message %d: %w", i, err)
			}
		}
		if _, err := s.connect(4, login{id: "stalled"}); err != nil {
			return fmt.Errorf("%w: take the id over: %w", errFrozen, err)
		}
		return pub.ping()
	}}.run(t)
}

// P3, the end of it.
func TestAStalledQoS1SubscriberDoesNotHoldUpTheStop(t *testing.T) {
	known{harm: errFrozen, attack: func(s *server) error {
		stalled, err := s.connect(4, login{id: "stalled"})
		if err != nil {
			return err
		}
		if err := errors.Join(stalled.subscribe(1, "load"), stalled.small()); err != nil {
			return err
		}
		pub, err := s.connect(4, login{id: "pub"})
		if err != nil {
			return err
		}
		for range 100 {
			if err := pub.publish("load", strings.Repeat("x", 100_000), 1); err != nil {
				break // how the stock server freezes is the other test's
			}
		}
		if s.spec.Target == ours {
			return nil // settle stops it
		}
		return s.stop()
	}}.run(t)
}

// pair returns two QoS 1 subscribers to topic.
func (s *server) pair(a, b, topic string) (*client, *client, error) {
	first, err := s.connect(4, login{id: a})
	if err != nil {
		return nil, nil, err
	}
	second, err := s.connect(4, login{id: b})
	if err != nil {
		return nil, nil, err
	}
	return first, second, errors.Join(first.subscribe(1, topic), second.subscribe(1, topic))
}

// small makes the client's receive buffer small, so that it stalls soon.
func (c *client) small() error {
	return c.nc.(interface{ SetReadBuffer(int) error }).SetReadBuffer(4096)
}

// P4.
func TestPacketIDsOfTheTwoDirectionsAreApart(t *testing.T) {
	known{harm: errLost, attack: func(s *server) error {
		dev := login{id: "device", user: "dev-a", keep: true}
		c, err := s.connect(4, dev)
		if err != nil {
			return err
		}
		if err := c.subscribe(1, "devices/dev-a/commands/+"); err != nil {
			return err
		}
		admin, err := s.connect(4, login{id: "admin"})
		if err != nil {
			return err
		}
		if err := admin.publish("devices/dev-a/commands/1", "reboot", 1); err != nil {
			return err
		}
		first, err := c.next(publish)
		if err != nil {
			return err
		}
		if err := c.useID(first.id); err != nil {
			return err
		}
		c.drop()
		if c, err = s.connect(4, dev); err != nil {
			return err
		}
		if err := admin.publish("devices/dev-a/commands/2", "sentinel", 1); err != nil {
			return err
		}
		again, err := c.take()
		if errors.Is(err, errAnswer) { // it may take what it acked for what it sent, and send that again
			return fmt.Errorf("%w: %w instead of the command again", errLost, err)
		}
		if err != nil {
			return err
		}
		if string(again.payload) != "reboot" || !again.dup() || again.id != first.id {
			return fmt.Errorf("%w: got %v, want the command again with id %d", errLost, again, first.id)
		}
		return nil
	}}.run(t)
}

// useID publishes with an id that the server uses for a message of its own.
func (c *client) useID(id uint16) error {
	if err := c.send(message{topic: "devices/dev-a/telemetry", payload: "1", qos: 1, id: id}.bytes(4)); err != nil {
		return err
	}
	p, err := c.next(puback)
	if err == nil && p.id != id {
		err = fmt.Errorf("%w: %v, want PUBACK %d", errAnswer, p, id)
	}
	return err
}

// P4, the other half.
func TestASubscribeMayUseAnIDThatTheServerUses(t *testing.T) {
	known{harm: errAnswer, attack: func(s *server) error {
		c, err := s.connect(4, login{id: "device", user: "dev-a"})
		if err != nil {
			return err
		}
		if err := c.subscribe(1, "devices/dev-a/commands/+"); err != nil {
			return err
		}
		admin, err := s.connect(4, login{id: "admin"})
		if err != nil {
			return err
		}
		if err := admin.publish("devices/dev-a/commands/1", "reboot", 1); err != nil {
			return err
		}
		first, err := c.next(publish)
		if err != nil {
			return err
		}
		c.lastID = first.id - 1
		return c.subscribe(1, "devices/dev-a/desired")
	}}.run(t)
}

// P5.
func TestOfflineMessagesComeBackInOrder(t *testing.T) {
	known{harm: errOrder, attack: func(s *server) error {
		const n = 200
		away := login{id: "away", keep: true}
		c, err := s.connect(4, away)
		if err != nil {
			return err
		}
		if err := c.subscribe(1, "numbers"); err != nil {
			return err
		}
		if err := c.send(goodbyeBytes()); err != nil {
			return err
		}
		if _, err := c.end(); err != nil {
			return err
		}
		pub, err := s.connect(4, login{id: "pub"})
		if err != nil {
			return err
		}
		for i := range n {
			if err := pub.publish("numbers", fmt.Sprint(i), 1); err != nil {
				return err
			}
		}
		if c, err = s.connect(4, away); err != nil {
			return err
		}
		for i := range n {
			p, err := c.take()
			if err != nil {
				return err
			}
			if string(p.payload) != fmt.Sprint(i) {
				return fmt.Errorf("%w: number %d is %s", errOrder, i, p.payload)
			}
		}
		return c.ping()
	}}.run(t)
}

// P6.
func TestAWillDoesNotGoPastTheRights(t *testing.T) {
	known{harm: errRights, tries: 20, attack: func(s *server) error { // a quick reconnect takes the will away
		return forbiddenWill(s, 4, will{topic: "devices/dev-b/commands/1", payload: "forged", qos: 1})
	}}.run(t)
}

// forbiddenWill has a device die with a will that it has no right to, and then an
// admin with one that it has; only the second may come.
func forbiddenWill(s *server, version byte, w will) error {
	watch, err := s.connect(4, login{id: s.name("watch")})
	if err != nil {
		return err
	}
	if err := watch.subscribe(1, "#"); err != nil {
		return err
	}
	attacker := s.name("attacker")
	for _, l := range []login{
		{id: attacker, user: "dev-a", will: &w},
		{id: attacker, user: "dev-a"}, // waits for the end of the first
		{id: s.name("honest"), will: &will{topic: "wills", payload: "allowed", qos: 1}},
	} {
		c, err := s.connect(version, l)
		if errors.Is(err, errRefusing) && l.will == &w {
			continue // refused with its CONNECT, which is an answer too
		}
		if err != nil {
			return err
		}
		c.drop()
	}
	p, err := watch.take()
	if err != nil {
		return err
	}
	if string(p.payload) != "allowed" {
		return fmt.Errorf("%w: %v with %q", errRights, p, p.payload)
	}
	pub, err := s.connect(4, login{id: s.name("pub")})
	if err != nil {
		return err
	}
	if _, err := pub.trip(watch, "last", "last"); err != nil {
		return fmt.Errorf("%w: %w", errRights, err)
	}
	late, err := s.connect(4, login{id: s.name("late")})
	if err != nil {
		return err
	}
	return errors.Join(late.subscribe(1, "#"), late.ping()) // nothing is retained
}

// P7.
func TestTheListenerOutlivesRunningOutOfFiles(t *testing.T) {
	known{spec: spec{NoFile: 120}, harm: errRefusing, attack: func(s *server) error {
		bystander, err := s.connect(4, login{id: "bystander"})
		if err != nil {
			return err
		}
		var flood []*client
		for range 200 {
			c, err := s.dial("")
			if err != nil {
				return err
			}
			flood = append(flood, c)
		}
		if err := errors.Join(s.exhausted(), bystander.ping()); err != nil {
			return err
		}
		for _, c := range flood {
			c.drop()
		}
		if err := bystander.ping(); err != nil {
			return err
		}
		_, err = s.connect(4, login{id: "after"})
		return err
	}}.run(t)
}

// exhausted waits until the process can open no more files, not even to count them.
func (s *server) exhausted() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if _, err := s.measure(); err != nil && strings.Contains(err.Error(), "too many open files") {
			return nil
		}
	}
	return fmt.Errorf("%w: files are not exhausted", errAnswer)
}

// P8.
func TestSilentSocketsAreClosedAtTheDeadline(t *testing.T) {
	const sockets = 500
	known{spec: spec{ConnectTimeout: 700 * time.Millisecond}, harm: errHeld, attack: func(s *server) error {
		var silent []*client
		for range sockets {
			c, err := s.dial("")
			if err != nil {
				return err
			}
			silent = append(silent, c)
		}
		for _, c := range silent {
			if _, err := c.end(); err != nil {
				return err
			}
		}
		return nil
	}}.run(t)
}

// P8.
func TestASilentSocketCostsLittle(t *testing.T) {
	const sockets, most = 500, 16 << 10
	known{harm: errMemory, attack: func(s *server) error {
		for range sockets {
			if _, err := s.dial(""); err != nil {
				return err
			}
		}
		r, err := s.eventually("the sockets", func(r report) bool { return r.Files >= s.base.Files+sockets })
		if err != nil {
			return err
		}
		if each := (int(r.Heap) - int(s.base.Heap)) / sockets; each > most {
			return fmt.Errorf("%w: %d bytes for each silent socket", errMemory, each)
		}
		return nil
	}}.run(t)
}

// P8.
func TestNoMemoryIsMadeForAPacketThatIsOnlyAnnounced(t *testing.T) {
	const most = 8 << 20
	known{harm: errMemory, attack: func(s *server) error {
		for range 2 {
			c, err := s.dial("")
			if err != nil {
				return err
			}
			if err := c.send([]byte{connect << 4, 0x80, 0x80, 0x80, 0x20, 0}); err != nil { // 64 MiB
				return err
			}
		}
		bystander, err := s.connect(4, login{id: "bystander"})
		if err != nil {
			return err
		}
		for range 20 {
			if err := bystander.ping(); err != nil {
				return err
			}
			r, err := s.measure()
			if err != nil {
				return err
			}
			if r.Heap > s.base.Heap+most {
				return fmt.Errorf("%w by %d MB", errMemory, (r.Heap-s.base.Heap)>>20)
			}
		}
		return nil
	}}.run(t)
}

// P9.
func TestAFilterOfManyLevelsIsNoBurden(t *testing.T) {
	const levels, most = 30_000 / min(slowdown, 2), 700 * time.Millisecond
	known{harm: errSlow, attack: func(s *server) error {
		began, err := s.measure()
		if err != nil {
			return err
		}
		c, err := s.connect(5, login{id: "attacker"})
		if err != nil {
			return err
		}
		c.wait = patience
		if err := c.send(subscribeBytes(5, 1, 0, strings.Repeat("/", levels))); err != nil {
			return err
		}
		if p, err := c.next(suback); err == nil && s.spec.Target == ours && !slices.Contains([]byte{0x8f, 0x97}, p.codes[0]) {
			return fmt.Errorf("%w: SUBACK %#x, want 0x8f", errAnswer, p.codes)
		} else if errors.Is(err, errFrozen) {
			return fmt.Errorf("%w: %w", errSlow, err)
		}
		after, err := s.measure()
		if err != nil {
			return err
		}
		if used := after.CPU - began.CPU; used > most {
			return fmt.Errorf("%w: %v of CPU for one SUBSCRIBE", errSlow, used)
		}
		return nil
	}}.run(t)
}

// P10.
func TestALongKeepAliveIsKept(t *testing.T) {
	known{harm: errCut, attack: func(s *server) error {
		for _, keepAlive := range []uint16{0, 43690, 43691, 43692, 65535} {
			c, err := s.connect(4, login{id: s.name("patient"), keepAlive: keepAlive})
			if err != nil {
				return fmt.Errorf("%w with keep alive %d: %w", errCut, keepAlive, err)
			}
			for range 3 {
				if err := c.ping(); err != nil {
					return fmt.Errorf("%w with keep alive %d: %w", errCut, keepAlive, err)
				}
			}
			c.drop()
		}
		return nil
	}}.run(t)
}

// P11.
func TestARefusedMessageOf311IsNotDelivered(t *testing.T) {
	known{harm: errRights, tries: 20, attack: func(s *server) error { // it may deliver the other message first
		return refusedPublish(s, 4, 1, puback, 0)
	}}.run(t)
}

// P11.
func TestARefusedMessageOfQoS2IsAnsweredByPubrec(t *testing.T) {
	known{harm: errAnswer, attack: func(s *server) error {
		return refusedPublish(s, 5, 2, pubrec, 0x87)
	}}.run(t)
}

// refusedPublish publishes to another device's topic and checks the answer, and
// that nobody gets the message.
func refusedPublish(s *server, version, qos, want, code byte) error {
	watch, err := s.connect(4, login{id: "watch"})
	if err != nil {
		return err
	}
	if err := watch.subscribe(1, "devices/#"); err != nil {
		return err
	}
	c, err := s.connect(version, login{id: "attacker", user: "dev-a"})
	if err != nil {
		return err
	}
	if err := c.send(message{topic: "devices/dev-b/telemetry", payload: "forged", qos: qos, id: 7}.bytes(version)); err != nil {
		return err
	}
	p, err := c.next(want)
	if err != nil {
		return err
	}
	if p.id != 7 || p.code != code {
		return fmt.Errorf("%w: %v, want id 7 and code %#x", errAnswer, p, code)
	}
	pub, err := s.connect(4, login{id: "pub"})
	if err != nil {
		return err
	}
	if _, err := pub.trip(watch, "devices/dev-c/commands/1", "allowed"); err != nil {
		return fmt.Errorf("%w: %w", errRights, err)
	}
	return c.ping()
}
