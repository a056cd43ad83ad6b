package command

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/devices/query"
)

const (
	// MaxOpen is how many unfinished commands there may be of all devices together.
	MaxOpen = 1_000_000
	// maxInbox is how many callers wait for the owner at a time; further ones are Busy.
	maxInbox = 4096
)

// Outcome is what became of a delivery.
type Outcome uint8

// The outcomes of a delivery. Handed is of a connection that knows no better, QoS 0.
const (
	Lost Outcome = iota
	Handed
	Acked
)

// Delivery is a message for the connections of one device.
type Delivery struct {
	Device      muster.DeviceID
	Topic       string
	Payload     []byte
	Expires     time.Time
	Response    string // MQTT 5 Response Topic
	Correlation []byte // MQTT 5 Correlation Data
	Done        func(Outcome)
}

// Sender sends to devices that are connected.
type Sender interface {
	// Send says whether anybody listens; then Done is called once, and must be quick.
	Send(d Delivery) bool
}

// Registry knows the devices.
type Registry interface {
	Get(id muster.DeviceID) (devices.Device, error)
	Children(parent muster.DeviceID) ([]muster.DeviceID, error)
}

// Selector answers queries over the registry; it is *devices.Registry.
type Selector interface {
	// Compile reads a query; an Invalid error says what is wrong with it, and where.
	Compile(q string) (*query.Expr, error)
	// MatchAll returns the devices that match at this moment, each once.
	MatchAll(e *query.Expr) []muster.DeviceID
}

// Desirer changes what devices are wanted to be.
type Desirer interface {
	// Desire applies a merge patch to the desired document of each of ids, at most 500
	// together, and answers for each. It may be asked again for what it has done already.
	Desire(ctx context.Context, ids []muster.DeviceID, patch []byte, by string) []error
}

// Event is a command's new state, as OnChange is told.
type Event struct {
	ID       int64
	Device   muster.DeviceID
	Method   string
	State    State
	Progress int
	Job      int64
	At       muster.Micros
}

// Options are the parts of Commands that belong to other rooms. Selector and Desirer
// may be nil: then there are no jobs, or none of kind desired. So may the hooks.
type Options struct {
	Sender   Sender
	Registry Registry
	Selector Selector
	Desirer  Desirer
	// OnChange is told after the commit, in the order of the changes. It must be quick
	// and must not keep the slice.
	OnChange func([]Event)
	// OnJob is told of a job's new state likewise.
	OnJob func(Job)
}

// Commands sends commands and runs jobs. It is safe for concurrent use. Run must run.
type Commands struct {
	store Store
	now   func() time.Time
	log   *slog.Logger
	Options

	inbox inbox
	desk  desk
	waits waits
	prune pruneList
	slots slots
	wish  wishes
	wants wants

	open, unfinished atomic.Int64 // for Stats
}

// New returns Commands on a store. Load must be called before anything else.
func New(store Store, now func() time.Time, log *slog.Logger, o Options) *Commands {
	if o.OnChange == nil {
		o.OnChange = func([]Event) {}
	}
	if o.OnJob == nil {
		o.OnJob = func(Job) {}
	}
	c := &Commands{store: store, now: now, log: log, Options: o}
	c.inbox.init()
	c.desk.init()
	c.waits.init()
	c.slots.init()
	c.wish.init()
	c.wants.init()
	return c
}

// Stats is what the System page shows.
type Stats struct {
	Open int64 `json:"open"` // unfinished commands
	Jobs int64 `json:"jobs"` // unfinished jobs
	Away bool  `json:"away"` // the store does not answer
}

// Stats returns what there is now.
func (c *Commands) Stats() Stats {
	return Stats{c.open.Load(), c.unfinished.Load(), c.inbox.isAway()}
}

func (c *Commands) micros() muster.Micros { return muster.MicrosOf(c.now()) }

// Ready is the broker's: somebody listens for the commands of a device, or a gateway
// for those of all its children. It does not block.
func (c *Commands) Ready(device muster.DeviceID, children bool) {
	c.inbox.ready(device, children)
}

// Forget is told that a device was deleted. It does not block.
func (c *Commands) Forget(device muster.DeviceID) { c.inbox.forget(device) }

// EndWaits has everybody who waits for a command answered with it as it stands, now and
// from now on: the server stops.
func (c *Commands) EndWaits() { c.waits.endAll(true) }

