package twin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/devices"
)

const (
	// followBatch is how many devices Run looks at in one turn.
	followBatch = 1000
	firstRetry  = time.Second
	lastRetry   = 30 * time.Second
)

// todo is what Run has to do. Its sets have a device at most once, so that the registry
// bounds them.
type todo struct {
	mu       sync.Mutex
	moved    map[muster.DeviceID]struct{} // another profile, other groups, or new
	late     map[muster.DeviceID]struct{} // to be written again
	firmware map[muster.DeviceID]struct{} // whose version the registry may not have
	levels   map[Level]struct{}           // whose documents are to be written again
	gone     []Level                      // groups and profiles that were deleted, each by an operator
	wake     chan struct{}                // has one token while there is something
}

func (w *todo) init() {
	w.moved, w.late, w.firmware = map[muster.DeviceID]struct{}{}, map[muster.DeviceID]struct{}{}, map[muster.DeviceID]struct{}{}
	w.levels = map[Level]struct{}{}
	w.wake = make(chan struct{}, 1)
}

func (w *todo) add(set *map[muster.DeviceID]struct{}, ids ...muster.DeviceID) {
	if len(ids) == 0 {
		return
	}
	w.mu.Lock()
	for _, id := range ids {
		(*set)[id] = struct{}{}
	}
	w.mu.Unlock()
	w.signal()
}

func (w *todo) unsaved(id muster.DeviceID) { w.add(&w.late, id) }

// unsavedLevel is unsaved for a level above the device.
func (w *todo) unsavedLevel(at Level) {
	w.mu.Lock()
	w.levels[at] = struct{}{}
	w.mu.Unlock()
	w.signal()
}

func (w *todo) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take removes up to followBatch devices from set.
func (w *todo) take(set *map[muster.DeviceID]struct{}) []muster.DeviceID {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]muster.DeviceID, 0, min(len(*set), followBatch))
	for id := range *set {
		if len(ids) == cap(ids) {
			break
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		delete(*set, id)
	}
	if len(*set) == 0 {
		*set = map[muster.DeviceID]struct{}{} // gives a large one's memory back
	}
	return ids
}

func (w *todo) left() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.moved)+len(w.late)+len(w.firmware)+len(w.gone)+len(w.levels) > 0
}

// DevicesChanged is told which devices changed in the registry (devices.Registry.Watch).
// Twins of deleted devices are gone when it returns; for the others it remembers what
// Run has to do. It does not wait for the store.
func (t *Twins) DevicesChanged(ids []muster.DeviceID) {
	var moved, gone []muster.DeviceID
	var buf []byte
	for _, id := range ids {
		t.mu.RLock()
		tw, levels, changing := t.byID[id], t.levels, t.changing
		t.mu.RUnlock()
		if tw == nil && levels.none() && !changing {
			continue
		}
		d, err := t.registry.Get(id)
		if err != nil {
			gone = append(gone, id)
			continue
		}
		buf = levels.key(buf[:0], &d)
		switch {
		case changing, tw == nil:
			moved = append(moved, id)
		case tw.created != d.Created:
			gone, moved = append(gone, id), append(moved, id)
		case tw.base.key != string(buf):
			moved = append(moved, id)
		}
	}
	t.forget(gone)
	t.todo.add(&t.todo.moved, moved...)
}

// forget drops twins whose device is not there any more.
func (t *Twins) forget(ids []muster.DeviceID) {
	if len(ids) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		tw := t.byID[id]
		if tw == nil {
			continue
		}
		if d, err := t.registry.Get(id); err != nil || d.Created != tw.created {
			delete(t.byID, id)
		}
	}
}

// GroupDeleted is told that a group was deleted, before another can be made under its
// name. It does not wait.
func (t *Twins) GroupDeleted(name string) { t.levelGone(Group(name)) }

// ProfileDeleted is GroupDeleted for a profile.
func (t *Twins) ProfileDeleted(name string) { t.levelGone(Profile(name)) }

func (t *Twins) levelGone(at Level) {
	t.todo.mu.Lock()
	t.todo.gone = append(t.todo.gone, at)
	t.todo.mu.Unlock()
	t.todo.signal()
}

// dropLevels takes away the documents of deleted groups and profiles; the store did so
// with them. It is called in turn.
func (t *Twins) dropLevels() {
	t.todo.mu.Lock()
	gone := t.todo.gone
	t.todo.gone = nil
	t.todo.mu.Unlock()
	for _, at := range gone {
		if t.levels.get(at) == nil {
			continue
		}
		t.setLevels(t.bases.with(at, nil))
		var moved []muster.DeviceID
		t.mu.RLock()
		for id, tw := range t.byID {
			if tw.base.has(at) {
				moved = append(moved, id)
			}
		}
		t.mu.RUnlock()
		t.todo.add(&t.todo.moved, moved...)
	}
}

