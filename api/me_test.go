package api_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"muster/accounts"
)

func TestASecondFactorIsSetUpAskedForAndRemoved(t *testing.T) {
	r := newRig(t)
	r.person("root@example.com", accounts.Admin)
	id := r.person("ada@example.com", accounts.Viewer)
	c := withCookie(r.enter("ada@example.com"))
	as := func(method, path string, body any) answer { return r.do(method, "/api/v1/me"+path, body, c) }
	as("POST", "/totp/confirm", object{"code": "123456"}).wantProblem(t, 409, "conflict")
	s := as("POST", "/totp", nil).wantStatus(t, 200).decode(t)
	secret := s["secret"].(string)
	png, err := base64.StdEncoding.DecodeString(s["png"].(string))
	r.must(err)
	if !strings.HasPrefix(s["svg"].(string), "<svg ") || string(png[1:4]) != "PNG" || !strings.Contains(s["uri"].(string), secret) {
		t.Errorf("the second factor is %v", s)
	}
	as("POST", "/totp/confirm", object{"code": "000000"}).wantField(t, 422, "invalid", "#/code")
	codes := as("POST", "/totp/confirm", object{"code": totpCode(t, secret, 0)}).wantStatus(t, 200).decode(t)["recovery_codes"].([]any)
	if len(codes) != 8 {
		t.Errorf("there are %d recovery codes", len(codes))
	}
	as("POST", "/totp", nil).wantProblem(t, 409, "conflict")
	login := object{"email": "ada@example.com", "password": goodPassword}
	a := r.do("POST", "/api/v1/session", login)
	a.wantProblem(t, 401, "second_factor_needed")
	if len(a.Cookies()) != 0 {
		t.Error("a password alone sets a cookie")
	}
	r.do("POST", "/api/v1/session", object{"email": "ada@example.com", "password": "wrong password"}).wantProblem(t, 401, "unauthorized")
	login["code"] = codes[0]
	r.login(login)
	r.do("POST", "/api/v1/session", login).wantProblem(t, 401, "unauthorized")
	as("DELETE", "/totp", object{"password": "wrong password"}).wantField(t, 403, "forbidden", "#/password")
	as("DELETE", "/totp", object{"password": goodPassword}).wantStatus(t, 204)
	as("DELETE", "/totp", object{"password": goodPassword}).wantProblem(t, 409, "conflict")
	r.enter("ada@example.com")
	r.as("DELETE", "/api/v1/users/"+id+"/totp", nil).wantProblem(t, 409, "conflict")
	r.wantNoSecret(secret, codes[0].(string), codes[1].(string), goodPassword)
	for _, row := range auditOf(r, "").Items {
		if text := string(row.Before) + string(row.After); strings.Contains(text, secret) || strings.Contains(text, codes[1].(string)) {
			t.Errorf("the audit log has a secret: %+v", row)
		}
	}
}

func TestAPersonChangesNamePasswordAndAddress(t *testing.T) {
	r := newRig(t)
	mails := r.mailing()
	r.person("bob@example.com", accounts.Viewer)
	r.person("ada@example.com", accounts.Viewer)
	other := withCookie(r.enter("ada@example.com"))
	c := withCookie(r.enter("ada@example.com"))
	as := func(method, path string, body any) answer { return r.do(method, "/api/v1/me"+path, body, c) }
	if u := as("PATCH", "", object{"name": "Ada K"}).wantStatus(t, 200).decode(t); u["name"] != "Ada K" {
		t.Errorf("renamed %v", u)
	}
	as("PATCH", "", object{"name": "a\u0000b"}).wantProblem(t, 422, "invalid")
	as("POST", "/password", object{"old": "wrong password", "password": nextPassword}).wantField(t, 403, "forbidden", "#/old")
	as("POST", "/password", object{"old": goodPassword, "password": "short"}).wantField(t, 422, "invalid", "#/password")
	as("POST", "/password", object{"old": goodPassword, "password": nextPassword}).wantStatus(t, 204)
	r.do("GET", "/api/v1/me", nil, other).wantProblem(t, 401, "unauthorized")
	as("GET", "", nil).wantStatus(t, 200)
	as("POST", "/email", object{"password": goodPassword, "email": "a@example.com"}).wantField(t, 403, "forbidden", "#/password")
	as("POST", "/email", object{"password": nextPassword, "email": "a@example.com\nBcc: x@example.com"}).wantField(t, 422, "invalid", "#/email")
	as("POST", "/confirmation", nil).wantStatus(t, 202)
	confirm := func(token string) answer { return r.do("POST", "/api/v1/email/confirm", object{"token": token}) }
	confirm(mails.token(t, "ada@example.com", "/confirm/")).wantStatus(t, 204)
	as("POST", "/confirmation", nil).wantProblem(t, 409, "conflict")
	taken := as("POST", "/email", object{"password": nextPassword, "email": "bob@example.com"}).wantStatus(t, 202)
	moved := as("POST", "/email", object{"password": nextPassword, "email": "new@example.com"}).wantStatus(t, 202)
	if !bytes.Equal(taken.body, moved.body) {
		t.Errorf("a taken address answers %q, a free one %q", taken.body, moved.body)
	}
	token := mails.token(t, "new@example.com", "/confirm/")
	confirm("wrong").wantProblem(t, 404, "not_found")
	confirm(token).wantStatus(t, 204)
	confirm(token).wantProblem(t, 404, "not_found")
	if u := as("GET", "", nil).decode(t)["user"].(object); u["email"] != "new@example.com" || u["confirmed"] != true {
		t.Errorf("the account is %v", u)
	}
	r.wantNoSecret(token, goodPassword, nextPassword)
}

