package devices

import (
	"muster"
	"muster/feed"
)

// presenceEvents are the types of events by state. Of never and unknown, which are no
// news of the device, nothing is told.
var presenceEvents = [...]string{online: feed.PresenceOnline, quiet: feed.PresenceQuiet, offline: feed.PresenceOffline, unknown: ""}

// presenceNews is the data of such an event.
type presenceNews struct {
	Device muster.DeviceID      `json:"device"`
	State  muster.PresenceState `json:"state"`
	Since  string               `json:"since"` // RFC 3339
	Reason string               `json:"reason"`
}

// newsOf returns the events for the feed of rows that are about to be saved: of those
// whose state is another than the one that was told last. What a device was between two
// flushes is not told, nor that it is back what it was, a restart of the server between.
func (t *tracker) newsOf(rows []PresenceRow) []feed.Event {
	var out []feed.Event
	for i, is := range t.unsaid(rows) {
		if !is {
			continue
		}
		r := &rows[i]
		news := presenceNews{r.Device, r.State, r.Since.Time().Format("2006-01-02T15:04:05.000000Z"), r.Reason}
		out = append(out, feed.NewEvent(presenceEvents[stateOf(r.State)], r.Device, r.Since, news))
	}
	return out
}

// unsaid says which of rows have a state to be told.
func (t *tracker) unsaid(rows []PresenceRow) []bool {
	out := make([]bool, len(rows))
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range rows {
		s := stateOf(rows[i].State)
		p, ok := t.rows[rows[i].Device]
		out[i] = ok && presenceEvents[s] != "" && p.spoken != s
	}
	return out
}

// spoke notes that the states of rows were told, or are kept as what was told last.
func (t *tracker) spoke(rows []PresenceRow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range rows {
		s := stateOf(rows[i].State)
		if p, ok := t.rows[rows[i].Device]; ok && presenceEvents[s] != "" {
			p.spoken = s
		}
	}
}
