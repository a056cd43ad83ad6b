package server_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"

	"muster/accounts"
	"muster/oidc/oidctest"
	"muster/server"
	"muster/server/servertest"
)

// said is a log that a test can read.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// visitor is a browser that knows no person yet.
func visitor(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: http.DefaultTransport}
}

// fetch gets a page, following redirects.
func fetch(t *testing.T, c *http.Client, to string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site") // as a browser says that comes back from the provider
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func withProvider(t *testing.T, log *said, change ...func(*server.Config)) (*oidctest.Provider, *server.Server) {
	t.Helper()
	p := oidctest.New()
	t.Cleanup(p.Close)
	p.SetUser(oidctest.User{Subject: "ada", Email: "ada@example.com", Verified: true, Name: "Ada", Groups: []string{"ops"}})
	s := servertest.Start(t, append([]func(*server.Config){func(c *server.Config) {
		c.OIDC = server.OIDCConfig{
			Issuer: p.Issuer(), ClientID: oidctest.ClientID, ClientSecret: oidctest.ClientSecret, Name: "Test ID", RoleClaim: "groups",
			Admin: []string{"root"}, Operator: []string{"ops"}, Create: true,
		}
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	}}, change...)...)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return p, s
}

func TestAPersonSignsInByTheProviderAndHasTheRoleOfHisGroups(t *testing.T) {
	log := &said{}
	p, s := withProvider(t, log)
	c := visitor(t)
	_, text := fetch(t, c, s.URL()+"/api/v1/session/methods")
	if !strings.Contains(text, `"name":"Test ID"`) || !strings.Contains(text, `"start":"/api/v1/oidc/start"`) {
		t.Errorf("the methods are %s", text)
	}
	who := func(want string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var me struct{ Name, Role string }
		if err := json.NewDecoder(res.Body).Decode(&me); err != nil || me.Name != "Ada" || me.Role != want {
			t.Errorf("signed in as %+v, %v", me, err)
		}
	}
	res, _ := fetch(t, c, s.URL()+"/api/v1/oidc/start?next="+url.QueryEscape("/devices?q=x"))
	if res.StatusCode != http.StatusOK || res.Request.URL.RequestURI() != "/devices?q=x" || !strings.HasPrefix(res.Request.URL.String(), s.URL()) {
		t.Errorf("the browser is at %s: %s", res.Request.URL, res.Status)
	}
	who(accounts.Operator)
	p.SetUser(oidctest.User{Subject: "ada", Email: "ada@example.com", Verified: true, Groups: []string{"root"}})
	fetch(t, c, s.URL()+"/api/v1/oidc/start")
	who(accounts.Admin)
	p.SetUser(oidctest.User{Subject: "eve", Email: "ada@example.com", Verified: true, Groups: []string{"root"}})
	res, text = fetch(t, visitor(t), s.URL()+"/api/v1/oidc/start")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(text, "not linked to this provider") || res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("another person with the same e-mail gets %s: %s", res.Status, text)
	}
	for _, secret := range p.Secrets() {
		if secret != "" && strings.Contains(log.String(), secret) {
			t.Errorf("the log has %.12s...", secret)
		}
	}
}

func TestTheProvidersWayLeadsToNoOtherSite(t *testing.T) {
	_, s := withProvider(t, &said{})
	for _, next := range []string{
		"https://evil.example/", "//evil.example/", `/\evil.example/`, "/\t/evil.example/", "/%09/evil.example/\r\nX: y", "evil.example", "javascript:alert(1)",
		"/api/v1/oidc/start", "/x/..//evil.example/", "/./" + "/evil.example/", "/" + strings.Repeat("x", 600),
	} {
		res, _ := fetch(t, visitor(t), s.URL()+"/api/v1/oidc/start?next="+url.QueryEscape(next))
		if res.Request.URL.Host != strings.TrimPrefix(s.URL(), "http://") || res.Request.URL.Path != "/" || res.Header.Get("X") != "" {
			t.Errorf("next=%q leads to %s", next, res.Request.URL)
		}
	}
}

func TestAProviderThatIsAwayKeepsNobodyOut(t *testing.T) {
	p, s := withProvider(t, &said{})
	p.Lie(oidctest.Lies{Away: true})
	res, text := fetch(t, visitor(t), s.URL()+"/api/v1/oidc/start")
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "does not answer") {
		t.Errorf("the page says %s: %s", res.Status, text)
	}
	if res, _ := fetch(t, visitor(t), s.URL()+"/api/v1/oidc/callback?state=x&code=y&iss=z"); res.StatusCode != http.StatusForbidden {
		t.Errorf("an answer to nothing gives %s", res.Status)
	}
	if res, _ := fetch(t, visitor(t), s.URL()+"/"); res.StatusCode != http.StatusOK {
		t.Errorf("the page gives %s", res.Status)
	}
}
