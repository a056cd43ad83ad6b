package accounts_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"muster"
	"muster/accounts"
)

// memory is a Store that survives the Accounts over it.
type memory struct {
	mu         sync.Mutex
	keys       map[string]accounts.APIKey
	sessions   map[string]accounts.Session
	settings   map[string]string
	services   map[string]accounts.ServiceAccount
	users      map[string]accounts.UserRecord
	identities map[[2]string]accounts.Identity
	tokens     map[[32]byte]accounts.Token
	down       bool
	hold       func() // called before accounts are written; nil for nothing
}

func newMemory() *memory {
	return &memory{
		keys: map[string]accounts.APIKey{}, sessions: map[string]accounts.Session{}, settings: map[string]string{},
		services: map[string]accounts.ServiceAccount{}, users: map[string]accounts.UserRecord{},
		identities: map[[2]string]accounts.Identity{}, tokens: map[[32]byte]accounts.Token{},
	}
}

func (m *memory) do(ctx context.Context, fn func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return errors.New("store is down")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn()
}

func insert[V any](m map[string]V, id string, v V) error {
	if _, ok := m[id]; ok {
		return muster.Errorf(muster.Conflict, "taken")
	}
	m[id] = v
	return nil
}

func remove[V any](m map[string]V, id string) error {
	if _, ok := m[id]; !ok {
		return muster.Errorf(muster.NotFound, "not there")
	}
	delete(m, id)
	return nil
}

func all[K comparable, V any](ctx context.Context, m *memory, of map[K]V) (out []V, err error) {
	err = m.do(ctx, func() error { out = slices.Collect(maps.Values(of)); return nil })
	return out, err
}

func (m *memory) APIKeys(ctx context.Context) ([]accounts.APIKey, error) { return all(ctx, m, m.keys) }

func (m *memory) InsertAPIKey(ctx context.Context, k accounts.APIKey) error {
	return m.do(ctx, func() error { return insert(m.keys, k.ID, k) })
}

func (m *memory) DeleteAPIKey(ctx context.Context, id string) error {
	return m.do(ctx, func() error { return remove(m.keys, id) })
}

func (m *memory) TouchAPIKeys(ctx context.Context, used []accounts.Use) error {
	return m.do(ctx, func() error {
		for _, u := range used {
			if k, ok := m.keys[u.ID]; ok {
				k.LastUsed = u.Seen
				m.keys[u.ID] = k
			}
		}
		return nil
	})
}

func (m *memory) ServiceAccounts(ctx context.Context) ([]accounts.ServiceAccount, error) {
	return all(ctx, m, m.services)
}

func (m *memory) InsertServiceAccount(ctx context.Context, s accounts.ServiceAccount) error {
	return m.do(ctx, func() error { return insert(m.services, s.ID, s) })
}

func (m *memory) UpdateServiceAccount(ctx context.Context, s accounts.ServiceAccount) error {
	return m.do(ctx, func() error { m.services[s.ID] = s; return nil })
}

func (m *memory) DeleteServiceAccount(ctx context.Context, id string) error {
	return m.do(ctx, func() error { return remove(m.services, id) })
}

func (m *memory) Sessions(ctx context.Context) ([]accounts.Session, error) {
	return all(ctx, m, m.sessions)
}

func (m *memory) DeleteSession(ctx context.Context, id string) error {
	return m.do(ctx, func() error { return remove(m.sessions, id) })
}

func (m *memory) TouchSessions(ctx context.Context, used []accounts.Use) error {
	return m.do(ctx, func() error {
		for _, u := range used {
			if s, ok := m.sessions[u.ID]; ok {
				s.Seen, s.Expires = u.Seen, u.Expires
				m.sessions[u.ID] = s
			}
		}
		return nil
	})
}

func (m *memory) Users(ctx context.Context) ([]accounts.UserRecord, error) {
	return all(ctx, m, m.users)
}

func (m *memory) Identities(ctx context.Context) ([]accounts.Identity, error) {
	return all(ctx, m, m.identities)
}

func (m *memory) Tokens(ctx context.Context) ([]accounts.Token, error) { return all(ctx, m, m.tokens) }

func (m *memory) WriteAccounts(ctx context.Context, b accounts.Batch) error {
	if m.hold != nil {
		m.hold()
	}
	return m.do(ctx, func() error {
		for _, d := range b.DropTokens {
			maps.DeleteFunc(m.tokens, func(_ [32]byte, t accounts.Token) bool {
				return t.User == d.User && (d.Kind == "" || d.Kind == t.Kind)
			})
		}
		for _, d := range b.EndSessions {
			m.endSessions(d)
		}
		for _, u := range b.Users {
			m.users[u.ID] = u
		}
		for _, i := range b.Identities {
			m.identities[[2]string{i.Issuer, i.Subject}] = i
		}
		for _, t := range b.Tokens {
			m.tokens[t.Hash] = t
		}
		for _, s := range b.Sessions {
			m.sessions[s.ID] = s
		}
		for _, id := range b.DropUsers {
			m.dropUser(id)
		}
		return nil
	})
}

func (m *memory) endSessions(d accounts.SessionsOf) {
	maps.DeleteFunc(m.sessions, func(id string, s accounts.Session) bool {
		return id != d.Except && (s.User == d.User || m.keys[s.Key].Owner == d.User)
	})
}

func (m *memory) dropUser(id string) {
	m.endSessions(accounts.SessionsOf{User: id})
	maps.DeleteFunc(m.tokens, func(_ [32]byte, t accounts.Token) bool { return t.User == id })
	maps.DeleteFunc(m.identities, func(_ [2]string, i accounts.Identity) bool { return i.User == id })
	maps.DeleteFunc(m.keys, func(_ string, k accounts.APIKey) bool { return k.Owner == id })
	delete(m.users, id)
}

func (m *memory) Setting(ctx context.Context, name string) (v string, err error) {
	err = m.do(ctx, func() error { v = m.settings[name]; return nil })
	return v, err
}

func (m *memory) SetSetting(ctx context.Context, name, value string) error {
	return m.do(ctx, func() error { m.settings[name] = value; return nil })
}
