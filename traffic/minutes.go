package traffic

import (
	"sync"
	"time"
)

// KeptMinutes is how many minutes are kept: a day.
const KeptMinutes = 24 * 60

// lateNote is the longest time between two notes whose messages are counted: of a longer one
// nobody knows which minute they came in.
const lateNote = 30 * time.Second

// Totals are messages of telemetry since the start.
type Totals struct {
	Received uint64
	Stored   uint64 // what the store is done with: duplicates and what replaced others are among them
}

// Minute is what was counted in one minute.
type Minute struct {
	At      time.Time     // when it began
	Counted time.Duration // how much of it was counted: less than a minute of the first, the one under way, and those with a gap
	Totals
}

// Minutes counts messages by the minute, in memory, since the first note. The zero Minutes is ready.
type Minutes struct {
	mu    sync.Mutex
	since time.Time
	last  time.Time
	seen  Totals
	ring  [KeptMinutes]Minute // by minutes since 1970
}

// Note takes what the totals are now; it is called some times in a minute. A clock that was
// set back, and one that ran away, begin anew, with a gap.
func (m *Minutes) Note(now time.Time, t Totals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() {
		m.since = now
	}
	took := now.Sub(m.last)
	if !m.last.IsZero() && took >= 0 && took <= lateNote {
		m.count(now, took, Totals{Received: t.Received - m.seen.Received, Stored: t.Stored - m.seen.Stored})
	}
	m.last, m.seen = now, t
}

// count adds what came in the time before now to its minute. A note that is the first in a
// minute adds the end of the one before to it: at most the time between two notes.
func (m *Minutes) count(now time.Time, took time.Duration, more Totals) {
	at := now.Truncate(time.Minute)
	slot := &m.ring[at.Unix()/60%KeptMinutes]
	if !slot.At.Equal(at) {
		*slot = Minute{At: at}
	}
	slot.Counted += took
	slot.Received += more.Received
	slot.Stored += more.Stored
}

// From returns when counting began, and the minutes that began at from or later, the oldest
// first. A minute of which nothing is known is left out.
func (m *Minutes) From(from time.Time) (since time.Time, minutes []Minute) {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.last.Truncate(time.Minute)
	minutes = []Minute{}
	for at := newest.Add(-(KeptMinutes - 1) * time.Minute); !at.After(newest) && !m.last.IsZero(); at = at.Add(time.Minute) {
		slot := &m.ring[at.Unix()/60%KeptMinutes]
		if !at.Before(from) && slot.At.Equal(at) {
			minutes = append(minutes, *slot)
		}
	}
	return m.since, minutes
}
