package devices

import (
	"context"
	"fmt"

	"muster"
)

// Change says what of a device is to be another; nil leaves a part as it is.
type Change struct {
	Name    *string
	Profile *string          // empty for DefaultProfile
	Parent  *muster.DeviceID // empty for none
}

// Update changes a device, all parts or none, and returns it as it is then. It
// reports the device to OnRights when it has another profile, and the old and the
// new parent when it has another parent. NotFound when there is no such device;
// Invalid when the profile or the parent does not exist; Conflict when the device
// would be its own ancestor or a family deeper than MaxDepth.
func (r *Registry) Update(ctx context.Context, id muster.DeviceID, c Change) (Device, error) {
	var old, d Device
	err := r.change(ctx, func(ctx context.Context) (err error) {
		old, d, err = r.update(ctx, id, c)
		return err
	})
	if err != nil {
		return Device{}, err
	}
	if d == old {
		return d, nil
	}
	r.onRights(func(other muster.DeviceID, _ string) bool {
		return d.Profile != old.Profile && other == id ||
			d.Parent != old.Parent && other != "" && (other == old.Parent || other == d.Parent)
	})
	r.watch.changed([]muster.DeviceID{id})
	return d, nil
}

// SetProfile gives a device another profile: see Update.
func (r *Registry) SetProfile(ctx context.Context, id muster.DeviceID, name string) error {
	_, err := r.Update(ctx, id, Change{Profile: &name})
	return err
}

// SetParent makes a device belong to another gateway, or to none: see Update.
func (r *Registry) SetParent(ctx context.Context, id, parent muster.DeviceID) error {
	_, err := r.Update(ctx, id, Change{Parent: &parent})
	return err
}

// update is called in turn.
func (r *Registry) update(ctx context.Context, id muster.DeviceID, c Change) (old, d Device, err error) {
	e, err := r.entry(id)
	if err != nil {
		return old, d, err
	}
	old = e.Device
	if d, err = r.changed(e, c); err != nil || d == old {
		return old, d, err
	}
	if err := r.store.UpdateDevice(ctx, d); err != nil {
		return old, d, fmt.Errorf("update device: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.Parent != old.Parent {
		r.unlink(e)
	}
	r.profiles[old.Profile].uses--
	e.Device = d
	r.useProfile(e)
	if d.Parent != old.Parent {
		r.link(e)
	}
	return old, d, nil
}

// changed returns e's device as c makes it, when that is allowed.
func (r *Registry) changed(e *entry, c Change) (Device, error) {
	d := e.Device
	r.mu.RLock()
	defer r.mu.RUnlock()
	if c.Name != nil {
		if err := checkName(*c.Name); err != nil {
			return d, err
		}
		d.Name = *c.Name
	}
	if c.Profile != nil {
		d.Profile = *c.Profile
		if d.Profile == "" {
			d.Profile = DefaultProfile
		}
		if err := r.checkProfile(d.Profile); err != nil {
			return d, err
		}
	}
	if c.Parent != nil && *c.Parent != d.Parent {
		d.Parent = *c.Parent
		if d.Parent != "" {
			return d, r.checkParent(e, d.Parent)
		}
	}
	return d, nil
}
