package live

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

// writersWait is how often it is looked whether writers get on.
const writersWait = 50 * time.Millisecond

// maxUrgent is how many of those who have news of their inbox are written to at a time.
const maxUrgent = 128

// writers write what there is for the clients: few goroutines go from one to the next, so that
// hundreds of viewers do not take the processor from those who send, and no stack grows anew for
// each. Who does not read holds up one of them; when none has got on for a while all hang in such
// writes, and are not counted any more: each ends with the client that it hangs at.
type writers struct {
	most int
	life *sync.WaitGroup

	mu      sync.Mutex
	queue   []*client // each once, while it has flushing set
	next    int       // of queue
	running int
	shift   uint64 // those that began in an earlier one are not counted
	taken   uint64 // clients, ever
	seen    uint64 // of taken, at the last look
}

// add has c flushed. It does not wait.
func (w *writers) add(c *client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next > len(w.queue)/2 { // a queue that is never empty must not grow for ever
		w.queue, w.next = slices.Delete(w.queue, 0, w.next), 0
	}
	w.queue = append(w.queue, c)
	if w.running < w.most {
		w.start()
	}
}

// start is called with the lock held, by who is counted in life or has a client that is.
func (w *writers) start() {
	w.running++
	shift := w.shift
	w.life.Go(func() {
		for c := w.take(shift); c != nil; c = w.take(shift) {
			c.flush()
			runtime.Gosched() // who acknowledges messages does not wait for all viewers
		}
	})
}

// take returns who is next; nil when the writer is to end.
func (w *writers) take(shift uint64) *client {
	w.mu.Lock()
	defer w.mu.Unlock()
	if shift != w.shift {
		return nil
	}
	if w.next == len(w.queue) {
		w.queue, w.next = w.queue[:0], 0
		w.running--
		return nil
	}
	c := w.queue[w.next]
	w.queue[w.next] = nil
	w.next++
	w.taken++
	return c
}

// relieve starts others in the place of writers of whom none has got on since the call before.
func (w *writers) relieve() {
	w.mu.Lock()
	defer w.mu.Unlock()
	stuck := w.next < len(w.queue) && w.taken == w.seen
	w.seen = w.taken
	if !stuck {
		return
	}
	w.shift++
	w.running = 0
	for range min(w.most, len(w.queue)-w.next) {
		w.start()
	}
}
