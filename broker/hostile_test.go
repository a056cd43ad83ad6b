package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func count(c *raw, total int, ackIt bool) (n int, got map[string]bool) {
	got = map[string]bool{}
	for n < total {
		_ = c.nc.SetReadDeadline(time.Now().Add(2 * time.Second))
		pk, err := c.readShort()
		if err != nil {
			return n, got
		}
		if pk.FixedHeader.Type == packets.Publish {
			n++
			got[pk.TopicName] = true
			if ackIt && pk.FixedHeader.Qos == 1 {
				c.send(ackPacket(packets.Puback, pk.PacketID))
			}
		}
	}
	return n, got
}

// readShort is read with 1.5 s of patience.
func (c *raw) readShort() (packets.Packet, error) {
	t := time.AfterFunc(1500*time.Millisecond, func() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) })
	defer t.Stop()
	pk, err := c.read()
	return pk, err
}

func TestEveryRetainedMessageReachesANewSubscriberAtQoS1(t *testing.T) {
	r := start(t, nil)
	for i := range 3000 {
		if err := r.Publish(t.Context(), fmt.Sprintf("site/%05d", i), []byte("x"), true, 0); err != nil {
			t.Fatal(err)
		}
	}
	c := r.client(5, "sub", "admin")
	c.send(subscribePacket(1, "site/#"))
	n, _ := count(c, 3000, true)
	t.Logf("3000 retained, QoS0-stored: got %d", n)
	for i := range 3000 {
		if err := r.Publish(t.Context(), fmt.Sprintf("site/%05d", i), []byte("x"), true, 1); err != nil {
			t.Fatal(err)
		}
	}
	d := r.client(5, "sub2", "admin")
	d.send(subscribePacket(1, "site/#"))
	n, _ = count(d, 3000, true)
	if n != 3000 {
		t.Errorf("3000 retained at QoS 1: a subscriber that keeps up got %d; dropped queue=%v", n, r.metric("dropped_total", "queue"))
	}
}

func TestEveryRetainedMessageReachesANewSubscriberAtQoS0(t *testing.T) {
	r := start(t, nil)
	pay := []byte(strings.Repeat("y", 200))
	for i := range 20000 {
		if err := r.Publish(t.Context(), fmt.Sprintf("site/%05d", i), pay, true, 0); err != nil {
			t.Fatal(err)
		}
	}
	c := r.client(5, "sub", "admin")
	c.send(subscribePacket(1, "site/#"))
	n, _ := count(c, 20000, true)
	if n != 20000 {
		t.Errorf("20000 retained at QoS 0: got %d; dropped slow=%v", n, r.metric("dropped_total", "slow"))
	}
}

func TestRetainedMessagesPushNothingOutOfTheQueue(t *testing.T) {
	r := start(t, nil)
	for i := range 3000 {
		_ = r.Publish(t.Context(), fmt.Sprintf("site/%05d", i), []byte("x"), true, 1)
	}
	c := r.client(5, "sub", "admin", keepSession)
	c.subscribed("cmd/+")
	_ = c.nc.Close()
	eventually(t, "gone", func() bool { k, _ := r.conns.count(); return k == 0 })
	for i := range 500 {
		if err := r.Publish(t.Context(), fmt.Sprintf("cmd/%03d", i), []byte("x"), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	c = r.client(5, "sub", "admin", keepSession, func(pk *packets.Packet) { pk.Connect.Clean = false })
	c.send(subscribePacket(7, "site/#"))
	_, got := count(c, 3500, true)
	n := 0
	for i := range 500 {
		if got[fmt.Sprintf("cmd/%03d", i)] {
			n++
		}
	}
	if n != 500 {
		t.Errorf("of 500 durable queued messages %d arrived; the retained messages of a new subscription pushed the others out", n)
	}
}

func TestTheQuotaOfRetainedMessagesIsTheOwnersWhateverItsClientIDs(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxRetained = 200; c.MaxRetainedOwn = 10 })
	for i := range 30 {
		c := r.client(5, fmt.Sprintf("id%d", i), "token-a")
		for j := range 10 {
			pk := publishPacket(fmt.Sprintf("devices/me/events/e%d-%d", i, j), "x", 1, uint16(j+1))
			pk.FixedHeader.Retain = true
			c.send(pk)
			c.next(packets.Puback)
		}
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		c.ended()
	}
	if err := r.Publish(t.Context(), "devices/b/notifications", []byte("online"), true, 1); err != nil {
		t.Fatal(err)
	}
	_, ok := r.retained.tree.Get("devices/b/notifications")
	t.Logf("retained: %d of 200; own quota 10", r.Stats().Retained)
	if !ok {
		t.Errorf("device a alone holds %d retained topics (its quota is 10), and device b's message is not retained", r.Stats().Retained)
	}
}

type limitLog struct {
	*memLog
	limit int64
}

