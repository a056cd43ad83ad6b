package devices

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"muster"
)

const (
	// expiryStep is the longest RunExpiry waits while anything has an expiry: by then it
	// has noticed that the clock was set.
	expiryStep = time.Minute
	// sweepBatch is the most expired credentials that are handled at once.
	sweepBatch = 1000
)

// expiries are the credentials that expire, first that which does so first. There are
// no more than credentials.
type expiries struct {
	mu   sync.Mutex
	list byExpiry
	wake chan struct{} // holds one signal: something expires sooner than was known
}

// byExpiry is a heap.Interface.
type byExpiry []*held

func (l byExpiry) Len() int           { return len(l) }
func (l byExpiry) Less(i, j int) bool { return l[i].Expires < l[j].Expires }
func (l byExpiry) Swap(i, j int)      { l[i], l[j] = l[j], l[i]; l[i].slot, l[j].slot = i, j }

// Push implements heap.Interface.
func (l *byExpiry) Push(x any) {
	h := x.(*held) //nolint:forcetypeassert // nothing else is pushed
	h.slot = len(*l)
	*l = append(*l, h)
}

// Pop implements heap.Interface.
func (l *byExpiry) Pop() any {
	old := *l
	h := old[len(old)-1]
	old[len(old)-1] = nil
	h.slot, *l = -1, old[:len(old)-1]
	return h
}

// set has h expire in time, when it expires at all.
func (x *expiries) set(h *held) {
	if h.Expires == 0 {
		return
	}
	x.mu.Lock()
	heap.Push(&x.list, h)
	first := x.list[0] == h
	x.mu.Unlock()
	if !first {
		return
	}
	select {
	case x.wake <- struct{}{}:
	default: // a signal that waits already is enough
	}
}

func (x *expiries) remove(h *held) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if h.slot >= 0 {
		heap.Remove(&x.list, h.slot)
	}
}

// due takes out what has expired, at most sweepBatch, and returns it with the time
// until the next does.
func (x *expiries) due(at muster.Micros) (gone []*held, wait time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.list) > 0 && x.list[0].Expires <= at {
		if len(gone) == sweepBatch {
			return gone, 0
		}
		gone = append(gone, heap.Pop(&x.list).(*held)) //nolint:forcetypeassert // nothing else is in it
	}
	if len(x.list) == 0 {
		return gone, time.Hour // a change wakes the loop
	}
	return gone, min(expiryStep, time.Duration(x.list[0].Expires-at)*time.Microsecond)
}

// RunExpiry reports credentials to OnRights when they expire, until ctx ends, and
// forgets the keys of CAs that have. What is expired is refused without it: it is for
// the connections that are open.
func (r *Registry) RunExpiry(ctx context.Context) error {
	for {
		wait := r.sweep(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.expiry.wake:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (r *Registry) sweep(ctx context.Context) (wait time.Duration) {
	gone, wait := r.expiry.due(muster.MicrosOf(r.now()))
	if len(gone) == 0 {
		return wait
	}
	type login struct {
		device     muster.DeviceID
		credential string
	}
	over := make(map[login]struct{}, len(gone))
	ids := make([]muster.DeviceID, len(gone))
	var learned []*held
	for i, h := range gone {
		over[login{h.Device, h.ID}] = struct{}{}
		ids[i] = h.Device
		if h.CA != "" {
			learned = append(learned, h)
		}
	}
	r.onRights(func(device muster.DeviceID, credential string) bool {
		_, ok := over[login{device, credential}]
		return ok
	})
	if err := r.dropAll(ctx, learned); err != nil {
		r.log.Warn("expired certificates are still listed", "err", err)
	}
	r.watch.changed(ids)
	return wait
}
