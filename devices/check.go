package devices

import "muster"

// CheckSpec says whether s could be made now, when the devices in coming are there
// already: the parent of each by its id. It changes nothing.
func (r *Registry) CheckSpec(s Spec, coming map[muster.DeviceID]muster.DeviceID) error {
	b, err := r.prepare([]Spec{s})
	if err != nil {
		return err
	}
	if err := r.checkFree(b); err != nil {
		return err
	}
	d := &b.devices[0]
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.checkProfile(d.Profile); err != nil {
		return err
	}
	if err := r.checkGroups(d.Groups); err != nil {
		return err
	}
	if d.Parent == "" {
		return nil
	}
	_, exists := r.byID[d.Parent]
	if _, comes := coming[d.Parent]; !exists && !comes {
		return errNoParent()
	}
	if d.Parent == d.ID || r.ancestors(d.Parent, coming)+1 > MaxDepth {
		return errTooDeep()
	}
	return nil
}

// CheckChange says whether the device id could be changed now as c says, when the
// devices in coming are there already. It changes nothing.
func (r *Registry) CheckChange(id muster.DeviceID, c Change, coming map[muster.DeviceID]muster.DeviceID) error {
	e, err := r.entry(id)
	if err != nil {
		return err
	}
	if c.Parent != nil {
		r.mu.RLock()
		_, comes := coming[*c.Parent]
		deep := comes && r.ancestors(*c.Parent, coming)+1+r.height(e) > MaxDepth
		r.mu.RUnlock()
		if deep {
			return errTooDeep()
		}
		if comes {
			c.Parent = nil
		}
	}
	_, err = r.changed(e, c)
	return err
}
