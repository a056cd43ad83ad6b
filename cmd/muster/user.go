package main

import (
	"context"
	"math"
	"strings"

	"muster"
	"muster/client"
)

// userCmd is muster user.
type userCmd struct {
	List              userList              `cmd:"" help:"List users."`
	Show              userShow              `cmd:"" help:"Show a user."`
	Invite            userInvite            `cmd:"" help:"Invite a user and print the link by which he comes in within 7 days, this once; it is mailed too when the server has --smtp."`
	Create            userCreate            `cmd:"" help:"Make a user with a password."`
	Role              userRole              `cmd:"" help:"Give a user another role, at once."`
	Disable           userDisable           `cmd:"" help:"Let a user in no more, end his sessions, refuse the API keys he owns."`
	Enable            userEnable            `cmd:"" help:"Let a disabled user in again."`
	Delete            userDelete            `cmd:"" help:"Delete a user with his sessions and the API keys he owns."`
	Reset             userReset             `cmd:"" help:"Print a link by which a user sets a new password within an hour; it is mailed too when the server has --smtp."`
	ClearSecondFactor userClearSecondFactor `cmd:"" help:"Remove a user's second factor, when the device with it is lost."`
	Sessions          sessionsCmd           `cmd:"" help:"List and revoke sessions."`
	Rescue            userRescue            `cmd:"" help:"On the machine of a stopped server whose admins are locked out: make a user an admin and print a link that sets his password."`
}

// named is the part of a verb that names a user.
type named struct {
	User string `arg:"" help:"E-mail or id of the user."`
}

// find returns the user by id or e-mail.
func (n *named) find(ctx context.Context, r *remote, api *client.Client) (*client.User, error) {
	if !strings.Contains(n.User, "@") {
		u, err := api.GetUser(ctx, n.User)
		if err != nil {
			return nil, r.refused(err)
		}
		return u, nil
	}
	users, err := allUsers(ctx, api)
	if err != nil {
		return nil, r.refused(err)
	}
	for i := range users {
		if e := users[i].Email; e != nil && strings.EqualFold(*e, strings.TrimSpace(n.User)) {
			return &users[i], nil
		}
	}
	return nil, muster.Errorf(muster.NotFound, "there is no user %s", n.User)
}

// allUsers reads the list page by page: a server has at most 10,000.
func allUsers(ctx context.Context, api *client.Client) ([]client.User, error) {
	var q client.ListUsersParams
	return pages(math.MaxInt64, func(limit int64, cursor string) ([]client.User, *string, error) {
		q.Limit, q.Cursor = limit, cursor
		page, err := api.ListUsers(ctx, &q)
		if err != nil {
			return nil, nil, err
		}
		return page.Items, page.Next, nil
	})
}

type userList struct {
	remote
}

// Run lists users, oldest first.
func (u *userList) Run(ctx context.Context, c *console) error {
	api, err := u.open()
	if err != nil {
		return err
	}
	users, err := allUsers(ctx, api)
	if err != nil {
		return u.refused(err)
	}
	return u.print(c, users, func(row func(...any)) {
		row("ID", "E-MAIL", "NAME", "ROLE", "STATE", "LAST LOGIN")
		for i := range users {
			row(users[i].ID, users[i].Email, users[i].Name, users[i].Role, userState(&users[i]), users[i].LastLoginAt)
		}
	})
}

// userState says in a word whether the user can come in.
func userState(u *client.User) string {
	is := func(b *bool) bool { return b != nil && *b }
	switch {
	case is(u.Disabled):
		return "disabled"
	case !is(u.HasPassword) && !is(u.External):
		return "invited"
	default:
		return "active"
	}
}

// user opens the API and finds the user that n names.
func (r *remote) user(ctx context.Context, n *named) (*client.Client, *client.User, error) {
	api, err := r.open()
	if err != nil {
		return nil, nil, err
	}
	x, err := n.find(ctx, r, api)
	return api, x, err
}

type userShow struct {
	remote
	named
}

// Run shows a user.
func (u *userShow) Run(ctx context.Context, c *console) error {
	_, x, err := u.user(ctx, &u.named)
	if err != nil {
		return err
	}
	return u.show(c, x)
}

func (r *remote) show(c *console, x *client.User) error {
	yes := func(b *bool) string {
		if b != nil && *b {
			return "yes"
		}
		return "no"
	}
	return r.print(c, x, func(row func(...any)) {
		row("ID", x.ID)
		row("E-MAIL", x.Email)
		row("NAME", x.Name)
		row("ROLE", x.Role)
		row("STATE", userState(x))
		row("CONFIRMED", yes(x.Confirmed))
		row("PASSWORD", yes(x.HasPassword))
		row("SECOND FACTOR", yes(x.SecondFactor))
		row("EXTERNAL", yes(x.External))
		row("CREATED", x.CreatedAt)
		row("LAST LOGIN", x.LastLoginAt)
	})
}

