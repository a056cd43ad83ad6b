package oidc_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/accounts"
	"muster/oidc"
	"muster/oidc/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type vault struct{ cipher.AEAD }

func newVault(t testing.TB) vault {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	must(t, err)
	aead, err := cipher.NewGCM(block)
	must(t, err)
	return vault{aead}
}

func (v vault) Seal(plain []byte, bind string) ([]byte, error) {
	nonce := make([]byte, v.NonceSize())
	rand.Read(nonce)
	return v.AEAD.Seal(nonce, nonce, plain, []byte(bind)), nil
}

func (v vault) Open(sealed []byte, bind string) ([]byte, error) {
	n := min(v.NonceSize(), len(sealed))
	if n < v.NonceSize() {
		return nil, fmt.Errorf("too short")
	}
	return v.AEAD.Open(nil, sealed[:n], sealed[n:], []byte(bind))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a provider, and Muster's side of it.
type rig struct {
	*testing.T
	provider *oidctest.Provider
	open     *oidc.OpenID
	mu       sync.Mutex
	at       time.Duration // that Muster's clock is ahead
}

const home = "https://muster.example"

func newRig(t *testing.T, change ...func(*oidc.Config)) *rig {
	t.Helper()
	r := &rig{T: t, provider: oidctest.New()}
	t.Cleanup(r.provider.Close)
	r.provider.SetUser(oidctest.User{Subject: "ada", Email: "ada@example.com", Verified: true, Name: "Ada"})
	cfg := oidc.Config{
		Issuer: r.provider.Issuer(), ClientID: oidctest.ClientID, ClientSecret: oidctest.ClientSecret,
		URL: func() string { return home }, Sealer: newVault(t), Now: r.now,
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	r.open, err = oidc.New(cfg)
	must(t, err)
	t.Cleanup(r.open.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return r
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.at)
}

func (r *rig) later(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at += d
}

// start begins a sign-in and returns the browser's cookie and where it is sent.
func (r *rig) start() (*http.Cookie, string) {
	r.Helper()
	w := httptest.NewRecorder()
	must(r, r.open.Start(w, httptest.NewRequestWithContext(r.Context(), "GET", "/api/v1/oidc/start", nil), "/devices?q=x"))
	res := w.Result()
	if res.StatusCode != http.StatusSeeOther || len(res.Cookies()) != 1 {
		r.Fatalf("start answers %d with %d cookies", res.StatusCode, len(res.Cookies()))
	}
	return res.Cookies()[0], res.Header.Get("Location")
}

// visit goes to the provider and returns where it sends the browser back to.
func (r *rig) visit(to string) string {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to, nil)
	must(r, err)
	res, err := http.DefaultTransport.RoundTrip(req)
	must(r, err)
	must(r, res.Body.Close())
	if res.StatusCode != http.StatusFound {
		r.Fatalf("the provider answers %s", res.Status)
	}
	return res.Header.Get("Location")
}

func (r *rig) finish(back string, cookies ...*http.Cookie) (accounts.External, string, error) {
	r.Helper()
	req := httptest.NewRequestWithContext(r.Context(), "GET", back, nil)
	for _, c := range cookies {
		req.AddCookie(c)
	}
	return r.open.Finish(httptest.NewRecorder(), req)
}

// whole goes the whole way.
func (r *rig) whole() (accounts.External, error) {
	r.Helper()
	c, to := r.start()
	who, _, err := r.finish(r.visit(to), c)
	return who, err
}

func TestWhoSignsInAtTheProviderIsNamed(t *testing.T) {
	r := newRig(t)
	c, to := r.start()
	if c.Name != "__Host-muster-oidc" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.MaxAge != 600 {
		t.Errorf("the cookie is %+v", c)
	}
	u, err := url.Parse(to)
	must(t, err)
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" || len(q.Get("state")) < 20 || len(q.Get("nonce")) < 20 || q.Get("redirect_uri") != home+oidc.CallbackPath {
		t.Errorf("the provider is asked %v", q)
	}
	for _, secret := range []string{q.Get("state"), q.Get("nonce")} {
		if strings.Contains(c.Value, secret) {
			t.Error("the cookie shows what it holds")
		}
	}
	who, next, err := r.finish(r.visit(to), c)
	must(t, err)
	want := accounts.External{Issuer: r.provider.Issuer(), Subject: "ada", Email: "ada@example.com", EmailVerified: true, Name: "Ada"}
	if d := cmp.Diff(want, who); d != "" || next != "/devices?q=x" {
		t.Errorf("next is %s, who: %s", next, d)
	}
}

