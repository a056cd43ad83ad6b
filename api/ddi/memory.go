package ddi

import (
	"math"
	"sync"
	"time"

	"muster"
)

// maxRemembered is how many devices are remembered.
const maxRemembered = 1 << 17

// How often a device may ask and say: so many at once, and one more every so often.
const (
	readBurst  = 200
	readEvery  = 20 * time.Millisecond
	rangeBurst = 2000 // ranges of images, which small devices ask for by the kilobyte
	rangeEvery = 2 * time.Millisecond
	writeBurst = 100 // RAUC's updater says some 20 things within 100 ms
	writeEvery = 50 * time.Millisecond
)

// coalesced is for how long a progress that changes no state is not kept after another.
const coalesced = time.Second

// seen is what is remembered of a device. All of it may be forgotten: then the device is asked
// for its attributes once more, and its next progress is kept.
type seen struct {
	reads, ranges, writes time.Time // when its buckets are full again (the generic cell rate algorithm)

	action   int32     // that what follows is about
	whole    bool      // an image was sent to its end
	progress time.Time // when one was kept last
	closed   time.Time // when it said that it has installed
	asked    bool      // its attributes came since
	told     bool      // how it is to go about it
	skip     bool      // not to install: it was told so last

	attributes bool // it has told them since we began
}

// of brings s to an action.
func (s *seen) of(action int32) *seen {
	if s.action != action {
		s.action, s.whole, s.progress, s.closed, s.asked, s.told, s.skip = action, false, time.Time{}, time.Time{}, false, false, false
	}
	return s
}

// memory remembers devices: at most most of them. Those that were not heard longest are
// forgotten in halves. It is safe for concurrent use.
type memory struct {
	now        func() time.Time
	most       int
	mu         sync.Mutex
	young, old map[muster.DeviceID]*seen
}

func newMemory(most int, now func() time.Time) *memory {
	return &memory{now: now, most: most, young: map[muster.DeviceID]*seen{}, old: map[muster.DeviceID]*seen{}}
}

// with calls do with what is remembered of a device, under the lock.
func (m *memory) with(device muster.DeviceID, do func(s *seen)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.young[device]
	if s == nil {
		if s = m.old[device]; s == nil {
			s = &seen{}
		}
		if len(m.young) >= m.most/2 {
			m.old, m.young = m.young, make(map[muster.DeviceID]*seen, m.most/2)
		}
		m.young[device] = s
	}
	do(s)
}

// tooOftenError is a refusal for now.
type tooOftenError struct{ wait time.Duration }

func (e *tooOftenError) Error() string { return "the device asks too often" }

func (e *tooOftenError) seconds() int { return max(1, int(math.Ceil(e.wait.Seconds()))) }

// read takes one of what a device may ask.
func (m *memory) read(device muster.DeviceID) (err error) {
	m.with(device, func(s *seen) { err = take(&s.reads, m.now(), readEvery, readBurst) })
	return err
}

// piece takes one of the ranges of images that a device may ask for.
func (m *memory) piece(device muster.DeviceID) (err error) {
	m.with(device, func(s *seen) { err = take(&s.ranges, m.now(), rangeEvery, rangeBurst) })
	return err
}

// write takes one of what a device may say.
func (m *memory) write(device muster.DeviceID) (err error) {
	m.with(device, func(s *seen) { err = take(&s.writes, m.now(), writeEvery, writeBurst) })
	return err
}

func take(full *time.Time, now time.Time, every time.Duration, burst int) error {
	most := time.Duration(burst) * every
	at := *full
	if at.Before(now) || at.After(now.Add(most)) { // the clock was set back
		at = now
	}
	if over := at.Add(every).Sub(now) - most; over > 0 {
		return &tooOftenError{over}
	}
	*full = at.Add(every)
	return nil
}
