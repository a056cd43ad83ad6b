package trail

import (
	"sync"

	"muster"
)

// Rate is how much a device may send: so much a second, and so much at once.
type Rate struct{ PerSecond, Burst int }

// bucket is what a device may send at a time.
type bucket struct {
	at      muster.Micros
	tokens  float64
	refused int // since it was last said
}

// buckets are those of all devices that are not full. A plan changes copies, which
// count when its transaction is through: one that is tried again costs nothing twice.
type buckets struct {
	rate Rate
	mu   sync.Mutex
	of   map[muster.DeviceID]bucket
}

func newBuckets(r Rate) *buckets { return &buckets{rate: r, of: map[muster.DeviceID]bucket{}} }

// plan is the buckets of the devices of one transaction.
type plan struct {
	b  *buckets
	of map[muster.DeviceID]*bucket
}

func (b *buckets) plan() plan { return plan{b, map[muster.DeviceID]*bucket{}} }

// bucket returns device's as it is at the time at.
func (p plan) bucket(device muster.DeviceID, at muster.Micros) *bucket {
	c := p.of[device]
	if c == nil {
		p.b.mu.Lock()
		have, ok := p.b.of[device]
		p.b.mu.Unlock()
		if !ok {
			have = bucket{at: at, tokens: float64(p.b.rate.Burst)}
		}
		c = &have
		p.of[device] = c
	}
	c.fill(at, p.b.rate)
	return c
}

// fill adds what came in by the time at. A clock that was set back starts it anew.
func (c *bucket) fill(at muster.Micros, r Rate) {
	if at < c.at-10*second {
		c.at = at
	}
	if at > c.at {
		c.tokens = min(c.tokens+float64(at-c.at)*float64(r.PerSecond)/float64(second), float64(r.Burst))
		c.at = at
	}
}

// take takes one token, if there is one.
func (c *bucket) take() bool {
	if c.tokens < 1 {
		return false
	}
	c.tokens--
	return true
}

// commit makes p's buckets count.
func (p plan) commit() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	for id, c := range p.of {
		p.b.of[id] = *c
	}
}

// sweep forgets the buckets that are full by now, and returns the devices of which
// something was refused that was not said.
func (b *buckets) sweep(now muster.Micros) (unsaid []muster.DeviceID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, c := range b.of {
		if c.refused > 0 {
			unsaid = append(unsaid, id)
			continue
		}
		if c.fill(now, b.rate); c.tokens >= float64(b.rate.Burst) {
			delete(b.of, id)
		}
	}
	return unsaid
}
