package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/ingest"
	"muster/server"
	"muster/server/servertest"
)

const usersPassword = "correct horse battery"

// verbs runs muster's verbs against one server.
type verbs struct {
	*testing.T
	server string
}

// do runs a verb that must end with the exit code want.
func (v verbs) do(want int, args ...string) (out, failed string) {
	v.Helper()
	var o, e bytes.Buffer
	args = append(args, "--server", v.server, "--key", servertest.AdminKey)
	if code := run(v.Context(), args, &console{&o, &e}); code != want {
		v.Fatalf("muster %v: exit code %d, %s%s", args[:3], code, o.String(), e.String())
	}
	return o.String(), e.String()
}

func (v verbs) has(out string, words ...string) {
	v.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			v.Errorf("no %q in %s", w, out)
		}
	}
}

func TestUsersByCommand(t *testing.T) {
	s := servertest.Start(t)
	t.Setenv("MUSTER_KEY", "")
	v := verbs{t, "http://" + s.HTTPAddr()}
	t.Setenv("MUSTER_PASSWORD", usersPassword)
	out, _ := v.do(0, "user", "create", "Root@example.com", "--role", "admin", "--name", "Root")
	v.has(out, "ID", "usr_")
	t.Setenv("MUSTER_PASSWORD", "")
	_, failed := v.do(1, "user", "create", "x@example.com")
	v.has(failed, "password")
	out, _ = v.do(0, "user", "invite", "ana@example.com")
	v.ownsAKey("ana@example.com")
	if link := strings.TrimSpace(out); !strings.HasPrefix(link, v.server+"/invite/") {
		t.Errorf("the invitation is %q", out)
	}
	out, _ = v.do(0, "user", "list")
	v.has(out, "E-MAIL", "root@example.com", "admin", "active", "ana@example.com", "viewer", "invited")
	out, _ = v.do(0, "user", "show", "ANA@example.com", "--json")
	var ana client.User
	if err := json.Unmarshal([]byte(out), &ana); err != nil || ana.Role != "viewer" {
		t.Fatalf("%v: %s", err, out)
	}
	out, _ = v.do(0, "user", "role", ana.ID, "operator")
	v.has(out, "operator is ana@example.com")
	_, failed = v.do(1, "user", "role", ana.ID, "king")
	v.has(failed, "viewer")
	_, failed = v.do(1, "user", "disable", "root@example.com")
	v.has(failed, "last admin")
	v.do(0, "user", "disable", "ana@example.com")
	out, _ = v.do(0, "user", "show", "ana@example.com")
	v.has(out, "STATE", "disabled", "SECOND FACTOR")
	_, failed = v.do(1, "user", "reset", "ana@example.com")
	v.has(failed, "disabled")
	v.do(0, "user", "enable", "ana@example.com")
	_, failed = v.do(1, "user", "clear-second-factor", "ana@example.com")
	v.has(failed, "no second factor")
	out, _ = v.do(0, "user", "delete", "ana@example.com")
	v.has(out, "deleted ana@example.com")
	_, failed = v.do(1, "user", "show", "ana@example.com")
	v.has(failed, "there is no user ana@example.com")
	_, failed = v.do(1, "user", "show", "usr_nobody")
	v.has(failed, "muster: ")
}

func TestAPasswordIsResetAndSessionsAreRevokedByCommand(t *testing.T) {
	s := servertest.Start(t)
	t.Setenv("MUSTER_KEY", "")
	v := verbs{t, "http://" + s.HTTPAddr()}
	v.do(0, "user", "create", "ana@example.com", "--password", usersPassword)
	first, second := signIn(t, v.server, "ana@example.com", usersPassword), signIn(t, v.server, "ana@example.com", usersPassword)
	out, _ := v.do(0, "user", "sessions", "list", "ana@example.com", "--json")
	var found []client.Session
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	out, _ = v.do(0, "user", "sessions", "list")
	v.has(out, "ADDRESS", found[0].ID, found[1].ID, "127.0.0.1")
	v.do(0, "user", "sessions", "revoke", found[1].ID)
	if first.status(t) != http.StatusUnauthorized || second.status(t) != http.StatusOK {
		t.Errorf("after the end of one session: %d and %d", first.status(t), second.status(t))
	}
	_, failed := v.do(1, "user", "sessions", "revoke")
	v.has(failed, "--of")
	v.do(0, "user", "sessions", "revoke", "--of", "ana@example.com")
	if second.status(t) != http.StatusUnauthorized {
		t.Error("a session outlives the end of all of the user")
	}
	out, _ = v.do(0, "user", "reset", "ana@example.com")
	token, ok := strings.CutPrefix(strings.TrimSpace(out), v.server+"/reset/")
	if !ok {
		t.Fatalf("the link is %q", out)
	}
	resetBy(t, v.server, token, "another good password")
	signIn(t, v.server, "ana@example.com", "another good password")
}

