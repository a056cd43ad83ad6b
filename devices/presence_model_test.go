package devices_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// model says what presence must be by looking at every device every second: no
// timers, no lists of children, nothing kept but facts. Times are seconds.
type model struct {
	now, boot int64
	waiting   bool
	returns   []int64 // when connections came back that a restart had cost
	devs      []*modelDevice
	byID      map[muster.DeviceID]*modelDevice
	offlines  map[muster.DeviceID]int // times it went offline since the last look
}

type modelDevice struct {
	id       muster.DeviceID
	parent   *modelDevice
	check    int64 // always set: rhythms have tests of their own
	state    muster.PresenceState
	updating bool
	since    int64
	reason   string
	hangs    string // on own connection, gateway or data; keeps what it was
	live     []uint64
	ended    int64  // -1 for never in this run
	by       uint64 // the session that ended then, of several the newest
	why      string
	final    bool
	heard    int64
	stray    int64
	awaited  bool
	attached bool
}

const modelGrace = 4

func (d *modelDevice) up() bool { return d != nil && (d.state == online || d.state == isQuiet) }

func (d *modelDevice) pending() bool {
	return d.hangs == "own" && len(d.live) == 0 && d.ended >= 0 && d.up()
}

func (m *model) set(d *modelDevice, s muster.PresenceState, at int64, reason string) {
	if d.state == s {
		return
	}
	if d.awaited {
		d.awaited = false
		if s != offline {
			m.returns = append(m.returns, m.now)
		}
	}
	if s == offline {
		m.offlines[d.id]++
	}
	d.state, d.since, d.reason = s, max(at, d.since), reason
}

func (m *model) down(d *modelDevice, at int64, reason string) {
	d.attached = false
	m.set(d, offline, at, reason)
	if len(reason) < 8 || reason[:8] != "gateway " {
		reason = "gateway " + string(d.id) + ": " + reason
	}
	for _, k := range m.devs {
		if k.parent == d && k.attached {
			m.down(k, at, reason)
		}
	}
}

func (m *model) raise(d *modelDevice, hangs string) {
	d.hangs, d.attached = hangs, hangs == "gateway"
	if !d.up() {
		m.set(d, online, m.now, "")
	}
}

func (m *model) connected(d *modelDevice, session uint64) {
	d.live = append(d.live, session)
	m.raise(d, "own")
}

func (m *model) disconnected(d *modelDevice, session uint64, reason string, will bool) {
	i := slices.Index(d.live, session)
	if i < 0 {
		return
	}
	d.live = slices.Delete(d.live, i, i+1)
	if m.now > d.ended || session > d.by {
		d.ended, d.by, d.why, d.final = m.now, session, reason, will || reason == "disconnected"
		if will {
			d.why += ", with last will"
		}
	}
	if len(d.live) == 0 && d.hangs == "own" && d.final {
		m.down(d, d.ended, d.why)
	}
}

func (m *model) hear(d *modelDevice) {
	d.heard = m.now
	lost := int64(-1)
	switch {
	case d.pending():
		lost = d.ended
	case d.state == offline:
		lost = d.since
	case d.state == unknown:
		lost = m.boot
	}
	doubtful := d.hangs == "own" || d.hangs == "gateway" && !d.parent.up()
	switch {
	case d.state == online && !d.pending():
	case d.state == isQuiet && !d.pending():
		m.set(d, online, m.now, "")
	case m.now <= lost:
	case doubtful && d.stray <= lost:
		d.stray = m.now
	case doubtful && m.now < d.stray+1:
	case d.parent.up():
		m.raise(d, "gateway")
	default:
		m.raise(d, "data")
	}
	if d.hangs == "gateway" && d.parent.up() {
		m.hear(d.parent)
	}
}

// look judges every device, gateways first.
func (m *model) look() {
	for _, d := range m.devs {
		base := max(d.heard, d.since)
		switch {
		case d.pending():
			if m.now >= d.ended+modelGrace {
				m.down(d, d.ended, d.why)
			}
		case d.state == unknown && d.hangs == "gateway" && d.parent.up():
			if m.now >= max(d.parent.since, m.boot)+2*d.check {
				m.down(d, m.now, "not back after server restart")
			}
		case d.state == unknown && d.hangs == "data":
			if m.now >= m.boot+2*d.check {
				m.down(d, m.now, "not back after server restart")
			}
		case d.up() && d.hangs == "data":
			if m.now >= base+2*d.check {
				m.down(d, base+2*d.check, "silent")
			}
		case d.state == online && m.now >= base+2*d.check:
			m.set(d, isQuiet, base+2*d.check, "silent")
		}
	}
	m.lookForMissing()
}

