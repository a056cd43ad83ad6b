package devices

import (
	"context"
	"fmt"
	"maps"

	"muster"
	"muster/internal/precondition"
)

// Change says what of a device is to be another; nil leaves a part as it is.
type Change struct {
	Name     *string
	Profile  *string          // empty for DefaultProfile
	Parent   *muster.DeviceID // empty for none
	Tags     *Tags
	Groups   *Groups
	Location *Location
	CheckIn  *int64 // seconds, 0 for the learned rhythm
	Notes    *string
	Firmware *string

	// AddTags and AddGroups are set beside those that the device has, DropTags and
	// DropGroups are taken away, after Tags and Groups.
	AddTags    map[string]string
	DropTags   []string
	AddGroups  []string
	DropGroups []string

	bare bool // only a device without credentials and parent is changed
}

// DeviceChange is a Change of one device among many.
type DeviceChange struct {
	ID muster.DeviceID
	Change
}

// Update changes a device, all parts or none, and returns it as it is then: see
// UpdateMany.
func (r *Registry) Update(ctx context.Context, id muster.DeviceID, c Change) (Device, error) {
	ds, err := r.UpdateMany(ctx, []DeviceChange{{id, c}})
	if err != nil {
		return Device{}, err
	}
	return ds[0], nil
}

