package rollout

import (
	"slices"
	"time"

	"muster"
)

// Window is a part of a week, in the zone of the device, in which it may be offered the
// release. To at or before From is on the next day.
type Window struct {
	Days []time.Weekday `json:"days,omitempty"` // on which From lies; every day when empty
	From Clock          `json:"from"`
	To   Clock          `json:"to"`
}

// Clock is a time of day, in minutes after midnight: 0 to 1439.
type Clock int

// lookAhead is how many days Open looks for the next window: more than a week, since a
// window that lies in the hour that a clock change leaves out does not happen that day.
const lookAhead = 15

// Open says whether one of the windows is open at t, whose location is the device's; if not,
// when the next one opens, and the zero time when none ever does. Without windows it is
// always open. A time that a clock change leaves out is as much later, and of one that comes
// twice the first counts (RFC 5545, 3.3.5).
func Open(windows []Window, t time.Time) (open bool, next time.Time) {
	if len(windows) == 0 {
		return true, time.Time{}
	}
	for i := range windows {
		for day := -1; day <= lookAhead; day++ {
			from, to, ok := windows[i].on(t, day)
			switch {
			case !ok || !t.Before(to):
				continue
			case !t.Before(from):
				return true, time.Time{}
			case next.IsZero() || from.Before(next):
				next = from
			}
			break
		}
	}
	return false, next
}

// Closes returns when the last of the windows that are open at t closes; the zero time when none is.
func Closes(windows []Window, t time.Time) (last time.Time) {
	for i := range windows {
		for day := -1; day <= 0; day++ {
			from, to, ok := windows[i].on(t, day)
			if ok && !t.Before(from) && t.Before(to) && to.After(last) {
				last = to
			}
		}
	}
	return last
}

// mostJoined bounds the windows that follow on each other which HoursAt looks along.
const mostJoined = 14

// Hours are what the maintenance windows of a rollout let a device do at a time. It is the one rule for all doors: the
// offers of a rollout, MQTT, hawkBit's DDI, ThingsBoard's topics, and why a device does not get the release.
type Hours struct {
	Bound  bool      // there are windows
	Open   bool      // one is open, or there are none
	Opens  time.Time // when the next does, when none is; the zero time for never
	Closes time.Time // when the last of those that follow on each other does, of one that is open; the zero time for never
}

// HoursAt returns the hours at t, whose location is the device's.
func HoursAt(windows []Window, t time.Time) Hours {
	g := Hours{Bound: len(windows) > 0}
	g.Open, g.Opens = Open(windows, t)
	if !g.Bound || !g.Open {
		return g
	}
	for range mostJoined {
		next := Closes(windows, t)
		if next.IsZero() {
			g.Closes = t
			break
		}
		t = next
	}
	return g
}

// Tells says whether a device in s may be told what it is offered: outside of its windows nothing new is begun. Who
// has begun to fetch the image goes on, since else a link that is slower than a window would never have it.
func (h *Hours) Tells(s State) bool { return h.Open || s > Offered }

// Installs says whether a device in s may begin to install. One that has begun is not told to stop.
func (h *Hours) Installs(s State) bool { return h.Open || s > Downloaded }

// Relook is the deadline of a device whose rollout was given other windows than the deadline was set by: it is looked at
// in the next round, and given another.
const Relook muster.Micros = 1

// on returns when the window that begins so many days after t's opens and closes.
func (w *Window) on(t time.Time, days int) (from, to time.Time, ok bool) {
	y, m, d := t.Date()
	noon := time.Date(y, m, d+days, 12, 0, 0, 0, t.Location()) // every day has one
	if len(w.Days) > 0 && !slices.Contains(w.Days, noon.Weekday()) {
		return from, to, false
	}
	at := func(c Clock, later int) time.Time {
		return local(time.Date(y, m, d+days+later, int(c)/60, int(c)%60, 0, 0, time.UTC), t.Location())
	}
	from, to = at(w.From, 0), at(w.To, 0)
	if w.To <= w.From {
		to = at(w.To, 1)
	}
	return from, to, from.Before(to)
}

// local returns when a clock in a zone shows what wall shows in UTC. time.Date alone would take
// an hour that is left out, and one that comes twice, as the zone lies west or east.
func local(wall time.Time, zone *time.Location) time.Time {
	y, m, d := wall.Date()
	found := time.Date(y, m, d, wall.Hour(), wall.Minute(), 0, 0, zone)
	_, before := found.AddDate(0, 0, -1).Zone()
	if first := wall.Add(-time.Duration(before) * time.Second).In(zone); shows(first, wall) || !shows(found, wall) {
		return first
	}
	return found
}

// shows says whether the clock at t is at a time of day.
func shows(t, wall time.Time) bool { return t.Hour() == wall.Hour() && t.Minute() == wall.Minute() }
