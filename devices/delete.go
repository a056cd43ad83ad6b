package devices

import (
	"context"
	"fmt"
	"slices"

	"muster"
	"muster/internal/precondition"
)

// Delete removes a device: see DeleteMany. NotFound when there is none.
func (r *Registry) Delete(ctx context.Context, id muster.DeviceID, data Data) error {
	return r.DeleteMany(ctx, []muster.DeviceID{id}, data)
}

// DeleteMany removes devices with their credentials, presence and all that the store
// keeps in their names but telemetry, all or none; at most MaxBatch. What becomes of
// their telemetry data says: with EraseData they are found by Erasing from then on, also
// after a restart. Their children have no parent then. Each is reported to OnDeleted,
// and with its parent to OnRights. NotFound when one of them is not there.
func (r *Registry) DeleteMany(ctx context.Context, ids []muster.DeviceID, data Data) error {
	if _, err := ParseData(string(data)); err != nil {
		return err
	}
	ids = slices.Clone(ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) > MaxBatch {
		return muster.Errorf(muster.TooLarge, "%d devices at once, at most %d are allowed", len(ids), MaxBatch)
	}
	var rights map[muster.DeviceID]struct{}
	var children []muster.DeviceID
	err := r.change(ctx, func(ctx context.Context) (err error) {
		rights, children, err = r.delete(ctx, ids, data)
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		r.deleted(id)
	}
	r.onRights(func(d muster.DeviceID, _ string) bool {
		_, ok := rights[d]
		return ok
	})
	r.reshaped(append(ids, children...))
	return nil
}

// delete returns whose rights are others now, the devices that are gone and their
// parents, and the children that they leave. It is called in turn.
func (r *Registry) delete(ctx context.Context, ids []muster.DeviceID, data Data) (map[muster.DeviceID]struct{}, []muster.DeviceID, error) {
	gone := make([]*entry, len(ids))
	for i, id := range ids {
		e, err := r.entry(id)
		if err != nil {
			return nil, nil, err
		}
		if err := precondition.Check(ctx, e.Device); err != nil {
			return nil, nil, err
		}
		gone[i] = e
	}
	at := muster.MicrosOf(r.now())
	noteDeleted(ctx, at, gone, data)
	if err := r.deleteStored(ctx, ids, data, at); err != nil {
		return nil, nil, fmt.Errorf("delete %d devices: %w", len(ids), err)
	}
	rights := make(map[muster.DeviceID]struct{}, len(ids))
	var children []muster.DeviceID
	for _, e := range gone {
		for _, cred := range e.creds {
			r.auth.remove(cred)
			r.forget(cred)
		}
	}
	r.mu.Lock()
	for _, e := range gone {
		rights[e.ID] = struct{}{}
		if e.Parent != "" {
			rights[e.Parent] = struct{}{}
		}
		r.leaveGroups(e)
		children = append(children, r.cutOff(e)...)
		delete(r.byID, e.ID)
	}
	children = slices.DeleteFunc(children, func(id muster.DeviceID) bool { return r.byID[id] == nil })
	r.order = slices.DeleteFunc(r.order, func(e *entry) bool { return r.byID[e.ID] != e })
	r.mu.Unlock()
	for _, e := range gone {
		r.presence.remove(e.ID, at)
	}
	if data == EraseData { // now that nobody finds them any more
		out := make([]Erasure, len(ids))
		for i, id := range ids {
			out[i] = Erasure{Device: id, Since: at}
		}
		r.erasing.add(out)
	}
	return rights, children, nil
}

func (r *Registry) deleteStored(ctx context.Context, ids []muster.DeviceID, data Data, at muster.Micros) error {
	if data == EraseData {
		return r.store.EraseDevices(ctx, ids, at)
	}
	return r.store.DeleteDevices(ctx, ids)
}
