package live

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"muster"
	"muster/devices"
)

// Dots arranges all devices for the channel dots.
type Dots interface {
	// Shape grows with each change of which devices there are and of what the registry says
	// of them.
	Shape() uint64
	// Arrange puts the devices that match only, empty for all, in order.
	Arrange(by devices.Arranging, only string) (*devices.Arrangement, error)
	// Statuses is devices.Registry.Statuses. It answers from memory.
	Statuses(a *devices.Arrangement, at []uint32, into []muster.Status)
}

const (
	maxGrids     = 64                  // layouts shown at a time
	layoutTicks  = 3 * ticksPerSecond  // between two layouts of one kind, at least
	driftingTime = 10 * ticksPerSecond // in which what follows from time or values is looked at again
	boundTicks   = ticksPerSecond      // how old a layout of some devices may be for one who comes
	maxNamed     = 256                 // dots that one command names
)

// grids are the layouts that somebody watches.
type grids struct {
	watched  atomic.Int64
	versions atomic.Uint64
	signal   chan struct{} // holds one

	mu  sync.RWMutex
	all map[gridKey]*grid
}

// touch marks dots as changed; it is one atomic load while nobody watches.
func (x *grids) touch(ids []muster.DeviceID) {
	if x.watched.Load() == 0 {
		return
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, gr := range x.all {
		gr.touch(ids)
	}
}

// join adds s to those who watch its layout.
func (x *grids) join(s *sub) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	gr := x.all[s.dots]
	if gr == nil {
		if len(x.all) >= maxGrids {
			return muster.Errorf(muster.Busy, "%d layouts of dots are being shown, which is the most", maxGrids)
		}
		gr = &grid{key: s.dots, sees: s.only, subs: map[*sub]struct{}{}}
		x.all[s.dots] = gr
	}
	gr.subs[s] = struct{}{}
	s.grid = gr
	x.watched.Add(1)
	return nil
}

func (x *grids) leave(s *sub) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.grid == nil {
		return
	}
	x.watched.Add(-1)
	delete(s.grid.subs, s)
	if len(s.grid.subs) == 0 {
		delete(x.all, s.grid.key)
	}
}

// list returns the layouts there are.
func (x *grids) list() []*grid {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*grid, 0, len(x.all))
	for _, gr := range x.all {
		out = append(out, gr)
	}
	return out
}

// tellDots reads what changed, marks those who have not been told, and has layouts made that
// are due.
func (g *Gateway) tellDots() {
	x := &g.grids
	if x.watched.Load() == 0 {
		return
	}
	for _, gr := range x.list() {
		g.lookAtDots(gr)
	}
	select {
	case x.signal <- struct{}{}:
	default: // it arranges still
	}
}

// lookAtDots is apart so that a panic of the source costs one layout its news.
func (g *Gateway) lookAtDots(gr *grid) {
	defer g.caught("a look at the dots")
	gr.look(g.deps.Dots)
	gr.mu.Lock()
	pass := gr.pass
	gr.mu.Unlock()
	g.grids.mu.RLock()
	defer g.grids.mu.RUnlock()
	for s := range gr.subs {
		if s.seen.Load() != pass {
			g.markReady(s)
		}
	}
}

// dotsLoop makes the layouts that are due, until ctx ends.
func (g *Gateway) dotsLoop(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.grids.signal:
			for _, gr := range g.grids.list() {
				if !gr.due(g.tick.Load(), g.deps.Dots.Shape()) {
					continue
				}
				if err := g.arrange(gr); err != nil {
					g.deps.Log.Warn("live: arrange the dots", "err", err)
				}
			}
		}
	}
}

// due says whether the order may be another and was not looked at for a while.
func (gr *grid) due(tick, shape uint64) bool {
	gr.mu.Lock()
	defer gr.mu.Unlock()
	age := tick - gr.tick
	drifts := gr.key.only != "" || gr.key.by == devices.ByLastSeen
	return gr.a != nil && (age >= layoutTicks && (gr.stale || gr.shape != shape) || drifts && age >= driftingTime)
}

// arrange looks at the order anew.
func (g *Gateway) arrange(gr *grid) error {
	gr.making.Lock()
	defer gr.making.Unlock()
	return g.arrangeNow(gr)
}

// arrangeNow is called with making held.
func (g *Gateway) arrangeNow(gr *grid) error {
	tick, shape := g.tick.Load(), g.deps.Dots.Shape() // before the look
	a, err := g.deps.Dots.Arrange(gr.key.by, gr.key.only)
	if err == nil && len(a.IDs) > maxDots {
		err = muster.Errorf(muster.TooLarge, "there are %d devices, at most %d can be shown as dots", len(a.IDs), maxDots)
	}
	gr.mu.Lock()
	gr.tick = tick
	same := err == nil && gr.a != nil && slices.Equal(gr.a.Sections, a.Sections) && slices.Equal(gr.a.IDs, a.IDs) &&
		gr.a.Cell == a.Cell && slices.Equal(gr.a.Places, a.Places)
	gr.mu.Unlock()
	switch {
	case err != nil:
		return err
	case same:
		gr.take(a, g.deps.Dots, shape, nil, 0)
	default:
		gr.take(a, g.deps.Dots, shape, indexOf(a), g.grids.versions.Add(1))
	}
	return nil
}

