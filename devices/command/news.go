package command

import (
	"muster"
	"muster/feed"
)

// stateEvents are the types of events by a command's state. Progress is told to those
// who wait for the command alone: a device may report it as often as it likes.
var stateEvents = [states]string{
	Queued: feed.CommandQueued, Sent: feed.CommandSent, Delivered: feed.CommandDelivered, Accepted: feed.CommandAccepted,
	Succeeded: feed.CommandSucceeded, Failed: feed.CommandFailed, Expired: feed.CommandExpired, Cancelled: feed.CommandCancelled,
}

// news is the data of such an event. Ids are as in topics and the API.
type news struct {
	Device  muster.DeviceID `json:"device"`
	Command string          `json:"command"`
	Method  string          `json:"method"`
	State   string          `json:"state"`
	Job     string          `json:"job,omitempty"`
}

// phaseEvents are the types of events by the phase that a job enters; that it goes on
// after a pause is none.
var phaseEvents = map[Phase]string{Paused: feed.JobPaused, Done: feed.JobFinished, Aborted: feed.JobAborted}

// jobNews is the data of such an event.
type jobNews struct {
	Job       string `json:"job"`
	Kind      Kind   `json:"kind"`
	Method    string `json:"method,omitempty"`
	Query     string `json:"query"`
	State     Phase  `json:"state"`
	Reason    string `json:"reason,omitempty"`
	Total     int64  `json:"total"`
	Succeeded int64  `json:"succeeded"`
	Failed    int64  `json:"failed"`
	Expired   int64  `json:"expired"`
	Cancelled int64  `json:"cancelled"`
}

// newsOf returns the events for the feed of what b changes.
func (c *Commands) newsOf(b *batch) []feed.Event {
	var out []feed.Event
	for i := range b.events {
		if e := &b.events[i]; stateEvents[e.State] != "" {
			out = append(out, commandEvent(e))
		}
	}
	for i := range b.Insert {
		n := &b.Insert[i]
		if _, err := c.Registry.Get(n.Device); err != nil {
			continue // deleted meanwhile: the store leaves it out
		}
		out = append(out, commandEvent(&Event{ID: n.ID, Device: n.Device, Method: n.Method, State: Queued, Job: n.Job, At: n.Created}))
	}
	for _, j := range b.jobOrder {
		if kind := phaseEvents[j.Phase]; kind != "" && j.Phase != j.run.Phase {
			out = append(out, jobEvent(kind, &j.run.Job, &j.JobState, b.at))
		}
	}
	return out
}

func commandEvent(e *Event) feed.Event {
	n := news{Device: e.Device, Command: FormatID(e.ID), Method: e.Method, State: e.State.String()}
	if e.Job != 0 {
		n.Job = FormatID(e.Job)
	}
	return feed.NewEvent(stateEvents[e.State], e.Device, e.At, n)
}

func jobEvent(kind string, j *Job, s *JobState, at muster.Micros) feed.Event {
	return feed.NewEvent(kind, "", at, jobNews{
		Job: FormatID(j.ID), Kind: j.Kind, Method: j.Method, Query: j.Query, State: s.Phase, Reason: s.Reason, Total: j.Total,
		Succeeded: s.Succeeded, Failed: s.Failed, Expired: s.Expired, Cancelled: s.Cancelled,
	})
}
