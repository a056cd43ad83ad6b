package accounts

import (
	"context"
	"fmt"

	"muster"
	"muster/audit"
)

// RequestConfirm mails the user a link that confirms his e-mail within 24 h. Conflict
// when it is confirmed, Unavailable without a mailer, a WaitError when asked too often.
func (a *Accounts) RequestConfirm(ctx context.Context, user string) error {
	if err := a.needMailer(); err != nil {
		return err
	}
	r, err := a.record(user)
	if err != nil {
		return err
	}
	if r.Confirmed {
		return muster.Errorf(muster.Conflict, "the e-mail address is confirmed already")
	}
	if err := a.mails.take(a.now(), r.Email, mailRate()); err != nil {
		return err
	}
	var token string
	err = a.change(ctx, func(ctx context.Context) error {
		if r, err = a.record(user); err != nil {
			return err
		}
		var b Batch
		token = a.addToken(&b, tokenConfirm, user, r.Email, confirmTime)
		return a.commit(ctx, b)
	})
	if err != nil {
		return err
	}
	a.mail(confirmMail(r.Email, a.cfg.link(PathConfirm, token)))
	return nil
}

// ConfirmEmail confirms the address that the link was mailed to, and makes it the
// user's when it is another. NotFound when the link is void, Conflict when somebody else
// has the address meanwhile.
func (a *Accounts) ConfirmEmail(ctx context.Context, token string) error {
	return a.change(ctx, func(ctx context.Context) error {
		t, old, err := a.redeem(token, tokenConfirm, tokenEmail)
		if err != nil {
			return err
		}
		r := old
		r.Confirmed = true
		b := Batch{DropTokens: []TokensOf{{User: r.ID, Kind: t.Kind}}}
		action := "user.confirm"
		if t.Kind == tokenEmail {
			if u, taken := a.byEmail(t.Email); taken && u.ID != r.ID {
				return muster.Errorf(muster.Conflict, "there is a user with this e-mail address already")
			}
			r.Email, action = t.Email, "user.email"
			b.DropTokens = []TokensOf{{User: r.ID}} // those mailed to the other address
		}
		b.Users = []UserRecord{r}
		audit.Note(ctx, action, "users/"+r.ID, viewOfUser(old), viewOfUser(r))
		return a.commit(ctx, b)
	})
}

// ForgotPassword mails a link that sets a new password within an hour to the user of
// this e-mail, if there is one who is enabled and comes in by password. It answers nil
// all the same and in the same time: who is looked for, and the mail written, by RunMail.
// When it was asked too often for this e-mail, known or not, no further mail is sent; a
// WaitError when it was from this network.
func (a *Accounts) ForgotPassword(_ context.Context, email string, from Client) error {
	now := a.now()
	if err := a.networks.take(now, network(from.Address), addressRate()); err != nil {
		return err
	}
	if a.mails.take(now, typed(email), mailRate()) != nil {
		return nil //nolint:nilerr // enough are on their way: who asked is told nothing, and need not ask again
	}
	email = canonical(email)
	if len(email) > MaxEmail {
		return nil // nobody has it, and it is not kept
	}
	a.later(func(ctx context.Context) (m Mail, ok bool, err error) {
		err = a.change(ctx, func(ctx context.Context) error {
			r, known := a.byEmail(email)
			a.mu.RLock()
			external := a.linked[r.ID] > 0
			a.mu.RUnlock()
			if !known || r.Disabled || r.Password == "" && external {
				return nil
			}
			var b Batch
			token := a.addToken(&b, tokenReset, r.ID, r.Email, resetTime)
			m, ok = resetMail(r.Email, a.cfg.link(PathReset, token)), true
			return a.commit(ctx, b)
		})
		return m, ok, err
	})
	return nil
}

// ResetPassword sets a new password by the link that ForgotPassword mailed, and ends
// all sessions of the user. The e-mail is confirmed by it: nobody else has the link.
// NotFound when the link is void; Invalid when a rule is broken, which leaves the link as
// it is; a WaitError after too many tries from one network.
func (a *Accounts) ResetPassword(ctx context.Context, token, password string, from Client) error {
	if err := a.networks.take(a.now(), network(from.Address), addressRate()); err != nil {
		return err
	}
	_, r, err := a.redeem(token, tokenReset)
	if err != nil {
		return err
	}
	hash, err := a.checkedHash(ctx, password, r.Email, r.Name)
	if err != nil {
		return err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		_, old, err := a.redeem(token, tokenReset) // again: of several one wins
		if err != nil {
			return err
		}
		r = old
		r.Password, r.Confirmed = hash, true
		audit.Note(ctx, "user.reset", "users/"+r.ID, viewOfUser(old), viewOfUser(r))
		return a.commit(ctx, Batch{
			DropTokens: []TokensOf{{User: r.ID}}, EndSessions: []SessionsOf{{User: r.ID}}, Users: []UserRecord{r},
		})
	})
	if err != nil {
		return err
	}
	a.tries.reset(tryKey(r.Email, from))
	a.everywhere.reset(typed(r.Email))
	a.mail(changedMail(r.Email))
	return nil
}

