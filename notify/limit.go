package notify

import (
	"fmt"
	"sync"
	"time"

	"muster"
)

const (
	defaultBurst = 30
	defaultEvery = 2 * time.Second
	maxSenders   = 10_000 // that are counted at a time
)

// WaitError is Busy: too much was sent. Wait is how long until the next may be.
type WaitError struct{ Wait time.Duration }

// Error implements error.
func (e *WaitError) Error() string {
	return fmt.Sprintf("too many notifications were sent; the next one may be in %v", e.Wait.Round(time.Millisecond))
}

// senders counts what each sender sent, as a bucket of tokens each.
type senders struct {
	limits Limits
	now    func() time.Time

	mu      sync.Mutex
	buckets map[string]time.Time // when each is full again; a full one is not kept
}

func newSenders(l Limits, now func() time.Time) *senders {
	if l.Burst == 0 {
		l.Burst = defaultBurst
	}
	if l.Every == 0 {
		l.Every = defaultEvery
	}
	return &senders{limits: l, now: now, buckets: map[string]time.Time{}}
}

// take counts one more of a sender, or says how long he has to wait.
func (s *senders) take(id string) error {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.buckets[id]
	if full.Before(now) {
		full = now
	}
	next := full.Add(s.limits.Every)
	if over := next.Sub(now) - time.Duration(s.limits.Burst)*s.limits.Every; over > 0 {
		wait := &WaitError{over}
		return &muster.Error{Kind: muster.Busy, Msg: wait.Error(), Err: wait}
	}
	if len(s.buckets) >= maxSenders {
		s.forget(now)
	}
	s.buckets[id] = next
	return nil
}

// forget drops full buckets, and any one when there is none. It is called with the lock held.
func (s *senders) forget(now time.Time) {
	for id, full := range s.buckets {
		if full.Before(now) {
			delete(s.buckets, id)
		}
	}
	for id := range s.buckets {
		if len(s.buckets) < maxSenders {
			return
		}
		delete(s.buckets, id)
	}
}
