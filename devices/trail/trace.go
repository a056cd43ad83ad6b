package trail

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/devices/intake"
)

// Bounds of the trace.
const (
	MaxTraced  = 20       // messages of one device
	MaxRaw     = 4 << 10  // bytes kept of a payload
	maxItems   = 10       // readings kept of a payload that holds many
	traceBytes = 32 << 20 // in all; then the devices that sent least recently are dropped

	traceShards  = 32
	followedSize = 512 // bytes of a Followed and of its place, without what it points to
	historySize  = 384

	second = muster.Micros(time.Second / time.Microsecond)
	// Messages of intake that are followed, of one device.
	traceEvery, traceBurst = second / 10, 10
	// Messages of all devices that are followed. With more of them each would be gone
	// before anybody could look: 32 MiB hold some 50,000.
	fleetEvery, fleetBurst = second / 1000, 1000
	// Payloads with something refused, of all devices.
	refusedEvery, refusedBurst = second / 200, 200
	// A device whose messages are looked at has all of them followed, for a while.
	watchFor   = 15 * 60 * second
	maxWatched = 256 // devices; over it the one watched longest is not any more
)

// The verdicts on a message.
const (
	Pending   = "pending"
	Stored    = "stored"
	Duplicate = "duplicate"
	Replaced  = "replaced"
	Rejected  = "rejected"
	Dropped   = "dropped"
)

// Trace holds the last messages of each device and what became of them, in memory: it
// is empty after a start. It is safe for concurrent use.
type Trace struct {
	now    func() time.Time
	seed   maphash.Seed
	shards [traceShards]traceShard

	fleet, refused allowance
	watchMu        sync.Mutex                                        // held to change watched
	watched        atomic.Pointer[map[muster.DeviceID]muster.Micros] // until when; never changed in place
}

type traceShard struct {
	mu    sync.Mutex
	of    map[muster.DeviceID]*history
	ring  history // before the newest and behind the oldest
	bytes int
}

// history is the messages of one device: a ring once there are MaxTraced.
type history struct {
	id         muster.DeviceID
	list       []*Followed
	oldest     int
	bytes      int
	topic      string        // of the newest
	whole      muster.Micros // when intake's burst is whole again
	next, prev *history      // the one that sent before, the one that sent after
}

// Message is a message as the trace shows it. What it points to must not be changed.
type Message struct {
	Kind   string          // telemetry, reported, event, log, result or other
	By     muster.DeviceID // the gateway that published it, else empty
	Topic  string
	QoS    byte
	Raw    []byte // the first MaxRaw bytes of the payload
	Size   int    // of the whole payload
	Items  []Item // what telemetry was decoded to: the first 10 readings and refusals
	Count  int    // of readings and refusals in all
	Code   string // why it, or the first part of it, was rejected
	Reason string

	Verdict string // of its parts: rejected before dropped, pending, replaced, duplicate, stored
	// When it came, was decoded, was in the log, was acknowledged, and was in the
	// store; 0 for not, or not yet.
	Received, Decoded, Durable, Acked, Stored muster.Micros
}

// Item is a reading of a telemetry message, or what was refused of it.
type Item struct {
	muster.Reading // without a Layout for what was refused
	Verdict        string
	Code, Reason   string // of what was refused
}

// Start is a message that begins to be followed. What must be kept of it is copied.
type Start struct {
	Kind     string
	Device   muster.DeviceID
	By       muster.DeviceID
	Topic    string
	QoS      byte
	Payload  []byte
	Size     int
	Received muster.Micros
	Decoded  muster.Micros // 0 when it is not yet
	Readings []muster.Reading
	Refused  []Refusal
}

// Refusal is why something was refused.
type Refusal struct{ Code, Reason string }

// NewTrace returns an empty Trace.
func NewTrace(now func() time.Time) *Trace {
	t := &Trace{now: now, seed: maphash.MakeSeed()}
	for i := range t.shards {
		s := &t.shards[i]
		s.of = map[muster.DeviceID]*history{}
		s.ring.next, s.ring.prev = &s.ring, &s.ring
	}
	return t
}

func (t *Trace) shard(id muster.DeviceID) *traceShard {
	return &t.shards[maphash.String(t.seed, string(id))%traceShards]
}

// allowance lets burst messages through at once and one more each every. It is the
// time at which the burst is whole again.
type allowance struct{ whole atomic.Int64 }

// take is one load and one comparison for what is over the rate.
func (a *allowance) take(now, every, burst muster.Micros) bool {
	whole := a.whole.Load()
	if ahead := whole - int64(now); ahead > int64((burst-1)*every) && ahead <= int64(2*burst*every) { // else the clock was set back
		return false
	}
	return a.whole.CompareAndSwap(whole, min(max(whole, int64(now)), int64(now+burst*every))+int64(every))
}

// Wants says whether a message of device that came now should be followed: any when
// the fleet sends up to 1,000 a second, above that a share of them, but all of devices
// that were looked at within 15 minutes. refused says that something of it was
// refused: of these there are 200 a second more. It costs some nanoseconds.
func (t *Trace) Wants(device muster.DeviceID, refused bool, now muster.Micros) bool {
	if t.fleet.take(now, fleetEvery, fleetBurst) {
		return true
	}
	return t.isWatched(device, now) || refused && t.refused.take(now, refusedEvery, refusedBurst)
}

