package accounts

import (
	"context"
	"fmt"
	"slices"
)

// commit is called in turn. It stores b, makes the same changes in memory, and tells
// whose connections must be looked at.
func (a *Accounts) commit(ctx context.Context, b Batch) error {
	if err := a.store.WriteAccounts(ctx, b); err != nil {
		return fmt.Errorf("write accounts: %w", err)
	}
	var e effects
	a.mu.Lock()
	a.apply(b, &e)
	a.mu.Unlock()
	for _, id := range e.ended {
		a.ended(id)
	}
	if len(e.keys) > 0 {
		a.onRights(func(credential string) bool { return slices.Contains(e.keys, credential) })
	}
	return nil
}

// effects are the ids of what a change ended or gave other rights.
type effects struct {
	ended []string // sessions, keys and users
	keys  []string
}

// apply is called with the lock held.
func (a *Accounts) apply(b Batch, e *effects) {
	for _, d := range b.DropTokens {
		a.dropTokensOf(d)
	}
	for _, d := range b.EndSessions {
		a.endSessionsOf(d, e)
	}
	for _, u := range b.Users {
		a.replaceUser(u, e)
	}
	for _, i := range b.Identities {
		a.addIdentity(i)
	}
	for _, t := range b.Tokens {
		a.tokens[t.Hash] = t
	}
	for _, s := range b.Sessions {
		a.sessions[s.Hash] = newLiveSession(s)
	}
	for _, id := range b.DropUsers {
		a.removeUser(id, e)
	}
}

func (a *Accounts) dropTokensOf(d TokensOf) {
	for hash, t := range a.tokens {
		if t.User == d.User && (d.Kind == "" || t.Kind == d.Kind) {
			delete(a.tokens, hash)
		}
	}
}

func (a *Accounts) endSessionsOf(d SessionsOf, e *effects) {
	for hash, s := range a.sessions {
		if s.ID != d.Except && a.belongs(s.Session, d.User) {
			delete(a.sessions, hash)
			e.ended = append(e.ended, s.ID)
		}
	}
}

// belongs says whether s is of user, or made with a key that he owns.
func (a *Accounts) belongs(s Session, user string) bool {
	if s.User == user {
		return true
	}
	k, ok := a.keys[a.hashes[s.Key]]
	return s.Key != "" && ok && k.Owner == user
}

func (a *Accounts) addUser(u UserRecord) {
	a.users[u.ID] = u
	a.emails[u.Email] = u.ID
}

func (a *Accounts) addIdentity(i Identity) {
	a.identities[identityKey{i.Issuer, i.Subject}] = i
	a.linked[i.User]++
}

// replaceUser reports sessions and keys whose rights are others with u.
func (a *Accounts) replaceUser(u UserRecord, e *effects) {
	old, had := a.users[u.ID]
	if had && old.Email != u.Email {
		delete(a.emails, old.Email)
	}
	a.addUser(u)
	if !had || old.Role == u.Role && old.Disabled == u.Disabled {
		return
	}
	e.ended = append(e.ended, u.ID)
	for _, s := range a.sessions {
		if a.belongs(s.Session, u.ID) {
			e.ended = append(e.ended, s.ID)
		}
	}
	for _, k := range a.keys {
		if k.Owner == u.ID {
			k.keyNow = a.keyNow(k.APIKey)
			e.ended, e.keys = append(e.ended, k.ID), append(e.keys, k.ID)
		}
	}
}

func (a *Accounts) removeUser(id string, e *effects) {
	a.dropTokensOf(TokensOf{User: id})
	a.endSessionsOf(SessionsOf{User: id}, e)
	e.ended = append(e.ended, id)
	for hash, k := range a.keys {
		if k.Owner == id {
			delete(a.keys, hash)
			delete(a.hashes, k.ID)
			e.ended, e.keys = append(e.ended, k.ID), append(e.keys, k.ID)
		}
	}
	for key, i := range a.identities {
		if i.User == id {
			delete(a.identities, key)
		}
	}
	delete(a.emails, a.users[id].Email)
	delete(a.users, id)
	delete(a.linked, id)
	delete(a.secrets, id)
}
