package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"muster"
	"muster/audit"
)

const (
	// SessionIdle is how long a session lives without being used.
	SessionIdle = 14 * 24 * time.Hour
	// SessionMax is how long a session lives at most.
	SessionMax = 60 * 24 * time.Hour
	// MaxSessions is the most sessions at once: one more ends the one that would
	// have expired first.
	MaxSessions = 10_000
	// MaxUserSessions is the most sessions of one user: one more ends the one that would
	// have expired first.
	MaxUserSessions = 100

	extendStep = 24 * time.Hour // a session's expiry moves, and is stored, in steps of this
	seenStep   = time.Minute    // and when it was seen in steps of this
)

// liveSession is a session in memory. Its Session is read and written with the lock
// held; Seen is in seen.
type liveSession struct {
	Session
	seen   atomic.Int64  // Micros
	stored muster.Micros // the seen that the store has; Run's alone
	moved  bool          // Expires has moved since it was stored
}

func newLiveSession(s Session) *liveSession {
	l := &liveSession{Session: s, stored: s.Seen}
	l.seen.Store(int64(s.Seen))
	return l
}

// newCookie returns a new session's cookie value, 256 random bits, and its hash.
func newCookie() (string, [32]byte) {
	var b [32]byte
	rand.Read(b[:]) // never fails
	cookie := base64.RawURLEncoding.EncodeToString(b[:])
	return cookie, sha256.Sum256([]byte(cookie))
}

// newSession is called in turn. It stores a session like s, which says whose it is,
// together with the changes of b that notes are about, and returns its cookie.
func (a *Accounts) newSession(ctx context.Context, s Session, from Client, b Batch, notes ...note) (string, Session, error) {
	if err := a.makeRoom(ctx, s.User); err != nil {
		return "", Session{}, err
	}
	cookie, hash := newCookie()
	now := a.now()
	s.ID, s.Hash = "ses_"+rand.Text(), hash
	s.Address, s.Agent = host(from.Address), from.agent()
	s.Created, s.Expires, s.Seen = muster.MicrosOf(now), muster.MicrosOf(now.Add(SessionIdle)), muster.MicrosOf(now)
	b.Sessions = append(b.Sessions, s)
	for _, n := range notes { // not before room was made, which is a transaction of its own
		audit.Note(ctx, n.action, n.object, n.before, n.after)
	}
	audit.Note(ctx, "session.create", "sessions/"+s.ID, nil, viewOfSession(s))
	if err := a.commit(ctx, b); err != nil {
		return "", Session{}, fmt.Errorf("insert session: %w", err)
	}
	return cookie, s, nil
}

// makeRoom ends the session that expires first when there are too many, of user or at
// all.
func (a *Accounts) makeRoom(ctx context.Context, user string) error {
	a.mu.RLock()
	first, ok := a.firstToExpire("", MaxSessions)
	if user != "" && !ok {
		first, ok = a.firstToExpire(user, MaxUserSessions)
	}
	a.mu.RUnlock()
	if !ok {
		return nil
	}
	return a.endSession(ctx, first)
}

// firstToExpire returns the session of user, or of all, that expires first, when there
// are most or more. It is called with the lock held.
func (a *Accounts) firstToExpire(user string, most int) (first Session, ok bool) {
	if len(a.sessions) < most {
		return Session{}, false
	}
	n := 0
	for _, s := range a.sessions {
		if user != "" && s.User != user {
			continue
		}
		if n == 0 || s.Expires < first.Expires {
			first = s.Session
		}
		n++
	}
	return first, n >= most
}

// SignIn is SignInFrom without an address.
func (a *Accounts) SignIn(ctx context.Context, secret string) (cookie string, s Session, err error) {
	return a.SignInFrom(ctx, secret, Client{})
}

// SignInFrom makes a session for who has the API key secret. The session has the
// highest role that the key's scopes cover, and its device selector, and ends with the
// key; a key that covers no role is Forbidden, an unknown one Unauthorized.
func (a *Accounts) SignInFrom(ctx context.Context, secret string, from Client) (cookie string, s Session, err error) {
	k, err := a.key(secret)
	if err != nil {
		return "", Session{}, err
	}
	role := roleOf(k.scopes)
	if role == "" {
		return "", Session{}, muster.Errorf(muster.Forbidden,
			"this API key cannot sign a browser in: it needs all scopes ending in :read, or admin")
	}
	err = a.change(ctx, func(ctx context.Context) error {
		if cookie, s, err = a.newSession(ctx, Session{Role: role, Key: k.ID}, from, Batch{}); err != nil {
			return err
		}
		a.setupOver(role)
		return nil
	})
	if err != nil {
		return "", Session{}, err
	}
	return cookie, s, nil
}

// AuthenticateSession returns who has the session of this cookie value, in memory, and
// counts it as used. Unauthorized when it is unknown, has expired, its API key is gone,
// or its user is gone or disabled.
func (a *Accounts) AuthenticateSession(cookie string) (Principal, error) {
	if len(cookie) > maxSecret {
		return Principal{}, errSession()
	}
	now := a.now()
	at := muster.MicrosOf(now)
	hash := sha256.Sum256([]byte(cookie))
	var p Principal
	var moves bool
	a.mu.RLock()
	s, ok := a.sessions[hash]
	if ok {
		p, ok = a.principal(s.Session, at)
		moves = ok && s.extension(now) > s.Expires
	}
	a.mu.RUnlock()
	if !ok {
		return Principal{}, errSession()
	}
	if int64(at)-s.seen.Load() >= seenStep.Microseconds() {
		s.seen.Store(int64(at))
	}
	if moves {
		a.extend(s, now)
	}
	return p, nil
}

