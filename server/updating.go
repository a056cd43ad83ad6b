package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/devices"
	"muster/firmware/rollout"
)

const (
	updatingBatch   = 500 // devices that are asked about at once
	updatingRetry   = time.Second
	updatingEvery   = time.Minute // between two looks at all: another process may have decided
	updatingTimeout = 10 * time.Second
)

// updatingStore says which devices update, as store/control does.
type updatingStore interface {
	Updating(ctx context.Context, ids []muster.DeviceID) (map[muster.DeviceID]struct{}, error)
	AllUpdating(ctx context.Context) (map[muster.DeviceID]struct{}, error)
}

// updating tells the registry at which devices a firmware action is under way. Commits may be told in another order
// than they were made in: what changed is only noted, and one loop reads what is so.
type updating struct {
	store    updatingStore
	registry *devices.Registry
	log      *slog.Logger
	wake     chan struct{} // holds one; more means the same

	mu      sync.Mutex
	changed map[muster.DeviceID]struct{} // to be asked about; of more than mostComing all are
	all     bool
}

func newUpdating(store updatingStore, registry *devices.Registry, log *slog.Logger) *updating {
	return &updating{store: store, registry: registry, log: log, wake: make(chan struct{}, 1), changed: map[muster.DeviceID]struct{}{}}
}

// load tells of all devices before anybody can ask.
func (u *updating) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, updatingTimeout)
	defer cancel()
	is, err := u.store.AllUpdating(ctx)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	u.registry.SetAllUpdating(within(is))
	return nil
}

// told is called with what was committed. It does not wait.
func (u *updating) told(changes []rollout.Change) {
	u.mu.Lock()
	for i := range changes {
		if c := &changes[i]; c.Event == rollout.Park || c.Event == rollout.Unpark || busy(c.From) != busy(c.To) {
			u.note(c.Device)
		}
	}
	news := u.all || len(u.changed) > 0
	u.mu.Unlock()
	if news {
		u.kick()
	}
}

// note is called with mu held.
func (u *updating) note(id muster.DeviceID) {
	if u.all = u.all || len(u.changed) >= mostComing; u.all {
		return
	}
	u.changed[id] = struct{}{}
}

func (u *updating) kick() {
	select {
	case u.wake <- struct{}{}:
	default: // it will look
	}
}

// busy says whether a device in s may be updating.
func busy(s rollout.State) bool { return s.InFlight() && s != rollout.Offered }

// run tells of what changed until ctx ends.
func (u *updating) run(ctx context.Context) error {
	every, retry := time.NewTicker(updatingEvery), time.NewTicker(updatingRetry)
	defer every.Stop()
	defer retry.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
		case <-retry.C:
			if !failed {
				continue
			}
		case <-every.C:
			u.mu.Lock()
			u.all = true
			u.mu.Unlock()
		}
		err := u.look(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			u.log.Warn("which devices update is not known, trying again", "err", err)
		}
		failed = err != nil
	}
}

// look reads what is so of all that was noted. What it could not read stays noted.
func (u *updating) look(ctx context.Context) error {
	u.mu.Lock()
	changed, all := u.changed, u.all
	u.changed, u.all = map[muster.DeviceID]struct{}{}, false
	u.mu.Unlock()
	if all {
		if err := u.load(ctx); err != nil {
			u.again(nil)
			return fmt.Errorf("look at all devices: %w", err)
		}
		return nil
	}
	ids := make([]muster.DeviceID, 0, len(changed))
	for id := range changed {
		ids = append(ids, id)
	}
	for from := 0; from < len(ids); from += updatingBatch {
		part := ids[from:min(from+updatingBatch, len(ids))]
		if err := u.ask(ctx, part); err != nil {
			u.again(ids[from:])
			return fmt.Errorf("look at %d devices: %w", len(part), err)
		}
	}
	return nil
}

func (u *updating) ask(ctx context.Context, ids []muster.DeviceID) error {
	ctx, cancel := context.WithTimeout(ctx, updatingTimeout)
	defer cancel()
	is, err := u.store.Updating(ctx, ids)
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	u.registry.SetUpdating(ids, within(is))
	return nil
}

// again notes devices that could not be asked about; nil for all.
func (u *updating) again(ids []muster.DeviceID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = u.all || ids == nil
	for id := range slices.Values(ids) {
		u.note(id)
	}
}

func within(set map[muster.DeviceID]struct{}) func(muster.DeviceID) bool {
	return func(id muster.DeviceID) bool {
		_, is := set[id]
		return is
	}
}
