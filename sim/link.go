package sim

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// link is one connection of a device. All but stop belongs to the device's own
// goroutine.
type link struct {
	conn net.Conn
	buf  []byte // what was read and not yet taken
	fill [512]byte

	mu      sync.Mutex
	stopped bool // reads return at once, writes within stopGrace
}

const (
	writeTimeout = 10 * time.Second // for a batch of at most one window
	stopGrace    = time.Second
)

func newLink(conn net.Conn) *link { return &link{conn: conn} }

// stop makes the pending and every later read return at once.
func (l *link) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	// A socket that refuses a deadline is closed or broken: the read fails anyway.
	_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	_ = l.conn.SetWriteDeadline(time.Now().Add(stopGrace))
}

func (l *link) setReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil
	}
	return l.conn.SetReadDeadline(t)
}

func (l *link) setWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil
	}
	return l.conn.SetWriteDeadline(t)
}

func (l *link) write(b []byte) error {
	if err := l.setWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// read waits until deadline for more bytes. An error that is
// os.ErrDeadlineExceeded leaves the link usable.
func (l *link) read(deadline time.Time) error {
	if err := l.setReadDeadline(deadline); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	n := copy(l.fill[:], l.buf) // at most a part of one short packet
	m, err := l.conn.Read(l.fill[n:])
	l.buf = l.fill[:n+m]
	if err == io.EOF { //nolint:errorlint // net.Conn returns io.EOF itself
		return fmt.Errorf("the server closed the connection: %w", io.EOF)
	}
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// next takes the first whole packet that was read.
func (l *link) next() (answer, bool, error) {
	a, rest, ok, err := nextAnswer(l.buf)
	l.buf = rest
	return a, ok, err
}
