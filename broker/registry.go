package broker

import (
	"container/list"
	"sync"
)

// registry knows the live connections. Those that have not said who they are yet
// are half open: when there are more than maxHalf of them the oldest is cut, so
// that silent sockets cannot keep others out.
type registry struct {
	maxHalf int

	mu    sync.Mutex
	all   map[*conn]struct{}
	half  *list.List // of *conn, oldest first
	known int
}

func newRegistry(maxHalf int) *registry {
	return &registry{maxHalf: maxHalf, all: make(map[*conn]struct{}), half: list.New()}
}

// add adds a half-open connection and returns the one to cut for it, or nil.
func (r *registry) add(c *conn) (evicted *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.half.Len() >= r.maxHalf {
		front := r.half.Front()
		evicted = front.Value.(*conn)
		r.half.Remove(front)
		evicted.half = nil
	}
	r.all[c] = struct{}{}
	c.half = r.half.PushBack(c)
	return evicted
}

// admit makes c a known connection. It returns false when there are limit of them
// already.
func (r *registry) admit(c *conn, limit int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known >= limit {
		return false
	}
	r.unhalf(c)
	r.known++
	c.admitted = true
	return true
}

func (r *registry) unhalf(c *conn) {
	if c.half != nil {
		r.half.Remove(c.half)
		c.half = nil
	}
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, c)
	r.unhalf(c)
	if c.admitted {
		r.known--
	}
}

func (r *registry) every() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	cs := make([]*conn, 0, len(r.all))
	for c := range r.all {
		cs = append(cs, c)
	}
	return cs
}

func (r *registry) count() (known, half int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known, r.half.Len()
}
