package deliver

import (
	"crypto/sha256"
	"sync"
	"time"

	"muster"
)

// image names what is fetched.
type image struct {
	device muster.DeviceID
	action int64
	digest [sha256.Size]byte
}

// leave is that an action goes on.
type leave struct {
	until   time.Time // when it must be asked for again
	release int64     // bytes
}

// leaves remember for which images it was asked a moment ago whether the action goes on. There are
// at most most of them: then the half that was not used longest is forgotten. It is safe for concurrent use.
type leaves struct {
	most       int
	mu         sync.Mutex
	young, old map[image]leave
}

func newLeaves(most int) *leaves {
	return &leaves{most: most, young: map[image]leave{}, old: map[image]leave{}}
}

// look returns what is known of k.
func (l *leaves) look(k image) leave {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.young[k]; ok {
		return at
	}
	return l.old[k]
}

// put remembers a leave.
func (l *leaves) put(k image, at leave) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.young[k]; !ok && len(l.young) >= max(l.most/2, 1) {
		l.old, l.young = l.young, map[image]leave{}
	}
	l.young[k] = at
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
