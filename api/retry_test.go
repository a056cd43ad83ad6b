package api_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"muster/accounts"
	"muster/devices"
	"muster/tasks"
)

func TestAnAnswerIsGivenAgainThoughTheDeviceIsOutOfTheKeysReachNow(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"d1", "d2"} {
		r.as("POST", "/api/v1/devices", object{"id": id, "tags": object{"site": "berlin"}}).wantStatus(t, 201)
	}
	spec := accounts.KeySpec{Name: "some", Scopes: []string{accounts.DevicesRead, accounts.DevicesWrite}, Selector: "tag:site=berlin"}
	_, secret, err := r.accounts.CreateKey(t.Context(), spec)
	r.must(err)
	for path, do := range map[string]func(options ...option) answer{
		"a deletion": func(o ...option) answer { return r.do("DELETE", "/api/v1/devices/d1?data=delete", nil, o...) },
		"a change that takes it away": func(o ...option) answer {
			return r.do("PATCH", "/api/v1/devices/d2", object{"tags": object{"site": "rome"}}, o...)
		},
	} {
		t.Run(path, func(t *testing.T) {
			who := []option{bearer(secret), header("Idempotency-Key", path)}
			first, again := do(who...), do(who...)
			if first.StatusCode/100 != 2 || again.StatusCode != first.StatusCode || !bytes.Equal(first.body, again.body) || again.Header.Get("Idempotency-Replayed") != "true" {
				t.Errorf("%d %s, then %d %s", first.StatusCode, first.body, again.StatusCode, again.body)
			}
			do(bearer(secret), header("Idempotency-Key", "another")).wantProblem(t, 404, "not_found")
		})
	}
}

func TestAnEmptyIdempotencyKeyIsRefused(t *testing.T) {
	r := newRig(t)
	r.do("POST", "/api/v1/devices", object{"id": "d"}, bearer(r.admin), header("Idempotency-Key", "")).wantProblem(t, 422, "invalid")
	if r.registry.Count() != 0 {
		t.Error("the device was made")
	}
}

func TestHEADStartsNoTask(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	writer := bearer(r.key(accounts.DevicesRead, accounts.DevicesWrite))
	r.do("HEAD", "/api/v1/devices:export", nil, writer, prefers).wantStatus(t, 200)
	a := r.do("HEAD", "/api/v1/devices/d1/identicon.png", nil, writer).wantStatus(t, 200)
	if a.Header.Get("Etag") == "" || a.Header.Get("Content-Type") != "image/png" {
		t.Errorf("the head of a picture is %v", a.Header)
	}
	r.do("HEAD", "/api/v1/devices/d1/identicon.png", nil, writer, header("If-None-Match", a.Header.Get("Etag"))).wantStatus(t, 304)
	if page, _ := r.tasks.List(tasks.Query{By: tasks.Viewer{Admin: true}, Limit: 10}); len(page) != 0 || r.draws.Load() != 0 {
		t.Errorf("there are the tasks %v", page)
	}
	r.do("GET", "/api/v1/devices:export", nil, writer, prefers).wantStatus(t, 202)
}

func TestAPageOfAnotherSiteReadsNothingByACookie(t *testing.T) {
	r := newRig(t)
	c := withCookie(signIn(r, r.admin))
	for _, method := range []string{"GET", "HEAD", "POST"} {
		if a := r.do(method, "/api/v1/devices", nil, c, header("Sec-Fetch-Site", "cross-site")); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s gives %d", method, a.StatusCode)
		}
	}
	r.do("GET", "/api/v1/devices", nil, c, header("Sec-Fetch-Site", "same-origin")).wantStatus(t, 200)
	r.do("GET", "/api/v1/devices", nil, c, header("Sec-Fetch-Site", "none")).wantStatus(t, 200)
	r.do("GET", "/api/v1/devices", nil, bearer(r.admin), header("Sec-Fetch-Site", "cross-site")).wantStatus(t, 200)
}

func TestWaitingForNoTimeIsNotWaiting(t *testing.T) {
	r := newRig(t)
	_, _, err := r.registry.Create(t.Context(), devices.Spec{ID: "d1"})
	r.must(err)
	get := func(query string) answer { return r.as("GET", "/api/v1/devices/d1/identicon.png"+query, nil) }
	get("?size=1000&wait=0s").wantProblem(t, 408, "timeout") // it waits for the gate, for 10 s if asked for nothing
	close(r.gate)
	get("?size=1000").wantStatus(t, 200)
	if a := get("?size=1000&wait=0s").wantStatus(t, 200); !strings.HasPrefix(string(a.body), "\x89PNG") {
		t.Errorf("what is drawn already is %.20q", a.body)
	}
}
