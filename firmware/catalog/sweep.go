package catalog

import (
	"context"
	"errors"
	"time"

	"muster"
)

const (
	sweepEvery = time.Hour
	// orphanAge is how long an image without an artifact stays.
	orphanAge = 24 * time.Hour
)

// Run sweeps at once and then every hour, until ctx ends.
func (c *Catalog) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := c.Sweep(ctx); err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "what is left of uploads is not removed in time", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep discards uploads that nobody goes on with, and images of a day and older that are no
// artifact: a crash, or a database that was away, came between the two.
func (c *Catalog) Sweep(ctx context.Context) error {
	uploads, err := c.blobs.Sweep()
	orphans := 0
	older := c.blobs.Older(c.now().Add(-orphanAge), func(digest string) error {
		return c.inTurn(ctx, func(ctx context.Context) error {
			_, err := c.store.FirmwareArtifact(ctx, digest)
			if err == nil || muster.KindOf(err) != muster.NotFound {
				return err //nolint:wrapcheck // the store says what it was doing
			}
			orphans++
			return c.blobs.Delete(digest) //nolint:wrapcheck // it says what is wrong
		})
	})
	if uploads+orphans > 0 {
		c.log.InfoContext(ctx, "removed what was left of uploads of firmware", "uploads", uploads, "images", orphans)
	}
	return errors.Join(err, older)
}
