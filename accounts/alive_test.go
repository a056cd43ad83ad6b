package accounts_test

import (
	"testing"
	"time"

	"muster/accounts"
)

func TestNobodyIsAliveWhoMayNotComeIn(t *testing.T) {
	p := newPeople(t)
	p.user(t, "root@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Viewer)
	_, s := p.signIn(t, "u@example.com")
	key := func(owner string, expires time.Time) string {
		spec := accounts.KeySpec{Name: "k", Scopes: []string{accounts.DevicesRead}, Owner: owner, Expires: expires}
		k, _, err := p.CreateKey(t.Context(), spec)
		must(t, err)
		return k.ID
	}
	free, owned, short := key("", time.Time{}), key(u.ID, time.Time{}), key("", p.clock.now().Add(time.Minute))
	want := func(when string, ids map[string]bool) {
		t.Helper()
		for id, alive := range ids {
			if p.Alive(id) != alive {
				t.Errorf("%s: %s is alive: %v", when, id, !alive)
			}
		}
	}
	want("at first", map[string]bool{u.ID: true, s.ID: true, free: true, owned: true, short: true, "": false, "usr_nobody": false, "key_nobody": false})
	p.clock.add(time.Minute)
	_, err := p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Disabled: new(true)})
	must(t, err)
	want("when he is disabled", map[string]bool{u.ID: false, s.ID: false, free: true, owned: false, short: false})
	must(t, p.DeleteKey(t.Context(), free))
	must(t, p.DeleteUser(t.Context(), u.ID))
	want("when all is deleted", map[string]bool{u.ID: false, s.ID: false, free: false, owned: false})
}

func TestWhoHasALowerRoleMayNotDoWhatItHasNot(t *testing.T) {
	p := newPeople(t)
	p.user(t, "root@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Operator)
	_, s := p.signIn(t, "u@example.com")
	k, _, err := p.CreateKey(t.Context(), accounts.KeySpec{Name: "k", Scopes: []string{accounts.DevicesRead, accounts.DevicesWrite}, Owner: u.ID})
	must(t, err)
	want := func(writes bool) {
		t.Helper()
		for _, id := range []string{u.ID, s.ID, k.ID} {
			if !p.May(id, accounts.DevicesRead) || p.May(id, accounts.DevicesWrite) != writes || !p.May(id, "") {
				t.Errorf("%s may write: %v", id, !writes)
			}
		}
	}
	want(true)
	_, err = p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Role: new(accounts.Viewer)})
	must(t, err)
	want(false)
}
