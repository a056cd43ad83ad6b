package devices

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"muster"
)

// state is a muster.PresenceState in one byte.
type state uint8

const (
	never state = iota
	online
	quiet
	offline
	unknown
)

var stateNames = [...]muster.PresenceState{
	muster.PresenceNever, muster.PresenceOnline, muster.PresenceQuiet, muster.PresenceOffline, muster.PresenceUnknown,
}

// stateOf returns unknown for a name that is none.
func stateOf(name muster.PresenceState) state {
	if i := slices.Index(stateNames[:], name); i >= 0 {
		return state(i)
	}
	return unknown
}

// link is what a device's presence hangs on, or hung on last.
type link uint8

const (
	unlinked link = iota
	direct        // its own connection
	relayed       // its gateway's
	byData        // its messages alone
)

var linkNames = [...]string{"", "connection", "gateway", "data"}

func linkOf(name string) link { return link(max(slices.Index(linkNames[:], name), 0)) }

// The reasons that come from here.
const (
	reasonRestarted = "server restarted"
	reasonNotBack   = "not back after server restart"
	reasonSilent    = "silent"
	reasonLeft      = "disconnected"
)

// The reasons of the broker that mean more than "the connection ended".
const (
	brokerStopped = "server stopped"
	brokerTaken   = "taken over"
)

// atOnce are the ends that no grace follows: the device, or its owner, meant it.
var atOnce = [...]string{"disconnected", "disconnected, with last will", "credential gone"}

// tracker holds the presence of every device. What it does under its lock is short
// and calls nobody; events leave by deliver.
type tracker struct {
	mu     sync.Mutex
	rows   map[muster.DeviceID]*track
	list   []*track // the same, in no order
	counts [len(stateNames)]int
	busy   [len(stateNames)]int // of those, which have a firmware action under way
	moves  uint64               // changes of counts or busy, ever
	timers timers
	grace  muster.Micros

	dirty []*track      // presence to save; each at most once
	aged  []*track      // history to save; each at most once
	sweep int           // where in list the search for old rows goes on
	alive muster.Micros // the last SaveAlive; Run's

	boot    muster.Micros     // when Load ended, and then when RunAbsence began
	begun   bool              // RunAbsence has
	waiting bool              // for devices to come back after it
	awaited int               // connections that the restart has cost and that are not back
	back    [returnWindow]int // those that came back, by second
	second  int               // of the wait, for back

	events events
}

// track is one device's presence. What every message looks at comes first, in two
// cache lines.
type track struct {
	id     muster.DeviceID
	state  state
	link   link
	soiled bool          // in tracker.dirty
	old    bool          // in tracker.aged
	told   bool          // in events.touched
	await  bool          // in tracker.awaited
	gone   bool          // removed
	cut    bool          // it lost its last connection, and not because the server stopped
	check  int32         // expected seconds between messages, 0 for its rhythm
	timer  int32         // in tracker.timers, -1 for none
	heard  muster.Micros // the last message
	rhythm rhythm

	parent *track
	ties   *ties // nil before it had a connection or a child
	slot   int32 // in parent.ties.kids, -1 for none
	place  int32 // in tracker.list
	due    muster.Micros

	since  muster.Micros
	reason string
	seen   muster.Micros // the last packet that is no message
	stray  muster.Micros // a message after the end of its connection, that may be a will

	flaps, flapsBefore uint16 // in flapHour and in the hour before
	flapHour           int32  // since 1970
	savedRhythm        int32
	spoken             state // that the feed was told last, or that was kept over a restart
	updating           bool  // a firmware action is under way
	savedSeen          muster.Micros
	history            *history // nil until the first transition
}

// ties are what only devices have that connect themselves: behind a gateway most do
// not. Connections are bounded by the broker.
type ties struct {
	live []Connection // oldest first
	kids []*track     // that hang on its connection

	// The newest end of a connection, by time and then by session: reports of two
	// connections may come in either order.
	ended        muster.Micros
	endedSession uint64
	endReason    string
	final        bool // no grace follows it
}

