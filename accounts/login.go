package accounts

import (
	"context"

	"muster"
	"muster/audit"
)

// PasswordLogin is what a person types to sign in. Code is the six digits of his second
// factor, or one of his recovery codes; empty when he was not asked for it yet.
type PasswordLogin struct {
	Email, Password, Code string
	Client
}

// NeedCodeError says that the password is right and a second factor is needed. Its kind
// is Unauthorized.
type NeedCodeError struct{}

func (e *NeedCodeError) Error() string { return "a code of the second factor is needed" }

// Unwrap gives the error its kind.
func (e *NeedCodeError) Unwrap() error { return muster.Errorf(muster.Unauthorized, "%s", e.Error()) }

// SignInPassword makes a session for a user. Whoever cannot come in gets one answer,
// Unauthorized, after the same work: unknown, disabled, without a password, with a wrong
// one or a wrong code. NeedCodeError when the password is right and the second factor is
// missing; a WaitError after too many tries for this e-mail or from this network (see mayTry), or when
// too many passwords are being checked.
func (a *Accounts) SignInPassword(ctx context.Context, in PasswordLogin) (cookie string, s Session, err error) {
	if err := a.mayTry(in.Email, in.Client); err != nil {
		return "", Session{}, err
	}
	r, known := a.byEmail(canonical(in.Email))
	stored := r.Password
	if !known || r.Disabled {
		stored = ""
	}
	ok, stale, err := a.hasher.verify(ctx, stored, in.Password)
	if err != nil {
		return "", Session{}, err
	}
	if !ok {
		return "", Session{}, errLogin()
	}
	var rehashed string
	if stale {
		if rehashed, err = a.hasher.hash(ctx, in.Password); err != nil {
			return "", Session{}, err
		}
	}
	err = a.change(ctx, func(ctx context.Context) error {
		cookie, s, err = a.signInUser(ctx, r, rehashed, in)
		return err
	})
	if err != nil {
		return "", Session{}, err
	}
	a.tries.reset(tryKey(in.Email, in.Client))
	return cookie, s, nil
}

// signInUser is called in turn, for the user whose password was right a moment ago.
func (a *Accounts) signInUser(ctx context.Context, seen UserRecord, rehashed string, in PasswordLogin) (string, Session, error) {
	r, err := a.record(seen.ID)
	if err != nil || r.Disabled || r.Password != seen.Password {
		return "", Session{}, errLogin()
	}
	if r.TOTP != "" {
		if r, err = a.useCode(r, in.Code); err != nil {
			return "", Session{}, err
		}
	}
	if rehashed != "" {
		r.Password = rehashed
	}
	return a.enter(ctx, r, in.Client, Batch{})
}

// enter is called in turn. It makes a session for the user r and writes him as he is
// with it, and the changes of b that notes are about.
func (a *Accounts) enter(ctx context.Context, r UserRecord, from Client, b Batch, notes ...note) (string, Session, error) {
	r.LastLogin = muster.MicrosOf(a.now())
	r.Networks = seenAt(r.Networks, network(from.Address), r.LastLogin)
	b.Users = append(b.Users, r)
	cookie, s, err := a.newSession(ctx, Session{Role: r.Role, User: r.ID}, from, b, notes...)
	if err != nil {
		return "", Session{}, err
	}
	a.setupOver(r.Role)
	return cookie, s, nil
}

func errLogin() error {
	return muster.Errorf(muster.Unauthorized, "the e-mail address, the password or the code is wrong")
}

// FirstAdmin makes the person who followed the set-up link an admin user: the session p,
// which was nobody's, becomes his. Forbidden when p is no such session, Conflict when it
// is somebody's already or the e-mail is taken, Invalid when a rule is broken.
func (a *Accounts) FirstAdmin(ctx context.Context, p Principal, name, email, password string) (User, error) {
	if password == "" {
		return User{}, CheckPassword(password, email, name)
	}
	r, err := a.newRecord(ctx, NewUser{Email: email, Name: name, Role: Admin, Password: password})
	if err != nil {
		return User{}, err
	}
	err = a.change(ctx, func(ctx context.Context) error {
		a.mu.RLock()
		s, ok := a.sessionByID(p.ID)
		a.mu.RUnlock()
		switch {
		case !ok || s.Key != "" || s.Role != Admin:
			return muster.Errorf(muster.Forbidden, "only who followed the set-up link can become the first admin")
		case s.User != "":
			return muster.Errorf(muster.Conflict, "this session is a user's already")
		}
		if err := a.roomFor(r.Email); err != nil {
			return err
		}
		s.User, r.LastLogin = r.ID, muster.MicrosOf(a.now())
		audit.Note(ctx, "user.create", "users/"+r.ID, nil, viewOfUser(r))
		return a.commit(ctx, Batch{Users: []UserRecord{r}, Sessions: []Session{s}})
	})
	if err != nil {
		return User{}, err
	}
	return a.User(r.ID)
}

// EnsureAdminUser makes the admin that MUSTER_ADMIN_EMAIL and MUSTER_ADMIN_PASSWORD
// name, with his e-mail taken as confirmed. It changes nothing when there is a user of
// this e-mail, or another admin who can come in: what was changed since the first start
// stays. Invalid when a rule is broken.
func (a *Accounts) EnsureAdminUser(ctx context.Context, email, password string) error {
	email, err := CheckEmail(email)
	if err != nil {
		return err
	}
	if err := CheckPassword(password, email, ""); err != nil {
		return err
	}
	_, there := a.byEmail(email)
	a.mu.RLock()
	admins := a.usableAdmins("")
	a.mu.RUnlock()
	if there || admins > 0 {
		return nil
	}
	r, err := a.newRecord(ctx, NewUser{Email: email, Role: Admin, Password: password})
	if err != nil {
		return err
	}
	r.Confirmed = true
	return a.change(ctx, func(ctx context.Context) error { return a.insertUser(ctx, r, "user.create") })
}
