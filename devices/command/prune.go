package command

import (
	"context"
	"sync"
	"time"

	"muster"
)

const (
	pruneEvery = time.Minute
	pruneBatch = 500
	// maxTouched bounds the devices that are remembered to be looked at: past it a
	// device is looked at when its next command finishes.
	maxTouched = 100_000
)

// pruneList is the devices of which commands finished since the last look.
type pruneList struct {
	mu      sync.Mutex
	touched map[muster.DeviceID]struct{}
}

func (p *pruneList) touch(device muster.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.touched == nil {
		p.touched = map[muster.DeviceID]struct{}{}
	}
	if len(p.touched) < maxTouched {
		p.touched[device] = struct{}{}
	}
}

func (p *pruneList) take() map[muster.DeviceID]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.touched
	p.touched = nil
	return t
}

// RunPrune deletes what is older than what is kept, every minute and 500 rows at once,
// until ctx ends.
func (c *Commands) RunPrune(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.Prune(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("old commands are not deleted, trying again", "err", err)
			}
		}
	}
}

// Prune deletes what is older than what is kept, and stops at the first error.
func (c *Commands) Prune(ctx context.Context) error {
	now := c.micros()
	for device := range c.prune.take() {
		err := inBatches(ctx, func(ctx context.Context) (int, error) {
			return c.store.PruneDevice(ctx, device, KeepPerDevice, now-micros(KeyFor), pruneBatch)
		})
		if err != nil {
			return err
		}
	}
	err := inBatches(ctx, func(ctx context.Context) (int, error) {
		return c.store.PruneCommands(ctx, now-micros(KeepFor), pruneBatch)
	})
	if err != nil {
		return err
	}
	return inBatches(ctx, func(ctx context.Context) (int, error) {
		return c.store.PruneJobs(ctx, now-micros(KeepJobsFor), KeepJobs, pruneBatch)
	})
}

func inBatches(ctx context.Context, do func(context.Context) (int, error)) error {
	for ctx.Err() == nil {
		n, err := do(ctx)
		if err != nil {
			return err
		}
		if n < pruneBatch {
			return nil
		}
	}
	return nil
}
