package outbox

import "muster"

const (
	// MaxBody is the longest content of a delivery, in bytes.
	MaxBody = 64 << 10
	// MaxTries is how many attempts at one delivery are kept to be shown, the newest.
	MaxTries = 20
	// MaxFold is how many deliveries are sent as one.
	MaxFold = 100
)

// Lane is how urgent a delivery is: of one queue the lower lane goes first.
type Lane int

// The lanes.
const (
	Urgent Lane = iota
	Normal
	Bulk
)

// String returns the lane's name: urgent, normal or bulk.
func (l Lane) String() string {
	switch l {
	case Urgent:
		return "urgent"
	case Bulk:
		return "bulk"
	case Normal:
	}
	return "normal"
}

// State is where a delivery stands.
type State string

// The states. Queued and sending are open, the others are ends; a dead delivery can be
// queued again.
const (
	StateQueued  State = "queued"  // waits for its time
	StateSending State = "sending" // a worker has it on lease
	StateSent    State = "sent"    // the receiver took it
	StateDead    State = "dead"    // given up
	StateDropped State = "dropped" // nobody needs it any more: it expired, or its target is gone
)

// Open says whether something is still to be done.
func (s State) Open() bool { return s == StateQueued || s == StateSending }

// Content is what one or more deliveries say. It is written once and never changed.
type Content struct {
	ID   string // of the notification, the event or the mail
	Body []byte // JSON, or sealed; at most MaxBody bytes; its channel knows what it is
}

// Delivery is one content on its way to one target over one channel.
type Delivery struct {
	ID           string // "dlv_..."; ids sort by age
	Channel      string // "email", "webhook", "mqtt": which Channel sends it
	Queue        string // those of one queue share a breaker and a rate: "email", "webhook:whk_x"
	Target       string // whom it goes to, as its channel knows them: a user, a webhook, a device
	Notification string // that it is about, "ntf_..."; empty for none
	Topic        string // id of its topic, of people's and devices' alone: it is kept when the notification is forgotten
	Severity     int    // of the notification as it is now: a rise changes it while the delivery is open
	Content      string // id of its Content
	Body         []byte // of its Content: set by claims
	Lane         Lane
	Fold         string // those of one queue and fold are sent as one when one of them is due; empty for alone
	State        State
	Attempts     int           // that were begun, the one of a worker that died among them
	Refused      int           // of Attempts, those by which surely nobody was told; -1 when somebody was before it was queued again
	Held         bool          // it waits for hours or a digest until Due, and not for another try; of queued ones
	Earliest     muster.Micros // before which it must not go out, whatever hours end: it is the end of what is under way; 0 for none
	Due          muster.Micros // when it is to be tried; while sending, when the lease ends
	Worker       string        // whose lease it is, empty for nobody's
	Expires      muster.Micros // after which nobody wants it, 0 for never
	Created      muster.Micros
	Ended        muster.Micros // 0 while open
	Error        string        // of the last attempt, in words; empty for none
	Reference    string        // what the receiver's side calls it: a Message-ID
	Tries        []Attempt     // the newest, in order
}

// Batch is what a transaction adds. Deliveries are StateQueued.
type Batch struct {
	Contents   []Content
	Deliveries []Delivery
}

// Add puts what o has behind what b has.
func (b *Batch) Add(o Batch) {
	b.Contents = append(b.Contents, o.Contents...)
	b.Deliveries = append(b.Deliveries, o.Deliveries...)
}
