package api

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// me is who is asking.
type me struct {
	Kind   string   `json:"kind" enum:"api_key,session"`
	Name   string   `json:"name"`
	Role   string   `json:"role,omitempty" enum:"viewer,operator,admin" doc:"Of a session"`
	Scopes []string `json:"scopes" nullable:"false"`
}

func meOf(p accounts.Principal) me {
	m := me{Kind: "api_key", Name: p.Name, Role: p.Role, Scopes: p.Scopes}
	if p.Role != "" {
		m.Kind = "session"
	}
	return m
}

// apiKey is an API key as it is shown.
type apiKey struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Scopes    []string `json:"scopes" nullable:"false"`
	CreatedAt string   `json:"created_at" format:"date-time"`
	ExpiresAt *string  `json:"expires_at" format:"date-time" doc:"Null for never"`
}

func apiKeyOf(k accounts.APIKey) apiKey {
	return apiKey{ID: k.ID, Name: k.Name, Scopes: k.Scopes, CreatedAt: stamp(k.Created), ExpiresAt: stampOrNull(k.Expires)}
}

type newKey struct {
	Name      string    `json:"name" minLength:"1" maxLength:"200"`
	Scopes    []string  `json:"scopes" minItems:"1" maxItems:"20" nullable:"false"`
	ExpiresAt time.Time `json:"expires_at,omitzero" required:"false" doc:"Never when absent"`
}

type issuedKey struct {
	APIKey apiKey `json:"api_key"`
	Secret string `json:"secret" doc:"The key itself, shown this once"`
}

type created[T any] struct {
	Location string `header:"Location"`
	Body     T
}

type signedIn struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      me
}

type signedOut struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

type signIn struct {
	Body struct {
		Key string `json:"key" minLength:"1" maxLength:"256" doc:"An API key"`
	}
}

func (a *API) accountRoutes() {
	route(a, anyone, huma.Operation{
		OperationID: "get-me", Method: http.MethodGet, Path: "/me", Tags: []string{"accounts"}, Summary: "Who am I",
	}, func(ctx context.Context, _ *struct{}) (*body[me], error) {
		return &body[me]{meOf(requestOf(ctx).who)}, nil
	})
	route(a, public, huma.Operation{
		OperationID: "sign-in", Method: http.MethodPost, Path: "/session", Tags: []string{"accounts"},
		Summary: "Sign a browser in with an API key", Errors: []int{401, 403},
	}, a.signIn)
	route(a, anyone, huma.Operation{
		OperationID: "sign-out", Method: http.MethodDelete, Path: "/session", Tags: []string{"accounts"},
		Summary: "Sign this browser out", Errors: []int{404},
	}, a.signOut)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-api-keys", Method: http.MethodGet, Path: "/api-keys", Tags: []string{"accounts"}, Summary: "List API keys",
	}, func(context.Context, *struct{}) (*body[page[apiKey]], error) {
		keys := a.Accounts.Keys()
		items := make([]apiKey, 0, len(keys))
		for _, k := range keys {
			items = append(items, apiKeyOf(k))
		}
		return list(items, ""), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "create-api-key", Method: http.MethodPost, Path: "/api-keys", DefaultStatus: http.StatusCreated,
		Tags: []string{"accounts"}, Summary: "Make an API key", Errors: []int{409},
	}, func(ctx context.Context, in *body[newKey]) (*created[issuedKey], error) {
		k, secret, err := a.Accounts.CreateKey(ctx, accounts.KeySpec{Name: in.Body.Name, Scopes: in.Body.Scopes, Expires: in.Body.ExpiresAt})
		if err != nil {
			return nil, err
		}
		return &created[issuedKey]{prefix + "/api-keys/" + k.ID, issuedKey{apiKeyOf(k), secret}}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "delete-api-key", Method: http.MethodDelete, Path: "/api-keys/{key}", Tags: []string{"accounts"},
		Summary: "Revoke an API key", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		Key string `path:"key" maxLength:"64"`
	},
	) (*struct{}, error) {
		return nil, a.Accounts.DeleteKey(ctx, in.Key)
	})
}

func (a *API) signIn(ctx context.Context, in *signIn) (*signedIn, error) {
	cookie, s, err := a.Accounts.SignIn(ctx, in.Body.Key)
	if err != nil {
		return nil, err
	}
	p, err := a.Accounts.AuthenticateSession(cookie)
	if err != nil {
		return nil, fmt.Errorf("use the new session %s: %w", s.ID, err)
	}
	return &signedIn{*a.cookie(requestOf(ctx).Request, cookie), meOf(p)}, nil
}

func (a *API) signOut(ctx context.Context, _ *struct{}) (*signedOut, error) {
	r := requestOf(ctx).Request
	c, err := r.Cookie(a.cookieName(r))
	if err != nil {
		return nil, muster.Errorf(muster.NotFound, "there is no session to end")
	}
	if err := a.Accounts.SignOut(ctx, c.Value); err != nil {
		return nil, err
	}
	return &signedOut{*a.cookie(r, "")}, nil
}

// redeemSetup signs in whoever has the one-time link. HEAD, which the mux takes
// for GET, must not use it up: previews of links send it.
func (a *API) redeemSetup(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet {
		h.Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	cookie, _, err := a.Accounts.RedeemSetup(r.Context(), r.PathValue("token"))
	if err != nil {
		a.setupRefused(w, requestOf(r.Context()), err)
		return
	}
	http.SetCookie(w, a.cookie(r, cookie))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *API) setupRefused(w http.ResponseWriter, r *request, err error) {
	p := problemOf(err)
	switch p.Status {
	case http.StatusConflict:
		p.Status = http.StatusGone
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		a.logFault(r, err)
	}
	var page strings.Builder
	if err := setupPage().Execute(&page, p.Detail); err != nil {
		panic(fmt.Errorf("write the set-up page: %w", err))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.WriteHeader(p.Status)
	_, _ = w.Write([]byte(page.String())) // the client is gone: nobody is left to tell
}

func setupPage() *template.Template {
	return template.Must(template.New("setup").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Muster set-up</title>
<h1>This link does not sign you in</h1>
<p>{{.}}</p>
<p><a href="/">Go to Muster</a></p></html>
`))
}
