package live

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"muster"
	"muster/devices"
	"muster/feed"
	"muster/ingest"
	"muster/notify"
	"muster/traffic"
)

// Deps are the rooms that the gateway reads from. All fields are needed but Traffic,
// Stranger, Dots, Rollouts, Things and those of inboxes.
type Deps struct {
	Auth    Auth
	Fleet   Fleet
	Devices Devices
	System  System
	Tasks   Tasks
	Events  Events
	// Dots are shown at dots; nil for none.
	Dots Dots
	// Rollouts are shown at rollout:{id}; nil for none.
	Rollouts Rollouts
	// Things are what here:{kind}/{id} may name; nil for devices alone.
	Things Things
	Inbox  Inbox // nil for no inboxes; else Notes and Item are needed too
	Notes  Notes
	// Item appends an item of an inbox as the API writes it, an object with the members
	// notification and receipt.
	Item    func(b []byte, it *notify.Item) []byte
	Traffic *traffic.Meter // counts the sockets and their messages; nil for nobody
	// Stranger returns what counts one wrong credential of whoever sent r, which it does not
	// keep; it says whether he may try on. Nil lets everybody.
	Stranger func(r *http.Request) func() bool
	Log      *slog.Logger
	Now      func() time.Time
}

// Auth says who is asking. An Unauthorized error means that there is no valid
// session or token, Forbidden that its owner may not read the fleet. The methods
// decide in memory: they run while a client waits.
type Auth interface {
	// Authenticate reads the session cookie of r.
	Authenticate(r *http.Request) (Principal, error)
	AuthenticateToken(token string) (Principal, error)
}

// Principal is a user or a key that may read the whole fleet, or the part of it that
// Only selects.
type Principal struct {
	ID      string    // stable; connections are limited and revoked by it
	Name    string    // shown to the user
	Role    string    // viewer, operator or admin
	Owner   string    // the user or key that owns what it starts: it sees its own counters and tasks
	Admin   bool      // sees those of all
	Expires time.Time // when the session or key ends; zero for never
	// Only is the device query that bounds what it sees; empty for the whole fleet. Sees
	// says whether a device is within, now; it is set with Only, and answers from memory.
	Only string
	Sees func(id muster.DeviceID) bool
	// Who it is to notifications. Its Subject is whose inbox it has; a key has none.
	Who   notify.Who
	Sends bool // may send notifications
	// Firmware says that it may see rollouts.
	Firmware bool
}

// Fleet answers questions about all devices.
type Fleet interface {
	// List returns one page of the devices that match q. An error of kind Invalid
	// says what in the query, the order or the cursor is wrong; an unknown term is
	// such an error.
	List(ctx context.Context, q ListQuery) (ListPage, error)
	// Stats returns the figures of the fleet channel; it is asked once a second
	// while somebody watches.
	Stats() FleetItem
}

// ListQuery is a page of a list. Limit 0 asks for the total alone.
type ListQuery struct {
	Q     string // in the device query language; empty for all
	Sort  string // as the API has it: id, -seen, name, v.KEY ...
	After string // the Next of the page before; empty for the first
	Limit int    // rows, at most 200
	Only  string // a query that devices must match besides, the Principal's; empty for none
}

// The orders of a device list.
const (
	SortID   = "id"    // by device id, bytewise
	SortSeen = "-seen" // last seen first
)

// ListPage is what List answers.
type ListPage struct {
	IDs   []muster.DeviceID
	Total int    // how many devices match, on all pages
	Next  string // cursor of the next page; empty on the last
	// Drifts says that who matches may change without DevicesChanged being called:
	// the query asks for values or for time.
	Drifts bool
}

// FleetItem is the content of the fleet channel.
type FleetItem struct {
	Total    int
	Counts   FleetCounts
	Rates    FleetRates
	Queued   uint64 // messages in the log, not yet in the store
	LogBytes int64  // of those messages
	Store    string // StoreOK or StoreDown
	Storing  Storing
	Commands Commands
	Change   FleetChange
}

// Storing is how long batches of messages took to store, within the last minute.
type Storing struct {
	Batches uint64
	P99     float64 // ms that 99 of 100 were not above; 0 without any
}

// Commands are those that ended within the last hour, but for those that were called off.
type Commands struct {
	Ended int64
	Acked int64 // of those, which their devices acknowledged or answered
}

