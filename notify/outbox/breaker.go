package outbox

import "time"

// BreakerState is whether a queue is claimed from.
type BreakerState string

// The states of a breaker.
const (
	Closed   BreakerState = "closed"    // it is
	Opened   BreakerState = "open"      // it is not: attempts would be wasted
	HalfOpen BreakerState = "half-open" // of one delivery, to see whether the target is back
)

// breaker of one queue. It opens after some failures in a row, lets one delivery through
// when its time is over, closes when that goes well, and else stays open twice as long as
// before, to a bound. It is asked before deliveries are claimed, so that waiting costs them
// no attempt.
//
// sony/gobreaker was looked at (v2.4.0) and does not fit: its open time is fixed, it reads
// the clock itself, asking it whether a request may pass takes the place of the probe, and
// that place cannot be given back when the store had nothing to claim.
type breaker struct {
	after       int // failures in a row
	first, most time.Duration

	failures int
	open     time.Duration // how long it stays open this time, 0 when it is closed
	until    time.Time
	probing  bool
}

// state is how it looks at now.
func (b *breaker) state(now time.Time) BreakerState {
	switch {
	case b.open == 0:
		return Closed
	case b.probing || !now.Before(b.until):
		return HalfOpen
	}
	return Opened
}

// success is an attempt that the target answered, whatever it said of the content, or one
// that failed for reasons of its own.
func (b *breaker) success() { b.failures, b.open, b.probing = 0, 0, false }

// failure is an attempt that may work later. Those that were under way when the breaker
// opened change nothing.
func (b *breaker) failure(now time.Time, probe bool) {
	b.failures++
	switch {
	case b.open == 0 && b.failures >= b.after:
		b.open = b.first
	case probe:
		b.open = min(2*b.open, b.most)
	default:
		return
	}
	b.until, b.probing = now.Add(b.open), false
}

// nothing is a probe that came to nothing: the next delivery is the probe.
func (b *breaker) nothing(probe bool) {
	if probe {
		b.probing = false
	}
}
