package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/notify/email/mailtest"
	"muster/oidc/oidctest"
	"muster/store/control/controltest"
)

// visitor is a browser without a screen: it keeps cookies and follows links.
type visitor struct {
	*testing.T
	c    *http.Client
	base string
}

func newVisitor(t *testing.T, m *muster) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, &http.Client{Jar: jar, Timeout: requestLimit, Transport: &http.Transport{DisableKeepAlives: true}}, "http://" + m.http}
}

// ask sends a request as its page would, and returns the answer's body.
func (v *visitor) ask(method, path string, in any, want int) map[string]any {
	v.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		v.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, v.base+path, bytes.NewReader(raw))
	if err != nil {
		v.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := v.c.Do(req)
	if err != nil {
		v.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != want {
		v.Fatalf("%s %s gives %d %.300s, want %d: %v", method, path, res.StatusCode, text, want, err)
	}
	var out map[string]any
	if strings.HasSuffix(res.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(text, &out); err != nil {
			v.Fatal(err)
		}
	}
	return out
}

func (v *visitor) is(name, role string) {
	v.Helper()
	if me := v.ask(http.MethodGet, "/api/v1/me", nil, http.StatusOK); me["name"] != name || me["role"] != role {
		v.Errorf("signed in as %v, want %s as %s", me, name, role)
	}
}

// linkTo is the end of a link in a mail.
func linkTo(t *testing.T, text, path string) string {
	t.Helper()
	found := regexp.MustCompile(`http://127\.0\.0\.1:\d+` + regexp.QuoteMeta(path) + `([A-Z2-7]{26})`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("there is no link to %s in %s", path, text)
	}
	return found[1]
}

// TestPeopleComeInByLinkInvitationMailAndProvider walks their ways through the binary's own flags
// on every store: the first admin by the set-up link, the second by an invitation that is
// mailed, a forgotten password by a mailed link, and somebody by a provider. The server is
// killed in between.
func TestPeopleComeInByLinkInvitationMailAndProvider(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			post := mailtest.Start(t, mailtest.Config{User: "muster", Password: "hush-hush"})
			p := oidctest.New()
			t.Cleanup(p.Close)
			p.SetUser(oidctest.User{Subject: "eve", Email: "eve@example.com", Verified: true, Name: "Eve Lind", Groups: []string{"ops"}})
			m := newMuster(t)
			m.env = []string{"MUSTER_OIDC_CLIENT_SECRET=" + oidctest.ClientSecret}
			m.args = []string{
				"--public-url", "http://" + m.http, "--smtp", post.URL("muster@example.org"), "--oidc-issuer", p.Issuer(), "--oidc-client-id", oidctest.ClientID,
				"--oidc-create", "--oidc-role-claim", "groups", "--oidc-operator", "ops",
			}
			if engine == "postgres" {
				m.args = append(m.args, "--database", controltest.Database(t, timescale(t)))
			}
			m.start()
			m.ready()

			root, ada := newVisitor(t, m), newVisitor(t, m)
			m.await("the set-up link", startLimit, func() bool { return strings.Contains(tail(m.outPath, 4<<10), "/setup/") })
			root.ask(http.MethodGet, "/setup/"+linkTo(t, m.setupLink(), "/setup/"), nil, http.StatusOK)
			root.ask(http.MethodPost, "/api/v1/setup", map[string]string{"name": "Root", "email": "root@example.com", "password": firstPassword}, http.StatusCreated)
			root.is("Root", "admin")
			root.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "ada@example.com", "role": "admin"}, http.StatusCreated)
			m.kill() // the invitation's mail may be sent or not: the link was shown, too, and a new one is to be had
			m.start()
			m.ready()
			invited := root.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": "ada@example.com", "role": "admin"}, http.StatusCreated)
			token := linkTo(t, invited["invitation"].(string), "/invite/")
			m.await("its mail", workLimit, func() bool {
				return slices.ContainsFunc(post.Mails(), func(mail mailtest.Mail) bool {
					return mail.To[0] == "ada@example.com" && strings.Contains(mail.Text, "/invite/"+token)
				})
			})
			ada.ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": token, "name": "Ada Kern", "password": firstPassword}, http.StatusOK)
			ada.is("Ada Kern", "admin")
			ada.ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": token, "name": "Thief", "password": secondPassword}, http.StatusNotFound)
			ada.ask(http.MethodGet, "/api/v1/audit", nil, http.StatusOK)

			came := len(post.Mails())
			stranger := newVisitor(t, m)
			stranger.ask(http.MethodPost, "/api/v1/password/forgot", map[string]string{"email": "nobody@example.com"}, http.StatusAccepted)
			stranger.ask(http.MethodPost, "/api/v1/password/forgot", map[string]string{"email": "Ada@example.com"}, http.StatusAccepted)
			reset := linkTo(t, post.Wait(t, came+1)[came].Text, "/reset/")
			m.kill() // a link that was mailed is kept
			m.start()
			m.ready()
			ada.is("Ada Kern", "admin")
			set := map[string]string{"token": reset, "password": secondPassword}
			stranger.ask(http.MethodPost, "/api/v1/password/reset", set, http.StatusNoContent)
			stranger.ask(http.MethodPost, "/api/v1/password/reset", set, http.StatusNotFound)
			ada.ask(http.MethodGet, "/api/v1/me", nil, http.StatusUnauthorized)
			ada.ask(http.MethodPost, "/api/v1/session", map[string]string{"email": "ada@example.com", "password": firstPassword}, http.StatusUnauthorized)
			ada.ask(http.MethodPost, "/api/v1/session", map[string]string{"email": "ada@example.com", "password": secondPassword}, http.StatusOK)
			ada.is("Ada Kern", "admin")
			root.is("Root", "admin")

			eve := newVisitor(t, m)
			eve.ask(http.MethodGet, "/api/v1/oidc/start", nil, http.StatusOK)
			eve.is("Eve Lind", "operator")
			eve.ask(http.MethodGet, "/api/v1/audit", nil, http.StatusForbidden)
			m.kill()
			m.start()
			m.ready()
			eve.is("Eve Lind", "operator")
			m.wantAudited("user.create", "user.invite", "user.accept", "user.reset", "user.link")
			m.stop()
			for _, secret := range append(p.Secrets(), token, reset, firstPassword, secondPassword, "hush-hush", oidctest.ClientSecret, m.key) {
				if secret != "" && strings.Contains(tail(m.errPath, 8<<20), secret) {
					t.Errorf("the log has %.6s...", secret)
				}
			}
		})
	}
}

// wantAudited looks for actions in the audit log.
func (m *muster) wantAudited(actions ...string) {
	m.t.Helper()
	var page struct{ Items []struct{ Action string } }
	m.await("the audit log", 10*time.Second, func() bool {
		page.Items = nil
		m.ask(http.MethodGet, "/api/v1/audit?limit=1000", nil, http.StatusOK, &page)
		for _, want := range actions {
			if !slices.ContainsFunc(page.Items, func(r struct{ Action string }) bool { return r.Action == want }) {
				return false
			}
		}
		return true
	})
}
