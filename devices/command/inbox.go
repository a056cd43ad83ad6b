package command

import (
	"context"
	"slices"
	"sync"
	"time"

	"muster"
)

// inbox is what waits for the owner. Whoever puts something in goes on at once.
//
// Its parts are bounded: callers by maxInbox; outcomes by the deliveries under way, one
// a device; ready and forgotten by the number of devices; done by the targets that were
// handed to the Desirer.
type inbox struct {
	bell chan struct{} // holds one ring

	mu        sync.Mutex
	ops       []op
	outcomes  []happening
	listening map[muster.DeviceID]listening
	forgotten []muster.DeviceID
	doubtful  []int64 // jobs, at most one a caller
	done      []settled
	away      bool // the store does not answer: callers are told so at once
	closed    bool // nobody runs
}

type listening struct{ own, children bool }

// op is a caller's wish.
type op interface {
	// add puts it into b, or answers its caller and says false.
	add(c *Commands, b *batch) bool
	// committed is called when b was, before end.
	committed(c *Commands, b *batch)
	// end tells the caller; it may be called again, and then does nothing.
	end(err error)
}

// reply is how a caller hears of its wish.
type reply struct {
	ch   chan error // holds one
	once *sync.Once
}

func newReply() reply { return reply{make(chan error, 1), &sync.Once{}} }

func (r reply) end(err error) { r.once.Do(func() { r.ch <- err }) }

// happening is an event of one command that is to be committed.
type happening struct {
	id      int64
	ev      event
	attempt int // of evSend, evLost and evAck: which delivery it is about
	at      muster.Micros
}

// settled is the end of a target that has no command.
type settled struct {
	job, number int64
	device      muster.DeviceID
	err         string // empty when it went well
}

func (i *inbox) init() {
	i.bell = make(chan struct{}, 1)
	i.listening = map[muster.DeviceID]listening{}
}

func (i *inbox) ring() {
	select {
	case i.bell <- struct{}{}:
	default:
	}
}

// do hands o to the owner and waits for the answer or the end of ctx.
func (c *Commands) do(ctx context.Context, o op, r reply) error {
	if err := c.inbox.put(o); err != nil {
		c.drop(o, err)
		return err
	}
	select {
	case err := <-r.ch:
		return err
	case <-ctx.Done():
		return muster.Errorf(muster.Unavailable, "the store took too long: %w", ctx.Err())
	}
}

// drop ends an op that the owner will not see, or that was not committed.
func (c *Commands) drop(o op, err error) {
	o.end(err)
	if s, ok := o.(*sendOp); ok && s.release != nil {
		s.release()
	}
}

func (i *inbox) put(o op) error {
	i.mu.Lock()
	switch {
	case i.closed:
		i.mu.Unlock()
		return errStopped()
	case i.away:
		i.mu.Unlock()
		return errAway()
	case len(i.ops) >= maxInbox:
		i.mu.Unlock()
		return muster.Errorf(muster.Busy, "%d changes of commands wait already", maxInbox)
	}
	i.ops = append(i.ops, o)
	i.mu.Unlock()
	i.ring()
	return nil
}

func errStopped() error { return muster.Errorf(muster.Unavailable, "commands are not taken now") }

func errAway() error {
	return muster.Errorf(muster.Unavailable, "the database does not answer; it is not known whether this was done")
}

func (i *inbox) ready(device muster.DeviceID, children bool) {
	i.mu.Lock()
	l := i.listening[device]
	l.own, l.children = l.own || !children, l.children || children
	i.listening[device] = l
	i.mu.Unlock()
	i.ring()
}

func (i *inbox) forget(device muster.DeviceID) {
	i.mu.Lock()
	i.forgotten = append(i.forgotten, device)
	i.mu.Unlock()
	i.ring()
}

// adopt has the owner look whether a job is stored.
func (i *inbox) adopt(job int64) {
	i.mu.Lock()
	i.doubtful = append(i.doubtful, job)
	i.mu.Unlock()
	i.ring()
}

func (i *inbox) outcome(h happening) {
	i.mu.Lock()
	i.outcomes = append(i.outcomes, h)
	i.mu.Unlock()
	i.ring()
}

func (i *inbox) settle(list []settled) {
	i.mu.Lock()
	i.done = append(i.done, list...)
	i.mu.Unlock()
	i.ring()
}

