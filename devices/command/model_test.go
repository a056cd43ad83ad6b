package command_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/devices/command"
)

// model is what a fleet's commands may do, told from outside: by what callers were
// answered, and what the wire carried.
type model struct {
	*rapid.T
	r        *rig
	devices  []muster.DeviceID
	commands map[string]*known // by id as text
	order    []*known
	seen     int // messages of the wire that were checked
	told     int // events that were checked
	feedFrom int64
	states   map[int64]command.State
	down     bool
}

type known struct {
	id        int64
	device    muster.DeviceID
	expires   time.Time
	delivered bool          // acknowledged or reported since it was sent
	ended     command.State // 0 when nobody was told so
	tried     bool          // an end that was answered Unavailable: it may have been done
	sends     int
}

// TestNoCommandIsLostReorderedOrSentAfterItsEnd does what may happen to a fleet at
// random, on a real store that fails at times, with restarts and kills in between.
func TestNoCommandIsLostReorderedOrSentAfterItsEnd(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		run := 0
		checkInBubble(t, func(t *testing.T) *rig { return newRig(t, e, false) }, func(rt *rapid.T, r *rig) {
			run++
			m := &model{T: rt, r: r, commands: map[string]*known{}, states: map[int64]command.State{}}
			m.begin(run)
			rt.Repeat(map[string]func(*rapid.T){
				"send": m.send, "send 2": m.send, "send 3": m.send, "connect 2": m.connect, "ack 2": m.ack, "connect": m.connect, "disconnect": m.disconnect, "ack": m.ack, "report": m.report,
				"cancel": m.cancel, "time passes": m.pass, "restart": m.restart, "fail": m.fail, "store": m.store,
				"": m.check,
			})
			m.end()
		})
	})
}

// checkInBubble checks a property in one bubble of time. Rapid itself stays outside:
// its deadline is one of real time.
func checkInBubble(t *testing.T, open func(t *testing.T) *rig, property func(rt *rapid.T, r *rig)) {
	work, ended, over := make(chan func(r *rig)), make(chan any), make(chan struct{})
	go func() {
		defer close(over)
		synctest.Test(t, func(t *testing.T) {
			r := open(t)
			for f := range work {
				ended <- caught(func() { f(r) })
			}
			r.close()
		})
	}()
	defer func() {
		close(work)
		<-over
	}()
	rapid.Check(t, func(rt *rapid.T) {
		work <- func(r *rig) { property(rt, r) }
		if p := <-ended; p != nil {
			panic(p) // rapid's own, that ends a run
		}
	})
}

func caught(f func()) (p any) {
	defer func() { p = recover() }()
	f()
	return nil
}

// begin gives the run devices of its own; those of the run before go with their
// commands.
func (m *model) begin(run int) {
	m.r.store.setDown(false)
	pass(10 * time.Second)
	m.r.wire.mu.Lock()
	clear(m.r.wire.online)
	clear(m.r.wire.flying)
	m.r.wire.log = nil
	m.r.wire.mu.Unlock()
	ctx := context.Background()
	must(m.r, m.r.registry.DeleteMany(ctx, m.r.registry.MatchAll(nil), devices.KeepData))
	for i := range 2 {
		id := muster.DeviceID(fmt.Sprintf("run%d.%d", run, i))
		m.r.device(id)
		m.devices = append(m.devices, id)
	}
	settle()
	m.r.eventsMu.Lock()
	m.r.events = nil
	m.r.eventsMu.Unlock()
	if es := m.r.feed(0); len(es) > 0 {
		m.feedFrom = es[len(es)-1].Seq
	}
}

func (m *model) anyDevice(t *rapid.T) muster.DeviceID {
	return rapid.SampledFrom(m.devices).Draw(t, "device")
}

func (m *model) anyCommand(t *rapid.T) *known {
	if len(m.order) == 0 {
		t.Skip("no commands")
	}
	return m.order[rapid.IntRange(max(0, len(m.order)-8), len(m.order)-1).Draw(t, "command")]
}

func (m *model) send(t *rapid.T) {
	device := m.anyDevice(t)
	ttl := time.Duration(rapid.IntRange(1, 40).Draw(t, "ttl")) * time.Second
	c, err := m.r.c.Send(context.Background(), command.Spec{Device: device, Method: "m", TTL: ttl}, 0)
	if err != nil {
		m.wantAway(t, err)
		pass(10 * time.Second) // until it is known whether it was stored
		m.findStored()
		return
	}
	m.know(c)
}

