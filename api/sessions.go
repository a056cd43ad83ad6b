package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// SessionKeeper lists and ends sessions.
type SessionKeeper interface {
	Sessions(user string) []accounts.Session
	EndSession(ctx context.Context, id string) error
	EndSessions(ctx context.Context, user, except string) error
}

// PersonSigner signs people in.
type PersonSigner interface {
	SignInPassword(ctx context.Context, in accounts.PasswordLogin) (string, accounts.Session, error)
	SignInExternal(ctx context.Context, e accounts.External, from accounts.Client) (string, accounts.Session, error)
	SendsMail() bool
}

// clientOf is where r comes from.
func clientOf(r *request) accounts.Client {
	return accounts.Client{Address: r.from(), Agent: r.UserAgent()}
}

type signIn struct {
	Body struct {
		Key      string `json:"key,omitempty" maxLength:"256" doc:"An API key, in the place of e-mail and password"`
		Email    string `json:"email,omitempty" maxLength:"320"`
		Password string `json:"password,omitempty" maxLength:"512"`
		Code     string `json:"code,omitempty" maxLength:"64" doc:"Six digits of the second factor, or a recovery code; asked for by the code second_factor_needed"`
	}
}

// session is a signed-in browser as it is shown.
type session struct {
	ID         string `json:"id"`
	User       string `json:"user,omitempty" doc:"Id of the user; absent for one made by an API key or the set-up link"`
	Name       string `json:"name,omitempty" doc:"The user's name"`
	APIKey     string `json:"api_key,omitempty" doc:"Id of the API key it was made by"`
	Role       string `json:"role" enum:"viewer,operator,admin"`
	Address    string `json:"address" doc:"Where the browser signed in from"`
	Agent      string `json:"agent" doc:"What the browser called itself"`
	Current    bool   `json:"current" doc:"It is the one that is asking"`
	CreatedAt  string `json:"created_at" format:"date-time"`
	LastSeenAt string `json:"last_seen_at" format:"date-time" doc:"To the minute"`
	ExpiresAt  string `json:"expires_at" format:"date-time" doc:"Moves on with use"`
}

// methods is how one can sign in here.
type methods struct {
	Mail     bool      `json:"mail" doc:"The server sends mail: a forgotten password can be reset"`
	Provider *provider `json:"provider,omitempty" doc:"Absent when there is no OpenID provider"`
}

type provider struct {
	Name  string `json:"name"`
	Start string `json:"start" format:"uri-reference" doc:"Where a browser goes to sign in; takes ?next=, a path here"`
}

func (a *API) sessionRoutes() {
	tags := []string{"accounts"}
	route(a, public, huma.Operation{
		OperationID: "get-sign-in-methods", Method: http.MethodGet, Path: "/session/methods", Tags: tags,
		Summary: "How one can sign in besides e-mail and password",
	}, func(context.Context, *struct{}) (*body[methods], error) {
		m := methods{Mail: a.Accounts.SendsMail()}
		if a.OIDC != nil {
			m.Provider = &provider{a.OIDC.Name(), prefix + oidcStart}
		}
		return &body[methods]{m}, nil
	})
	route(a, anyone, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/sessions", Tags: tags,
		Summary:     "List the sessions of a user, newest first",
		Description: "Users see their own, admins those of everybody.",
	}, a.listSessions)
	route(a, anyone, huma.Operation{
		OperationID: "end-session", Method: http.MethodDelete, Path: "/sessions/{session}", Tags: tags,
		Summary: "End a session; it works nowhere from then on", Errors: []int{404},
	}, a.endSession)
	route(a, anyone, huma.Operation{
		OperationID: "end-sessions", Method: http.MethodDelete, Path: "/sessions", Tags: tags,
		Summary: "End all sessions of a user but the one that is asking", Errors: []int{404},
	}, a.endSessions)
}

// signIn makes a session. It is always a new one: what cookie the browser came with does
// not matter, and the session of that one ends.
func (a *API) signIn(ctx context.Context, in *signIn) (*signedIn, error) {
	r, b := requestOf(ctx), in.Body
	if (b.Key == "") == (b.Email == "" && b.Password == "") {
		return nil, muster.At(muster.Errorf(muster.Invalid, "sign in with an API key, or with e-mail and password"), "key", "email", "password")
	}
	var cookie string
	var err error
	if b.Key != "" {
		cookie, _, err = a.Accounts.SignInFrom(ctx, b.Key, clientOf(r))
	} else {
		cookie, _, err = a.Accounts.SignInPassword(ctx, accounts.PasswordLogin{
			Email: b.Email, Password: b.Password, Code: b.Code, Client: clientOf(r),
		})
	}
	if err != nil {
		return nil, err
	}
	return a.signedIn(ctx, cookie)
}

