package broker

import "sync"

// settler is what is told when a message has been decided and routed.
type settler interface {
	settle(k *kicks, token uint64, err error)
}

// bundle is one PUBLISH that means several messages: it is acknowledged when all are
// decided, with the worst that became of them. Tokens of its messages count from 0.
type bundle struct {
	c     *conn
	token uint64

	mu    sync.Mutex
	parts []part
	left  int
	worst error
}

// part is one of a bundle's messages.
type part struct {
	copy *message // goes to subscribers once it is kept; nil when nobody wants it
	done bool
}

func newBundle(c *conn, token uint64, n int) *bundle {
	return &bundle{c: c, token: token, parts: make([]part, n), left: n}
}

// Acked implements Acker.
func (x *bundle) Acked(i uint64, err error) {
	if err == nil {
		if m := x.take(i); m != nil {
			x.c.b.deliverLater(copied{m, x, i})
			return
		}
	}
	x.settle(nil, i, err)
}

func (x *bundle) take(i uint64) (m *message) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i < uint64(len(x.parts)) {
		m, x.parts[i].copy = x.parts[i].copy, nil
	}
	return m
}

// settle notes what became of a message. The last one settles the PUBLISH.
func (x *bundle) settle(k *kicks, i uint64, err error) {
	x.mu.Lock()
	if i >= uint64(len(x.parts)) || x.parts[i].done {
		x.mu.Unlock()
		return
	}
	x.parts[i].done = true
	if weight(err) > weight(x.worst) {
		x.worst = err
	}
	x.left--
	last, worst := x.left == 0, x.worst
	x.mu.Unlock()
	if last {
		x.c.settle(k, x.token, worst)
	}
}

// weight orders what may become of a message: kept, refused for good, refused for now.
func weight(err error) int {
	switch {
	case err == nil:
		return 0
	case forNow(err):
		return 2
	}
	return 1
}
