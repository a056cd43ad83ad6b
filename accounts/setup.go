package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"

	"muster"
)

// settingSetupUsed is the setting with the hash of the token that was used last, so that a second click is told so.
const settingSetupUsed = "setup.used"

// setupState is about the one-time link. open is the hash of the token that is
// good now, nil when there is none. Tokens live as long as the process, so the
// next start makes a new one by itself.
type setupState struct {
	done bool // the link of this start was used, or an admin came in by another way
	open []byte
	used []byte
}

func (a *Accounts) loadSetup(ctx context.Context) (setupState, error) {
	used, err := a.store.Setting(ctx, settingSetupUsed)
	if err != nil {
		return setupState{}, fmt.Errorf("load settings: %w", err)
	}
	hash, err := hex.DecodeString(used)
	if err != nil {
		return setupState{}, fmt.Errorf("setting %s: %w", settingSetupUsed, err)
	}
	return setupState{used: hash}, nil
}

// SetupToken returns a new token for the one-time set-up link, which makes the
// one before it worthless, or an empty one when there is an admin user who can come
// in, or when an admin has signed in since the start: a link that was opened and led to
// no admin is made again at the next start. The key that the environment gives is for
// programs, and takes no person's way in.
// Only its hash is kept.
func (a *Accounts) SetupToken(ctx context.Context) (token string, err error) {
	err = a.change(ctx, func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.setup.done || a.usableAdmins("") > 0 {
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
// until FirstAdmin; one that an earlier link made, and is still nobody's, ends. It works once:
// of several at the same time one wins, the others and all later ones get
// Conflict. A token that is not the newest is NotFound.
func (a *Accounts) RedeemSetupFrom(ctx context.Context, token string, from Client) (cookie string, s Session, err error) {
	hash := sha256.Sum256([]byte(token))
	err = a.change(ctx, func(ctx context.Context) error {
		if err := a.checkSetup(hash[:]); err != nil {
			return err
		}
		if err := a.endUnclaimed(ctx); err != nil {
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

// endUnclaimed is called in turn. It ends the sessions that earlier links made.
func (a *Accounts) endUnclaimed(ctx context.Context) error {
	var unclaimed []Session
	a.mu.RLock()
	for _, s := range a.sessions {
		if s.User == "" && s.Key == "" {
			unclaimed = append(unclaimed, s.Session)
		}
	}
	a.mu.RUnlock()
	for _, s := range unclaimed {
		if err := a.endSession(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// setupRedeemed closes the link.
func (a *Accounts) setupRedeemed(ctx context.Context, hash []byte) {
	a.mu.Lock()
	a.setup = setupState{done: true, used: hash}
	a.mu.Unlock()
	if err := a.store.SetSetting(ctx, settingSetupUsed, hex.EncodeToString(hash)); err != nil {
		a.log.Warn("that the set-up link was used is not recorded", "err", err)
	}
}

// setupOver ends the set-up link when an admin came in by another way.
func (a *Accounts) setupOver(role string) {
	if role != Admin {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setup.done = true
}
