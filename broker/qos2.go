package broker

import "sync"

// stage is how far the broker is with a QoS 2 message it received.
type stage uint8

const (
	stageNew     stage = iota // not seen: to be taken in
	stagePending              // taken in, its PUBREC has not left
	stageKept                 // PUBREC sent, PUBREL not received
	stageFull                 // not seen, and there is no room for it
)

// received remembers the packet ids of QoS 2 messages between PUBLISH and PUBREL
// (MQTT 5, section 4.3.3), so that none is taken in twice. It belongs to a session
// and outlives its connections. It holds at most limit ids.
type received struct {
	limit int

	mu  sync.Mutex
	ids map[uint16]*receipt // nil while there are none
}

type receipt struct {
	stage stage
	to    *conn // who gets the PUBREC: the connection that sent the PUBLISH last
}

// arrive notes a PUBLISH from c and says what is known of its id.
func (r *received) arrive(id uint16, c *conn) stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x, ok := r.ids[id]; ok {
		x.to = c
		return x.stage
	}
	if len(r.ids) >= r.limit {
		return stageFull
	}
	if r.ids == nil {
		r.ids = make(map[uint16]*receipt)
	}
	r.ids[id] = &receipt{stage: stagePending, to: c}
	return stageNew
}

// settle notes that id's PUBREC leaves now and returns the connection that gets
// it. With kept false the id is free again.
func (r *received) settle(id uint16, kept bool) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.ids[id]
	if !ok {
		return nil
	}
	x.stage = stageKept
	if !kept {
		delete(r.ids, id)
	}
	return x.to
}

// abandon forgets a message that was not taken in after all.
func (r *received) abandon(id uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ids, id)
}

// release notes a PUBREL and says whether its id was waiting for one.
func (r *received) release(id uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.ids[id]
	if !ok || x.stage != stageKept {
		return false
	}
	delete(r.ids, id)
	return true
}
