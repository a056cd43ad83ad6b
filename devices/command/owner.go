package command

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"muster"
	"muster/feed"
)

const (
	// linger is how long the note that something was sent or delivered waits for others
	// to share a transaction with, when nothing else waits for it.
	linger = 10 * time.Millisecond
	// glance is how often the owner looks at the clock while something is open, should it
	// have been set; idle is how often when nothing is.
	glance = time.Second
	idle   = time.Hour
	// writeTimeout is for one transaction.
	writeTimeout = 20 * time.Second
	firstRetry   = 100 * time.Millisecond
	lastRetry    = 5 * time.Second
	refusedRetry = time.Second
	lastWrite    = 5 * time.Second // to note what happened, at the end
	idBlock      = 2000            // ids taken from the store at once
)

// Load reads unfinished commands and jobs into memory. Call it before Run, and before
// the broker starts.
func (c *Commands) Load(ctx context.Context) error {
	d := &c.desk
	d.init()
	d.token.run = rand.Text() + "-"
	err := c.store.LoadCommands(ctx, "", func(o Open) error {
		c.loadCommand(o)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load commands: %w", err)
	}
	if err := c.loadJobs(ctx); err != nil {
		return err
	}
	d.loaded = true
	c.open.Store(int64(len(d.items)))
	c.unfinished.Store(int64(len(d.runs)))
	return nil
}

// loadCommand takes a stored command in. One that was sent is lost: its connection is.
func (c *Commands) loadCommand(o Open) {
	it := c.desk.add(o, nil)
	if o.State == Sent {
		c.desk.later(happening{id: o.ID, ev: evLost, at: c.micros()}, 1)
	}
	c.desk.soil(it.line)
}

// soonest is the shortest time that a loop's timer is set to. One that is due at once is
// fired by the goroutine that asks it, and two such of one synctest bubble at the same
// time crash Go's race detector, which has one context for a bubble's timers.
const soonest = time.Microsecond

// Run owns the commands until ctx ends; then it notes what happened until then, in at
// most 5 s. Callers are refused while it does not run. It is started again after a
// panic and then reads all from the store anew.
func (c *Commands) Run(ctx context.Context) error {
	if !c.desk.loaded {
		if err := c.Load(ctx); err != nil {
			return err
		}
	}
	c.inbox.setClosed(false)
	orderly := false
	defer func() { c.stop(ctx, orderly) }()
	timer := time.NewTimer(soonest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			orderly = true
			return nil
		case <-c.inbox.bell:
		case <-timer.C:
		}
		wake := c.turn(ctx)
		timer.Reset(max(wake.Time().Sub(c.now()), soonest))
	}
}

