package devices

import (
	"context"

	"muster"
)

const (
	// maxTransitions is how many transitions wait to be told one by one. Beyond that
	// the last one of a device takes in what comes after it (From stays), so that at
	// most one more per device waits.
	maxTransitions = 1 << 17
	eventBatch     = 1000 // in one call of OnPresence or a watcher
)

// events is what others are to be told of, guarded by tracker.mu.
type events struct {
	queue   []Transition
	over    map[*track]int // beyond maxTransitions: where a device's last one is
	touched []*track       // whose presence or connection changed; each once
	wake    chan struct{}  // holds one; more means the same
}

func (e *events) add(p *track, tr Transition) {
	e.touch(p)
	if i, ok := e.over[p]; ok {
		last := &e.queue[i]
		last.To, last.At, last.Reason = tr.To, tr.At, tr.Reason
		return
	}
	e.queue = append(e.queue, tr)
	if len(e.queue) > maxTransitions {
		if e.over == nil {
			e.over = map[*track]int{}
		}
		e.over[p] = len(e.queue) - 1
	}
}

func (e *events) touch(p *track) {
	if !p.told {
		p.told = true
		e.touched = append(e.touched, p)
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// takeEvents returns what others are to be told.
func (t *tracker) takeEvents() ([]Transition, []muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	queue, touched := t.events.queue, t.events.touched
	t.events.queue, t.events.over, t.events.touched = nil, nil, nil
	ids := make([]muster.DeviceID, len(touched))
	for i, p := range touched {
		p.told = false
		ids[i] = p.id
	}
	return queue, ids
}

// RunEvents tells the watchers and OnPresence of changed presence until ctx ends, in
// batches and from one goroutine, so that they learn of one device's changes in their
// order. What has changed until then is told before it returns.
func (r *Registry) RunEvents(ctx context.Context) error {
	for {
		select {
		case <-r.presence.events.wake:
			r.deliver()
		case <-ctx.Done():
			r.deliver()
			return nil
		}
	}
}

func (r *Registry) deliver() {
	queue, ids := r.presence.takeEvents()
	for len(ids) > 0 {
		n := min(eventBatch, len(ids))
		r.watch.changed(ids[:n])
		ids = ids[n:]
	}
	if r.onPresence == nil {
		return
	}
	kept := queue[:0]
	for _, tr := range queue {
		if tr.From != tr.To { // taken back before anybody was told
			kept = append(kept, tr)
		}
	}
	for len(kept) > 0 {
		n := min(eventBatch, len(kept))
		r.onPresence(kept[:n:n])
		kept = kept[n:]
	}
}
