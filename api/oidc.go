package api

import (
	"errors"
	"net/http"
	"strings"

	"muster"
	"muster/accounts"
)

// Provider signs people in by an OpenID provider.
type Provider interface {
	// Name is what the button says.
	Name() string
	// Start sends the browser to the provider; next is the path here to come back to.
	Start(w http.ResponseWriter, r *http.Request, next string) error
	// Finish takes the provider's answer: who has signed in there, and next.
	Finish(w http.ResponseWriter, r *http.Request) (who accounts.External, next string, err error)
}

// The paths of the browser's way through the provider. They answer with redirects and
// pages, and so are no operations.
const (
	oidcStart    = "/oidc/start"
	oidcCallback = "/oidc/callback"
)

func (a *API) oidcRoutes() {
	if a.OIDC == nil {
		return
	}
	a.mux.HandleFunc("GET "+prefix+oidcStart, a.startOIDC)
	a.mux.HandleFunc("GET "+prefix+oidcCallback, a.finishOIDC)
}

// privately keeps an answer out of caches, and its address out of Referer.
func privately(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
}

func (a *API) startOIDC(w http.ResponseWriter, r *http.Request) {
	privately(w.Header())
	if err := a.OIDC.Start(w, r, localPath(r.URL.Query().Get("next"))); err != nil {
		a.refusePage(w, requestOf(r.Context()), err)
	}
}

func (a *API) finishOIDC(w http.ResponseWriter, r *http.Request) {
	privately(w.Header())
	req := requestOf(r.Context())
	who, next, err := a.OIDC.Finish(w, r)
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil && muster.KindOf(err) == muster.Forbidden { // what is wrong with the provider
			a.Log.Warn("a sign-in by the OpenID provider was refused", "request", req.id, "why", muster.Public(err), "err", cause)
		}
		a.refusePage(w, req, err)
		return
	}
	ctx := a.noted(r.Context(), req)
	cookie, _, err := a.Accounts.SignInExternal(ctx, who, clientOf(req))
	if err != nil {
		a.refusePage(w, req, err)
		return
	}
	a.endBefore(ctx, req)
	http.SetCookie(w, a.cookie(r, cookie))
	http.Redirect(w, r, localPath(next), http.StatusSeeOther) //nolint:gosec // localPath lets no other site through
}

// maxNext is the longest path to come back to.
const maxNext = 512

// localPath returns p when it is a path of the page, else "/": nobody is sent to another
// site by a link to this one, nor back into the API.
func localPath(p string) string {
	if len(p) > maxNext || !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.HasPrefix(p, "/api") {
		return "/"
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] > '~' || p[i] == '\\' { // browsers take \ for /, and drop tabs and newlines
			return "/"
		}
	}
	if strings.Contains(p, "/../") || strings.Contains(p, "/./") || strings.HasSuffix(p, "/..") {
		return "/" // a browser resolves these before it looks who the host is
	}
	return p
}