// newcomer is what verbs that make users have in common.
type newcomer struct {
	Email string `arg:"" help:"E-mail address."`
	Role  string `enum:"viewer,operator,admin" default:"viewer" help:"viewer, operator or admin."`
}

type userInvite struct {
	remote
	newcomer
}

// Run invites a user. The link alone goes to standard output, so that a script can take it.
func (u *userInvite) Run(ctx context.Context, c *console) error {
	api, err := u.open()
	if err != nil {
		return err
	}
	made, err := api.CreateUser(ctx, &client.NewUser{Email: u.Email, Role: u.Role}, nil)
	if err != nil {
		return u.refused(err)
	}
	return u.print(c, made, func(row func(...any)) { row(made.Invitation) })
}

type userCreate struct {
	remote
	newcomer
	Name     string `help:"For people."`
	Password string `required:"" help:"10 to 128 characters; better given as MUSTER_PASSWORD, which no list of processes shows. Without one, invite." placeholder:"PASSWORD"`
}

// Run makes a user.
func (u *userCreate) Run(ctx context.Context, c *console) error {
	if u.Password == "" { // an empty MUSTER_PASSWORD
		return muster.Errorf(muster.Invalid, "give a password by --password or MUSTER_PASSWORD, or invite the user")
	}
	api, err := u.open()
	if err != nil {
		return err
	}
	made, err := api.CreateUser(ctx, &client.NewUser{Email: u.Email, Role: u.Role, Name: given(u.Name), Password: &u.Password}, nil)
	if err != nil {
		return u.refused(err)
	}
	return u.print(c, made, func(row func(...any)) { row("ID", made.User.ID) })
}

// change finds the user and changes him as he was found.
func (r *remote) change(ctx context.Context, c *console, n *named, to *client.ChangedUser, word string) error {
	api, x, err := r.user(ctx, n)
	if err != nil {
		return err
	}
	now, err := api.ChangeUser(ctx, x.ID, to, nil)
	if err != nil {
		return r.refused(err)
	}
	if r.JSON {
		return r.show(c, now)
	}
	return r.done(c, nil, word+" "+shown(now.Email))
}

type userRole struct {
	remote
	named
	Role string `arg:"" enum:"viewer,operator,admin" help:"viewer, operator or admin."`
}

// Run gives a user another role.
func (u *userRole) Run(ctx context.Context, c *console) error {
	return u.change(ctx, c, &u.named, &client.ChangedUser{Role: &u.Role}, u.Role+" is")
}

type userDisable struct {
	remote
	named
}

// Run disables a user.
func (u *userDisable) Run(ctx context.Context, c *console) error {
	yes := true
	return u.change(ctx, c, &u.named, &client.ChangedUser{Disabled: &yes}, "disabled")
}

type userEnable struct {
	remote
	named
}

// Run enables a user.
func (u *userEnable) Run(ctx context.Context, c *console) error {
	no := false
	return u.change(ctx, c, &u.named, &client.ChangedUser{Disabled: &no}, "enabled")
}

type userDelete struct {
	remote
	named
}

// Run deletes a user.
func (u *userDelete) Run(ctx context.Context, c *console) error {
	api, x, err := u.user(ctx, &u.named)
	if err != nil {
		return err
	}
	return u.done(c, api.DeleteUser(ctx, x.ID, nil), "deleted "+shown(x.Email))
}

type userReset struct {
	remote
	named
}

// Run makes a link. It alone goes to standard output, so that a script can take it.
func (u *userReset) Run(ctx context.Context, c *console) error {
	api, x, err := u.user(ctx, &u.named)
	if err != nil {
		return err
	}
	made, err := api.ResetUserPassword(ctx, x.ID, nil)
	if err != nil {
		return u.refused(err)
	}
	return u.print(c, made, func(row func(...any)) { row(made.Link) })
}

type userClearSecondFactor struct {
	remote
	named
}

// Run removes a second factor.
func (u *userClearSecondFactor) Run(ctx context.Context, c *console) error {
	api, x, err := u.user(ctx, &u.named)
	if err != nil {
		return err
	}
	return u.done(c, api.ClearUserTotp(ctx, x.ID, nil), "no second factor is asked of "+shown(x.Email))
}
