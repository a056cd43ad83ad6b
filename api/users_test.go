package api_test

import (
	"fmt"
	"strings"
	"testing"

	"muster/accounts"
)

func TestAnAdminInvitesAndTheInvitedComesInOnce(t *testing.T) {
	r := newRig(t)
	mails := r.mailing()
	a := r.as("POST", "/api/v1/users", object{"email": "Ada@Example.com", "role": "operator"}).wantStatus(t, 201)
	made := a.decode(t)
	u := made["user"].(object)
	if u["email"] != "ada@example.com" || u["has_password"] != false || u["confirmed"] != false || u["last_login_at"] != nil {
		t.Errorf("made %v", u)
	}
	if a.Header.Get("Location") != "/api/v1/users/"+u["id"].(string) {
		t.Errorf("Location is %s", a.Header.Get("Location"))
	}
	first := mails.token(t, "ada@example.com", "/invite/")
	if made["invitation"] != publicURL+"/invite/"+first {
		t.Errorf("the link is %v, the mail has another", made["invitation"])
	}
	again := r.as("POST", "/api/v1/users", object{"email": "ada@example.com", "role": "viewer"}).wantStatus(t, 201).decode(t)
	token := strings.TrimPrefix(again["invitation"].(string), publicURL+"/invite/")
	accept := func(token, password string) answer {
		return r.do("POST", "/api/v1/invitations/accept", object{"token": token, "name": "Ada", "password": password})
	}
	accept(first, goodPassword).wantProblem(t, 404, "not_found")
	accept(token, "short").wantField(t, 422, "invalid", "#/password")
	r.do("POST", "/api/v1/invitations/accept", object{"token": token, "name": "A\nda", "password": goodPassword}).wantField(t, 422, "invalid", "#/name")
	in := accept(token, goodPassword).wantStatus(t, 200)
	if me := in.decode(t); me["name"] != "Ada" || me["role"] != "viewer" || me["user"].(object)["confirmed"] != true {
		t.Errorf("came in as %v", me)
	}
	r.do("GET", "/api/v1/devices", nil, withCookie(in.Cookies()[0])).wantStatus(t, 200)
	accept(token, goodPassword).wantProblem(t, 404, "not_found")
	r.as("POST", "/api/v1/users", object{"email": "ada@example.com", "role": "viewer"}).wantField(t, 409, "conflict", "#/email")
	r.wantNoSecret(first, token, goodPassword)
}

func TestWhatANewUserMayNotBe(t *testing.T) {
	r := newRig(t)
	r.person("taken@example.com", accounts.Viewer)
	for _, tt := range []struct {
		name    string
		body    object
		status  int
		code    string
		pointer string
	}{
		{"no address", object{"email": "nobody", "role": "viewer"}, 422, "invalid", "#/email"},
		{"a header in the address", object{"email": "a@example.com\r\nBcc: b@example.com", "role": "viewer"}, 422, "invalid", "#/email"},
		{"two addresses", object{"email": "a@example.com,b@example.com", "role": "viewer"}, 422, "invalid", "#/email"},
		{"an unknown role", object{"email": "a@example.com", "role": "root"}, 422, "invalid", "#/role"},
		{"a short password", object{"email": "a@example.com", "role": "viewer", "password": "short"}, 422, "invalid", "#/password"},
		{"the address as password", object{"email": "someone@example.com", "role": "viewer", "password": "Someone@Example.com"}, 422, "invalid", "#/password"},
		{"a name for who is invited", object{"email": "a@example.com", "role": "viewer", "name": "A"}, 422, "invalid", "#/name"},
		{"a taken address", object{"email": "TAKEN@example.com", "role": "viewer", "password": goodPassword}, 409, "conflict", "#/email"},
		{"a hash given by hand", object{"email": "a@example.com", "role": "viewer", "hash": "$argon2id$"}, 422, "invalid", "#/hash"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.as("POST", "/api/v1/users", tt.body).wantField(t, tt.status, tt.code, tt.pointer)
			if n := len(r.accounts.Users()); n != 1 {
				t.Errorf("there are %d users", n)
			}
		})
	}
}

