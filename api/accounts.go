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

// apiKey is an API key as it is shown.
type apiKey struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Scopes    []string `json:"scopes" nullable:"false"`
	Selector  string   `json:"selector,omitempty" doc:"Device query: the key is about these devices only"`
	Owner     string   `json:"owner,omitempty" doc:"Id of the user it ends with, and whose role it never exceeds"`
	CreatedAt string   `json:"created_at" format:"date-time"`
	ExpiresAt *string  `json:"expires_at" format:"date-time" doc:"Null for never"`
	LastUsed  *string  `json:"last_used" format:"date-time" doc:"Null for never"`
}

func apiKeyOf(k accounts.APIKey) apiKey {
	return apiKey{
		ID: k.ID, Name: k.Name, Scopes: k.Scopes, Selector: k.Selector, Owner: k.Owner,
		CreatedAt: stamp(k.Created), ExpiresAt: stampOrNull(k.Expires), LastUsed: stampOrNull(k.LastUsed),
	}
}

type newKey struct {
	Name      string    `json:"name" minLength:"1" maxLength:"200"`
	Scopes    []string  `json:"scopes" minItems:"1" maxItems:"20" nullable:"false"`
	Selector  string    `json:"selector,omitempty" maxLength:"2048" doc:"Device query: the key is about these devices only. Not beside the scope admin"`
	Owner     string    `json:"owner,omitempty" maxLength:"64" doc:"Id of the user it ends with, or me; nobody when absent"`
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

func (a *API) accountRoutes() {
	route(a, anyone, huma.Operation{
		OperationID: "get-me", Method: http.MethodGet, Path: "/me", Tags: []string{"accounts"}, Summary: "Who am I",
	}, func(ctx context.Context, _ *struct{}) (*body[me], error) {
		return &body[me]{a.meOf(requestOf(ctx).who)}, nil
	})
	route(a, public, huma.Operation{
		OperationID: "sign-in", Metadata: map[string]any{policyOf: signInKey}, Method: http.MethodPost, Path: "/session", Tags: []string{"accounts"},
		Summary:     "Sign a browser in with e-mail and password, or with an API key",
		Description: "A 401 with the code second_factor_needed says that the password is right and a code is asked for.",
		Errors:      []int{401, 403},
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
	}, a.createKey)
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

func (a *API) createKey(ctx context.Context, in *body[newKey]) (*created[issuedKey], error) {
	b := in.Body
	spec := accounts.KeySpec{Name: b.Name, Scopes: b.Scopes, Selector: b.Selector, Owner: b.Owner, Expires: b.ExpiresAt}
	if b.Owner == "me" {
		if spec.Owner = requestOf(ctx).who.User; spec.Owner == "" {
			return nil, faultAt("#/owner", muster.Errorf(muster.Invalid, "only a signed-in user can be me"))
		}
	}
	k, secret, err := a.Accounts.CreateKey(ctx, spec)
	if muster.KindOf(err) == muster.NotFound { // the path is there, the owner is not
		return nil, faultAt("#/owner", muster.Errorf(muster.Invalid, "%s", muster.Public(err)))
	}
	if err != nil {
		return nil, err
	}
	return &created[issuedKey]{prefix + "/api-keys/" + k.ID, issuedKey{apiKeyOf(k), secret}}, nil
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
	privately(w.Header())
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	req := requestOf(r.Context())
	cookie, _, err := a.Accounts.RedeemSetupFrom(a.noted(r.Context(), req), r.PathValue("token"), clientOf(req))
	if err != nil {
		a.refusePage(w, req, err)
		return
	}
	http.SetCookie(w, a.cookie(r, cookie))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// refusePage says on a page of its own why a link or a provider did not sign in.
func (a *API) refusePage(w http.ResponseWriter, r *request, err error) {
	p := problemOf(err)
	switch p.Status {
	case http.StatusConflict:
		p.Status = http.StatusGone
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		a.logFault(r, err)
	}
	var page strings.Builder
	if err := refusal().Execute(&page, p.Detail); err != nil {
		panic(fmt.Errorf("write the refusal: %w", err))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	w.WriteHeader(p.Status)
	_, _ = w.Write([]byte(page.String())) // the client is gone: nobody is left to tell
}

func refusal() *template.Template {
	return template.Must(template.New("refusal").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Muster</title>
<h1>This did not sign you in</h1>
<p>{{.}}</p>
<p><a href="/">Go to Muster</a></p></html>
`))
}
