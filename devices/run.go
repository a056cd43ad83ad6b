package devices

import (
	"context"
	"fmt"
	"slices"
	"time"

	"muster"
)

const (
	flushEvery   = 2 * time.Second
	flushBatch   = 1000 // rows in one SavePresence
	flushTimeout = 5 * time.Second
	// backWithin is how long a device that was online before a restart may take to
	// come back before it counts as offline.
	backWithin = 30 * time.Second
)

// Run writes changed presence to the store every 2 s, and declares offline what
// has not come back 30 s after a restart, until ctx ends; then it writes what is
// left, in at most 5 s. What the store refuses is tried again at the next turn.
// last_seen is written with the other changes, not for its own sake.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.expireUnknown()
			if err := r.flush(ctx); err != nil && ctx.Err() == nil {
				r.log.Warn("presence is not saved, trying again", "err", err)
			}
		case <-ctx.Done():
			return r.lastFlush(context.WithoutCancel(ctx))
		}
	}
}

func (r *Registry) lastFlush(ctx context.Context) error {
	c, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.flush(c); err != nil {
		return fmt.Errorf("save presence at stop: %w", err)
	}
	return nil
}

// flush saves every row that was dirty when it began, in batches, and stops at
// the first that fails.
func (r *Registry) flush(ctx context.Context) error {
	for ids := range slices.Chunk(r.presence.takeDirty(), flushBatch) {
		if err := r.saveRows(ctx, ids); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) saveRows(ctx context.Context, ids []muster.DeviceID) error {
	r.presence.clean(ids) // before they are read: a change from here on is for the next flush
	saved := false
	defer func() {
		if !saved {
			r.presence.soil(ids)
		}
	}()
	rows := make([]PresenceRow, 0, len(ids))
	for _, id := range ids {
		if p, ok := r.Presence(id); ok {
			rows = append(rows, PresenceRow{Device: id, Presence: p})
		}
	}
	c, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.store.SavePresence(c, rows); err != nil {
		return fmt.Errorf("save %d presence rows: %w", len(rows), err)
	}
	saved = true
	return nil
}

func (t *tracker) clean(ids []muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		delete(t.dirty, id)
	}
}

// soil has ids saved again, those that still exist.
func (t *tracker) soil(ids []muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if _, ok := t.rows[id]; ok {
			t.dirty[id] = struct{}{}
		}
	}
}

// takeDirty returns the ids that need saving, in order.
func (t *tracker) takeDirty() []muster.DeviceID {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]muster.DeviceID, 0, len(t.dirty))
	for id := range t.dirty {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (r *Registry) expireUnknown() {
	gone := r.presence.expireUnknown(muster.MicrosOf(r.now()))
	for ids := range slices.Chunk(gone, flushBatch) {
		r.watch.changed(ids)
	}
}

func (t *tracker) expireUnknown(at muster.Micros) []muster.DeviceID {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.waiting || at < t.since+muster.Micros(backWithin.Microseconds()) {
		return nil
	}
	t.waiting = false
	var gone []muster.DeviceID
	for id, p := range t.rows {
		if p.State == muster.PresenceUnknown {
			t.set(id, p, muster.PresenceOffline, at, reasonNotBack)
			gone = append(gone, id)
		}
	}
	return gone
}
