package devices

import "muster"

// Families are the parents that devices have once a list that is being checked is done:
// what is put, and for the others what the registry has. The zero value has nothing put;
// nil likewise. One goroutine uses it at a time.
type Families struct {
	up   map[muster.DeviceID]muster.DeviceID
	down map[muster.DeviceID]map[muster.DeviceID]struct{}
}

// Put notes that the device id will have this parent, empty for none. The registry has
// been asked before whether it may: CheckSpec, CheckChange.
func (f *Families) Put(id, parent muster.DeviceID) {
	if f.up == nil {
		f.up, f.down = map[muster.DeviceID]muster.DeviceID{}, map[muster.DeviceID]map[muster.DeviceID]struct{}{}
	}
	delete(f.down[f.up[id]], id)
	f.up[id] = parent
	if parent == "" {
		return
	}
	if f.down[parent] == nil {
		f.down[parent] = map[muster.DeviceID]struct{}{}
	}
	f.down[parent][id] = struct{}{}
}

// parents is nil for nil.
func (f *Families) parents() map[muster.DeviceID]muster.DeviceID {
	if f == nil {
		return nil
	}
	return f.up
}

// heightIn counts the generations that will be below id, up to left; with the lock held.
func (r *Registry) heightIn(f *Families, id muster.DeviceID, left int) int {
	h := 0
	if left == 0 { // the registry changed since some of f was checked
		return h
	}
	if e, ok := r.byID[id]; ok {
		for _, child := range e.children {
			if _, moved := f.up[child]; !moved {
				h = max(h, 1+r.heightIn(f, child, left-1))
			}
		}
	}
	for child := range f.down[id] {
		h = max(h, 1+r.heightIn(f, child, left-1))
	}
	return h
}

// checkParentIn is checkParent for families as they will be.
func (r *Registry) checkParentIn(f *Families, id, parent muster.DeviceID) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for up, n := parent, 0; up != "" && n <= MaxDepth; n++ {
		e, exists := r.byID[up]
		next, put := f.up[up]
		switch {
		case up == id:
			return errOwnAncestor()
		case !put && !exists:
			return errNoParent()
		case !put:
			next = e.Parent
		}
		up = next
	}
	if parent != "" && r.ancestors(parent, f.up)+1+r.heightIn(f, id, MaxDepth+1) > MaxDepth {
		return errTooDeep()
	}
	return nil
}

// CheckSpec says whether s could be made now, when families are as in f. It changes
// nothing.
func (r *Registry) CheckSpec(s Spec, f *Families) error {
	coming := f.parents()
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

// CheckChange says whether the device id could be changed now as c says, when families
// are as in f. It changes nothing.
func (r *Registry) CheckChange(id muster.DeviceID, c Change, f *Families) error {
	e, err := r.entry(id)
	if err != nil {
		return err
	}
	if c.Parent != nil && f != nil {
		if err := r.checkParentIn(f, id, *c.Parent); err != nil {
			return err
		}
		c.Parent = nil
	}
	_, err = r.changed(e, c)
	return err
}
