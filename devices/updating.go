package devices

import "muster"

// SetUpdating says at which of some devices a firmware action is under way: at those for which is says so. Who
// watches is told of those that changed. A device that is not there is ignored.
func (r *Registry) SetUpdating(ids []muster.DeviceID, is func(muster.DeviceID) bool) {
	t := &r.presence
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if p, ok := t.rows[id]; ok {
			t.update(p, is(id))
		}
	}
}

// SetAllUpdating is SetUpdating of all devices. It looks at each, some at a time.
func (r *Registry) SetAllUpdating(is func(muster.DeviceID) bool) {
	ids := make([]muster.DeviceID, 0, eachChunk)
	r.EachID(func(id muster.DeviceID) bool {
		if ids = append(ids, id); len(ids) == cap(ids) {
			r.SetUpdating(ids, is)
			ids = ids[:0]
		}
		return true
	})
	r.SetUpdating(ids, is)
}

// Status returns the status of a device with its presence; false when there is none.
func (r *Registry) Status(id muster.DeviceID) (muster.Status, muster.Presence, bool) {
	r.presence.mu.Lock()
	defer r.presence.mu.Unlock()
	p, ok := r.presence.rows[id]
	if !ok {
		return muster.StatusOf(muster.PresenceNever, false), muster.Presence{State: muster.PresenceNever}, false
	}
	return p.status(), p.presence(), true
}

// update is called with the lock held, like all that follows.
func (t *tracker) update(p *track, updating bool) {
	if p.updating == updating {
		return
	}
	t.count(p, -1)
	p.updating = updating
	t.count(p, 1)
	t.events.touch(p)
}

// count adds p to the counts, or takes it from them.
func (t *tracker) count(p *track, n int) {
	t.counts[p.state] += n
	if p.updating {
		t.busy[p.state] += n
	}
	t.moves++
}

func (p *track) status() muster.Status { return muster.StatusOf(stateNames[p.state], p.updating) }
