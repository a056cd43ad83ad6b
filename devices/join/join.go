package join

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/audit"
	"muster/devices"
)

const (
	maxName      = 200 // bytes of a name for people
	writeTimeout = 10 * time.Second
	tidyEvery    = 10 * time.Minute
	// expiryStep is the longest Run waits while a key has an expiry: by then it has
	// noticed that the clock was set.
	expiryStep = time.Minute
)

// Options are the parts of a Join that belong to other rooms. Each may be nil.
type Options struct {
	// OnGuests is called after a change of what guests may do, so that their connections
	// can be cut: affects says whether the change is about one with this credential. It
	// is called without a lock held and must not keep affects.
	OnGuests func(affects func(credential string) bool)
}

// Join knows the ways in. It is safe for concurrent use; logins never wait for the
// store unless they make a device.
type Join struct {
	registry *devices.Registry
	store    Store
	now      func() time.Time
	log      *slog.Logger
	onGuests func(affects func(credential string) bool)

	turn chan struct{} // held by the one change in flight
	wake chan struct{} // holds one signal for Run

	authorities authorities
	limits      limits
	inbox       inbox

	mu       sync.RWMutex
	profiles map[string]Provisioning // at most one per profile
	byKey    map[string]string       // provisioning key -> profile
	claims   map[muster.DeviceID]ClaimCode
	byCode   map[[32]byte]muster.DeviceID
	keys     map[[32]byte]AdoptionKey // by hash
	blocks   map[[32]byte]Block
	swept    muster.Micros // until when expired adoption keys were reported
}

// New returns an empty Join over registry: Load fills it.
func New(registry *devices.Registry, store Store, now func() time.Time, log *slog.Logger, o Options) *Join {
	j := &Join{
		registry: registry, store: store, now: now, log: log, onGuests: o.OnGuests,
		turn: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		profiles: map[string]Provisioning{}, byKey: map[string]string{},
		claims: map[muster.DeviceID]ClaimCode{}, byCode: map[[32]byte]muster.DeviceID{},
		keys: map[[32]byte]AdoptionKey{}, blocks: map[[32]byte]Block{},
	}
	if j.onGuests == nil {
		j.onGuests = func(func(string) bool) {}
	}
	j.authorities.set(nil)
	j.limits.init(now)
	j.inbox.init()
	return j
}

// Load reads everything into memory. Call it once, after the registry's.
func (j *Join) Load(ctx context.Context) error {
	list, err := j.store.Authorities(ctx)
	if err != nil {
		return fmt.Errorf("load certificate authorities: %w", err)
	}
	j.authorities.set(list)
	provisionings, err := j.store.Provisionings(ctx)
	if err != nil {
		return fmt.Errorf("load provisionings: %w", err)
	}
	claims, err := j.store.ClaimCodes(ctx)
	if err != nil {
		return fmt.Errorf("load claim codes: %w", err)
	}
	keys, err := j.store.AdoptionKeys(ctx)
	if err != nil {
		return fmt.Errorf("load adoption keys: %w", err)
	}
	blocks, err := j.store.Blocks(ctx)
	if err != nil {
		return fmt.Errorf("load blocked clients: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range provisionings {
		j.putProvisioning(p)
	}
	for _, c := range claims {
		j.putClaim(c)
	}
	for _, k := range keys {
		j.keys[k.Hash] = k
	}
	for _, b := range blocks {
		j.blocks[b.Hash] = b
	}
	j.swept = muster.MicrosOf(j.now())
	return nil
}

// change waits for its turn and runs fn. fn's context is one that a caller who goes
// away does not cancel: a change whose end nobody saw would leave memory and store apart.
func (j *Join) change(ctx context.Context, fn func(ctx context.Context) error) error {
	select {
	case j.turn <- struct{}{}:
		defer func() { <-j.turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to change how devices join: %w", ctx.Err())
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*writeTimeout) // the registry may need as long
	defer cancel()
	if audit.Of(c) == nil { // a client that becomes a device by itself
		c = audit.With(c, audit.Actor{Kind: audit.System, Name: "join"}, j.now)
	}
	return fn(c)
}

// Run cuts the guests of adoption keys that expire, and clears expired claim codes
// away, until ctx ends.
func (j *Join) Run(ctx context.Context) error {
	tidied := j.now()
	for {
		wait := j.sweep()
		if now := j.now(); now.Sub(tidied) >= tidyEvery {
			tidied = now
			if err := j.tidyClaims(ctx); err != nil && ctx.Err() == nil {
				j.log.Warn("expired claim codes are not cleared away, trying again", "err", err)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-j.wake:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// DeviceDeleted forgets what was a device's that is no more; the store did so with the
// device.
func (j *Join) DeviceDeleted(id muster.DeviceID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dropClaim(id)
}

// checkName allows plain text of at most maxName bytes.
func checkName(what, s string) error {
	switch {
	case s == "":
		return muster.InvalidAt("name", "%s needs a name", what)
	case len(s) > maxName:
		return muster.InvalidAt("name", "the name of %s has %d bytes, at most %d are allowed", what, len(s), maxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return muster.InvalidAt("name", "the name of %s is not plain text", what)
	}
	return nil
}
