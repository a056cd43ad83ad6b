package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/pquerna/otp/totp"

	"muster/notify/email/mailtest"
	"muster/oidc/oidctest"
	"muster/server"
	"muster/server/servertest"
)

// garden is a server in which secrets are planted, and all that it says to those who need not
// know them.
type garden struct {
	*testing.T
	s       *server.Server
	log     *said
	seen    strings.Builder
	planted map[string]string // what it is -> the secret
}

// ask sends a request; what it is answered is seen unless it is an answer that issues a secret.
func (g *garden) ask(method, path, key string, body any, issues bool, options ...func(*http.Request)) (*http.Response, map[string]any) {
	g.Helper()
	text, isText := body.(string)
	if !isText && body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			g.Fatal(err)
		}
		text = string(raw)
	}
	req, err := http.NewRequestWithContext(g.Context(), method, g.s.URL()+path, strings.NewReader(text))
	if err != nil {
		g.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for _, o := range options {
		o(req)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		g.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		g.Fatal(err)
	}
	if issues && res.StatusCode < 400 {
		var v map[string]any
		_ = json.Unmarshal(answer, &v) // some answers have no body
		return res, v
	}
	said, _, _ := strings.Cut(path, "?") // what was asked for is the test's own
	fmt.Fprintf(&g.seen, "%s %s: %s %v\n%s\n", method, said, res.Status, res.Header, answer)
	return res, nil
}

// issued does what issues a secret, and plants it.
func (g *garden) issued(what, method, path, key string, body any, where ...string) string {
	g.Helper()
	res, v := g.ask(method, path, key, body, true, func(r *http.Request) { r.Header.Set("Idempotency-Key", "planted") })
	if res.StatusCode >= 400 {
		g.Fatalf("%s %s gives %s", method, path, res.Status)
	}
	secret := of(v, where...)
	if len(secret) < 8 {
		g.Fatalf("%s: there is no %v in %v", what, where, v)
	}
	g.planted[what] = secret
	again, replay := g.ask(method, path, key, body, true, func(r *http.Request) { r.Header.Set("Idempotency-Key", "planted") })
	if again.Header.Get("Idempotency-Replayed") != "true" || of(replay, where...) != secret {
		g.Errorf("%s: the answer is not given again", what)
	}
	return secret
}

// linkIn plants the token of a link.
func (g *garden) linkIn(what, text, path string) string {
	g.Helper()
	found := regexp.MustCompile(regexp.QuoteMeta(path) + `([A-Z2-7]{26})`).FindStringSubmatch(text)
	if found == nil {
		g.Fatalf("there is no link to %s", path)
	}
	g.planted[what] = found[1]
	return found[1]
}

func cookied(c *http.Cookie) func(*http.Request) { return func(r *http.Request) { r.AddCookie(c) } }

const plantedPassword, plantedNext = "planted-password-of-ada", "planted-password-of-ada-2"

