package devices

import (
	"slices"

	"muster"
)

// MaxDepth is how many ancestors a device may have: its parent, the parent's
// parent, and so on.
const MaxDepth = 4

// Parent returns the gateway that a device belongs to, empty for none. It is quick:
// the broker asks it when a gateway publishes for another device.
func (r *Registry) Parent(id muster.DeviceID) muster.DeviceID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e, ok := r.byID[id]; ok {
		return e.Parent
	}
	return ""
}

// Children returns the devices whose parent is parent, in order of id, or NotFound.
// A child's own children are not among them.
func (r *Registry) Children(parent muster.DeviceID) ([]muster.DeviceID, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[parent]
	if !ok {
		return nil, errNoDevice()
	}
	return slices.Clone(e.children), nil
}

// link makes e a child of its parent, with the lock held.
func (r *Registry) link(e *entry) {
	p, ok := r.byID[e.Parent]
	if !ok {
		return
	}
	e.Parent = p.ID // the same text for all children
	r.presence.adopt(e.ID, p.ID)
	if i, found := slices.BinarySearch(p.children, e.ID); !found {
		p.children = slices.Insert(p.children, i, e.ID)
	}
}

// unlink undoes link, with the lock held.
func (r *Registry) unlink(e *entry) {
	p, ok := r.byID[e.Parent]
	if !ok {
		return
	}
	if i, found := slices.BinarySearch(p.children, e.ID); found {
		p.children = slices.Delete(p.children, i, i+1)
	}
	if len(p.children) == 0 {
		p.children = nil
	}
	r.presence.adopt(e.ID, "")
}

// cutOff takes a device that goes away out of its family and its profile, with the
// lock held, and returns its children, which have no parent any more.
func (r *Registry) cutOff(e *entry) []muster.DeviceID {
	r.unlink(e)
	r.profiles[e.Profile].uses--
	for _, id := range e.children {
		r.byID[id].Parent = ""
		r.presence.adopt(id, "")
	}
	return e.children
}

// linkParents links what was loaded and returns how many devices have lost their
// parent: one that is not there, or too far up, is an inconsistent store's.
func (r *Registry) linkParents() (lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.order {
		if e.Parent == "" {
			continue
		}
		if _, ok := r.byID[e.Parent]; !ok || r.ancestors(e.Parent, nil)+1 > MaxDepth {
			e.Parent = ""
			lost++
			continue
		}
		r.link(e)
	}
	return lost
}

// ancestors counts those of id, up to one more than MaxDepth, with the lock held.
// made has the parents of devices that are about to be made.
func (r *Registry) ancestors(id muster.DeviceID, made map[muster.DeviceID]muster.DeviceID) int {
	for n := 0; ; n++ {
		parent, ok := made[id]
		if e, exists := r.byID[id]; !ok && exists {
			parent = e.Parent
		}
		if parent == "" || n > MaxDepth {
			return n
		}
		id = parent
	}
}

// height counts the generations below e, with the lock held. It ends at MaxDepth,
// which no family exceeds.
func (r *Registry) height(e *entry) int {
	h := 0
	for _, id := range e.children {
		h = max(h, 1+r.height(r.byID[id]))
	}
	return h
}

// checkPlaces refuses a profile or parent that is not there, and a family that is
// too deep or runs in a circle.
func (r *Registry) checkPlaces(b *batch) error {
	made := make(map[muster.DeviceID]muster.DeviceID, len(b.devices))
	for _, d := range b.devices {
		made[d.ID] = d.Parent
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, d := range b.devices {
		if err := r.checkProfile(d.Profile); err != nil {
			return err
		}
		if err := r.checkGroups(d.Groups); err != nil {
			return err
		}
		if d.Parent == "" {
			continue
		}
		_, exists := r.byID[d.Parent]
		if _, comes := made[d.Parent]; !exists && !comes {
			return errNoParent()
		}
		if r.ancestors(d.ID, made) > MaxDepth {
			return errTooDeep()
		}
	}
	return nil
}

// checkParent says whether parent may become e's, with the lock held.
func (r *Registry) checkParent(e *entry, parent muster.DeviceID) error {
	if _, ok := r.byID[parent]; !ok {
		return errNoParent()
	}
	up := parent
	for range MaxDepth + 1 {
		if up == e.ID {
			return errOwnAncestor()
		}
		if up == "" {
			break
		}
		up = r.byID[up].Parent
	}
	if r.ancestors(parent, nil)+1+r.height(e) > MaxDepth {
		return errTooDeep()
	}
	return nil
}

func (r *Registry) checkProfile(name string) error {
	if _, ok := r.profiles[name]; !ok {
		return muster.InvalidAt("profile", "there is no such profile")
	}
	return nil
}

func errNoParent() error {
	return muster.InvalidAt("parent", "the device that is to be the parent does not exist")
}

func errOwnAncestor() error {
	return muster.Errorf(muster.Conflict, "the device would be its own ancestor")
}

func errTooDeep() error {
	return muster.Errorf(muster.Conflict, "a device may have at most %d ancestors", MaxDepth)
}
