package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// UserReader finds users.
type UserReader interface {
	Users() []accounts.User
	User(id string) (accounts.User, error)
	May(id, scope string) bool
}

// UserWriter makes, changes and deletes users.
type UserWriter interface {
	CreateUser(ctx context.Context, n accounts.NewUser) (accounts.User, error)
	UpdateUser(ctx context.Context, id string, c accounts.UserChange) (accounts.User, error)
	DeleteUser(ctx context.Context, id string) error
}

// Inviter lets new users in, and those who forgot their password.
type Inviter interface {
	Invite(ctx context.Context, by accounts.Principal, email, role string) (accounts.User, string, error)
	AcceptInvite(ctx context.Context, token, name, password string, from accounts.Client) (string, accounts.Session, error)
	FirstAdmin(ctx context.Context, p accounts.Principal, name, email, password string) (accounts.User, error)
	ResetLink(ctx context.Context, by accounts.Principal, user string) (string, muster.Micros, error)
}

// People is what the API needs of *accounts.Accounts for users.
type People interface {
	UserReader
	UserWriter
	Inviter
	PasswordKeeper
	EmailKeeper
	SecondFactors
	SecondFactorRemover
	SessionKeeper
	PersonSigner
}

// user is a user as he is shown: who is no admin sees of others their name and role only.
type user struct {
	ID           string  `json:"id"`
	Name         string  `json:"name"`
	Role         string  `json:"role" enum:"viewer,operator,admin"`
	Email        *string `json:"email,omitempty" nullable:"false" doc:"This and what follows is shown to admins and to the user himself"`
	Confirmed    *bool   `json:"confirmed,omitempty" nullable:"false" doc:"The e-mail is known to reach the user"`
	Disabled     *bool   `json:"disabled,omitempty" nullable:"false"`
	HasPassword  *bool   `json:"has_password,omitempty" nullable:"false" doc:"False for who was invited and is not here yet, or signs in at the provider only"`
	SecondFactor *bool   `json:"second_factor,omitempty" nullable:"false" doc:"A code is asked for besides the password"`
	External     *bool   `json:"external,omitempty" nullable:"false" doc:"Has signed in by the OpenID provider"`
	CreatedAt    string  `json:"created_at,omitempty" format:"date-time"`
	LastLoginAt  *string `json:"last_login_at,omitempty" nullable:"false" format:"date-time" doc:"Absent for never"`
}

// userOf shows u; whole to admins and to u himself.
func userOf(u accounts.User, whole bool) user {
	out := user{ID: u.ID, Name: u.Name, Role: u.Role}
	if !whole {
		return out
	}
	out.Email, out.Confirmed, out.Disabled, out.HasPassword = &u.Email, &u.Confirmed, &u.Disabled, &u.HasPassword
	out.SecondFactor, out.External, out.CreatedAt = &u.SecondFactor, &u.External, stamp(u.Created)
	out.LastLoginAt = stampOrNull(u.LastLogin)
	return out
}

// userTag is the entity tag of what can be changed of u.
func userTag(u accounts.User) string {
	u.LastLogin = 0
	text, err := json.Marshal(u)
	if err != nil { // strings, bools and a number
		panic(fmt.Errorf("write a user for its tag: %w", err))
	}
	sum := sha256.Sum256(text)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:9]) + `"`
}

// UserPath is the part of an input that names a user.
type UserPath struct {
	User string `path:"user" maxLength:"64" doc:"The user's id; me for who is asking"`
}

// id is the user's id, with me resolved.
func (p UserPath) id(who accounts.Principal) string {
	if p.User == "me" {
		return who.User
	}
	return p.User
}

type newUser struct {
	Email    string `json:"email" minLength:"3" maxLength:"160" format:"email" doc:"Unique, kept in lower case"`
	Role     string `json:"role" enum:"viewer,operator,admin"`
	Name     string `json:"name,omitempty" maxLength:"200" doc:"Only with a password: who is invited gives the name himself"`
	Password string `json:"password,omitempty" maxLength:"512" doc:"10 to 128 characters; absent to invite"`
}

type changedUser struct {
	Email    *string `json:"email,omitempty" minLength:"3" maxLength:"160" nullable:"false" doc:"Is not confirmed then, and ends the user's open links"`
	Name     *string `json:"name,omitempty" maxLength:"200" nullable:"false"`
	Role     *string `json:"role,omitempty" enum:"viewer,operator,admin" nullable:"false"`
	Disabled *bool   `json:"disabled,omitempty" nullable:"false" doc:"Ends the user's sessions, and the API keys he owns are refused"`
}

