package live

import (
	"context"
	"runtime/debug"
	"time"
)

// loop does all timed work, one tick after the other, until ctx ends.
func (g *Gateway) loop(ctx context.Context) error {
	ticks := g.cfg.Ticks
	if ticks == nil {
		t := time.NewTicker(time.Second / ticksPerSecond)
		defer t.Stop()
		ticks = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
			g.doTick(ctx)
		}
	}
}

func (g *Gateway) doTick(ctx context.Context) {
	defer g.caught("a tick")
	n := g.tick.Add(1)
	if n%ticksPerSecond == 0 {
		g.pingSlot(n / ticksPerSecond % pingSeconds)
		g.index.touchPages()
		g.tellFleet()
		g.recount(ctx)
	}
	g.pass()
	g.tellDots()
	g.polled.behind(g)
	g.counting.tick()
	g.offer(n)
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

// pass reads every marked row from its source and marks the channels that show
// what changed.
func (g *Gateway) pass() {
	rows := g.index.take()
	if len(rows) == 0 {
		return
	}
	pass := g.version.Load() + 1
	for _, r := range rows {
		g.passRow(r, pass)
	}
	// After the marks: a flush that sees this version sees every mark of the pass.
	g.version.Store(pass)
}

// passRow is apart so that a panic of a source costs one row its news.
func (g *Gateway) passRow(r *row, pass uint64) {
	defer g.caught("a look at a device")
	r.queued.Store(false) // before the look: what comes after it marks again
	r.refresh(g.fetch(r.id), pass, g.markReady)
}

// markReady puts the client of s among those that have something to be sent. Only
// the loop calls it.
func (g *Gateway) markReady(s *sub) {
	if c := s.c; !c.marked {
		c.marked = true
		g.ready = append(g.ready, c)
	}
}

// offer starts a flush for each ready client whose turn it is.
func (g *Gateway) offer(n uint64) {
	kept := g.ready[:0]
	for _, c := range g.ready {
		if c.offer(n) {
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
		c.ping()
	}
}
