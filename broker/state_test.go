package broker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
	"muster/broker/topic"
)

// board is what state topics are at.
type board struct {
	mu     sync.Mutex
	all    map[string]string
	lookup func(name string) // called when a state has been looked up
}

func newBoard(pairs ...string) *board {
	s := &board{all: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		s.all[pairs[i]] = pairs[i+1]
	}
	return s
}

func (s *board) State(name string) ([]byte, bool) {
	s.mu.Lock()
	v, ok := s.all[name]
	after := s.lookup
	s.mu.Unlock()
	if after != nil {
		after(name)
	}
	return []byte(v), ok
}

func (s *board) Each(filter string, yield func(string) bool) {
	s.mu.Lock()
	var names []string
	for name := range s.all {
		if topic.Matches(filter, name) {
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		if !yield(name) {
			return
		}
	}
}

func (s *board) set(name, payload string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[name] = payload
}

// becomes changes a state as the rooms that own it do.
func (r *rig) becomes(s *board, name, payload string) {
	r.t.Helper()
	s.set(name, payload)
	if err := r.PublishState(r.t.Context(), name, []byte(payload)); err != nil {
		r.t.Fatal(err)
	}
}

func boarded(t testing.TB, s *board, l *lock) *rig {
	if l == nil {
		l = newLock()
	}
	return guarded(t, l, func(c *Config) { c.States = s })
}

func TestASubscriberIsToldWhatAStateTopicIsAt(t *testing.T) {
	for _, tt := range []struct {
		name, user, filter string
		qos                byte
		want               []string // topics, as they are spelled
	}{
		{"a device, of its own", "token-a", "devices/a/desired", 1, []string{"devices/a/desired"}},
		{"a device, as me", "token-a", "devices/me/desired", 2, []string{"devices/me/desired"}},
		{"a device, all of its own", "token-a", "devices/me/#", 0, []string{"devices/me/desired", "devices/me/presence"}},
		{"a device, with a wildcard", "token-a", "devices/me/+", 1, []string{"devices/me/desired", "devices/me/presence"}},
		{"a gateway, of its child", "token-b", "devices/kid/desired", 1, []string{"devices/kid/desired"}},
		{"an admin, of all", "admin", "#", 1, []string{"devices/a/desired", "devices/a/presence", "devices/kid/desired", "devices/kid/presence"}},
		{"an admin, of one kind", "admin", "devices/+/presence", 0, []string{"devices/a/presence", "devices/kid/presence"}},
		{"an admin, of one device", "admin", "devices/kid/#", 1, []string{"devices/kid/desired", "devices/kid/presence"}},
		{"an admin, of nothing", "admin", "devices/+/commands/+", 1, nil},
		{"a member of a shared subscription", "admin", "$share/g/devices/+/presence", 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLock()
			l.parents["kid"] = "b"
			s := newBoard("devices/a/desired", "1", "devices/a/presence", "2", "devices/kid/desired", "3", "devices/kid/presence", "4")
			r := boarded(t, s, l)
			c := r.client(5, "c", tt.user)
			c.subscribe(7, sub(tt.filter, tt.qos))
			var got []string
			for range tt.want {
				pk := c.next(packets.Publish)
				got = append(got, pk.TopicName)
				if !pk.FixedHeader.Retain || pk.FixedHeader.Qos != min(tt.qos, 1) || !slices.Equal(pk.Properties.SubscriptionIdentifier, []int{7}) {
					t.Errorf("%s: RETAIN %v, QoS %d, identifiers %v", pk.TopicName, pk.FixedHeader.Retain, pk.FixedHeader.Qos, pk.Properties.SubscriptionIdentifier)
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			c.quiet()
		})
	}
}

func TestRetainHandlingHoldsForStates(t *testing.T) {
	r := boarded(t, newBoard("devices/a/desired", "v1"), nil)
	c := r.client(5, "c", "token-a")
	for _, tt := range []struct {
		handling byte
		told     bool
	}{{2, false}, {1, false}, {0, true}, {2, false}} {
		c.subscribe(0, packets.Subscription{Filter: "devices/me/desired", Qos: 1, RetainHandling: tt.handling})
		if tt.told {
			c.message("v1")
		}
		c.quiet()
	}
	other := r.client(5, "d", "token-a")
	other.subscribe(0, packets.Subscription{Filter: "devices/me/desired", Qos: 1, RetainHandling: 1})
	other.message("v1")
}

func TestAChangeOfStateGoesToThoseWhoAreThere(t *testing.T) {
	l := newLock()
	l.parents["a"] = "b"
	s := newBoard()
	r := boarded(t, s, l)
	me, gateway, admin := r.client(5, "c", "token-a", keepSession), r.client(5, "g", "token-b"), r.client(5, "x", "admin")
	me.subscribe(3, packets.Subscription{Filter: "devices/me/desired", Qos: 2, RetainAsPublished: true}, sub("devices/a/#", 0))
	gateway.subscribe(0, sub("devices/a/desired", 0))
	admin.subscribe(0, sub("devices/+/desired", 1))
	share := []*raw{r.client(5, "s1", "admin", keepSession), r.client(5, "s2", "admin")}
	for _, c := range share {
		c.subscribe(0, sub("$share/g/devices/+/desired", 1))
	}
	_ = share[0].nc.Close()
	eventually(t, "the member to go", func() bool { return r.Stats().Connections == 4 })
	r.becomes(s, "devices/a/desired", "v1")
	if got := me.message("v1"); !got.FixedHeader.Retain || got.FixedHeader.Qos != 1 || got.TopicName != "devices/me/desired" || len(got.Properties.SubscriptionIdentifier) != 2 {
		t.Errorf("the device got %+v", got.FixedHeader)
	}
	if got := gateway.message("v1"); got.FixedHeader.Retain || got.FixedHeader.Qos != 0 || got.TopicName != "devices/a/desired" {
		t.Errorf("the gateway got %+v", got.FixedHeader)
	}
	admin.message("v1")
	share[1].message("v1")
	for _, c := range []*raw{me, gateway, admin, share[1]} {
		c.quiet()
	}
	if r.Stats().JournalPending+int64(r.retained.tree.Len()) != 0 {
		t.Error("something was written down or retained")
	}
}

// subscribeKept subscribes, and reads and acknowledges the n states that come before or
// after SUBACK, which waits for the journal.
func (c *raw) subscribeKept(n int, subs ...packets.Subscription) {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: subs})
	for range n + 1 {
		pk, err := c.read()
		if err != nil {
			c.t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Publish {
			c.send(ackPacket(packets.Puback, pk.PacketID))
		}
	}
}

func TestWhoComesBackIsToldTheNewestOnceAndNothingOlder(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		l := newLock()
		l.parents["kid"] = "a"
		s := newBoard("devices/a/presence", "online")
		r := boarded(t, s, l)
		c := r.client(version, "c", "token-a", keepSession)
		c.subscribeKept(1, sub("devices/me/desired", 1), sub("devices/a/+", 1), sub("devices/kid/desired", 1), sub("devices/me/commands/+", 1))
		r.becomes(s, "devices/a/desired", "v1")
		if pk := c.next(packets.Publish); string(pk.Payload) != "v1" { // and is not acknowledged
			t.Errorf("got %q", pk.Payload)
		}
		_ = c.nc.Close()
		eventually(t, "the end", func() bool { return r.Stats().Connections == 0 })
		for i := range 10 {
			r.becomes(s, "devices/a/desired", fmt.Sprint("v", i+2))
		}
		r.becomes(s, "devices/kid/desired", "kid")
		if err := r.Publish(t.Context(), "devices/a/commands/1", []byte("queued"), false, 1); err != nil {
			t.Fatal(err)
		}
		if n := r.lost("a"); n != 0 {
			t.Errorf("%d messages lost", n)
		}
		c = r.client(version, "c", "token-a", keepSession)
		got := c.messages("queued", "v11", "online", "kid")
		for i, name := range []string{"devices/me/commands/1", "devices/me/desired", "devices/a/presence", "devices/kid/desired"} {
			if got[i].TopicName != name || got[i].FixedHeader.Retain != (i > 0) || got[i].FixedHeader.Dup {
				t.Errorf("%d: %s, RETAIN %v, DUP %v", i, got[i].TopicName, got[i].FixedHeader.Retain, got[i].FixedHeader.Dup)
			}
		}
		c.quiet()
	})
}

