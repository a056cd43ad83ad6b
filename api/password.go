package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// PasswordKeeper resets and changes passwords.
type PasswordKeeper interface {
	ForgotPassword(ctx context.Context, email string, from accounts.Client) error
	ResetPassword(ctx context.Context, token, password string, from accounts.Client) error
	ChangePassword(ctx context.Context, p accounts.Principal, old, password string) error
}

type firstAdmin struct {
	Name     string `json:"name,omitempty" maxLength:"200"`
	Email    string `json:"email" minLength:"3" maxLength:"160" format:"email"`
	Password string `json:"password" minLength:"1" maxLength:"512" doc:"10 to 128 characters, neither the e-mail nor the name"`
}

type acceptance struct {
	Token    string `json:"token" minLength:"1" maxLength:"64" doc:"The end of the link"`
	Name     string `json:"name,omitempty" maxLength:"200"`
	Password string `json:"password" minLength:"1" maxLength:"512" doc:"10 to 128 characters, neither the e-mail nor the name"`
}

type forgotten struct {
	Email string `json:"email" minLength:"1" maxLength:"320"`
}

type resetting struct {
	Token    string `json:"token" minLength:"1" maxLength:"64" doc:"The end of the link"`
	Password string `json:"password" minLength:"1" maxLength:"512" doc:"10 to 128 characters, neither the e-mail nor the name"`
}

type givenToken struct {
	Token string `json:"token" minLength:"1" maxLength:"64" doc:"The end of the link"`
}

// passwordRoutes are those that links lead to. Their tokens come in bodies only: paths
// are in histories and logs.
func (a *API) passwordRoutes() {
	tags := []string{"accounts"}
	route(a, anyone, huma.Operation{
		OperationID: "set-up", Method: http.MethodPost, Path: "/setup", DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Become the first admin, with the session of the set-up link", Errors: []int{409},
	}, a.setUp)
	route(a, public, huma.Operation{
		OperationID: "accept-invitation", Method: http.MethodPost, Path: "/invitations/accept", Tags: tags,
		Summary: "Come in by an invitation: set name and password and be signed in", Errors: []int{404},
	}, a.acceptInvitation)
	route(a, public, huma.Operation{
		OperationID: "forgot-password", Method: http.MethodPost, Path: "/password/forgot", DefaultStatus: http.StatusAccepted, Tags: tags,
		Summary: "Have a link mailed that sets a new password", Metadata: map[string]any{unaudited: true},
		Description: "The answer is the same whether or not there is such a user, and takes as long. A session is needed for nothing here.",
	}, func(ctx context.Context, in *body[forgotten]) (*struct{}, error) {
		return nil, a.Accounts.ForgotPassword(ctx, in.Body.Email, clientOf(requestOf(ctx)))
	})
	route(a, public, huma.Operation{
		OperationID: "reset-password", Method: http.MethodPost, Path: "/password/reset", DefaultStatus: http.StatusNoContent, Tags: tags,
		Summary: "Set a new password by the link; all sessions of the user end", Errors: []int{404},
	}, func(ctx context.Context, in *body[resetting]) (*struct{}, error) {
		err := a.Accounts.ResetPassword(ctx, in.Body.Token, in.Body.Password, clientOf(requestOf(ctx)))
		if muster.KindOf(err) == muster.Invalid {
			return nil, faultAt("#/password", err)
		}
		return nil, err
	})
	route(a, public, huma.Operation{
		OperationID: "confirm-email", Method: http.MethodPost, Path: "/email/confirm", DefaultStatus: http.StatusNoContent, Tags: tags,
		Summary: "Confirm an e-mail address by the link", Errors: []int{404, 409},
	}, func(ctx context.Context, in *body[givenToken]) (*struct{}, error) {
		return nil, a.Accounts.ConfirmEmail(ctx, in.Body.Token)
	})
}

func (a *API) setUp(ctx context.Context, in *body[firstAdmin]) (*created[user], error) {
	b := in.Body
	email, err := accounts.CheckEmail(b.Email)
	if err != nil {
		return nil, faultAt("#/email", err)
	}
	if err := accounts.CheckPassword(b.Password, email, b.Name); err != nil {
		return nil, faultAt("#/password", err)
	}
	u, err := a.Accounts.FirstAdmin(ctx, requestOf(ctx).who, b.Name, email, b.Password)
	if err != nil {
		return nil, err
	}
	return &created[user]{prefix + "/users/" + u.ID, userOf(u, true)}, nil
}

func (a *API) acceptInvitation(ctx context.Context, in *body[acceptance]) (*signedIn, error) {
	b := in.Body
	cookie, _, err := a.Accounts.AcceptInvite(ctx, b.Token, b.Name, b.Password, clientOf(requestOf(ctx)))
	if muster.KindOf(err) == muster.Invalid {
		if accounts.CheckUserName(b.Name) != nil {
			return nil, faultAt("#/name", err)
		}
		return nil, faultAt("#/password", err)
	}
	if err != nil {
		return nil, err
	}
	return a.signedIn(ctx, cookie)
}
