package bulk

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"muster"
	"muster/devices"
)

// Acted says what a bulk action did.
type Acted struct {
	Matched  int          `json:"matched" doc:"How many devices the action is about"`
	Changed  int          `json:"changed" doc:"How many it changed"`
	Refused  int          `json:"refused" doc:"How many it could not change"`
	Refusals []ActRefusal `json:"refusals" nullable:"false" doc:"The first 1,000 of them"`
}

// ActRefusal is a device that could not be changed.
type ActRefusal struct {
	ID     muster.DeviceID `json:"id"`
	Detail string          `json:"detail"`
}

// ActMark is how far a bulk action is.
type ActMark struct {
	Done   int   `json:"done"` // devices
	Report Acted `json:"report"`
}

// StepFunc does a part of an action: do makes one change of the registry, to be kept
// together with m, or neither. It returns what do fails with.
type StepFunc func(ctx context.Context, m ActMark, do func(ctx context.Context) error) error

// Steps are how an action is cut into parts.
type Steps struct {
	Batch int // devices in one; 5,000 when zero
	Do    StepFunc
}

// Deleter deletes devices.
type Deleter interface {
	DeleteMany(ctx context.Context, ids []muster.DeviceID, data devices.Data) error
}

// ResumeAct returns the mark of an action that was begun before, one that begins for
// text nil.
func ResumeAct(text []byte, ids []muster.DeviceID) (ActMark, error) {
	m := ActMark{Report: Acted{Matched: len(ids), Refusals: []ActRefusal{}}}
	if text == nil {
		return m, nil
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read how far an action is: %w", err)
	}
	return m, nil
}

// Update changes the devices ids after the mark from. One that
// cannot be changed, because it is gone or somebody changed it or what c is about
// meanwhile, is refused; the others are changed.
func Update(ctx context.Context, reg Registry, ids []muster.DeviceID, c devices.Change, from ActMark, steps Steps) (Acted, error) {
	a := action{steps: steps, at: from, batch: func(part []muster.DeviceID) (int, func(ctx context.Context) error) {
		changes := make([]devices.DeviceChange, len(part))
		changed := 0
		for i, id := range part {
			changes[i] = devices.DeviceChange{ID: id, Change: c}
			before, _ := reg.Get(id) // one that is gone is refused below
			if after, err := reg.Preview(id, c); err == nil && after != before {
				changed++
			}
		}
		return changed, func(ctx context.Context) error {
			_, err := reg.UpdateMany(ctx, changes)
			return err
		}
	}}
	return a.run(ctx, ids)
}

// Delete deletes the devices ids after the mark from, likewise.
func Delete(ctx context.Context, reg Deleter, ids []muster.DeviceID, data devices.Data, from ActMark, steps Steps) (Acted, error) {
	a := action{steps: steps, at: from, batch: func(part []muster.DeviceID) (int, func(ctx context.Context) error) {
		return len(part), func(ctx context.Context) error { return reg.DeleteMany(ctx, part, data) }
	}}
	return a.run(ctx, ids)
}

type action struct {
	steps Steps
	at    ActMark
	batch func(part []muster.DeviceID) (changed int, do func(ctx context.Context) error)
}

func (a *action) run(ctx context.Context, ids []muster.DeviceID) (Acted, error) {
	batch := cmp.Or(a.steps.Batch, batchSize)
	for a.at.Done < len(ids) {
		if err := a.part(ctx, ids[a.at.Done:min(a.at.Done+batch, len(ids))]); err != nil {
			return a.at.Report, err
		}
	}
	return a.at.Report, nil
}

// part does a batch. One that is refused is halved until the devices that cannot be
// changed stand alone.
func (a *action) part(ctx context.Context, part []muster.DeviceID) error {
	changed, do := a.batch(part)
	after := a.at
	after.Done += len(part)
	after.Report.Changed += changed
	err := a.steps.Do(ctx, after, do)
	if err == nil {
		a.at = after
		return nil
	}
	switch muster.KindOf(err) {
	case muster.Invalid, muster.Conflict, muster.NotFound:
	default:
		return err
	}
	if len(part) == 1 {
		a.refuse(part[0], err)
		return nil
	}
	if err := a.part(ctx, part[:len(part)/2]); err != nil {
		return err
	}
	return a.part(ctx, part[len(part)/2:])
}

func (a *action) refuse(id muster.DeviceID, err error) {
	a.at.Done++
	r := &a.at.Report
	if r.Refused++; len(r.Refusals) < MaxRefusals {
		r.Refusals = append(r.Refusals, ActRefusal{id, muster.Public(err)})
	}
}
