package accounts_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/accounts"
)

func TestAnAdminsResetLinkSetsAPasswordOnceWithinAnHour(t *testing.T) {
	p := newPeople(t)
	p.mailing(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	cookie, _ := p.signIn(t, "u@example.com")
	_, _, err := p.ResetLink(t.Context(), accounts.Principal{Scopes: []string{accounts.DevicesWrite}}, u.ID)
	wantKind(t, err, muster.Forbidden)
	_, _, err = p.ResetLink(t.Context(), byAdmin(), "usr_nobody")
	wantKind(t, err, muster.NotFound)
	first, _, err := p.ResetLink(t.Context(), byAdmin(), u.ID)
	must(t, err)
	link, expires, err := p.ResetLink(t.Context(), byAdmin(), u.ID)
	must(t, err)
	if expires != muster.MicrosOf(p.clock.now().Add(time.Hour)) {
		t.Errorf("the link ends at %v", expires)
	}
	token := linkIn(t, link, accounts.PathReset)
	p.mails.next(t)
	if m := p.mails.next(t); m.To != "u@example.com" || linkIn(t, m.Text, accounts.PathReset) != token {
		t.Errorf("the mail to %s has another link", m.To)
	}
	p.principal(t, cookie) // nothing has happened yet
	const next = "another good password"
	wantKind(t, p.ResetPassword(t.Context(), linkIn(t, first, accounts.PathReset), next, accounts.Client{}), muster.NotFound)
	must(t, p.ResetPassword(t.Context(), token, next, accounts.Client{}))
	wantKind(t, p.ResetPassword(t.Context(), token, next, accounts.Client{}), muster.NotFound)
	_, err = p.AuthenticateSession(cookie)
	wantKind(t, err, muster.Unauthorized)
	late, _, err := p.ResetLink(t.Context(), byAdmin(), u.ID)
	must(t, err)
	p.clock.add(time.Hour)
	wantKind(t, p.ResetPassword(t.Context(), linkIn(t, late, accounts.PathReset), next, accounts.Client{}), muster.NotFound)
	off := true
	_, err = p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Disabled: &off})
	must(t, err)
	_, _, err = p.ResetLink(t.Context(), byAdmin(), u.ID)
	wantKind(t, err, muster.Conflict)
}

func TestARescuedUserIsAnAdminWhoCanComeIn(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	p.user(t, "root@example.com", accounts.Admin)
	cookie, _ := p.signIn(t, "u@example.com")
	p.secondFactor(t, u.ID)
	off := true
	_, err := p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Disabled: &off})
	must(t, err)
	_, err = p.Rescue(t.Context(), "nobody", false)
	wantKind(t, err, muster.Invalid)
	got, err := p.Rescue(t.Context(), "U@example.com", false)
	must(t, err)
	if _, err := p.AuthenticateSession(cookie); muster.KindOf(err) != muster.Unauthorized {
		t.Errorf("a session of before is an admin's: %v", err)
	}
	if x := got.User; got.Made || x.ID != u.ID || x.Role != accounts.Admin || x.Disabled || !x.SecondFactor {
		t.Errorf("rescued %+v", got)
	}
	got, err = p.Rescue(t.Context(), "u@example.com", true)
	must(t, err)
	if got.User.SecondFactor || strings.Contains(fmt.Sprintf("%+v", p.store), linkIn(t, got.Link, accounts.PathReset)) {
		t.Errorf("rescued %+v", got)
	}
	made, err := p.Rescue(t.Context(), "new@example.com", false)
	must(t, err)
	if !made.Made || made.User.Role != accounts.Admin || made.User.HasPassword {
		t.Errorf("made %+v", made)
	}
	p.restart(t)
	for _, link := range []string{got.Link, made.Link} {
		must(t, p.ResetPassword(t.Context(), linkIn(t, link, accounts.PathReset), goodPassword, accounts.Client{}))
	}
	for _, email := range []string{"u@example.com", "new@example.com"} {
		cookie, _ := p.signIn(t, email)
		if who := p.principal(t, cookie); who.Role != accounts.Admin {
			t.Errorf("%s comes in as %s", email, who.Role)
		}
	}
}
