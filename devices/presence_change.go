package devices

import (
	"slices"

	"muster"
)

// PresenceChange is how the presence of the fleet differs from what it was at Since.
type PresenceChange struct {
	Since  muster.Micros
	Counts map[muster.PresenceState]int // now, less then, of the devices whose state then is known
	Silent int                          // devices that are offline or quiet, are not updating, and were online at some time since
	Cause  Cause                        // of those; the zero Cause when there is no one cause
}

// Cause is what most of the devices that went silent have in common.
type Cause struct {
	Kind     string // CauseGateway, CauseGroup or CauseFirmware; empty for no cause
	Name     string
	State    muster.PresenceState // offline or quiet, when all of them are; else empty
	Devices  int                  // how many of those that went silent it has
	Together int                  // how many of these did so within one minute
	At       muster.Micros        // when that minute began
}

// The kinds of Cause.
const (
	CauseGateway  = "gateway"
	CauseGroup    = "group"
	CauseFirmware = "firmware"
)

// leastCause is how many devices a cause has at least.
const leastCause = 5

// ChangeSince compares the fleet's presence with what it was at a time, at most a day ago,
// and says what most of the devices have in common that went silent since:
// named only when it has half of them and no less than five, and, of a group or a version,
// when it has more of them than of the fleet. It looks at each device.
func (r *Registry) ChangeSince(since muster.Micros) PresenceChange {
	c := comparison{since: since, by: map[share]*common{}}
	total := 0
	r.eachPresent(func(e *entry) {
		c.look(e)
		total++
	})
	out := PresenceChange{Since: since, Counts: make(map[muster.PresenceState]int, len(stateNames)), Silent: c.silent}
	for s, name := range stateNames {
		out.Counts[name] = c.counts[s]
	}
	out.Cause = c.cause(func(s share) float64 { return float64(r.sizeOf(s)) / float64(max(total, 1)) })
	return out
}

// sizeOf counts the devices of a group or with a version.
func (r *Registry) sizeOf(s share) (n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s.kind == CauseGroup {
		if g := r.groups[s.name]; g != nil {
			n = len(g.members)
		}
		return n
	}
	for _, e := range r.order {
		if e.Firmware == s.name {
			n++
		}
	}
	return n
}

// share is what devices can have in common.
type share struct{ kind, name string }

// common are those devices that went silent which share something.
type common struct {
	at             []muster.Micros // when each did
	quiet, offline int
}

type comparison struct {
	since  muster.Micros
	counts [len(stateNames)]int
	silent int
	by     map[share]*common
}

// look is called with the locks of the registry and of presence held.
func (c *comparison) look(e *entry) {
	p := e.track
	if was, known := p.stateAt(c.since); known { // what was not there then has not changed
		c.counts[p.state]++
		c.counts[was]--
	}
	if p.state != offline && (p.state != quiet || p.updating) || !p.onlineSince(c.since) {
		return
	}
	c.silent++
	if e.Parent != "" {
		c.take(share{CauseGateway, string(e.Parent)}, p)
	}
	if e.Firmware != "" {
		c.take(share{CauseFirmware, e.Firmware}, p)
	}
	for name := range e.Groups.All() {
		c.take(share{CauseGroup, name}, p)
	}
}

func (c *comparison) take(s share, p *track) {
	m := c.by[s]
	if m == nil {
		m = &common{}
		c.by[s] = m
	}
	m.at = append(m.at, p.since)
	if p.state == quiet {
		m.quiet++
	} else {
		m.offline++
	}
}

// stateAt returns what a device was at a time; false when there was no such device, or its history does not reach back so far.
func (p *track) stateAt(at muster.Micros) (state, bool) {
	if p.since <= at {
		return p.state, true
	}
	if p.history == nil {
		return never, false
	}
	was, known := never, false
	for _, m := range p.history.marks {
		if muster.Micros(m.at)*second > at {
			break
		}
		was, known = m.state, true
	}
	return was, known
}

// onlineSince says whether a device that is not online was so at some time since at.
func (p *track) onlineSince(at muster.Micros) bool {
	if p.history == nil || p.since <= at {
		return false
	}
	marks := p.history.marks
	for i := range len(marks) - 1 {
		if marks[i].state == online && muster.Micros(marks[i+1].at+1)*second > at {
			return true
		}
	}
	return false
}

// cause returns what has the most of those that went silent: a gateway before a group, and
// that before a version.
func (c *comparison) cause(ofFleet func(share) float64) Cause {
	for _, kind := range []string{CauseGateway, CauseGroup, CauseFirmware} {
		best, most := share{}, 0
		for s, m := range c.by {
			n := len(m.at)
			if s.kind != kind || n < leastCause || 2*n < c.silent || n < most || n == most && s.name > best.name {
				continue
			}
			if kind == CauseGateway || float64(n)/float64(c.silent) > ofFleet(s) {
				best, most = s, n
			}
		}
		if most > 0 {
			return c.by[best].cause(best)
		}
	}
	return Cause{}
}

func (m *common) cause(s share) Cause {
	out := Cause{Kind: s.kind, Name: s.name, Devices: len(m.at)}
	switch {
	case m.quiet == 0:
		out.State = muster.PresenceOffline
	case m.offline == 0:
		out.State = muster.PresenceQuiet
	}
	slices.Sort(m.at)
	from := 0
	for to := range m.at {
		for m.at[to]-m.at[from] > minute {
			from++
		}
		if n := to - from + 1; n > out.Together {
			out.Together, out.At = n, m.at[from]
		}
	}
	return out
}