func TestAnAnswerCountsOnceInTheBrowserThatAskedAndInTime(t *testing.T) {
	r := newRig(t)
	c, to := r.start()
	back := r.visit(to)
	other, otherTo := r.start()
	forged := *c
	forged.Value = c.Value[:len(c.Value)-4] + "AAAA"
	for name, cookies := range map[string][]*http.Cookie{
		"no cookie": nil, "another attempt's cookie": {other}, "a changed cookie": {&forged},
		"a huge cookie": {{Name: c.Name, Value: strings.Repeat("A", 5000)}}, "a cookie that is no base64": {{Name: c.Name, Value: "%"}},
	} {
		if _, _, err := r.finish(back, cookies...); muster.KindOf(err) != muster.Forbidden {
			t.Errorf("with %s: %v", name, err)
		}
	}
	if _, _, err := r.finish(r.visit(otherTo)+"x", other); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("with a changed answer: %v", err)
	}
	_, _, err := r.finish(back, c)
	must(t, err)
	asked := r.provider.Asked("/token")
	if _, _, err := r.finish(back, c); muster.KindOf(err) != muster.Forbidden || r.provider.Asked("/token") != asked {
		t.Errorf("a second time: %v", err)
	}
	c, to = r.start()
	back = r.visit(to)
	r.later(11 * time.Minute)
	if _, _, err := r.finish(back, c); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("after 11 minutes: %v", err)
	}
}

func TestACookieOfAnotherServerOrProviderDoesNotCount(t *testing.T) {
	keys := newVault(t)
	same := func(c *oidc.Config) { c.Sealer = keys }
	r, other := newRig(t, same), newRig(t, same)
	c, to := other.start()
	back := other.visit(to)
	if _, _, err := r.finish(back, c); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("of another provider: %v", err)
	}
}

func TestACodeOfSomebodyElsesAttemptIsOfNoUse(t *testing.T) {
	r := newRig(t)
	mine, to := r.start()
	own, err := url.Parse(r.visit(to))
	must(t, err)
	_, his := r.start()
	stolen, err := url.Parse(r.visit(his))
	must(t, err)
	q := own.Query()
	q.Set("code", stolen.Query().Get("code")) // injected into my own session: PKCE refuses it
	own.RawQuery = q.Encode()
	if _, _, err := r.finish(own.String(), mine); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("a stolen code: %v", err)
	}
}

func TestAnAnswerOfAnotherProviderIsRefused(t *testing.T) {
	r := newRig(t)
	for name, lie := range map[string]func(url.Values){
		"another issuer":    func(v url.Values) { v.Set("iss", "https://evil.example") },
		"two issuers":       func(v url.Values) { v.Add("iss", "https://evil.example") },
		"no issuer":         func(v url.Values) { v.Del("iss") },
		"an empty issuer":   func(v url.Values) { v.Set("iss", "") },
		"an error":          func(v url.Values) { v.Set("error", "access_denied"); v.Del("code") },
		"an error and code": func(v url.Values) { v.Set("error", "<script>") },
		"no code":           func(v url.Values) { v.Del("code") },
		"two codes":         func(v url.Values) { v.Add("code", "x") },
		"another state":     func(v url.Values) { v.Set("state", "x") },
	} {
		r.provider.Lie(oidctest.Lies{Answer: lie})
		asked := r.provider.Asked("/token")
		_, err := r.whole()
		if muster.KindOf(err) != muster.Forbidden || strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "script") {
			t.Errorf("with %s: %v", name, err)
		}
		if r.provider.Asked("/token") != asked {
			t.Errorf("with %s a code is given away", name)
		}
	}
}

