package live

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// loop does all timed work, one tick after the other, until ctx ends. A tick has phases: what changed is read
// in each, and every client has its turn in one of them, so that not all are written to at once.
func (g *Gateway) loop(ctx context.Context) error {
	ticks, parts := g.cfg.Ticks, g.cfg.Phases
	if ticks == nil {
		t := time.NewTicker(time.Second / time.Duration(ticksPerSecond*parts))
		defer t.Stop()
		ticks = t.C
	}
	patience := time.NewTimer(writersWait)
	defer patience.Stop()
	for phase := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
			g.doPhase(ctx, phase, parts)
			phase = (phase + 1) % parts
		case <-patience.C:
			g.writers.relieve()
			patience.Reset(writersWait)
		}
	}
}

func (g *Gateway) doPhase(ctx context.Context, phase, parts int) {
	defer g.caught("a tick")
	if phase == 0 {
		g.beginTick(ctx)
	}
	g.pass()
	if phase == 0 {
		g.tellDots()
		g.polled.behind(g)
		g.counting.tick()
	}
	g.offer(g.tick.Load(), phase, parts)
}

func (g *Gateway) beginTick(ctx context.Context) {
	n := g.tick.Add(1)
	if n%ticksPerSecond != 0 {
		return
	}
	g.pace.settle()
	g.stats.hz.Store(uint32(g.pace.hz))
	g.pingSlot(n / ticksPerSecond % pingSeconds)
	g.index.touchPages()
	g.tellFleet()
	g.recount(ctx)
}

// caught ends a panic: it is counted and logged with its stack, and only the tick
// or connection that it came from ends.
func (g *Gateway) caught(where string) {
	if p := recover(); p != nil {
		g.report(where, p)
	}
}

func (g *Gateway) report(where string, p any) {
	g.stats.panics.Add(1)
	g.deps.Log.Error("live: panic", "in", where, "panic", p, "stack", string(debug.Stack()))
}

// rowsAtOnce is after how many rows others have the processor: who acknowledges messages does not
// wait for all that are watched.
const rowsAtOnce = 16

// pass reads every marked row from its source and marks the channels that show
// what changed.
func (g *Gateway) pass() {
	rows := g.index.take()
	if len(rows) == 0 {
		return
	}
	pass := g.version.Load() + 1
	for i, r := range rows {
		g.passRow(r, pass)
		if i%rowsAtOnce == rowsAtOnce-1 {
			runtime.Gosched()
		}
	}
	// After the marks: a flush that sees this version sees every mark of the pass.
	g.version.Store(pass)
}

// passRow is apart so that a panic of a source costs one row its news.
func (g *Gateway) passRow(r *row, pass uint64) {
	defer g.caught("a look at a device")
	r.queued.Store(false) // before the look: what comes after it marks again
	f := g.fetch(r.id, g.space[:0])
	r.refresh(f, pass, g.markReady)
	if f.found {
		clear(f.latest) // the row has what it took over
		g.space = f.latest
	}
}

// markReady puts the client of s among those that have something to be sent. Only
// the loop calls it.
func (g *Gateway) markReady(s *sub) {
	c := s.c
	g.pace.want(c, g.tick.Load())
	if !c.marked {
		c.marked = true
		g.ready = append(g.ready, c)
	}
}

// offer has each ready client flushed whose turn it is.
func (g *Gateway) offer(n uint64, phase, parts int) {
	kept := g.ready[:0]
	for _, c := range g.ready {
		if c.slot%parts != phase || c.offer(n, g.pace.hz) {
			kept = append(kept, c)
		}
	}
	clear(g.ready[len(kept):])
	g.ready = kept
}

// pingSlot pings the clients in one slot of the wheel, and ends those whose
// session has expired.
func (g *Gateway) pingSlot(slot uint64) {
	g.mu.Lock()
	clients := make([]*client, 0, len(g.wheel[slot]))
	for c := range g.wheel[slot] {
		clients = append(clients, c)
	}
	g.mu.Unlock()
	now := g.deps.Now()
	for _, c := range clients {
		if c.expired(now) {
			c.bye(codeExpired, "your session has expired")
			continue
		}
		c.ping(g.pace.hz)
	}
}
