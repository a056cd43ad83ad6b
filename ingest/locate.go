package ingest

import (
	"context"
	"fmt"
	"time"

	"muster"
)

// locate finds out what the log holds that the store does not.
func (in *Ingest) locate(ctx context.Context) error {
	st, err := in.cfg.Log.State(ctx)
	if err != nil {
		return fmt.Errorf("read the log's state: %w", err)
	}
	writer, latest, err := in.cfg.Store.Cursors(ctx)
	if err != nil {
		return fmt.Errorf("read the store's cursors: %w", err)
	}
	in.incarnation, in.maxBytes = st.Incarnation, st.MaxBytes
	in.writer, in.latestCursor = writer, latest
	in.boot = fmt.Sprintf("%s-%x", st.Incarnation, in.cfg.Now().UnixNano())
	in.startLast = st.Last
	in.lastSeq.Store(st.Last)
	in.applied.Store(st.Last)
	if err := in.findPlace(ctx, st); err != nil {
		return err
	}
	if latest.Incarnation != in.incarnation { // never saved, or from another log: all that this one has counts
		in.latestCursor = Cursor{Seq: st.First - 1}
	}
	return in.countBacklog(ctx, st)
}

// findPlace sets the frame up to which the store has everything. A log that is
// not the one the cursor speaks of was lost or replaced: that is said loudly.
func (in *Ingest) findPlace(ctx context.Context, st LogState) error {
	switch {
	case in.writer.Incarnation == st.Incarnation && in.writer.Seq <= st.Last:
		in.place.Store(in.writer.Seq)
	case in.writer.Incarnation == st.Incarnation:
		in.logLost("it has lost its tail", st)
		inc, err := in.cfg.Log.Renew(ctx)
		if err != nil {
			return fmt.Errorf("give the log another incarnation: %w", err)
		}
		in.incarnation = inc
		in.place.Store(st.Last)
	default:
		if in.writer.Incarnation != "" {
			in.logLost("it is not the one the store was written from", st)
		}
		in.place.Store(st.First - 1)
	}
	if in.place.Load()+1 < st.First {
		in.place.Store(st.First - 1)
	}
	return nil
}

func (in *Ingest) logLost(how string, st LogState) {
	in.metrics.logLost.Inc()
	in.cfg.Logger.Error("the log was lost or replaced; what it held and was not stored is gone", "how", how, "cursor", in.writer.Seq, "cursor_incarnation", in.writer.Incarnation,
		"log_last", st.Last, "log_incarnation", st.Incarnation)
}

// countBacklog counts what is recovered from the frames' headers: the total is
// exact without reading them all.
func (in *Ingest) countBacklog(ctx context.Context, st LogState) error {
	if st.Last < st.First {
		return nil
	}
	last, err := in.frameInfo(ctx, st.Last)
	if err != nil {
		return err
	}
	in.total = last.total
	in.builder.floor = last.newest + 1
	place := in.place.Load()
	if place == st.Last {
		return nil
	}
	first, err := in.frameInfo(ctx, place+1)
	if err != nil {
		return err
	}
	n := last.total - first.total + uint64(first.count)
	in.totals.update(func(l *Ledger) { l.recover(n) })
	in.backlogPer = st.Bytes / int64(st.Last-st.First+1)
	in.cfg.Logger.Info("recovered messages from the log", "messages", n, "frames", st.Last-place)
	return nil
}

func (in *Ingest) frameInfo(ctx context.Context, seq uint64) (frameInfo, error) {
	body, err := in.cfg.Log.Read(ctx, seq)
	if err != nil {
		return frameInfo{}, fmt.Errorf("read frame %d: %w", seq, err)
	}
	info, _, err := checkFrame(body)
	if err != nil {
		return frameInfo{}, muster.Errorf(muster.Internal, "frame %d of the log is damaged: %w", seq, err)
	}
	return info, nil
}

// drain waits until what was accepted is durable and, while ctx allows, stored.
func (in *Ingest) drain(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		settled := in.applied.Load() == in.lastSeq.Load() && in.place.Load() == in.lastSeq.Load()
		if in.builder.empty() && (settled || in.isStoreDown()) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	in.flushLatest(ctx)
}
