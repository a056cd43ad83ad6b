package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"muster"
)

// Erasures knows of which deleted devices all data is to be deleted.
type Erasures interface {
	// Erasing returns at most limit of them after the given id, in bytewise order, and a
	// channel that is closed when more come. Known says of none of them that it is there.
	Erasing(after muster.DeviceID, limit int) (ids []muster.DeviceID, more <-chan struct{})
	// IsErasing says whether Erasing has a device.
	IsErasing(id muster.DeviceID) bool
	// Erased says that nothing of them is left.
	Erased(ctx context.Context, ids []muster.DeviceID) error
}

const (
	erasePage  = 100 // devices that are recorded as erased together
	eraseSteps = 20  // of one device, before the next has its turn
	erasePause = time.Second

	firstEraseRetry = time.Second
	lastEraseRetry  = 30 * time.Second
)

// EraseStatus says what the eraser did since the start.
type EraseStatus struct {
	Erased    uint64 `json:"erased"`               // devices of which nothing is left
	LastError string `json:"last_error,omitempty"` // of the newest round, when it failed
}

type eraseState struct {
	mu sync.Mutex
	EraseStatus

	last uint64 // frame that holds something of a device that is being erased; the eraser's
}

// EraseStatus returns what the eraser did, for the System page.
func (in *Ingest) EraseStatus() EraseStatus {
	in.erasing.mu.Lock()
	defer in.erasing.mu.Unlock()
	return in.erasing.EraseStatus
}

func (s *eraseState) note(erased int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Erased += uint64(erased)
	s.LastError = ""
	if err != nil {
		s.LastError = muster.Public(err)
	}
}

// Deleted tells that a device is not in the registry any more. Messages of it that are
// not accepted yet are refused from then on.
func (in *Ingest) Deleted(id muster.DeviceID) { in.builder.leave(in.fleet.find(id)) }

// erase is the loop that deletes all data of deleted devices, a little of each in turn,
// so that one with much data holds up no other.
func (in *Ingest) erase(ctx context.Context) error {
	select { // what is read back would bring them back to memory
	case <-in.warmed:
	case <-ctx.Done():
		return nil
	}
	ready := map[muster.DeviceID]struct{}{} // of which nothing is on its way; bounded by Erasures
	retry := firstEraseRetry
	for ctx.Err() == nil {
		_, more := in.cfg.Erasures.Erasing("", 0)
		met, err := in.eraseRound(ctx, ready)
		in.erasing.note(0, err)
		switch {
		case ctx.Err() != nil: // stopping
		case err != nil:
			in.cfg.Logger.Warn("deleting the data of deleted devices failed, trying again", "err", err, "wait", retry)
			pause(ctx, retry)
			retry = min(2*retry, lastEraseRetry)
		case met == 0:
			retry = firstEraseRetry
			clear(ready)
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// eraseRound gives every device its turn and returns how many there were. It goes on
// after an error unless the store is away, and returns the last.
func (in *Ingest) eraseRound(ctx context.Context, ready map[muster.DeviceID]struct{}) (met int, err error) {
	for after := muster.DeviceID(""); ; {
		ids, _ := in.cfg.Erasures.Erasing(after, erasePage)
		if len(ids) == 0 {
			return met, err
		}
		after = ids[len(ids)-1]
		met += len(ids)
		if failed := in.erasePart(ctx, ids, ready); failed != nil {
			if err = failed; ctx.Err() != nil || muster.KindOf(err) == muster.Unavailable {
				return met, err
			}
		}
	}
}

// erasePart erases some of ids, or parts of them, and records those that are done.
func (in *Ingest) erasePart(ctx context.Context, ids []muster.DeviceID, ready map[muster.DeviceID]struct{}) error {
	if err := in.makeReady(ctx, ids, ready); err != nil {
		return err
	}
	var gone []muster.DeviceID
	var failed error
	for _, id := range ids {
		left, err := in.eraseSome(ctx, id)
		if err != nil {
			failed = fmt.Errorf("erase a device: %w", err)
			if ctx.Err() != nil || muster.KindOf(err) == muster.Unavailable {
				break
			}
			continue
		}
		if !left {
			gone = append(gone, id)
		}
	}
	if len(gone) == 0 || ctx.Err() != nil {
		return failed
	}
	if err := in.eraseDone(ctx, gone); err != nil {
		return err
	}
	for _, id := range gone {
		delete(ready, id)
	}
	in.erasing.note(len(gone), failed)
	return failed
}

// makeReady returns when nothing of ids is on its way to the store, or kept in memory,
// any more. What they had sent before is stored and so accounted for like any other
// message.
func (in *Ingest) makeReady(ctx context.Context, ids []muster.DeviceID, ready map[muster.DeviceID]struct{}) error {
	var fresh []muster.DeviceID
	for _, id := range ids {
		if _, ok := ready[id]; !ok {
			in.Deleted(id)
			fresh = append(fresh, id)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	last, err := in.settled(ctx)
	if err != nil {
		return err
	}
	in.erasing.last = max(in.erasing.last, last)
	in.forget(fresh)
	for _, id := range fresh {
		ready[id] = struct{}{}
	}
	return nil
}

// settled waits until all that was accepted before is in the store, and returns the
// last frame of it.
func (in *Ingest) settled(ctx context.Context) (last uint64, err error) {
	mark := in.builder.mark()
	durable := false
	for {
		done, moved := in.builder.progress()
		if !durable && done >= mark {
			last, durable = in.lastSeq.Load(), true
		}
		if durable && in.place.Load() >= last {
			return last, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// forget drops what is kept in memory of devices of which nothing is on its way.
func (in *Ingest) forget(ids []muster.DeviceID) {
	in.flushMu.Lock() // no latest values are being saved
	defer in.flushMu.Unlock()
	for _, id := range ids {
		d := in.fleet.forget(id)
		in.builder.leave(d)
		if d != nil {
			d.mu.Lock()
			d.forgotten = true
			d.mu.Unlock()
		}
	}
}

// eraseSome deletes a part of what the store has of a device, and leaves the store as
// much time for others in between.
func (in *Ingest) eraseSome(ctx context.Context, id muster.DeviceID) (left bool, err error) {
	for range eraseSteps {
		began := time.Now()
		step, cancel := context.WithTimeout(ctx, appendTimeout)
		left, err = in.cfg.Eraser.Erase(step, id)
		cancel()
		if err != nil {
			return true, err
		}
		if pause(ctx, min(time.Since(began), erasePause)); !left {
			return false, nil
		}
	}
	return true, nil
}

// eraseDone records devices of which nothing is left, once nothing can bring them back:
// not the frames of the log, from which a start reads the latest values back that were
// not saved, and no power cut.
func (in *Ingest) eraseDone(ctx context.Context, gone []muster.DeviceID) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if in.savedLatest() < in.erasing.last {
		in.flushLatest(ctx)
	}
	if in.savedLatest() < in.erasing.last {
		return muster.Errorf(muster.Unavailable, "the latest values cannot be saved")
	}
	if err := in.cfg.Store.Sync(ctx); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	return in.cfg.Erasures.Erased(ctx, gone)
}

// savedLatest returns up to which frame of this log the latest values are saved.
func (in *Ingest) savedLatest() uint64 {
	in.cursorMu.Lock()
	defer in.cursorMu.Unlock()
	if in.latestCursor.Incarnation != in.incarnation {
		return 0
	}
	return in.latestCursor.Seq
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
