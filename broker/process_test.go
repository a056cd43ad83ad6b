package broker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
	"muster/broker/journal"
)

// grip is one process's hold on a log that outlives it. It can be made to keep
// appends waiting, and after the process's death it takes nothing more.
type grip struct {
	*memLog

	mu     sync.Mutex
	dead   bool
	gate   chan struct{} // appends wait until it is closed; nil: they do not
	queued int           // appends that wait
}

var errDead = errors.New("the process has died")

// Append implements journal.Log.
func (g *grip) Append(ctx context.Context, id string, frame []byte) (uint64, error) {
	g.mu.Lock()
	gate := g.gate
	g.queued++
	g.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queued--
	if g.dead {
		return 0, errDead
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return g.memLog.Append(ctx, id, frame)
}

// Purge implements journal.Log.
func (g *grip) Purge(ctx context.Context, seq uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return errDead
	}
	return g.memLog.Purge(ctx, seq)
}

func (g *grip) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gate == nil {
		g.gate = make(chan struct{})
	}
}

func (g *grip) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gate != nil {
		close(g.gate)
		g.gate = nil
	}
}

func (g *grip) die() {
	g.mu.Lock()
	g.dead = true
	g.mu.Unlock()
	g.open()
}

func (g *grip) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gate != nil && g.queued > 0
}

// process is a broker on a log that outlives it.
type process struct {
	*rig
	grip    *grip
	clients []*raw
}

// boot starts a broker on log. minClean is the log's size from which it is cleaned, 0
// for the default.
func boot(t testing.TB, log *memLog, minClean int64, change func(*Config)) *process {
	t.Helper()
	p := &process{grip: &grip{memLog: log}}
	p.rig = newRig(t, func(c *Config) {
		c.Log = p.grip
		if change != nil {
			change(c)
		}
	})
	if minClean > 0 {
		j, err := journal.New(journal.Config{Log: p.cfg.Log, Now: p.cfg.Now, Logger: p.cfg.Logger, MinClean: minClean})
		if err != nil {
			t.Fatal(err)
		}
		p.journal = j
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.grip.open()
		p.halt()
	})
	return p
}

// client is rig.client, and is closed by stop.
func (p *process) client(version byte, id, user string, change ...func(*packets.Packet)) *raw {
	p.t.Helper()
	c := p.rig.client(version, id, user, change...)
	p.clients = append(p.clients, c)
	return c
}

// stop ends the process on purpose. Its clients go at once.
func (p *process) stop() {
	var g group
	g.start(p.halt)
	eventually(p.t, "the stop", p.stopping.Load)
	for _, c := range p.clients {
		_ = c.nc.Close()
	}
	g.close()
	if err := g.wait(context.Background(), "the stop"); err != nil {
		p.t.Error(err)
	}
}

// crash ends the process: what was not durable is lost, and nobody is told.
func (p *process) crash() {
	p.grip.die()
	for _, c := range p.conns.every() {
		c.cut(causeClosed)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_ = p.Stop(ctx) // it cannot make anything durable
}

// subscribe subscribes with the options given.
func (c *raw) subscribe(identifier int, subs ...packets.Subscription) packets.Packet {
	c.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 2000, Filters: subs}
	if identifier > 0 {
		for i := range pk.Filters {
			pk.Filters[i].Identifier = identifier
		}
		pk.Properties.SubscriptionIdentifier = []int{identifier}
	}
	c.send(pk)
	return c.next(packets.Suback)
}

func (c *raw) unsubscribe(filters ...string) {
	c.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 2001}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	c.send(pk)
	c.next(packets.Unsuback)
}

// publish publishes and sees the message acknowledged.
func (c *raw) publish(pk packets.Packet) {
	c.t.Helper()
	c.send(pk)
	switch pk.FixedHeader.Qos {
	case 1:
		c.next(packets.Puback)
	case 2:
		c.next(packets.Pubrec)
		c.send(ackPacket(packets.Pubrel, pk.PacketID))
		c.next(packets.Pubcomp)
	}
}

// message reads a PUBLISH with this payload and acknowledges it to the end.
func (c *raw) message(payload string) packets.Packet {
	c.t.Helper()
	return c.messages(payload)[0]
}

// messages reads PUBLISH packets with these payloads, in this order, and acknowledges
// them to the end.
func (c *raw) messages(payloads ...string) (got []packets.Packet) {
	c.t.Helper()
	open := 0
	for len(got) < len(payloads) || open > 0 {
		pk, err := c.read()
		switch {
		case err != nil:
			c.t.Fatalf("%v after %d of %d messages", err, len(got), len(payloads))
		case pk.FixedHeader.Type == packets.Pubrel:
			open--
			c.send(ackPacket(packets.Pubcomp, pk.PacketID))
			continue
		case pk.FixedHeader.Type != packets.Publish || len(got) == len(payloads) || string(pk.Payload) != payloads[len(got)]:
			c.t.Fatalf("got %s %q after %d messages of %q", packets.PacketNames[pk.FixedHeader.Type], pk.Payload, len(got), payloads)
		}
		got = append(got, pk)
		switch pk.FixedHeader.Qos {
		case 1:
			c.send(ackPacket(packets.Puback, pk.PacketID))
		case 2:
			open++
			c.send(ackPacket(packets.Pubrec, pk.PacketID))
		}
	}
	return got
}

// leave closes the socket and waits until the broker has noticed.
func (c *raw) leave(b *Broker) {
	c.t.Helper()
	known, _ := b.conns.count()
	_ = c.nc.Close()
	eventually(c.t, "the end of a connection", func() bool { n, _ := b.conns.count(); return n < known })
}

// settled waits until all that was written down is durable.
func (p *process) settled() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.journal.Flush(ctx); err != nil {
		p.t.Fatal(err)
	}
}

func sub(filter string, qos byte) packets.Subscription {
	return packets.Subscription{Filter: filter, Qos: qos}
}

func retainedPacket(topic, payload string, qos byte, id uint16) packets.Packet {
	pk := publishPacket(topic, payload, qos, id)
	pk.FixedHeader.Retain = true
	return pk
}

// lock is an Authenticator that tests change.
type lock struct {
	mu      sync.Mutex
	who     map[string]Identity // by user name
	gone    map[string]bool     // names and devices whose credential is not valid any more
	parents map[muster.DeviceID]muster.DeviceID
	seen    []Login
}

func newLock() *lock {
	return &lock{who: map[string]Identity{}, gone: map[string]bool{}, parents: map[muster.DeviceID]muster.DeviceID{}}
}

// Authenticate implements Authenticator.
func (l *lock) Authenticate(in Login) (Identity, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, in)
	if who, ok := l.who[in.Username]; ok {
		return who, nil
	}
	return door{}.Authenticate(in)
}

// Refresh implements Authenticator.
func (l *lock) Refresh(who Identity) (Identity, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone[who.Name] || l.gone[string(who.Device)] {
		return who, muster.Errorf(muster.Unauthorized, "gone")
	}
	for _, now := range l.who {
		if now.Name == who.Name && now.Device == who.Device {
			return now, nil
		}
	}
	return who, nil
}

// Parent implements Authenticator.
func (l *lock) Parent(id muster.DeviceID) muster.DeviceID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parents[id]
}

func (l *lock) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// guarded starts a broker with an Authenticator of the test's.
func guarded(t testing.TB, l *lock, change func(*Config)) *rig {
	t.Helper()
	r := newRig(t, change)
	r.auth = l
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.halt)
	return r
}