type madeUser struct {
	User       user   `json:"user"`
	Invitation string `json:"invitation,omitempty" format:"uri-reference" doc:"The link by which who was invited comes in within 7 days, shown this once; it is mailed too when the server has --smtp"`
}

// Paging is the part of an input that asks for a page of a list.
type Paging struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" maxLength:"512" doc:"The cursor of the page before"`
}

// place is where a list in the order of creation stands: after the thing made at At with
// the id ID.
type place struct {
	At muster.Micros `json:"a"`
	ID string        `json:"i"`
}

// pageOf returns the page of all that p asks for, and the cursor of the next one. all is
// in the order of creation, the newest first when newest is set, and by id among equals.
func pageOf[T any](all []T, p Paging, newest bool, at func(T) place) (items []T, next string, err error) {
	if p.Cursor != "" {
		var from place
		if err := readCursor(p.Cursor, &from); err != nil {
			return nil, "", err
		}
		i, _ := slices.BinarySearchFunc(all, from, func(t T, from place) int {
			here := at(t)
			if here.At == from.At {
				if here.ID <= from.ID {
					return -1
				}
				return 1
			}
			if (here.At < from.At) != newest {
				return -1
			}
			return 1
		})
		all = all[i:]
	}
	if len(all) <= p.Limit {
		return all, "", nil
	}
	return all[:p.Limit], writeCursor(at(all[p.Limit-1])), nil
}

func (a *API) userRoutes() {
	tags := []string{"users"}
	route(a, anyone, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: "/users", Tags: tags, Summary: "List users, oldest first",
		Description: "Admins see everything; other users see names and roles; API keys need the scope admin.",
	}, a.listUsers)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "create-user", Method: http.MethodPost, Path: "/users", DefaultStatus: http.StatusCreated, Tags: tags,
		Summary:     "Invite a user, or make one with a password",
		Description: "Without a password the user is invited; for who was invited and has not come yet there is a new link, and the older one is void.",
		Errors:      []int{409},
	}, a.createUser)
	route(a, anyone, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: "/users/{user}", Tags: tags, Summary: "Get a user", Errors: []int{404},
	}, a.getUser)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "change-user", Method: http.MethodPatch, Path: "/users/{user}", Tags: tags,
		Summary:     "Change a user's e-mail, name or role, disable or enable",
		Description: "What is absent stays. A role counts at once, in sessions too. The last admin who can sign in stays one.",
		Errors:      []int{404, 409, 412},
	}, a.changeUser)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "delete-user", Method: http.MethodDelete, Path: "/users/{user}", Tags: tags,
		Summary: "Delete a user with the sessions and API keys that are his", Errors: []int{404, 409},
	}, func(ctx context.Context, in *UserPath) (*struct{}, error) {
		return nil, a.Accounts.DeleteUser(ctx, in.id(requestOf(ctx).who))
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "reset-user-password", Method: http.MethodPost, Path: "/users/{user}/reset", Tags: tags,
		Summary:     "Make a link by which a user sets a new password within an hour",
		Description: "The link before is void. The password, the sessions and the second factor stay as they are until the link is used.",
		Errors:      []int{404, 409},
	}, a.resetUser)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "clear-user-totp", Method: http.MethodDelete, Path: "/users/{user}/totp", Tags: tags,
		Summary: "Remove a user's second factor, when the device with it is lost", Errors: []int{404, 409},
	}, func(ctx context.Context, in *UserPath) (*struct{}, error) {
		return nil, a.Accounts.ClearTOTP(ctx, in.id(requestOf(ctx).who))
	})
}

// resetLink is the answer to an admin who resets a user's password.
type resetLink struct {
	Link      string `json:"link" format:"uri-reference" doc:"Where the user sets a new password, once; shown this once, and mailed too when the server has --smtp"`
	ExpiresAt string `json:"expires_at" format:"date-time"`
	Mailed    bool   `json:"mailed" doc:"A mail with the link is on its way to the user"`
}

func (a *API) resetUser(ctx context.Context, in *UserPath) (*body[resetLink], error) {
	who := requestOf(ctx).who
	link, expires, err := a.Accounts.ResetLink(ctx, who, in.id(who))
	if err != nil {
		return nil, err
	}
	return &body[resetLink]{resetLink{link, stamp(expires), a.Accounts.SendsMail()}}, nil
}

