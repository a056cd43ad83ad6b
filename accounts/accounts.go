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

// Accounts holds the users, API keys, service accounts and sessions in memory and
// writes changes through to its Store. It is safe for concurrent use; Authenticate
// never waits for the store.
type Accounts struct {
	store Store
	now   func() time.Time
	log   *slog.Logger
	cfg   Config
	ended func(principal string)

	onRights func(affects func(credential string) bool)

	onDeleted func(name string)

	turn   chan struct{} // held by the one change in flight; readers never take it
	expiry chan struct{} // wakes RunExpiry

	hasher *hasher
	post   *post
	// What was tried: passwords by what was typed and network, by what was typed alone,
	// second factors by user, mails by address, and all of it by network.
	tries, everywhere, codes, mails, networks *limits

	mu       sync.RWMutex
	keys     map[[32]byte]*liveKey // by hash; at most MaxKeys
	hashes   map[string][32]byte   // of keys, by id
	sessions map[[32]byte]*liveSession
	setup    setupState

	users      map[string]UserRecord // by id; at most MaxUsers; their lists never change in place
	emails     map[string]string     // ids by e-mail
	identities map[identityKey]Identity
	linked     map[string]int     // how many identities a user has
	tokens     map[[32]byte]Token // at most one of a kind and user
	secrets    map[string]newTOTP // second factors that are being set up, by user

	services      map[string]ServiceAccount // by id; at most MaxServiceAccounts; lists never change in place
	serviceNames  map[string]string         // ids by name
	serviceHashes map[[32]byte]string       // ids by hash
	swept         muster.Micros             // what had expired by then has been reported
}

type identityKey struct{ issuer, subject string }

// New returns accounts without any: Load fills them.
func New(store Store, now func() time.Time, log *slog.Logger, cfg Config) *Accounts {
	return &Accounts{
		store: store, now: now, log: log, cfg: cfg, ended: func(string) {},
		onRights: func(func(string) bool) {}, onDeleted: func(string) {},
		turn:   make(chan struct{}, 1),
		expiry: make(chan struct{}, 1),
		hasher: newHasher(), post: newPost(),
		tries: newLimits(), everywhere: newLimits(), codes: newLimits(), mails: newLimits(), networks: newLimits(),
		keys:     map[[32]byte]*liveKey{},
		hashes:   map[string][32]byte{},
		sessions: map[[32]byte]*liveSession{},

		users: map[string]UserRecord{}, emails: map[string]string{},
		identities: map[identityKey]Identity{}, linked: map[string]int{},
		tokens: map[[32]byte]Token{}, secrets: map[string]newTOTP{},

		services:      map[string]ServiceAccount{},
		serviceNames:  map[string]string{},
		serviceHashes: map[[32]byte]string{},
	}
}

// OnEnded has fn called with the Principal.ID of each key that is deleted, expires or
// may not do what it could, and of each session that ends or gets another role, so that
// its open connections can be cut; and with the id of each user who is deleted, disabled,
// enabled or gets another role, for what goes on in his name without a session. fn must not block, nor change accounts. Call it
// once, before Load.
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
	var l loaded
	if err := l.read(ctx, a.store); err != nil {
		return err
	}
	setup, err := a.loadSetup(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range l.users {
		a.addUser(u)
	}
	for _, i := range l.identities {
		a.addIdentity(i)
	}
	for _, t := range l.tokens {
		a.tokens[t.Hash] = t
	}
	for _, k := range l.keys {
		a.addKey(k)
	}
	for _, s := range l.sessions {
		a.sessions[s.Hash] = newLiveSession(s)
	}
	for _, s := range l.services {
		a.addService(s)
	}
	a.setup = setup
	return nil
}

// loaded is what a store holds.
type loaded struct {
	users      []UserRecord
	identities []Identity
	tokens     []Token
	keys       []APIKey
	sessions   []Session
	services   []ServiceAccount
}

func (l *loaded) read(ctx context.Context, s Store) (err error) {
	if l.users, err = s.Users(ctx); err != nil {
		return fmt.Errorf("load users: %w", err)
	}
	if l.identities, err = s.Identities(ctx); err != nil {
		return fmt.Errorf("load identities: %w", err)
	}
	if l.tokens, err = s.Tokens(ctx); err != nil {
		return fmt.Errorf("load tokens: %w", err)
	}
	if l.keys, err = s.APIKeys(ctx); err != nil {
		return fmt.Errorf("load API keys: %w", err)
	}
	if l.sessions, err = s.Sessions(ctx); err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	if l.services, err = s.ServiceAccounts(ctx); err != nil {
		return fmt.Errorf("load service accounts: %w", err)
	}
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

// Authenticate returns who has the API key bearer, in memory, and counts it as used.
// A key that is unknown, has expired or whose owner is disabled is answered the same:
// Unauthorized.
func (a *Accounts) Authenticate(bearer string) (Principal, error) {
	k, err := a.key(bearer)
	if err != nil {
		return Principal{}, err
	}
	return Principal{ID: k.ID, Name: k.Name, Key: k.ID, Scopes: k.scopes, Selector: k.Selector, Expires: k.Expires}, nil
}

// key finds by hash: what a search in a map gives away about a hash is of no use
// to who does not know the key.
func (a *Accounts) key(secret string) (keyNow, error) {
	if len(secret) > maxSecret {
		return keyNow{}, errKey()
	}
	hash := sha256.Sum256([]byte(secret))
	at := muster.MicrosOf(a.now())
	a.mu.RLock()
	k, ok := a.keys[hash]
	var now keyNow
	if ok {
		now = k.keyNow
	}
	a.mu.RUnlock()
	if !ok || !now.alive(at) {
		return keyNow{}, errKey()
	}
	k.touch(at)
	return now, nil
}

func errKey() error {
	return muster.Errorf(muster.Unauthorized, "the API key is unknown or has expired")
}