// principal says who has session s, if it is alive. It is called with the lock held.
func (a *Accounts) principal(s Session, at muster.Micros) (p Principal, alive bool) {
	latest := s.Created + muster.Micros(SessionMax.Microseconds())
	if at >= s.Expires || at >= latest {
		return p, false
	}
	p = Principal{ID: s.ID, Name: s.Role, Role: s.Role, Expires: s.Expires}
	if s.User != "" {
		u, ok := a.users[s.User]
		if !ok || u.Disabled {
			return p, false
		}
		p.Name, p.Role, p.User, p.Confirmed = u.title(), u.Role, u.ID, u.Confirmed
	}
	if s.Key != "" {
		k, ok := a.keys[a.hashes[s.Key]]
		if !ok || !k.alive(at) {
			return p, false
		}
		if p.Role = roleOf(k.scopes); p.Role == "" {
			return p, false
		}
		p.Name, p.Key, p.Selector = k.Name, k.ID, k.Selector
		if k.Expires != 0 {
			p.Expires = min(p.Expires, k.Expires)
		}
	}
	p.Scopes = roleScopes(p.Role)
	return p, true
}

// extension is the Expires that a use at now gives s, in steps.
func (s *liveSession) extension(now time.Time) muster.Micros {
	latest := s.Created + muster.Micros(SessionMax.Microseconds())
	expires := min(muster.MicrosOf(now.Add(SessionIdle)), latest)
	if expires < s.Expires+muster.Micros(extendStep.Microseconds()) && expires != latest {
		return s.Expires
	}
	return expires
}

// extend moves s's expiry on, in memory; Run stores it.
func (a *Accounts) extend(s *liveSession, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if expires := s.extension(now); expires > s.Expires {
		s.Expires, s.moved = expires, true
	}
}

// SignOut ends the session of this cookie value; NotFound when there is none.
func (a *Accounts) SignOut(ctx context.Context, cookie string) error {
	hash := sha256.Sum256([]byte(cookie))
	return a.change(ctx, func(ctx context.Context) error {
		var s Session
		a.mu.RLock()
		l, ok := a.sessions[hash]
		if ok {
			s = l.Session
		}
		a.mu.RUnlock()
		if !ok {
			return errNoSession()
		}
		return a.endSession(ctx, s)
	})
}

// Sessions returns the sessions of a user that are alive, or of everybody when user is
// empty, newest first. Role is what they have now.
func (a *Accounts) Sessions(user string) []Session {
	at := muster.MicrosOf(a.now())
	var out []Session
	a.mu.RLock()
	for _, l := range a.sessions {
		p, ok := a.principal(l.Session, at)
		if !ok || user != "" && l.User != user {
			continue
		}
		s := l.Session
		s.Role, s.Seen = p.Role, muster.Micros(l.seen.Load())
		out = append(out, s)
	}
	a.mu.RUnlock()
	slices.SortFunc(out, func(x, y Session) int {
		return cmp.Or(cmp.Compare(y.Created, x.Created), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// EndSession ends the session id, or returns NotFound.
func (a *Accounts) EndSession(ctx context.Context, id string) error {
	return a.change(ctx, func(ctx context.Context) error {
		a.mu.RLock()
		s, ok := a.sessionByID(id)
		a.mu.RUnlock()
		if !ok {
			return errNoSession()
		}
		return a.endSession(ctx, s)
	})
}

// sessionByID is called with the lock held.
func (a *Accounts) sessionByID(id string) (Session, bool) {
	for _, s := range a.sessions {
		if s.ID == id {
			return s.Session, true
		}
	}
	return Session{}, false
}

// EndSessions ends the sessions of a user but the one with the id except, which may be
// empty. NotFound when there is no such user.
func (a *Accounts) EndSessions(ctx context.Context, user, except string) error {
	return a.change(ctx, func(ctx context.Context) error {
		if _, err := a.record(user); err != nil {
			return err
		}
		audit.Note(ctx, "session.delete", "users/"+user+"/sessions", nil, nil)
		return a.commit(ctx, Batch{EndSessions: []SessionsOf{{User: user, Except: except}}})
	})
}

// endSession is called in turn. Its right ends even when the store fails.
func (a *Accounts) endSession(ctx context.Context, s Session) error {
	a.mu.Lock()
	delete(a.sessions, s.Hash)
	a.mu.Unlock()
	a.ended(s.ID)
	audit.Note(ctx, "session.delete", "sessions/"+s.ID, viewOfSession(s), nil)
	err := a.store.DeleteSession(ctx, s.ID)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return fmt.Errorf("delete session: %w", err)
	}
	return nil
}

func errNoSession() error { return muster.Errorf(muster.NotFound, "there is no such session") }

func errSession() error {
	return muster.Errorf(muster.Unauthorized, "the session is unknown or has expired: sign in again")
}
