package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
)

const (
	schemeKey     = "key"
	schemeSession = "session"

	// cookieName is the session cookie's name; over https it has the prefix that
	// makes browsers bind it to this host.
	cookieName   = "muster"
	securePrefix = "__Host-"
)

// Authenticate returns who sent r: by API key, or else by session cookie, which
// counts only when the request does not come from another site. Unauthorized when
// it is nobody known. A WebSocket upgrade is a GET: its Origin must be checked
// besides.
func (a *API) Authenticate(r *http.Request) (accounts.Principal, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, key, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return accounts.Principal{}, muster.Errorf(muster.Unauthorized, "the only Authorization is Bearer with an API key")
		}
		return a.Accounts.Authenticate(strings.TrimSpace(key))
	}
	c, err := r.Cookie(a.cookieName(r))
	if err != nil {
		return accounts.Principal{}, muster.Errorf(muster.Unauthorized, "an API key or a signed-in browser is needed")
	}
	if a.origin.Check(r) != nil || r.Header.Get("Sec-Fetch-Site") == "cross-site" { // whatever the method
		return accounts.Principal{}, errOtherSite()
	}
	return a.Accounts.AuthenticateSession(c.Value)
}

func errOtherSite() error {
	return muster.Errorf(muster.Forbidden, "a page of another site may not do this with your session")
}

// secure says whether r came over https, as far as the browser is concerned.
func (a *API) secure(r *http.Request) bool {
	return r.TLS != nil || a.PublicURL != nil && a.PublicURL.Scheme == "https" || a.forwardedHTTPS(r)
}

func (a *API) cookieName(r *http.Request) string {
	if a.secure(r) {
		return securePrefix + cookieName
	}
	return cookieName
}

// cookie returns the session cookie with value; an empty one deletes it.
func (a *API) cookie(r *http.Request, value string) *http.Cookie {
	c := &http.Cookie{ //nolint:gosec // Secure follows how the browser came in: plain http on one machine must work
		Name: a.cookieName(r), Value: value, Path: "/", HttpOnly: true, Secure: a.secure(r),
		SameSite: http.SameSiteLaxMode, MaxAge: int(accounts.SessionMax / time.Second),
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// security is what an operation's OpenAPI entry says about who may call it.
func security(scope string) []map[string][]string {
	scopes := []string{}
	switch scope {
	case public:
		return []map[string][]string{{}}
	case anyone:
	default:
		scopes = append(scopes, scope)
	}
	return []map[string][]string{{schemeKey: scopes}, {schemeSession: scopes}}
}

// admit lets a request in that has the scope. It runs before any input is looked at.
func (a *API) admit(scope string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		req := requestOf(ctx.Context())
		_, w := humago.Unwrap(ctx)
		if scope == public {
			if p := a.limited(w.Header(), byAddress(a.publicPolicy(ctx.Operation()), req.addr)); p != nil {
				writeProblem(w, p)
				return
			}
			if a.origin.Check(req.Request) != nil {
				a.refuse(ctx, errOtherSite())
				return
			}
			next(ctx)
			return
		}
		err := a.authorize(req, scope)
		bucket := byAddress(a.policies.stranger, req.addr)
		if req.who.ID != "" {
			bucket = a.bucketOf(&req.who)
		}
		if p := a.limited(w.Header(), bucket); p != nil {
			writeProblem(w, p)
			return
		}
		if err != nil {
			a.refuseAccess(ctx, scope, err)
			return
		}
		next(ctx)
	}
}

// authorize finds out who sent req, and whether he may do now what needs scope: Unauthorized when it is nobody,
// Forbidden when he lacks it. It is asked when the head of a request has come and again when its body has: a key
// may be revoked and a role lowered in between. Nobody is asked for a public operation.
func (a *API) authorize(req *request, scope string) error {
	if scope == public {
		return nil
	}
	who, err := a.Authenticate(req.Request)
	if err != nil {
		return err
	}
	req.who = who
	if scope != anyone && !who.Allows(scope) {
		return muster.Errorf(muster.Forbidden, "this needs the scope %s", scope)
	}
	return nil
}

// refuseAccess answers with an error of authorize.
func (a *API) refuseAccess(ctx huma.Context, scope string, err error) {
	req := requestOf(ctx.Context())
	switch {
	case muster.KindOf(err) == muster.Unauthorized:
		ctx.SetHeader("WWW-Authenticate", challenge(req.Request))
	case muster.KindOf(err) == muster.Forbidden && req.who.ID != "":
		ctx.SetHeader("WWW-Authenticate", `Bearer realm="muster", error="insufficient_scope", scope="`+scope+`"`)
	}
	a.refuse(ctx, err)
}

// bucketOf is whose requests count together: those of a key, or of a session.
func (a *API) bucketOf(who *accounts.Principal) caller {
	if who.Allows(accounts.Admin) {
		return caller{policy: a.policies.admin, id: who.ID}
	}
	return caller{policy: a.policies.key, id: who.ID}
}

// publicPolicy is the limit of an operation that needs nobody.
func (a *API) publicPolicy(op *huma.Operation) *policy {
	if op.Metadata[policyOf] == signInKey {
		return a.policies.signIn
	}
	return a.policies.public
}

func challenge(r *http.Request) string {
	if r.Header.Get("Authorization") == "" {
		return `Bearer realm="muster"`
	}
	return `Bearer realm="muster", error="invalid_token"`
}
