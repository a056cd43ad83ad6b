package accounts_test

import (
	"strings"
	"testing"

	"muster"
	"muster/accounts"
)

func linking(c *accounts.Config)  { c.LinkByEmail = true }
func creating(c *accounts.Config) { c.CreateUsers = true }

func ext(email string) accounts.External {
	return accounts.External{Issuer: "https://idp.example", Subject: "42", Email: email, EmailVerified: true, Name: "Ext"}
}

func TestWhoComesFromAProvider(t *testing.T) {
	confirmed := func(p *people, t *testing.T) { // u@example.com, confirmed
		u := p.user(t, "u@example.com", accounts.Operator)
		rec := p.store.users[u.ID]
		rec.Confirmed = true
		p.store.users[u.ID] = rec
		p.restart(t)
	}
	tests := []struct {
		name   string
		config []func(*accounts.Config)
		given  func(p *people, t *testing.T)
		ext    accounts.External
		kind   muster.Kind // Internal: comes in
		role   string
	}{
		{name: "nobody is made unless allowed", ext: ext("u@example.com"), kind: muster.Forbidden},
		{name: "a user is made when allowed, as viewer", config: []func(*accounts.Config){creating}, ext: ext("u@example.com"), role: accounts.Viewer},
		{
			name: "a user is made with the configured role", config: []func(*accounts.Config){creating, func(c *accounts.Config) { c.DefaultRole = accounts.Operator }},
			ext: ext("u@example.com"), role: accounts.Operator,
		},
		{
			name: "a user is made with the provider's role", config: []func(*accounts.Config){creating},
			ext: func() accounts.External { e := ext("u@example.com"); e.Role = accounts.Admin; return e }(), role: accounts.Admin,
		},
		{
			name: "an e-mail that is not verified makes nobody", config: []func(*accounts.Config){creating, linking},
			ext: accounts.External{Issuer: "i", Subject: "s", Email: "u@example.com"}, kind: muster.Forbidden,
		},
		{name: "no e-mail makes nobody", config: []func(*accounts.Config){creating}, ext: ext(""), kind: muster.Forbidden},
		{name: "who is here is not linked unless allowed", config: []func(*accounts.Config){creating}, given: confirmed, ext: ext("u@example.com"), kind: muster.Forbidden},
		{name: "who is here is linked by a verified e-mail that he confirmed", config: []func(*accounts.Config){linking}, given: confirmed, ext: ext("U@Example.com"), role: accounts.Operator},
		{
			name: "who never confirmed the e-mail is not linked: he may have claimed another's", config: []func(*accounts.Config){linking, creating},
			given: func(p *people, t *testing.T) { p.user(t, "u@example.com", accounts.Admin) }, ext: ext("u@example.com"), kind: muster.Forbidden,
		},
		{
			name: "who was invited is linked, and his invitation is void", config: []func(*accounts.Config){linking},
			given: func(p *people, t *testing.T) {
				_, _, err := p.Invite(t.Context(), byAdmin(), "u@example.com", accounts.Operator)
				must(t, err)
			}, ext: ext("u@example.com"), role: accounts.Operator,
		},
		{
			name: "an unverified e-mail links nobody", config: []func(*accounts.Config){linking}, given: confirmed,
			ext: accounts.External{Issuer: "i", Subject: "s", Email: "u@example.com"}, kind: muster.Forbidden,
		},
		{name: "no issuer is a fault", ext: accounts.External{Subject: "s"}, kind: muster.Invalid},
		{name: "no subject is a fault", ext: accounts.External{Issuer: "i"}, kind: muster.Invalid},
		{name: "a subject over 255 bytes is a fault", ext: accounts.External{Issuer: "i", Subject: strings.Repeat("s", 256)}, kind: muster.Invalid},
		{name: "an unknown role is a fault", ext: accounts.External{Issuer: "i", Subject: "s", Role: "root"}, kind: muster.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeople(t, tt.config...)
			if tt.given != nil {
				tt.given(p, t)
			}
			cookie, s, err := p.SignInExternal(t.Context(), tt.ext, accounts.Client{Address: "192.0.2.1"})
			if tt.kind != muster.Internal {
				wantKind(t, err, tt.kind)
				if len(p.store.sessions)+len(p.store.identities) != 0 {
					t.Error("a session or an identity was made")
				}
				return
			}
			must(t, err)
			for range 2 {
				who := p.principal(t, cookie)
				u, err := p.User(s.User)
				must(t, err)
				if who.Role != tt.role || !who.Confirmed || !u.External || u.Email != "u@example.com" || len(p.Users()) != 1 {
					t.Errorf("he is %+v, %+v", who, u)
				}
				p.restart(t)
			}
			if n := len(p.store.tokens); n != 0 {
				t.Errorf("%d links are still open", n)
			}
			// Next time the identity counts, whatever the e-mail is then.
			e := tt.ext
			e.Email, e.EmailVerified, e.Role = "other@example.com", false, ""
			_, again, err := p.SignInExternal(t.Context(), e, accounts.Client{})
			must(t, err)
			if again.User != s.User {
				t.Errorf("the same identity is user %s, then %s", s.User, again.User)
			}
		})
	}
}

