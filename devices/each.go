package devices

import (
	"slices"
	"strings"

	"muster"
)

// Each calls yield with every device in order of id, until it returns false. No lock is
// held meanwhile: devices made or deleted while it runs may be left out.
func (r *Registry) Each(yield func(Device) bool) {
	var cursor muster.DeviceID
	chunk := make([]Device, 0, eachChunk)
	for {
		chunk = r.chunkAfter(cursor, chunk[:0])
		for _, d := range chunk {
			cursor = d.ID
			if !yield(d) {
				return
			}
		}
		if len(chunk) < cap(chunk) {
			return
		}
	}
}

// chunkAfter fills into up to its capacity with the devices after id.
func (r *Registry) chunkAfter(id muster.DeviceID, into []Device) []Device {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.after(id) {
		if len(into) == cap(into) {
			break
		}
		into = append(into, e.Device)
	}
	return into
}

// after returns all entries behind id, with the lock held.
func (r *Registry) after(id muster.DeviceID) []*entry {
	i, found := slices.BinarySearchFunc(r.order, id, func(e *entry, id muster.DeviceID) int {
		return strings.Compare(string(e.ID), string(id))
	})
	if found {
		i++
	}
	return r.order[i:]
}