func (l limitLog) Bounds(ctx context.Context) (a, b uint64, c, d int64, err error) {
	a, b, c, _, err = l.memLog.Bounds(ctx)
	return a, b, c, l.limit, err
}

func TestOneDeviceCannotFillTheJournal(t *testing.T) {
	r := start(t, func(c *Config) { c.Log = limitLog{newMemLog(), 32 << 20} })
	pay := strings.Repeat("z", 200<<10)
	stuck := false
	for i := 0; i < 8 && !stuck; i++ {
		c := r.client(5, fmt.Sprintf("id%d", i), "token-a")
		for j := range 35 {
			pk := publishPacket(fmt.Sprintf("devices/me/events/e%d-%d", i, j), pay, 1, uint16(j+1))
			pk.FixedHeader.Retain = true
			c.send(pk)
			if _, err := c.readShort(); err != nil {
				stuck = true
				break
			}
		}
		_ = c.nc.Close()
	}
	eventually(t, "an idle journal", func() bool { return r.journal.Stats().PendingBytes == 0 })
	t.Logf("stuck %v, retained %d, journal %+v", stuck, r.Stats().Retained, r.journal.Stats().LogBytes)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := r.Publish(ctx, "devices/b/desired", []byte("x"), false, 1); err != nil {
		t.Errorf("the server cannot send to device b: %v", err)
	}
	adm := r.client(5, "adm", "admin")
	pk := publishPacket("devices/a/events/e0-0", "", 1, 1)
	pk.FixedHeader.Retain = true
	adm.send(pk)
	if _, err := adm.readShort(); err != nil {
		t.Errorf("an admin cannot clear a retained message: %v", err)
	}
}

func TestAKeptSessionSurvivesAFullTable(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxSessions = 1 })
	c := r.client(4, "keep", "admin", keepSession)
	c.subscribed("x/y")
	_ = c.nc.Close()
	r.eventuallyNone(t)
	c = r.client(4, "keep", "admin", keepSession)
	_ = c.nc.Close()
	r.eventuallyNone(t)
	_ = r.Publish(t.Context(), "x/y", []byte("m"), false, 1)
	c = r.dial(4)
	pk := connectPacket(4, "keep", "admin", "")
	keepSession(&pk)
	c.send(pk)
	if ack := c.next(packets.Connack); !ack.SessionPresent {
		t.Errorf("a kept session that existed is gone after its client came and went while the table was full")
	}
}

func (r *rig) eventuallyNone(t *testing.T) {
	t.Helper()
	eventually(t, "gone", func() bool {
		k, _ := r.conns.count()
		on := 0
		for s := range r.sessions.each {
			if s.online() {
				on++
			}
		}
		return k == 0 && on == 0
	})
}

type stuckSink struct {
	*tank
	block chan struct{}
}

func (s stuckSink) Accept(ctx context.Context, m Message) error {
	select {
	case <-s.block:
		return errors.New("no")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestAClientThatIsHeldBackIsNotSilent(t *testing.T) {
	r := newRig(t, nil)
	s := stuckSink{r.sink, make(chan struct{})}
	r.Broker.sink = s
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.halt)
	c := r.client(5, "x", "token-a", func(pk *packets.Packet) { pk.Connect.Keepalive = 1 })
	c.send(publishPacket("devices/me/telemetry", "{}", 1, 1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond):
				_, _ = c.nc.Write([]byte{0xc0, 0})
			}
		}
	})
	start := time.Now()
	pk, err := c.read()
	close(stop)
	wg.Wait()
	if err == nil {
		t.Errorf("after %v: %s %#x, though the client sends PINGREQ each 0.3 s", time.Since(start), packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCode)
	}
}

// revocable is door with rights that a test takes away.
type revocable struct {
	door
	gone, narrow atomic.Bool
}

func (d *revocable) who() Identity {
	id := Identity{Name: "svc", Publish: []string{"alarm/#"}, Subscribe: []string{"plant/#"}}
	if d.narrow.Load() {
		id.Subscribe, id.Publish = nil, nil
	}
	return id
}

func (d *revocable) Authenticate(l Login) (Identity, error) {
	if l.Username == "svc" {
		return d.who(), nil
	}
	return d.door.Authenticate(l)
}

func (d *revocable) Refresh(who Identity) (Identity, error) {
	if who.Name != "svc" {
		return who, nil
	}
	if d.gone.Load() {
		return who, muster.Errorf(muster.Unauthorized, "gone")
	}
	return d.who(), nil
}

