package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/devices"
	"muster/tasks"
)

// held is a body whose first byte comes when meanwhile has been done: the head of its
// request was let in before that.
type held struct {
	io.Reader
	meanwhile func()
}

func (h *held) Read(p []byte) (int, error) {
	if h.meanwhile != nil {
		h.meanwhile()
		h.meanwhile = nil
	}
	return h.Reader.Read(p)
}

func (*held) Close() error { return nil }

// doHeld does a request whose body is held until meanwhile was done.
func (r *rig) doHeld(method, path string, body any, meanwhile func(), options ...option) answer {
	r.Helper()
	text, plain := body.(string)
	if !plain {
		b, err := json.Marshal(body)
		r.must(err)
		text = string(b)
	}
	req := httptest.NewRequestWithContext(r.Context(), method, path, &held{strings.NewReader(text), meanwhile})
	req.ContentLength = int64(len(text))
	req.Header.Set("Content-Type", "application/json")
	for _, o := range options {
		o(req)
	}
	rec := httptest.NewRecorder()
	r.api.ServeHTTP(rec, req)
	res := rec.Result()
	res.Request = req
	b, err := io.ReadAll(res.Body)
	r.must(err)
	r.must(res.Body.Close())
	return answer{res, b}
}

// bodied are the operations that change something, need somebody, and take a body.
func (w *writer) bodied() (out []operation) {
	w.Helper()
	routes := describedRoutes(w.rig)
	for _, o := range operations(w.rig) {
		public := cmp.Equal(o.Security, []map[string][]string{{}})
		if o.method != http.MethodGet && !public && routes[o.method+" "+o.path].RequestBody.Content != nil {
			out = append(out, o)
		}
	}
	return out
}

// refusedHeld checks that a request was refused with status after its body had come. An import
// has begun its answer by then, and ends it with the problem.
func (a answer) refusedHeld(t *testing.T, o operation, status int, code string) {
	t.Helper()
	if o.ID != "import-devices" {
		a.wantProblem(t, status, code)
		return
	}
	if made, _, problem := imported(t, a); problem["code"] != code || len(made) != 0 {
		t.Errorf("an import says %v, %v", made, problem)
	}
}

func TestWhoIsRevokedWhileHisBodyComesChangesNothingByAnyOperation(t *testing.T) {
	w := newWriter(t)
	n := 0
	for _, o := range w.bodied() {
		n++
		t.Run(o.ID, func(t *testing.T) {
			whole := w.T
			w.T = t
			defer func() { w.T = whole }()
			d := allDoings()[o.ID](w)
			k, secret, err := w.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "held", Scopes: []string{accounts.Admin}})
			w.must(err)
			who, revoke := slices.Concat(d.who, []option{bearer(secret)}), func() { w.must(w.accounts.DeleteKey(t.Context(), k.ID)) }
			if d.kindOf(false) == "user" { // it is about the caller's own account
				probe := httptest.NewRequest(http.MethodGet, "/", nil)
				d.who[0](probe)
				who, revoke = d.who, func() { w.must(w.accounts.SignOut(t.Context(), probe.Cookies()[0].Value)) }
			}
			var before int64
			a := w.doHeld(o.method, "/api/v1"+d.path, d.body, func() { revoke(); before = w.last() }, who...)
			a.refusedHeld(t, o, 401, "unauthorized")
			if got := w.since(before); before == 0 || len(got) > 0 {
				t.Errorf("after the revocation it changed %v", got)
			}
		})
	}
	if n < 40 {
		t.Errorf("only %d operations were tried", n)
	}
}

func TestWhoIsGivenALowerRoleWhileHisBodyComesChangesNothingByAnyOperation(t *testing.T) {
	w := newWriter(t)
	id := w.person("falls@example.com", accounts.Admin)
	w.person("stays@example.com", accounts.Admin)
	cookie, _, err := w.accounts.SignInPassword(t.Context(), accounts.PasswordLogin{Email: "falls@example.com", Password: goodPassword})
	w.must(err)
	role := func(role string) {
		_, err := w.accounts.UpdateUser(t.Context(), id, accounts.UserChange{Role: &role})
		w.must(err)
	}
	n := 0
	for _, o := range w.bodied() {
		if len(o.Security[0]["key"]) == 0 || strings.HasSuffix(o.Security[0]["key"][0], ":read") {
			continue // a viewer may do so
		}
		n++
		t.Run(o.ID, func(t *testing.T) {
			whole := w.T
			w.T = t
			defer func() { w.T = whole }()
			d := allDoings()[o.ID](w)
			as := func(r *http.Request) {
				r.Header.Del("Authorization")
				r.Header.Del("Cookie")
				r.AddCookie(&http.Cookie{Name: "muster", Value: cookie})
			}
			role(accounts.Admin)
			var before int64
			a := w.doHeld(o.method, "/api/v1"+d.path, d.body, func() { role(accounts.Viewer); before = w.last() }, append(d.who, as)...)
			a.refusedHeld(t, o, 403, "forbidden")
			if got := w.since(before); before == 0 || len(got) > 0 {
				t.Errorf("after his role was lowered it changed %v", got)
			}
		})
	}
	if n < 30 {
		t.Errorf("only %d operations were tried", n)
	}
}