// tie returns p's ties, making them if need be.
func (p *track) tie() *ties {
	if p.ties == nil {
		p.ties = &ties{}
	}
	return p.ties
}

// live returns p's connections, oldest first.
func (p *track) live() []Connection {
	if p.ties == nil {
		return nil
	}
	return p.ties.live
}

func (t *tracker) init(grace muster.Micros) {
	t.rows = map[muster.DeviceID]*track{}
	t.grace = grace
	t.events.wake = make(chan struct{}, 1)
}

func (t *tracker) add(d *Device) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &track{id: d.ID, since: d.Created, check: int32(d.CheckIn), slot: -1, timer: -1, place: int32(len(t.list))}
	t.rows[d.ID] = p
	t.list = append(t.list, p)
	t.count(p, 1)
	return p
}

func (t *tracker) remove(id muster.DeviceID, at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[id]
	if !ok {
		return
	}
	t.detach(p)
	t.dropKids(p, at, "gateway "+string(id)+": deleted")
	t.timers.remove(p)
	t.count(p, -1)
	t.awaitNot(p)
	delete(t.rows, id)
	last := len(t.list) - 1
	t.list[p.place] = t.list[last]
	t.list[p.place].place = p.place
	t.list[last] = nil
	t.list = t.list[:last]
	p.gone = true
}

// describe takes over what the registry says of a device: how often it is to check in.
func (t *tracker) describe(d *Device, now muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[d.ID]
	if !ok || int64(p.check) == d.CheckIn {
		return
	}
	p.check = int32(d.CheckIn)
	if p.state == quiet && (p.allowance() == 0 || p.heard+p.allowance() > now) {
		t.set(p, online, now, "")
	}
	t.arm(p)
}

// adopt sets a device's gateway, empty for none. A device that hung on another
// gateway's connection hangs on its data until it is heard again.
func (t *tracker) adopt(id, parent muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[id]
	g := t.rows[parent]
	if !ok || p.parent == g {
		return
	}
	if p.slot >= 0 {
		t.detach(p)
		p.link = byData
	}
	p.parent = g
	t.arm(p)
}

// set is called with the lock held, like all that follows.
func (t *tracker) set(p *track, to state, at muster.Micros, reason string) {
	from := p.state
	if from == to {
		return
	}
	if from != never {
		at = max(at, p.since)
	}
	if t.awaitNot(p) && to != offline {
		t.back[t.second%returnWindow]++
	}
	p.note(to, at)
	t.count(p, -1)
	p.state, p.since, p.reason = to, at, reason
	t.count(p, 1)
	t.soil(p)
	t.age(p)
	t.events.add(p, Transition{Device: p.id, From: stateNames[from], To: stateNames[to], At: at, Reason: reason})
}

// up makes a device online that hangs on l now. One that is quiet stays so: only
// a message ends that.
func (t *tracker) up(p *track, at muster.Micros, l link) {
	if l != relayed {
		t.detach(p)
	}
	p.link = l
	returned := p.state == unknown
	if p.state != online && p.state != quiet {
		t.set(p, online, at, "")
	}
	t.arm(p)
	if returned && p.ties != nil {
		for _, k := range p.ties.kids { // from now on they are waited for
			t.arm(k)
		}
	}
}

// down makes a device offline, and with it those that hang on its connection.
func (t *tracker) down(p *track, at muster.Micros, reason string) {
	t.detach(p)
	t.set(p, offline, at, reason)
	t.timers.remove(p)
	if !strings.HasPrefix(reason, "gateway ") {
		reason = "gateway " + string(p.id) + ": " + reason
	}
	t.dropKids(p, at, reason)
}

func (t *tracker) dropKids(p *track, at muster.Micros, reason string) {
	if p.ties == nil {
		return
	}
	kids := p.ties.kids
	p.ties.kids = nil
	for _, k := range kids {
		k.slot = -1
	}
	for _, k := range kids {
		t.down(k, at, reason)
	}
}

// isUp says whether others can hang on p.
func (p *track) isUp() bool { return p != nil && (p.state == online || p.state == quiet) }

