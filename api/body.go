package api

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"muster"
)

// bodies are those that are being read, bounded in memory: what comes beyond the
// bounds is refused as Busy, so that no crowd of writers takes the machine.
type bodies struct {
	mu    sync.Mutex
	ended bool
	open  map[*openBody]struct{}
	taken int64            // bytes that they may hold at once
	of    map[string]int64 // the same, by principal
}

const (
	maxBodies   = 128 << 20 // bytes of memory of all bodies
	maxBodiesOf = maxBodies / 2
)

// openBody is a body whose bytes must keep coming.
type openBody struct {
	all     *bodies
	who     string
	size    int64
	until   time.Time // when all of it must be there
	body    io.Reader
	control *http.ResponseController

	mu    sync.Mutex
	ended error // why no more is read
}

// take takes the body of r, which comes within limit and of which up to size bytes will
// be in memory at once.
func (s *bodies) take(w http.ResponseWriter, r *http.Request, who string, size int64, limit time.Duration) (*openBody, error) {
	st := &openBody{all: s, who: who, size: size, until: time.Now().Add(limit), body: r.Body, control: http.NewResponseController(w)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil, errStops()
	case s.taken+size > maxBodies || s.of[who]+size > maxBodiesOf:
		return nil, muster.Errorf(muster.Busy, "too much is being written at once")
	}
	if s.open == nil {
		s.open, s.of = map[*openBody]struct{}{}, map[string]int64{}
	}
	s.open[st] = struct{}{}
	s.taken += size
	s.of[who] += size
	return st, nil
}

func errStops() error { return muster.Errorf(muster.Unavailable, "the server is stopping") }

// end breaks off every body that is being read, and refuses further ones: what was taken
// of them is answered.
func (s *bodies) end() {
	s.mu.Lock()
	s.ended = true
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	for _, b := range open {
		b.end(errStops())
	}
}

// close gives the body's room back.
func (st *openBody) close() {
	st.end(errStops())
	s := st.all
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, st)
	s.taken -= st.size
	if s.of[st.who] -= st.size; s.of[st.who] == 0 {
		delete(s.of, st.who)
	}
}

// end has nothing more read, a read that waits included.
func (st *openBody) end(why error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended == nil {
		st.ended = why
		_ = st.control.SetReadDeadline(time.Unix(1, 0)) // a test's recorder has none
	}
}

// Read reads on; it waits for the next bytes for readStall at most.
func (st *openBody) Read(b []byte) (int, error) {
	if err := st.wait(); err != nil {
		return 0, err
	}
	n, err := st.body.Read(b)
	if err == nil {
		return n, nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.ended != nil:
		err = st.ended
	case errors.Is(err, os.ErrDeadlineExceeded):
		st.ended = muster.Errorf(muster.Timeout, "the body came too slowly")
		err = st.ended
	default: // a deadline that fires later would end the request
		st.ended = err
		_ = st.control.SetReadDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // a reader in the middle: io.EOF must stay itself
}

// What is read of a body after its answer, so that a client that is still sending sees the
// answer and not a connection that was reset.
const (
	drainBytes = 64 << 20
	drainTime  = 2 * time.Second
)

// drain reads what is left of the body for a while, and throws it away.
func (st *openBody) drain() {
	st.mu.Lock()
	left := st.ended == nil
	if left {
		_ = st.control.SetReadDeadline(time.Now().Add(drainTime))
	}
	st.mu.Unlock()
	if left {
		_ = st.control.Flush()
		_, _ = io.CopyN(io.Discard, st.body, drainBytes) // whatever ends it
	}
}

// wait sets the deadline of the next read, unless the body has ended.
func (st *openBody) wait() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended == nil {
		next := time.Now().Add(readStall)
		if next.After(st.until) {
			next = st.until
		}
		_ = st.control.SetReadDeadline(next)
	}
	return st.ended
}

// bounded ends a body that is too large.
type bounded struct {
	r           io.Reader
	left, limit int64
}

func (l *bounded) Read(b []byte) (int, error) {
	if l.left <= 0 { // is there more?
		n, err := l.r.Read(make([]byte, 1))
		if n == 0 {
			return 0, err //nolint:wrapcheck // a reader in the middle
		}
		return 0, errTooLarge(l.limit)
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	return n, err //nolint:wrapcheck // a reader in the middle
}

func errTooLarge(limit int64) error {
	return muster.Errorf(muster.TooLarge, "the body is larger than %d bytes", limit)
}