func TestStatesAreToldAfterARestart(t *testing.T) {
	log := newMemLog()
	s := newBoard("devices/a/desired", "v1", "devices/a/presence", "online")
	p := boot(t, log, 0, func(c *Config) { c.States = s })
	c := p.client(5, "c", "token-a", keepSession)
	c.subscribeKept(1, sub("devices/me/desired", 1))
	w := p.client(5, "w", "admin", keepSession)
	w.subscribeKept(1, sub("devices/+/presence", 1))
	p.settled()
	p.crash()
	s.set("devices/a/desired", "v2")
	p = boot(t, log, 0, func(c *Config) { c.States = s })
	p.client(5, "c", "token-a", keepSession).message("v2")
	p.client(5, "w", "admin", keepSession).message("online")
}

func TestAStateThatChangesWhileItIsToldEndsWithTheNewest(t *testing.T) {
	s := newBoard("devices/a/desired", "v1")
	r := boarded(t, s, nil)
	c := r.client(5, "c", "token-a")
	s.lookup = func(name string) { // v1 has been read and not been told
		s.mu.Lock()
		s.lookup = nil
		s.mu.Unlock()
		r.becomes(s, name, "v2")
	}
	c.subscribe(0, sub("devices/me/desired", 1))
	if got := c.message("v2"); got.FixedHeader.Retain {
		t.Error("a change came with RETAIN")
	}
	c.quiet()
}

