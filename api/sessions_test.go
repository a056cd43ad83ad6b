package api_test

import (
	"net/http"
	"strings"
	"testing"

	"muster/accounts"
)

func TestAPersonSignsInByPasswordAndIsToldNothingElse(t *testing.T) {
	r := newRig(t)
	r.person("ada@example.com", accounts.Operator)
	id := r.person("gone@example.com", accounts.Operator)
	r.as("PATCH", "/api/v1/users/"+id, object{"disabled": true})
	var texts []string
	for _, body := range []object{
		{"email": "ada@example.com", "password": "wrong password"},
		{"email": "nobody@example.com", "password": goodPassword},
		{"email": "gone@example.com", "password": goodPassword},
		{"email": "", "password": goodPassword},
		{"email": "ada@example.com", "password": ""},
	} {
		p := r.do("POST", "/api/v1/session", body).wantProblem(t, 401, "unauthorized")
		texts = append(texts, p["detail"].(string))
	}
	for _, text := range texts {
		if text != texts[0] {
			t.Errorf("the answers differ: %q", texts)
		}
	}
	r.do("POST", "/api/v1/session", object{}).wantProblem(t, 422, "invalid")
	r.do("POST", "/api/v1/session", object{"key": r.admin, "email": "ada@example.com"}).wantProblem(t, 422, "invalid")
	c := r.login(object{"email": " Ada@Example.com", "password": goodPassword})
	if c.MaxAge <= 0 || !c.HttpOnly {
		t.Errorf("the cookie is %+v", c)
	}
	me := r.do("GET", "/api/v1/me", nil, withCookie(c)).wantStatus(t, 200).decode(t)
	if me["role"] != "operator" || me["user"].(object)["email"] != "ada@example.com" {
		t.Errorf("signed in as %v", me)
	}
	r.wantNoSecret(goodPassword, "wrong password", c.Value)
}

func TestTooManyTriesAreToldHowLongToWait(t *testing.T) {
	r := newRig(t)
	var a answer
	for range 11 {
		a = r.do("POST", "/api/v1/session", object{"email": "nobody@example.com", "password": "not this one"})
	}
	a.wantProblem(t, 429, "busy")
	if s := a.Header.Get("Retry-After"); s == "" || s == "0" || s == "1" {
		t.Errorf("Retry-After is %q", s)
	}
}

func TestSigningInMakesANewSessionWhateverTheCookieWas(t *testing.T) {
	r := newRig(t)
	r.person("ada@example.com", accounts.Viewer)
	planted := &http.Cookie{Name: "muster", Value: strings.Repeat("A", 43)}
	c := r.login(object{"email": "ada@example.com", "password": goodPassword}, withCookie(planted))
	if c.Value == planted.Value {
		t.Fatal("the planted cookie became a session")
	}
	r.do("GET", "/api/v1/me", nil, withCookie(planted)).wantProblem(t, 401, "unauthorized")
	other := r.login(object{"key": r.admin}, withCookie(c))
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantProblem(t, 401, "unauthorized")
	r.do("GET", "/api/v1/me", nil, withCookie(other)).wantStatus(t, 200)
}

