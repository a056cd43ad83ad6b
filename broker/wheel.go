package broker

import (
	"context"
	"sync"
	"time"

	"muster/broker/wire"
)

// ticker is what the wheel looks at when it is due: connections (keep alive, time to
// CONNECT) and sessions (expiry, delayed will). tick must not block; it returns when
// it is due again, 0 for never.
type ticker interface{ tick(now int64) (next int64) }

// wheelSlots is how many ticks the wheel sees ahead; what is due later is looked at
// in between.
const wheelSlots = 2048

// wheel calls tickers when they are due, give or take a tick. One loop serves all
// connections, so that none needs a timer of its own.
type wheel struct {
	step int64 // milliseconds

	mu    sync.Mutex
	at    int64 // the slot under the hand, as a count of steps
	slots [wheelSlots][]*alarm
}

// alarm is a ticker's place on the wheel.
type alarm struct{ t ticker } // nil when it was taken off; guarded by wheel

func newWheel(step time.Duration, now int64) *wheel {
	w := &wheel{step: max(step.Milliseconds(), 1)}
	w.at = now / w.step
	return w
}

// add has t looked at when due, in unix milliseconds.
func (w *wheel) add(t ticker, due int64) *alarm {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &alarm{t}
	w.put(a, due)
	return a
}

func (w *wheel) put(a *alarm, due int64) {
	slot := min(max(due/w.step+1, w.at+1), w.at+wheelSlots-1)
	w.slots[slot%wheelSlots] = append(w.slots[slot%wheelSlots], a)
}

// remove takes an alarm off, so that the wheel does not keep its ticker alive. It
// accepts nil.
func (w *wheel) remove(a *alarm) {
	if a == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	a.t = nil
}

// advance calls what is due by now.
func (w *wheel) advance(now int64) {
	for {
		due, more := w.turn(now)
		if !more {
			return
		}
		for _, a := range due {
			w.ring(a, now)
		}
	}
}

// turn moves the hand by one slot and takes what is in it.
func (w *wheel) turn(now int64) (due []*alarm, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at >= now/w.step {
		return nil, false
	}
	w.at++
	slot := &w.slots[w.at%wheelSlots]
	due, *slot = *slot, nil
	return due, true
}

func (w *wheel) ring(a *alarm, now int64) {
	w.mu.Lock()
	t := a.t
	w.mu.Unlock()
	if t == nil {
		return
	}
	next := t.tick(now)
	w.mu.Lock()
	defer w.mu.Unlock()
	if next > 0 && a.t != nil {
		w.put(a, next)
	}
}

// runWheel advances the wheel and the broker's clock until ctx ends.
func (b *Broker) runWheel(ctx context.Context) error {
	t := time.NewTicker(b.cfg.Tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			// From the monotonic clock where Now has one: a step of the wall clock ends
			// nobody's connection.
			now := b.began.Add(b.cfg.Now().Sub(b.began)).UnixMilli()
			b.clock.Store(now)
			b.wheel.advance(now)
			j := b.journal.Stats()
			b.tight.Store(j.LogMaxBytes > 0 && j.LiveBytes > j.LogMaxBytes/2)
		}
	}
}

// tick implements ticker: it cuts a connection that has been silent for too long.
func (c *conn) tick(now int64) (next int64) {
	if c.closed.Load() {
		return 0
	}
	if !c.known.Load() {
		due := c.since + c.b.cfg.ConnectTimeout.Milliseconds()
		if now >= due {
			c.cut(causeNoConnect)
			return 0
		}
		return due
	}
	if idle := c.idleDue(); idle > 0 && now >= idle {
		_ = c.bye(wire.CodeAdministrative, causeIdle.text, causeIdle)
		return 0
	}
	due := c.due()
	if due == 0 || now < due {
		return due
	}
	if c.busy.Load() {
		return now + (c.keepalive + c.keepalive/2).Milliseconds()
	}
	_ = c.bye(wire.CodeKeepAlive, "nothing heard for one and a half times the keep alive", causeKeepalive)
	return 0
}

// due returns when the connection has been silent, or a guest idle, for too long; 0 for
// never.
func (c *conn) due() int64 {
	idle := c.idleDue()
	if c.keepalive == 0 {
		return idle
	}
	due := c.heard.Load() + (c.keepalive + c.keepalive/2).Milliseconds()
	if idle > 0 {
		return min(due, idle)
	}
	return due
}