// mayLook refuses who is neither a user nor an admin: an API key has no business with people.
func mayLook(who accounts.Principal) error {
	if who.User == "" && !who.Allows(accounts.Admin) {
		return muster.Errorf(muster.Forbidden, "this needs a signed-in user or the scope admin")
	}
	return nil
}

func (a *API) listUsers(ctx context.Context, in *Paging) (*body[page[user]], error) {
	who := requestOf(ctx).who
	if err := mayLook(who); err != nil {
		return nil, err
	}
	found, next, err := pageOf(a.Accounts.Users(), *in, false, func(u accounts.User) place { return place{u.Created, u.ID} })
	if err != nil {
		return nil, err
	}
	items := make([]user, len(found))
	for i, u := range found {
		items[i] = userOf(u, who.Allows(accounts.Admin) || u.ID == who.User)
	}
	return list(items, next), nil
}

func (a *API) getUser(ctx context.Context, in *UserPath) (*tagged[user], error) {
	who := requestOf(ctx).who
	if err := mayLook(who); err != nil {
		return nil, err
	}
	u, err := a.Accounts.User(in.id(who))
	if err != nil {
		return nil, err
	}
	if !who.Allows(accounts.Admin) && u.ID != who.User {
		return &tagged[user]{Body: userOf(u, false)}, nil
	}
	return &tagged[user]{ETag: userTag(u), Body: userOf(u, true)}, nil
}

func (a *API) createUser(ctx context.Context, in *body[newUser]) (*created[madeUser], error) {
	b := in.Body
	email, err := accounts.CheckEmail(b.Email)
	if err != nil {
		return nil, faultAt("#/email", err)
	}
	if b.Password == "" && b.Name != "" {
		return nil, faultAt("#/name", muster.Errorf(muster.Invalid, "who is invited gives the name himself"))
	}
	var u accounts.User
	var link string
	if b.Password == "" {
		u, link, err = a.Accounts.Invite(ctx, requestOf(ctx).who, email, b.Role)
	} else {
		if err := accounts.CheckPassword(b.Password, email, b.Name); err != nil {
			return nil, faultAt("#/password", err)
		}
		u, err = a.Accounts.CreateUser(ctx, accounts.NewUser{Email: email, Name: b.Name, Role: b.Role, Password: b.Password})
	}
	if muster.KindOf(err) == muster.Conflict {
		return nil, faultAt("#/email", err)
	}
	if err != nil {
		return nil, err
	}
	return &created[madeUser]{prefix + "/users/" + u.ID, madeUser{userOf(u, true), link}}, nil
}

func (a *API) changeUser(ctx context.Context, in *struct {
	UserPath
	IfMatch string `header:"If-Match" maxLength:"4096" doc:"Change only the user that has one of these ETags; * for any"`
	Body    changedUser
},
) (*tagged[user], error) {
	c := accounts.UserChange{Email: in.Body.Email, Name: in.Body.Name, Role: in.Body.Role, Disabled: in.Body.Disabled}
	if c.Email != nil {
		if _, err := accounts.CheckEmail(*c.Email); err != nil {
			return nil, faultAt("#/email", err)
		}
	}
	if in.IfMatch != "" {
		c.If = func(u accounts.User) error { return matches(in.IfMatch, userTag(u)) }
	}
	u, err := a.Accounts.UpdateUser(ctx, in.id(requestOf(ctx).who), c)
	if err != nil {
		return nil, err
	}
	return &tagged[user]{ETag: userTag(u), Body: userOf(u, true)}, nil
}

// matches is Stale when tag is not in a list of entity tags, by strong comparison
// (RFC 9110, section 13.1.1). A tag may be followed by a dot and what a representation adds.
func matches(header, tag string) error {
	core := strings.Trim(tag, `"`)
	for t := range strings.SplitSeq(header, ",") {
		t = strings.TrimSpace(t)
		if t == "*" || t == tag || strings.HasPrefix(t, `"`+core+".") {
			return nil
		}
	}
	return muster.Errorf(muster.Stale, "the user was changed meanwhile: get him again")
}

// faultAt says at which field of the body the fault is that err is about, unless it is one
// of ours.
func faultAt(pointer string, err error) error {
	switch muster.KindOf(err) {
	case muster.Invalid, muster.Conflict, muster.Forbidden:
		p := newProblem(statusOf(muster.KindOf(err)), muster.Public(err))
		p.Errors = []FieldError{{Pointer: pointer, Detail: p.Detail}}
		return p
	default:
		return err
	}
}
