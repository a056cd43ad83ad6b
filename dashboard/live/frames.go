package live

import (
	"math/bits"
	"slices"
	"strconv"

	"muster"
)

// message is what is written in one WebSocket message: one JSON object, or an
// array of several.
type message struct {
	b      []byte // starts with the bracket that a single object does not need
	frames int
	sse    bool     // an event of a stream each, and no bracket
	from   int      // where the frame under way begins; of sse only
	id     string   // of the next event; of sse only, empty for none
	binary [][]byte // messages that follow; not changed
}

// next makes room for one more object.
func (m *message) next() {
	switch {
	case m.sse:
		m.endEvent()
		if m.id != "" {
			m.put("id: ")
			m.put(m.id)
			m.put("\n")
			m.id = ""
		}
		m.put("data: ")
		m.from = len(m.b)
	case m.frames > 0:
		m.b = append(m.b, ',')
	}
	m.frames++
}

// endEvent ends the event of the frame before, if there is one. What stands between the
// tokens of JSON that came from outside may be a line break, which an event has not.
func (m *message) endEvent() {
	if m.frames == 0 {
		return
	}
	for i := m.from; i < len(m.b); i++ {
		if m.b[i] == '\n' || m.b[i] == '\r' {
			m.b[i] = ' '
		}
	}
	m.put("\n\n")
}

func (m *message) add(frame []byte) {
	m.next()
	m.b = append(m.b, frame...)
}

// bytes returns what to write; nil when there is nothing.
func (m *message) bytes() []byte {
	switch {
	case m.frames == 0:
		return nil
	case m.sse:
		m.endEvent()
		return m.b
	case m.frames == 1:
		return m.b[1:]
	}
	m.b = append(m.b, ']')
	return m.b
}

// mark and undo take back a frame that turned out empty.
func (m *message) mark() message { return *m }

func (m *message) undo(to message)    { m.b, m.frames, m.from = m.b[:len(to.b)], to.frames, to.from }
func (m *message) put(s string)       { m.b = append(m.b, s...) }
func (m *message) putString(s string) { m.b = appendString(m.b, s) }

// open starts a frame of type t on the channel of s. The sequence is counted up
// when the frame is kept (see sub.counted).
func (m *message) open(t string, s *sub) {
	m.next()
	m.put(`{"t":"`)
	m.put(t)
	m.put(`","ch":`)
	m.putString(s.ch)
	if s.kind == kindEvents || s.kind == kindInbox { // its numbers are the source's
		return
	}
	m.put(`,"seq":`)
	m.b = strconv.AppendUint(m.b, *s.seq+1, 10)
}

// snapshot appends the whole state of s, as the answer to re when answers is set.
func (g *Gateway) snapshot(m *message, s *sub, re int64, answers bool) {
	version := g.version.Load() // before the marks, which are before the rows
	s.takeMarks(func(int) {})
	if s.kind == kindDevice && (s.rows[0].isGone() || !s.sees(s.id)) {
		s.epochs[0] = dead
		m.add(goneFrame(s, re, answers))
		return
	}
	if (s.kind == kindTask || s.kind == kindRollout || s.kind == kindHere) && !g.lookAtOne(s) {
		m.add(goneFrame(s, re, answers))
		return
	}
	if m.sse && s.kind == kindInbox {
		m.id = s.inbox.placeOf(s.inbox.follow.At())
	}
	m.open("snapshot", s)
	if answers {
		m.put(`,"re":`)
		m.b = strconv.AppendInt(m.b, re, 10)
	}
	switch s.kind {
	case kindSystem:
		g.systemSnapshot(m, s)
	case kindTasks:
		g.tasksSnapshot(m, s)
	case kindTask, kindRollout, kindHere:
		m.put(`,"item":`)
		m.b = append(m.b, s.told[s.task]...)
	case kindEvents:
		m.eventsSnapshot(s)
		return
	case kindInbox:
		m.inboxSnapshot(s)
		return
	case kindDots:
		m.dotsSnapshot(s)
		m.put("}")
		*s.seq++
		return
	case kindFleet:
		body, v := g.fleet.get()
		s.fleetSent.Store(v)
		m.put(`,"item":`)
		m.b = append(m.b, body...)
	case kindDevice:
		m.put(`,"item":`)
		m.b, s.epochs[0] = s.rows[0].page(m.b)
	case kindDevices:
		m.list(s)
	}
	m.put("}")
	s.since = version
	*s.seq++
}

func (m *message) list(s *sub) {
	m.put(`,"items":[`)
	first := true
	for i, r := range s.rows {
		if s.epochs[i] != dead && !s.sees(r.id) {
			s.epochs[i] = dead
		}
		if s.epochs[i] != dead {
			m.b, s.epochs[i] = r.listItem(m.b, &first, s.cols)
		}
	}
	m.put(`],"total":`)
	m.b = strconv.AppendInt(m.b, int64(s.total), 10)
	m.put(`,"next":`)
	m.putString(s.next)
}

// listItem appends r to the items of a snapshot, unless the device has been
// removed meanwhile, and returns its epoch.
func (r *row) listItem(b []byte, first *bool, cols []string) ([]byte, uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gone {
		b = r.appendListItem(appendComma(b, first), cols)
	}
	return b, r.epoch
}

// page appends r's whole page and returns its epoch.
func (r *row) page(b []byte) ([]byte, uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.appendPage(b, 0, true), r.epoch
}

func goneFrame(s *sub, re int64, answers bool) []byte {
	var id *int64
	if answers {
		id = &re
	}
	what := "device"
	if s.kind == kindTask {
		what = "task"
	}
	if s.kind == kindRollout {
		what = "rollout"
	}
	return errorFrame(id, s.ch, muster.NotFound.String(), "the "+what+" has been removed", false)
}

