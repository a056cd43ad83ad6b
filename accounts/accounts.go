package accounts

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster"
)

const (
	maxSecret    = 256              // bytes of a key or cookie that are looked at
	writeTimeout = 10 * time.Second // for one change in the store
)

// Accounts holds the API keys, service accounts and sessions in memory and writes changes through
// to its Store. It is safe for concurrent use; Authenticate never waits for the
// store.
type Accounts struct {
	store Store
	now   func() time.Time
	log   *slog.Logger
	ended func(principal string)

	onRights func(affects func(credential string) bool)

	onDeleted func(name string)

	turn   chan struct{} // held by the one change in flight; readers never take it
	expiry chan struct{} // wakes RunExpiry

	mu       sync.RWMutex
	keys     map[[32]byte]APIKey // by hash; at most MaxKeys
	hashes   map[string][32]byte // of keys, by id
	sessions map[[32]byte]Session
	extended map[[32]byte]struct{} // sessions whose Expires moved since it was stored
	setup    setupState

	services      map[string]ServiceAccount // by id; at most MaxServiceAccounts; lists never change in place
	serviceNames  map[string]string         // ids by name
	serviceHashes map[[32]byte]string       // ids by hash
	swept         muster.Micros             // what had expired by then has been reported
}

// New returns accounts without any: Load fills them.
func New(store Store, now func() time.Time, log *slog.Logger) *Accounts {
	return &Accounts{
		store: store, now: now, log: log, ended: func(string) {},
		onRights: func(func(string) bool) {}, onDeleted: func(string) {},
		turn:     make(chan struct{}, 1),
		expiry:   make(chan struct{}, 1),
		keys:     map[[32]byte]APIKey{},
		hashes:   map[string][32]byte{},
		sessions: map[[32]byte]Session{},
		extended: map[[32]byte]struct{}{},

		services:      map[string]ServiceAccount{},
		serviceNames:  map[string]string{},
		serviceHashes: map[[32]byte]string{},
	}
}

// OnEnded has fn called with the Principal.ID of each key that is deleted or expires
// and each session that ends, so that its open connections can be cut. fn must not
// block. Call it once, before Load.
func (a *Accounts) OnEnded(fn func(principal string)) { a.ended = fn }

// OnRights has fn called after a change of what API keys and service accounts may do
// over MQTT, so that their live connections can be cut or get their new rights:
// affects says whether the change is about one that came in by credential, an id. fn is
// called without a lock held, after the change can be seen, and must not keep
// affects. Call OnRights once, before Load.
func (a *Accounts) OnRights(fn func(affects func(credential string) bool)) { a.onRights = fn }

// OnServiceDeleted has fn called with the name of a service account that was deleted,
// so that what others keep in its name does not pass to the next of that name. Call
// it once, before Load.
func (a *Accounts) OnServiceDeleted(fn func(name string)) { a.onDeleted = fn }

// Load reads all accounts into memory. Call it once, before anything else.
func (a *Accounts) Load(ctx context.Context) error {
	keys, err := a.store.APIKeys(ctx)
	if err != nil {
		return fmt.Errorf("load API keys: %w", err)
	}
	sessions, err := a.store.Sessions(ctx)
	if err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	services, err := a.store.ServiceAccounts(ctx)
	if err != nil {
		return fmt.Errorf("load service accounts: %w", err)
	}
	setup, err := a.loadSetup(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range keys {
		a.keys[k.Hash] = k
		a.hashes[k.ID] = k.Hash
	}
	for _, s := range sessions {
		a.sessions[s.Hash] = s
		setup.done = setup.done || s.Role == Admin
	}
	for _, s := range services {
		a.addService(s)
	}
	a.setup = setup
	return nil
}

// change waits for its turn to change the accounts and runs fn. fn's context is
// one that a caller who goes away does not cancel: a change whose end nobody saw
// would leave memory and store apart.
func (a *Accounts) change(ctx context.Context, fn func(ctx context.Context) error) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to change accounts: %w", ctx.Err())
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return fn(c)
}

// Authenticate returns who has the API key bearer, in memory. An unknown and an
// expired key are answered the same: Unauthorized.
func (a *Accounts) Authenticate(bearer string) (Principal, error) {
	k, err := a.key(bearer)
	if err != nil {
		return Principal{}, err
	}
	return Principal{ID: k.ID, Name: k.Name, Scopes: k.Scopes}, nil
}

// key finds by hash: what a search in a map gives away about a hash is of no use
// to who does not know the key.
func (a *Accounts) key(secret string) (APIKey, error) {
	if len(secret) > maxSecret {
		return APIKey{}, errKey()
	}
	hash := sha256.Sum256([]byte(secret))
	a.mu.RLock()
	k, ok := a.keys[hash]
	a.mu.RUnlock()
	if !ok || k.expired(muster.MicrosOf(a.now())) {
		return APIKey{}, errKey()
	}
	return k, nil
}

func (k APIKey) expired(at muster.Micros) bool { return k.Expires != 0 && at >= k.Expires }

func errKey() error {
	return muster.Errorf(muster.Unauthorized, "the API key is unknown or has expired")
}
