package rollout

// State is where a device is in a rollout.
type State uint8

// The states, in the order of the way through them. The last five are ends.
const (
	Queued      State = iota // waits for its offer
	Offered                  // has, or is to get, the offer
	Downloading              // fetches the image
	Downloaded               // has the whole image, and its digest is right
	Installing               // writes it where it will run from
	Rebooting                // restarts into it; soaks when it has reported the version
	Confirmed                // reported the version after the offer, and stayed healthy
	Failed                   // said so, or tried too often
	RolledBack               // came back with the version it had before
	TimedOut                 // was silent for longer than the state may last
	Skipped                  // was not to get it: see its reason
	Canceled                 // its rollout was aborted before it installed
	states
)

// names returns what each state is called in topics, JSON, columns and metrics.
func names() [states]string {
	return [states]string{
		"queued", "offered", "downloading", "downloaded", "installing", "rebooting",
		"confirmed", "failed", "rolled_back", "timed_out", "skipped", "canceled",
	}
}

// String returns the state's name.
func (s State) String() string {
	if s < states {
		return names()[s]
	}
	return "unknown"
}

// ParseState returns the state of a name; false for none.
func ParseState(name string) (State, bool) {
	for s, n := range names() {
		if n == name {
			return State(s), true
		}
	}
	return 0, false
}

// States returns all states in their order.
func States() []State {
	out := make([]State, states)
	for i := range out {
		out[i] = State(i)
	}
	return out
}

// InFlight says whether a device in s has an offer. It takes one of the rollout's slots, unless it is parked: see
// Device.Parked.
func (s State) InFlight() bool { return s >= Offered && s <= Rebooting }

// Ended says whether s is an end, which nothing leaves.
func (s State) Ended() bool { return s >= Confirmed && s < states }

// Event is what happens to a device in a rollout.
type Event uint8

// The events. Those of the first group are the device's own reports.
const (
	SaysDownloading Event = iota // with its progress
	SaysDownloaded
	SaysInstalling
	SaysRebooting
	SaysFailed   // with its error
	SaysDenied   // it, or who owns it, does not want the release
	SaysCanceled // it has stopped, as it was asked to

	SeesTarget // it reported the release's version, after the offer
	SeesOther  // it reported another version, after it had restarted

	Offer    // the release is offered
	Silence  // the deadline of its state passed
	Soaked   // it had the version, and was healthy, for as long as the plan asks
	Exclude  // it is not to get it: ineligible, has it already, offered too often, deleted
	Replaced // a newer rollout takes its place
	Abort    // the rollout was aborted
	Recall   // the rollout was paused, and what has not begun to install is to wait again
	Quit     // the rollout was aborted by force, and nobody waits for what the device does
	Park     // its maintenance window is closed: it has the image, and waits with it
	Unpark   // the window has opened, and it may install
	events
)

// eventNames are for messages and the audit log.
func eventNames() [events]string {
	return [events]string{
		"downloading", "downloaded", "installing", "rebooting", "failed", "denied", "canceled",
		"target_version", "other_version", "offer", "silence", "soaked", "exclude", "replaced", "abort", "recall", "quit", "park", "unpark",
	}
}

// String returns the event's name.
func (e Event) String() string {
	if e < events {
		return eventNames()[e]
	}
	return "unknown"
}

// Next returns the state that e leads to from s, and whether e may happen there at all.
// The table is total: every pair has an answer, and an end is never left. A device may leave
// steps out, and may begin again (a power cut in the middle of a download): what repeats too
// often is stopped by Step. What failed and may be tried again is Queued instead of an end:
// Step decides that too.
func Next(s State, e Event) (State, bool) {
	if s.Ended() || s >= states {
		return s, false
	}
	next, ok := nextOfQueued(e)
	if s != Queued {
		next, ok = nextInFlight(s, e)
	}
	if !ok {
		return s, false
	}
	return next, true
}

// nextInFlight is Next for a device that takes a slot. What has begun to install can no
// longer be told to leave it.
func nextInFlight(s State, e Event) (State, bool) {
	switch e {
	case SaysDownloading, SaysDownloaded, SaysInstalling, SaysRebooting:
		return said(e), true
	case SaysFailed:
		return Failed, true
	case SaysDenied:
		return Skipped, s <= Downloaded
	case SaysCanceled, Abort:
		return Canceled, s <= Downloaded
	case Recall:
		return Queued, s <= Downloaded
	case Replaced:
		return Skipped, s <= Downloaded
	case Quit:
		return Canceled, true
	case Exclude: // the device is no more
		return Skipped, true
	case SeesTarget:
		return Rebooting, true
	case SeesOther:
		return RolledBack, s == Rebooting // who still installs runs its old version
	case Silence:
		return TimedOut, true
	case Soaked:
		return Confirmed, s == Rebooting
	case Park, Unpark:
		return s, s == Downloaded
	case Offer, events:
	}
	return s, false
}

// said returns the state that a device says it is in.
func said(e Event) State {
	switch e {
	case SaysDownloading:
		return Downloading
	case SaysDownloaded:
		return Downloaded
	case SaysInstalling:
		return Installing
	default:
		return Rebooting
	}
}

// nextOfQueued is Next for a device that waits: it has been told nothing, so that what it
// says is about something else.
func nextOfQueued(e Event) (State, bool) {
	switch e {
	case Offer:
		return Offered, true
	case Exclude, Replaced:
		return Skipped, true
	case Abort, Quit:
		return Canceled, true
	case Silence: // of one that is to try again, and does not come
		return TimedOut, true
	default:
		return Queued, false
	}
}
