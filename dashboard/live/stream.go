package live

import (
	"context"
	"slices"
	"sync"

	"muster"
)

// Ask is what a stream shows: the fields of a sub command.
type Ask struct {
	Channel string // any but events, which has a stream of its own; page for a whole connection
	Q       string
	Sort    string
	After   string
	Limit   int // 0 for the channel's own
	Cols    []string
}

// Stream shows one channel by server-sent events: each frame that a socket would be sent
// on it is the data of one event. It is conflated, slowed down, limited and ended by the
// same code. One of the channel page shows what its commands ask for.
type Stream struct {
	c       *client
	s       *sub   // nil of the channel page
	sid     string // of the channel page, else empty
	write   func(events []byte, frames int) error
	gone    chan struct{} // closed when it is cut
	cutOnce sync.Once
	entered bool

	mu   sync.Mutex
	runs bool   // before, write is its caller's alone
	held []byte // what ended it before it ran

	talk sync.Mutex // held while a frame is obeyed
	over bool       // guarded by talk
}

// Attach opens a channel for who, to be shown by Run; Close must be called. write sends
// whole events, or a comment, with a deadline of its own, and is called by one goroutine
// at a time while Run runs. It fails as a sub command does, and with Unavailable when the
// gateway is not open.
func (g *Gateway) Attach(who Principal, ask Ask, write func(events []byte, frames int) error) (*Stream, error) {
	st := &Stream{write: write, gone: make(chan struct{})}
	st.c = &client{g: g, out: st, who: &who, greeted: true, hz: ticksPerSecond, pace: ticksPerSecond, toldHz: ticksPerSecond}
	if ask.Channel == chPage {
		return st, g.attachPage(st)
	}
	cmd := command{Ch: ask.Channel, Q: ask.Q, Sort: ask.Sort, After: ask.After, Cols: ask.Cols}
	if ask.Limit != 0 {
		cmd.Limit = &ask.Limit
	}
	s, err := subFor(st.c, &cmd)
	if err != nil {
		return nil, err
	}
	s.seq = new(uint64)
	if !g.enterStream(st.c) {
		return nil, muster.Errorf(muster.Unavailable, "the server is stopping")
	}
	st.entered = true
	if err := g.openSub(s); err != nil {
		st.Close()
		return nil, err
	}
	st.s = s
	return st, nil
}

// Run shows the channel until ctx ends, write fails, or who may not see it any more.
func (st *Stream) Run(ctx context.Context) {
	if err := st.begin(); err != nil {
		return
	}
	if st.s == nil {
		st.c.reply(st.c.g.welcome(nil, st.sid, *st.c.who))
	} else {
		st.c.install(st.s, nil)
	}
	select {
	case <-ctx.Done():
	case <-st.gone:
	}
}

// Close gives everything back, and waits for the write under way.
func (st *Stream) Close() {
	c := st.c
	if !st.entered {
		return
	}
	st.entered = false
	st.hangUp()
	c.mu.Lock()
	c.ended = true
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	c.flushers.Wait()
	for _, s := range subs {
		c.g.closeSub(s)
	}
	if st.s != nil { // else it would stay when it was not installed
		c.g.closeSub(st.s)
	}
	c.g.leaveStream(c)
}

func (st *Stream) cut() { st.cutOnce.Do(func() { close(st.gone) }) }

// begin writes what came before Run, and has others write from here on.
func (st *Stream) begin() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.runs = true
	if st.held == nil {
		return nil
	}
	return st.write(st.held, 1)
}

// waits keeps what is to be written before Run: that who looks has lost his rights.
func (st *Stream) waits(data []byte) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.runs {
		return false
	}
	if data != nil {
		st.held = slices.Clone(data)
	}
	return true
}

// send writes events; without any, a comment shows that the server lives.
func (st *Stream) send(data []byte, frames int) error {
	if st.waits(data) {
		return nil
	}
	if data == nil {
		data = []byte(":\n\n")
	}
	return st.write(data, frames)
}

// enterStream puts c on the wheel, as enter does; false when the gateway is not open.
func (g *Gateway) enterStream(c *client) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open {
		return false
	}
	g.clients.Add(1)
	g.streams++
	c.slot = g.next
	g.next = (g.next + 1) % pingSeconds
	g.wheel[c.slot][c] = struct{}{}
	return true
}

func (g *Gateway) leaveStream(c *client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.wheel[c.slot], c)
	g.streams--
	g.clients.Done()
}