// openDots has the layout made unless there is one. For who sees some devices only it is not
// older than a second.
func (g *Gateway) openDots(s *sub) error {
	if err := g.grids.join(s); err != nil {
		return err
	}
	gr := s.grid
	gr.making.Lock()
	defer gr.making.Unlock()
	gr.mu.Lock()
	fresh := gr.a != nil && (gr.key.only == "" || g.tick.Load()-gr.tick < boundTicks && !gr.stale)
	gr.mu.Unlock()
	if fresh {
		return nil
	}
	return g.arrangeNow(gr)
}

// dotsFor reads the fields of a sub command for dots.
func (g *Gateway) dotsFor(s *sub, cmd *command) error {
	if g.deps.Dots == nil || s.c.out != nil && s.c.out.sid == "" { // who asks for one channel reads text
		return errChannel
	}
	s.kind = kindDots
	s.dots = gridKey{devices.ByGroup, s.query.Only}
	switch by := devices.Arranging(cmd.By); by {
	case "":
	case devices.ByGroup, devices.ByFirmware, devices.ByLastSeen, devices.ByMap:
		s.dots.by = by
	default:
		return muster.InvalidAt("by", "by must be %s, %s, %s or %s", devices.ByGroup, devices.ByFirmware, devices.ByLastSeen, devices.ByMap)
	}
	return nil
}

// dotsSnapshot ends a snapshot, and has the states follow it.
func (m *message) dotsSnapshot(s *sub) {
	head, version, states, pass := s.grid.snapshot()
	m.b = append(m.b, head...)
	m.binary = append(m.binary, states)
	s.since = version
	s.seen.Store(pass)
}

// dotsDelta has what changed follow the message, or a snapshot when the layout is another; it
// says whether that was begun.
func (g *Gateway) dotsDelta(m *message, s *sub) {
	frame, at, ok := s.grid.since(s.since, s.seen.Load())
	switch {
	case !ok:
		m.open("snapshot", s)
		m.dotsSnapshot(s)
		m.put("}")
		*s.seq++
	case frame != nil:
		m.binary = append(m.binary, frame)
		s.seen.Store(at)
	}
}

// nameDots answers which devices are at some places, and what query chooses them.
func (c *client) nameDots(cmd *command) {
	c.mu.Lock()
	s := c.subs.of(chDots)
	c.mu.Unlock()
	answer, err := s.named(cmd)
	if err != nil {
		c.refuse(cmd, err)
		return
	}
	c.reply(answer)
}

func (s *sub) named(cmd *command) ([]byte, error) {
	if s == nil || s.grid == nil {
		return nil, muster.Errorf(muster.Conflict, "the channel dots is not open")
	}
	gr := s.grid
	gr.mu.Lock()
	a, version := gr.a, gr.version
	gr.mu.Unlock()
	switch {
	case cmd.Version == nil || cmd.From == nil || cmd.To == nil:
		return nil, muster.Errorf(muster.Invalid, "dots needs version, from and to")
	case a == nil || *cmd.Version != version:
		return nil, muster.Errorf(muster.Conflict, "the dots have been arranged anew")
	case *cmd.From < 0 || *cmd.To < *cmd.From || *cmd.To >= len(a.IDs):
		return nil, muster.InvalidAt("to", "from and to are places of dots, 0 to %d", len(a.IDs)-1)
	}
	b := appendRe([]byte(`{"t":"ok"`), cmd.ID)
	b = strconv.AppendUint(append(b, `,"version":`...), version, 10)
	b = append(b, `,"ids":[`...)
	first := true
	for at := *cmd.From; at <= *cmd.To && at < *cmd.From+maxNamed; at++ {
		id := a.IDs[at]
		if !s.sees(id) {
			id = ""
		}
		b = appendString(appendComma(b, &first), string(id))
	}
	b = appendString(append(b, `],"gateway":`...), string(s.oneGateway(a, *cmd.From, *cmd.To)))
	b = appendString(append(b, `,"q":`...), a.Query(*cmd.From, *cmd.To))
	return append(b, '}'), nil
}

// oneGateway returns the gateway that all devices of a run belong to, empty when there is no
// one, or it may not be seen.
func (s *sub) oneGateway(a *devices.Arrangement, from, to int) muster.DeviceID {
	parent := a.Parents[from]
	for _, p := range a.Parents[from : to+1] {
		if p != parent {
			return ""
		}
	}
	if parent == "" || !s.sees(parent) {
		return ""
	}
	return parent
}
