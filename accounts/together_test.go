package accounts_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/accounts"
)

func TestReadersAndChangesGoOnTogether(t *testing.T) {
	p := newPeople(t)
	p.user(t, "admin@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Operator)
	cookie, _ := p.signIn(t, "u@example.com")
	k, secret, err := p.CreateKey(t.Context(), accounts.KeySpec{Name: "k", Scopes: allReads, Owner: u.ID})
	must(t, err)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 300*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	every := func(do func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil && muster.KindOf(err) != muster.Unauthorized {
					t.Errorf("it gives %v", err)
					return
				}
			}
		})
	}
	every(func() error { _, err := p.AuthenticateSession(cookie); return err })
	every(func() error { _, err := p.Authenticate(secret); return err })
	every(func() error { _, err := p.RefreshMQTT(k.ID); return kindOnly(err, muster.Forbidden) })
	every(func() error { p.TouchKey(k.ID); _, err := p.Key(k.ID); return err })
	every(func() error { p.clock.add(time.Hour); return nil })
	every(func() error {
		for _, role := range []string{accounts.Viewer, accounts.Operator} {
			if _, err := p.UpdateUser(context.WithoutCancel(ctx), u.ID, accounts.UserChange{Role: &role}); err != nil {
				return err
			}
		}
		return nil
	})
	every(func() error {
		done, stop := context.WithCancel(context.WithoutCancel(ctx))
		stop()
		return p.Run(done) // what is stored at a stop
	})
	every(func() error {
		if len(p.Users()) != 2 || p.Stats().Keys != 1 || len(p.Keys()) != 1 {
			t.Error("something is missing")
		}
		p.Sessions("")
		return nil
	})
	wg.Wait()
	must(t, p.DeleteUser(t.Context(), u.ID))
	_, err = p.Authenticate(secret)
	wantKind(t, err, muster.Unauthorized)
}

// kindOnly is err unless it is of a kind that may come.
func kindOnly(err error, kind muster.Kind) error {
	if err != nil && muster.KindOf(err) == kind {
		return nil
	}
	return err
}
