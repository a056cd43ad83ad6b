package topic

import (
	"sync"
	"sync/atomic"
)

// targetsPerTopic is how many targets of its own an average remembered result may have.
const targetsPerTopic = 16

// cache remembers results by name in two halves. When the young half is full it becomes
// the old one, and the former old one is forgotten; what is asked for again comes back
// into the young one. So topics in use stay, at the price of a map look-up.
type cache[S comparable] struct {
	limit  int // results in a half
	budget int // their weight

	hits   atomic.Uint64
	misses atomic.Uint64

	mu         sync.RWMutex
	young, old map[string]*Result[S]
	weight     int // of young
}

func newCache[S comparable](topics int) cache[S] {
	limit := (max(topics, 0) + 1) / 2
	return cache[S]{limit: limit, budget: limit * targetsPerTopic, young: map[string]*Result[S]{}}
}

// get returns the result for name, outdated or not, or nil.
func (c *cache[S]) get(name string) *Result[S] {
	c.mu.RLock()
	r := c.young[name]
	if r != nil {
		c.mu.RUnlock()
		c.hits.Add(1)
		return r
	}
	r = c.old[name]
	c.mu.RUnlock()
	if r == nil {
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	return c.put(r)
}

// put remembers r and returns it, or what another reader has put for that name
// meanwhile and is as new.
func (c *cache[S]) put(r *Result[S]) *Result[S] {
	if r.weight > c.budget || c.limit == 0 {
		return r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.young[r.name]
	if was != nil {
		if was.at.Load() >= r.at.Load() {
			return was
		}
		c.weight -= was.weight
		delete(c.young, r.name)
	}
	if len(c.young) >= c.limit || c.weight+r.weight > c.budget {
		c.old, c.young, c.weight = c.young, map[string]*Result[S]{}, 0
	}
	c.young[r.name] = r
	c.weight += r.weight
	return r
}

// drop forgets everything.
func (c *cache[S]) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.old, c.young, c.weight = nil, map[string]*Result[S]{}, 0
}
