package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"time"

	"muster"
)

// The settings that setting up is kept under.
const (
	settingSetupDone = "setup.done" // when the first admin session was made, RFC 3339
	settingSetupUsed = "setup.used" // hash of the token that made it, so that a second click is told so
)

// setupState is about the one-time link. open is the hash of the token that is
// good now, nil when there is none. Tokens live as long as the process, so the
// next start makes a new one by itself.
type setupState struct {
	done bool
	open []byte
	used []byte
}

func (a *Accounts) loadSetup(ctx context.Context) (setupState, error) {
	done, err := a.store.Setting(ctx, settingSetupDone)
	if err != nil {
		return setupState{}, fmt.Errorf("load settings: %w", err)
	}
	used, err := a.store.Setting(ctx, settingSetupUsed)
	if err != nil {
		return setupState{}, fmt.Errorf("load settings: %w", err)
	}
	hash, err := hex.DecodeString(used)
	if err != nil {
		return setupState{}, fmt.Errorf("setting %s: %w", settingSetupUsed, err)
	}
	return setupState{done: done != "", used: hash}, nil
}

// SetupToken returns a new token for the one-time set-up link, which makes the
// one before it worthless, or an empty one when an admin has signed in before.
// Only its hash is kept.
func (a *Accounts) SetupToken(ctx context.Context) (token string, err error) {
	err = a.change(ctx, func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.setup.done {
			return nil
		}
		token = rand.Text()
		hash := sha256.Sum256([]byte(token))
		a.setup.open = hash[:]
		return nil
	})
	return token, err
}

// RedeemSetup is RedeemSetupFrom without an address.
func (a *Accounts) RedeemSetup(ctx context.Context, token string) (cookie string, s Session, err error) {
	return a.RedeemSetupFrom(ctx, token, Client{})
}

// RedeemSetupFrom makes an admin session for who has the set-up token, which is nobody's
// until FirstAdmin. It works once:
// of several at the same time one wins, the others and all later ones get
// Conflict. A token that is not the newest is NotFound.
func (a *Accounts) RedeemSetupFrom(ctx context.Context, token string, from Client) (cookie string, s Session, err error) {
	hash := sha256.Sum256([]byte(token))
	err = a.change(ctx, func(ctx context.Context) error {
		if err := a.checkSetup(hash[:]); err != nil {
			return err
		}
		if cookie, s, err = a.newSession(ctx, Session{Role: Admin}, from, Batch{}); err != nil {
			return err
		}
		a.setupRedeemed(ctx, hash[:])
		return nil
	})
	if err != nil {
		return "", Session{}, err
	}
	return cookie, s, nil
}

func (a *Accounts) checkSetup(hash []byte) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch {
	case subtle.ConstantTimeCompare(a.setup.used, hash) == 1:
		return muster.Errorf(muster.Conflict, "this set-up link has been used")
	case subtle.ConstantTimeCompare(a.setup.open, hash) != 1:
		return muster.Errorf(muster.NotFound, "this set-up link is not valid: the newest one is on the server's console")
	case a.setup.done:
		return muster.Errorf(muster.Conflict, "an admin has signed in already: this set-up link is no longer needed")
	default:
		return nil
	}
}

// setupRedeemed closes the link. The session that was made is on record already
// and tells the next start so, should these settings fail to be written.
func (a *Accounts) setupRedeemed(ctx context.Context, hash []byte) {
	a.mu.Lock()
	a.setup = setupState{done: true, used: hash}
	a.mu.Unlock()
	err := a.store.SetSetting(ctx, settingSetupUsed, hex.EncodeToString(hash))
	if err == nil {
		err = a.store.SetSetting(ctx, settingSetupDone, a.now().UTC().Format(time.RFC3339))
	}
	if err != nil {
		a.log.Warn("that set-up is done is not recorded", "err", err)
	}
}

// setupOver ends the set-up link when the first admin came in by another way.
func (a *Accounts) setupOver(ctx context.Context, role string) error {
	a.mu.RLock()
	over := a.setup.done || role != Admin
	a.mu.RUnlock()
	if over {
		return nil
	}
	if err := a.store.SetSetting(ctx, settingSetupDone, a.now().UTC().Format(time.RFC3339)); err != nil {
		return fmt.Errorf("record that set-up is done: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setup.done = true
	return nil
}