func (m *model) lookForMissing() {
	waited, recent, awaited := m.now-m.boot, 0, 0
	for _, at := range m.returns {
		if at >= m.boot+waited-10 {
			recent++
		}
	}
	for _, d := range m.devs {
		if d.awaited {
			awaited++
		}
	}
	storm := recent > 0 && recent >= awaited/100
	if !m.waiting || waited < 30 || storm && waited < 300 {
		return
	}
	m.waiting = false
	for _, d := range m.devs {
		own := d.hangs == "data" || d.hangs == "gateway" && (d.parent.up() || d.attached && d.parent.state == unknown)
		if d.state == unknown && !own {
			m.down(d, m.now, "not back after server restart")
		}
	}
}

func (m *model) restart() {
	m.boot, m.waiting, m.returns = m.now, true, nil
	for _, d := range m.devs {
		d.live, d.ended, d.heard, d.stray = nil, -1, -1, -1
		if d.up() || d.state == unknown {
			d.since, d.reason, d.state = m.now, "server restarted", unknown
			d.awaited, d.attached = d.hangs == "own", d.hangs == "gateway"
		}
	}
}

func newModel(specs []devices.Spec) *model {
	m := &model{byID: map[muster.DeviceID]*modelDevice{}, offlines: map[muster.DeviceID]int{}}
	for _, s := range specs {
		d := &modelDevice{id: s.ID, parent: m.byID[s.Parent], check: s.CheckIn, state: never, ended: -1, heard: -1, stray: -1}
		m.devs, m.byID[s.ID] = append(m.devs, d), d
	}
	return m
}

var modelFleet = []devices.Spec{
	{ID: "g1", CheckIn: 40},
	{ID: "g2", CheckIn: 5},
	{ID: "sub", Parent: "g1", CheckIn: 20},
	{ID: "c1", Parent: "g1", CheckIn: 3},
	{ID: "c2", Parent: "g1", CheckIn: 100},
	{ID: "c3", Parent: "g2", CheckIn: 10},
	{ID: "leaf", Parent: "sub", CheckIn: 7},
	{ID: "alone", CheckIn: 6},
}

// TestPresenceIsWhatANaiveModelSays runs connections, takeovers in any order, messages,
// gateways that come and go, wills and restarts against the model.
func TestPresenceIsWhatANaiveModelSays(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := &rig{TB: t, m: newMemory(), o: devices.Options{Grace: modelGrace * 1e9}}
		g.start()
		if _, _, err := g.r.CreateMany(t.Context(), modelFleet); err != nil {
			rt.Fatal(err)
		}
		m := newModel(modelFleet)
		run := &modelRun{T: rt, g: g, m: m, last: map[muster.DeviceID]devices.Transition{}}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			run.step()
		}
	})
}

type modelRun struct {
	*rapid.T
	g    *rig
	m    *model
	last map[muster.DeviceID]devices.Transition
}

func (r *modelRun) step() {
	for range rapid.IntRange(0, 4).Draw(r.T, "acts") {
		r.act()
	}
	r.look()
	for range rapid.SampledFrom([]int{1, 1, 2, 5, 12, 40}).Draw(r.T, "seconds") {
		r.m.now++
		r.m.look()
		r.g.pass(1)
		r.look()
	}
}