// ChangePassword sets another password for the user whose session p is, and ends his
// other sessions. Forbidden when old is wrong or p is no user's session; Conflict when
// he has no password; Invalid when new breaks a rule; a WaitError after too many tries.
func (a *Accounts) ChangePassword(ctx context.Context, p Principal, old, password string) error {
	r, err := a.own(p)
	if err != nil {
		return err
	}
	if err := CheckPassword(password, r.Email, r.Name); err != nil {
		return err
	}
	if err := a.ask(ctx, r, old); err != nil {
		return err
	}
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		now, err := a.unchanged(r)
		if err != nil {
			return err
		}
		now.Password = hash
		audit.Note(ctx, "user.password", "users/"+r.ID, nil, nil)
		return a.commit(ctx, Batch{
			DropTokens:  []TokensOf{{User: r.ID, Kind: tokenReset}},
			EndSessions: []SessionsOf{{User: r.ID, Except: p.ID}},
			Users:       []UserRecord{now},
		})
	})
	if err != nil {
		return err
	}
	a.mail(changedMail(r.Email))
	return nil
}

// ChangeEmail mails a link to another address, which becomes the user's when he follows
// it within 24 h; the address that he has is told. It answers nil also when somebody else
// has the address, and nothing is mailed then. Forbidden when the password is wrong or
// p is no user's session; Conflict when he has no password; Unavailable without a mailer.
func (a *Accounts) ChangeEmail(ctx context.Context, p Principal, password, email string) error {
	if err := a.needMailer(); err != nil {
		return err
	}
	r, err := a.own(p)
	if err != nil {
		return err
	}
	if email, err = CheckEmail(email); err != nil {
		return err
	}
	if err := a.ask(ctx, r, password); err != nil {
		return err
	}
	if err := a.mails.take(a.now(), email, mailRate()); err != nil {
		return err
	}
	a.later(func(ctx context.Context) (m Mail, ok bool, err error) {
		err = a.change(ctx, func(ctx context.Context) error {
			if _, taken := a.byEmail(email); taken {
				return nil
			}
			if _, err := a.unchanged(r); err != nil {
				return nil //nolint:nilerr // what he was when he asked is no more
			}
			var b Batch
			token := a.addToken(&b, tokenEmail, r.ID, email, confirmTime)
			m, ok = confirmMail(email, a.cfg.link(PathConfirm, token)), true
			return a.commit(ctx, b)
		})
		return m, ok, err
	})
	a.mail(movingMail(r.Email))
	return nil
}

// own returns the user whose session p is.
func (a *Accounts) own(p Principal) (UserRecord, error) {
	if p.User == "" {
		return UserRecord{}, muster.Errorf(muster.Forbidden, "only a signed-in user can change his own account")
	}
	return a.record(p.User)
}

// ask has a user who is signed in show again that he knows his password.
func (a *Accounts) ask(ctx context.Context, r UserRecord, password string) error {
	if r.Password == "" {
		return muster.Errorf(muster.Conflict, "this account has no password: set one by the link for forgotten passwords, or change it at the provider")
	}
	if err := a.tries.take(a.now(), r.ID, accountRate()); err != nil {
		return err
	}
	ok, _, err := a.hasher.verify(ctx, r.Password, password)
	if err != nil {
		return fmt.Errorf("check the password: %w", err)
	}
	if !ok {
		return muster.Errorf(muster.Forbidden, "the password is wrong")
	}
	a.tries.reset(r.ID)
	return nil
}

// unchanged returns the user as he is now, Conflict when his password, e-mail or right to
// come in are others than in r. It is called in turn.
func (a *Accounts) unchanged(r UserRecord) (UserRecord, error) {
	now, err := a.record(r.ID)
	if err != nil {
		return now, err
	}
	if now.Password != r.Password || now.Email != r.Email || now.Disabled {
		return now, muster.Errorf(muster.Conflict, "the account was changed meanwhile: try again")
	}
	return now, nil
}
