package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"

	"muster"
	"muster/audit"
)

// CreateUser makes a user. Without a password he is invited: the link is mailed when
// there is a mailer, and Invite returns a new one. A taken e-mail and one more than
// MaxUsers are a Conflict; a broken rule is Invalid.
func (a *Accounts) CreateUser(ctx context.Context, n NewUser) (User, error) {
	r, err := a.newRecord(ctx, n)
	if err != nil {
		return User{}, err
	}
	err = a.change(ctx, func(ctx context.Context) error { return a.insertUser(ctx, r, "user.create") })
	if err != nil {
		return User{}, err
	}
	return a.User(r.ID)
}

// newRecord checks n and hashes its password.
func (a *Accounts) newRecord(ctx context.Context, n NewUser) (r UserRecord, err error) {
	r = UserRecord{ID: userPrefix + rand.Text(), Name: n.Name, Role: n.Role, Created: muster.MicrosOf(a.now())}
	if r.Email, err = CheckEmail(n.Email); err != nil {
		return r, err
	}
	if err := CheckUserName(n.Name); err != nil {
		return r, err
	}
	if err := checkRole(n.Role); err != nil {
		return r, err
	}
	if n.Password == "" {
		return r, nil
	}
	if err := CheckPassword(n.Password, r.Email, r.Name); err != nil {
		return r, err
	}
	r.Password, err = a.hasher.hash(ctx, n.Password)
	return r, err
}

// insertUser is called in turn.
func (a *Accounts) insertUser(ctx context.Context, r UserRecord, action string) error {
	if err := a.roomFor(r.Email); err != nil {
		return err
	}
	b := Batch{Users: []UserRecord{r}}
	var token string
	if r.Password == "" {
		token = a.addToken(&b, tokenInvite, r.ID, r.Email, inviteTime)
	}
	audit.Note(ctx, action, "users/"+r.ID, nil, viewOfUser(r))
	if err := a.commit(ctx, b); err != nil {
		return err
	}
	if r.Password == "" {
		a.mail(inviteMail(r.Email, "", a.cfg.link(PathInvite, token)))
		return nil
	}
	a.setupOver(r.Role)
	return nil
}

// roomFor says whether one more user of this e-mail may be made. It is called in turn.
func (a *Accounts) roomFor(email string) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, taken := a.emails[email]; taken {
		return muster.Errorf(muster.Conflict, "there is a user with this e-mail address already")
	}
	if n := len(a.users); n >= MaxUsers {
		return muster.Errorf(muster.Conflict, "there are %d users already: delete some first", n)
	}
	return nil
}