func TestAnImportGoesNoFurtherWhenItsKeyIsRevoked(t *testing.T) {
	csv := header("Content-Type", "text/csv")
	list := func(n int) string {
		var b strings.Builder
		b.WriteString("id,credential\n")
		for i := range n {
			fmt.Fprintf(&b, "d%05d,none\n", i)
		}
		return b.String()
	}
	key := func(r *rig) (string, func()) {
		k, secret, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "held", Scopes: []string{accounts.DevicesRead, accounts.DevicesWrite}})
		r.must(err)
		return secret, func() { r.must(r.accounts.DeleteKey(t.Context(), k.ID)) }
	}
	t.Run("while its list comes", func(t *testing.T) {
		now := time.Now()
		r := newRig(t, func(d *api.Deps) { d.Now = func() time.Time { return now } })
		secret, revoke := key(r)
		body := &held{strings.NewReader(list(1)), func() { revoke(); now = now.Add(time.Second) }}
		breaks := io.MultiReader(body, iotest.ErrReader(errors.New("it is read on")))
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/devices:import", breaks)
		req.Header.Set("Authorization", "Bearer "+secret)
		csv(req)
		rec := httptest.NewRecorder()
		func() {
			defer func() { _ = recover() }() // what is left of the body is read, and breaks
			r.api.ServeHTTP(rec, req)
		}()
		if out := rec.Body.String(); !strings.Contains(out, `"code":"unauthorized"`) || r.registry.Count() != 0 {
			t.Errorf("%d devices were made: %s", r.registry.Count(), out)
		}
	})
	t.Run("between two batches", func(t *testing.T) {
		var r *rig
		var revoke func()
		r = newRig(t, func(d *api.Deps) { d.Registry = afterBatch{d.Registry, func() { revoke() }} })
		var secret string
		secret, revoke = key(r)
		a := r.do("POST", "/api/v1/devices:import", list(5001), bearer(secret), csv)
		made, _, problem := imported(t, a)
		if problem["code"] != "unauthorized" || len(made) != 5000 || r.registry.Count() != 5000 {
			t.Errorf("%d devices were made, %d told: %v", r.registry.Count(), len(made), problem)
		}
	})
	t.Run("before a task is accepted for it", func(t *testing.T) {
		r := newRig(t)
		secret, revoke := key(r)
		r.doHeld("POST", "/api/v1/devices:import", list(1), revoke, bearer(secret), csv, prefers).wantProblem(t, 401, "unauthorized")
		if page, _ := r.tasks.List(tasks.Query{By: tasks.Viewer{Admin: true}, Limit: 10}); len(page) != 0 {
			t.Errorf("there are the tasks %v", page)
		}
	})
}

func TestManyDevicesAreChangedAndDeletedNoFurtherWhenTheKeyIsRevoked(t *testing.T) {
	for _, tt := range []struct {
		path string
		body object
	}{
		{"/api/v1/devices:update", object{"q": "id:*", "expect": 5001, "tags": object{"a": "b"}}},
		{"/api/v1/devices:delete", object{"q": "id:*", "expect": 5001, "data": "keep"}},
	} {
		t.Run(tt.path, func(t *testing.T) {
			var revoke func()
			r := newRig(t, func(d *api.Deps) { d.Registry = afterBatch{d.Registry, func() { revoke() }} })
			specs := make([]devices.Spec, 5001)
			for i := range specs {
				specs[i] = devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%05d", i))}
			}
			_, _, err := r.registry.CreateMany(t.Context(), specs)
			r.must(err)
			k, secret, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "held", Scopes: []string{accounts.DevicesWrite}})
			r.must(err)
			revoke = func() { r.must(r.accounts.DeleteKey(t.Context(), k.ID)) }
			r.do("POST", tt.path, tt.body, bearer(secret)).wantProblem(t, 401, "unauthorized")
			if d, err := r.registry.Get("d05000"); err != nil || d.Tags != (devices.Device{}).Tags {
				t.Errorf("the last of them is %+v, %v", d, err)
			}
		})
	}
}

// afterBatch does something after each batch of many devices.
type afterBatch struct {
	api.Registry
	then func()
}

func (a afterBatch) CreateMany(ctx context.Context, specs []devices.Spec) ([]devices.Device, []devices.Issued, error) {
	defer a.then()
	return a.Registry.CreateMany(ctx, specs)
}

func (a afterBatch) UpdateMany(ctx context.Context, cs []devices.DeviceChange) ([]devices.Device, error) {
	defer a.then()
	return a.Registry.UpdateMany(ctx, cs)
}

func (a afterBatch) DeleteMany(ctx context.Context, ids []muster.DeviceID, data devices.Data) error {
	defer a.then()
	return a.Registry.DeleteMany(ctx, ids, data)
}
