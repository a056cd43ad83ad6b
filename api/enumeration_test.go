package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"muster/accounts"
)

// known are people of every kind that an answer, or the work for it, could tell from nobody.
func (w *writer) known() map[string]string {
	w.Helper()
	w.person("root@example.com", accounts.Admin)
	w.person("here@example.com", accounts.Viewer)
	off := w.person("off@example.com", accounts.Viewer)
	w.ask("PATCH", "/users/"+off, object{"disabled": true})
	w.ask("POST", "/users", object{"email": "invited@example.com", "role": "viewer"})
	w.person("factor@example.com", accounts.Viewer)
	w.secondFactor(withCookie(w.enter("factor@example.com")))
	_, _, err := w.accounts.SignInExternal(w.Context(), accounts.External{
		Issuer: "https://id.example", Subject: "ext", Email: "external@example.com", EmailVerified: true, Role: accounts.Viewer,
	}, accounts.Client{})
	w.must(err)
	return map[string]string{
		"a user": "here@example.com", "a disabled user": "off@example.com", "one who is invited": "invited@example.com", "one with a second factor": "factor@example.com",
		"one who comes by the provider": "external@example.com", "nobody": "nobody@example.com", "what is no address": "no address",
	}
}

// shown is all of an answer but what is another with each.
func shown(a answer) string {
	var head []string
	for name, values := range a.Header {
		if !slices.Contains([]string{"X-Request-Id", "Date", "Ratelimit", "Retry-After"}, name) {
			head = append(head, fmt.Sprint(name, values))
		}
	}
	slices.Sort(head)
	return fmt.Sprint(a.StatusCode, head, string(a.body))
}

// TestNobodyIsToldFromAUserByAnswerOrWork counts the hashes of argon2id, which are what takes time: as many
// for whoever it is, with the same answer to the byte, at each door that takes an e-mail address.
func TestNobodyIsToldFromAUserByAnswerOrWork(t *testing.T) {
	w := newWriter(t)
	people := w.known()
	for _, door := range []struct {
		name, method, path string
		body               func(email string) object
		hashes             uint64
		status             int
	}{
		{"signing in with a wrong password", "POST", "/session", func(e string) object { return object{"email": e, "password": "not the password"} }, 1, 401},
		{"signing in with a wrong password and a code", "POST", "/session", func(e string) object { return object{"email": e, "password": "not the password", "code": "123456"} }, 1, 401},
		{"signing in with no password", "POST", "/session", func(e string) object { return object{"email": e, "password": ""} }, 1, 401},
		{"forgetting the password", "POST", "/password/forgot", func(e string) object { return object{"email": e} }, 0, 202},
	} {
		t.Run(door.name, func(t *testing.T) {
			want := ""
			for who, email := range people {
				before, records := w.accounts.Stats().Hashes, w.last()
				a := w.do(door.method, "/api/v1"+door.path, door.body(email)).wantStatus(t, door.status)
				if n := w.accounts.Stats().Hashes - before; n != door.hashes {
					t.Errorf("%s: %d hashes, want %d", who, n, door.hashes)
				}
				if after := w.last(); after != records {
					t.Errorf("%s: it leaves %v", who, w.since(records))
				}
				if want == "" {
					want = shown(a)
				} else if got := shown(a); got != want {
					t.Errorf("%s: the answer is\n%s\nanother's is\n%s", who, got, want)
				}
			}
		})
	}
}

// TestALinkThatIsVoidCostsTheSameWhoeverItWasOf has links that never were, that were used, and of
// users who are no more.
func TestALinkThatIsVoidCostsTheSameWhoeverItWasOf(t *testing.T) {
	w := newWriter(t)
	w.person("root@example.com", accounts.Admin)
	reset := func() (token, at string) {
		email, at := w.someone()
		w.do("POST", "/api/v1/password/forgot", object{"email": email}).wantStatus(t, 202)
		return w.mails.token(w, email, "/reset/"), at
	}
	used, _ := reset()
	w.do("POST", "/api/v1/password/reset", object{"token": used, "password": nextPassword}).wantStatus(t, 204)
	orphaned, at := reset()
	w.ask("DELETE", "/"+at, nil)
	barred, at := reset()
	w.ask("PATCH", "/"+at, object{"disabled": true})
	want := ""
	for name, token := range map[string]string{"one that never was": strings.Repeat("A", 26), "a used one": used, "a deleted user's": orphaned, "a disabled user's": barred} {
		before := w.accounts.Stats().Hashes
		a := w.do("POST", "/api/v1/password/reset", object{"token": token, "password": nextPassword}).wantStatus(t, 404)
		if n := w.accounts.Stats().Hashes - before; n != 0 {
			t.Errorf("%s: %d hashes", name, n)
		}
		if want == "" {
			want = shown(a)
		} else if got := shown(a); got != want {
			t.Errorf("%s: the answer is\n%s\nanother's is\n%s", name, got, want)
		}
	}
}