func (m *model) know(c command.Command) {
	k := &known{id: c.ID, device: c.Device, expires: c.Expires.Time()}
	m.commands[text(c.ID)] = k
	m.order = append(m.order, k)
}

// findStored takes in a command whose sender was told that the store is away.
func (m *model) findStored() {
	for _, id := range m.devices {
		list, _, err := m.r.c.Commands(context.Background(), command.Query{Device: id, Limit: 1000})
		must(m.r, err)
		for _, c := range slices.Backward(list) {
			if m.commands[text(c.ID)] == nil {
				m.know(c)
			}
		}
	}
}

func (m *model) wantAway(t *rapid.T, err error) {
	if muster.KindOf(err) != muster.Unavailable {
		t.Fatalf("the answer is %v", err)
	}
}

func (m *model) connect(t *rapid.T) {
	m.r.ready(m.anyDevice(t))
}

func (m *model) disconnect(t *rapid.T) {
	id := m.anyDevice(t)
	synctest.Wait()
	m.look()
	m.r.wire.disconnect(id)
}

func (m *model) ack(t *rapid.T) {
	id := m.anyDevice(t)
	synctest.Wait()
	m.look()
	m.r.wire.mu.Lock()
	for _, d := range m.r.wire.flying[id] {
		m.commands[string(d.Correlation)].delivered = true
	}
	m.r.wire.mu.Unlock()
	m.r.wire.ack(id, command.Acked)
}

func (m *model) report(t *rapid.T) {
	k := m.anyCommand(t)
	if k.sends == 0 {
		t.Skip("no device knows it")
	}
	status := rapid.SampledFrom([]string{"accepted", "progress", "ok", "error"}).Draw(t, "status")
	over := !time.Now().Before(k.expires)
	err := m.r.report(k.device, text(k.id), `{"status":"`+status+`","progress":7}`)
	ends := map[string]command.State{"ok": command.Succeeded, "error": command.Failed}[status]
	switch {
	case err == nil && over && k.ended == 0 && !k.tried:
		t.Fatalf("a report on %d was taken after it had expired", k.id)
	case err == nil:
		k.delivered = true
		if k.ended == 0 && ends != 0 {
			k.ended = ends
		}
		if ends != 0 && k.ended != ends && !k.tried {
			t.Fatalf("%d was %s and takes %s", k.id, k.ended, status)
		}
	case muster.KindOf(err) == muster.Unavailable:
		k.tried = true
	case k.ended == 0 && !over && !k.tried:
		t.Fatalf("a report on %d is refused: %v", k.id, err)
	}
}

func (m *model) cancel(t *rapid.T) {
	k := m.anyCommand(t)
	over := !time.Now().Before(k.expires)
	_, err := m.r.c.Cancel(context.Background(), k.device, k.id)
	switch {
	case err == nil && k.ended == 0 && over && !k.tried:
		t.Fatalf("%d was cancelled after it had expired", k.id)
	case err == nil && k.ended == 0:
		k.ended = command.Cancelled
	case err == nil && k.ended != command.Cancelled:
		t.Fatalf("%d was %s and then cancelled", k.id, k.ended)
	case err != nil && muster.KindOf(err) == muster.Unavailable:
		k.tried = true
	case err != nil && k.ended == 0 && !over && !k.tried:
		t.Fatalf("%d cannot be cancelled: %v", k.id, err)
	}
}

func (m *model) pass(t *rapid.T) {
	pass(time.Duration(rapid.Int64Range(0, 15_000_000).Draw(t, "us")) * time.Microsecond)
}

// restart is a stop in order, or a kill: then nothing is written any more.
func (m *model) restart(t *rapid.T) {
	m.look()
	if rapid.Bool().Draw(t, "killed") {
		m.r.store.setDown(true)
	}
	m.r.stop()
	m.r.store.setDown(false)
	m.down = false
	m.look()
	m.r.wire.mu.Lock()
	clear(m.r.wire.online)
	clear(m.r.wire.flying)
	m.r.wire.mu.Unlock()
	clear(m.states) // what was committed and not told
	m.r.start()
}

func (m *model) fail(t *rapid.T) {
	m.r.store.fail(rapid.SliceOfN(rapid.SampledFrom([]string{"before", "after", ""}), 1, 4).Draw(t, "plan")...)
}

func (m *model) store(t *rapid.T) {
	m.down = !m.down
	m.r.store.setDown(m.down)
}

