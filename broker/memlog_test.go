package broker

import (
	"bytes"
	"context"
	"sync"

	"muster"
)

// memLog is a log in memory: what was answered survives the broker that wrote it.
type memLog struct {
	mu     sync.Mutex
	first  uint64
	frames [][]byte
	last   string
	broken error
}

func newMemLog() *memLog { return &memLog{first: 1} }

func (l *memLog) Append(_ context.Context, id string, frame []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return 0, l.broken
	}
	if id != l.last {
		l.last = id
		l.frames = append(l.frames, bytes.Clone(frame))
	}
	return l.first + uint64(len(l.frames)) - 1, nil
}

func (l *memLog) Read(_ context.Context, seq uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.first || seq >= l.first+uint64(len(l.frames)) {
		return nil, muster.Errorf(muster.NotFound, "no frame %d", seq)
	}
	return bytes.Clone(l.frames[seq-l.first]), nil
}

func (l *memLog) Bounds(context.Context) (first, last uint64, size, limit int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.frames {
		size += int64(len(f))
	}
	return l.first, l.first + uint64(len(l.frames)) - 1, size, 0, nil
}

func (l *memLog) Purge(_ context.Context, seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.first <= seq && len(l.frames) > 0 {
		l.frames = l.frames[1:]
		l.first++
	}
	return nil
}

func (l *memLog) breakWith(err error) {
	l.mu.Lock()
	l.broken = err
	l.mu.Unlock()
}
