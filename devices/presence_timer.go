package devices

import (
	"container/heap"

	"muster"
)

// timers is a heap of the devices that time may change, by when it may at the
// earliest. A message only moves a deadline back, so nobody touches the heap for it:
// when a time has come the device is looked at, and stays until its new time if it
// was heard meanwhile. Each device is in it at most once.
type timers struct{ heap []*track }

func (h *timers) Len() int           { return len(h.heap) }
func (h *timers) Less(i, j int) bool { return h.heap[i].due < h.heap[j].due }

func (h *timers) Swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].timer, h.heap[j].timer = int32(i), int32(j)
}

// Push implements heap.Interface.
func (h *timers) Push(x any) {
	p := x.(*track)
	p.timer = int32(len(h.heap))
	h.heap = append(h.heap, p)
}

// Pop implements heap.Interface.
func (h *timers) Pop() any {
	last := len(h.heap) - 1
	p := h.heap[last]
	h.heap[last] = nil
	h.heap = h.heap[:last]
	p.timer = -1
	return p
}

// put has p looked at when due comes; 0 is never.
func (h *timers) put(p *track, due muster.Micros) {
	switch {
	case due == 0:
		h.remove(p)
	case p.timer < 0:
		p.due = due
		heap.Push(h, p)
	case p.due != due:
		p.due = due
		heap.Fix(h, int(p.timer))
	}
}

func (h *timers) remove(p *track) {
	if p.timer >= 0 {
		heap.Remove(h, int(p.timer))
	}
}

// next returns the device whose time has come first, nil when none has.
func (h *timers) next(now muster.Micros) *track {
	if len(h.heap) == 0 || h.heap[0].due > now {
		return nil
	}
	return h.heap[0]
}

func (t *tracker) arm(p *track) { t.timers.put(p, p.deadline(t.grace, t.boot)) }

// deadline is when time alone changes p's state, 0 for never.
func (p *track) deadline(grace, boot muster.Micros) muster.Micros {
	base := max(p.heard, p.since)
	switch {
	case p.pending():
		return p.ties.ended + grace
	case p.state == unknown && p.link == relayed && p.parent.isUp():
		return max(p.parent.since, boot) + p.patience()
	case p.state == unknown && p.link == byData:
		return boot + p.patience()
	case p.state != online && p.state != quiet:
		return 0
	case p.link == byData:
		return base + p.patience()
	case p.state == online && p.allowance() > 0:
		return base + p.allowance()
	}
	return 0
}

// isDue says whether time alone has changed p's state by now.
func (p *track) isDue(grace, boot, now muster.Micros) bool {
	due := p.deadline(grace, boot)
	return due != 0 && due <= now
}

// timerBatch is how many deadlines are looked at with the lock held once.
const timerBatch = 1000

// expire looks at devices whose time has come, and says whether there may be more.
func (t *tracker) expire(now muster.Micros) (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range timerBatch {
		p := t.timers.next(now)
		if p == nil {
			return false
		}
		due := p.deadline(t.grace, t.boot)
		if !p.isDue(t.grace, t.boot, now) {
			t.timers.put(p, due)
			continue
		}
		if g := p.parent; p.state == unknown && p.link == relayed && g.isDue(t.grace, t.boot, now) {
			p, due = g, g.deadline(t.grace, t.boot) // what it is then counts for the device
		}
		if g := t.lostGateway(p, now); g != nil {
			p = g // takes the device along, with the better reason
		}
		t.timers.remove(p)
		switch {
		case p.pending():
			t.down(p, p.ties.ended, p.ties.endReason)
		case p.state == unknown:
			t.down(p, now, reasonNotBack)
		case p.link == byData:
			t.down(p, due, reasonSilent)
		default:
			t.set(p, quiet, due, reasonSilent)
		}
	}
	return true
}

// shift is for when the clock was set by step, to now: what is waited for from some time
// on is waited for as long as before. What was told keeps its times, unless they are still
// to come.
func (t *tracker) shift(step, now muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	move := func(at *muster.Micros) {
		if *at > 0 {
			*at = max(*at+step, 1)
		}
	}
	move(&t.boot)
	for _, p := range t.list {
		for _, at := range [...]*muster.Micros{&p.heard, &p.stray, &p.rhythm.base, &p.rhythm.calm, &p.rhythm.ended} {
			move(at)
		}
		if p.ties != nil {
			move(&p.ties.ended)
		}
		for _, at := range [...]*muster.Micros{&p.seen, &p.since} {
			if *at > now {
				move(at)
			}
		}
	}
	for _, p := range t.list { // a gateway's times count for its children
		t.arm(p)
	}
}

// lostGateway returns the gateway that p hangs on, itself or in steps, whose grace is
// over too; nil when there is none.
func (t *tracker) lostGateway(p *track, now muster.Micros) *track {
	for ; p.slot >= 0; p = p.parent {
		if g := p.parent; g.pending() && g.ties.ended+t.grace <= now {
			return g
		}
	}
	return nil
}
