package accounts

import (
	"context"
	"crypto/rand"

	"muster"
	"muster/audit"
)

// ResetLink makes for an admin a link by which the user sets a new password within an
// hour; it is mailed to him too when there is a mailer. The one before is void. His
// password, sessions and second factor stay until he follows it. Forbidden for who lacks
// the scope admin; NotFound; Conflict for a disabled user, and for one who has no password
// because he comes in by a provider.
func (a *Accounts) ResetLink(ctx context.Context, by Principal, id string) (link string, expires muster.Micros, err error) {
	if !by.Allows(Admin) {
		return "", 0, muster.Errorf(muster.Forbidden, "only admins reset the passwords of others")
	}
	err = a.change(ctx, func(ctx context.Context) error {
		r, err := a.record(id)
		if err != nil {
			return err
		}
		a.mu.RLock()
		external := a.linked[id] > 0
		a.mu.RUnlock()
		switch {
		case r.Disabled:
			return muster.Errorf(muster.Conflict, "this user is disabled: enable him first")
		case r.Password == "" && external:
			return muster.Errorf(muster.Conflict, "this user has no password: he signs in at the provider")
		}
		var b Batch
		token := a.addToken(&b, tokenReset, id, r.Email, resetTime)
		audit.Note(ctx, "user.reset_link", "users/"+id, nil, nil)
		if err := a.commit(ctx, b); err != nil {
			return err
		}
		link, expires = a.cfg.link(PathReset, token), b.Tokens[0].Expires
		a.mail(resetMail(r.Email, link))
		return nil
	})
	return link, expires, err
}

// Rescued is what Rescue did.
type Rescued struct {
	User    User
	Made    bool   // there was no user of this e-mail
	Link    string // sets a password, once
	Expires muster.Micros
}

// Rescue makes the user of this e-mail an admin who is not disabled, makes him when he is
// not there, ends his sessions and open links, and returns a link by which he sets a new
// password within an hour; with dropSecondFactor no code is asked of him from now on. It
// asks nobody whether that may be: it is for who holds the data directory, with no server running, and
// no request leads to it. Invalid when email is no address; Conflict when there are
// MaxUsers.
func (a *Accounts) Rescue(ctx context.Context, email string, dropSecondFactor bool) (out Rescued, err error) {
	if email, err = CheckEmail(email); err != nil {
		return Rescued{}, err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		r, known := a.byEmail(email)
		before := any(viewOfUser(r))
		if !known {
			if err := a.roomFor(email); err != nil {
				return err
			}
			r, before = UserRecord{ID: userPrefix + rand.Text(), Email: email, Created: muster.MicrosOf(a.now())}, nil
		}
		r.Role, r.Disabled = Admin, false
		if dropSecondFactor {
			r.TOTP, r.TOTPStep, r.Recovery = "", 0, nil
		}
		b := Batch{DropTokens: []TokensOf{{User: r.ID}}, EndSessions: []SessionsOf{{User: r.ID}}, Users: []UserRecord{r}}
		token := a.addToken(&b, tokenReset, r.ID, email, resetTime)
		audit.Note(ctx, "user.rescue", "users/"+r.ID, before, viewOfUser(r))
		if err := a.commit(ctx, b); err != nil {
			return err
		}
		out = Rescued{Made: !known, Link: a.cfg.link(PathReset, token), Expires: b.Tokens[0].Expires}
		out.User, err = a.User(r.ID)
		return err
	})
	return out, err
}