// stop ends all callers. After a panic nothing else is done: what comes next reads
// everything from the store.
func (c *Commands) stop(ctx context.Context, orderly bool) {
	c.desk.loaded = false
	for _, o := range c.inbox.setClosed(true) {
		c.drop(o, errStopped())
	}
	c.waits.endAll(false)
	if !orderly {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	for ctx.Err() == nil && c.settleDoubt(ctx) {
		c.takeIn(c.inbox.take(0))
		if len(c.desk.events)+len(c.desk.loose) == 0 || !c.commit(ctx, nil, false) {
			return
		}
	}
}

// turn does all that is due and returns when there is more.
func (c *Commands) turn(ctx context.Context) muster.Micros {
	d := &c.desk
	for ctx.Err() == nil {
		if now := c.micros(); now < d.retry {
			c.takeIn(c.inbox.take(0)) // callers are told that the store is away
			return d.retry
		}
		if !c.settleDoubt(ctx) {
			return d.retry
		}
		t := c.inbox.take(maxBatch)
		c.takeIn(t)
		c.expire()
		if !c.lookAtGone(ctx) || !c.adoptDoubtful(ctx) || !c.stockIDs(ctx, t.ops) {
			c.dropAll(t.ops)
			continue
		}
		now := c.micros()
		if len(t.ops) > 0 || len(d.loose) > 0 || d.flush != 0 && now >= d.flush || len(d.events) >= maxBatch || c.jobsDue(now) {
			if !c.commit(ctx, t.ops, true) {
				continue
			}
		}
		c.pump(ctx)
		if c.inbox.empty() && len(d.loose) == 0 {
			if wake := c.wake(); wake > c.micros() {
				return wake
			}
		}
	}
	return 0
}

// wake is when something is due next.
func (c *Commands) wake() muster.Micros {
	d := &c.desk
	at := c.micros() + micros(idle)
	if len(d.items)+len(d.runs)+len(d.events) > 0 {
		at = c.micros() + micros(glance)
	}
	if d.flush != 0 {
		at = min(at, d.flush)
	}
	if len(d.due) > 0 {
		at = min(at, d.due[0].Expires)
	}
	if len(d.dirty) > 0 { // texts could not be read
		at = min(at, d.retry)
	}
	return c.jobsWake(at)
}

// takeIn puts what came in where it belongs.
func (c *Commands) takeIn(t taken) {
	d := &c.desk
	for device, l := range t.listening {
		if l.own {
			d.listens(device)
		}
		if !l.children {
			continue
		}
		children, err := c.Registry.Children(device)
		if err != nil {
			continue // deleted meanwhile
		}
		for _, child := range children {
			d.listens(child)
		}
	}
	for _, h := range t.outcomes {
		by := h.at + micros(linger)
		if it := d.items[h.id]; it == nil || h.ev == evLost || len(it.line.waiting) > 1 {
			by = 1 // somebody waits for it
		}
		d.later(h, by)
	}
	d.loose = append(d.loose, t.done...)
	d.gone = append(d.gone, t.forgotten...)
	d.adopt = append(d.adopt, t.doubtful...)
}

// expire has what is over committed as that.
func (c *Commands) expire() {
	d, now := &c.desk, c.micros()
	if len(d.due) == 0 || d.due[0].Expires > now {
		return
	}
	// The commit takes them off the heap, so this batch's are found by walking it.
	var walk func(i int)
	walk = func(i int) {
		if i >= len(d.due) || d.due[i].Expires > now || len(d.events) >= maxBatch {
			return
		}
		d.later(happening{id: d.due[i].ID, ev: evExpire, at: d.due[i].Expires}, 1)
		walk(2*i + 1)
		walk(2*i + 2)
	}
	walk(0)
}

// stockIDs has ids at hand for what is to be inserted.
func (c *Commands) stockIDs(ctx context.Context, ops []op) bool {
	d := &c.desk
	if d.ids.end-d.ids.next >= 2*maxBatch {
		return true
	}
	if len(ops) == 0 && len(d.runs) == 0 {
		return true
	}
	call, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	first, err := c.store.TakeCommandIDs(call, idBlock)
	if err != nil {
		c.failed(ctx, "take ids", err, ops)
		return false
	}
	d.ids.next, d.ids.end = first, first+idBlock
	return true
}

// failed tells callers that the store is away, and has the next try wait.
func (c *Commands) failed(ctx context.Context, doing string, err error, ops []op) {
	d := &c.desk
	if d.fails == 0 && ctx.Err() == nil {
		c.log.Warn("commands wait for the store", "doing", doing, "err", err)
	}
	d.retry = c.micros() + micros(min(firstRetry<<min(d.fails, 10), lastRetry))
	d.fails++
	for _, o := range ops {
		c.drop(o, err)
	}
	for _, o := range c.inbox.setAway(true) {
		c.drop(o, err)
	}
}

// works notes that the store answers.
func (c *Commands) works() {
	d := &c.desk
	if d.fails > 0 {
		c.log.Info("the store takes commands again", "failures", d.fails)
	}
	d.fails, d.retry = 0, 0
	if c.inbox.isAway() {
		c.inbox.setAway(false)
	}
}

// commit writes the events and ops that there are, and starts targets of jobs when
// that is wanted. It says whether what it wrote is committed.
func (c *Commands) commit(ctx context.Context, ops []op, start bool) bool {
	d := &c.desk
	b := newBatch(c.micros())
	if err := c.lookUpEnded(ctx, b, ops); err != nil {
		c.failed(ctx, "read the states of commands", err, ops)
		return false
	}
	n := min(len(d.events), d.limit)
	b.happenings, d.events = d.events[:n:n], d.events[n:]
	if len(d.events) == 0 {
		d.flush = 0
	}
	m := min(len(d.loose), d.limit)
	b.settled, d.loose = d.loose[:m:m], d.loose[m:]
	for _, h := range b.happenings {
		c.fill(b, h)
	}
	for _, s := range b.settled {
		c.settleTarget(b, s)
	}
	for _, o := range ops {
		if o.add(c, b) {
			b.ops = append(b.ops, o)
		}
	}
	if err := c.stepJobs(ctx, b, start && d.limit == maxBatch); err != nil {
		c.undo(b)
		c.failed(ctx, "read the targets of a job", err, b.ops)
		return false
	}
	return c.write(ctx, b)
}

func (c *Commands) write(ctx context.Context, b *batch) bool {
	c.seal(b)
	if b.empty() {
		c.desk.limit = maxBatch
		c.apply(b, nil)
		return true
	}
	call, cancel := context.WithTimeout(feed.With(context.WithoutCancel(ctx)), writeTimeout)
	defer cancel()
	feed.Note(call, c.newsOf(b)...)
	missing, err := c.store.WriteCommands(call, b.Batch)
	if err != nil {
		c.desk.doubt = b
		return c.doubted(ctx, err)
	}
	c.works()
	c.desk.limit = maxBatch
	c.apply(b, missing)
	return true
}

// undo has the events of a batch that was not committed come again.
func (c *Commands) undo(b *batch) {
	d := &c.desk
	if len(b.happenings) > 0 {
		d.events = append(b.happenings, d.events...)
		d.flush = 1
	}
	d.loose = append(b.settled, d.loose...)
	for _, r := range d.runs {
		r.wake = 1
	}
}

// doubted is called when the store refused a batch, or did not say whether it took it.
func (c *Commands) doubted(ctx context.Context, err error) bool {
	b := c.desk.doubt
	for _, o := range b.ops {
		o.end(err)
	}
	c.failed(ctx, "write commands", err, nil)
	return false
}

// settleDoubt finds out whether the batch in doubt was committed, and goes on
// accordingly. It says whether that is known.
func (c *Commands) settleDoubt(ctx context.Context) bool {
	d := &c.desk
	b := d.doubt
	if b == nil && d.fails == 0 {
		return true
	}
	call, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	token := ""
	if b != nil {
		token = b.Token
	}
	there, err := c.store.CommandsWritten(call, token)
	var missing []int64
	if err == nil && b != nil && there {
		missing, err = c.missingOf(call, b)
	}
	if err != nil {
		c.failed(ctx, "find out what was written", err, nil)
		return false
	}
	d.doubt = nil
	c.works()
	switch {
	case b == nil:
		return true
	case there:
		c.apply(b, missing)
		return true
	}
	c.undo(b)
	for _, o := range b.ops {
		c.drop(o, errAway())
	}
	c.shrink()
	return true
}

func (c *Commands) dropAll(ops []op) {
	for _, o := range ops {
		c.drop(o, errAway())
	}
}

// shrink has smaller batches tried, down to one event, when the store answers and yet
// refuses. An event that it refuses alone lets the others pass.
func (c *Commands) shrink() {
	d := &c.desk
	if d.limit > 1 {
		d.limit /= 2
		d.retry = c.micros() + micros(firstRetry)
		return
	}
	d.retry = c.micros() + micros(refusedRetry)
	if len(d.events) > 0 {
		c.log.Error("the store refuses a change of a command", "command", d.events[0].id)
		d.events = append(d.events[1:], d.events[0])
	}
}

// missingOf returns the ids of b that were left out.
func (c *Commands) missingOf(ctx context.Context, b *batch) ([]int64, error) {
	ids := make([]int64, len(b.Insert))
	for i := range b.Insert {
		ids[i] = b.Insert[i].ID
	}
	there, err := c.store.CommandStates(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("look for commands: %w", err)
	}
	var missing []int64
	for _, id := range ids {
		if _, ok := there[id]; !ok {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// lookUpEnded finds the states of commands that are reported on and not open.
func (c *Commands) lookUpEnded(ctx context.Context, b *batch, ops []op) (err error) {
	var ids []int64
	for _, o := range ops {
		r, ok := o.(*reportsOp)
		if !ok {
			continue
		}
		for i := range r.list {
			if s := &r.list[i]; s.err == nil && c.desk.items[s.id] == nil {
				ids = append(ids, s.id)
			}
		}
	}
	if len(ids) > 0 {
		b.ended, err = c.store.CommandStates(ctx, ids)
	}
	return err
}

// lookAtGone drops the commands of deleted devices, whose rows are gone. What is
// stored for a device of the same id since then is taken in.
func (c *Commands) lookAtGone(ctx context.Context) bool {
	d := &c.desk
	for len(d.gone) > 0 {
		device := d.gone[0]
		var open []Open
		err := c.store.LoadCommands(ctx, device, func(o Open) error {
			open = append(open, o)
			return nil
		})
		if err != nil {
			c.failed(ctx, "look for a device's commands", err, nil)
			return false
		}
		d.gone = d.gone[1:]
		c.replace(device, open)
	}
	return true
}

func (c *Commands) replace(device muster.DeviceID, open []Open) {
	d := &c.desk
	there := make(map[int64]bool, len(open))
	for _, o := range open {
		there[o.ID] = true
		if d.items[o.ID] == nil {
			c.loadCommand(o)
		}
	}
	l := d.lines[device]
	if l == nil {
		return
	}
	for _, it := range slices.Clone(l.all) {
		if there[it.ID] {
			continue
		}
		if it.Job != 0 {
			d.loose = append(d.loose, settled{job: it.Job, number: it.Target, device: device, err: errDeleted})
		}
		d.moved(it, Cancelled)
		c.waits.finished(it.ID)
	}
	c.open.Store(int64(len(d.items)))
}
