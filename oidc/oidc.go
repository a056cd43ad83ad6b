package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"muster"
	"muster/accounts"
)

// OpenID is one provider. It is safe for concurrent use.
type OpenID struct {
	cfg       Config
	http      *http.Client
	close     func()
	discovery *discovery
	used      usedStates
}

// New returns the provider that cfg names, or Invalid. It asks nobody yet: a provider
// that is away does not keep the server from starting.
func New(cfg Config) (*OpenID, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	p := &OpenID{cfg: cfg, discovery: newDiscovery(), used: usedStates{until: map[string]time.Time{}}}
	p.http, p.close = newClient()
	return p, nil
}

// Close ends idle connections to the provider.
func (p *OpenID) Close() { p.close() }

// Name is what the button says.
func (p *OpenID) Name() string { return p.cfg.name() }

func (p *OpenID) oauth(d *discovered) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, Endpoint: d.Endpoint(),
		RedirectURL: p.cfg.URL() + CallbackPath, Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}
}

// Start sends the browser to the provider with a new state, nonce and PKCE challenge,
// which its cookie keeps for Finish with next. Unavailable when the provider is away; then
// nothing is written.
func (p *OpenID) Start(w http.ResponseWriter, r *http.Request, next string) error {
	d, err := p.provider(r.Context())
	if err != nil {
		return err
	}
	at := &attempt{
		State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: next, Begun: p.cfg.Now().Unix(),
	}
	if err := p.keep(w, at); err != nil {
		return err
	}
	to := p.oauth(d).AuthCodeURL(at.State, oidc.Nonce(at.Nonce), oauth2.S256ChallengeOption(at.Verifier))
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// Finish takes the provider's answer, which the browser brings. It is good once, in the
// browser that started, within 10 minutes. Forbidden, with a reason that may be shown, when
// anything is not as it must be; Unavailable when the provider is away. It writes nothing
// but the cookie's end.
func (p *OpenID) Finish(w http.ResponseWriter, r *http.Request) (who accounts.External, next string, err error) {
	q := r.URL.Query()
	at, err := p.take(w, r, q.Get("state"))
	if err != nil {
		return who, "", err
	}
	d, err := p.provider(r.Context())
	if err != nil {
		return who, "", err
	}
	code, err := p.answer(q, d)
	if err != nil {
		return who, "", err
	}
	token, id, err := p.exchange(r.Context(), d, code, at)
	if err != nil {
		return who, "", err
	}
	claims, err := p.claims(r.Context(), d, token, id)
	if err != nil {
		return who, "", err
	}
	who = p.external(id, claims)
	return who, at.Next, nil
}

// answer checks the authorization response and returns its code. iss must name the
// provider (RFC 9207): what another one answered is not to be given to this one.
func (p *OpenID) answer(q url.Values, d *discovered) (string, error) {
	iss, has := q["iss"]
	if has && (len(iss) != 1 || iss[0] != p.cfg.Issuer) || !has && d.namesItself {
		return "", refused("the answer is not from the OpenID provider that was asked", nil)
	}
	if q.Get("error") != "" { // its words are anybody's
		return "", refused("the OpenID provider did not sign you in", nil)
	}
	if len(q["code"]) != 1 || q.Get("code") == "" {
		return "", refused("the OpenID provider's answer has no code", nil)
	}
	return q.Get("code"), nil
}

// algorithms are the signatures that are taken: none by a shared secret, and not none.
func algorithms() []string {
	return []string{
		oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
	}
}

// exchange gives the code to the provider for an ID token, and checks it (OpenID Connect
// Core 1.0, section 3.1.3.7).
func (p *OpenID) exchange(ctx context.Context, d *discovered, code string, at *attempt) (*oauth2.Token, *oidc.IDToken, error) {
	ctx, cancel := context.WithTimeout(p.client(ctx), providerTime)
	defer cancel()
	token, err := p.oauth(d).Exchange(ctx, code, oauth2.VerifierOption(at.Verifier))
	if err != nil {
		return nil, nil, exchangeFault(err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, nil, refused("the OpenID provider gave no ID token", nil)
	}
	verifier := d.VerifierContext(p.client(context.WithoutCancel(ctx)), &oidc.Config{
		ClientID: p.cfg.ClientID, SupportedSigningAlgs: algorithms(), Now: p.cfg.Now,
	})
	id, err := verifier.Verify(ctx, raw)
	if err != nil {
		return nil, nil, refused("the OpenID provider's ID token does not hold", err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(at.Nonce)) != 1 {
		return nil, nil, refused("the OpenID provider's ID token is for another sign-in", nil)
	}
	var more struct {
		Party string `json:"azp"`
	}
	if err := id.Claims(&more); err != nil {
		return nil, nil, refused("the OpenID provider's ID token does not hold", nil)
	}
	if more.Party != "" && more.Party != p.cfg.ClientID || more.Party == "" && len(id.Audience) > 1 {
		return nil, nil, refused("the OpenID provider's ID token is for another client", nil)
	}
	if id.AccessTokenHash != "" && id.VerifyAccessToken(token.AccessToken) != nil {
		return nil, nil, refused("the OpenID provider's access token is not the ID token's", nil)
	}
	return token, id, nil
}

// exchangeFault tells a provider that refuses from one that is away. What it answered is
// not repeated: it may hold what was sent.
func exchangeFault(err error) error {
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := 0
		if e.Response != nil {
			status = e.Response.StatusCode
		}
		if status >= http.StatusInternalServerError {
			return errAway(fmt.Errorf("exchange the code: the provider answered %d", status))
		}
		return refused("the OpenID provider did not take its code back", fmt.Errorf("exchange the code: the provider answered %d", status))
	}
	return errAway(errors.New("exchange the code: the provider's token endpoint does not answer"))
}

// claims returns what the provider says of the user: in the ID token, and for what is
// missing there at its userinfo endpoint.
func (p *OpenID) claims(ctx context.Context, d *discovered, token *oauth2.Token, id *oidc.IDToken) (map[string]any, error) {
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return nil, refused("the OpenID provider's ID token does not hold", nil)
	}
	if claims["email"] != nil && (p.cfg.RoleClaim == "" || groups(claims, p.cfg.RoleClaim) != nil) || d.UserInfoEndpoint() == "" {
		return claims, nil
	}
	ctx, cancel := context.WithTimeout(p.client(ctx), providerTime)
	defer cancel()
	info, err := d.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return nil, errAway(errors.New("ask for the user: the provider's userinfo endpoint does not answer"))
	}
	if info.Subject != id.Subject { // Core, section 5.3.2
		return nil, refused("the OpenID provider speaks of somebody else", nil)
	}
	more := map[string]any{}
	if err := info.Claims(&more); err != nil {
		return nil, refused("the OpenID provider's words about the user are not understood", nil)
	}
	for name, v := range more {
		if _, signed := claims[name]; !signed {
			claims[name] = v
		}
	}
	return claims, nil
}

func (p *OpenID) external(id *oidc.IDToken, claims map[string]any) accounts.External {
	e := accounts.External{Issuer: p.cfg.Issuer, Subject: id.Subject, Role: p.cfg.role(claims)}
	e.Email, _ = claims["email"].(string)
	e.Name, _ = claims["name"].(string)
	switch v := claims["email_verified"].(type) {
	case bool:
		e.EmailVerified = v
	case string: // some providers write it so
		e.EmailVerified = v == "true"
	}
	return e
}

// refused is Forbidden with a reason that may be shown; cause is for the log.
func refused(reason string, cause error) error {
	return &muster.Error{Kind: muster.Forbidden, Msg: reason, Err: cause}
}