// Send stores a command and returns it; it is on its way then. With a wait it returns
// when the command is finished, or when the wait (at most MaxWait) or ctx is over, as
// it stands then.
//
// NotFound: there is no such device. Busy: too many of its commands are unfinished, or
// too many callers wait. Conflict: the key came with another command before. After
// Unavailable it may be sent or not: the same key again tells.
func (c *Commands) Send(ctx context.Context, s Spec, wait time.Duration) (Command, error) {
	if err := s.check(); err != nil {
		return Command{}, err
	}
	if _, err := c.Registry.Get(s.Device); err != nil {
		return Command{}, err
	}
	if wait > 0 {
		if err := c.waits.enter(); err != nil {
			return Command{}, err
		}
		defer c.waits.leave()
	}
	id, again, err := c.create(ctx, s)
	if err != nil {
		return Command{}, err
	}
	if again {
		audit.Nothing(ctx)
	} else {
		audit.Note(ctx, "command.send", "devices/"+string(s.Device)+"/commands/"+strconv.FormatInt(id, 10), nil, map[string]string{"method": s.Method})
	}
	if wait > 0 {
		c.await(ctx, id, min(wait, MaxWait))
	}
	return c.store.Command(context.WithoutCancel(ctx), s.Device, id)
}

// create returns the id of the new command, or again of the one that was made with the key.
func (c *Commands) create(ctx context.Context, s Spec) (id int64, again bool, err error) {
	op := &sendOp{spec: s, reply: newReply()}
	if s.Key == "" {
		err := c.do(ctx, op, op.reply)
		return op.id, false, err
	}
	op.key, op.hash = keyHash(s.By, s.Key), s.bodyHash()
	release, err := c.wish.hold(ctx, string(s.Device)+" "+op.key)
	if err != nil {
		return 0, false, err
	}
	found, ok, err := c.store.CommandByKey(ctx, s.Device, op.key)
	if err != nil || ok && found.Created > c.micros()-micros(KeyFor) {
		release()
		if err == nil && found.Hash != op.hash {
			err = errOtherBody()
		}
		return found.ID, true, err
	}
	op.release = release
	if err := c.do(ctx, op, op.reply); err != nil {
		return 0, false, err
	}
	return op.id, false, nil
}

func errOtherBody() error {
	return muster.Errorf(muster.Conflict, "this Idempotency-Key came with another body before")
}

// Cancel calls a command off and returns it: one that is queued is never sent; a
// device that has it is not told, and what it reports is kept as late. Conflict when
// it has ended otherwise.
func (c *Commands) Cancel(ctx context.Context, device muster.DeviceID, id int64) (Command, error) {
	got, err := c.store.Command(ctx, device, id)
	if err != nil {
		return Command{}, err
	}
	if got.State.Final() {
		return got, cancelled(got.State)
	}
	op := &cancelOp{id: id, device: device, reply: newReply()}
	err = c.do(ctx, op, op.reply)
	if err != nil {
		return Command{}, err
	}
	audit.Note(ctx, "command.cancel", "devices/"+string(device)+"/commands/"+strconv.FormatInt(id, 10), nil, nil)
	return c.store.Command(ctx, device, id)
}

func cancelled(s State) error {
	if why := next(s, evCancel).refused; why != "" {
		return muster.Errorf(muster.Conflict, "%s", why)
	}
	return nil
}

// Results takes what devices report, at most 500 at once, in one transaction, and
// answers for each: nil, Invalid (not to be tried again) or Unavailable.
func (c *Commands) Results(ctx context.Context, rs []Report) []error {
	op := &reportsOp{reply: newReply(), list: make([]sorted, len(rs)), errs: make([]error, len(rs))}
	for i, r := range rs {
		op.list[i] = sort(r)
		op.errs[i] = op.list[i].err
	}
	if err := c.do(ctx, op, op.reply); err != nil {
		return failedAll(op.list, err) // errs may still be written
	}
	return op.errs
}

func failedAll(list []sorted, err error) []error {
	out := make([]error, len(list))
	for i := range list {
		if out[i] = list[i].err; out[i] == nil {
			out[i] = err
		}
	}
	return out
}

// Command returns a command of a device; NotFound when there is none.
func (c *Commands) Command(ctx context.Context, device muster.DeviceID, id int64) (Command, error) {
	return c.store.Command(ctx, device, id)
}

// Commands returns a page of a device's commands, newest first, and the id to give as
// Before for the next one, 0 at the end.
func (c *Commands) Commands(ctx context.Context, q Query) ([]Command, int64, error) {
	switch q.State {
	case "", "open", "finished":
	default:
		if _, err := ParseState(q.State); err != nil {
			return nil, 0, err
		}
	}
	limit := q.Limit
	q.Limit++
	list, err := c.store.Commands(ctx, q)
	if err != nil || len(list) <= limit {
		return list, 0, err
	}
	return list[:limit], list[limit-1].ID, nil
}

func micros(d time.Duration) muster.Micros { return muster.Micros(d.Microseconds()) }

// slots are the jobs that are running or paused, at most MaxJobs.
type slots struct {
	mu  sync.Mutex
	ids map[int64]struct{}
}

func (s *slots) init() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = map[int64]struct{}{}
}

func (s *slots) take(id int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.ids[id]; !ok && len(s.ids) >= MaxJobs {
		return muster.Errorf(muster.Busy, "%d jobs are running or paused, more are not allowed", MaxJobs)
	}
	s.ids[id] = struct{}{}
	return nil
}

// put takes a slot for a job that has one.
func (s *slots) put(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[id] = struct{}{}
}

func (s *slots) give(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}
