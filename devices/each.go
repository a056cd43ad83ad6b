package devices

import (
	"slices"

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
	i, found := slices.BinarySearchFunc(r.order, &entry{Device: Device{ID: id}}, compareEntries)
	if found {
		i++
	}
	for ; i < len(r.order) && len(into) < cap(into); i++ {
		into = append(into, r.order[i].Device)
	}
	return into
}
