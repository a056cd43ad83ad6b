package twin

import (
	"context"
	"fmt"

	"muster"
	"muster/audit"
	"muster/devices"
)

// Versions are what a change may be bound to.
type Versions struct {
	Document  int64 // of the level's own document, 0 when it was never written
	Effective int64 // of the device's effective document; Document for other levels
	Reported  int64 // of what the device reported; 0 for other levels
}

// Desired is a level's own desired document.
type Desired struct {
	Level   Level
	State   []byte // canonical JSON
	Version int64  // 0 when it was never written
	Changed int    // devices whose effective document is another now; 0 unless just written
	Devices int    // devices whose effective document has a new version; likewise
}

// Level returns the desired document of a level. NotFound when its profile, group or
// device does not exist, Invalid when the group is a saved query: only static groups
// have desired documents, since nobody tells when a device begins to match a query.
func (t *Twins) Level(at Level) (Desired, error) {
	if _, err := t.checkLevel(at); err != nil {
		return Desired{}, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	doc := t.levels.get(at)
	if at.kind == deviceLevel {
		doc = nil
		if tw := t.byID[muster.DeviceID(at.name)]; tw != nil {
			doc = tw.own
		}
	}
	return Desired{Level: at, State: []byte(doc.body()), Version: doc.vers()}, nil
}

// checkLevel returns the device of a device's level.
func (t *Twins) checkLevel(at Level) (devices.Device, error) {
	switch at.kind {
	case profileLevel:
		_, err := t.registry.Profile(at.name)
		return devices.Device{}, err
	case groupLevel:
		g, err := t.registry.Group(at.name)
		if err == nil && g.Query != "" {
			err = muster.Errorf(muster.Invalid, "the group is a saved query: only static groups have a desired document")
		}
		return devices.Device{}, err
	case deviceLevel:
		return t.registry.Get(muster.DeviceID(at.name))
	default: // the fleet is always there
		return devices.Device{}, nil
	}
}

// PatchDesired applies a JSON merge patch (RFC 7396) to the desired document of a level.
// When match is not nil it says whether the change may be made to what there is; else
// the error is Stale and names the version. Invalid when the patch is not an object,
// TooLarge when the document, or that of a device below, would be over MaxDocument.
// A patch that changes nothing gives no new version.
func (t *Twins) PatchDesired(ctx context.Context, at Level, patch []byte, match func(Versions) bool) (Desired, error) {
	return t.writeDesired(ctx, at, match, func(old string) (string, error) { return patched(old, patch) })
}

// PutDesired replaces the desired document of a level: see PatchDesired. A null outside
// of an array is Invalid.
func (t *Twins) PutDesired(ctx context.Context, at Level, doc []byte, match func(Versions) bool) (Desired, error) {
	return t.writeDesired(ctx, at, match, func(string) (string, error) { return whole(doc) })
}

// DeleteDesired empties the desired document of a level: see PatchDesired.
func (t *Twins) DeleteDesired(ctx context.Context, at Level, match func(Versions) bool) (Desired, error) {
	return t.writeDesired(ctx, at, match, func(string) (string, error) { return empty, nil })
}

func (t *Twins) writeDesired(ctx context.Context, at Level, match func(Versions) bool, edit func(old string) (string, error)) (out Desired, err error) {
	err = t.change(ctx, func(ctx context.Context) error {
		d, err := t.checkLevel(at)
		if err != nil {
			return err
		}
		if at.kind == deviceLevel {
			out, err = t.writeOwn(ctx, &d, match, edit)
			return err
		}
		out, err = t.writeLevel(ctx, at, match, edit)
		return err
	})
	return out, err
}

func (v Versions) check(match func(Versions) bool) error {
	if match == nil || match(v) {
		return nil
	}
	return muster.Errorf(muster.Stale, "the document is at version %d now", v.Document)
}

// writeOwn changes the device's own level. It is called in turn.
func (t *Twins) writeOwn(ctx context.Context, d *devices.Device, match func(Versions) bool, change func(string) (string, error)) (Desired, error) {
	tw := t.current(d)
	out := Desired{Level: Device(d.ID), State: []byte(tw.own.body()), Version: tw.own.vers()}
	if err := (Versions{tw.own.vers(), tw.version, tw.reported.vers()}).check(match); err != nil {
		return out, err
	}
	e, differs, err := t.ownEdit(d, tw, change)
	if err != nil || !differs {
		return out, err
	}
	edits := []edit{e}
	audit.Note(ctx, "desired.put", out.Level.object(), audited(tw.own.body()), audited(e.next.own.body()))
	if err := t.commit(ctx, edits); err != nil {
		return out, err
	}
	if edits[0].gone {
		return out, errGone(d.ID)
	}
	out.State, out.Version = []byte(e.next.own.body()), e.next.own.vers()
	out.count(edits)
	return out, nil
}

// ownEdit returns what a change of its own level makes of a device; differs is false
// when it changes nothing. It is called in turn.
func (t *Twins) ownEdit(d *devices.Device, tw twin, change func(string) (string, error)) (e edit, differs bool, err error) {
	text, err := change(tw.own.body())
	if err != nil || text == tw.own.body() {
		return e, false, err
	}
	next := tw
	next.own = tw.own.next(text, t.bump(), muster.MicrosOf(t.now()))
	if e, err = t.derive(d, tw, next); err != nil {
		return e, false, err
	}
	err = e.fits()
	return e, true, err
}

// PatchDevices applies one merge patch to the own desired documents of many devices, at
// most devices.MaxBatch, and commits them in one transaction for 2,000 each; who listens
// is told after that. It answers for each device in the order of ids, as PatchDesired
// does; those that the store did not take get its error. It changes nothing of a device
// that has it already.
func (t *Twins) PatchDevices(ctx context.Context, ids []muster.DeviceID, patch []byte) []error {
	errs := make([]error, len(ids))
	if len(ids) > devices.MaxBatch {
		return fill(errs, muster.Errorf(muster.TooLarge, "%d devices at once, at most %d are allowed", len(ids), devices.MaxBatch))
	}
	err := t.change(ctx, func(ctx context.Context) error {
		t.patchDevices(ctx, ids, patch, errs)
		return nil
	})
	return fill(errs, err)
}

// fill answers err to all who have no error yet.
func fill(errs []error, err error) []error {
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
	return errs
}

// patchDevices is called in turn.
func (t *Twins) patchDevices(ctx context.Context, ids []muster.DeviceID, patch []byte, errs []error) {
	edits := make([]edit, 0, len(ids))
	by := make([]int, 0, len(ids)) // place among ids of each edit
	first := make(map[muster.DeviceID]int, len(ids))
	for i, id := range ids {
		if _, twice := first[id]; twice {
			continue // it is answered below
		}
		first[id] = i
		d, err := t.registry.Get(id)
		if err != nil {
			errs[i] = err
			continue
		}
		e, differs, err := t.ownEdit(&d, t.current(&d), func(old string) (string, error) { return patched(old, patch) })
		if errs[i] = err; err == nil && differs {
			edits, by = append(edits, e), append(by, i)
		}
	}
	n, err := t.saveWhole(ctx, edits)
	t.admit(edits[:n])
	for i := range edits {
		switch {
		case i >= n:
			t.todo.unsaved(edits[i].id) // whether the store has it is not sure
			errs[by[i]] = err
		case edits[i].gone:
			errs[by[i]] = errGone(edits[i].id)
		}
	}
	for i, id := range ids {
		errs[i] = errs[first[id]]
	}
}

// derive returns the edit from prev to next with the levels that apply to d. It is
// called in turn.
func (t *Twins) derive(d *devices.Device, prev, next twin) (edit, error) {
	b, err := t.bases.of(d)
	if err != nil {
		return edit{}, err
	}
	made, err := next.derive(b, t.bump)
	return edit{id: d.ID, prev: prev, next: made}, err
}

func (e *edit) fits() error {
	n := len(e.next.effective)
	if n <= MaxDocument || n <= len(e.prev.effective) {
		return nil
	}
	return muster.Errorf(muster.TooLarge, "the levels of device %s would have %d bytes together, at most %d are allowed", e.id, n, MaxDocument)
}

// commit writes whole rows and makes them visible, all or none but for chunks. It is
// called in turn.
func (t *Twins) commit(ctx context.Context, edits []edit) error {
	n, err := t.saveWhole(ctx, edits)
	t.admit(edits[:n])
	if err != nil {
		// Whether the store has them is not sure: memory is written over them later.
		for i := range edits[n:] {
			t.todo.unsaved(edits[n+i].id)
		}
	}
	return err
}

func (d *Desired) count(edits []edit) {
	for i := range edits {
		if edits[i].prev.version != edits[i].next.version {
			d.Devices++
		}
		if edits[i].prev.effective != edits[i].next.effective {
			d.Changed++
		}
	}
}

// writeLevel changes a level above the device: first the level is committed, then it
// can be seen with all that follows, and at last that is written too, a chunk at a time.
// What a crash leaves unwritten, Load makes again from the levels. It is called in turn.
func (t *Twins) writeLevel(ctx context.Context, at Level, match func(Versions) bool, change func(string) (string, error)) (Desired, error) {
	was := t.levels.get(at)
	out := Desired{Level: at, State: []byte(was.body()), Version: was.vers()}
	if err := (Versions{was.vers(), was.vers(), 0}).check(match); err != nil {
		return out, err
	}
	text, err := change(was.body())
	if err != nil || text == was.body() {
		return out, err
	}
	doc := was.next(text, t.bump(), muster.MicrosOf(t.now()))
	next := t.bases.with(at, doc)
	t.setChanging(true)
	defer t.setChanging(false)
	edits, err := t.below(at, &next)
	if err != nil {
		return out, err
	}
	audit.Note(ctx, "desired.put", at.object(), audited(was.body()), audited(text))
	c, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := t.store.PutTwinLevel(c, LevelRow{at, doc.row()}, t.last); err != nil {
		t.todo.unsavedLevel(at) // whether the store has it is not sure
		return out, fmt.Errorf("put the desired document of %s: %w", at, err)
	}
	t.setLevels(next)
	t.admit(edits)
	n, err := t.saveEffective(ctx, edits)
	if err != nil {
		t.log.Warn("what follows from a desired document is not written yet", "level", at.String(), "devices", len(edits)-n, "err", err)
		for i := range edits[n:] {
			t.todo.unsaved(edits[n+i].id)
		}
	}
	out.State, out.Version = []byte(text), doc.version
	out.count(edits)
	return out, nil
}

// below returns the twins of the devices to which a level applies, as the levels next
// make them. It is called in turn.
func (t *Twins) below(at Level, next *bases) ([]edit, error) {
	var edits []edit
	var failed error
	t.registry.Each(func(d devices.Device) bool {
		if !at.applies(&d) {
			return true
		}
		prev := t.current(&d)
		b, err := next.of(&d)
		if err == nil {
			e := edit{id: d.ID, prev: prev}
			if e.next, err = prev.derive(b, t.bump); err == nil {
				err = e.fits()
			}
			edits = append(edits, e)
		}
		failed = err
		return err == nil
	})
	return edits, failed
}

func (t *Twins) setChanging(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changing = on
}

// setLevels is called in turn.
func (t *Twins) setLevels(next bases) {
	t.bases = next
	t.mu.Lock()
	defer t.mu.Unlock()
	t.levels = next.levels
}
