package notify

import (
	"encoding/json"

	"muster"
)

const (
	// MaxTitle is the longest title, in bytes.
	MaxTitle = 200
	// MaxBody is the longest body, in bytes.
	MaxBody = 8 << 10
	// MaxData is the longest data, in bytes of JSON.
	MaxData = 16 << 10
	// MaxActions is how many actions a notification may have.
	MaxActions = 5
	// MaxKey is the longest dedup key, in bytes.
	MaxKey = 200
	// MaxTo is how many subjects one Send may name.
	MaxTo = 10_000
)

// NotificationState is where a notification as a whole stands.
type NotificationState string

// The states. Open and acked ones are of use still: one of each dedup key is.
const (
	Open     NotificationState = "open"
	Acked    NotificationState = "acked"    // as its ack policy says
	Resolved NotificationState = "resolved" // what it told of is over
)

// Sender is who sent a notification.
type Sender struct {
	Kind string // "user", "key", "device" or "system"
	ID   string // of the user, the key or the device; of the source's event for the system
	Name string // as people know it
}

// Action is something to be done about a notification.
type Action struct {
	Label string `json:"label"` // at most 60 bytes
	URL   string `json:"url"`   // http or https
}

// Notification is one message to a topic.
type Notification struct {
	ID         string // "ntf_..."; ids sort by age
	Topic      string // id
	Sender     Sender
	Severity   Severity
	Lane       int    // outbox.Lane of what goes out
	Title      string // one line
	Body       string
	Data       json.RawMessage // an object; nil for none
	Link       string          // http or https; empty for none
	Actions    []Action
	Device     muster.DeviceID // that it is about; empty for none
	DedupKey   string          // of those of a topic with the same key one is open at a time; empty for none
	Count      int64           // how often it was sent, from 1
	State      NotificationState
	AckPolicy  AckPolicy // of its topic when it was sent
	AckedBy    string    // name of who acked it, or made it so as the last of all
	AckedAt    muster.Micros
	AckNote    string
	ResolvedAt muster.Micros
	Recipients int64         // how many have a receipt
	Acks       int64         // how many of them acked
	Step       int           // how many steps of the escalation were done
	EscalateAt muster.Micros // when the next is due, 0 for never
	Created    muster.Micros
	Updated    muster.Micros
	Expires    muster.Micros // after which nothing goes out any more, 0 for never
	Version    int64         // from 1
}

// Live says whether something may still be told of n at now.
func (n *Notification) Live(now muster.Micros) bool {
	return n.State == Open && (n.Expires == 0 || now < n.Expires)
}

// ReceiptState is how far a notification has come with one recipient. More is further.
type ReceiptState int

// The states of a receipt. None is ever taken back.
const (
	Sent      ReceiptState = iota // it is in the inbox
	Delivered                     // it was written to a socket, or a channel's receiver took it
	Seen                          // it was on a screen
	Read                          // it was opened
	AckedIt                       // somebody takes care of it
)

// Receipt is a notification as one recipient has it.
type Receipt struct {
	Notification string
	Subject      Subject
	Seq          int64 // number of its last change, in the order of commits, over all inboxes
	State        ReceiptState
	Delivered    muster.Micros // when it got there, 0 for not yet, like the others
	Seen         muster.Micros
	Read         muster.Micros
	Acked        muster.Micros
	Note         string // given with the ack
	Door         string // by which it was acked: "live", "api", "mail", "mqtt"
	Step         int    // of the escalation that told it, 0 for a subscription
}

// Item is a notification in an inbox.
type Item struct {
	Notification Notification
	Receipt      Receipt
}