// FleetChange is how the fleet is now beside how it was at a time.
type FleetChange struct {
	Since  muster.Micros
	Counts PresenceCounts // now, less then
	Silent int            // devices that are offline or quiet, and were online at some time since
	Cause  devices.Cause
}

// The states of the store in a FleetItem.
const (
	StoreOK   = "ok"
	StoreDown = "down"
)

// PresenceCounts are devices in each presence state.
type PresenceCounts struct {
	Online  int
	Offline int
	Never   int
	Unknown int
	Quiet   int
}

// FleetCounts are the devices with each status.
type FleetCounts struct {
	Online   int
	Offline  int
	Never    int
	Unknown  int
	Quiet    int
	Updating int
}

// FleetRates are in messages per second.
type FleetRates struct {
	Received float64
	Stored   float64
}

// Devices answers from memory what one device is now. An answer must be at least
// as new as the Observe or DevicesChanged call that made the gateway ask.
type Devices interface {
	// State returns false when there is no such device.
	State(id muster.DeviceID) (DeviceState, bool)
	// Values appends the newest value of each key of a device to dst, by name, and returns the
	// device's account beside it.
	Values(id muster.DeviceID, dst []ingest.LatestValue) ([]ingest.LatestValue, ingest.Ledger)
}

// DeviceState is a registry entry with its presence and status.
type DeviceState struct {
	devices.Device
	muster.Presence
	Status     muster.Status
	Connection *devices.Connection // nil while not connected; not changed after it is returned
}

// System gives the counters of the whole server.
type System interface {
	// Watch has them read once a second until leave is called.
	Watch() (leave func())
	// Version grows with every reading that differs from the one before.
	Version() uint64
	// Item returns the members of what who may see of the newest reading.
	Item(who Principal) []Member
}

// Member is one member of a JSON object.
type Member struct {
	Name string
	JSON []byte // not changed after it is returned
}

// Tasks gives the tasks that a Principal may see, as the API writes them.
type Tasks interface {
	// Changes grows after each change of any task.
	Changes() uint64
	// Newest returns at most limit of them, the newest first: each with its id as name.
	Newest(who Principal, limit int) []Member
	// Task returns one; NotFound when there is none that who may see.
	Task(who Principal, id string) ([]byte, error)
}

// Events opens the feed for who, from place on, empty for now: types and q choose events.
type Events interface {
	Follow(who Principal, types, q, place string) (*feed.Follower, error)
}

// Rollouts gives how far rollouts are, as the API writes it.
type Rollouts interface {
	// Changes grows after each change of any rollout.
	Changes() uint64
	// Rollout returns one, soon or not at all; NotFound when there is none.
	Rollout(id string) ([]byte, error)
}

// Things says which things that are no devices who may look at, by kind, as paths of the page have it: groups, rollouts, firmware,
// topics, webhooks.
type Things interface {
	// Shows returns NotFound where there is none, or no such kind, and Forbidden where it is not for who asks.
	Shows(ctx context.Context, who Principal, kind, id string) error
}

// Inbox reads the inboxes of people.
type Inbox interface {
	// Follow is notify.Inbox.Follow: wake is called after each change.
	Follow(s notify.Subject, place string, wake func()) (*notify.Follower, error)
	// Newest returns at most limit items of an inbox, the newest first.
	Newest(ctx context.Context, s notify.Subject, limit int) ([]notify.Item, error)
	Counts(ctx context.Context, s notify.Subject) (notify.Counts, error)
}

// Notes does what people do about notifications.
type Notes interface {
	// Mark is notify.Notify.Mark.
	Mark(ctx context.Context, m notify.Marking) (notify.Marked, error)
	// Publish sends a notification.
	Publish(ctx context.Context, who Principal, p Publication) (Published, error)
	// Delivered notes that notifications of an inbox were written to a socket. It waits for nobody.
	Delivered(s notify.Subject, ids []string)
}

// Publication is what a pub command asks for.
type Publication struct {
	Topic   string // id or name
	Message []byte // JSON
	// Key makes that it is sent once within 24 hours, however often it is asked for by the
	// same credential; empty for not.
	Key string
}

// Published is what became of it.
type Published struct {
	ID            string   `json:"id"` // of the notification
	Recipients    int64    `json:"recipients"`
	Duplicate     bool     `json:"duplicate,omitempty"`
	Resolved      bool     `json:"resolved,omitempty"`
	NotSubscribed []string `json:"not_subscribed"`
}
