package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/audit"
	"muster/internal/precondition"
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

// KeySpec describes an API key to be made.
type KeySpec struct {
	Name     string // 1 to 200 bytes of plain text
	Scopes   []string
	Selector string    // device query of the devices it is about; empty for all
	Expires  time.Time // zero for never
	Owner    string    // id of the user it ends with; empty for none
}

// keyNow is an API key and what it may do now. Its lists never change in place.
type keyNow struct {
	APIKey
	scopes []string // those of its own that its owner's role allows
	barred bool     // the owner is disabled
}

func (k keyNow) alive(at muster.Micros) bool { return !k.barred && !k.expired(at) }

func (k APIKey) expired(at muster.Micros) bool { return k.Expires != 0 && at >= k.Expires }

// liveKey is a key in memory. Its keyNow is read and written with the lock held.
type liveKey struct {
	keyNow
	used   atomic.Int64 // Micros
	stored int64        // the last use that the store has; Run's alone
}

// touch counts k as used, to the second: a key that is used all the time is not
// written to all the time by every processor.
func (k *liveKey) touch(at muster.Micros) {
	if int64(at)-k.used.Load() >= time.Second.Microseconds() {
		k.used.Store(int64(at))
	}
}

// addKey is called with the lock held, after the key's owner was added.
func (a *Accounts) addKey(k APIKey) {
	l := &liveKey{keyNow: a.keyNow(k), stored: int64(k.LastUsed)}
	l.used.Store(int64(k.LastUsed))
	a.keys[k.Hash] = l
	a.hashes[k.ID] = k.Hash
}

// keyNow says what k may do now. It is called with the lock held.
func (a *Accounts) keyNow(k APIKey) keyNow {
	now := keyNow{APIKey: k, scopes: k.Scopes}
	if k.Owner == "" {
		return now
	}
	owner, ok := a.users[k.Owner]
	now.barred = !ok || owner.Disabled
	now.scopes = within(k.Scopes, owner.Role)
	return now
}

// within returns those of scopes that a role has. The scope mqtt is everybody's: it
// gives nothing without others.
func within(scopes []string, role string) []string {
	p := Principal{Scopes: roleScopes(role)}
	return slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return s != MQTT && !p.Allows(s) })
}

// TouchKey counts the API key id as used now. Authenticate does so itself: this is for
// who remembers its answers.
func (a *Accounts) TouchKey(id string) {
	a.mu.RLock()
	k := a.keys[a.hashes[id]]
	a.mu.RUnlock()
	if k != nil {
		k.touch(muster.MicrosOf(a.now()))
	}
}

// CreateKey makes an API key of 130 random bits and returns it with its text,
// which is shown this once. A past expiry, no scope, an unknown scope, a selector that
// is no query, a selector beside the scope admin and a bad name are Invalid; an owner
// who is not there is NotFound, one who may less than the key Forbidden.
func (a *Accounts) CreateKey(ctx context.Context, spec KeySpec) (APIKey, string, error) {
	now := a.now()
	if err := a.checkKey(spec, now); err != nil {
		return APIKey{}, "", err
	}
	secret := keyPrefix + rand.Text()
	k := newKey(spec.Name, secret, spec.Scopes, now)
	k.Selector, k.Owner = spec.Selector, spec.Owner
	if !spec.Expires.IsZero() {
		k.Expires = muster.MicrosOf(spec.Expires)
	}
	if err := a.change(ctx, func(ctx context.Context) error { return a.insertKey(ctx, k) }); err != nil {
		return APIKey{}, "", err
	}
	a.wakeExpiry()
	return k, secret, nil
}

func (a *Accounts) checkKey(spec KeySpec, now time.Time) error {
	if err := checkKeyName(spec.Name); err != nil {
		return err
	}
	if err := checkScopes(spec.Scopes); err != nil {
		return err
	}
	if !spec.Expires.IsZero() && !spec.Expires.After(now) {
		return muster.InvalidAt("expires_at", "the key's expiry is not in the future")
	}
	if spec.Selector == "" {
		return nil
	}
	if slices.Contains(spec.Scopes, Admin) {
		return muster.At(muster.Errorf(muster.Invalid, "a key with the scope admin is not bound to some devices: it could make itself another"), "scopes", "selector")
	}
	if a.cfg.CheckSelector == nil {
		return muster.InvalidAt("selector", "keys cannot be bound to some devices here")
	}
	if err := a.cfg.CheckSelector(spec.Selector); err != nil {
		return fmt.Errorf("the key's device selector: %w", muster.At(err, "selector"))
	}
	return nil
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
	a.mu.RLock()
	n, now := len(a.keys), a.keyNow(k)
	_, owned := a.users[k.Owner]
	a.mu.RUnlock()
	switch {
	case n >= MaxKeys:
		return muster.Errorf(muster.Conflict, "there are %d API keys already: delete some first", n)
	case k.Owner != "" && !owned:
		return muster.Errorf(muster.NotFound, "the key's owner is not there")
	case now.barred || len(now.scopes) < len(k.Scopes):
		return muster.Errorf(muster.Forbidden, "the key's owner may not do all that the key could")
	}
	audit.Note(ctx, "api_key.create", "api-keys/"+k.ID, nil, viewOfKey(k))
	if err := a.store.InsertAPIKey(ctx, k); err != nil {
		return fmt.Errorf("insert API key: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addKey(k)
	return nil
}

// Keys returns every API key, oldest first.
func (a *Accounts) Keys() []APIKey {
	a.mu.RLock()
	keys := make([]APIKey, 0, len(a.keys))
	for _, k := range a.keys {
		keys = append(keys, k.shown())
	}
	a.mu.RUnlock()
	slices.SortFunc(keys, func(x, y APIKey) int {
		return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.ID, y.ID))
	})
	return keys
}

// Key returns the API key id, or NotFound.
func (a *Accounts) Key(id string) (APIKey, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	hash, ok := a.hashes[id]
	if !ok {
		return APIKey{}, errNoKey()
	}
	return a.keys[hash].shown(), nil
}

// shown is called with the lock held.
func (k *liveKey) shown() APIKey {
	out := k.APIKey
	out.LastUsed = muster.Micros(k.used.Load())
	return out
}

func errNoKey() error { return muster.Errorf(muster.NotFound, "there is no such API key") }

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
	k := a.keys[hash]
	a.mu.RUnlock()
	if !ok {
		return errNoKey()
	}
	if err := precondition.Check(ctx, k.APIKey); err != nil {
		return err
	}
	audit.Note(ctx, "api_key.delete", "api-keys/"+id, viewOfKey(k.APIKey), nil)
	if err := a.store.DeleteAPIKey(ctx, id); err != nil {
		return fmt.Errorf("delete API key: %w", err)
	}
	a.mu.Lock()
	delete(a.keys, hash)
	delete(a.hashes, id)
	var orphans []Session
	for _, s := range a.sessions {
		if s.Key == id {
			orphans = append(orphans, s.Session)
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
		return muster.InvalidAt("name", "an API key needs a name")
	case len(name) > maxKeyName:
		return muster.InvalidAt("name", "the key's name has %d bytes, at most %d are allowed", len(name), maxKeyName)
	case name == AdminKeyName:
		return muster.InvalidAt("name", "the name %s is reserved", AdminKeyName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return muster.InvalidAt("name", "the key's name is not plain text")
	}
	return nil
}
