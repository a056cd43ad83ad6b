package notify

import (
	"context"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/devices/query"
	"muster/feed"
)

// writeTimeout is for one change in the store.
const writeTimeout = 10 * time.Second

// Person is a user as notifications need him.
type Person struct {
	ID, Name, Email string
	Reachable       bool // the e-mail address is known to reach him
	Disabled        bool
	Admin           bool // sees every topic
}

// People knows users, from memory.
type People interface {
	Person(id string) (Person, bool)
}

// Devices knows the query language, and the devices as they are now.
type Devices interface {
	// Made returns when the device of an id was made, which may be another than had it before; ok is false for none.
	Made(id muster.DeviceID) (at muster.Micros, ok bool)
	Compile(q string) (*query.Expr, error)
	Matches(id muster.DeviceID, e *query.Expr) bool
}

// Options are what Notify works with; all are needed.
type Options struct {
	People  People
	Devices Devices
	Feed    *feed.Feed
	Key     []byte        // signs links in mails; 32 bytes
	URL     func() string // where people reach this server: "https://muster.example"
	// WebhookOwner returns the user who answers for a webhook, empty for none.
	WebhookOwner func(id string) string
	Now          func() time.Time
	Logger       *slog.Logger
	Limits       Limits
}

// Limits bound what one sender may do; zero fields have the values that are said.
type Limits struct {
	Burst int           // notifications at once: 30
	Every time.Duration // one more in each: 2 s
}

// Notify is topics, subscriptions, and what is sent. It is safe for concurrent use.
type Notify struct {
	store   Store
	options Options
	inbox   *Inbox
	senders *senders
	seed    maphash.Seed
	marking [stripes]chan struct{} // the acks of one notification, and what is sent with one dedup key, are one after the other
	wake    chan struct{}          // an escalation was set

	delivered delivered
	abouts    abouts
	deleted   chan struct{} // a topic was deleted

	turn    chan struct{} // held by the one change of a topic in flight
	mu      sync.RWMutex
	topics  map[string]Topic // by id, at most MaxTopics
	names   map[string]string
	members map[string]map[string]Member // by topic and principal, at most MaxMembers each
}

const stripes = 64

// New returns a Notify that knows nothing yet: Load fills it.
func New(store Store, o Options) *Notify {
	n := &Notify{
		store: store, options: o, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), deleted: make(chan struct{}, 1), senders: newSenders(o.Limits, o.Now),
		seed: maphash.MakeSeed(), topics: map[string]Topic{}, names: map[string]string{}, members: map[string]map[string]Member{},
	}
	for i := range n.marking {
		n.marking[i] = make(chan struct{}, 1)
	}
	n.inbox = newInbox(store, o.Logger, n.shown)
	return n
}

// Inbox tells connected people what comes to theirs.
func (n *Notify) Inbox() *Inbox { return n.inbox }

// Load reads the topics and their members, and where the inboxes stand. Call it once,
// before anything else.
func (n *Notify) Load(ctx context.Context) error {
	topics, err := n.store.Topics(ctx)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	members, err := n.store.Members(ctx)
	if err != nil {
		return err //nolint:wrapcheck // likewise
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range topics {
		n.topics[t.ID], n.names[t.Name] = t, t.ID
	}
	for _, m := range members {
		n.keepMember(m)
	}
	return n.inbox.load(ctx)
}

// keepMember is called with the lock held.
func (n *Notify) keepMember(m Member) {
	of := n.members[m.Topic]
	if of == nil {
		of = map[string]Member{}
		n.members[m.Topic] = of
	}
	of[m.Principal] = m
}

func (n *Notify) now() muster.Micros { return muster.MicrosOf(n.options.Now()) }

// topic returns the topic of an id or a name.
func (n *Notify) topic(ref string) (Topic, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	t, ok := n.topics[ref]
	if !ok {
		t, ok = n.topics[n.names[ref]]
	}
	return t, ok
}

// all returns every topic by name.
func (n *Notify) all() []Topic {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]Topic, 0, len(n.names))
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		out = append(out, n.topics[n.names[name]])
	}
	return out
}

// change waits for its turn and runs fn, which a caller that goes away does not
// cancel: memory and store would part.
func (n *Notify) change(ctx context.Context, fn func(ctx context.Context) error) error {
	return inTurn(ctx, n.turn, fn)
}

func inTurn(ctx context.Context, turn chan struct{}, fn func(ctx context.Context) error) error {
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting for a turn: %w", ctx.Err())
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return fn(c)
}
