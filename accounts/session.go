package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"time"

	"muster"
)

const (
	// SessionIdle is how long a session lives without being used.
	SessionIdle = 14 * 24 * time.Hour
	// SessionMax is how long a session lives at most.
	SessionMax = 60 * 24 * time.Hour
	// MaxSessions is the most sessions at once: one more ends the one that would
	// have expired first.
	MaxSessions = 10_000

	extendStep = 24 * time.Hour // a session's expiry moves, and is stored, in steps of this
	tidyEvery  = 10 * time.Minute
)

// newCookie returns a new session's cookie value, 256 random bits, and its hash.
func newCookie() (string, [32]byte) {
	var b [32]byte
	rand.Read(b[:]) // never fails
	cookie := base64.RawURLEncoding.EncodeToString(b[:])
	return cookie, sha256.Sum256([]byte(cookie))
}

// newSession is called in turn. It stores a session and returns its cookie.
func (a *Accounts) newSession(ctx context.Context, role, key string) (string, Session, error) {
	if err := a.makeRoom(ctx); err != nil {
		return "", Session{}, err
	}
	cookie, hash := newCookie()
	now := a.now()
	s := Session{
		ID: "ses_" + rand.Text(), Hash: hash, Role: role, Key: key,
		Created: muster.MicrosOf(now), Expires: muster.MicrosOf(now.Add(SessionIdle)),
	}
	if err := a.store.InsertSession(ctx, s); err != nil {
		return "", Session{}, fmt.Errorf("insert session: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[hash] = s
	return cookie, s, nil
}

// makeRoom ends the session that expires first when there are too many.
func (a *Accounts) makeRoom(ctx context.Context) error {
	a.mu.RLock()
	full := len(a.sessions) >= MaxSessions
	all := maps.Values(a.sessions)
	var first Session
	if full {
		first = slices.MinFunc(slices.Collect(all), func(x, y Session) int { return cmp.Compare(x.Expires, y.Expires) })
	}
	a.mu.RUnlock()
	if !full {
		return nil
	}
	return a.endSession(ctx, first)
}

// SignIn makes a session for who has the API key secret. The session has the
// highest role that the key's scopes cover and ends with the key; a key that
// covers no role is Forbidden, an unknown one Unauthorized.
func (a *Accounts) SignIn(ctx context.Context, secret string) (cookie string, s Session, err error) {
	k, err := a.key(secret)
	if err != nil {
		return "", Session{}, err
	}
	role := roleOf(k.Scopes)
	if role == "" {
		return "", Session{}, muster.Errorf(muster.Forbidden,
			"this API key cannot sign a browser in: it needs all scopes ending in :read, or admin")
	}
	err = a.change(ctx, func(ctx context.Context) error {
		if cookie, s, err = a.newSession(ctx, role, k.ID); err != nil {
			return err
		}
		return a.setupOver(ctx, role)
	})
	if err != nil {
		return "", Session{}, err
	}
	return cookie, s, nil
}

// AuthenticateSession returns who has the session of this cookie value, in
// memory, and counts it as used. Unauthorized when it is unknown, has expired or
// its API key is gone.
func (a *Accounts) AuthenticateSession(cookie string) (Principal, error) {
	if len(cookie) > maxSecret {
		return Principal{}, errSession()
	}
	now := a.now()
	hash := sha256.Sum256([]byte(cookie))
	a.mu.RLock()
	s, ok := a.sessions[hash]
	ok = ok && a.alive(s, muster.MicrosOf(now))
	a.mu.RUnlock()
	if !ok {
		return Principal{}, errSession()
	}
	a.used(s, now)
	return Principal{ID: s.ID, Name: s.Role, Role: s.Role, Scopes: roleScopes(s.Role)}, nil
}

// alive is called with the lock held.
func (a *Accounts) alive(s Session, at muster.Micros) bool {
	if at >= s.Expires || at >= s.Created+muster.Micros(SessionMax.Microseconds()) {
		return false
	}
	if s.Key == "" {
		return true
	}
	k, ok := a.keys[a.hashes[s.Key]]
	return ok && !k.expired(at)
}

// used moves s's expiry on, in memory; Run stores it.
func (a *Accounts) used(s Session, now time.Time) {
	latest := s.Created + muster.Micros(SessionMax.Microseconds())
	expires := min(muster.MicrosOf(now.Add(SessionIdle)), latest)
	if expires < s.Expires+muster.Micros(extendStep.Microseconds()) && (expires != latest || expires <= s.Expires) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.sessions[s.Hash]; !ok {
		return
	}
	s.Expires = expires
	a.sessions[s.Hash] = s
	a.extended[s.Hash] = struct{}{}
}

// SignOut ends the session of this cookie value; NotFound when there is none.
func (a *Accounts) SignOut(ctx context.Context, cookie string) error {
	hash := sha256.Sum256([]byte(cookie))
	return a.change(ctx, func(ctx context.Context) error {
		a.mu.RLock()
		s, ok := a.sessions[hash]
		a.mu.RUnlock()
		if !ok {
			return muster.Errorf(muster.NotFound, "there is no such session")
		}
		return a.endSession(ctx, s)
	})
}

// endSession is called in turn. Its right ends even when the store fails.
func (a *Accounts) endSession(ctx context.Context, s Session) error {
	a.mu.Lock()
	delete(a.sessions, s.Hash)
	delete(a.extended, s.Hash)
	a.mu.Unlock()
	a.ended(s.ID)
	err := a.store.DeleteSession(ctx, s.ID)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return fmt.Errorf("delete session: %w", err)
	}
	return nil
}

// Run clears away sessions that are over and stores the expiry of those in use,
// every 10 minutes and once more when ctx ends.
func (a *Accounts) Run(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := a.tidy(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("sessions are not tidied, trying again", "err", err)
			}
		case <-ctx.Done():
			if err := a.tidy(context.WithoutCancel(ctx)); err != nil {
				return fmt.Errorf("store sessions at stop: %w", err)
			}
			return nil
		}
	}
}

