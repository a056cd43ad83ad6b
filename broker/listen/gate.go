package listen

import (
	"errors"
	"net"
	"os"
	"time"
)

var errStopped = errors.New("the listener was closed")

// gate is the socket below a TLS connection. During the handshake it gives its turn
// back whenever it waits for the network, so that a client that stalls keeps no
// other from computing; afterwards it is the socket alone.
type gate struct {
	*net.TCPConn
	turn *turn // nil after the handshake
}

func (g *gate) Read(p []byte) (int, error) {
	if g.turn == nil {
		return g.TCPConn.Read(p)
	}
	return g.turn.without(g.TCPConn.Read, p)
}

func (g *gate) Write(p []byte) (int, error) {
	if g.turn == nil {
		return g.TCPConn.Write(p)
	}
	return g.turn.without(g.TCPConn.Write, p)
}

// turn is the right of one handshake to compute. One goroutine uses it.
type turn struct {
	slots    chan struct{}
	deadline time.Time
	done     <-chan struct{}
	held     bool
}

// enter waits for a turn: first come, first served, until the deadline.
func (t *turn) enter() error {
	select {
	case t.slots <- struct{}{}:
		t.held = true
		return nil
	default:
	}
	timer := time.NewTimer(time.Until(t.deadline))
	defer timer.Stop()
	select {
	case t.slots <- struct{}{}:
		t.held = true
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	case <-t.done:
		return errStopped
	}
}

// leave gives the turn back, when it is held.
func (t *turn) leave() {
	if t.held {
		t.held = false
		<-t.slots
	}
}

// during calls do in its turn, and gives the turn back even when do panics.
func (t *turn) during(do func() error) error {
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	return do()
}

// without moves bytes while others have the turn, and takes it again.
func (t *turn) without(move func([]byte) (int, error), p []byte) (int, error) {
	t.leave()
	n, err := move(p)
	if err != nil {
		return n, err
	}
	return n, t.enter()
}