// signedIn answers with a new session's cookie and who it is.
func (a *API) signedIn(ctx context.Context, cookie string) (*signedIn, error) {
	r := requestOf(ctx)
	p, err := a.Accounts.AuthenticateSession(cookie)
	if err != nil {
		return nil, fmt.Errorf("use the new session: %w", err)
	}
	a.endBefore(ctx, r)
	return &signedIn{*a.cookie(r.Request, cookie), a.meOf(p)}, nil
}

// endBefore ends the session that the browser had, whose cookie is replaced.
func (a *API) endBefore(ctx context.Context, r *request) {
	c, err := r.Cookie(a.cookieName(r.Request))
	if err != nil {
		return
	}
	if err := a.Accounts.SignOut(ctx, c.Value); err != nil && muster.KindOf(err) != muster.NotFound {
		a.logFault(r, fmt.Errorf("end the session before: %w", err))
	}
}

func (a *API) listSessions(ctx context.Context, in *struct {
	Paging
	User string `query:"user" maxLength:"64" doc:"The user's id, or me; admins see everybody's when it is absent"`
},
) (*body[page[session]], error) {
	who := requestOf(ctx).who
	of, err := sessionsOf(who, in.User)
	if err != nil {
		return nil, err
	}
	found, next, err := pageOf(a.Accounts.Sessions(of), in.Paging, true, func(s accounts.Session) place { return place{s.Created, s.ID} })
	if err != nil {
		return nil, err
	}
	items := make([]session, len(found))
	for i, s := range found {
		items[i] = a.sessionOf(s, who)
	}
	return list(items, next), nil
}

// sessionsOf is whose sessions who asks about: the id of a user, or everybody's when it
// is empty.
func sessionsOf(who accounts.Principal, asked string) (string, error) {
	admin := who.Allows(accounts.Admin)
	switch {
	case asked == "me" || asked == "" && !admin:
		asked = who.User
	case asked == "":
		return "", nil
	}
	if asked == "" || asked != who.User && !admin {
		return "", muster.Errorf(muster.Forbidden, "only a signed-in user has sessions, and only admins see those of others")
	}
	return asked, nil
}

func (a *API) sessionOf(s accounts.Session, who accounts.Principal) session {
	out := session{
		ID: s.ID, User: s.User, APIKey: s.Key, Role: s.Role, Address: s.Address, Agent: s.Agent, Current: s.ID == who.ID,
		CreatedAt: stamp(s.Created), LastSeenAt: stamp(s.Seen), ExpiresAt: stamp(s.Expires),
	}
	if u, err := a.Accounts.User(s.User); err == nil {
		out.Name = u.Name
	}
	return out
}

func (a *API) endSession(ctx context.Context, in *struct {
	Session string `path:"session" maxLength:"64" doc:"The session's id"`
},
) (*struct{}, error) {
	who := requestOf(ctx).who
	if !who.Allows(accounts.Admin) && in.Session != who.ID && !a.ownsSession(who, in.Session) {
		return nil, muster.Errorf(muster.NotFound, "there is no such session") // also when it is somebody else's
	}
	return nil, a.Accounts.EndSession(ctx, in.Session)
}

func (a *API) ownsSession(who accounts.Principal, id string) bool {
	if who.User == "" {
		return false
	}
	for _, s := range a.Accounts.Sessions(who.User) {
		if s.ID == id {
			return true
		}
	}
	return false
}

func (a *API) endSessions(ctx context.Context, in *struct {
	User string `query:"user" maxLength:"64" doc:"The user's id, for admins; who is asking when absent"`
},
) (*struct{}, error) {
	who := requestOf(ctx).who
	asked := in.User
	if asked == "" {
		asked = "me"
	}
	of, err := sessionsOf(who, asked)
	if err != nil {
		return nil, err
	}
	return nil, a.Accounts.EndSessions(ctx, of, who.ID)
}
