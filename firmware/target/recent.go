package target

import (
	"cmp"
	"container/list"
	"encoding/json"
	"slices"
	"time"

	"muster"
	"muster/devices"
	"muster/firmware"
	"muster/firmware/desk"
	"muster/firmware/rollout"
)

// recent remembers when each of the newest so many was noted.
type recent struct {
	limit int
	byID  map[muster.DeviceID]*list.Element
	order *list.List // of noted, the newest in front
}

type noted struct {
	id muster.DeviceID
	at time.Time
}

func newRecent(limit int) *recent {
	return &recent{limit: limit, byID: map[muster.DeviceID]*list.Element{}, order: list.New()}
}

func (r *recent) note(id muster.DeviceID, at time.Time) {
	if e, ok := r.byID[id]; ok {
		e.Value = noted{id, at}
		r.order.MoveToFront(e)
		return
	}
	r.byID[id] = r.order.PushFront(noted{id, at})
	if r.order.Len() > r.limit {
		oldest := r.order.Back()
		delete(r.byID, oldest.Value.(noted).id) //nolint:forcetypeassert // only noted are put in
		r.order.Remove(oldest)
	}
}

func (r *recent) at(id muster.DeviceID) (time.Time, bool) {
	e, ok := r.byID[id]
	if !ok {
		return time.Time{}, false
	}
	return e.Value.(noted).at, true //nolint:forcetypeassert // only noted are put in
}

const (
	// blockAfter failed attempts within blockTime a device is offered nothing by other rollouts than those that
	// they are of, until the first of them is as long ago: in their own its plan says how many there are.
	blockAfter = 3
	blockTime  = 24 * time.Hour
	// MaxFailures bounds the failures that are remembered; of more the newest count.
	MaxFailures = 100_000
)

// failures are the newest of each device, the oldest first: at most blockAfter of a rollout, and twice that in all, so that
// whichever rollout is left out the newest blockAfter of the others are among them.
type failures map[muster.DeviceID][]failure

type failure struct {
	rollout string
	at      muster.Micros
}

func newFailures() failures { return failures{} }

func (f failures) add(x desk.Failure) {
	list := append(slices.Clone(f[x.Device]), failure{x.Rollout, x.At})
	slices.SortStableFunc(list, func(a, b failure) int { return cmp.Compare(a.at, b.at) })
	of := func(y failure) bool { return y.rollout == x.Rollout }
	if n := len(list) - len(slices.DeleteFunc(slices.Clone(list), of)); n > blockAfter {
		oldest := slices.IndexFunc(list, of)
		list = slices.Delete(list, oldest, oldest+1)
	}
	f[x.Device] = list[max(0, len(list)-2*blockAfter):]
}

// SetFailures is told all that failed since a day ago, as the store has it.
func (f *Fleet) SetFailures(list []desk.Failure) {
	next := newFailures()
	for _, x := range list {
		next.add(x)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = next
}

// FailuresSince returns since when SetFailures must know.
func FailuresSince(now time.Time) muster.Micros { return muster.MicrosOf(now.Add(-blockTime)) }

// Changed is told what a rollout did, so that a failure counts at once.
func (f *Fleet) Changed(rollout string, changes []rollout.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range changes {
		if c := &changes[i]; c.Failed() && (len(f.failures) < MaxFailures || f.failures[c.Device] != nil) {
			f.failures.add(desk.Failure{Device: c.Device, Rollout: rollout, At: c.At})
		}
	}
}

// blocked says until when a device is offered nothing by a rollout, for its failures in others; 0 for not blocked.
func (f *Fleet) blocked(id muster.DeviceID, rollout string, now time.Time) muster.Micros {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(f.failures[id]), func(x failure) bool { return x.rollout == rollout })
	if len(list) < blockAfter {
		return 0
	}
	until := list[len(list)-blockAfter].at + muster.Micros(blockTime/time.Microsecond)
	if until <= muster.MicrosOf(now) {
		return 0
	}
	return until
}

// runsOn says whether a board and its revision are among some hardware.
func runsOn(on []firmware.Hardware, board, revision string) bool {
	return board != "" && slices.ContainsFunc(on, func(h firmware.Hardware) bool {
		return h.Board == board && (len(h.Revisions) == 0 || slices.Contains(h.Revisions, revision))
	})
}

// zoneOf returns a device's zone, its tag tz, else the one given, else UTC. A name that is
// none counts as not there.
func zoneOf(d *devices.Device, otherwise string) *time.Location {
	tz, _ := d.Tags.Get("tz")
	for _, name := range []string{tz, otherwise} {
		if name == "" || name == "Local" {
			continue
		}
		if at, err := time.LoadLocation(name); err == nil {
			return at
		}
	}
	return time.UTC
}

// plainString returns what a JSON text is as a string; empty when it is none.
func plainString(text string) string {
	var s string
	if text == "" || text[0] != '"' || json.Unmarshal([]byte(text), &s) != nil {
		return ""
	}
	return s
}
