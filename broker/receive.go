package broker

import (
	"sync"

	"muster/broker/journal"
	"muster/broker/wire"
)

// stage is how far the broker is with a QoS 2 message it received.
type stage uint8

const (
	stageNew     stage = iota // not seen: to be taken in
	stagePending              // taken in, its PUBREC has not left
	stageKept                 // PUBREC sent, PUBREL not received
	stageFreed                // PUBREL received, PUBCOMP leaves when that is durable
	stageFull                 // not seen, and there is no room for it
)

// received remembers the packet ids of QoS 2 messages between PUBLISH and PUBCOMP
// (MQTT 5, section 4.3.3), so that none is taken in twice. It belongs to a session
// and outlives its connections. It holds at most limit ids.
type received struct {
	limit int    // twice the window: PUBRELs that the last connection lost do not count against this one's Receive Maximum
	num   uint64 // of the session, when it is kept

	mu  sync.Mutex
	ids map[uint16]*receipt // nil while there are none
}

type receipt struct {
	item  journal.Item
	num   uint64
	id    uint16
	stage stage
	saved bool  // it is in the journal already, or is being written
	to    *conn // who gets the PUBREC: the connection that sent the PUBLISH last
}

// arrive notes a PUBLISH from c and says what is known of its id.
func (r *received) arrive(id uint16, c *conn) stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x, ok := r.ids[id]; ok {
		if x.to != c && x.stage != stageFreed {
			c.open.Add(1)
		}
		x.to = c
		return x.stage
	}
	if len(r.ids) >= r.limit || c.dialect.Version >= v5 && int(c.open.Load()) >= c.b.cfg.Window {
		return stageFull
	}
	r.put(id).to = c
	c.open.Add(1)
	return stageNew
}

func (r *received) put(id uint16) *receipt {
	if r.ids == nil {
		r.ids = make(map[uint16]*receipt)
	}
	x := &receipt{num: r.num, id: id, stage: stagePending}
	x.item.Owner = x
	r.ids[id] = x
	return x
}

// save returns the receipt of id, which the caller writes down together with its
// message; nil when the session is not kept.
func (r *received) save(id uint16) *receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.ids[id]
	if r.num == 0 || x == nil {
		return nil
	}
	x.saved = true
	return x
}

// settle notes that id's message is decided and returns the connection that gets
// its PUBREC. With write the id must be written down first. With kept false the id
// is free again.
func (r *received) settle(id uint16, kept bool) (to *conn, write bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.ids[id]
	if !ok {
		return nil, false
	}
	if !kept {
		delete(r.ids, id)
		x.to.open.Add(-1)
		return x.to, false
	}
	if r.num != 0 && !x.saved {
		x.saved = true
		return x.to, true
	}
	x.stage = stageKept
	return x.to, false
}

// abandon forgets a message that was not taken in after all.
func (r *received) abandon(id uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ids, id)
}

// free notes a PUBREL and returns its receipt, nil when its id is not known.
func (r *received) free(id uint16) (x *receipt, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.ids[id]
	if !ok || x.stage != stageKept && x.stage != stageFreed {
		return nil, false
	}
	again = x.stage == stageFreed
	x.stage = stageFreed
	if !again && x.to != nil {
		x.to.open.Add(-1)
	}
	return x, again
}

// all takes every id out and returns the items of those that were written down.
func (r *received) all() (items []*journal.Item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.ids {
		if x.saved {
			items = append(items, &x.item)
		}
	}
	r.ids = nil
	return items
}

// recordReceived writes down that a message of a kept session has been taken in; its
// PUBREC leaves when that is durable. It is for messages that are kept elsewhere
// than in the journal: a crash between the two has them sent and taken in again.
func (c *conn) recordReceived(id uint16) {
	r := c.sess.received
	r.mu.Lock()
	x := r.ids[id]
	r.mu.Unlock()
	if x == nil {
		c.recording.Add(-1)
		return
	}
	c.b.journal.WriteFunc(x.AppendRecord, &x.item, nil, func(err error) {
		c.recording.Add(-1)
		if err != nil {
			return // the journal stops, and the client sends it again
		}
		if to, _ := r.settle(id, true); to != nil {
			to.ackWith(nil, wire.Pubrec, id, wire.CodeSuccess, "")
		}
	})
}

// freed handles a PUBREL. The id of a kept session may only be used again when it is
// durable that it is free: else a new message could be taken for the old one.
func (c *conn) freed(sc *scratch, id uint16) {
	r := c.sess.received
	x, again := r.free(id)
	switch {
	case x == nil:
		c.ackWith(&sc.kicks, wire.Pubcomp, id, wire.CodeIDNotFound, "")
	case again: // PUBCOMP is on its way
	case !x.saved:
		r.abandon(id)
		c.ackWith(&sc.kicks, wire.Pubcomp, id, wire.CodeSuccess, "")
	default:
		s := c.sess
		c.b.journal.WriteFunc(func(b []byte) []byte { return appendFreed(b, x.num, id) }, nil, []*journal.Item{&x.item}, func(err error) {
			if err != nil {
				return
			}
			r.abandon(id)
			s.mu.Lock()
			to := s.conn
			s.mu.Unlock()
			if to != nil {
				to.ackWith(nil, wire.Pubcomp, id, wire.CodeSuccess, "")
			}
		})
	}
}