func TestManyWritersAndReadersOfOneStateEndWithTheNewest(t *testing.T) {
	s := newBoard("devices/a/desired", "0")
	r := boarded(t, s, nil)
	const rounds = 200
	var g group
	g.start(func() {
		for i := range rounds {
			s.set("devices/a/desired", fmt.Sprint(i+1))
			if err := r.PublishState(t.Context(), "devices/a/desired", fmt.Append(nil, i+1)); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 4 {
		user, filter := "token-a", "devices/me/desired"
		if i%2 == 1 {
			user, filter = "admin", "devices/+/desired"
		}
		c := r.client(5, fmt.Sprint(i), user)
		g.start(func() {
			c.send(subscribePacket(1, filter))
			last := ""
			for n := uint16(2); last != fmt.Sprint(rounds); {
				pk, err := c.read()
				if err != nil {
					t.Errorf("after %q: %v", last, err)
					return
				}
				switch pk.FixedHeader.Type {
				case packets.Suback:
				case packets.Publish:
					last = string(pk.Payload)
					c.send(ackPacket(packets.Puback, pk.PacketID))
					if n < 20 { // again, in the midst of the changes
						c.send(subscribePacket(n, filter))
						n++
					}
				}
			}
		})
	}
	g.close()
	if err := g.wait(t.Context(), "readers"); err != nil {
		t.Fatal(err)
	}
}

func TestAStateThatWaitsGivesWayToANewerOne(t *testing.T) {
	s := newBoard()
	r := guarded(t, newLock(), func(c *Config) { c.States, c.MaxQueued = s, 5 })
	c := r.client(5, "c", "token-a", func(pk *packets.Packet) {
		pk.Properties.ReceiveMaximum = 1
	})
	c.subscribe(0, sub("devices/me/#", 1))
	for _, p := range []string{"c1", "c2", "c3"} {
		if err := r.Publish(t.Context(), "devices/a/commands/1", []byte(p), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		r.becomes(s, "devices/a/desired", fmt.Sprint("d", i))
		r.becomes(s, "devices/a/presence", fmt.Sprint("p", i))
	}
	c.messages("c1", "c2", "c3", "d99", "p99")
	c.quiet()
	if n := r.lost("a"); n != 0 {
		t.Errorf("%d messages lost", n)
	}
}

func TestAWildcardsStatesComeAsTheClientTakesThem(t *testing.T) {
	const devices = 5000
	s := newBoard()
	for i := range devices {
		s.set(fmt.Sprintf("devices/d%04d/presence", i), "x")
	}
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			r := guarded(t, newLock(), func(c *Config) { c.States, c.MaxQueued = s, 100 })
			c := r.client(5, "c", "admin")
			c.send(packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
				Filters: packets.Subscriptions{sub("devices/+/presence", qos)},
			})
			seen := map[string]bool{}
			for len(seen) < devices {
				pk, err := c.read()
				if err != nil {
					t.Fatalf("after %d: %v", len(seen), err)
				}
				if pk.FixedHeader.Type != packets.Publish {
					continue
				}
				if seen[pk.TopicName] {
					t.Errorf("%s came twice", pk.TopicName)
				}
				seen[pk.TopicName] = true
				if qos > 0 {
					c.send(ackPacket(packets.Puback, pk.PacketID))
				}
				if page, _, _ := r.Clients(ClientsQuery{Limit: 1}); len(seen)%500 == 0 && page[0].Queued > 100/4+1 {
					t.Errorf("%d wait in the queue", page[0].Queued)
				}
			}
			eventually(t, "the end of it", func() bool { return idleStates(r) })
			if n := r.metric("dropped_total"); n != 0 {
				t.Errorf("%v dropped", n)
			}
		})
	}
}