func TestRightsTakenAwayWhileAwayCount(t *testing.T) {
	r := newRig(t, nil)
	d := &revocable{}
	r.auth = d
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.halt)
	c := r.client(5, "s", "svc", keepSession)
	c.subscribed("plant/#")
	_ = c.nc.Close()
	r.eventuallyNone(t)
	d.narrow.Store(true)
	r.Recheck(func(Identity) bool { return true })
	if err := r.Publish(t.Context(), "plant/secret", []byte("after the right was taken away"), false, 1); err != nil {
		t.Fatal(err)
	}
	c = r.dial(5)
	pk := connectPacket(5, "s", "svc", "")
	keepSession(&pk)
	c.send(pk)
	c.next(packets.Connack)
	if pk, err := c.readShort(); err == nil && pk.FixedHeader.Type == packets.Publish {
		t.Errorf("got %q %q: published after the right to it was taken away", pk.TopicName, pk.Payload)
	}
}

func TestAWillCountsByTheRightsAtItsTime(t *testing.T) {
	r := newRig(t, nil)
	d := &revocable{}
	r.auth = d
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.halt)
	a := r.client(5, "adm", "admin")
	a.subscribed("alarm/#")
	for i, f := range []func(){
		func() { d.narrow.Store(true); r.Recheck(func(Identity) bool { return true }) },
		func() { d.gone.Store(true); r.Recheck(func(Identity) bool { return true }) },
	} {
		d.narrow.Store(false)
		c := r.client(5, "s", "svc", func(pk *packets.Packet) {
			pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "alarm/x", []byte("will")
		})
		f()
		_ = c.nc.Close()
		if pk, err := a.readShort(); err == nil && pk.FixedHeader.Type == packets.Publish {
			t.Errorf("case %d: a will to %s was published after the rights were taken away", i, pk.TopicName)
		}
		a = r.client(5, "adm", "admin")
		a.subscribed("alarm/#")
	}
}

func TestARetainedMessageMissesNoSubscriber(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxRetainedOwn = 100000 })
	lost := 0
	const rounds = 4000
	p := r.client(5, "p", "admin")
	s := r.client(5, "s", "admin")
	for i := range rounds {
		topic := fmt.Sprintf("r/%d", i)
		pk := publishPacket(topic, "new", 0, 0)
		pk.FixedHeader.Retain = true
		var wg sync.WaitGroup
		wg.Go(func() { p.send(pk) })
		wg.Go(func() { s.send(subscribePacket(1, topic)) })
		wg.Wait()
		p.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
		p.next(packets.Pingresp)
		s.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
		seen := false
		for {
			x, err := s.read()
			if err != nil {
				t.Fatal(err)
			}
			if x.FixedHeader.Type == packets.Publish {
				seen = true
			}
			if x.FixedHeader.Type == packets.Pingresp {
				break
			}
		}
		if !seen {
			lost++
		}
		s.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 2, Filters: packets.Subscriptions{{Filter: topic}}})
		s.next(packets.Unsuback)
	}
	if lost > 0 {
		t.Errorf("in %d of %d rounds a subscriber got a retained message neither live nor retained", lost, rounds)
	}
}

func TestWhatIsRetainedOnceASubscriberSeesItsSubackComesOnce(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxRetainedOwn = 100_000 })
	const before = 20_000 // looking them up takes long enough to be overtaken
	for i := range before {
		if err := r.Publish(t.Context(), fmt.Sprintf("site/%05d", i), []byte("x"), true, 0); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 5 {
		s := r.client(5, fmt.Sprint("s", round), "admin")
		s.subscribed("site/#")
		last := fmt.Sprint("site/last", round)
		if err := r.Publish(t.Context(), last, []byte("x"), true, 0); err != nil {
			t.Fatal(err)
		}
		s.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
		copies := 0
		for {
			x, err := s.read()
			if err != nil {
				t.Fatal(err)
			}
			if x.FixedHeader.Type == packets.Pingresp {
				break
			}
			if x.TopicName == last {
				copies++
			}
		}
		if copies != 1 {
			t.Fatalf("round %d: a message that was retained after SUBACK came %d times", round, copies)
		}
	}
}

func TestPubrelsOfTheLastConnectionDoNotCountAgainstTheQuota(t *testing.T) {
	r := start(t, nil)
	c := r.client(5, "x", "admin", keepSession)
	for i := range 40 {
		c.send(publishPacket("q", "x", 2, uint16(i+1)))
		c.next(packets.Pubrec)
	}
	_ = c.nc.Close()
	r.eventuallyNone(t)
	c = r.client(5, "x", "admin", keepSession)
	var pks []packets.Packet
	for i := range 40 {
		pks = append(pks, ackPacket(packets.Pubrel, uint16(i+1)))
	}
	for i := range 60 {
		pks = append(pks, publishPacket("q", "x", 2, uint16(100+i)))
	}
	c.send(pks...)
	for range 100 {
		pk, err := c.readShort()
		if err != nil {
			t.Error(err)
			return
		}
		if pk.FixedHeader.Type == packets.Disconnect {
			t.Errorf("40 PUBREL, then 60 PUBLISH of a Receive Maximum of 64: DISCONNECT %#x", pk.ReasonCode)
			return
		}
	}
}
