package ws

import (
	"net"
	"sync"
	"time"
)

// What a client may send beside content. An honest one pays 2 to 14 bytes of header
// and mask for a frame, which its content earns; what comes on top is pings.
const (
	tollBurst = 16 << 10 // bytes
	tollRate  = 1 << 10  // bytes a second: 170 empty pings, or seven of the longest
	tollEarn  = 8        // bytes for one of content, so that frames of one byte pay for themselves
)

// toll limits the bytes that carry no content: pings, pongs, empty messages and empty
// fragments, which the reader of a WebSocket never sees and could not limit. Only the
// reading goroutine uses it.
type toll struct {
	left   int // bytes
	filled time.Time
	now    func() time.Time
}

// take notes n bytes from the wire.
func (t *toll) take(n int) { t.left -= n }

// pay notes n bytes of content.
func (t *toll) pay(n int) { t.left = min(t.left+n*(1+tollEarn), tollBurst) }

// over says whether more was taken than content and time allow.
func (t *toll) over() bool {
	if t.left >= 0 {
		return false
	}
	now := t.now()
	gone := max(min(now.Sub(t.filled), tollBurst/tollRate*time.Second), 0)
	t.left = min(t.left+int(gone*tollRate/time.Second), tollBurst)
	t.filled = now
	return t.left < 0
}

// socket is the connection below a WebSocket. It counts what is read, and joins the
// write deadlines of the caller, which the library would neither take from another
// goroutine nor apply to a Write under way, with those of the library's own frames.
type socket struct {
	net.Conn
	toll toll

	mu      sync.Mutex
	callers time.Time
	frames  time.Time
}

// Read is called when all that came before has been used.
func (s *socket) Read(p []byte) (int, error) {
	if s.toll.over() {
		return 0, errEmpty
	}
	n, err := s.Conn.Read(p)
	s.toll.take(n)
	return n, err
}

// SetWriteDeadline is called by the library before each frame.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = t
	return s.apply()
}

func (s *socket) setCallers(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callers = t
	return s.apply()
}

// apply sets the earlier deadline. Setting one is no I/O.
func (s *socket) apply() error {
	t := s.callers
	if t.IsZero() || !s.frames.IsZero() && s.frames.Before(t) {
		t = s.frames
	}
	return s.Conn.SetWriteDeadline(t)
}