func TestAnAPIKeyHasNoAccountOfItsOwn(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		method, path string
		body         any
	}{
		{"PATCH", "/me", object{"name": "x"}},
		{"POST", "/me/password", object{"old": "x", "password": "y"}},
		{"POST", "/me/email", object{"password": "x", "email": "x@example.com"}},
		{"POST", "/me/confirmation", nil},
		{"POST", "/me/totp", nil},
		{"POST", "/me/totp/confirm", object{"code": "123456"}},
		{"DELETE", "/me/totp", object{"password": "x"}},
		{"POST", "/setup", object{"email": "x@example.com", "password": goodPassword}},
	} {
		for _, who := range []option{bearer(r.admin), withCookie(signIn(r, r.admin))} {
			r.do(tt.method, "/api/v1"+tt.path, tt.body, who).wantProblem(t, 403, "forbidden")
		}
	}
}

func TestAForgottenPasswordIsResetByMailAndNobodyLearnsWhoIsHere(t *testing.T) {
	r := newRig(t)
	mails := r.mailing()
	r.person("ada@example.com", accounts.Viewer)
	c := withCookie(r.enter("ada@example.com"))
	known := r.do("POST", "/api/v1/password/forgot", object{"email": "ada@example.com"}).wantStatus(t, 202)
	for _, email := range []string{"nobody@example.com", "no address", "x@example.com\r\nBcc: y@example.com", strings.Repeat("x", 300)} {
		a := r.do("POST", "/api/v1/password/forgot", object{"email": email}).wantStatus(t, 202)
		if !bytes.Equal(a.body, known.body) {
			t.Errorf("an unknown address answers %q, a known one %q", a.body, known.body)
		}
	}
	token := mails.token(t, "ada@example.com", "/reset/")
	reset := func(token, password string) answer {
		return r.do("POST", "/api/v1/password/reset", object{"token": token, "password": password})
	}
	reset("wrong", nextPassword).wantProblem(t, 404, "not_found")
	reset(token, "ada@example.com").wantField(t, 422, "invalid", "#/password")
	a := reset(token, nextPassword).wantStatus(t, 204)
	if len(a.Cookies()) != 0 {
		t.Error("a reset signs in")
	}
	reset(token, goodPassword).wantProblem(t, 404, "not_found")
	r.do("GET", "/api/v1/me", nil, c).wantProblem(t, 401, "unauthorized")
	r.do("POST", "/api/v1/session", object{"email": "ada@example.com", "password": goodPassword}).wantProblem(t, 401, "unauthorized")
	r.login(object{"email": "ada@example.com", "password": nextPassword})
	r.wantNoSecret(token, goodPassword, nextPassword, "ada@example.com")
	if m := r.do("GET", "/api/v1/session/methods", nil).wantStatus(t, 200).decode(t); m["mail"] != true || m["provider"] != nil {
		t.Errorf("the methods are %v", m)
	}
}

func TestTheSetupSessionBecomesTheFirstAdmins(t *testing.T) {
	r := newRig(t)
	cookie := r.do("GET", "/setup/"+r.setup, nil).wantStatus(t, 303).Cookies()[0]
	c := withCookie(cookie)
	as := func(body object) answer { return r.do("POST", "/api/v1/setup", body, c) }
	if me := r.do("GET", "/api/v1/me", nil, c).decode(t); me["setup"] != true || me["user"] != nil {
		t.Errorf("the set-up session is %v", me)
	}
	as(object{"email": "root", "password": goodPassword}).wantField(t, 422, "invalid", "#/email")
	as(object{"email": "root@example.com", "password": "short"}).wantField(t, 422, "invalid", "#/password")
	u := as(object{"name": "Root", "email": "root@example.com", "password": goodPassword}).wantStatus(t, 201).decode(t)
	me := r.do("GET", "/api/v1/me", nil, c).wantStatus(t, 200).decode(t)
	if me["setup"] != nil || me["name"] != "Root" || me["user"].(object)["id"] != u["id"] || me["role"] != "admin" {
		t.Errorf("the session is %v", me)
	}
	as(object{"email": "two@example.com", "password": goodPassword}).wantProblem(t, 409, "conflict")
	r.enter("root@example.com")
}
