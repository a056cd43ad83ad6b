package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"muster"
)

// The bounds of a password, in characters.
const (
	MinPassword = 10
	MaxPassword = 128
)

const (
	hashWait   = 5 * time.Second // for a place among those that hash
	maxHashers = 64              // waiting for one; the next is Busy at once
	saltBytes  = 16
	keyBytes   = 32
)

// cost is what argon2id is told (RFC 9106): memory in KiB, passes, lanes.
type cost struct {
	memory, time uint32
	lanes        uint8
}

// defaultCost is the second recommendation of OWASP's password storage cheat sheet.
func defaultCost() cost { return cost{memory: 19 << 10, time: 2, lanes: 1} }

// CheckPassword returns Invalid unless password has MinPassword to MaxPassword
// characters and is neither the e-mail address, nor its part before the @, nor the name.
// There are no other rules (NIST SP 800-63B, section 5.1.1.2).
func CheckPassword(password, email, name string) error {
	if !utf8.ValidString(password) {
		return muster.Errorf(muster.Invalid, "the password is not text")
	}
	if n := utf8.RuneCountInString(password); n < MinPassword || n > MaxPassword {
		return muster.Errorf(muster.Invalid, "a password has %d to %d characters", MinPassword, MaxPassword)
	}
	local, _, _ := strings.Cut(email, "@")
	for _, own := range []string{email, local, name} {
		if own != "" && strings.EqualFold(strings.TrimSpace(password), strings.TrimSpace(own)) {
			return muster.Errorf(muster.Invalid, "the password is the e-mail address or the name: everybody can guess it")
		}
	}
	return nil
}

// phc is a password's hash as it is kept: $argon2id$v=19$m=19456,t=2,p=1$salt$key, in
// base64 without padding (the PHC string format).
type phc struct {
	cost
	salt, key []byte
}

func (p phc) String() string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.lanes, b.EncodeToString(p.salt), b.EncodeToString(p.key))
}

// The most that a stored hash may ask for, so that one that was brought in from
// elsewhere cannot exhaust the machine.
const (
	maxMemory = 256 << 10 // KiB
	maxTime   = 16
	maxLanes  = 16
	maxField  = 64 // bytes of salt and of key
)

func parsePHC(s string) (phc, error) {
	var p phc
	parts := strings.Split(s, "$")
	if len(s) > 400 || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, muster.Errorf(muster.Invalid, "the stored password is not a hash of argon2id")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.lanes); err != nil {
		return p, muster.Errorf(muster.Invalid, "the stored password has no costs")
	}
	b := base64.RawStdEncoding.Strict()
	var err error
	if p.salt, err = b.DecodeString(parts[4]); err != nil {
		return p, muster.Errorf(muster.Invalid, "the stored password has a bad salt")
	}
	if p.key, err = b.DecodeString(parts[5]); err != nil {
		return p, muster.Errorf(muster.Invalid, "the stored password has a bad key")
	}
	switch {
	case p.memory < 8*uint32(p.lanes) || p.memory > maxMemory, p.time < 1 || p.time > maxTime, p.lanes < 1 || p.lanes > maxLanes:
		return p, muster.Errorf(muster.Invalid, "the stored password's costs are out of bounds")
	case len(p.salt) < 8 || len(p.salt) > maxField, len(p.key) < 16 || len(p.key) > maxField:
		return p, muster.Errorf(muster.Invalid, "the stored password's salt or key has a bad length")
	}
	return p, nil
}

// hasher computes hashes of passwords, as many at once as there are processors: each
// takes 19 MiB. Who finds no place in hashWait, or maxHashers waiting, is told to come
// back.
type hasher struct {
	cost    cost
	dummy   string // a hash that no password has
	places  chan struct{}
	waiting atomic.Int64
	hashes  atomic.Uint64
}

func newHasher() *hasher {
	h := &hasher{places: make(chan struct{}, runtime.NumCPU())}
	h.setCost(defaultCost())
	return h
}

// setCost is for the start.
func (h *hasher) setCost(c cost) {
	p := phc{cost: c, salt: make([]byte, saltBytes), key: make([]byte, keyBytes)}
	rand.Read(p.salt) // never fails
	rand.Read(p.key)
	h.cost, h.dummy = c, p.String()
}

// hash returns a new hash of password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	p := phc{cost: h.cost, salt: make([]byte, saltBytes)}
	rand.Read(p.salt) // never fails
	err := h.derive(ctx, password, &p, keyBytes)
	if err != nil {
		return "", err
	}
	return p.String(), nil
}

// verify says whether stored is password's hash, and whether it was made at another
// cost than today's. An empty stored has no password, which costs the same to find out.
func (h *hasher) verify(ctx context.Context, stored, password string) (ok, stale bool, err error) {
	none := stored == ""
	if none {
		stored = h.dummy
	}
	want, err := parsePHC(stored)
	if err != nil {
		return false, false, fmt.Errorf("verify a password: %w", muster.Errorf(muster.Internal, "%w", err))
	}
	got := phc{cost: want.cost, salt: want.salt}
	if err := h.derive(ctx, password, &got, len(want.key)); err != nil {
		return false, false, err
	}
	same := subtle.ConstantTimeCompare(got.key, want.key) == 1
	return same && !none, want.cost != h.cost, nil
}

// derive sets p.key. It waits for a place.
func (h *hasher) derive(ctx context.Context, password string, p *phc, size int) error {
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer func() { <-h.places }()
	h.hashes.Add(1)
	// No valid password is longer; a longer one costs no more.
	password = password[:min(len(password), 4*MaxPassword+1)]
	p.key = argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.lanes, uint32(size))
	return nil
}

func (h *hasher) enter(ctx context.Context) error {
	select {
	case h.places <- struct{}{}:
		return nil
	default:
	}
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > maxHashers {
		return &WaitError{Wait: time.Second}
	}
	timer := time.NewTimer(hashWait)
	defer timer.Stop()
	select {
	case h.places <- struct{}{}:
		return nil
	case <-timer.C:
		return &WaitError{Wait: time.Second}
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to check a password: %w", ctx.Err())
	}
}
