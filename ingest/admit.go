package ingest

import "muster"

// maxAdmit is how often a device is looked for again while others are deleted.
const maxAdmit = 1000

// keepStray keeps as rejected a message of a device that is not in the registry, as one
// of no device: whoever publishes in such a name is seen, and the next device of that
// name begins with nothing. One of a device that is being erased is only counted.
func (in *Ingest) keepStray(m Message, code, reason string, size int) {
	if in.cfg.Erasures != nil && in.cfg.Erasures.IsErasing(m.Device) {
		return
	}
	m.Device, m.From, m.Untraced = "", nil, true
	if dev, err := in.admit(m.Device); err == nil {
		in.refuse(dev, &m, code, reason, size)
	}
}

// admit returns what is kept of a device. One that is not in the registry is NotFound,
// and counted.
func (in *Ingest) admit(id muster.DeviceID) (*device, error) {
	if d := in.fleet.find(id); d != nil && d.known.Load() {
		return d, nil
	}
	for range maxAdmit {
		seen := in.builder.deleted()
		if in.cfg.Known != nil && id != "" && !in.cfg.Known(id) {
			return nil, in.unknown()
		}
		if d := in.fleet.get(id); in.builder.join(d, seen) {
			return d, nil
		}
	}
	return nil, muster.Errorf(muster.Busy, "too many devices are being deleted")
}

// unknown counts a payload of a device that is not there.
func (in *Ingest) unknown() error {
	in.metrics.unknown.Inc()
	return muster.Errorf(muster.NotFound, "there is no such device")
}

// deleted returns how many deletions there were.
func (b *builder) deleted() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.deletions
}

// join lets d's messages in, unless a device was deleted since there were seen
// deletions: it may be d.
func (b *builder) join(d *device, seen uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deletions != seen {
		return false
	}
	d.known.Store(true)
	return true
}

// leave lets none of d's messages in any more. d may be nil, for a device that is just
// being looked for.
func (b *builder) leave(d *device) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deletions++
	if d != nil {
		d.known.Store(false)
	}
}

// mark returns how many frames of this run there are with all that was accepted.
func (b *builder) mark() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.taking + uint64(len(b.sealed))
	if b.cur.count() > 0 {
		n++
	}
	return n
}

// progress returns how many frames of this run are durable, and a channel that is
// closed when the store has more of them.
func (b *builder) progress() (done uint64, moved <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.durable, b.room
}