func TestASecondIdentityOfOneIssuerIsNotLinked(t *testing.T) {
	p := newPeople(t, linking, creating)
	_, s, err := p.SignInExternal(t.Context(), ext("u@example.com"), accounts.Client{})
	must(t, err)
	other := ext("u@example.com")
	other.Subject = "43"
	_, _, err = p.SignInExternal(t.Context(), other, accounts.Client{})
	wantKind(t, err, muster.Forbidden)
	other.Issuer = "https://second.example"
	_, again, err := p.SignInExternal(t.Context(), other, accounts.Client{})
	must(t, err)
	if again.User != s.User {
		t.Error("a second provider makes another user")
	}
}

func TestAnExternalUserHasNoPasswordAndIsDisabledAsAnyOther(t *testing.T) {
	p := newPeople(t, creating)
	p.mailing(t)
	p.user(t, "admin@example.com", accounts.Admin)
	cookie, s, err := p.SignInExternal(t.Context(), ext("u@example.com"), accounts.Client{})
	must(t, err)
	me := p.principal(t, cookie)
	wantKind(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com"}), muster.Unauthorized)
	wantKind(t, p.ChangePassword(t.Context(), me, "", goodPassword), muster.Conflict)
	_, err = p.BeginTOTP(t.Context(), s.User)
	wantKind(t, err, muster.Conflict)
	must(t, p.ForgotPassword(t.Context(), "u@example.com", accounts.Client{}))
	must(t, p.ForgotPassword(t.Context(), "admin@example.com", accounts.Client{}))
	if m := p.mails.next(t); m.To != "admin@example.com" {
		t.Error("a password by mail gets around the provider")
	}
	_, err = p.UpdateUser(t.Context(), s.User, accounts.UserChange{Disabled: new(true)})
	must(t, err)
	_, _, err = p.SignInExternal(t.Context(), ext("u@example.com"), accounts.Client{})
	wantKind(t, err, muster.Forbidden)
}

func TestTheProvidersRoleIsTheUsersButTakesNotTheLastAdmin(t *testing.T) {
	p := newPeople(t, creating)
	e := ext("u@example.com")
	e.Role = accounts.Admin
	cookie, s, err := p.SignInExternal(t.Context(), e, accounts.Client{})
	must(t, err)
	e.Role = accounts.Viewer
	_, _, err = p.SignInExternal(t.Context(), e, accounts.Client{})
	must(t, err)
	if who := p.principal(t, cookie); who.Role != accounts.Admin {
		t.Errorf("the last admin became %s", who.Role)
	}
	p.user(t, "admin@example.com", accounts.Admin)
	_, _, err = p.SignInExternal(t.Context(), e, accounts.Client{})
	must(t, err)
	if who := p.principal(t, cookie); who.Role != accounts.Viewer {
		t.Errorf("the role is %s", who.Role)
	}
	if !p.takeEnded()[s.ID] {
		t.Error("the connections of the older session are not cut")
	}
}