func TestUsersSeeAndEndTheirOwnSessionsOnly(t *testing.T) {
	r := newRig(t)
	r.person("root@example.com", accounts.Admin)
	ada := r.person("ada@example.com", accounts.Viewer)
	bob := r.person("bob@example.com", accounts.Viewer)
	one := r.login(object{"email": "ada@example.com", "password": goodPassword}, header("User-Agent", "Browser\t1"))
	two, three, his := r.enter("ada@example.com"), r.enter("ada@example.com"), r.enter("bob@example.com")
	bobs := itemsOf(r.do("GET", "/api/v1/sessions", nil, withCookie(his)), t)
	all := itemsOf(r.do("GET", "/api/v1/sessions?limit=2", nil, withCookie(three)), t)
	if len(all) != 2 || all[0]["current"] != true || all[1]["current"] != false || all[0]["user"] != ada || all[0]["address"] != "127.0.0.1" {
		t.Fatalf("the first page of sessions is %v", all)
	}
	mine := itemsOf(r.do("GET", "/api/v1/sessions?user=me", nil, withCookie(three)), t)
	if len(mine) != 3 || mine[2]["agent"] != "Browser1" {
		t.Errorf("the sessions are %v", mine)
	}
	as := func(method, path string) answer { return r.do(method, "/api/v1"+path, nil, withCookie(three)) }
	as("GET", "/sessions?user="+bob).wantProblem(t, 403, "forbidden")
	as("DELETE", "/sessions?user="+bob).wantProblem(t, 403, "forbidden")
	as("DELETE", "/sessions/"+bobs[0]["id"].(string)).wantProblem(t, 404, "not_found")
	as("DELETE", "/sessions/"+mine[2]["id"].(string)).wantStatus(t, 204)
	r.do("GET", "/api/v1/me", nil, withCookie(one)).wantProblem(t, 401, "unauthorized")
	as("DELETE", "/sessions").wantStatus(t, 204)
	r.do("GET", "/api/v1/me", nil, withCookie(two)).wantProblem(t, 401, "unauthorized")
	as("GET", "/me").wantStatus(t, 200)
	r.do("GET", "/api/v1/sessions", nil, bearer(r.key(accounts.DevicesRead))).wantProblem(t, 403, "forbidden")
	r.do("DELETE", "/api/v1/sessions", nil, bearer(r.admin)).wantProblem(t, 403, "forbidden")
	root := withCookie(r.enter("root@example.com"))
	if n := len(itemsOf(r.do("GET", "/api/v1/sessions", nil, root), t)); n != 3 {
		t.Errorf("an admin sees %d sessions", n)
	}
	r.do("DELETE", "/api/v1/sessions?user="+bob, nil, root).wantStatus(t, 204)
	r.do("GET", "/api/v1/me", nil, withCookie(his)).wantProblem(t, 401, "unauthorized")
	r.do("DELETE", "/api/v1/sessions?user=usr_nobody", nil, root).wantProblem(t, 404, "not_found")
	r.do("DELETE", "/api/v1/sessions/ses_nobody", nil, root).wantProblem(t, 404, "not_found")
}

func TestAPageOfAnotherSiteDoesNothingWithAnAccount(t *testing.T) {
	r := newRig(t)
	r.person("ada@example.com", accounts.Admin)
	c := withCookie(r.enter("ada@example.com"))
	for _, tt := range []struct {
		method, path string
		body         any
	}{
		{"POST", "/session", object{"email": "ada@example.com", "password": goodPassword}},
		{"POST", "/setup", object{"email": "x@example.com", "password": goodPassword}},
		{"POST", "/invitations/accept", object{"token": "x", "password": goodPassword}},
		{"POST", "/password/forgot", object{"email": "ada@example.com"}},
		{"POST", "/password/reset", object{"token": "x", "password": goodPassword}},
		{"POST", "/email/confirm", object{"token": "x"}},
		{"POST", "/me/password", object{"old": goodPassword, "password": nextPassword}},
		{"POST", "/me/totp", nil},
		{"DELETE", "/me/totp", object{"password": goodPassword}},
		{"PATCH", "/me", object{"name": "Eve"}},
		{"POST", "/users", object{"email": "eve@example.com", "role": "admin"}},
		{"PATCH", "/users/me", object{"name": "Eve"}},
		{"DELETE", "/sessions", nil},
	} {
		for _, from := range []option{header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")} {
			r.do(tt.method, "/api/v1"+tt.path, tt.body, c, from).wantProblem(t, 403, "forbidden")
		}
	}
	if u := r.accounts.Users(); len(u) != 1 || u[0].Name != "" || u[0].SecondFactor {
		t.Errorf("the users are %+v", u)
	}
}