// UpdateMany changes devices, all parts of all or none, and returns them as they are
// then, in the order of cs; at most MaxBatch, and each once. It reports a device to
// OnRights when it has another profile, and the old and the new parent when it has
// another parent. NotFound when a device does not exist; Invalid when a profile, group
// or parent does not exist or a text is refused; Conflict when a device would be its
// own ancestor or a family deeper than MaxDepth.
func (r *Registry) UpdateMany(ctx context.Context, cs []DeviceChange) ([]Device, error) {
	if len(cs) > MaxBatch {
		return nil, muster.Errorf(muster.TooLarge, "%d devices at once, at most %d are allowed", len(cs), MaxBatch)
	}
	var u update
	err := r.change(ctx, func(ctx context.Context) (err error) {
		u, err = r.update(ctx, cs)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(u.changed) == 0 {
		return u.devices, nil
	}
	if len(u.rights) > 0 {
		r.onRights(func(id muster.DeviceID, _ string) bool {
			_, ok := u.rights[id]
			return ok
		})
	}
	if len(u.moved) > 0 {
		r.children(u.moved)
	}
	r.reshaped(u.changed)
	return u.devices, nil
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

// TakeChild makes a device belong to a gateway, unless it can sign in by itself or has a
// parent: then it is Forbidden.
func (r *Registry) TakeChild(ctx context.Context, id, gateway muster.DeviceID) error {
	_, err := r.Update(ctx, id, Change{Parent: &gateway, bare: true})
	return err
}

// update is what UpdateMany did.
type update struct {
	devices []Device
	changed []muster.DeviceID
	rights  map[muster.DeviceID]struct{} // whose rights are others now
	moved   []muster.DeviceID            // to another parent
}

// update is called in turn.
func (r *Registry) update(ctx context.Context, cs []DeviceChange) (update, error) {
	u := update{devices: make([]Device, 0, len(cs)), rights: map[muster.DeviceID]struct{}{}}
	var entries []*entry
	var news []Device
	seen := make(map[muster.DeviceID]struct{}, len(cs))
	for _, c := range cs {
		e, err := r.entry(c.ID)
		if err != nil {
			return u, err
		}
		if _, twice := seen[c.ID]; twice {
			return u, muster.Errorf(muster.Invalid, "device %s is to be changed twice at once", c.ID)
		}
		seen[c.ID] = struct{}{}
		if c.bare && (len(e.creds) > 0 || e.Parent != "") {
			return u, muster.Errorf(muster.Forbidden, "the device %s has credentials of its own or a gateway", c.ID)
		}
		if err := precondition.Check(ctx, e.Device); err != nil {
			return u, err
		}
		d, err := r.changed(e, c.Change)
		if err != nil {
			return u, err
		}
		u.devices = append(u.devices, d)
		if d != e.Device {
			entries, news = append(entries, e), append(news, d)
		}
	}
	if len(news) == 0 {
		return u, nil
	}
	if err := r.checkMoves(news); err != nil {
		return u, err
	}
	noteUpdated(ctx, muster.MicrosOf(r.now()), entries, news)
	if err := r.store.UpdateDevices(ctx, news); err != nil {
		return u, fmt.Errorf("update %d devices: %w", len(news), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range entries {
		if p := news[i].Parent; p != "" && p != e.Parent {
			u.moved = append(u.moved, e.ID)
		}
		r.replace(e, news[i], u.rights)
		u.changed = append(u.changed, e.ID)
	}
	return u, nil
}

// checkMoves looks at the new parents of many devices together: each move alone may
// be fine and two of them a circle.
func (r *Registry) checkMoves(news []Device) error {
	moved := make(map[muster.DeviceID]muster.DeviceID)
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, d := range news {
		if d.Parent != r.byID[d.ID].Parent {
			moved[d.ID] = d.Parent
		}
	}
	if len(moved) < 2 {
		return nil // checked already
	}
	for id := range moved {
		if r.ancestors(id, moved)+r.height(r.byID[id]) > MaxDepth {
			return errTooDeep()
		}
	}
	return nil
}

// replace puts d in the place of what e is, with the lock held.
func (r *Registry) replace(e *entry, d Device, rights map[muster.DeviceID]struct{}) {
	old := e.Device
	if d.Parent != old.Parent {
		r.unlink(e)
	}
	if d.Groups != old.Groups {
		r.leaveGroups(e)
	}
	r.profiles[old.Profile].uses--
	e.Device = d
	if d.CheckIn != old.CheckIn {
		r.presence.describe(&d, muster.MicrosOf(r.now()))
	}
	r.useProfile(e)
	if d.Groups != old.Groups {
		r.joinGroups(e)
	}
	if d.Profile != old.Profile {
		rights[d.ID] = struct{}{}
	}
	if d.Parent == old.Parent {
		return
	}
	r.link(e)
	for _, parent := range []muster.DeviceID{old.Parent, d.Parent} {
		if parent != "" {
			rights[parent] = struct{}{}
		}
	}
}

// changed returns e's device as c makes it, when that is allowed.
func (r *Registry) changed(e *entry, c Change) (Device, error) {
	d := e.Device
	r.mu.RLock()
	defer r.mu.RUnlock()
	c.write(&d)
	if err := c.labels(&d); err != nil {
		return d, err
	}
	if err := d.check(); err != nil {
		return d, err
	}
	if d.Groups != e.Groups {
		if err := r.checkGroups(d.Groups); err != nil {
			return d, err
		}
	}
	if d.Profile != e.Profile {
		if err := r.checkProfile(d.Profile); err != nil {
			return d, err
		}
	}
	if d.Parent != e.Parent && d.Parent != "" {
		return d, r.checkParent(e, d.Parent)
	}
	return d, nil
}

// write sets the parts that stand for themselves.
func (c *Change) write(d *Device) {
	set(&d.Name, c.Name)
	set(&d.Profile, c.Profile)
	if d.Profile == "" {
		d.Profile = DefaultProfile
	}
	set(&d.Parent, c.Parent)
	set(&d.Tags, c.Tags)
	set(&d.Groups, c.Groups)
	set(&d.Location, c.Location)
	set(&d.CheckIn, c.CheckIn)
	set(&d.Notes, c.Notes)
	set(&d.Firmware, c.Firmware)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// labels adds and drops tags and groups.
func (c *Change) labels(d *Device) (err error) {
	if len(c.AddTags)+len(c.DropTags) > 0 {
		tags := d.Tags.Map()
		for _, k := range c.DropTags {
			delete(tags, k)
		}
		maps.Copy(tags, c.AddTags)
		if d.Tags, err = TagsOf(tags); err != nil {
			return err
		}
	}
	if len(c.AddGroups)+len(c.DropGroups) > 0 {
		groups := d.Groups
		for _, name := range c.DropGroups {
			groups = groups.without(name)
		}
		d.Groups, err = GroupsOf(append(groups.Names(), c.AddGroups...))
	}
	return err
}
