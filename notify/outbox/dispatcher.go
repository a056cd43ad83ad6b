package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"muster"
	"muster/internal/lifecycle"
)

const (
	// maxQueues is how many queues are known at once. Those beyond are looked at when
	// others are empty.
	maxQueues = 20_000

	leaseSpare = 30 * time.Second // that a lease is longer than an attempt, to write what came of it
	storeTime  = 10 * time.Second // for one call of the store
	claimAgain = time.Second      // after a claim that failed

	lifeMark = "." // behind an instance in the name of a worker
)

// Config is what New needs.
type Config struct {
	Store    Store
	Channels []Channel
	// Settings by the channel's name; of a channel that has none the zero Settings.
	Settings map[string]Settings
	// Worker names this process in leases, a random name when empty.
	Worker string
	// Instance is the name that this process and those before it have, letters and digits, and no
	// other that uses the store: Run frees the leases that one of them died with. Empty for
	// none: then they end by themselves.
	Instance string
	Now      func() time.Time
	Logger   *slog.Logger

	Poll  time.Duration // how often the store is asked for what other processes queued; 3 s
	Grace time.Duration // how long attempts under way may take when Run is to end; 5 s

	// KeepEnded is how long deliveries are kept that were sent or dropped; 7 days.
	KeepEnded time.Duration
	// KeepDead is how long dead ones are; 30 days.
	KeepDead time.Duration

	// Pass is asked before each attempt what becomes of its deliveries, in their order; its error has
	// them wait for a moment. nil lets all go.
	Pass func(ctx context.Context, ds []Delivery) ([]Pass, error)
	// OnGone is called when d's target wants nothing any more, before that is written, and
	// returns soon. nil for nobody.
	OnGone func(ctx context.Context, d Delivery, why string) error
	// OnEnded is called with deliveries that were sent, died or were dropped, after that was
	// written, in no order. It does not block. nil for nobody.
	OnEnded func(ended []Delivery)
}

// Dispatcher sends what the store holds. It is safe for concurrent use; its memory is
// bounded by its slots, whatever waits in the store.
type Dispatcher struct {
	c      Config
	lines  map[string]*line
	wake   chan struct{} // of size 1
	leases uint64        // of the scheduling loop

	mu     sync.Mutex
	active bool
	queues map[string]*queue // at most maxQueues
	jobs   map[*job]struct{} // under way, or not settled yet
	turn   uint64            // counts claims, for fairness
	count  counters
}

// line is a channel with its slots. mu of the Dispatcher guards what changes.
type line struct {
	Channel
	s       Settings
	running int // attempts under way
	slow    int // of these not of the urgent lane
	count   ChannelCounts
}

// queue is what is known of one queue.
type queue struct {
	name          string
	line          *line
	urgent, other time.Time // from when on there may be something to claim, by lane; zero for nothing known
	retry         time.Time // no claim before that: the store failed
	running, slow int
	served        uint64 // its last turn
	listed        bool   // the store named it when it was asked last
	breaker       breaker
	limit         *rate.Limiter // nil for none
}

// New returns a Dispatcher that does nothing yet.
func New(c Config) *Dispatcher {
	c.Poll, c.Grace = or(c.Poll, 3*time.Second), or(c.Grace, 5*time.Second)
	c.KeepEnded, c.KeepDead = or(c.KeepEnded, 7*24*time.Hour), or(c.KeepDead, 30*24*time.Hour)
	if c.Worker == "" {
		c.Worker = rand.Text()[:12]
	}
	if c.Instance != "" {
		c.Worker = c.Instance + lifeMark + c.Worker
	}
	d := &Dispatcher{c: c, wake: make(chan struct{}, 1), lines: map[string]*line{}, count: counters{failing: map[string]bool{}}}
	for _, ch := range c.Channels {
		d.lines[ch.Name()] = &line{Channel: ch, s: c.Settings[ch.Name()].complete()}
	}
	d.reset()
	return d
}

// reset forgets what a Run that ended knew.
func (d *Dispatcher) reset() {
	d.queues, d.jobs = map[string]*queue{}, map[*job]struct{}{}
	for _, l := range d.lines {
		l.running, l.slow = 0, 0
	}
}

// Run sends until ctx ends. Then nothing more is claimed, attempts under way have Grace to
// end, what came of them is written, and what was cut short is queued again without having
// counted. It returns when all of that is done; it can be run again.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.mu.Lock()
	if d.active {
		d.mu.Unlock()
		return muster.Errorf(muster.Conflict, "the dispatcher runs already")
	}
	d.active = true
	d.reset()
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.active = false
	}()
	return d.run(ctx)
}

