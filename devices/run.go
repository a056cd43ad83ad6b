package devices

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"muster"
	"muster/feed"
)

const (
	absenceEvery = time.Second
	flushEvery   = 2 * time.Second
	aliveEvery   = 10 * second // that the server runs is saved
	flushBatch   = 1000        // rows in one SavePresence
	historyBatch = 500         // rows in one SaveHistory
	historyTurn  = 2000        // histories saved at one turn, so that presence never waits long
	flushTimeout = 5 * time.Second
	// sweepTurns is in how many flushes every device is looked at: what is old then is
	// saved although nothing changed.
	sweepTurns = 300
	oldAfter   = 10 * minute
)

// RunAbsence finds, every second until ctx ends, who has become quiet or offline by
// being silent. It waits for nobody. When the clock is set nobody becomes absent for it.
func (r *Registry) RunAbsence(ctx context.Context) error {
	last := r.now()
	r.presence.begin(muster.MicrosOf(last))
	tick := time.NewTicker(absenceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now := r.now()
			r.clockSet(clockStep(last, now), muster.MicrosOf(now))
			last = now
			r.findAbsent()
		case <-ctx.Done():
			return nil
		}
	}
}

// clockStep is by how much the clock was set between two looks at it, as far as it has a
// monotonic reading beside it: what a second or less was is left to clocks that slew.
func clockStep(last, now time.Time) time.Duration {
	step := now.Round(0).Sub(last.Round(0)) - now.Sub(last)
	if step.Abs() <= time.Second {
		return 0
	}
	return step
}

func (r *Registry) clockSet(step time.Duration, now muster.Micros) {
	if step == 0 {
		return
	}
	r.log.Warn("the clock was set", "by", step.String())
	r.presence.shift(muster.Micros(step/time.Microsecond), now)
}

func (r *Registry) findAbsent() {
	now := muster.MicrosOf(r.now())
	for r.presence.expire(now) {
	}
	for ps := range slices.Chunk(r.presence.missing(now), timerBatch) {
		r.presence.giveUp(ps, now)
	}
}

// Run writes changed presence to the store every 2 s, and histories in small shares,
// until ctx ends; then it writes what is left, in at most 5 s. What the store refuses
// is tried again at the next turn. When a device was last seen and its rhythm are
// written with its other changes, and else at most ten minutes late.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := r.flush(ctx, false); err != nil && ctx.Err() == nil {
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
	if err := r.flush(c, true); err != nil {
		return fmt.Errorf("save presence at stop: %w", err)
	}
	return nil
}

// flush saves every row that was dirty when it began and a share of the histories, all
// of them the last time, in batches. It stops at the first that fails.
func (r *Registry) flush(ctx context.Context, last bool) error {
	now := muster.MicrosOf(r.now())
	r.presence.sweepOld()
	for dirty := r.presence.takeDirty(); len(dirty) > 0; {
		n := min(flushBatch, len(dirty))
		if err := r.saveRows(ctx, dirty[:n]); err != nil {
			r.presence.again(dirty, (*tracker).soil)
			return err
		}
		dirty = dirty[n:]
	}
	if now >= r.presence.alive+aliveEvery || last {
		if err := r.saveAlive(ctx, now); err != nil {
			return err
		}
	}
	histories := historyTurn
	if last {
		histories = math.MaxInt
	}
	for aged := r.presence.takeAged(histories); len(aged) > 0; {
		n := min(historyBatch, len(aged))
		if err := r.saveHistories(ctx, aged[:n]); err != nil {
			r.presence.again(aged, (*tracker).age)
			return err
		}
		aged = aged[n:]
	}
	return nil
}

func (r *Registry) saveAlive(ctx context.Context, now muster.Micros) error {
	c, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.store.SaveAlive(c, now); err != nil {
		return fmt.Errorf("save when the server ran: %w", err)
	}
	r.presence.alive = now
	return nil
}

func (r *Registry) saveRows(ctx context.Context, ps []*track) error {
	rows := r.presence.rowsOf(ps)
	c, cancel := context.WithTimeout(feed.With(ctx), flushTimeout)
	defer cancel()
	feed.Note(c, r.presence.newsOf(rows)...)
	if err := r.store.SavePresence(c, rows); err != nil {
		return fmt.Errorf("save %d presence rows: %w", len(rows), err)
	}
	r.presence.spoke(rows)
	return nil
}

func (r *Registry) saveHistories(ctx context.Context, ps []*track) error {
	rows := r.presence.historiesOf(ps)
	c, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := r.store.SaveHistory(c, rows); err != nil {
		return fmt.Errorf("save %d presence histories: %w", len(rows), err)
	}
	return nil
}
