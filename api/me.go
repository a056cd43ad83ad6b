package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// SecondFactors sets second factors up.
type SecondFactors interface {
	BeginTOTP(ctx context.Context, user string) (accounts.TOTPSetup, error)
	ConfirmTOTP(ctx context.Context, user, code string) ([]string, error)
}

// SecondFactorRemover removes them.
type SecondFactorRemover interface {
	DropTOTP(ctx context.Context, user, password string) error
	ClearTOTP(ctx context.Context, user string) error
}

// EmailKeeper confirms and changes e-mail addresses.
type EmailKeeper interface {
	ConfirmEmail(ctx context.Context, token string) error
	RequestConfirm(ctx context.Context, user string) error
	ChangeEmail(ctx context.Context, p accounts.Principal, password, email string) error
}

// me is who is asking.
type me struct {
	Kind   string   `json:"kind" enum:"api_key,session"`
	Name   string   `json:"name"`
	Role   string   `json:"role,omitempty" enum:"viewer,operator,admin" doc:"Of a session"`
	Scopes []string `json:"scopes" nullable:"false"`
	User   *user    `json:"user,omitempty" doc:"The user whose session it is"`
	Setup  bool     `json:"setup,omitempty" doc:"The session of the set-up link, which POST /setup makes a user's"`
}

func (a *API) meOf(p accounts.Principal) me {
	m := me{Kind: "api_key", Name: p.Name, Role: p.Role, Scopes: p.Scopes}
	if p.Role == "" {
		return m
	}
	m.Kind = "session"
	if u, err := a.Accounts.User(p.User); err == nil {
		shown := userOf(u, true)
		m.User = &shown
	}
	m.Setup = p.User == "" && p.Role == accounts.Admin && a.fromSetup(p.ID)
	return m
}

// fromSetup says whether the session id is the set-up link's and nobody's yet.
func (a *API) fromSetup(id string) bool {
	for _, s := range a.Accounts.Sessions("") {
		if s.ID == id {
			return s.User == "" && s.Key == ""
		}
	}
	return false
}

type renamed struct {
	Name string `json:"name" maxLength:"200"`
}

type newPassword struct {
	Old      string `json:"old" minLength:"1" maxLength:"512" doc:"The password that is"`
	Password string `json:"password" minLength:"1" maxLength:"512" doc:"10 to 128 characters, neither the e-mail nor the name"`
}

type newEmail struct {
	Password string `json:"password" minLength:"1" maxLength:"512"`
	Email    string `json:"email" minLength:"3" maxLength:"160" format:"email"`
}

type givenPassword struct {
	Password string `json:"password" minLength:"1" maxLength:"512"`
}

type givenCode struct {
	Code string `json:"code" minLength:"6" maxLength:"16" doc:"Six digits"`
}

type totpSetup struct {
	Secret string `json:"secret" doc:"Base32, to be typed into an authenticator"`
	URI    string `json:"uri" doc:"otpauth://..., the same for a QR code"`
	SVG    string `json:"svg" doc:"The QR code"`
	PNG    []byte `json:"png" doc:"The QR code"`
}

type recovery struct {
	Codes []string `json:"recovery_codes" nullable:"false" doc:"Each is good once in the place of a code; shown this once"`
}

func (a *API) meRoutes() {
	tags := []string{"me"}
	route(a, anyone, huma.Operation{
		OperationID: "change-me", Method: http.MethodPatch, Path: "/me", Tags: tags, Summary: "Change my name",
	}, a.changeMe)
	route(a, anyone, huma.Operation{
		OperationID: "change-my-password", Method: http.MethodPost, Path: "/me/password", DefaultStatus: http.StatusNoContent, Tags: tags,
		Summary: "Change my password; my other sessions end", Errors: []int{409},
	}, a.changePassword)
	route(a, anyone, huma.Operation{
		OperationID: "change-my-email", Method: http.MethodPost, Path: "/me/email", DefaultStatus: http.StatusAccepted, Tags: tags,
		Summary:     "Have a link mailed to another address of mine",
		Description: "The address is mine when the link is followed within 24 hours. The answer is the same when somebody else has it.",
		Errors:      []int{409},
	}, a.changeEmail)
	route(a, anyone, huma.Operation{
		OperationID: "request-confirmation", Method: http.MethodPost, Path: "/me/confirmation", DefaultStatus: http.StatusAccepted, Tags: tags,
		Summary: "Have a link mailed that confirms my address", Errors: []int{409},
	}, func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		return nil, ofUser(ctx, func(id string) error { return a.Accounts.RequestConfirm(ctx, id) })
	})
	a.totpRoutes(tags)
}

