package accounts

import (
	"context"
	"crypto/rand"

	"muster"
	"muster/audit"
)

// Invite makes a user without a password and returns the link by which he gets one
// within 7 days; it is mailed too when there is a mailer. For who was invited and has
// not come yet it makes a new link, and the older one is void. A user who is here is a
// Conflict; who lacks the scope admin is Forbidden to invite.
func (a *Accounts) Invite(ctx context.Context, by Principal, email, role string) (u User, link string, err error) {
	if !by.Allows(Admin) {
		return User{}, "", muster.Errorf(muster.Forbidden, "only admins invite")
	}
	if email, err = CheckEmail(email); err != nil {
		return User{}, "", err
	}
	if err := checkRole(role); err != nil {
		return User{}, "", err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		u, link, err = a.invite(ctx, by, email, role)
		return err
	})
	return u, link, err
}

// invite is called in turn.
func (a *Accounts) invite(ctx context.Context, by Principal, email, role string) (User, string, error) {
	old, known := a.byEmail(email)
	r := old
	if !known {
		if err := a.roomFor(email); err != nil {
			return User{}, "", err
		}
		r = UserRecord{ID: userPrefix + rand.Text(), Email: email, Created: muster.MicrosOf(a.now())}
	}
	a.mu.RLock()
	here := r.Password != "" || a.linked[r.ID] > 0 || r.Disabled
	a.mu.RUnlock()
	if here {
		return User{}, "", muster.Errorf(muster.Conflict, "there is a user with this e-mail address already")
	}
	r.Role = role
	b := Batch{Users: []UserRecord{r}}
	token := a.addToken(&b, tokenInvite, r.ID, email, inviteTime)
	if known {
		audit.Note(ctx, "user.invite", "users/"+r.ID, viewOfUser(old), viewOfUser(r))
	} else {
		audit.Note(ctx, "user.invite", "users/"+r.ID, nil, viewOfUser(r))
	}
	if err := a.commit(ctx, b); err != nil {
		return User{}, "", err
	}
	link := a.cfg.link(PathInvite, token)
	a.mail(inviteMail(email, by.Name, link))
	u, err := a.User(r.ID)
	return u, link, err
}

// AcceptInvite gives who was invited a name and a password, and signs him in. A link
// that is void is NotFound; a broken rule is Invalid and leaves the link as it is; too
// many tries from one network are a WaitError.
func (a *Accounts) AcceptInvite(ctx context.Context, token, name, password string, from Client) (cookie string, s Session, err error) {
	if err := a.networks.take(a.now(), network(from.Address), addressRate()); err != nil {
		return "", Session{}, err
	}
	_, r, err := a.redeem(token, tokenInvite)
	if err != nil {
		return "", Session{}, err
	}
	if err := CheckUserName(name); err != nil {
		return "", Session{}, err
	}
	hash, err := a.checkedHash(ctx, password, r.Email, name)
	if err != nil {
		return "", Session{}, err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		_, r, err := a.redeem(token, tokenInvite) // again: of several one wins
		if err != nil {
			return err
		}
		old := r
		r.Name, r.Password, r.Confirmed = name, hash, true
		n := note{"user.accept", "users/" + r.ID, viewOfUser(old), viewOfUser(r)}
		cookie, s, err = a.enter(ctx, r, from, Batch{DropTokens: []TokensOf{{User: r.ID}}}, n)
		return err
	})
	if err != nil {
		return "", Session{}, err
	}
	return cookie, s, nil
}

// checkedHash hashes a password that keeps the rules.
func (a *Accounts) checkedHash(ctx context.Context, password, email, name string) (string, error) {
	if err := CheckPassword(password, email, name); err != nil {
		return "", err
	}
	return a.hasher.hash(ctx, password)
}
