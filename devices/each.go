package devices

import (
	"muster"
)

// Each calls yield with every device in order of id, until it returns false. No lock is
// held meanwhile: devices made or deleted while it runs may be left out.
func (r *Registry) Each(yield func(Device) bool) {
	var cursor muster.DeviceID
	chunk := make([]Device, 0, listChunk)
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