func TestAUserIsChangedOnlyAsHeWasSeen(t *testing.T) {
	r := newRig(t)
	admin := r.person("root@example.com", accounts.Admin)
	id := r.person("ada@example.com", accounts.Viewer)
	c := r.enter("ada@example.com")
	at := "/api/v1/users/" + id
	got := r.as("GET", at, nil).wantStatus(t, 200)
	tag := got.Header.Get("ETag")
	if tag == "" || got.Header.Get("ETag") != r.as("GET", at, nil).Header.Get("ETag") {
		t.Fatalf("the ETag is %q", tag)
	}
	changed := r.do("PATCH", at, object{"role": "operator"}, bearer(r.admin), header("If-Match", `"x", `+tag)).wantStatus(t, 200)
	if changed.decode(t)["role"] != "operator" || changed.Header.Get("ETag") == tag {
		t.Errorf("changed to %s with the ETag %s", changed.body, changed.Header.Get("ETag"))
	}
	r.do("PATCH", at, object{"role": "admin"}, bearer(r.admin), header("If-Match", tag)).wantProblem(t, 412, "stale")
	r.do("PATCH", at, object{"name": "Ada K"}, bearer(r.admin), header("If-Match", "*")).wantStatus(t, 200)
	if me := r.do("GET", "/api/v1/me", nil, withCookie(c)).wantStatus(t, 200).decode(t); me["role"] != "operator" || me["name"] != "Ada K" {
		t.Errorf("the session is of %v", me)
	}
	r.as("PATCH", at, object{"email": "root@example.com"}).wantProblem(t, 409, "conflict")
	r.as("PATCH", at, object{"email": "x"}).wantProblem(t, 422, "invalid")
	r.as("PATCH", at, object{"disabled": true}).wantStatus(t, 200)
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantProblem(t, 401, "unauthorized")
	for _, last := range []object{{"role": "viewer"}, {"disabled": true}} {
		r.as("PATCH", "/api/v1/users/"+admin, last).wantProblem(t, 409, "conflict")
	}
	r.as("DELETE", "/api/v1/users/"+admin, nil).wantProblem(t, 409, "conflict")
	r.as("DELETE", at, nil).wantStatus(t, 204)
	r.as("GET", at, nil).wantProblem(t, 404, "not_found")
	last := auditOf(r, "?limit=1").Items[0]
	if last.Action != "user.delete" || last.Object != "users/"+id || strings.Contains(string(last.Before), "argon2") {
		t.Errorf("the audit log says %+v", last)
	}
}

func TestEMailsOfOthersAreForAdminsOnly(t *testing.T) {
	r := newRig(t)
	r.person("root@example.com", accounts.Admin)
	ada := r.person("ada@example.com", accounts.Viewer)
	bob := r.person("bob@example.com", accounts.Operator)
	c := withCookie(r.enter("ada@example.com"))
	for _, path := range []string{"/api/v1/users", "/api/v1/users/" + bob, "/api/v1/users/" + ada} {
		a := r.do("GET", path, nil, c).wantStatus(t, 200)
		if text := string(a.body); strings.Contains(text, "bob@") || strings.Contains(text, "root@") {
			t.Errorf("a viewer sees at %s: %s", path, text)
		}
	}
	if own := r.do("GET", "/api/v1/users/me", nil, c).wantStatus(t, 200).decode(t); own["email"] != "ada@example.com" || own["id"] != ada {
		t.Errorf("of himself he sees %v", own)
	}
	if all := string(r.as("GET", "/api/v1/users", nil).body); !strings.Contains(all, "bob@") || strings.Contains(all, "argon2") {
		t.Errorf("an admin sees %s", all)
	}
	r.do("GET", "/api/v1/users", nil, bearer(r.key(accounts.DevicesRead))).wantProblem(t, 403, "forbidden")
	r.do("GET", "/api/v1/users/"+bob, nil, bearer(r.key(accounts.DevicesRead))).wantProblem(t, 403, "forbidden")
	for _, body := range []object{{"role": "admin"}, {"disabled": false}} {
		r.do("PATCH", "/api/v1/users/"+ada, body, c).wantProblem(t, 403, "forbidden")
		r.do("PATCH", "/api/v1/users/me", body, c).wantProblem(t, 403, "forbidden")
		r.do("PATCH", "/api/v1/me", body, c).wantProblem(t, 422, "invalid")
	}
	r.do("POST", "/api/v1/users", object{"email": "x@example.com", "role": "admin"}, c).wantProblem(t, 403, "forbidden")
}

