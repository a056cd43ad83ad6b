package twin

import (
	"context"
	"fmt"

	"muster"
	"muster/devices"
)

// Load reads the twins. Call it once, after the registry was loaded and before anything
// else. What a crash left undone is done: effective documents that were not written
// after a level changed, devices whose profile or groups changed, versions of firmware
// that the registry was not told.
func (t *Twins) Load(ctx context.Context) error {
	return t.change(ctx, func(context.Context) error { return t.load(ctx) })
}

func (t *Twins) load(ctx context.Context) (err error) {
	if t.last, err = t.store.LastTwinVersion(ctx); err != nil {
		return fmt.Errorf("load the last version: %w", err)
	}
	var levels levels
	err = t.store.LoadTwinLevels(ctx, func(row LevelRow) error {
		doc, err := loaded(row.Document)
		if err != nil {
			return fmt.Errorf("stored desired document of %s: %w", row.Level, err)
		}
		levels = *levels.with(row.Level, doc)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load the levels of twins: %w", err)
	}
	t.setLevels(bases{levels: &levels})
	stored := make(map[muster.DeviceID]*twin)
	if err := t.store.LoadTwins(ctx, func(r Row) error { return r.load(stored) }); err != nil {
		return fmt.Errorf("load twins: %w", err)
	}
	edits, err := t.align(stored)
	if err != nil {
		return err
	}
	n, err := t.saveEffective(ctx, edits)
	t.show(edits[:n]) // nobody is connected yet who could be told
	return err
}

func (r *Row) load(into map[muster.DeviceID]*twin) error {
	own, err := loaded(r.Desired)
	if err != nil {
		return fmt.Errorf("stored desired document of device %s: %w", r.Device, err)
	}
	reported, err := loaded(r.Reported)
	if err != nil {
		return fmt.Errorf("stored reported document of device %s: %w", r.Device, err)
	}
	tw := &twin{version: r.Version, effective: r.Effective, own: own, reported: reported, differs: r.DivergedCount}
	if tw.exists() { // else a write that failed was written over
		into[r.Device] = tw
	}
	return nil
}

// align puts stored twins into memory as the levels make them, and returns those that
// are not as they were stored. It is called in turn.
func (t *Twins) align(stored map[muster.DeviceID]*twin) ([]edit, error) {
	var edits []edit
	var firmware []muster.DeviceID
	var failed error
	byID := make(map[muster.DeviceID]*twin, len(stored))
	t.registry.Each(func(d devices.Device) bool {
		b, err := t.bases.of(&d)
		if err != nil {
			failed = err
			return false
		}
		tw := stored[d.ID]
		switch {
		case tw == nil && b.version == 0:
			return true
		case tw == nil:
			tw = &twin{effective: empty}
		}
		tw.created = d.Created
		if version, ok := firmwareOf(tw.reported.body()); ok && version != d.Firmware {
			firmware = append(firmware, d.ID)
		}
		if tw.own.body() == empty && tw.effective == b.text && tw.version >= b.version {
			tw.base, tw.effective = b, b.text
			byID[d.ID] = tw
			return true
		}
		made, err := tw.derive(b, t.bump)
		if err != nil {
			failed = fmt.Errorf("stored twin of device %s: %w", d.ID, err)
			return false
		}
		if made.version == tw.version && made.effective == tw.effective {
			byID[d.ID] = &made.twin
			return true
		}
		tw.base = b
		edits = append(edits, edit{id: d.ID, prev: *tw, next: made})
		return true
	})
	if failed != nil {
		return nil, failed
	}
	t.mu.Lock()
	t.byID = byID
	t.mu.Unlock()
	t.todo.add(&t.todo.firmware, firmware...)
	return edits, nil
}