func TestAnIDTokenThatDoesNotHoldIsRefused(t *testing.T) {
	r := newRig(t)
	set := func(name string, v any) oidctest.Lies {
		return oidctest.Lies{Claims: func(c map[string]any) {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}}
	}
	encode := base64.RawURLEncoding.EncodeToString
	unsigned := func(alg string) func([]byte, *ecdsa.PrivateKey) string {
		return func(claims []byte, _ *ecdsa.PrivateKey) string {
			return encode([]byte(`{"alg":"`+alg+`"}`)) + "." + encode(claims) + "."
		}
	}
	for name, lie := range map[string]oidctest.Lies{
		"another nonce":          set("nonce", "another"),
		"no nonce":               set("nonce", nil),
		"another audience":       set("aud", "another"),
		"no audience":            set("aud", nil),
		"more audiences":         set("aud", []string{oidctest.ClientID, "another"}),
		"another party":          set("azp", "another"),
		"another issuer":         set("iss", "https://evil.example"),
		"an expiry in the past":  set("exp", time.Now().Add(-time.Minute).Unix()),
		"no expiry":              set("exp", nil),
		"a hash of another code": set("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
		"no signature":           {Sign: unsigned("none")},
		"no signature, in words": {Sign: unsigned("NoNe")},
		"a signature missing":    {Sign: unsigned("ES256")},
		"another key": {Sign: func(c []byte, _ *ecdsa.PrivateKey) string {
			return oidctest.Sign(c, oidctest.NewKey(), "other")
		}},
		"the public key as a shared secret": {Sign: func(c []byte, k *ecdsa.PrivateKey) string {
			head := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(c)
			public, err := k.PublicKey.Bytes()
			must(t, err)
			mac := hmac.New(sha256.New, public)
			mac.Write([]byte(head))
			return head + "." + encode(mac.Sum(nil))
		}},
		"no token": {Sign: func([]byte, *ecdsa.PrivateKey) string { return "" }},
	} {
		t.Run(name, func(t *testing.T) {
			r.provider.Lie(lie)
			if who, err := r.whole(); muster.KindOf(err) != muster.Forbidden {
				t.Errorf("signed in as %+v: %v", who, err)
			}
		})
	}
	r.provider.Lie(oidctest.Lies{})
	_, err := r.whole()
	must(t, err)
}

func TestGroupsOfTheProviderBecomeTheHighestRole(t *testing.T) {
	for _, tt := range []struct {
		name   string
		claim  string
		groups []string
		more   map[string]any
		want   string
	}{
		{"no claim is named: roles are given here", "", []string{"root"}, nil, ""},
		{"nobody's group is a viewer", "groups", []string{"staff"}, nil, accounts.Viewer},
		{"no group is a viewer", "groups", nil, nil, accounts.Viewer},
		{"an operator", "groups", []string{"staff", "ops"}, nil, accounts.Operator},
		{"the highest counts", "groups", []string{"root", "ops"}, nil, accounts.Admin},
		{"one group as text", "role", nil, map[string]any{"role": "root"}, accounts.Admin},
		{"groups within an object", "realm.roles", nil, map[string]any{"realm": map[string]any{"roles": []any{"ops", 1}}}, accounts.Operator},
		{"a claim with dots in its name", "https://x.example/roles", nil, map[string]any{"https://x.example/roles": []any{"root"}}, accounts.Admin},
		{"a claim that is a number", "role", nil, map[string]any{"role": 7}, accounts.Viewer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(c *oidc.Config) {
				if c.RoleClaim = tt.claim; tt.claim != "" {
					c.RoleMap = map[string]string{"root": accounts.Admin, "ops": accounts.Operator}
				}
			})
			r.provider.SetUser(oidctest.User{Subject: "ada", Email: "a@example.com", Groups: tt.groups})
			r.provider.Lie(oidctest.Lies{Claims: func(c map[string]any) {
				maps.Copy(c, tt.more)
			}})
			who, err := r.whole()
			if err != nil || who.Role != tt.want || who.EmailVerified {
				t.Errorf("became %+v, %v", who, err)
			}
		})
	}
}

