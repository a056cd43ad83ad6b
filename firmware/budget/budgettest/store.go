package budgettest

import (
	"context"
	"sync"

	"muster"
	"muster/firmware/budget"
)

// Store is a budget.Store, which can be away. The zero Store is empty. It is safe for concurrent use.
type Store struct {
	mu       sync.Mutex
	away     bool
	reserved map[budget.Key]int64
}

// KeepBudgets implements budget.Store: Unavailable while it is away.
func (s *Store) KeepBudgets(_ context.Context, back, claims []budget.Claim) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, muster.Errorf(muster.Unavailable, "the store is away")
	}
	if s.reserved == nil {
		s.reserved = map[budget.Key]int64{}
	}
	for _, n := range back {
		s.reserved[n.Key] -= n.Bytes
	}
	got := make([]int64, len(claims))
	for i, n := range claims {
		got[i] = max(min(n.Bytes, n.All-s.reserved[n.Key]), 0)
		s.reserved[n.Key] += got[i]
	}
	return got, nil
}

// Away has the store answer nobody, or everybody again.
func (s *Store) Away(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = is
}

// Reserved returns how many bytes of a key are.
func (s *Store) Reserved(k budget.Key) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserved[k]
}
