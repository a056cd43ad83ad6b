package trail

import "muster"

// Has says whether the trace holds messages of a device. It watches nothing.
func (t *Trace) Has(device muster.DeviceID) bool {
	s := t.shard(device)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[device] != nil
}
