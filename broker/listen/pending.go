package listen

import (
	"container/list"
	"net"
	"sync"
)

// pending holds the connections whose handshakes are under way, oldest first. It
// has a bound; over it the oldest goes, because an honest handshake is soon over
// and one that is held open on purpose is old.
type pending struct {
	max int

	mu     sync.Mutex
	order  list.List // of *waiting
	closed bool
}

// waiting is one connection in pending.
type waiting struct {
	nc   net.Conn
	at   *list.Element
	fate fate
}

// fate says why a connection is no longer pending.
type fate uint8

const (
	fatePending fate = iota
	fateReady        // it was handed over, or failed by itself
	fateDisplaced
	fateStopped
)

// add takes nc in, and returns the connection that has to go for it, if one has.
// It returns nil after close.
func (p *pending) add(nc net.Conn) (w *waiting, out net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	w = &waiting{nc: nc}
	w.at = p.order.PushBack(w)
	if p.order.Len() > p.max {
		old, _ := p.order.Remove(p.order.Front()).(*waiting)
		old.fate = fateDisplaced
		out = old.nc
	}
	return w, out
}

// finish takes w out. It returns fateReady if w was still in.
func (p *pending) finish(w *waiting) fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.fate == fatePending {
		w.fate = fateReady
		p.order.Remove(w.at)
	}
	return w.fate
}

// close takes all out and returns them, to be closed.
func (p *pending) close() []net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	all := make([]net.Conn, 0, p.order.Len())
	for e := p.order.Front(); e != nil; e = e.Next() {
		w, _ := e.Value.(*waiting)
		w.fate = fateStopped
		all = append(all, w.nc)
	}
	p.order.Init()
	return all
}