// Users returns every user, oldest first.
func (a *Accounts) Users() []User {
	a.mu.RLock()
	out := make([]User, 0, len(a.users))
	for _, r := range a.users {
		out = append(out, a.shown(r))
	}
	a.mu.RUnlock()
	slices.SortFunc(out, func(x, y User) int {
		return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// User returns the user id, or NotFound.
func (a *Accounts) User(id string) (User, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	r, ok := a.users[id]
	if !ok {
		return User{}, errNoUser()
	}
	return a.shown(r), nil
}

// shown is called with the lock held.
func (a *Accounts) shown(r UserRecord) User {
	return User{
		ID: r.ID, Email: r.Email, Name: r.Name, Role: r.Role, Confirmed: r.Confirmed, Disabled: r.Disabled,
		HasPassword: r.Password != "", SecondFactor: r.TOTP != "", External: a.linked[r.ID] > 0,
		Created: r.Created, LastLogin: r.LastLogin,
	}
}

func (a *Accounts) record(id string) (UserRecord, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	r, ok := a.users[id]
	if !ok {
		return r, errNoUser()
	}
	return r, nil
}

func (a *Accounts) byEmail(email string) (UserRecord, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	r, ok := a.users[a.emails[email]]
	return r, ok
}

// UpdateUser changes a user, all parts or none, at once: a session of his has the new
// role, a disabled user's sessions end, and he and the API keys he owns are refused. A
// new e-mail is not confirmed and makes his open links void. NotFound; Invalid when a
// rule is broken; Conflict when the e-mail is taken, or no admin would be left who can
// come in.
func (a *Accounts) UpdateUser(ctx context.Context, id string, c UserChange) (User, error) {
	err := a.change(ctx, func(ctx context.Context) error { return a.updateUser(ctx, id, c) })
	if err != nil {
		return User{}, err
	}
	return a.User(id)
}

// updateUser is called in turn.
func (a *Accounts) updateUser(ctx context.Context, id string, c UserChange) error {
	old, err := a.record(id)
	if err != nil {
		return err
	}
	if c.If != nil {
		now, err := a.User(id)
		if err != nil {
			return err
		}
		if err := c.If(now); err != nil {
			return err
		}
	}
	r, err := a.changed(old, c)
	if err != nil {
		return err
	}
	b := Batch{Users: []UserRecord{r}}
	if r.Email != old.Email {
		b.DropTokens = []TokensOf{{User: id}}
	}
	if r.Disabled && !old.Disabled {
		b.DropTokens = []TokensOf{{User: id}}
		b.EndSessions = []SessionsOf{{User: id}}
	}
	if r.Role != Admin || r.Disabled {
		if err := a.keepAnAdmin(id); err != nil {
			return err
		}
	}
	audit.Note(ctx, "user.update", "users/"+id, viewOfUser(old), viewOfUser(r))
	return a.commit(ctx, b)
}

// changed returns r after c.
func (a *Accounts) changed(r UserRecord, c UserChange) (UserRecord, error) {
	if c.Name != nil {
		r.Name = *c.Name
	}
	if c.Role != nil {
		r.Role = *c.Role
	}
	if c.Disabled != nil {
		r.Disabled = *c.Disabled
	}
	if err := CheckUserName(r.Name); err != nil {
		return r, err
	}
	if err := checkRole(r.Role); err != nil {
		return r, err
	}
	if c.Email == nil {
		return r, nil
	}
	email, err := CheckEmail(*c.Email)
	if err != nil || email == r.Email {
		return r, err
	}
	if _, taken := a.byEmail(email); taken {
		return r, muster.Errorf(muster.Conflict, "there is a user with this e-mail address already")
	}
	r.Email, r.Confirmed = email, false
	return r, nil
}

// DeleteUser deletes a user with his sessions, links, identities and the API keys he
// owns. NotFound; Conflict when no admin would be left who can come in.
func (a *Accounts) DeleteUser(ctx context.Context, id string) error {
	return a.change(ctx, func(ctx context.Context) error {
		r, err := a.record(id)
		if err != nil {
			return err
		}
		if err := a.keepAnAdmin(id); err != nil {
			return err
		}
		audit.Note(ctx, "user.delete", "users/"+id, viewOfUser(r), nil)
		return a.commit(ctx, Batch{DropUsers: []string{id}})
	})
}

// keepAnAdmin is a Conflict when the user id is the only admin who can come in. An API
// key does not count: nobody can sign in as a person with it, and it may be taken out
// of the environment.
func (a *Accounts) keepAnAdmin(id string) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	r := a.users[id]
	if r.Role == Admin && r.usable(a.linked[id]) && a.usableAdmins(id) == 0 {
		return muster.Errorf(muster.Conflict, "this is the last admin who can sign in: make another one first")
	}
	return nil
}

// usableAdmins counts the admins who can come in, without the user except. It is
// called with the lock held.
func (a *Accounts) usableAdmins(except string) (n int) {
	for id, r := range a.users {
		if id != except && r.Role == Admin && r.usable(a.linked[id]) {
			n++
		}
	}
	return n
}

func errNoUser() error { return muster.Errorf(muster.NotFound, "there is no such user") }
