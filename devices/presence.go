package devices

import (
	"time"

	"muster"
	"muster/devices/query"
)

// defaultGrace is how long a device may be without a connection before it is
// offline, unless Options say otherwise.
const defaultGrace = 10 * time.Second

// Transition is one change of a device's presence.
type Transition struct {
	Device   muster.DeviceID
	From, To muster.PresenceState // never the same; From is the To of the device's transition before
	At       muster.Micros        // when To began, never before the transition before
	Reason   string               // why, empty for online
}

// Connected records that a device has a new connection. One for a device that
// was deleted meanwhile is reported to OnRights, so that it is cut.
func (r *Registry) Connected(c Connection) {
	if !r.presence.connected(c) {
		r.onRights(func(id muster.DeviceID, _ string) bool { return id == c.Device })
	}
}

// Disconnected records that connection c ended at the time at, for a reason in the
// broker's words. When it was the last one the device goes offline: at once when it
// said goodbye, left a last will (c.Will) or was turned away, and else when it is not
// back within the grace. A connection nobody reported is ignored. When the server
// stops, devices stay what they are, to be unknown after the start.
func (r *Registry) Disconnected(c Connection, reason string, at time.Time) {
	r.presence.disconnected(c, reason, muster.MicrosOf(at))
}

// ChildConnected records that a gateway announced a device: it is online with its
// gateway. Nothing happens unless the gateway is its parent and connected.
func (r *Registry) ChildConnected(gateway, child muster.DeviceID) {
	r.presence.childConnected(gateway, child, muster.MicrosOf(r.now()))
}

// ChildDisconnected records that a gateway said that a device left it: it is offline
// at once, unless it has a connection of its own.
func (r *Registry) ChildDisconnected(gateway, child muster.DeviceID) {
	r.presence.childDisconnected(gateway, child, muster.MicrosOf(r.now()))
}

// Heard records that a message of a device, whatever its kind, arrived at the time
// at, 0 for now: published by itself, by its gateway or through the API. Last wills are no
// messages of the device and must not be reported.
func (r *Registry) Heard(id muster.DeviceID, at muster.Micros) {
	if at == 0 {
		at = muster.MicrosOf(r.now())
	}
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	if p, ok := r.presence.rows[id]; ok {
		r.presence.heard(p, at, at)
	}
}

// Seen records when a message of a device arrived before the server started: it moves
// the time it was last seen, and is no sign of life.
func (r *Registry) Seen(id muster.DeviceID, at muster.Micros) {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	if p, ok := r.presence.rows[id]; ok {
		p.seen = max(p.seen, at)
	}
}

// observeChunk is how many readings Observe takes with the lock held once.
const observeChunk = 128

// Observe is Heard for readings, whose own time says which of them a device had kept
// since the past: those say nothing of its rhythm, and older than a day nothing of
// its presence when it has no connection. It keeps nothing of rs.
func (r *Registry) Observe(rs []muster.Reading) {
	for len(rs) > 0 {
		n := min(observeChunk, len(rs))
		r.presence.observe(rs[:n])
		rs = rs[n:]
	}
}

// Presence returns the presence of id, false when there is no such device.
func (r *Registry) Presence(id muster.DeviceID) (muster.Presence, bool) {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	p, ok := r.presence.rows[id]
	if !ok {
		return muster.Presence{}, false
	}
	return p.presence(), true
}

// CheckIn returns how many seconds apart messages of id are expected: what is set on
// the device, else its learned rhythm, else 600. A device is silent when twice that
// has passed since its last message.
func (r *Registry) CheckIn(id muster.DeviceID) int64 {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	if p, ok := r.presence.rows[id]; ok {
		return p.checkIn()
	}
	return query.DefaultCheckIn
}

// Connection returns the newest open connection of id, false when there is none.
func (r *Registry) Connection(id muster.DeviceID) (Connection, bool) {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	p, ok := r.presence.rows[id]
	if !ok || len(p.live()) == 0 {
		return Connection{}, false
	}
	return p.live()[len(p.live())-1], true
}

// PresenceMoves grows whenever a device comes, goes, is in another presence state, or begins or ends an update. It looks
// at no device.
func (r *Registry) PresenceMoves() uint64 {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	return r.presence.moves
}

// Counts returns how many devices have each status. It looks at no device.
func (r *Registry) Counts() map[muster.Status]int {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	out := make(map[muster.Status]int, len(stateNames)+1)
	for s, name := range stateNames {
		out[muster.StatusOf(name, false)] += r.presence.counts[s] - r.presence.busy[s]
		out[muster.StatusOf(name, true)] += r.presence.busy[s]
	}
	return out
}

// PresenceDetail is all that is known of a device's presence.
type PresenceDetail struct {
	muster.Presence
	Rhythm  int64 // learned seconds between messages, 0 while it is not known
	CheckIn int64 // seconds between messages that are expected: see Registry.CheckIn
	Flaps   int   // losses of the connection it came back from within a minute, in this and the last hour
	Strip   []Stretch
	Uptime  Uptime
}

// Stretch is a time in one state.
type Stretch struct {
	State    muster.PresenceState
	From, To muster.Micros // whole seconds, but for the ends of the strip
}

// Uptime adds up the last 30 days (UTC), today's included, since the device was first
// heard of. Online includes quiet. Unknown is when the server did not run, or
// waited for devices after its start.
type Uptime struct {
	Online, Offline, Unknown int64 // seconds
}

// Percent returns the share of online in the time that is known, false when none is.
func (u Uptime) Percent() (float64, bool) {
	if u.Online+u.Offline == 0 {
		return 0, false
	}
	return 100 * float64(u.Online) / float64(u.Online+u.Offline), true
}

// PresenceDetail returns what is known of id's presence, false when there is no such
// device. The strip covers the last 24 hours, oldest first, without gaps.
func (r *Registry) PresenceDetail(id muster.DeviceID) (PresenceDetail, bool) {
	now := muster.MicrosOf(r.now())
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	p, ok := r.presence.rows[id]
	if !ok {
		return PresenceDetail{}, false
	}
	return PresenceDetail{
		Presence: p.presence(), Rhythm: p.rhythm.seconds(), CheckIn: p.checkIn(), Flaps: p.flapsAt(now),
		Strip: p.strip(now), Uptime: p.uptime(now),
	}, true
}

// eachChunk is how many devices Each and EachID copy with the lock held once.
const eachChunk = 2048

// EachID yields the ids of all devices in bytewise order until yield says false,
// without a lock held. Devices made or deleted meanwhile change nothing for the others.
func (r *Registry) EachID(yield func(muster.DeviceID) bool) {
	ids := make([]muster.DeviceID, 0, eachChunk)
	last := muster.DeviceID("")
	for {
		ids = r.idsAfter(last, ids[:0])
		for _, id := range ids {
			if !yield(id) {
				return
			}
		}
		if len(ids) < eachChunk {
			return
		}
		last = ids[len(ids)-1]
	}
}

// idsAfter fills into up to its capacity with the ids after last.
func (r *Registry) idsAfter(last muster.DeviceID, into []muster.DeviceID) []muster.DeviceID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.after(last) {
		if len(into) == cap(into) {
			break
		}
		into = append(into, e.ID)
	}
	return into
}
