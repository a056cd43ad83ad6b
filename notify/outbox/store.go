package outbox

import (
	"context"

	"muster"
	"muster/feed"
)

// Claim asks for deliveries on lease.
type Claim struct {
	Queue  string
	Lanes  []Lane        // the most urgent first
	Now    muster.Micros // those are due whose time is not after it
	Until  muster.Micros // when the lease ends: then others may claim them
	Worker string        // unique over all processes
	Limit  int
	// Ordered leaves out those behind another of their target and lane: one that is older, has not
	// expired, and is due, on lease or queued again.
	Ordered bool
}

// Settlement is what came of a lease.
type Settlement struct {
	ID        string
	Worker    string // who holds the lease: when somebody else does by now, nothing is written
	State     State
	Attempts  int
	Refused   int
	Held      bool          // until Due: when it was released meanwhile, or its severity rose, it is due at once
	Severity  int           // that Held was said of
	Due       muster.Micros // when it is queued again
	Ended     muster.Micros
	Error     string
	Reference string
	Tries     []Attempt
	Events    []feed.Event // that tell of it: written when it is, and not when the lease was lost
}

// Queue is what waits in one queue.
type Queue struct {
	Name    string
	Channel string
	Due     muster.Micros // of the first that is due, by any lane
}

// Depth is how many deliveries of a channel are in a state, for those who watch.
type Depth struct {
	Channel string
	State   State
	Lane    Lane
	Count   int64
	Oldest  muster.Micros // when the oldest was created, 0 for none; of open states only
}

// Leases hands out deliveries to workers of any number of processes.
type Leases interface {
	// ClaimDeliveries leases up to c.Limit open deliveries that are due, with their
	// bodies, lane by lane, the longest due first. Each gets StateSending, one more attempt,
	// c.Worker and c.Until as Due. No delivery is leased to two workers at a time.
	ClaimDeliveries(ctx context.Context, c Claim) ([]Delivery, error)
	// ClaimFold leases up to c.Limit queued deliveries of a queue and fold, the oldest first: those that are due, and those
	// that wait for another try. What is held for hours or a digest of its own stays.
	ClaimFold(ctx context.Context, c Claim, fold string) ([]Delivery, error)
	// SettleDeliveries writes what came of leases, in one transaction, and returns the ids
	// of those that were lost to others meanwhile. The events of the others are written with
	// them, so that nobody is told twice, or of what did not happen.
	SettleDeliveries(ctx context.Context, list []Settlement) (lost []string, err error)
	// FreeDeliveries has those queued again, due at now, whose worker's name begins with a text: it
	// is no more. The attempts that it began count. It returns how many.
	FreeDeliveries(ctx context.Context, worker string, now muster.Micros) (int, error)
	// DeliveryQueues returns every queue with open deliveries. It is quick however many wait.
	DeliveryQueues(ctx context.Context) ([]Queue, error)
}

// Query is a page of deliveries, the newest first. Empty fields ask for all.
type Query struct {
	Notification string
	Channel      string
	Queue        string
	Target       string
	State        State
	Before       string // an id: the page begins after it
	Limit        int
}

// Keeper keeps deliveries and their ends.
type Keeper interface {
	AddDeliveries(ctx context.Context, b Batch) error
	// Deliveries returns a page, without bodies.
	Deliveries(ctx context.Context, q Query) ([]Delivery, error)
	// Delivery returns one with its body, or NotFound.
	Delivery(ctx context.Context, id string) (Delivery, error)
	// RequeueDeliveries has those of ids that are dead or sent queued again at now, with no
	// attempts, and returns which. Those that are open stay as they are.
	RequeueDeliveries(ctx context.Context, ids []string, now muster.Micros) ([]Delivery, error)
	// HastenDeliveries makes what was queued again for a channel's target due at now: it can take
	// it again. What was not tried yet keeps its time. It returns how many.
	HastenDeliveries(ctx context.Context, channel, target string, now muster.Micros) (int, error)
	// DropDeliveries ends what is open in a queue: its target is gone. It returns how many, at most limit.
	DropDeliveries(ctx context.Context, queue, why string, now muster.Micros, limit int) (int, error)
	// TrimDeliveries forgets up to limit deliveries that ended before ended, and the
	// contents that nobody needs then. Dead ones are kept until dead.
	TrimDeliveries(ctx context.Context, ended, dead muster.Micros, limit int) (int, error)
	// DeliveryDepths counts by channel, state and lane. It may be slow with many: ask rarely.
	DeliveryDepths(ctx context.Context) ([]Depth, error)
}

// Store is what a dispatcher needs.
type Store interface {
	Leases
	Keeper
}