// delta appends what changed since the last frame of s; nothing when nothing did.
func (g *Gateway) delta(m *message, s *sub) {
	before := m.mark()
	kept := false
	switch s.kind {
	case kindEvents:
		g.eventFrames(m, s)
		return
	case kindInbox:
		g.inboxFrames(m, s)
		return
	case kindDots:
		g.dotsDelta(m, s)
		return
	case kindSystem:
		kept = g.systemDelta(m, s)
	case kindTasks:
		kept = g.tasksDelta(m, s)
	case kindTask, kindRollout, kindHere:
		kept = g.oneDelta(m, s)
	case kindFleet:
		kept = g.fleetDelta(m, s)
	case kindDevice:
		kept = g.pageDelta(m, s)
	case kindDevices:
		kept = g.listDelta(m, s)
		if !kept && s.anew {
			s.anew = false
			m.undo(before)
			g.snapshot(m, s, 0, false)
			return
		}
	}
	if !kept {
		m.undo(before)
		return
	}
	*s.seq++
}

func (g *Gateway) fleetDelta(m *message, s *sub) bool {
	body, v := g.fleet.get()
	if s.fleetSent.Swap(v) == v {
		return false
	}
	m.open("delta", s)
	m.put(`,"set":`)
	m.b = append(m.b, body...)
	m.put("}")
	return true
}

// pageDelta: a device that was removed is a del, one that was made anew comes as
// a snapshot.
func (g *Gateway) pageDelta(m *message, s *sub) bool {
	version := g.version.Load()
	marked := false
	s.takeMarks(func(int) { marked = true })
	if !marked {
		return false
	}
	r, was, since := s.rows[0], s.epochs[0], s.since
	seen := s.sees(r.id)
	r.mu.Lock()
	defer r.mu.Unlock()
	s.since, s.epochs[0] = version, r.epoch
	switch {
	case r.gone || !seen:
		s.epochs[0] = dead
		if was == dead {
			return false
		}
		m.open("delta", s)
		m.put(`,"del":[`)
		m.putString(string(s.id))
		m.put("]}")
		return true
	case r.epoch != was:
		m.open("snapshot", s)
		m.put(`,"item":`)
		m.b = r.appendPage(m.b, 0, true)
		m.put("}")
		return true
	}
	m.open("delta", s)
	m.put(`,"set":`)
	start := len(m.b)
	m.b = r.appendPage(m.b, since, false)
	empty := len(m.b) == start+len("{}")
	m.put("}")
	return !empty
}

// listDelta never adds or reorders rows: it patches, removes, and tells how many
// more devices match than when the list was read. When a device was made anew a
// patch cannot tell it: s.anew is set and the list is sent again.
func (g *Gateway) listDelta(m *message, s *sub) bool {
	version := g.version.Load()
	m.open("delta", s)
	bare := len(m.b)
	m.put(`,"set":{`)
	empty := len(m.b)
	first := true
	var removed []int
	s.takeMarks(func(at int) {
		if s.epochs[at] == dead {
			return
		}
		is := fateGone
		if s.sees(s.rows[at].id) {
			m.b, is = s.rows[at].listPatch(m.b, &first, s.since, s.epochs[at], s.cols)
		}
		switch is {
		case fateSame:
		case fateGone:
			s.epochs[at] = dead
			removed = append(removed, at)
		case fateAnew:
			s.anew = true
		}
	})
	if s.anew {
		return false
	}
	s.since = version
	if len(m.b) == empty {
		m.b = m.b[:bare]
	} else {
		m.put("}")
	}
	for i, at := range removed {
		m.put([2]string{`,"del":[`, `,`}[min(i, 1)])
		m.putString(string(s.rows[at].id))
	}
	if len(removed) > 0 {
		m.put("]")
	}
	if s.drifted.Swap(false) {
		matches := s.matches.Load()
		m.put(`,"drift":{"new":`)
		m.b = strconv.AppendInt(m.b, max(0, matches-int64(s.total)), 10)
		m.put(`,"total":`)
		m.b = strconv.AppendInt(m.b, matches, 10)
		m.put("}")
	}
	if len(m.b) == bare {
		return false
	}
	m.put("}")
	return true
}

// fate is what has become of a row since it was sent whole.
type fate uint8

const (
	fateSame fate = iota
	fateGone
	fateAnew
)

// listPatch appends what changed after since of the row that was sent at epoch.
func (r *row) listPatch(b []byte, first *bool, since uint64, epoch uint32, cols []string) ([]byte, fate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.gone && r.epoch == epoch: // it was gone then, and not sent
		return b, fateSame
	case r.gone:
		return b, fateGone
	case r.epoch != epoch:
		return b, fateAnew
	}
	start := len(b)
	if !*first {
		b = append(b, ',')
	}
	body := len(b)
	b = r.appendListPatch(b, since, cols)
	if len(b) == body {
		return b[:start], fateSame
	}
	*first = false
	return b, fateSame
}

// takeMarks clears the marks of s and calls each for the rows that had one.
func (s *sub) takeMarks(each func(at int)) {
	if s.view == nil {
		return
	}
	for i := range s.dirty {
		for w := s.dirty[i].Swap(0); w != 0; w &= w - 1 {
			each(i*64 + bits.TrailingZeros64(w))
		}
	}
}

// sortedCols returns the keys of cols in order, nil when there are none.
func sortedCols(cols []string) []string {
	if len(cols) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(cols)))
}
