package notify

import (
	"context"

	"muster"
	"muster/notify/outbox"
)

// TopicStore keeps topics and their members. They are loaded once, and memory is right
// from then on.
type TopicStore interface {
	Topics(ctx context.Context) ([]Topic, error)
	// Topic returns one, or NotFound.
	Topic(ctx context.Context, id string) (Topic, error)
	Members(ctx context.Context) ([]Member, error)
	// PutTopic makes or replaces a topic; Conflict when another one has its name. members
	// are added with it.
	PutTopic(ctx context.Context, t Topic, members ...Member) error
	// DeleteTopic takes a topic away with its members and subscriptions. Its notifications
	// go by TrimNotifications.
	DeleteTopic(ctx context.Context, id string) error
	PutMember(ctx context.Context, m Member) error
	DeleteMember(ctx context.Context, topic, principal string) error
}

// SubscriptionStore keeps subscriptions.
type SubscriptionStore interface {
	// PutSubscription makes or replaces one. NotFound when there is no such topic, Busy
	// when the topic or the subject has as many as it may. What waits for its hours goes out as
	// release says, in the same transaction.
	PutSubscription(ctx context.Context, s Subscription, release ...Release) error
	DeleteSubscription(ctx context.Context, topic string, subject Subject) error
	// DeleteSubject forgets a subject's subscriptions and memberships: it is gone.
	DeleteSubject(ctx context.Context, subject Subject) error
	Subscription(ctx context.Context, topic string, subject Subject) (Subscription, error)
	// Subscriptions returns up to limit of a topic in bytewise order of their subject after after.
	Subscriptions(ctx context.Context, topic string, after Subject, limit int) ([]Subscription, error)
	SubscriptionsOf(ctx context.Context, subject Subject) ([]Subscription, error)
	// CountSubscriptions counts those of each topic of ids.
	CountSubscriptions(ctx context.Context, ids []string) (map[string]int, error)
}

// Release has what waits for hours or a digest of a subscription go out at Due at the latest: notifications
// of its topic that are as severe as Severity now, by one channel to its subject. What waits for another try after
// a fault keeps its time.
type Release struct {
	Channel, Target string
	Severity        Severity
	Due             muster.Micros
}

// Update is a notification as it is to be, when its version is still Was.
type Update struct {
	Notification Notification
	Was          int64
}

// Mark moves a receipt to a state further on; one that is there already, or further,
// stays as it is.
type Mark struct {
	Notification string
	Subject      Subject
	State        ReceiptState
	At           muster.Micros
	Note, Door   string
}

// Cursor is how far a reader of the feed has come.
type Cursor struct {
	Name  string
	Epoch string
	Seq   int64
	// Was is the one that it takes the place of; without an epoch for none. When another is
	// kept by now the whole Write is a Conflict: some other process read on from Was. nil
	// for whichever is kept.
	Was *Cursor
}

// kept notes that c is what is kept: the next one takes its place.
func (c *Cursor) kept() { c.Was = &Cursor{Name: c.Name, Epoch: c.Epoch, Seq: c.Seq} }

// Write is what one transaction does, all of it or nothing.
type Write struct {
	New      []Notification
	Updates  []Update  // one whose version is another by now makes the whole Write a Conflict
	Receipts []Receipt // of those that are there already the Step stays
	Marks    []Mark
	Touch    []string // notifications that every recipient is to be told of again
	Out      outbox.Batch
	Over     Over
	Rises    []Rise
	About    []About // of New, and of Updates that were told again; what is resolved is forgotten
	Cursor   *Cursor // nil for none
}

// About is a notification about a device that a source made, and that is not over: an event about
// the device of one of the types Clears ends it, whatever has become of the source.
type About struct {
	Notification string
	Topic        string // id
	Device       muster.DeviceID
	Clears       []string // of the feed's catalogue: "presence.online", "command.*"
}

// Rise is how severe a notification is now: its deliveries that are open, or dead, are as severe.
type Rise struct {
	Notification string
	Severity     Severity
}

// Over are ids of deliveries whose news is over. Those that are Untried are dropped, and those
// that are Superseded by what is more severe: one that is not queued any more, or of the former not without an
// attempt that may have told somebody, and of the latter not held, makes the whole Write a Conflict. Those that were Tried, and are open, expire at At: what is on
// its way arrives, and is not sent again.
type Over struct {
	Untried, Superseded, Tried []string
	At                         muster.Micros
}

func (o *Over) add(p Over) {
	o.Untried, o.Superseded, o.Tried = append(o.Untried, p.Untried...), append(o.Superseded, p.Superseded...), append(o.Tried, p.Tried...)
	o.At = max(o.At, p.At)
}