func (d *Dispatcher) run(parent context.Context) error {
	ctx, stop := context.WithCancel(parent)
	defer stop()
	lasting := context.WithoutCancel(parent)
	work, cut := context.WithCancel(lasting)
	defer cut()
	r := &runner{Dispatcher: d, work: work, settling: make(chan *settled, maxSettling), ending: make(chan struct{})}

	if err := lifecycle.Guard(func() error { r.free(ctx); return nil }); err != nil {
		return err //nolint:wrapcheck // a panic says what it is
	}
	var errs [3]error
	var trimmer, settler sync.WaitGroup
	trimmer.Go(func() { errs[1] = lifecycle.Guard(func() error { return d.trimLoop(ctx) }); stop() })
	settler.Go(func() { errs[2] = lifecycle.Guard(func() error { return r.settleLoop(lasting) }); stop(); r.drain() })
	errs[0] = lifecycle.Guard(func() error { return r.schedule(ctx) })
	stop()
	r.finish(cut)
	close(r.ending)
	close(r.settling)
	trimmer.Wait()
	settler.Wait()
	return errors.Join(errs[:]...)
}

// free has those sent again at once that an earlier life of this process had on lease.
func (r *runner) free(ctx context.Context) {
	if r.c.Instance == "" {
		return
	}
	limited, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	n, err := r.c.Store.FreeDeliveries(limited, r.c.Instance+lifeMark, muster.MicrosOf(r.c.Now()))
	if !r.failed(ctx, "free the leases of an earlier life", err) && n > 0 {
		r.c.Logger.Info("deliveries that were under way when this server ended are sent again", "count", n)
	}
}

// runner is one Run.
type runner struct {
	*Dispatcher
	work     context.Context //nolint:containedctx // of all attempts: it outlives the scheduling by Grace
	attempts sync.WaitGroup
	settling chan *settled // workers wait when it is full: then their slots are not free
	ending   chan struct{} // closed when no attempt is under way any more
}

// finish waits for attempts under way, and cuts them short when that takes long.
func (r *runner) finish(cut context.CancelFunc) {
	t := time.AfterFunc(r.c.Grace, cut)
	defer t.Stop()
	r.attempts.Wait()
}

// Wake tells of deliveries that were committed. It never blocks.
func (d *Dispatcher) Wake(list []Delivery) {
	d.mu.Lock()
	for i := range list {
		if q := d.queue(list[i].Queue, list[i].Channel); q != nil {
			q.from(list[i].Lane, list[i].Due.Time())
		}
	}
	d.mu.Unlock()
	d.nudge()
}

// nudge has the scheduling loop look again.
func (d *Dispatcher) nudge() {
	select {
	case d.wake <- struct{}{}:
	default: // it will
	}
}

// Hasten sends what waits for a channel's target now: it can take it again. What is under
// way meanwhile and finds that it cannot is tried again at once.
func (d *Dispatcher) Hasten(ctx context.Context, channel, target string) error {
	d.mu.Lock()
	for j := range d.jobs {
		if j.ds[0].Channel == channel && j.ds[0].Target == target {
			j.hastened = true
		}
	}
	d.mu.Unlock()
	return d.hasten(ctx, channel, target)
}

func (d *Dispatcher) hasten(ctx context.Context, channel, target string) error {
	now := d.c.Now()
	n, err := d.c.Store.HastenDeliveries(ctx, channel, target, muster.MicrosOf(now))
	if err != nil {
		return fmt.Errorf("hasten deliveries: %w", err)
	}
	if n == 0 {
		return nil
	}
	d.mu.Lock()
	for _, q := range d.queues { // which of them is not known
		if q.line.Name() == channel {
			q.from(Urgent, now)
			q.from(Normal, now)
		}
	}
	d.mu.Unlock()
	d.nudge()
	return nil
}

// queue returns the queue of that name; nil when its channel is none of ours, or when
// there are too many. It is called with mu held.
func (d *Dispatcher) queue(name, channel string) *queue {
	if q := d.queues[name]; q != nil {
		return q
	}
	l := d.lines[channel]
	if l == nil || len(d.queues) >= maxQueues {
		return nil
	}
	q := &queue{name: name, line: l, breaker: breaker{after: l.s.Failures, first: l.s.OpenFor, most: l.s.MaxOpen}}
	if l.s.Rate > 0 {
		q.limit = rate.NewLimiter(rate.Limit(l.s.Rate), l.s.Burst)
	}
	d.queues[name] = q
	return q
}

// from says that something of a lane is due at at.
func (q *queue) from(lane Lane, at time.Time) {
	if lane == Urgent {
		q.urgent = earlier(q.urgent, at)
		return
	}
	q.other = earlier(q.other, at)
}

// earlier is the first of two times; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// worker names one claim: what an older lease of this same process has to say is refused.
func (d *Dispatcher) worker() string {
	d.leases++
	return d.c.Worker + "." + strconv.FormatUint(d.leases, 36)
}
