package accounts

import (
	"context"
	"crypto/rand"
	"unicode/utf8"

	"muster"
)

// The longest parts of an identity, in bytes. OpenID Connect Core, section 2, allows a
// subject 255.
const (
	maxIssuer  = 1024
	maxSubject = 255
)

// External is who an OpenID provider says has signed in there. The caller has checked
// the provider's word.
type External struct {
	Issuer, Subject string // together they are the identity; the e-mail is not
	Email           string
	EmailVerified   bool
	Name            string
	// Role, when not empty, is the user's role from now on. It never takes away the last
	// admin who can come in.
	Role string
}

func (e External) check() error {
	switch {
	case e.Issuer == "" || len(e.Issuer) > maxIssuer || !utf8.ValidString(e.Issuer):
		return muster.Errorf(muster.Invalid, "the provider's issuer is missing or too long")
	case e.Subject == "" || len(e.Subject) > maxSubject || !utf8.ValidString(e.Subject):
		return muster.Errorf(muster.Invalid, "the provider's subject is missing or too long")
	case e.Role != "":
		return checkRole(e.Role)
	}
	return nil
}

// SignInExternal makes a session for who signed in at an OpenID provider. An identity
// that is not known is linked to the user of its e-mail when Config.LinkByEmail is set,
// the provider has verified it, and that user has no identity of this issuer and either
// confirmed the e-mail here or never came in: who merely claimed the address does not
// get the person's sign-ins. Else a user is made when Config.CreateUsers is set.
// Forbidden, with a reason that may be shown, when neither is possible or the user is
// disabled.
func (a *Accounts) SignInExternal(ctx context.Context, e External, from Client) (cookie string, s Session, err error) {
	if err := e.check(); err != nil {
		return "", Session{}, err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		a.mu.RLock()
		i, known := a.identities[identityKey{e.Issuer, e.Subject}]
		old := a.users[i.User]
		a.mu.RUnlock()
		if known {
			cookie, s, err = a.enterExternal(ctx, old, e, from, Batch{})
			return err
		}
		cookie, s, err = a.link(ctx, e, from)
		return err
	})
	if err != nil {
		return "", Session{}, err
	}
	return cookie, s, nil
}

// enterExternal is called in turn, for a user who has or gets the identity e.
func (a *Accounts) enterExternal(ctx context.Context, old UserRecord, e External, from Client, b Batch, notes ...note) (string, Session, error) {
	if old.Disabled {
		return "", Session{}, muster.Errorf(muster.Forbidden, "this account is disabled")
	}
	r := old
	if e.Role != "" && (e.Role == Admin || a.keepAnAdmin(r.ID) == nil) {
		r.Role = e.Role
	}
	if e.EmailVerified && canonical(e.Email) == r.Email {
		r.Confirmed = true
	}
	if viewOfUser(r) != viewOfUser(old) {
		notes = append(notes, note{"user.update", "users/" + r.ID, viewOfUser(old), viewOfUser(r)})
	}
	return a.enter(ctx, r, from, b, notes...)
}

// link is called in turn, for an identity that is not known.
func (a *Accounts) link(ctx context.Context, e External, from Client) (string, Session, error) {
	email, err := CheckEmail(e.Email)
	if err != nil || !e.EmailVerified {
		return "", Session{}, muster.Errorf(muster.Forbidden, "the provider has not verified your e-mail address")
	}
	r, there := a.byEmail(email)
	var notes []note
	switch {
	case there && !a.mayLink(r, e.Issuer):
		return "", Session{}, muster.Errorf(muster.Forbidden, "there is an account with your e-mail address that is not linked to this provider: ask an admin")
	case !there && !a.cfg.CreateUsers:
		return "", Session{}, muster.Errorf(muster.Forbidden, "there is no account for you: ask an admin for an invitation")
	case !there:
		if r, err = a.externalUser(e, email); err != nil {
			return "", Session{}, err
		}
		notes = append(notes, note{"user.create", "users/" + r.ID, nil, viewOfUser(r)})
	}
	b := Batch{
		DropTokens: []TokensOf{{User: r.ID, Kind: tokenInvite}},
		Identities: []Identity{{Issuer: e.Issuer, Subject: e.Subject, User: r.ID, Created: muster.MicrosOf(a.now())}},
	}
	notes = append(notes, note{"user.link", "users/" + r.ID, nil, identityView{e.Issuer, e.Subject}})
	return a.enterExternal(ctx, r, e, from, b, notes...)
}

// mayLink is called in turn.
func (a *Accounts) mayLink(r UserRecord, issuer string) bool {
	if !a.cfg.LinkByEmail {
		return false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, i := range a.identities {
		if i.User == r.ID && i.Issuer == issuer {
			return false
		}
	}
	return r.Confirmed || r.Password == "" && a.linked[r.ID] == 0
}

// externalUser is a user for e, not yet stored.
func (a *Accounts) externalUser(e External, email string) (UserRecord, error) {
	if err := a.roomFor(email); err != nil {
		return UserRecord{}, err
	}
	r := UserRecord{
		ID: userPrefix + rand.Text(), Email: email, Role: a.cfg.DefaultRole, Confirmed: true, Created: muster.MicrosOf(a.now()),
	}
	if r.Role == "" {
		r.Role = Viewer
	}
	if e.Role != "" {
		r.Role = e.Role
	}
	if CheckUserName(e.Name) == nil {
		r.Name = e.Name
	}
	return r, nil
}