// taken is what the owner took out.
type taken struct {
	ops       []op
	outcomes  []happening
	listening map[muster.DeviceID]listening
	forgotten []muster.DeviceID
	doubtful  []int64
	done      []settled
}

// take empties the inbox, but for the callers past the first max.
func (i *inbox) take(limit int) taken {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := min(limit, len(i.ops))
	t := taken{slices.Clone(i.ops[:n]), i.outcomes, nil, i.forgotten, i.doubtful, i.done}
	i.ops = slices.Delete(i.ops, 0, n)
	i.outcomes, i.forgotten, i.doubtful, i.done = nil, nil, nil, nil
	if len(i.listening) > 0 {
		t.listening = i.listening
		i.listening = map[muster.DeviceID]listening{}
	}
	return t
}

func (i *inbox) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.ops)+len(i.outcomes)+len(i.listening)+len(i.forgotten)+len(i.doubtful)+len(i.done) == 0
}

// setAway has callers answered at once while the store is away, also those that wait.
func (i *inbox) setAway(away bool) (ops []op) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.away = away
	if away {
		ops, i.ops = i.ops, nil
	}
	return ops
}

func (i *inbox) isAway() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.away
}

// setClosed has callers refused while nobody runs.
func (i *inbox) setClosed(closed bool) (ops []op) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = closed
	i.away = false
	if closed {
		ops, i.ops = i.ops, nil
	}
	return ops
}

// waits are the callers that wait for commands to finish.
type waits struct {
	mu    sync.Mutex
	n     int
	on    map[int64][]chan struct{}
	ended chan struct{} // closed when nobody runs any more
	over  bool          // and stays so
}

func (w *waits) init() {
	w.on = map[int64][]chan struct{}{}
	w.ended = make(chan struct{})
}

func (w *waits) enter() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n >= MaxWaits {
		return muster.Errorf(muster.Busy, "%d callers wait for commands already; send it without waiting", MaxWaits)
	}
	w.n++
	return nil
}

func (w *waits) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n--
}

func (w *waits) add(id int64) (ch, ended chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch = make(chan struct{})
	w.on[id] = append(w.on[id], ch)
	return ch, w.ended
}

func (w *waits) remove(id int64, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := slices.DeleteFunc(w.on[id], func(o chan struct{}) bool { return o == ch })
	if len(left) == 0 {
		delete(w.on, id)
		return
	}
	w.on[id] = left
}

func (w *waits) finished(id int64) {
	w.mu.Lock()
	list := w.on[id]
	delete(w.on, id)
	w.mu.Unlock()
	for _, ch := range list {
		close(ch)
	}
}

// endAll ends all that wait, and those that come when it is for good.
func (w *waits) endAll(forGood bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	close(w.ended)
	if w.over = forGood; !forGood {
		w.ended = make(chan struct{})
	}
}

// await returns when the command id is finished, or d or ctx is over. It looks at the
// store after it began to wait, so that it misses nothing.
func (c *Commands) await(ctx context.Context, id int64, d time.Duration) {
	ch, ended := c.waits.add(id)
	defer c.waits.remove(id, ch)
	states, err := c.store.CommandStates(ctx, []int64{id})
	if err != nil || !unfinishedIn(states, id) {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
	case <-ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func unfinishedIn(states map[int64]Ended, id int64) bool {
	s, ok := states[id]
	return ok && !s.State.Final()
}

// wishes are the idempotency keys of requests under way: a second one waits for the
// first.
type wishes struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

func (w *wishes) init() { w.held = map[string]chan struct{}{} }

// hold returns when nobody else holds key.
func (w *wishes) hold(ctx context.Context, key string) (release func(), err error) {
	for {
		w.mu.Lock()
		other, ok := w.held[key]
		if !ok {
			ch := make(chan struct{})
			w.held[key] = ch
			w.mu.Unlock()
			return sync.OnceFunc(func() { w.let(key, ch) }), nil
		}
		w.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, muster.Errorf(muster.Conflict, "a request with this Idempotency-Key is under way: %w", ctx.Err())
		}
	}
}

func (w *wishes) let(key string, ch chan struct{}) {
	w.mu.Lock()
	delete(w.held, key)
	w.mu.Unlock()
	close(ch)
}
