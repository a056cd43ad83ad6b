package server_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"muster/server"
	"muster/server/servertest"
)

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestNoSecretIsInALogAMetricAProblemOrTheAuditLog(t *testing.T) {
	var log safeBuffer
	const (
		password = "planted-password-of-the-admin"
		smtp     = "planted-smtp-password"
		token    = "planted-device-token-0123456789"
		secret   = "planted-device-secret-0123456789"
		wrong    = "mst_planted-wrong-key-0123456789"
		inBody   = "planted-in-a-bad-body"
	)
	s := servertest.Start(t, func(c *server.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.AdminEmail, c.AdminPassword = "ada@example.com", password
		c.SMTP = "smtp://planted-user:" + smtp + "@127.0.0.1:1?from=m@example.com"
	})
	planted := []string{servertest.AdminKey, password, smtp, token, secret, wrong, inBody}
	var seen strings.Builder // everything that is answered and must hold no secret
	ask := func(method, path, key, body string, cookies ...*http.Cookie) *http.Response {
		t.Helper()
		r := request(t, s, method, path, key, body, cookies...)
		if r.StatusCode >= 400 || method == http.MethodGet {
			text, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&seen, "%s %s: %v\n%s\n", method, path, r.Header, text)
		}
		return r
	}
	ask(http.MethodPost, "/api/v1/devices", servertest.AdminKey, `{"id":"d","token":"`+token+`"}`)
	ask(http.MethodPost, "/api/v1/devices/d/credentials", servertest.AdminKey, `{"secret":"`+secret+`"}`)
	ask(http.MethodPost, "/api/v1/devices", servertest.AdminKey, `{"id":"e","token":"`+token+`"}`)                   // taken
	ask(http.MethodPost, "/api/v1/devices", servertest.AdminKey, `{"id":"e","secret":"`+secret+`","x":"`+inBody+`"`) // broken off
	ask(http.MethodPost, "/api/v1/devices", servertest.AdminKey, `{"id":7,"token":["`+inBody+`"],"unknown":"`+inBody+`"}`)
	var hook struct{ Secret string }
	call(t, s, http.MethodPost, "/api/v1/webhooks", map[string]any{"url": "https://127.0.0.1:1/x", "types": []string{"*"}}, &hook)
	var key struct{ Secret string }
	call(t, s, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"devices:read", "mqtt"}}, &key)
	signedIn := ask(http.MethodPost, "/api/v1/session", "", fmt.Sprintf(`{"key":%q}`, servertest.AdminKey))
	planted = append(planted, hook.Secret, key.Secret, signedIn.Cookies()[0].Value, strings.TrimPrefix(s.SetupLink(), s.URL()+"/setup/"))
	ask(http.MethodPost, "/api/v1/session", "", fmt.Sprintf(`{"key":%q}`, wrong))
	ask(http.MethodGet, "/api/v1/devices", wrong, "")
	ask(http.MethodPost, "/api/v1/devices", "", "{}", signedIn.Cookies()...)
	dial(t, s, "by-token", token, "").wantLive(t)
	dial(t, s, "by-secret", "d", secret).wantLive(t)
	dial(t, s, "by-key", key.Secret, "").wantLive(t)
	for _, path := range []string{
		"/api/v1/system", "/api/v1/audit?limit=1000", "/api/v1/devices/d", "/api/v1/devices/d/credentials", "/api/v1/devices/d/logins", "/api/v1/logins",
		"/api/v1/api-keys", "/api/v1/webhooks", "/api/v1/clients", "/api/v1/users", "/api/v1/devices:export", "/metrics", "/readyz", "/healthz", "/api/openapi.json",
	} {
		if r := ask(http.MethodGet, path, servertest.AdminKey, "", signedIn.Cookies()...); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	text := seen.String() + log.String()
	if len(log.String()) == 0 {
		t.Error("nothing was logged")
	}
	for _, p := range planted {
		if at := strings.Index(text, p); p != "" && at >= 0 {
			t.Errorf("%.12s... is in %q", p, text[max(0, at-300):at])
		}
	}
}