func TestALockedOutAdminIsRescuedFromTheDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	rescue := func(want int, args ...string) (string, string) {
		t.Helper()
		var o, e bytes.Buffer
		if code := run(t.Context(), append([]string{"user", "rescue", "--data", dir}, args...), &console{&o, &e}); code != want {
			t.Fatalf("muster user rescue %v: exit code %d, %s%s", args, code, o.String(), e.String())
		}
		return strings.TrimSpace(o.String()), e.String()
	}
	if _, failed := rescue(1, "ana@example.com"); !strings.Contains(failed, "no data directory of a server") {
		t.Errorf("without a data directory: %s", failed)
	}
	url, stop := serveOn(t, dir)
	verbs{t, url}.do(0, "user", "create", "ana@example.com", "--password", usersPassword)
	before := signIn(t, url, "ana@example.com", usersPassword)
	if _, failed := rescue(1, "ana@example.com"); !strings.Contains(failed, "stop it") {
		t.Errorf("beside a running server: %s", failed)
	}
	stop()
	link, told := rescue(0, "ana@example.com", "--public-url", "https://muster.example")
	token, ok := strings.CutPrefix(link, "https://muster.example/reset/")
	if !ok || !strings.Contains(told, "is an enabled admin now") {
		t.Fatalf("%q, told %s", link, told)
	}
	if made, told := rescue(0, "new@example.com"); !strings.HasPrefix(made, "http://localhost:8080/reset/") || !strings.Contains(told, "was made") {
		t.Errorf("%q, told %s", made, told)
	}
	wantRescuesRecorded(t, dir)
	url, stop = serveOn(t, dir)
	defer stop()
	before.server = url
	if before.status(t) != http.StatusUnauthorized {
		t.Error("a session of before became an admin's")
	}
	resetBy(t, url, token, "another good password")
	if got := signIn(t, url, "ana@example.com", "another good password").me(t); got.Role == nil || *got.Role != "admin" {
		t.Errorf("the rescued user is %+v", got)
	}
}

// wantRescuesRecorded looks into the audit log for both rescues, sealed.
func wantRescuesRecorded(t *testing.T, dir string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	n := 0
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM audit WHERE action = 'user.rescue' AND actor_kind = 'system'").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rescues are in the audit log, %v", n, err)
	}
	server.Doctor(t.Context(), dir, "", time.Now(), server.Images{}, func(c server.Check) {
		if c.Name == "audit log" && (!c.OK || !strings.HasSuffix(c.Detail, "0 wait for the next seal")) {
			t.Errorf("the doctor says of the audit log: %s", c.Detail)
		}
	})
}

// serveOn starts a server on dir; stop ends it.
func serveOn(t *testing.T, dir string) (url string, stop func()) {
	t.Helper()
	s, err := server.New(t.Context(), server.Config{
		DataDir: dir, HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable, LogMaxBytes: 256 << 20,
		MaxPacket: 256 << 10, AdminKey: servertest.AdminKey, Version: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.URL(), func() {
		t.Helper()
		if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

// browser is a signed-in browser.
type browser struct {
	server string
	cookie *http.Cookie
}

func (b browser) ask(t *testing.T) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.server+"/api/v1/me", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(b.cookie)
	return send(t, req)
}

func (b browser) status(t *testing.T) int {
	t.Helper()
	res := b.ask(t)
	defer res.Body.Close()
	return res.StatusCode
}

func (b browser) me(t *testing.T) (me client.Me) {
	t.Helper()
	res := b.ask(t)
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&me); err != nil {
		t.Fatal(err)
	}
	return me
}

func send(t *testing.T, req *http.Request) *http.Response {
	t.Helper()
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func post(t *testing.T, url, body string, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res := send(t, req)
	if res.StatusCode != want {
		t.Fatalf("POST %s: %d", url, res.StatusCode)
	}
	_ = res.Body.Close()
	return res
}

func signIn(t *testing.T, server, email, password string) browser {
	t.Helper()
	res := post(t, server+"/api/v1/session", `{"email":"`+email+`","password":"`+password+`"}`, http.StatusOK)
	return browser{server, res.Cookies()[0]}
}

func resetBy(t *testing.T, server, token, password string) {
	t.Helper()
	post(t, server+"/api/v1/password/reset", `{"token":"`+token+`","password":"`+password+`"}`, http.StatusNoContent)
}

// ownsAKey makes keys that a user owns, by his e-mail and by his id.
func (v *verbs) ownsAKey(email string) {
	v.Helper()
	var users []struct{ ID, Email string }
	out, _ := v.do(0, "user", "list", "--json")
	if err := json.Unmarshal([]byte(out), &users); err != nil {
		v.Fatal(err)
	}
	id := ""
	for _, u := range users {
		if u.Email == email {
			id = u.ID
		}
	}
	for _, owner := range []string{email, id} {
		v.do(0, "key", "create", "of "+owner, "--scopes", "firmware:read", "--owner", owner)
	}
	if _, failed := v.do(1, "key", "create", "x", "--scopes", "firmware:read", "--owner", "nobody@example.com"); !strings.Contains(failed, "there is no user nobody@example.com") {
		v.Errorf("of nobody: %s", failed)
	}
	var keys []struct{ Name, Owner string }
	out, _ = v.do(0, "key", "list", "--json")
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		v.Fatal(err)
	}
	owned := 0
	for _, k := range keys {
		if strings.HasPrefix(k.Name, "of ") && k.Owner == id && id != "" {
			owned++
		}
	}
	if owned != 2 {
		v.Errorf("%d of 2 keys are %s's: %s", owned, id, out)
	}
}
