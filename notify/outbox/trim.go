package outbox

import (
	"context"
	"fmt"
	"time"

	"muster"
)

const (
	trimEvery = 10 * time.Minute
	trimStep  = 1000 // deliveries in one transaction
	trimSteps = 1000 // in a row
)

// trimLoop forgets deliveries whose end is long ago, in small steps.
func (d *Dispatcher) trimLoop(ctx context.Context) error {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		d.failed(ctx, "forget old deliveries", d.trim(ctx))
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (d *Dispatcher) trim(ctx context.Context) error {
	now := d.c.Now()
	ended, dead := muster.MicrosOf(now.Add(-d.c.KeepEnded)), muster.MicrosOf(now.Add(-d.c.KeepDead))
	for range trimSteps {
		c, cancel := context.WithTimeout(ctx, storeTime)
		n, err := d.c.Store.TrimDeliveries(c, ended, dead, trimStep)
		cancel()
		if err != nil {
			return fmt.Errorf("forget deliveries: %w", err)
		}
		if n < trimStep {
			return nil
		}
	}
	return nil
}
