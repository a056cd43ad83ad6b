package trail

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"muster"
)

// The pace of keeping within bounds: small steps, so that the store's one writer is
// never held up.
const (
	trimEvery   = time.Second
	trimDevices = 50 // in one step
	expireEvery = time.Minute
	expireRows  = 500         // in one transaction
	expireSteps = 200         // in a row
	trimTimeout = time.Minute // for one step of either
	maxCounted  = 100_000     // devices whose rows are counted; over it they are counted anew
)

// trimmer keeps at most keep rows of each device, and slack more until it comes to it.
type trimmer struct {
	keep, slack int
	trim        func(ctx context.Context, device muster.DeviceID, keep int) (left int, err error)
	expire      func(ctx context.Context, limit int) (n int, err error)
	log         *slog.Logger

	mu   sync.Mutex
	room map[muster.DeviceID]int      // how many more fit; a device that is not in it has slack
	due  map[muster.DeviceID]struct{} // those with no room
}

func (t *trimmer) init() {
	t.room, t.due = map[muster.DeviceID]int{}, map[muster.DeviceID]struct{}{}
}

// added counts n rows that were stored of device.
func (t *trimmer) added(device muster.DeviceID, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	room, ok := t.room[device]
	if !ok {
		if len(t.room) >= maxCounted {
			clear(t.room)
		}
		room = t.slack
	}
	t.room[device] = room - n
	if room <= n {
		t.due[device] = struct{}{}
	}
}

// run is the loop that trims and expires.
func (t *trimmer) run(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%int(expireEvery/trimEvery) == 0 {
			t.expireOld(ctx)
		}
		t.trimDue(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *trimmer) trimDue(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	for _, id := range t.someDue() {
		left, err := t.trim(ctx, id, t.keep)
		if err != nil {
			t.said(ctx, err)
			return // they stay due
		}
		t.trimmed(id, left)
	}
}

func (t *trimmer) someDue() (ids []muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.due {
		if len(ids) == trimDevices {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

func (t *trimmer) trimmed(id muster.DeviceID, left int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.due, id)
	t.room[id] = max(t.keep+t.slack-left, 1)
}

func (t *trimmer) expireOld(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	for range expireSteps {
		n, err := t.expire(ctx, expireRows)
		if err != nil {
			t.said(ctx, err)
			return
		}
		if n < expireRows {
			return
		}
	}
}

// said logs err, unless it is that the server stops.
func (t *trimmer) said(ctx context.Context, err error) {
	if ctx.Err() == nil {
		t.log.Warn("what is old of events and logs cannot be deleted now", "err", err)
	}
}
