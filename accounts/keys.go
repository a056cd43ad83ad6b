package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
)

const (
	// MaxKeys is the most API keys there may be at once.
	MaxKeys = 10_000
	// AdminKeyName is the name of the API key that the environment variable of the
	// same name gives; no other key may have it.
	AdminKeyName = "MUSTER_ADMIN_KEY"

	keyPrefix   = "mst_"
	minGivenKey = 20 // characters after the prefix
	maxKeyName  = 200
)

// CreateKey makes an API key of 130 random bits and returns it with its text,
// which is shown this once. A zero expires means never; a past one, no scope, an
// unknown scope and a bad name are Invalid.
func (a *Accounts) CreateKey(ctx context.Context, name string, scopes []string, expires time.Time) (APIKey, string, error) {
	if err := checkKeyName(name); err != nil {
		return APIKey{}, "", err
	}
	if err := checkScopes(scopes); err != nil {
		return APIKey{}, "", err
	}
	now := a.now()
	if !expires.IsZero() && !expires.After(now) {
		return APIKey{}, "", muster.Errorf(muster.Invalid, "the key's expiry is not in the future")
	}
	secret := keyPrefix + rand.Text()
	k := newKey(name, secret, scopes, now)
	if !expires.IsZero() {
		k.Expires = muster.MicrosOf(expires)
	}
	if err := a.change(ctx, func(ctx context.Context) error { return a.insertKey(ctx, k) }); err != nil {
		return APIKey{}, "", err
	}
	a.wakeExpiry()
	return k, secret, nil
}

func newKey(name, secret string, scopes []string, at time.Time) APIKey {
	sorted := slices.Clone(scopes)
	slices.Sort(sorted)
	return APIKey{
		ID: "key_" + rand.Text(), Name: name, Hash: sha256.Sum256([]byte(secret)),
		Scopes: slices.Compact(sorted), Created: muster.MicrosOf(at),
	}
}

// insertKey is called in turn.
func (a *Accounts) insertKey(ctx context.Context, k APIKey) error {
	if n := len(a.Keys()); n >= MaxKeys {
		return muster.Errorf(muster.Conflict, "there are %d API keys already: delete some first", n)
	}
	if err := a.store.InsertAPIKey(ctx, k); err != nil {
		return fmt.Errorf("insert API key: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[k.Hash] = k
	a.hashes[k.ID] = k.Hash
	return nil
}

// Keys returns every API key, oldest first.
func (a *Accounts) Keys() []APIKey {
	a.mu.RLock()
	keys := slices.Collect(maps.Values(a.keys))
	a.mu.RUnlock()
	slices.SortFunc(keys, func(x, y APIKey) int {
		return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.ID, y.ID))
	})
	return keys
}

// DeleteKey revokes an API key and with it the sessions made with it, or returns
// NotFound.
func (a *Accounts) DeleteKey(ctx context.Context, id string) error {
	err := a.change(ctx, func(ctx context.Context) error { return a.deleteKey(ctx, id) })
	a.keysGone(id) // also when one of its sessions could not be ended
	return err
}

// keysGone reports those of ids that are keys no longer.
func (a *Accounts) keysGone(ids ...string) {
	a.mu.RLock()
	gone := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, ok := a.hashes[id]; return ok })
	a.mu.RUnlock()
	if len(gone) > 0 {
		a.onRights(func(credential string) bool { return slices.Contains(gone, credential) })
	}
}

// deleteKey is called in turn. Sessions of the key are refused as soon as it is
// gone, also after a restart that still finds them.
func (a *Accounts) deleteKey(ctx context.Context, id string) error {
	a.mu.RLock()
	hash, ok := a.hashes[id]
	a.mu.RUnlock()
	if !ok {
		return muster.Errorf(muster.NotFound, "there is no such API key")
	}
	if err := a.store.DeleteAPIKey(ctx, id); err != nil {
		return fmt.Errorf("delete API key: %w", err)
	}
	a.mu.Lock()
	delete(a.keys, hash)
	delete(a.hashes, id)
	var orphans []Session
	for _, s := range a.sessions {
		if s.Key == id {
			orphans = append(orphans, s)
		}
	}
	a.mu.Unlock()
	a.ended(id)
	for _, s := range orphans {
		if err := a.endSession(ctx, s); err != nil {
			return fmt.Errorf("end a session of the deleted API key: %w", err)
		}
	}
	return nil
}

// EnsureAdminKey makes key, the value of MUSTER_ADMIN_KEY, the one API key of
// that name, with the scope admin. It changes nothing when it is that already;
// another value replaces the one before. Invalid unless key is mst_ and at least
// 20 printable ASCII characters.
func (a *Accounts) EnsureAdminKey(ctx context.Context, key string) error {
	if err := CheckGivenKey(key); err != nil {
		return err
	}
	var before []string
	err := a.change(ctx, func(ctx context.Context) error {
		k := newKey(AdminKeyName, key, []string{Admin}, a.now())
		a.mu.RLock()
		have, ok := a.keys[k.Hash]
		a.mu.RUnlock()
		if ok && have.Name != AdminKeyName {
			return muster.Errorf(muster.Conflict, "the value of %s is another API key already", AdminKeyName)
		}
		if !ok {
			if err := a.insertKey(ctx, k); err != nil {
				return err
			}
		}
		before = a.oldAdminKeys(k.Hash)
		return a.dropKeys(ctx, before)
	})
	a.keysGone(before...)
	return err
}

func (a *Accounts) oldAdminKeys(keep [32]byte) (ids []string) {
	for _, k := range a.Keys() {
		if k.Name == AdminKeyName && k.Hash != keep {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// dropKeys deletes earlier values, after the new one is in: a crash in between leaves
// both, and the next start finishes.
func (a *Accounts) dropKeys(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if err := a.deleteKey(ctx, id); err != nil {
			return fmt.Errorf("replace %s: %w", AdminKeyName, err)
		}
	}
	return nil
}

// CheckGivenKey returns Invalid unless key may be the value of MUSTER_ADMIN_KEY:
// mst_ and at least 20 printable ASCII characters.
func CheckGivenKey(key string) error {
	rest, ok := strings.CutPrefix(key, keyPrefix)
	if !ok || len(rest) < minGivenKey || len(key) > maxSecret {
		return muster.Errorf(muster.Invalid, "%s must be %s and %d to %d characters", AdminKeyName, keyPrefix, minGivenKey, maxSecret-len(keyPrefix))
	}
	for i := range len(rest) {
		if rest[i] <= ' ' || rest[i] > '~' {
			return muster.Errorf(muster.Invalid, "%s must have printable ASCII characters only, and no space", AdminKeyName)
		}
	}
	return nil
}

func checkKeyName(name string) error {
	switch {
	case name == "":
		return muster.Errorf(muster.Invalid, "an API key needs a name")
	case len(name) > maxKeyName:
		return muster.Errorf(muster.Invalid, "the key's name has %d bytes, at most %d are allowed", len(name), maxKeyName)
	case name == AdminKeyName:
		return muster.Errorf(muster.Invalid, "the name %s is reserved", AdminKeyName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return muster.Errorf(muster.Invalid, "the key's name is not plain text")
	}
	return nil
}