// idleStates says whether no session is being told of states.
func idleStates(r *rig) bool {
	for s := range r.sessions.each {
		s.mu.Lock()
		busy := s.showing != nil
		s.mu.Unlock()
		if busy {
			return false
		}
	}
	return true
}

func TestStatesStopComingWithTheSubscriptionOrTheConnection(t *testing.T) {
	s := newBoard()
	for i := range 1000 {
		s.set(fmt.Sprintf("devices/d%03d/presence", i), "x")
	}
	var looks atomic.Int32
	s.lookup = func(string) { looks.Add(1) }
	for _, how := range []string{"unsubscribed", "closed"} {
		t.Run(how, func(t *testing.T) {
			looks.Store(0)
			r := guarded(t, newLock(), func(c *Config) { c.States, c.MaxQueued = s, 40 })
			c := r.client(4, "c", "admin", keepSession)
			c.send(subscribePacket(1, "devices/+/presence")) // nothing is acknowledged
			eventually(t, "the first", func() bool { return looks.Load() > 10 })
			if how == "closed" {
				_ = c.nc.Close()
			} else {
				c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 2, Filters: packets.Subscriptions{{Filter: "devices/+/presence"}}})
				eventually(t, "the subscription's end", func() bool { return r.index.Len() == 0 })
				for !idleStates(r) {
					pk, err := c.read()
					if err != nil {
						t.Fatal(err)
					}
					if pk.FixedHeader.Type == packets.Publish {
						c.send(ackPacket(packets.Puback, pk.PacketID))
					}
				}
			}
			eventually(t, "the end of it", func() bool { return idleStates(r) })
			if n := looks.Load(); n >= 1000 {
				t.Errorf("%d states were looked up", n)
			}
		})
	}
}

func TestWhatIsNoStateIsNotPublishedAsOne(t *testing.T) {
	r := boarded(t, newBoard(), nil)
	for _, name := range []string{"devices/a/telemetry", "x", "devices/+/desired", "devices/a/desired/x"} {
		if err := r.PublishState(t.Context(), name, nil); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Publish(t.Context(), "devices/a/presence", []byte("x"), true, 0); muster.KindOf(err) != muster.Invalid {
		t.Errorf("retained: %v", err)
	}
}

// BenchmarkStateOfAGroup tells 10,000 connected devices of a new document each.
func BenchmarkStateOfAGroup(b *testing.B) {
	const devices = 10_000
	s := newBoard()
	r := guarded(b, newLock(), func(c *Config) { c.States, c.Drain = s, time.Nanosecond })
	r.presence = watcher{make(chan presenceEvent, 2*devices)}
	var got atomic.Int64
	var readers sync.WaitGroup
	for i := range devices {
		ours, theirs := net.Pipe()
		readers.Go(func() {
			r.serve(theirs, &Login{Listener: "tcp"})
		})
		hello := append(encode(b, 4, connectPacket(4, "c", fmt.Sprintf("dev-%d", i), "")), encode(b, 4, subscribePacket(1, "devices/me/desired"))...)
		if _, err := ours.Write(hello); err != nil {
			b.Fatal(err)
		}
		readers.Go(func() { answer(ours, &got) })
		b.Cleanup(func() { _ = ours.Close() })
	}
	eventually(b, "the connections", func() bool { return r.Stats().Connections == devices })
	payload := []byte(`{"version":12,"state":{"interval":60,"mode":"eco"}}`)
	n := int64(0)
	for b.Loop() {
		for i := range devices {
			if err := r.PublishState(b.Context(), fmt.Sprintf("devices/dev-%d/desired", i), payload); err != nil {
				b.Fatal(err)
			}
		}
		n += devices
		eventually(b, "the messages", func() bool { return got.Load() == n })
	}
}

// answer counts the PUBLISH packets that come and acknowledges them.
func answer(nc net.Conn, n *atomic.Int64) {
	in := bufio.NewReaderSize(nc, 256)
	for {
		head, err := in.ReadByte()
		if err != nil {
			return
		}
		size, err := in.ReadByte()
		if err != nil {
			return
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if head>>4 != packets.Publish {
			continue
		}
		id := body[2+int(body[1]):]
		if _, err := nc.Write([]byte{0x40, 2, id[0], id[1]}); err != nil {
			return
		}
		n.Add(1)
	}
}