// pending says whether p's connection is lost and the grace runs.
func (p *track) pending() bool {
	return p.cut && p.link == direct && (p.state == online || p.state == quiet)
}

func (t *tracker) attach(p *track) {
	if p.slot < 0 && p.parent != nil {
		g := p.parent.tie()
		p.slot = int32(len(g.kids))
		g.kids = append(g.kids, p)
	}
}

func (t *tracker) detach(p *track) {
	if p.slot < 0 {
		return
	}
	kids := p.parent.ties.kids
	last := len(kids) - 1
	kids[p.slot] = kids[last]
	kids[p.slot].slot = p.slot
	kids[last] = nil
	p.parent.ties.kids, p.slot = kids[:last], -1
}

func (t *tracker) connected(c Connection) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[c.Device]
	if !ok {
		return false
	}
	own := p.tie()
	i, found := findSession(own.live, c.Session)
	if found {
		return true
	}
	at := muster.MicrosOf(c.At)
	if p.cut && !own.final && own.endReason != brokerTaken && at >= own.ended && at-own.ended <= minute {
		p.flapped(at)
	}
	own.live = slices.Insert(own.live, i, c)
	p.cut, p.seen = false, max(p.seen, at)
	t.up(p, at, direct)
	t.events.touch(p)
	return true
}

func (t *tracker) disconnected(c Connection, reason string, at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[c.Device]
	if !ok || p.ties == nil {
		return
	}
	own := p.ties
	i, found := findSession(own.live, c.Session)
	if !found {
		return
	}
	if own.live = slices.Delete(own.live, i, i+1); len(own.live) == 0 {
		own.live = nil
	}
	t.events.touch(p)
	if reason == brokerStopped {
		own.ended = 0 // no grace runs
		return
	}
	if at > own.ended || at == own.ended && c.Session > own.endedSession {
		own.ended, own.endedSession, own.endReason = at, c.Session, reason
		own.final = c.Will || slices.Contains(atOnce[:], reason)
		if c.Will {
			own.endReason += ", with last will"
		}
	}
	p.cut = own.live == nil && own.ended > 0
	switch {
	case own.live != nil || p.link != direct:
	case own.final || t.grace <= 0:
		t.down(p, own.ended, own.endReason)
	default:
		t.arm(p)
	}
}

func findSession(live []Connection, session uint64) (int, bool) {
	return slices.BinarySearchFunc(live, session, func(c Connection, s uint64) int {
		return cmp.Compare(c.Session, s)
	})
}

func (t *tracker) childConnected(gateway, child muster.DeviceID, at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[child]
	if !ok || p.parent == nil || p.parent.id != gateway || !p.parent.isUp() || len(p.live()) > 0 {
		return
	}
	p.seen = max(p.seen, at)
	t.attach(p)
	t.up(p, at, relayed)
	t.events.touch(p)
}

func (t *tracker) childDisconnected(gateway, child muster.DeviceID, at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[child]
	if !ok || p.parent == nil || p.parent.id != gateway || p.link != relayed || len(p.live()) > 0 {
		return
	}
	if p.state != never && p.state != offline {
		t.down(p, at, "gateway "+string(gateway)+": "+reasonLeft)
	}
}

func (p *track) presence() muster.Presence {
	return muster.Presence{State: stateNames[p.state], Since: p.since, LastSeen: max(p.seen, p.heard), Reason: p.reason}
}

// flapped counts one more loss of the connection that did not last.
func (p *track) flapped(at muster.Micros) {
	p.turnFlaps(at)
	if p.flaps < 1<<16-1 {
		p.flaps++
	}
}

func (p *track) turnFlaps(at muster.Micros) {
	switch h := int32(at / hour); {
	case h == p.flapHour+1:
		p.flapsBefore, p.flaps, p.flapHour = p.flaps, 0, h
	case h > p.flapHour:
		p.flapsBefore, p.flaps, p.flapHour = 0, 0, h
	}
}

func (p *track) flapsAt(at muster.Micros) int {
	p.turnFlaps(at)
	return int(p.flaps) + int(p.flapsBefore)
}