func TestPagesOfUsersGoOnWhereTheyWereWhenUsersComeAndGo(t *testing.T) {
	r := newRig(t)
	ids := map[string]bool{}
	for i := range 7 {
		made := r.as("POST", "/api/v1/users", object{"email": fmt.Sprintf("u%d@example.com", i), "role": "viewer"}).wantStatus(t, 201).decode(t)
		ids[made["user"].(object)["id"].(string)] = true
	}
	seen, cursor := 0, ""
	for page := range 10 {
		a := r.as("GET", "/api/v1/users"+query("limit", "2", "cursor", cursor), nil).wantStatus(t, 200)
		for _, u := range itemsOf(a, t) {
			seen++
			if page == 1 { // who was shown goes, the place stays
				r.as("DELETE", "/api/v1/users/"+u["id"].(string), nil).wantStatus(t, 204)
			}
			if !ids[u["id"].(string)] {
				t.Errorf("%v is shown twice", u["id"])
			}
			delete(ids, u["id"].(string))
		}
		next, _ := a.decode(t)["next"].(string)
		if cursor = next; next == "" {
			break
		}
	}
	if seen != 7 || len(ids) != 0 {
		t.Errorf("%d are shown, %d are not", seen, len(ids))
	}
	r.as("GET", "/api/v1/users?cursor=x", nil).wantProblem(t, 422, "invalid")
}

func TestAnAPIKeyHasASelectorAndAnOwner(t *testing.T) {
	r := newRig(t)
	r.person("root@example.com", accounts.Admin)
	ada := r.person("ada@example.com", accounts.Viewer)
	made := r.as("POST", "/api/v1/api-keys", object{"name": "k", "scopes": []string{"devices:read"}, "selector": "profile=default", "owner": ada})
	k := made.wantStatus(t, 201).decode(t)
	if key := k["api_key"].(object); key["selector"] != "profile=default" || key["owner"] != ada || key["last_used"] != nil {
		t.Errorf("made %v", key)
	}
	for _, tt := range []struct {
		body   object
		status int
		code   string
	}{
		{object{"scopes": []string{"devices:write"}, "owner": ada}, 403, "forbidden"},
		{object{"scopes": []string{"devices:read"}, "owner": "usr_nobody"}, 422, "invalid"},
		{object{"scopes": []string{"devices:read"}, "owner": "me"}, 422, "invalid"},
		{object{"scopes": []string{"devices:read"}, "selector": "profile=("}, 422, "invalid"},
		{object{"scopes": []string{"admin"}, "selector": "profile=default"}, 422, "invalid"},
	} {
		tt.body["name"] = "n"
		r.as("POST", "/api/v1/api-keys", tt.body).wantProblem(t, tt.status, tt.code)
	}
	root := withCookie(r.enter("root@example.com"))
	own := r.do("POST", "/api/v1/api-keys", object{"name": "own", "scopes": []string{"admin"}, "owner": "me"}, root).wantStatus(t, 201).decode(t)
	r.do("GET", "/api/v1/users", nil, bearer(own["secret"].(string))).wantStatus(t, 200)
	r.as("DELETE", "/api/v1/users/"+ada, nil).wantStatus(t, 204)
	r.do("GET", "/api/v1/me", nil, bearer(k["secret"].(string))).wantProblem(t, 401, "unauthorized")
}

func TestAnAdminGetsALinkThatSetsAUsersPasswordOnce(t *testing.T) {
	r := newRig(t)
	r.person("root@example.com", accounts.Admin)
	id := r.person("ada@example.com", accounts.Viewer)
	c := r.enter("ada@example.com")
	at := "/api/v1/users/" + id + "/reset"
	r.do("POST", at, nil, withCookie(c)).wantProblem(t, 403, "forbidden")
	if b := r.as("POST", at, nil).wantStatus(t, 200).decode(t); b["mailed"] != false {
		t.Errorf("without a mail server the answer is %v", b)
	}
	mails := r.mailing()
	b := r.as("POST", at, nil).wantStatus(t, 200).decode(t)
	token := strings.TrimPrefix(b["link"].(string), publicURL+"/reset/")
	if mails.token(t, "ada@example.com", "/reset/") != token || b["mailed"] != true {
		t.Errorf("the mail has another link than %v", b)
	}
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantStatus(t, 200)
	const next = "another good password"
	r.do("POST", "/api/v1/password/reset", object{"token": token, "password": next}).wantStatus(t, 204)
	r.do("GET", "/api/v1/me", nil, withCookie(c)).wantProblem(t, 401, "unauthorized")
	r.do("POST", "/api/v1/password/reset", object{"token": token, "password": next}).wantProblem(t, 404, "not_found")
	r.as("POST", "/api/v1/users/usr_nobody/reset", nil).wantProblem(t, 404, "not_found")
	r.as("PATCH", "/api/v1/users/"+id, object{"disabled": true}).wantStatus(t, 200)
	r.as("POST", at, nil).wantProblem(t, 409, "conflict")
	r.wantNoSecret(token, next)
}
