// Package oidctest is an OpenID provider in this process, for tests: discovery, keys,
// authorization, tokens and user info, with real signatures and PKCE. It signs in whoever
// comes, as the user that the test has set, and lies when the test wants it to. It is
// imported by tests only.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// The client that every provider knows.
const (
	ClientID     = "muster"
	ClientSecret = "the-clients-secret"
)

// User is who the provider signs in.
type User struct {
	Subject, Email, Name string
	Verified             bool
	Groups               []string
}

// Lies are what the provider does wrong. Nil and empty fields are the truth.
type Lies struct {
	Claims func(claims map[string]any)                       // changes what an ID token says
	Sign   func(claims []byte, key *ecdsa.PrivateKey) string // makes the ID token
	Answer func(answer url.Values)                           // changes the authorization response
	Info   func(info map[string]any)                         // changes what the userinfo endpoint says
	Away   bool                                              // every request fails with a 503
}

// grant is what a code stands for.
type grant struct {
	challenge, redirect, nonce string
	user                       User
}

// Provider is a running provider. Close it.
type Provider struct {
	server *httptest.Server

	mu      sync.Mutex
	user    User
	lies    Lies
	key     *ecdsa.PrivateKey
	keyID   string
	codes   map[string]grant
	tokens  map[string]User
	secrets []string // every code, token and verifier that was seen
	asked   map[string]int
}

// New starts a provider on a free port of this machine.
func New() *Provider {
	p := &Provider{codes: map[string]grant{}, tokens: map[string]User{}, asked: map[string]int{}}
	p.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.configuration)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /userinfo", p.info)
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked[r.URL.Path]++
		away := p.lies.Away
		p.mu.Unlock()
		if away {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	return p
}

// Close stops it.
func (p *Provider) Close() { p.server.Close() }

// Issuer is the provider's name.
func (p *Provider) Issuer() string { return p.server.URL }

// SetUser says who is signed in from now on.
func (p *Provider) SetUser(u User) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user = u
}

// Lie has the provider lie from now on.
func (p *Provider) Lie(l Lies) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lies = l
}

// Rotate makes a new signing key; the old one is no longer published.
func (p *Provider) Rotate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.keyID = NewKey(), rand.Text()
}

// NewKey makes a signing key.
func NewKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil { // the random source never fails
		panic(err)
	}
	return key
}

// Asked counts the requests to a path.
func (p *Provider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// Secrets returns every code, token and verifier that went over the wire.
func (p *Provider) Secrets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{ClientSecret}, p.secrets...)
}

func (p *Provider) configuration(w http.ResponseWriter, _ *http.Request) {
	iss := p.Issuer()
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer": iss, "authorization_endpoint": iss + "/authorize", "token_endpoint": iss + "/token", "jwks_uri": iss + "/keys",
		"userinfo_endpoint": iss + "/userinfo", "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"}, "code_challenge_methods_supported": []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
	})
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: p.keyID, Algorithm: "ES256", Use: "sig"}}}
	p.mu.Unlock()
	writeJSON(w, http.StatusOK, set)
}

// authorize sends the browser back at once with a code.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" {
		http.Error(w, "this is no authorization request of a client that is known", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = grant{q.Get("code_challenge"), q.Get("redirect_uri"), q.Get("nonce"), p.user}
	p.secrets = append(p.secrets, code, q.Get("state"), q.Get("nonce"))
	lie := p.lies.Answer
	p.mu.Unlock()
	answer := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.Issuer()}}
	if lie != nil {
		lie(answer)
	}
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound) //nolint:gosec // only tests ask
}

// token takes a code, once, from who has the secret and the verifier.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	code, verifier := r.PostFormValue("code"), r.PostFormValue("code_verifier")
	p.mu.Lock()
	defer p.mu.Unlock()
	g, known := p.codes[code]
	delete(p.codes, code)
	p.secrets = append(p.secrets, verifier)
	sum := sha256.Sum256([]byte(verifier))
	switch {
	case id != ClientID || secret != ClientSecret:
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "not with " + secret})
	case !known || g.redirect != r.PostFormValue("redirect_uri") || g.challenge != base64.RawURLEncoding.EncodeToString(sum[:]):
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": "not for " + code + " and " + verifier})
	default:
		p.issue(w, g)
	}
}

// issue answers with tokens. It is called with the lock held.
func (p *Provider) issue(w http.ResponseWriter, g grant) {
	access := rand.Text()
	p.tokens[access] = g.user
	now := time.Now()
	claims := map[string]any{
		"iss": p.Issuer(), "sub": g.user.Subject, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": g.nonce,
	}
	maps.Copy(claims, words(g.user))
	if p.lies.Claims != nil {
		p.lies.Claims(claims)
	}
	text, err := json.Marshal(claims)
	if err != nil { // a test put in what is no JSON
		panic(err)
	}
	raw := Sign(text, p.key, p.keyID)
	if p.lies.Sign != nil {
		raw = p.lies.Sign(text, p.key)
	}
	p.secrets = append(p.secrets, access, raw)
	writeJSON(w, http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": raw})
}

// words are the claims about a user; those that are empty are left out.
func words(u User) map[string]any {
	claims := map[string]any{}
	if u.Email != "" {
		claims["email"], claims["email_verified"] = u.Email, u.Verified
	}
	if u.Name != "" {
		claims["name"] = u.Name
	}
	if len(u.Groups) > 0 {
		claims["groups"] = u.Groups
	}
	return claims
}

func (p *Provider) info(w http.ResponseWriter, r *http.Request) {
	var token string
	_, _ = fmt.Sscanf(r.Header.Get("Authorization"), "Bearer %s", &token) // an empty token is known to nobody
	p.mu.Lock()
	u, ok := p.tokens[token]
	lie := p.lies.Info
	p.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	info := words(u)
	info["sub"] = u.Subject
	if lie != nil {
		lie(info)
	}
	writeJSON(w, http.StatusOK, info)
}

// Sign signs claims as a compact JWS with ES256.
func Sign(claims []byte, key *ecdsa.PrivateKey, id string) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil { // the key is one of P-256
		panic(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		panic(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return raw
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}