func (r *modelRun) act() {
	d := rapid.SampledFrom(r.m.devs).Draw(r.T, "device")
	switch rapid.SampledFrom([]string{"connect", "connect", "take over", "end", "end", "hear", "hear", "hear", "announce", "leave", "restart", "update"}).Draw(r.T, "act") {
	case "connect":
		c := r.g.connect(d.id)
		r.m.connected(d, c.Session)
	case "take over":
		r.takeOver(d)
	case "end":
		if len(d.live) > 0 {
			s := rapid.SampledFrom(d.live).Draw(r.T, "session")
			reason := rapid.SampledFrom([]string{"disconnected", "closed", "keepalive"}).Draw(r.T, "reason")
			will := reason != "disconnected" && rapid.Bool().Draw(r.T, "will")
			r.g.r.Disconnected(devices.Connection{Device: d.id, Session: s, Will: will}, reason, at(r.g.now))
			r.m.disconnected(d, s, reason, will)
		}
	case "hear":
		r.g.hear(d.id)
		r.m.hear(d)
	case "announce":
		if d.parent != nil {
			r.g.r.ChildConnected(d.parent.id, d.id)
			if d.parent.up() && len(d.live) == 0 {
				r.m.raise(d, "gateway")
			}
		}
	case "leave":
		if d.parent != nil {
			r.g.r.ChildDisconnected(d.parent.id, d.id)
			if d.hangs == "gateway" && len(d.live) == 0 && (d.up() || d.state == unknown) {
				r.m.down(d, r.m.now, "gateway "+string(d.parent.id)+": disconnected")
			}
		}
	case "update":
		d.updating = !d.updating
		r.g.r.SetUpdating([]muster.DeviceID{d.id, "nobody"}, func(muster.DeviceID) bool { return d.updating })
	case "restart":
		if rapid.IntRange(0, 5).Draw(r.T, "really") == 0 {
			r.restart()
		}
	}
}

// takeOver reports the new connection and the end of the old in either order.
func (r *modelRun) takeOver(d *modelDevice) {
	if len(d.live) == 0 {
		return
	}
	old := d.live[0]
	end := func() {
		r.g.r.Disconnected(devices.Connection{Device: d.id, Session: old}, "taken over", at(r.g.now))
		r.m.disconnected(d, old, "taken over", false)
	}
	first := rapid.Bool().Draw(r.T, "old first")
	if first {
		end()
	}
	r.m.connected(d, r.g.connect(d.id).Session)
	if !first {
		end()
	}
}

func (r *modelRun) restart() {
	r.look()
	if rapid.Bool().Draw(r.T, "in order") {
		for _, d := range r.m.devs {
			for _, s := range d.live {
				r.g.r.Disconnected(devices.Connection{Device: d.id, Session: s}, "server stopped", at(r.g.now))
			}
		}
	}
	r.look()
	r.g.stop()
	r.g.start()
	r.m.restart()
	r.g.r.SetAllUpdating(func(id muster.DeviceID) bool {
		return slices.ContainsFunc(r.m.devs, func(d *modelDevice) bool { return d.id == id && d.updating })
	})
	r.last = map[muster.DeviceID]devices.Transition{}
}

// look compares the states, and the transitions told since the last look.
func (r *modelRun) look() {
	r.g.r.Deliver()
	offlines := map[muster.DeviceID]int{}
	for _, tr := range r.g.told {
		before, ok := r.last[tr.Device]
		if tr.From == tr.To || ok && (tr.From != before.To || tr.At < before.At) || tr.At > micros(r.g.now) {
			r.Fatalf("after %+v comes %+v", before, tr)
		}
		r.last[tr.Device] = tr
		if tr.To == offline {
			offlines[tr.Device]++
		}
	}
	r.g.told = nil
	counts := map[muster.Status]int{}
	for _, d := range r.m.devs {
		p, _ := r.g.r.Presence(d.id)
		counts[muster.StatusOf(p.State, d.updating)]++
		if is, _, _ := r.g.r.Status(d.id); is != muster.StatusOf(p.State, d.updating) {
			r.Fatalf("%s is %s: %s, and updating is %v", d.id, is, p.State, d.updating)
		}
		if p.State != d.state || p.Reason != d.reason {
			r.Fatalf("after %d s %s is %s (%s), want %s (%s)", r.g.now, d.id, p.State, p.Reason, d.state, d.reason)
		}
		if tr, ok := r.last[d.id]; ok && (tr.To != p.State || tr.At != p.Since) {
			r.Fatalf("%s is %+v, and what was told last is %+v", d.id, p, tr)
		}
		if offlines[d.id] != r.m.offlines[d.id] {
			r.Fatalf("after %d s %s went offline %d times, want %d", r.g.now, d.id, offlines[d.id], r.m.offlines[d.id])
		}
		r.m.offlines[d.id] = 0
	}
	for s, n := range r.g.r.Counts() {
		if counts[s] != n {
			r.Fatalf("%d are counted %s, %d are", n, s, counts[s])
		}
	}
}
