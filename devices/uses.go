package devices

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"muster"
)

const (
	// usesEvery is how often it is saved when credentials were last used.
	usesEvery = 30 * time.Second
	// usesBatch is the most credentials in one transaction.
	usesBatch = 1000
	// usesTimeout bounds the last save.
	usesTimeout = 5 * time.Second
)

// uses are the credentials that were used, or came by a CA, since they were saved.
// There are no more than credentials.
type uses struct {
	mu    sync.Mutex
	dirty map[*held]struct{}
}

// note says that h let a client in.
func (u *uses) note(h *held, at muster.Micros) {
	h.used.Store(int64(at))
	u.soil(h)
}

// soil has h saved.
func (u *uses) soil(h *held) {
	if h.dirty.Swap(true) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dirty[h] = struct{}{}
}

// forget has h not saved.
func (u *uses) forget(h *held) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.dirty, h)
}

// take returns what is to be saved. What is used from here on is for the next time.
func (u *uses) take() []*held {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]*held, 0, len(u.dirty))
	for h := range u.dirty {
		h.dirty.Store(false)
		out = append(out, h)
	}
	clear(u.dirty)
	return out
}

// RunUses saves every 30 s, and once more when ctx ends, when credentials were last
// used and which keys came by a CA. After a crash the last of it is not known, and a key
// is learned again.
func (r *Registry) RunUses(ctx context.Context) error {
	tick := time.NewTicker(usesEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := r.saveUses(ctx); err != nil && ctx.Err() == nil {
				r.log.Warn("the use of credentials is not saved, trying again", "err", err)
			}
		case <-ctx.Done():
			return r.lastUses(context.WithoutCancel(ctx))
		}
	}
}

func (r *Registry) lastUses(ctx context.Context) error {
	c, cancel := context.WithTimeout(ctx, usesTimeout)
	defer cancel()
	if err := r.saveUses(c); err != nil {
		return fmt.Errorf("save the use of credentials at stop: %w", err)
	}
	return nil
}

func (r *Registry) saveUses(ctx context.Context) error {
	all := r.uses.take()
	for i := 0; i < len(all); i += usesBatch {
		batch := all[i:min(i+usesBatch, len(all))]
		if err := r.change(ctx, func(ctx context.Context) error { return r.saveBatch(ctx, batch) }); err != nil {
			for _, h := range all[i:] {
				r.uses.soil(h)
			}
			return err
		}
	}
	return nil
}

// saveBatch is called in turn, so that nothing that goes meanwhile comes back.
func (r *Registry) saveBatch(ctx context.Context, batch []*held) error {
	rows := make([]Credential, 0, len(batch))
	r.mu.RLock()
	for _, h := range batch {
		if e := r.byID[h.Device]; e != nil && slices.Contains(e.creds, h) {
			rows = append(rows, h.snapshot())
		}
	}
	r.mu.RUnlock()
	if len(rows) == 0 {
		return nil
	}
	if err := r.store.SaveCredentials(ctx, rows); err != nil {
		return fmt.Errorf("save %d credentials: %w", len(rows), err)
	}
	return nil
}
