package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAViewIsItsUsersOwn(t *testing.T) {
	w := newWriter(t)
	enter := func() option {
		email, _ := w.someone()
		return withCookie(w.enter(email))
	}
	ada, ben := enter(), enter()
	cold := object{"name": "  Cold and low ", "q": "tag:site v.battery<15", "columns": []any{"id", "spark.battery"}, "sort": "-v.battery"}
	made := w.do("POST", "/api/v1/views", cold, ada).wantStatus(t, 201)
	view := made.decode(t)
	at := "/api/v1/views/" + view["id"].(string)
	if made.Header.Get("Location") != at || view["name"] != "Cold and low" || view["sort"] != "-v.battery" {
		t.Error(made.Header, view)
	}
	want := []any{view}
	if d := cmp.Diff(want, w.do("GET", "/api/v1/views", nil, ada).wantStatus(t, 200).decode(t)["items"]); d != "" {
		t.Error(d)
	}
	if items := w.do("GET", "/api/v1/views", nil, ben).wantStatus(t, 200).decode(t)["items"].([]any); len(items) != 0 {
		t.Error("another sees", items)
	}
	w.do("PUT", at, object{"name": "mine"}, ben).wantProblem(t, 404, "not_found")
	w.do("DELETE", at, nil, ben).wantProblem(t, 404, "not_found")
	changed := w.do("PUT", at, object{"name": "All"}, ada).wantStatus(t, 200).decode(t)
	if changed["name"] != "All" || changed["q"] != "" || changed["created_at"] != view["created_at"] {
		t.Error(changed)
	}
	w.do("POST", "/api/v1/views", object{"name": "All"}, ada).wantProblem(t, 409, "conflict")
	w.do("DELETE", at, nil, ada).wantStatus(t, 204)
	w.do("DELETE", at, nil, ada).wantProblem(t, 404, "not_found")
	w.do("DELETE", "/api/v1/views/a%00b", nil, ada).wantProblem(t, 404, "not_found")
}

func TestAKeyHasNoViews(t *testing.T) {
	r := newRig(t)
	for _, key := range []option{bearer(r.admin), withCookie(signIn(r, r.admin))} {
		r.do("GET", "/api/v1/views", nil, key).wantProblem(t, 403, "forbidden")
		r.do("POST", "/api/v1/views", object{"name": "x"}, key).wantProblem(t, 403, "forbidden")
	}
}

func TestAViewThatIsNotUnderstoodIsNotKept(t *testing.T) {
	w := newWriter(t)
	email, _ := w.someone()
	ada := withCookie(w.enter(email))
	for _, bad := range []object{
		{"name": " "},
		{"name": "a\u0007"},
		{"name": strings.Repeat("x", 101)},
		{"name": "x", "q": "colour:red"},
		{"name": "x", "q": "\"a\u0000\""},
		{"name": "x", "columns": []any{"colour"}},
		{"name": "x", "columns": []any{"id", "id"}},
		{"name": "x", "sort": "colour"},
		{"name": "x", "sort": "v.a\u0000"},
	} {
		w.do("POST", "/api/v1/views", bad, ada).wantProblem(t, 422, "invalid")
	}
	for range 100 {
		w.do("POST", "/api/v1/views", object{"name": w.name("view")}, ada).wantStatus(t, 201)
	}
	w.do("POST", "/api/v1/views", object{"name": "one more"}, ada).wantProblem(t, 409, "conflict")
}