// people plants what people have: passwords, links, sessions, second factors.
func (g *garden) people(post *mailtest.Server) {
	g.Helper()
	admin := servertest.AdminKey
	g.planted["password"], g.planted["next password"] = plantedPassword, plantedNext
	_, made := g.ask(http.MethodPost, "/api/v1/users", admin, map[string]string{"email": "ada@example.com", "role": "viewer"}, true)
	invite := g.linkIn("invitation", of(made, "invitation"), "/invite/")
	g.ask(http.MethodPost, "/api/v1/invitations/accept", "", map[string]string{"token": invite, "password": "short"}, false)
	in, _ := g.ask(http.MethodPost, "/api/v1/invitations/accept", "", map[string]string{"token": invite, "name": "Ada", "password": plantedPassword}, true)
	g.ask(http.MethodPost, "/api/v1/invitations/accept", "", map[string]string{"token": invite, "name": "Ada", "password": plantedPassword}, false)
	g.ask(http.MethodGet, "/invite/"+g.planted["invitation"]+"x", "", nil, true)
	session := in.Cookies()[0]
	g.planted["session"] = session.Value
	g.ask(http.MethodPost, "/api/v1/me/password", "", map[string]string{"old": plantedNext, "password": plantedPassword}, false, cookied(session))
	_, factor := g.ask(http.MethodPost, "/api/v1/me/totp", "", nil, true, cookied(session))
	g.planted["TOTP secret"] = of(factor, "secret")
	g.ask(http.MethodPost, "/api/v1/me/totp/confirm", "", map[string]string{"code": "000000"}, false, cookied(session))
	code, err := totp.GenerateCode(g.planted["TOTP secret"], time.Now())
	if err != nil {
		g.Fatal(err)
	}
	_, codes := g.ask(http.MethodPost, "/api/v1/me/totp/confirm", "", map[string]string{"code": code}, true, cookied(session))
	for i, c := range codes["recovery_codes"].([]any) {
		g.planted[fmt.Sprint("recovery code ", i)], _ = c.(string)
	}
	signIn := map[string]string{"email": "ada@example.com", "password": plantedPassword}
	g.ask(http.MethodPost, "/api/v1/session", "", signIn, false) // the code is missing
	signIn["code"] = g.planted["recovery code 0"]
	by, _ := g.ask(http.MethodPost, "/api/v1/session", "", signIn, true)
	g.planted["session by a recovery code"] = by.Cookies()[0].Value
	g.ask(http.MethodPost, "/api/v1/session", "", signIn, false) // it was used
	g.ask(http.MethodPost, "/api/v1/password/forgot", "", map[string]string{"email": "ada@example.com"}, false)
	reset := g.linkIn("reset link", post.Wait(g, 2)[1].Text, "/reset/")
	g.ask(http.MethodPost, "/api/v1/password/reset", "", map[string]string{"token": reset, "password": "short"}, false)
	g.ask(http.MethodPost, "/api/v1/password/reset", "", map[string]string{"token": reset, "password": plantedNext}, false)
	g.ask(http.MethodPost, "/api/v1/password/reset", "", map[string]string{"token": reset, "password": plantedNext}, false)
	g.ask(http.MethodGet, "/api/v1/me", "", nil, false, cookied(session)) // it has ended
	post.Fail(mailtest.SignIn, mailtest.Fault{Code: 535, Enhanced: [3]int{5, 7, 8}, Text: "no"})
	g.ask(http.MethodPost, "/api/v1/password/forgot", "", map[string]string{"email": "ada@example.com"}, false)
	until(g.T, "the mail that fails in the list", func() bool {
		_, body := g.ask(http.MethodGet, "/api/v1/deliveries?channel=email&state=queued", servertest.AdminKey, nil, true)
		return strings.Contains(fmt.Sprint(body), "535")
	})
}

// machines plants what machines have: keys, device credentials, webhook secrets.
func (g *garden) machines() {
	g.Helper()
	admin := servertest.AdminKey
	key := g.issued("API key", http.MethodPost, "/api/v1/api-keys", admin, map[string]any{"name": "k", "scopes": []string{"devices:read", "mqtt"}}, "secret")
	token := g.issued("device token", http.MethodPost, "/api/v1/devices", admin, map[string]string{"id": "d"}, "credential", "token")
	g.issued("device secret", http.MethodPost, "/api/v1/devices/d/credentials", admin, map[string]string{"kind": "secret"}, "credential", "password")
	g.issued("service account", http.MethodPost, "/api/v1/service-accounts", admin, map[string]string{"name": "svc"}, "secret")
	g.issued("adoption key", http.MethodPost, "/api/v1/adoption-keys", admin, map[string]string{"name": "line"}, "secret")
	g.issued("claim code", http.MethodPost, "/api/v1/devices/d/claim-code", admin, map[string]any{}, "code")
	hook := map[string]any{"url": "https://127.0.0.1:1/x", "types": []string{"*"}}
	g.issued("webhook secret", http.MethodPost, "/api/v1/webhooks", admin, hook, "secret")
	_, made := g.ask(http.MethodPost, "/api/v1/webhooks", admin, hook, true)
	at := "/api/v1/webhooks/" + of(made, "webhook", "id")
	g.planted["webhook secret without its prefix"] = strings.TrimPrefix(g.planted["webhook secret"], "whsec_")
	g.issued("rotated webhook secret", http.MethodPost, at+"/rotate", admin, map[string]any{}, "secret")
	g.ask(http.MethodPost, at+"/test", admin, nil, false)
	g.ask(http.MethodPost, "/api/v1/devices", admin, map[string]string{"id": "e", "token": token}, false) // taken
	g.ask(http.MethodPost, "/api/v1/devices", key, `{"id":"`+token+`","x":"`+key+`"`, false)
	g.ask(http.MethodGet, "/api/v1/devices?q=%28"+url.QueryEscape(token), admin, nil, false)
	g.ask(http.MethodPost, "/api/v1/claims", admin, map[string]string{"code": g.planted["claim code"] + "X"}, false)
	for _, login := range [][2]string{{token, "x" + token}, {"d", g.planted["device secret"] + "x"}, {"svc", g.planted["service account"]}, {key, ""}, {key + "x", ""}, {"nobody", g.planted["adoption key"]}} {
		tryMQTT(g.T, g.s, login[0], login[1])
	}
}