func (a *API) totpRoutes(tags []string) {
	route(a, anyone, huma.Operation{
		OperationID: "begin-totp", Method: http.MethodPost, Path: "/me/totp", Tags: tags, Summary: "Begin to set up a second factor (RFC 6238)",
		Description: "It counts when a code of it is confirmed within 10 minutes.", Errors: []int{409},
	}, a.beginTOTP)
	route(a, anyone, huma.Operation{
		OperationID: "confirm-totp", Method: http.MethodPost, Path: "/me/totp/confirm", Tags: tags,
		Summary: "Take the second factor into use by a first code", Errors: []int{409},
	}, func(ctx context.Context, in *body[givenCode]) (out *body[recovery], err error) {
		err = ofUser(ctx, func(id string) error {
			codes, err := a.Accounts.ConfirmTOTP(ctx, id, in.Body.Code)
			if muster.KindOf(err) == muster.Invalid {
				return faultAt("#/code", err)
			}
			out = &body[recovery]{recovery{codes}}
			return err
		})
		return out, err
	})
	route(a, anyone, huma.Operation{
		OperationID: "delete-totp", Method: http.MethodDelete, Path: "/me/totp", Tags: tags, Summary: "Remove my second factor",
		Errors: []int{400, 409, 413, 415},
	}, func(ctx context.Context, in *body[givenPassword]) (*struct{}, error) {
		return nil, ofUser(ctx, func(id string) error {
			err := a.Accounts.DropTOTP(ctx, id, in.Body.Password)
			if muster.KindOf(err) == muster.Forbidden {
				return faultAt("#/password", err)
			}
			return err
		})
	})
}

// ofUser does something for the signed-in user who asks for it.
func ofUser(ctx context.Context, do func(id string) error) error {
	who := requestOf(ctx).who
	if who.User == "" {
		return muster.Errorf(muster.Forbidden, "only a signed-in user has an account of his own")
	}
	return do(who.User)
}

func (a *API) changeMe(ctx context.Context, in *body[renamed]) (*body[user], error) {
	var u accounts.User
	err := ofUser(ctx, func(id string) (err error) {
		u, err = a.Accounts.UpdateUser(ctx, id, accounts.UserChange{Name: &in.Body.Name})
		if muster.KindOf(err) == muster.Invalid {
			return faultAt("#/name", err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &body[user]{userOf(u, true)}, nil
}

func (a *API) changePassword(ctx context.Context, in *body[newPassword]) (*struct{}, error) {
	return nil, ofUser(ctx, func(string) error {
		err := a.Accounts.ChangePassword(ctx, requestOf(ctx).who, in.Body.Old, in.Body.Password)
		switch muster.KindOf(err) {
		case muster.Invalid:
			return faultAt("#/password", err)
		case muster.Forbidden:
			return faultAt("#/old", err)
		default:
			return err
		}
	})
}

func (a *API) changeEmail(ctx context.Context, in *body[newEmail]) (*struct{}, error) {
	return nil, ofUser(ctx, func(string) error {
		err := a.Accounts.ChangeEmail(ctx, requestOf(ctx).who, in.Body.Password, in.Body.Email)
		switch muster.KindOf(err) {
		case muster.Invalid:
			return faultAt("#/email", err)
		case muster.Forbidden:
			return faultAt("#/password", err)
		default:
			return err
		}
	})
}

func (a *API) beginTOTP(ctx context.Context, _ *struct{}) (out *body[totpSetup], err error) {
	err = ofUser(ctx, func(id string) error {
		s, err := a.Accounts.BeginTOTP(ctx, id)
		if err != nil {
			return err
		}
		picture, svg, err := qrOf(s.URI)
		out = &body[totpSetup]{totpSetup{Secret: s.Secret, URI: s.URI, SVG: svg, PNG: picture}}
		return err
	})
	return out, err
}
