package devices

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"muster"
)

// The reasons a restart gives.
const (
	reasonRestarted = "server restarted"
	reasonNotBack   = "not back after server restart"
)

// tracker holds the presence of every device.
type tracker struct {
	mu      sync.Mutex
	rows    map[muster.DeviceID]*presence
	counts  map[muster.PresenceState]int
	dirty   map[muster.DeviceID]struct{} // changed since the last flush; at most one per device
	waiting bool                         // for devices to come back after the restart
	since   muster.Micros                // of the restart
}

// presence is one device's. live has its open connections, oldest first; a
// device is online exactly while there is one. The broker bounds their number.
type presence struct {
	muster.Presence
	live []Connection

	// The newest end of a connection, by time and then by session: reports of two
	// connections may come in either order.
	ended        muster.Micros
	endedSession uint64
	endReason    string
}

func (t *tracker) init() {
	t.rows = map[muster.DeviceID]*presence{}
	t.counts = map[muster.PresenceState]int{}
	t.dirty = map[muster.DeviceID]struct{}{}
}

func (t *tracker) add(id muster.DeviceID, created muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[id] = &presence{Presence: muster.Presence{State: muster.PresenceNever, Since: created}}
	t.counts[muster.PresenceNever]++
}

func (t *tracker) remove(id muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.rows[id]; ok {
		t.counts[p.State]--
		delete(t.rows, id)
		delete(t.dirty, id)
	}
}

// load takes a kept row over. What was connected, in whatever state, is unknown now.
func (t *tracker) load(row PresenceRow, at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[row.Device]
	if !ok {
		return
	}
	p.LastSeen = row.LastSeen
	switch row.State {
	case muster.PresenceNever:
	case muster.PresenceOffline:
		t.set(row.Device, p, row.State, row.Since, row.Reason)
		delete(t.dirty, row.Device)
	default:
		t.set(row.Device, p, muster.PresenceUnknown, at, reasonRestarted)
	}
}

func (t *tracker) restarted(at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting, t.since = true, at
}

// set is called with the lock held.
func (t *tracker) set(id muster.DeviceID, p *presence, s muster.PresenceState, since muster.Micros, reason string) {
	t.counts[p.State]--
	t.counts[s]++
	p.State, p.Since, p.Reason = s, since, reason
	t.dirty[id] = struct{}{}
}

// Connected records that a device has a new connection. One for a device that
// was deleted meanwhile is reported to OnRights, so that it is cut.
func (r *Registry) Connected(c Connection) {
	if !r.presence.connected(c) {
		r.onRights(func(id muster.DeviceID, _ string) bool { return id == c.Device })
		return
	}
	r.watch.changed([]muster.DeviceID{c.Device})
}

func (t *tracker) connected(c Connection) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[c.Device]
	if !ok {
		return false
	}
	i, found := findSession(p.live, c.Session)
	if found {
		return true
	}
	p.live = slices.Insert(p.live, i, c)
	at := muster.MicrosOf(c.At)
	p.LastSeen = max(p.LastSeen, at)
	if p.State != muster.PresenceOnline || at < p.Since {
		t.set(c.Device, p, muster.PresenceOnline, at, "")
	}
	return true
}

// Disconnected records that connection c ended at the time at. The device goes
// offline when it was the last one; a connection nobody reported is ignored.
func (r *Registry) Disconnected(c Connection, reason string, at time.Time) {
	if r.presence.disconnected(c, reason, muster.MicrosOf(at), r.lastSeen(c.Device)) {
		r.watch.changed([]muster.DeviceID{c.Device})
	}
}

func (t *tracker) disconnected(c Connection, reason string, at, seen muster.Micros) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[c.Device]
	if !ok {
		return false
	}
	i, found := findSession(p.live, c.Session)
	if !found {
		return false
	}
	if p.live = slices.Delete(p.live, i, i+1); len(p.live) == 0 {
		p.live = nil
	}
	p.LastSeen = max(p.LastSeen, seen)
	if at > p.ended || at == p.ended && c.Session > p.endedSession {
		p.ended, p.endedSession, p.endReason = at, c.Session, reason
	}
	if p.live == nil {
		t.set(c.Device, p, muster.PresenceOffline, p.ended, p.endReason)
	}
	return true
}

func findSession(live []Connection, session uint64) (int, bool) {
	return slices.BinarySearchFunc(live, session, func(c Connection, s uint64) int {
		return cmp.Compare(c.Session, s)
	})
}

// Presence returns the presence of id, false when there is no such device.
func (r *Registry) Presence(id muster.DeviceID) (muster.Presence, bool) {
	seen := r.lastSeen(id)
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	p, ok := r.presence.rows[id]
	if !ok {
		return muster.Presence{}, false
	}
	out := p.Presence
	out.LastSeen = max(out.LastSeen, seen)
	return out, true
}

// Connection returns the newest open connection of id, false when there is none.
func (r *Registry) Connection(id muster.DeviceID) (Connection, bool) {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	p, ok := r.presence.rows[id]
	if !ok || len(p.live) == 0 {
		return Connection{}, false
	}
	return p.live[len(p.live)-1], true
}

// Counts returns how many devices are in each presence state. It looks at no device.
func (r *Registry) Counts() map[muster.PresenceState]int {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	out := make(map[muster.PresenceState]int, 4)
	for _, s := range []muster.PresenceState{
		muster.PresenceNever, muster.PresenceOnline, muster.PresenceOffline, muster.PresenceUnknown,
	} {
		out[s] = r.presence.counts[s]
	}
	return out
}
