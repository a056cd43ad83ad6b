package accounts

import (
	"context"
	"time"

	"muster"
)

// expiryStep is the longest RunExpiry waits while anything has an expiry: by then it
// has noticed that the clock was set.
const expiryStep = time.Minute

// RunExpiry reports API keys and service accounts to OnRights, and keys to OnEnded,
// when they expire, until ctx ends. What is expired is refused without it: it is for
// the connections that are open.
func (a *Accounts) RunExpiry(ctx context.Context) error {
	for {
		wait := a.sweep()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-a.expiry: // there is one more
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// wakeExpiry has RunExpiry look again. A signal that waits already is enough.
func (a *Accounts) wakeExpiry() {
	select {
	case a.expiry <- struct{}{}:
	default:
	}
}

// sweep reports what has expired since the last sweep and returns how long to wait
// for the next.
func (a *Accounts) sweep() time.Duration {
	keys, gone, wait := a.expired(muster.MicrosOf(a.now()))
	for _, id := range keys {
		a.ended(id)
	}
	if len(gone) > 0 {
		a.onRights(func(credential string) bool { _, ok := gone[credential]; return ok })
	}
	return wait
}

// expired returns the ids of the keys, and of all, that have expired since the last
// call, and the time until the next one does.
func (a *Accounts) expired(at muster.Micros) (keys []string, gone map[string]struct{}, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait = time.Hour // nothing expires: a change wakes the loop
	gone = map[string]struct{}{}
	look := func(id string, expires muster.Micros) bool {
		switch {
		case expires == 0 || expires <= a.swept:
			return false
		case expires > at:
			wait = min(wait, expiryStep, time.Duration(expires-at)*time.Microsecond)
			return false
		}
		gone[id] = struct{}{}
		return true
	}
	for _, k := range a.keys {
		if look(k.ID, k.Expires) {
			keys = append(keys, k.ID)
		}
	}
	for _, s := range a.services {
		look(s.ID, s.Expires)
	}
	a.swept = at
	return keys, gone, wait
}