func (t *Trace) isWatched(device muster.DeviceID, now muster.Micros) bool {
	w := t.watched.Load()
	return w != nil && (*w)[device] > now
}

// watch has all messages of device followed from now on.
func (t *Trace) watch(device muster.DeviceID, now muster.Micros) {
	t.watchMu.Lock()
	defer t.watchMu.Unlock()
	next := map[muster.DeviceID]muster.Micros{}
	first, end := muster.DeviceID(""), now+2*watchFor
	if w := t.watched.Load(); w != nil {
		for id, until := range *w {
			if until <= now || id == device {
				continue
			}
			next[id] = until
			if until < end {
				first, end = id, until
			}
		}
	}
	if len(next) >= maxWatched {
		delete(next, first)
	}
	next[device] = now + watchFor
	t.watched.Store(&next)
}

// Begin follows a message. Whether to, its caller asks Wants.
func (t *Trace) Begin(s *Start) *Followed {
	f := follow(t.shard(s.Device), s)
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	h := f.shard.history(s.Device)
	if h.topic != s.Topic {
		h.topic = strings.Clone(s.Topic)
	}
	f.m.Topic = h.topic
	f.shard.add(h, f)
	f.shard.makeRoom(h, func(id muster.DeviceID) bool { return t.isWatched(id, s.Received) })
	return f
}

// Settled tells what became of a reading of which no Followed is at hand.
func (t *Trace) Settled(device muster.DeviceID, arrival muster.Micros, verdict string, at muster.Micros) {
	s := t.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of[device]
	if h == nil {
		return
	}
	for _, f := range h.list {
		for i := range f.m.Items {
			if f.m.Items[i].Arrival == arrival {
				f.settle(i, verdict)
				if i == maxItems-1 { // of those after it nothing is kept
					f.settled = f.readings
				}
				f.m.Stored = at
				return
			}
		}
	}
}

// Messages returns the last messages of a device, the newest first. From then on all
// of them are followed, at most 10 a second, for 15 minutes.
func (t *Trace) Messages(device muster.DeviceID) []Message {
	t.watch(device, muster.MicrosOf(t.now()))
	s := t.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of[device]
	if h == nil {
		return nil
	}
	out := make([]Message, 0, len(h.list))
	for i := range h.list {
		out = append(out, h.list[(h.oldest-1-i+2*len(h.list))%len(h.list)].view())
	}
	return out
}

// Forget drops what is kept of a device that was deleted.
func (t *Trace) Forget(device muster.DeviceID) {
	s := t.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.of[device]; h != nil {
		s.remove(h)
	}
}

// history returns the device's messages and makes it the newest.
func (s *traceShard) history(id muster.DeviceID) *history {
	h := s.of[id]
	if h == nil {
		h = &history{id: muster.DeviceID(strings.Clone(string(id))), bytes: historySize}
		s.of[h.id] = h
		s.bytes += historySize
	} else {
		h.prev.next, h.next.prev = h.next, h.prev
	}
	h.prev, h.next = &s.ring, s.ring.next
	h.next.prev, s.ring.next = h, h
	return h
}

// add makes f the newest message of h, and room for it.
func (s *traceShard) add(h *history, f *Followed) {
	size := f.size
	if len(h.list) < MaxTraced {
		h.list = append(h.list, f)
	} else {
		size -= h.list[h.oldest].size
		h.list[h.oldest] = f
		h.oldest = (h.oldest + 1) % MaxTraced
	}
	h.bytes += size
	s.bytes += size
}

// makeRoom drops the devices that sent least recently, but h, and those that are
// watched only when there are no others.
func (s *traceShard) makeRoom(h *history, watched func(muster.DeviceID) bool) {
	spared := 0
	for s.bytes > traceBytes/traceShards && s.ring.prev != h {
		last := s.ring.prev
		if spared < maxWatched && watched(last.id) {
			s.history(last.id)
			spared++
			continue
		}
		s.remove(last)
	}
}

func (s *traceShard) remove(h *history) {
	h.prev.next, h.next.prev = h.next, h.prev
	delete(s.of, h.id)
	s.bytes -= h.bytes
}

// allow says whether one more message of intake is followed.
func (s *traceShard) allow(id muster.DeviceID, now muster.Micros) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of[id]
	if h == nil {
		return true // the next one counts
	}
	if ahead := h.whole - now; ahead > (traceBurst-1)*traceEvery && ahead <= 2*traceBurst*traceEvery {
		return false
	}
	h.whole = min(max(h.whole, now), now+traceBurst*traceEvery) + traceEvery
	return true
}

// Intake returns the trace as intake tells it.
func (t *Trace) Intake() intake.Tracer { return intakeTracer{t} }

type intakeTracer struct{ t *Trace }

// Begin implements intake.Tracer. It follows at most 10 messages a second of a device.
func (i intakeTracer) Begin(m *intake.Message, at muster.Micros) intake.Trace {
	if !i.t.Wants(m.Device, false, at) || !i.t.shard(m.Device).allow(m.Device, at) {
		return nil
	}
	return i.t.Begin(&Start{
		Kind: m.Kind.String(), Device: m.Device, By: m.By, Topic: m.Topic, QoS: m.QoS, Payload: m.Payload,
		Size: len(m.Payload), Received: at,
	})
}
