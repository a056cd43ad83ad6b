package accounts

import (
	"context"
	"fmt"
	"time"

	"muster"
)

const (
	tidyEvery  = 10 * time.Minute
	touchEvery = time.Minute
	touchStep  = 500 // rows in one transaction
)

// Run stores every minute when API keys were used, every 10 minutes when sessions were,
// and clears away sessions and links that are over; and all that once more when ctx
// ends. A crash forgets the last minutes of it.
func (a *Accounts) Run(ctx context.Context) error {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	tidied := a.now()
	for {
		select {
		case now := <-tick.C:
			err := a.touchKeys(ctx)
			if now.Sub(tidied) >= tidyEvery && err == nil {
				tidied = now
				err = a.tidy(ctx)
			}
			if err != nil && ctx.Err() == nil {
				a.log.Warn("accounts are not tidied, trying again", "err", err)
			}
		case <-ctx.Done():
			last := context.WithoutCancel(ctx)
			if err := a.touchKeys(last); err != nil {
				return fmt.Errorf("store at stop: %w", err)
			}
			if err := a.tidy(last); err != nil {
				return fmt.Errorf("store at stop: %w", err)
			}
			return nil
		}
	}
}

// touchKeys stores when API keys were used.
func (a *Accounts) touchKeys(ctx context.Context) error {
	var used []Use
	var keys []*liveKey
	a.mu.RLock()
	for _, k := range a.keys {
		if at := k.used.Load(); at != k.stored {
			used, keys = append(used, Use{ID: k.ID, Seen: muster.Micros(at)}), append(keys, k)
		}
	}
	a.mu.RUnlock()
	for len(used) > 0 {
		n := min(len(used), touchStep)
		if err := a.within(ctx, func(ctx context.Context) error { return a.store.TouchAPIKeys(ctx, used[:n]) }); err != nil {
			return fmt.Errorf("store when API keys were used: %w", err)
		}
		for i, k := range keys[:n] {
			k.stored = int64(used[i].Seen)
		}
		used, keys = used[n:], keys[n:]
	}
	return nil
}

// within bounds one call of the store that needs no turn: it changes nothing that
// others do.
func (a *Accounts) within(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return do(ctx)
}

// tidy handles one session that is over per turn, so that others' changes come in
// between.
func (a *Accounts) tidy(ctx context.Context) error {
	at := muster.MicrosOf(a.now())
	var over []Session
	var used []Use
	var live []*liveSession
	a.mu.RLock()
	for _, s := range a.sessions {
		seen := muster.Micros(s.seen.Load())
		if _, alive := a.principal(s.Session, at); !alive {
			over = append(over, s.Session)
		} else if s.moved || seen != s.stored {
			used, live = append(used, Use{ID: s.ID, Seen: seen, Expires: s.Expires}), append(live, s)
		}
	}
	a.mu.RUnlock()
	for _, s := range over {
		if err := a.change(ctx, func(ctx context.Context) error { return a.endIfOver(ctx, s, at) }); err != nil {
			return err
		}
	}
	if err := a.touchSessions(ctx, used, live); err != nil {
		return err
	}
	a.forgetSecrets(at)
	return a.dropTokens(ctx, at)
}

// endIfOver is called in turn: a disabled user may have been enabled meanwhile.
func (a *Accounts) endIfOver(ctx context.Context, s Session, at muster.Micros) error {
	a.mu.RLock()
	now, ok := a.sessions[s.Hash]
	if ok {
		_, alive := a.principal(now.Session, at)
		ok = !alive
	}
	a.mu.RUnlock()
	if !ok {
		return nil
	}
	return a.endSession(ctx, s)
}

func (a *Accounts) touchSessions(ctx context.Context, used []Use, live []*liveSession) error {
	for len(used) > 0 {
		n := min(len(used), touchStep)
		if err := a.within(ctx, func(ctx context.Context) error { return a.store.TouchSessions(ctx, used[:n]) }); err != nil {
			return fmt.Errorf("store when sessions were used: %w", err)
		}
		a.mu.Lock()
		for i, s := range live[:n] {
			s.stored = used[i].Seen
			s.moved = s.moved && s.Expires != used[i].Expires
		}
		a.mu.Unlock()
		used, live = used[n:], live[n:]
	}
	return nil
}

// dropTokens deletes the links that have expired.
func (a *Accounts) dropTokens(ctx context.Context, at muster.Micros) error {
	return a.change(ctx, func(ctx context.Context) error {
		var b Batch
		a.mu.RLock()
		for _, t := range a.tokens {
			if at >= t.Expires && len(b.DropTokens) < touchStep {
				b.DropTokens = append(b.DropTokens, TokensOf{User: t.User, Kind: t.Kind})
			}
		}
		a.mu.RUnlock()
		if len(b.DropTokens) == 0 {
			return nil
		}
		return a.commit(ctx, b)
	})
}