// Written is what a Write did.
type Written struct {
	Marked []Receipt // those of Marks that moved, as they are now
	Added  int       // Receipts that were not there before
}

// Changes is a run of changes to inboxes, in the order of commits: the numbers First to
// Last without a gap to the run before it. Items may be fewer: what they leave out is of nobody.
type Changes struct {
	First, Last int64
	Items       []Item
}

// InboxQuery is a page of one inbox, the newest notification first.
type InboxQuery struct {
	Subject Subject
	Topic   string   // id; empty for all
	Hidden  []string // ids of topics whose notifications are left out
	Unread  bool     // those that are not read only
	Unacked bool     // those that ask for an ack and are open only
	Before  string   // a notification's id: the page begins after it
	Limit   int
}

// MaxCounted is how many of an inbox are counted: who has more is not told how many more.
const MaxCounted = 1000

// Counts are figures of one inbox, each at most MaxCounted.
type Counts struct {
	Unread int64 // not read
	Open   int64 // of those that ask for an ack and are open
}

// Query is a page of notifications, the newest first.
type Query struct {
	Topics []string // ids; those of no others
	State  NotificationState
	Device muster.DeviceID
	Before string
	Limit  int
}

// MessageStore keeps notifications and receipts.
type MessageStore interface {
	// Write does w and tells of it by the function given to OnInbox, after the commit.
	Write(ctx context.Context, w Write) (Written, error)
	// OpenByKey returns the notification of a topic and dedup key that is open or acked, or NotFound.
	OpenByKey(ctx context.Context, topic, key string) (Notification, error)
	// OpenAbout returns up to limit of what sources told of a device and is not over, in order of
	// the notification's id after after.
	OpenAbout(ctx context.Context, device muster.DeviceID, after string, limit int) ([]About, error)
	Notification(ctx context.Context, id string) (Notification, error)
	Notifications(ctx context.Context, q Query) ([]Notification, error)
	// Receipts returns up to limit of a notification in bytewise order of their subject after after.
	Receipts(ctx context.Context, notification string, after Subject, limit int) ([]Receipt, error)
	Receipt(ctx context.Context, notification string, subject Subject) (Receipt, error)
	// Told returns the deliveries of a notification that were not dropped, without bodies
	// and tries, at most limit: those who were, or will be, told outside of their inbox.
	Told(ctx context.Context, notification string, limit int) ([]outbox.Delivery, error)
	// DueEscalations returns up to limit open notifications whose EscalateAt has come, the longest due first.
	DueEscalations(ctx context.Context, now muster.Micros, limit int) ([]Notification, error)
	// NextEscalation returns when the first of all is due, 0 for never.
	NextEscalation(ctx context.Context) (muster.Micros, error)
	// AckedBySome returns open notifications that all must ack and at least one has acked, in order of id
	// after after.
	AckedBySome(ctx context.Context, after string, limit int) ([]Notification, error)
	// Unacked returns recipients of a notification who have not acked it, in bytewise order after after.
	Unacked(ctx context.Context, notification string, after Subject, limit int) ([]Subject, error)
	// TrimNotifications forgets up to limit notifications of a topic that were made before
	// before, with their receipts, but none that escalates still. When before is 0 the topic is gone: then it
	// forgets every one, and drops what waits to go out to people and devices.
	TrimNotifications(ctx context.Context, topic string, before muster.Micros, limit int) (int, error)
	// OrphanTopics returns ids of topics that are gone and have notifications still, at most limit.
	OrphanTopics(ctx context.Context, limit int) ([]string, error)
	Cursor(ctx context.Context, name string) (Cursor, error)
}

// InboxStore reads inboxes.
type InboxStore interface {
	// InboxState returns the epoch of all inboxes, an id that no other has, and the number of the last change.
	InboxState(ctx context.Context) (epoch string, last int64, err error)
	// ChangesAfter returns the changes to all inboxes after seq, up to limit of them. What was changed again
	// since is there once, at its newest number. Last is the last number that was looked at.
	ChangesAfter(ctx context.Context, seq int64, limit int) (Changes, error)
	// InboxAfter returns up to limit of a subject's items whose Seq is after seq and not after upTo, in order of Seq.
	InboxAfter(ctx context.Context, subject Subject, seq, upTo int64, limit int) ([]Item, error)
	Inbox(ctx context.Context, q InboxQuery) ([]Item, error)
	// InboxCounts counts a subject's inbox without the notifications of the topics hidden, by id.
	InboxCounts(ctx context.Context, subject Subject, hidden []string) (Counts, error)
}

// Store keeps everything of this package.
type Store interface {
	TopicStore
	SubscriptionStore
	MessageStore
	InboxStore
}