// tidy handles one session per turn, so that others' changes come in between.
func (a *Accounts) tidy(ctx context.Context) error {
	at := muster.MicrosOf(a.now())
	a.mu.RLock()
	all := slices.Collect(maps.Values(a.sessions))
	a.mu.RUnlock()
	for _, s := range all {
		if err := a.tidyOne(ctx, s.Hash, at); err != nil {
			return err
		}
	}
	return nil
}

func (a *Accounts) tidyOne(ctx context.Context, hash [32]byte, at muster.Micros) error {
	a.mu.RLock()
	s, ok := a.sessions[hash]
	_, moved := a.extended[hash]
	over := ok && !a.alive(s, at)
	a.mu.RUnlock()
	switch {
	case over:
		return a.change(ctx, func(ctx context.Context) error { return a.endSession(ctx, s) })
	case ok && moved:
		return a.change(ctx, func(ctx context.Context) error { return a.storeAgain(ctx, hash) })
	default:
		return nil
	}
}

// storeAgain replaces a session's row. A crash between the two steps signs that
// one browser out.
func (a *Accounts) storeAgain(ctx context.Context, hash [32]byte) error {
	a.mu.RLock()
	s, ok := a.sessions[hash]
	a.mu.RUnlock()
	if !ok {
		return nil
	}
	err := a.store.DeleteSession(ctx, s.ID)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return fmt.Errorf("replace session: %w", err)
	}
	if err := a.store.InsertSession(ctx, s); err != nil {
		return fmt.Errorf("replace session: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions[hash].Expires == s.Expires {
		delete(a.extended, hash)
	}
	return nil
}

func errSession() error {
	return muster.Errorf(muster.Unauthorized, "the session is unknown or has expired: sign in again")
}