// check looks at what can be seen after each step.
func (m *model) check(*rapid.T) {
	synctest.Wait()
	m.look()
}

// look checks the messages and events since the last look.
func (m *model) look() {
	log := m.r.wire.sent()
	for _, s := range log[m.seen:] {
		m.onWire(s)
	}
	m.seen = len(log)
	m.r.eventsMu.Lock()
	events := m.r.events
	m.r.eventsMu.Unlock()
	for _, e := range events[m.told:] {
		before, ok := m.states[e.ID]
		if ok && !follows(before, e.State) {
			m.Fatalf("%d was %s and is %s", e.ID, before, e.State)
		}
		m.states[e.ID] = e.State
	}
	m.told = len(events)
}

func (m *model) onWire(s message) {
	k := m.commands[s.id]
	if k == nil { // its sender was told that the store is away
		m.findStored()
		if k = m.commands[s.id]; k == nil {
			m.Fatalf("%s was sent and is not stored", s.id)
		}
	}
	k.sends++
	if !s.at.Before(k.expires) {
		m.Fatalf("%d was sent at %s, after it had expired at %s", k.id, s.at, k.expires)
	}
	if k.ended != 0 {
		m.Fatalf("%d was sent after it was %s", k.id, k.ended)
	}
	for _, o := range m.order {
		if o.device == k.device && o.id < k.id && !o.delivered && o.ended == 0 && !o.tried && s.at.Before(o.expires) {
			m.Fatalf("%d was sent before %d was delivered", k.id, o.id)
		}
	}
}

// follows says whether some events lead from a to b, by what documents say.
func follows(a, b command.State) bool {
	switch {
	case a.Final():
		return false
	case b == command.Queued:
		return a == command.Sent
	case b == command.Sent:
		return a == command.Queued
	case b == command.Progress:
		return true
	default:
		return b > a
	}
}

// end has every device come back to a store that works: whatever has not ended and not
// expired is delivered, in order, and everything is what its callers were told.
func (m *model) end() {
	m.r.store.setDown(false)
	pass(10 * time.Second)
	m.findStored()
	for _, id := range m.devices {
		m.r.ready(id)
	}
	for range len(m.order) + 1 {
		settle()
		m.look()
		for _, id := range m.devices {
			m.r.wire.mu.Lock()
			for _, d := range m.r.wire.flying[id] {
				m.commands[string(d.Correlation)].delivered = true
			}
			m.r.wire.mu.Unlock()
			m.r.wire.ack(id, command.Acked)
		}
	}
	settle()
	for _, k := range m.order {
		m.judge(k)
	}
	m.readFeed()
}

// readFeed checks that the feed tells of each command each state once, from queued to
// what is stored, whatever failed and restarted meanwhile.
func (m *model) readFeed() {
	last := map[string]command.State{}
	for _, e := range m.r.feed(m.feedFrom) {
		var n struct{ Command, State string }
		must(m.r, json.Unmarshal(e.Data, &n))
		s, err := command.ParseState(n.State)
		must(m.r, err)
		before, ok := last[n.Command]
		if ok != (s != command.Queued || before == command.Sent) || ok && !follows(before, s) {
			m.Fatalf("the feed has %s of command %s after %s (%v)", s, n.Command, before, ok)
		}
		last[n.Command] = s
	}
	for id, s := range last {
		k := m.commands[id]
		if k == nil {
			continue // nobody was told of it
		}
		if got := m.r.get(k.device, k.id); got.State != s && got.State != command.Progress {
			m.Fatalf("the feed's last word of command %s is %s, and it is %s", id, s, got.State)
		}
	}
}

func (m *model) judge(k *known) {
	c := m.r.get(k.device, k.id)
	over := !time.Now().Before(k.expires)
	switch {
	case k.ended != 0:
		if c.State != k.ended {
			m.Errorf("%d is %s, its callers were told %s", k.id, c.State, k.ended)
		}
	case k.tried && c.State.Final():
	case over:
		if c.State != command.Expired || !c.Finished.Time().Equal(k.expires) {
			m.Errorf("%d is %s since %s, it expired at %s", k.id, c.State, c.Finished.Time(), k.expires)
		}
	case c.State < command.Delivered || c.State.Final(): // attempts may be 0, when it was killed before it had noted one
		m.Errorf("%d is %s after %d attempts, and its device is there", k.id, c.State, c.Attempts)
	}
}
