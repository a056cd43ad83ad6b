package deliver

import (
	"crypto/sha256"
	"sync"
	"time"

	"muster"
)

// spending names what has a budget.
type spending struct {
	device muster.DeviceID
	action int64
	digest [sha256.Size]byte
}

// account is what is known of a spending.
type account struct {
	used  int64     // bytes
	until time.Time // when it must be asked again whether the action goes on
}

// budgets count the bytes that were sent of an image to a device for an action, in memory. There
// are at most most of them: then the half that was not used longest is forgotten, and begins anew
// if it comes back, as all do after a restart. It is safe for concurrent use.
type budgets struct {
	most       int
	mu         sync.Mutex
	young, old map[spending]account
}

func newBudgets(most int) *budgets {
	return &budgets{most: most, young: map[spending]account{}, old: map[spending]account{}}
}

// take takes at most n of the budget of k, which is all in all, and returns how much it got.
func (b *budgets) take(k spending, n, all int64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.claim(k)
	n = max(min(n, all-at.used), 0)
	at.used += n
	b.young[k] = at
	return n
}

// claim makes room for k among the young. The caller has the lock, and writes it there.
func (b *budgets) claim(k spending) account {
	if at, ok := b.young[k]; ok {
		return at
	}
	at := b.old[k]
	delete(b.old, k)
	if len(b.young) >= max(b.most/2, 1) {
		b.old, b.young = b.young, map[spending]account{}
	}
	return at
}

// look returns what is known of k.
func (b *budgets) look(k spending) account {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.young[k]; ok {
		return at
	}
	return b.old[k]
}

// allow keeps until when k need not be asked for again.
func (b *budgets) allow(k spending, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.claim(k)
	at.until = until
	b.young[k] = at
}

// give takes back that n bytes were taken: they were not sent.
func (b *budgets) give(k spending, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range []map[spending]account{b.young, b.old} {
		if at, ok := m[k]; ok {
			at.used = max(at.used-n, 0)
			m[k] = at
			return
		}
	}
}

// slots count the downloads of each device that go on. It is safe for concurrent use, and as
// large as there are requests.
type slots struct {
	most int
	mu   sync.Mutex
	of   map[muster.DeviceID]int
}

// take takes a slot of a device; false when it has none left.
func (s *slots) take(d muster.DeviceID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[d] >= s.most {
		return false
	}
	s.of[d]++
	return true
}

func (s *slots) give(d muster.DeviceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[d]--; s.of[d] <= 0 {
		delete(s.of, d)
	}
}

// open returns how many downloads go on.
func (s *slots) open() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.of {
		n += k
	}
	return n
}