// strangers has people come by a provider.
func (g *garden) strangers(p *oidctest.Provider) {
	g.Helper()
	fetch(g.T, visitor(g.T), g.s.URL()+"/api/v1/oidc/start")
	p.Lie(oidctest.Lies{Answer: func(v url.Values) { v.Set("code", "wrong") }})
	_, page := fetch(g.T, visitor(g.T), g.s.URL()+"/api/v1/oidc/start")
	g.seen.WriteString(page)
	p.Lie(oidctest.Lies{Away: true})
	_, page = fetch(g.T, visitor(g.T), g.s.URL()+"/api/v1/oidc/start")
	g.seen.WriteString(page)
	for i, secret := range p.Secrets() {
		g.planted[fmt.Sprint("code, token or verifier ", i)] = secret
	}
}

func TestNoPlantedSecretIsFoundWhereItMustNotBe(t *testing.T) {
	const smtp, wrong = "planted-smtp-password", "mst_planted-wrong-key-0123456789"
	log := &said{}
	post := mailtest.Start(t, mailtest.Config{User: "planted", Password: smtp})
	dir := t.TempDir()
	p, s := withProvider(t, log, func(c *server.Config) {
		c.DataDir, c.SMTP = dir, post.URL("m@example.com")
		c.AdminEmail, c.AdminPassword = "root@example.com", "planted-password-of-root"
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	g := &garden{T: t, s: s, log: log, planted: map[string]string{
		"SMTP password": smtp, "wrong key": wrong, "admin key": servertest.AdminKey, "OIDC client secret": oidctest.ClientSecret, "admin password": "planted-password-of-root",
	}}
	g.machines()
	g.people(post)
	g.strangers(p)
	g.ask(http.MethodGet, "/api/v1/devices", wrong, nil, false)
	g.ask(http.MethodPost, "/api/v1/session", "", map[string]string{"key": wrong}, false)
	for _, path := range []string{
		"/api/v1/system", "/api/v1/audit?limit=1000", "/api/v1/devices/d", "/api/v1/devices/d/credentials", "/api/v1/devices/d/logins", "/api/v1/logins", "/api/v1/inbox",
		"/api/v1/api-keys", "/api/v1/webhooks", "/api/v1/clients", "/api/v1/users", "/api/v1/sessions", "/api/v1/service-accounts", "/api/v1/adoption-keys", "/api/v1/tasks",
		"/api/v1/devices:export", "/metrics", "/readyz", "/healthz", "/api/openapi.json", "/api/asyncapi.json", "/",
	} {
		if res, _ := g.ask(http.MethodGet, path, servertest.AdminKey, nil, false); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	g.search(log.String()+g.seen.String(), "a log, an answer or a metric")
	g.searchFiles(dir)
	if len(g.planted) < 30 || !strings.Contains(log.String(), "level=") {
		t.Errorf("%d secrets were planted", len(g.planted))
	}
}

// search looks for each secret in a text.
func (g *garden) search(text, where string) {
	g.Helper()
	for what, secret := range g.planted {
		if at := strings.Index(text, secret); secret == "" || at >= 0 {
			g.Errorf("the %s (%.6s...) is in %s: %q", what, secret, where, text[max(0, at-200):max(0, at)])
		}
	}
}

// searchFiles looks for each secret in what is kept on disk: hashes and sealed texts are there.
func (g *garden) searchFiles(dir string) {
	g.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for what, secret := range g.planted {
			if bytes.Contains(text, []byte(secret)) {
				g.Errorf("the %s is in %s", what, filepath.Base(path))
			}
		}
		return nil
	})
	if err != nil || files < 4 {
		g.Errorf("%d files were read: %v", files, err)
	}
}

// TestADatabasesPasswordIsInNoErrorAndNoLog has URLs that are none, lead nowhere, or are refused.
func TestADatabasesPasswordIsInNoErrorAndNoLog(t *testing.T) {
	const password = "planted-db-password"
	for name, dsn := range map[string]string{
		"a server that is away":       "postgres://u:" + password + "@127.0.0.1:1/x?connect_timeout=1",
		"a host that is none":         "postgres://u:" + password + "@no-such-host.invalid/x?connect_timeout=1",
		"an escape that is none":      "postgres://u:" + password + "%zz@127.0.0.1:1/x",
		"a port that is none":         "postgres://u:" + password + "@127.0.0.1:port/x",
		"a host that does not end":    "postgres://u:" + password + "@[::1/x",
		"another scheme":              "mysql://u:" + password + "@127.0.0.1/x",
		"a setting that is none":      "postgres://u:" + password + "@127.0.0.1:1/x?sslmode=maybe",
		"words in the place of a URL": "host=127.0.0.1 port=1 user=u password=" + password,
		"the password as a setting":   "postgres://u@127.0.0.1:1/x?connect_timeout=1&password=" + password,
		"a certificate that is none":  "postgres://u:" + password + "@127.0.0.1:1/x?sslmode=verify-full&sslrootcert=/nowhere",
	} {
		t.Run(name, func(t *testing.T) {
			log := &said{}
			s, err := server.New(t.Context(), server.Config{
				DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, DatabaseURL: dsn,
				Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Now: time.Now,
			})
			if err == nil {
				_ = s.Stop(t.Context())
				t.Fatal("the server is made")
			}
			if text := fmt.Sprintf("%v %+v %s", err, err, log.String()); strings.Contains(text, password) {
				t.Errorf("it says %s", text)
			}
		})
	}
}

// TestADatabasesPasswordIsNowhereWhileItWorks has a role with a password, which the server is
// refused in the middle of its work.
func TestADatabasesPasswordIsNowhereWhileItWorks(t *testing.T) {
	const password = "planted-db-password"
	dsn, conn := database(t, "MUSTER_TEST_TIMESCALE")
	role := fmt.Sprintf("planted_%d", time.Now().UnixNano())
	if _, err := conn.Exec(t.Context(), "CREATE ROLE "+role+" LOGIN SUPERUSER PASSWORD '"+password+"'"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the server has stopped
		ctx := context.WithoutCancel(t.Context())
		for _, do := range []string{"REASSIGN OWNED BY " + role + " TO CURRENT_USER", "DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := conn.Exec(ctx, do); err != nil {
				t.Error(err)
			}
		}
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, password)
	log := &said{}
	s := servertest.Start(t, func(c *server.Config) {
		c.DatabaseURL = u.String()
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	g := &garden{T: t, s: s, log: log, planted: map[string]string{"database password": password}}
	g.ask(http.MethodPost, "/api/v1/devices", servertest.AdminKey, map[string]string{"id": "d"}, false)
	if _, err := conn.Exec(t.Context(), "ALTER ROLE "+role+" NOLOGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role); err != nil {
		t.Fatal(err)
	}
	until(t, "the store to be away", func() bool {
		g.ask(http.MethodPost, "/api/v1/telemetry?device=d", servertest.AdminKey, map[string]int{"n": 1}, false) // the writer sees it only when it writes
		res, _ := g.ask(http.MethodGet, "/readyz", "", nil, false)
		return res.StatusCode == http.StatusServiceUnavailable
	})
	for _, path := range []string{"/api/v1/system", "/api/v1/audit", "/api/v1/devices", "/api/v1/devices/d/telemetry", "/api/v1/devices/d/events", "/metrics"} {
		g.ask(http.MethodGet, path, servertest.AdminKey, nil, false)
	}
	g.ask(http.MethodPost, "/api/v1/devices", servertest.AdminKey, map[string]string{"id": "e"}, false)
	if _, err := conn.Exec(t.Context(), "ALTER ROLE "+role+" LOGIN"); err != nil {
		t.Fatal(err)
	}
	until(t, "the store to be back", func() bool {
		res, _ := g.ask(http.MethodGet, "/readyz", "", nil, false)
		return res.StatusCode == http.StatusOK
	})
	g.search(log.String()+g.seen.String(), "a log, an answer or a metric")
}

// tryMQTT connects once, let in or not.
func tryMQTT(t *testing.T, s *server.Server, user, password string) {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetClientID("try").SetUsername(user).SetPassword(password).SetAutoReconnect(false))
	if tok := c.Connect(); !tok.WaitTimeout(10 * time.Second) {
		t.Error("a login is not answered")
	} else if tok.Error() == nil {
		c.Disconnect(0)
	}
}