func TestWhatTheIDTokenDoesNotSayIsAskedForAndMustBeOfTheSameUser(t *testing.T) {
	r := newRig(t)
	bare := func(c map[string]any) { delete(c, "email"); delete(c, "email_verified") }
	r.provider.Lie(oidctest.Lies{Claims: bare})
	who, err := r.whole()
	if err != nil || who.Email != "ada@example.com" || !who.EmailVerified {
		t.Errorf("became %+v, %v", who, err)
	}
	r.provider.Lie(oidctest.Lies{Claims: bare, Info: func(c map[string]any) { c["sub"] = "root" }})
	if who, err := r.whole(); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("became %+v, %v", who, err)
	}
}

func TestAProviderThatIsAwayIsAskedAgainLater(t *testing.T) {
	r := newRig(t)
	r.provider.Lie(oidctest.Lies{Away: true})
	begin := func() error {
		return r.open.Start(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), "/")
	}
	for range 3 {
		if err := begin(); muster.KindOf(err) != muster.Unavailable {
			t.Fatalf("start gives %v", err)
		}
	}
	if n := r.provider.Asked("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("it was asked %d times at once", n)
	}
	r.provider.Lie(oidctest.Lies{})
	r.later(6 * time.Second)
	_, err := r.whole()
	must(t, err)
	c, to := r.start()
	back := r.visit(to)
	r.provider.Lie(oidctest.Lies{Away: true})
	if _, _, err := r.finish(back, c); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("finish gives %v", err)
	}
	r.provider.Lie(oidctest.Lies{})
	r.provider.Rotate()
	_, err = r.whole()
	must(t, err)
}

func TestErrorsSayNothingOfCodesTokensAndTheClientsSecret(t *testing.T) {
	r := newRig(t)
	var said []string
	for _, lie := range []oidctest.Lies{
		{Answer: func(v url.Values) { v.Set("code", "the-code-of-somebody-else") }},
		{Claims: func(c map[string]any) { c["aud"] = "x" }},
		{Sign: func([]byte, *ecdsa.PrivateKey) string { return "not.a.token-but-secret" }},
	} {
		r.provider.Lie(lie)
		_, err := r.whole()
		for ; err != nil; err = unwrap(err) {
			said = append(said, err.Error())
		}
	}
	for _, secret := range append(r.provider.Secrets(), "the-code-of-somebody-else", "token-but-secret") {
		if secret != "" && strings.Contains(strings.Join(said, "\n"), secret) {
			t.Errorf("an error says %.12s...", secret)
		}
	}
	if len(said) < 4 {
		t.Errorf("the errors are %q", said)
	}
}

func unwrap(err error) error {
	u, ok := err.(interface{ Unwrap() error })
	if !ok {
		return nil
	}
	return u.Unwrap()
}

func TestAConfigThatCannotWorkIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  oidc.Config
		ok   bool
	}{
		{"https", oidc.Config{Issuer: "https://id.example.com/realms/x", ClientID: "c"}, true},
		{"http on this machine", oidc.Config{Issuer: "http://127.0.0.1:9000", ClientID: "c"}, true},
		{"http elsewhere", oidc.Config{Issuer: "http://id.example.com", ClientID: "c"}, false},
		{"no issuer", oidc.Config{ClientID: "c"}, false},
		{"an issuer with a query", oidc.Config{Issuer: "https://id.example.com?x", ClientID: "c"}, false},
		{"an issuer with a password", oidc.Config{Issuer: "https://a:b@id.example.com", ClientID: "c"}, false},
		{"no client", oidc.Config{Issuer: "https://id.example.com"}, false},
		{"groups without a claim", oidc.Config{Issuer: "https://id.example.com", ClientID: "c", RoleMap: map[string]string{"x": "admin"}}, false},
		{"an unknown role", oidc.Config{Issuer: "https://id.example.com", ClientID: "c", RoleClaim: "g", RoleMap: map[string]string{"x": "root"}}, false},
	} {
		if err := tt.cfg.Check(); (err == nil) != tt.ok || err != nil && muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
