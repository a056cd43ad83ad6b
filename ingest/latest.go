package ingest

import (
	"context"
	"fmt"
	"time"

	"muster"
)

// Intervals of the housekeeping loops.
const (
	latestEvery = 2 * time.Second
	purgeEvery  = 3 * time.Second
	latestRows  = 2000 // devices saved in one transaction
)

// saveLatest is the loop that keeps the latest values over a restart. It first
// reads them back: what was saved, then what the log holds beyond that.
func (in *Ingest) saveLatest(ctx context.Context) error {
	if !in.warm {
		if err := in.warmLatest(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read the latest values back: %w", err)
		}
		in.warm = true
		close(in.warmed)
	}
	tick := time.NewTicker(latestEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			in.flushLatest(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (in *Ingest) warmLatest(ctx context.Context) error {
	for row, err := range in.cfg.Latest.LoadLatest(ctx) {
		if err != nil {
			return err
		}
		in.seen(row.Device, in.fleet.get(row.Device).merge(row, in.fleet.sets))
	}
	in.cursorMu.Lock()
	from := in.latestCursor.Seq
	in.cursorMu.Unlock()
	for seq := from + 1; seq <= in.startLast; seq++ {
		if err := in.warmFrame(ctx, seq); err != nil {
			return err
		}
	}
	return nil
}

// warmFrame takes frame seq into the latest values; the writer reports one that
// can not be read.
func (in *Ingest) warmFrame(ctx context.Context, seq uint64) error {
	body, err := in.cfg.Log.Read(ctx, seq)
	if err != nil {
		if muster.KindOf(err) == muster.NotFound {
			return nil
		}
		return err
	}
	readings, _, _, err := readFrame(body, in.layouts.Intern)
	if err != nil {
		return nil //nolint:nilerr // counted by the writer
	}
	var dirty []*device
	for i := range readings {
		d := in.fleet.get(readings[i].Device)
		d.mu.Lock()
		d.arrival = max(d.arrival, readings[i].Arrival)
		if d.observe(&readings[i], in.fleet.sets) {
			dirty = append(dirty, d)
		}
		d.mu.Unlock()
		in.seen(d.id, readings[i].Arrival)
	}
	in.fleet.markDirty(dirty)
	return nil
}

func (in *Ingest) seen(id muster.DeviceID, at muster.Micros) {
	if in.cfg.Seen != nil {
		in.cfg.Seen(id, at)
	}
}

// flushLatest saves the rows that changed. The cursor moves with the last of them;
// what fails stays dirty.
func (in *Ingest) flushLatest(ctx context.Context) {
	in.flushMu.Lock()
	defer in.flushMu.Unlock()
	to := Cursor{in.incarnation, in.applied.Load()}
	ds := in.fleet.takeDirty()
	in.cursorMu.Lock()
	at := in.latestCursor
	in.cursorMu.Unlock()
	if to == at && len(ds) == 0 {
		return
	}
	defer func() { in.redirty(ds) }() // what was not saved, also after a panic
	for {
		n := min(len(ds), latestRows)
		cursor := at
		if n == len(ds) {
			cursor = to
		}
		if err := in.saveRows(ctx, ds[:n], cursor); err != nil {
			if ctx.Err() == nil {
				in.cfg.Logger.Warn("saving the latest values failed, trying again", "err", err)
			}
			return
		}
		if ds = ds[n:]; len(ds) == 0 {
			break
		}
	}
	in.cursorMu.Lock()
	in.latestCursor = to
	in.cursorMu.Unlock()
}

func (in *Ingest) saveRows(ctx context.Context, ds []*device, c Cursor) error {
	rows := make([]LatestRow, 0, len(ds))
	for _, d := range ds {
		d.mu.Lock()
		d.dirty = false
		if !d.forgotten {
			rows = append(rows, d.copyValues())
		}
		d.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	return in.cfg.Latest.SaveLatest(ctx, rows, c)
}

// redirty queues devices again whose rows were not saved.
func (in *Ingest) redirty(ds []*device) {
	again := ds[:0:0]
	for _, d := range ds {
		d.mu.Lock()
		if !d.dirty {
			d.dirty = true
			again = append(again, d)
		}
		d.mu.Unlock()
	}
	in.fleet.markDirty(again)
}

// purge is the loop that forgets frames which every reader has passed and which
// would survive a power cut in the store.
func (in *Ingest) purge(ctx context.Context) error {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := in.purgeOnce(ctx); err != nil && ctx.Err() == nil {
				in.cfg.Logger.Warn("purging the log failed, trying again", "err", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (in *Ingest) purgeOnce(ctx context.Context) error {
	in.cursorMu.Lock()
	w, l := in.writer, in.latestCursor
	in.cursorMu.Unlock()
	if w.Incarnation != in.incarnation || l.Incarnation != in.incarnation {
		return nil
	}
	// The last frame stays: it carries the totals and the newest arrival time.
	upTo := min(w.Seq, l.Seq, in.lastSeq.Load()-1)
	if upTo <= in.purged || upTo == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if err := in.cfg.Store.Sync(ctx); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	if err := in.cfg.Log.Purge(ctx, upTo); err != nil {
		return fmt.Errorf("purge frames up to %d: %w", upTo, err)
	}
	in.purged = upTo
	return nil
}
