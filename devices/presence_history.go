package devices

import (
	"slices"

	"muster"
)

const (
	daySeconds = 24 * 3600
	// maxDays is how many days of uptime are kept, today's included.
	maxDays = 30
	// maxMarks bounds the transitions kept of one device. Beyond it the shortest
	// stretch is given to the one before it, so that a device that flaps all day keeps
	// a whole strip, in less detail.
	maxMarks = 128
)

// history is how a device fared: the transitions of the last 24 hours, and seconds
// online and offline for each of the last 30 days. At most 1.3 KB, and some 70 bytes
// and 8 a day for a device that stays what it is.
type history struct {
	marks []moment // oldest first; the first may be older than a day
	days  []spent  // oldest first, without gaps
	first int32    // the day of days[0], since 1970
	since uint32   // when the device was first heard of
	upto  uint32   // the time before it is in days
}

// moment is a transition to state, at so many seconds since 1970.
type moment struct {
	at    uint32
	state state
}

// spent is what of a day is known, in seconds.
type spent struct{ online, offline uint32 }

func seconds(m muster.Micros) uint32 { return uint32(m / second) }

// note takes the transition of p to a state at a time into its history.
func (p *track) note(to state, at muster.Micros) {
	if p.history == nil {
		p.history = &history{marks: make([]moment, 1, 2), since: seconds(at), upto: seconds(p.since)}
		p.history.marks[0] = moment{p.history.upto, p.state}
	}
	p.history.mark(to, seconds(at))
}

// mark begins a stretch, and adds the one that ends to the days.
func (h *history) mark(to state, at uint32) {
	last := h.marks[len(h.marks)-1]
	at = max(at, h.upto)
	h.spend(last.state, h.upto, at)
	h.upto = at
	if last.at == at { // it lasted less than a second
		h.marks = h.marks[:len(h.marks)-1]
	}
	if n := len(h.marks); n == 0 || h.marks[n-1].state != to {
		h.marks = append(h.marks, moment{at, to})
	}
	h.prune(at)
}

// prune forgets what ended more than a day ago, and what is too much.
func (h *history) prune(now uint32) {
	n := 0
	for n+1 < len(h.marks) && h.marks[n+1].at+daySeconds <= now {
		n++
	}
	h.marks = slices.Delete(h.marks, 0, n)
	if len(h.marks) <= maxMarks {
		return
	}
	short := 1
	for i := 1; i+1 < len(h.marks); i++ {
		if h.marks[i+1].at-h.marks[i].at < h.marks[short+1].at-h.marks[short].at {
			short = i
		}
	}
	end := short + 1
	if h.marks[end].state == h.marks[short-1].state {
		end++
	}
	h.marks = slices.Delete(h.marks, short, end)
}

// spend adds the time from and until to, in one state, to the days.
func (h *history) spend(s state, from, to uint32) {
	if to > maxDays*daySeconds {
		from = max(from, to-maxDays*daySeconds) // what is older is not kept
	}
	for from < to {
		end := min(to, (from/daySeconds+1)*daySeconds)
		switch s {
		case online, quiet:
			h.day(from).online += end - from
		case offline:
			h.day(from).offline += end - from
		case never, unknown:
		}
		from = end
	}
}

// day returns the day that a time lies in, making room for it.
func (h *history) day(at uint32) *spent {
	d := int32(at / daySeconds)
	if len(h.days) == 0 || d >= h.first+int32(len(h.days))+maxDays {
		h.days, h.first = append(h.days[:0], spent{}), d
	}
	for d >= h.first+int32(len(h.days)) {
		h.days = append(h.days, spent{})
	}
	if over := len(h.days) - maxDays; over > 0 {
		h.days = slices.Delete(h.days, 0, over)
		h.first += int32(over)
	}
	return &h.days[max(d-h.first, 0)] // time only goes on
}

// uptime adds up the last 30 days.
func (p *track) uptime(at muster.Micros) Uptime {
	var u Uptime
	if p.history == nil {
		return u
	}
	now := seconds(at)
	h := *p.history
	h.days = append(make([]spent, 0, len(h.days)+2), h.days...)
	last := h.marks[len(h.marks)-1]
	h.spend(last.state, h.upto, now)
	today := int32(now / daySeconds)
	for i, d := range h.days {
		if h.first+int32(i) > today-maxDays {
			u.Online += int64(d.online)
			u.Offline += int64(d.offline)
		}
	}
	began := max(int64(h.since), int64(today-maxDays+1)*daySeconds)
	u.Unknown = max(int64(now)-began-u.Online-u.Offline, 0)
	return u
}

// strip returns the stretches of the last 24 hours.
func (p *track) strip(now muster.Micros) []Stretch {
	from := now - 24*hour
	if p.history == nil {
		return []Stretch{{State: stateNames[p.state], From: max(min(p.since, now), from), To: now}}
	}
	marks := p.history.marks
	out := make([]Stretch, 0, len(marks))
	for i, m := range marks {
		s := Stretch{State: stateNames[m.state], From: max(muster.Micros(m.at)*second, from), To: now}
		if i+1 < len(marks) {
			s.To = muster.Micros(marks[i+1].at) * second
		}
		if s.To > s.From {
			out = append(out, s)
		}
	}
	return out
}