// Run keeps twins in line with the registry until ctx ends: devices that are new or
// have another profile or other groups get their effective document, and what the store
// did not take is written again, after a pause that grows from 1 s to 30 s.
func (t *Twins) Run(ctx context.Context) error {
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.todo.wake:
		}
		err := t.Settle(ctx)
		if err == nil {
			retry = firstRetry
			continue
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		t.log.Warn("twins are not in line with the registry yet", "retry_in", retry.String(), "err", err)
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		retry = min(2*retry, lastRetry)
		t.todo.signal()
	}
}

// Settle does what is to be done now and returns the first failure; what failed is
// still to be done then.
func (t *Twins) Settle(ctx context.Context) error {
	for t.todo.left() {
		if err := ctx.Err(); err != nil {
			return muster.Errorf(muster.Busy, "bring twins in line with the registry: %w", err)
		}
		if err := t.change(ctx, t.step); err != nil {
			return err
		}
	}
	return nil
}

// step does a batch of each kind. It is called in turn.
func (t *Twins) step(ctx context.Context) error {
	if err := t.saveLevels(ctx); err != nil {
		return err
	}
	ids := t.todo.take(&t.todo.moved)
	if err := t.follow(ctx, ids); err != nil {
		t.todo.add(&t.todo.moved, ids...)
		return err
	}
	ids = t.todo.take(&t.todo.late)
	if err := t.saveAgain(ctx, ids); err != nil {
		t.todo.add(&t.todo.late, ids...)
		return err
	}
	ids = t.todo.take(&t.todo.firmware)
	return t.tellFirmware(ctx, ids)
}

// follow derives the effective documents of devices anew. It is called in turn.
func (t *Twins) follow(ctx context.Context, ids []muster.DeviceID) error {
	var edits, quiet []edit
	for _, id := range ids {
		d, err := t.registry.Get(id)
		if err != nil {
			t.forget([]muster.DeviceID{id})
			continue
		}
		prev := t.current(&d)
		e, err := t.derive(&d, prev, prev)
		switch {
		case err != nil:
			return err
		case e.next.version != prev.version:
			edits = append(edits, e)
		case e.next.exists():
			quiet = append(quiet, e) // the same document by other levels: nothing to write
		}
	}
	t.admit(quiet)
	n, err := t.saveEffective(ctx, edits)
	t.admit(edits[:n])
	return err
}

// saveAgain writes what memory has over what the store may have. It is called in turn.
func (t *Twins) saveAgain(ctx context.Context, ids []muster.DeviceID) error {
	var edits []edit
	for _, id := range ids {
		d, err := t.registry.Get(id)
		if err != nil {
			continue
		}
		tw := t.current(&d)
		n, err := parseOrEmpty(tw.effective)
		if err != nil {
			return err
		}
		next, err := tw.compare(&n)
		if err != nil {
			return err
		}
		edits = append(edits, edit{id: id, prev: tw, next: next})
	}
	_, err := t.saveWhole(ctx, edits)
	return err
}

// saveLevels is saveAgain for levels above the device. It is called in turn.
func (t *Twins) saveLevels(ctx context.Context) error {
	t.todo.mu.Lock()
	late := slices.Collect(maps.Keys(t.todo.levels))
	t.todo.mu.Unlock()
	for _, at := range late {
		doc := t.levels.get(at)
		row := LevelRow{at, doc.row()}
		row.Text = doc.body()
		c, cancel := context.WithTimeout(ctx, writeTimeout)
		err := t.store.PutTwinLevel(c, row, t.last)
		cancel()
		if err != nil && muster.KindOf(err) != muster.NotFound { // deleted meanwhile
			return fmt.Errorf("put the desired document of %s again: %w", at, err)
		}
		t.todo.mu.Lock()
		delete(t.todo.levels, at)
		t.todo.mu.Unlock()
	}
	return nil
}

// tellFirmware gives the registry the firmware versions that devices report. It is
// called in turn, so that the newest comes last.
func (t *Twins) tellFirmware(ctx context.Context, ids []muster.DeviceID) error {
	var reports []devices.FirmwareReport
	for _, id := range ids {
		if tw := t.twin(id); tw != nil && tw.reported != nil {
			version, _ := firmwareOf(tw.reported.text)
			reports = append(reports, devices.FirmwareReport{Device: id, Version: version})
		}
	}
	if len(reports) == 0 {
		return nil
	}
	c, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := t.registry.SetFirmware(c, reports)
	if err != nil {
		t.todo.add(&t.todo.firmware, ids...)
	}
	return err
}
