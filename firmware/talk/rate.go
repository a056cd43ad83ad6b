package talk

import (
	"errors"
	"sync"
	"time"

	"muster"
)

// What a device may say about firmware: so much at once, and so much a second afterwards.
// Progress that follows progress in one batch is not counted.
const (
	rateBurst     = 20
	ratePerSecond = 4
	maxRated      = 1 << 16 // devices that are watched
)

// rates are the devices that have spoken lately.
type rates struct {
	mu   sync.Mutex
	full map[muster.DeviceID]time.Time // when the device may say rateBurst things again
}

func newRates() *rates { return &rates{full: map[muster.DeviceID]time.Time{}} }

// take says whether a device may say one thing more now.
func (r *rates) take(id muster.DeviceID, now time.Time) bool {
	const each = time.Second / ratePerSecond
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.full[id]
	if at.Before(now) {
		at = now
	}
	if at.Add(each).Sub(now) > rateBurst*each {
		return false
	}
	if len(r.full) >= maxRated {
		r.sweep(now)
	}
	r.full[id] = at.Add(each)
	return true
}

// sweep forgets who has been quiet; if nobody has, all: they begin anew.
func (r *rates) sweep(now time.Time) {
	for id, at := range r.full {
		if !at.After(now) {
			delete(r.full, id)
		}
	}
	if len(r.full) >= maxRated {
		clear(r.full)
	}
}

// overRateError is the error of what a device says too much.
type overRateError struct{ error }

func (o *overRateError) Unwrap() error { return o.error }

func errOverRate() error {
	return &overRateError{muster.Errorf(muster.Busy, "a device may say %d things about firmware at once, and then %d a second", rateBurst, ratePerSecond)}
}

// OverRate says whether an error of Take is of a device that says too much: it is refused
// for good.
func OverRate(err error) bool {
	_, is := errors.AsType[*overRateError](err)
	return is
}
