package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image/png"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/store/control"
	"muster/tasks"
	"muster/tasks/identicon"
)

// taskRig is a real room of tasks with kinds of the tests' own.
type taskRig struct {
	tasks *tasks.Tasks
	draws atomic.Int64  // pictures that were begun
	gate  chan struct{} // what tasks of kind gate, and pictures of 1000 pixels, wait for
}

func (r *rig) startTasks(store *control.Control, dir string, log *slog.Logger) {
	r.Helper()
	r.gate = make(chan struct{})
	r.tasks = tasks.New(tasks.Config{Store: store, Loader: store, Dir: filepath.Join(dir, "tasks"), Now: time.Now, Logger: log})
	waits := func(ctx context.Context, run *tasks.Run) error {
		run.Progress(1, 3, "waiting")
		out, err := run.Result("text/plain")
		if err != nil {
			return err
		}
		_, _ = io.WriteString(out, "0123456789")
		select {
		case <-r.gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	echo := func(_ context.Context, run *tasks.Run) error {
		out, err := run.Result("application/x-ndjson")
		if err != nil {
			return err
		}
		f, err := run.File()
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(out, f)
		return err
	}
	kinds := []tasks.Kind{
		{Name: "gate", Scope: accounts.DevicesWrite, Timeout: time.Minute, Concurrency: 1, Queue: 1, KeepResult: time.Hour, Run: waits},
		{Name: "slow", Scope: accounts.DevicesWrite, Timeout: time.Millisecond, Concurrency: 1, Run: waits},
		{Name: "admins", Scope: accounts.Admin, Timeout: time.Minute, Concurrency: 1, Run: waits},
		{
			Name: "identicon", Scope: accounts.DevicesRead, Timeout: time.Minute, Concurrency: 1, Queue: 0, KeepResult: time.Hour,
			Key: func(input json.RawMessage) string { return string(input) },
			Run: func(ctx context.Context, run *tasks.Run) error {
				r.draws.Add(1)
				spec, err := identicon.Parse(run.Input)
				if err != nil {
					return err
				}
				if spec.Size == 1000 {
					select {
					case <-r.gate:
					case <-ctx.Done():
					}
				}
				out, err := run.Result("image/png")
				if err != nil {
					return err
				}
				return identicon.Draw(ctx, spec, out, run2progress(run))
			},
		},
	}
	for _, name := range []string{"devices.import", "devices.export", "devices.update", "devices.delete"} {
		k := tasks.Kind{Name: name, Scope: accounts.DevicesWrite, Timeout: time.Minute, Concurrency: 1, Queue: 1, Durable: true, Private: name == "devices.import", KeepResult: time.Hour, Run: echo}
		if name == "devices.export" {
			k.Run = func(context.Context, *tasks.Run) error { return nil }
		} else {
			k.Door = "POST /" + strings.Replace(name, ".", ":", 1)
		}
		kinds = append(kinds, k)
	}
	for _, k := range kinds {
		r.must(r.tasks.Register(k))
	}
	r.must(r.tasks.Load(r.Context()))
}

func run2progress(run *tasks.Run) func(done, total int64) {
	return func(done, total int64) { run.Progress(done, total, "drawing") }
}

func (r *rig) stopTasks() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r.must(r.tasks.Stop(ctx))
}

var prefers = header("Prefer", "wait=5, Respond-Async")

func TestATaskIsStartedWatchedCancelledAndItsResultFetched(t *testing.T) {
	r := newRig(t)
	writer := r.key(accounts.DevicesRead, accounts.DevicesWrite)
	start := func(body object) answer { return r.do("POST", "/api/v1/tasks", body, bearer(writer)) }
	a := start(object{"kind": "gate", "input": object{"a": []any{1.0}}}).wantStatus(t, 202)
	first := a.decode(t)
	at, _ := first["id"].(string)
	if at = "/api/v1/tasks/" + at; a.Header.Get("Location") != at {
		t.Errorf("Location is %q, want %q", a.Header.Get("Location"), at)
	}
	get := func(query string, o ...option) answer {
		return r.do("GET", at+query, nil, append(o, bearer(writer))...)
	}
	get("?wait=1ms").wantProblem(t, 408, "timeout")
	get("?wait=61s").wantProblem(t, 422, "invalid")
	got := get("").wantStatus(t, 200).decode(t)
	if got["state"] != "running" || got["done"] != 1.0 || got["total"] != 3.0 || got["note"] != "waiting" || got["ended_at"] != nil || got["result"] != nil {
		t.Errorf("it stands at %v", got)
	}
	if d := cmp.Diff(map[string]any{"a": []any{1.0}}, got["input"]); d != "" {
		t.Error(d)
	}
	get("/result").wantProblem(t, 409, "conflict")
	second := start(object{"kind": "gate"}).wantStatus(t, 202).decode(t)["id"].(string)
	if a := start(object{"kind": "gate"}); a.Header.Get("Retry-After") == "" {
		t.Error("a full kind says no Retry-After")
	} else {
		a.wantProblem(t, 429, "busy")
	}
	gone := r.do("DELETE", "/api/v1/tasks/"+second, nil, bearer(writer)).wantStatus(t, 200).decode(t)
	if gone["state"] != "cancelled" || gone["cancel_requested"] != true {
		t.Errorf("cancelled it is %v", gone)
	}
	r.do("DELETE", "/api/v1/tasks/"+second, nil, bearer(writer)).wantProblem(t, 409, "conflict")
	r.do("GET", "/api/v1/tasks/"+second+"/result", nil, bearer(writer)).wantProblem(t, 409, "conflict")
	close(r.gate)
	done := get("?wait=30s").wantStatus(t, 200).decode(t)
	if result, _ := done["result"].(map[string]any); done["state"] != "succeeded" || result["url"] != at+"/result" || result["size"] != 10.0 {
		t.Errorf("at the end it is %v", done)
	}
	whole := get("/result").wantStatus(t, 200)
	if string(whole.body) != "0123456789" || whole.Header.Get("Content-Type") != "text/plain" || whole.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the result is %q %v", whole.body, whole.Header)
	}
	if part := get("/result", header("Range", "bytes=2-4")).wantStatus(t, 206); string(part.body) != "234" {
		t.Errorf("a range is %q", part.body)
	}
	get("/result", header("Range", "bytes=20-")).wantProblem(t, 416, "range_not_satisfiable")
	get("/result", header("If-Match", `"other"`)).wantStatus(t, 200)
	get("/result", header("If-None-Match", whole.Header.Get("Etag"))).wantStatus(t, 304)
}

func TestAStartThatMayNotBeIsRefused(t *testing.T) {
	r := newRig(t)
	writer := r.key(accounts.DevicesRead, accounts.DevicesWrite)
	for _, tc := range []struct {
		body   object
		status int
	}{
		{object{"kind": "nothing"}, 404},
		{object{"kind": "admins"}, 403},
		{object{"kind": "devices.import"}, 422},
		{object{"kind": "gate", "input": []any{}}, 422},
		{object{"kind": "gate", "input": "text"}, 422},
		{object{"kind": "gate", "input": object{"a": strings.Repeat("x", 20_000)}}, 413},
		{object{"kind": "gate", "more": 1}, 422},
		{object{}, 422},
	} {
		r.do("POST", "/api/v1/tasks", tc.body, bearer(writer)).wantStatus(t, tc.status)
	}
	if page := r.as("GET", "/api/v1/tasks", nil).wantStatus(t, 200).decode(t); len(page["items"].([]any)) != 0 {
		t.Errorf("there are %v", page)
	}
	slow := r.do("POST", "/api/v1/tasks", object{"kind": "slow"}, bearer(writer)).wantStatus(t, 202).Header.Get("Location")
	timed := r.do("GET", slow+"?wait=30s", nil, bearer(writer)).wantStatus(t, 200).decode(t)
	if fault, _ := timed["error"].(map[string]any); timed["state"] != "timed_out" || fault["code"] != "timeout" {
		t.Errorf("it is %v", timed)
	}
	r.do("GET", slow+"/result", nil, bearer(writer)).wantProblem(t, 408, "timeout")
}

func TestNobodySeesAnothersTasksButAdmins(t *testing.T) {
	r := newRig(t)
	one := r.key(accounts.DevicesRead, accounts.DevicesWrite)
	two := r.key(accounts.DevicesRead, accounts.DevicesWrite, accounts.TelemetryRead)
	at := r.do("POST", "/api/v1/tasks", object{"kind": "gate"}, bearer(one)).wantStatus(t, 202).Header.Get("Location")
	for _, try := range []struct{ method, path string }{{"GET", at}, {"GET", at + "?wait=1s"}, {"GET", at + "/result"}, {"DELETE", at}} {
		r.do(try.method, try.path, nil, bearer(two)).wantProblem(t, 404, "not_found")
	}
	count := func(key, query string) int {
		t.Helper()
		return len(r.do("GET", "/api/v1/tasks"+query, nil, bearer(key)).wantStatus(t, 200).decode(t)["items"].([]any))
	}
	if a, b, c := count(one, ""), count(two, ""), count(r.admin, ""); a != 1 || b != 0 || c != 1 {
		t.Errorf("they see %d, %d and %d", a, b, c)
	}
	if a, b := count(one, "?state=running&kind=gate"), count(one, "?state=failed"); a != 1 || b != 0 {
		t.Errorf("filters give %d and %d", a, b)
	}
	r.do("GET", "/api/v1/tasks?state=odd", nil, bearer(one)).wantStatus(t, 422)
	csv := header("Content-Type", "text/csv")
	imported := r.do("POST", "/api/v1/devices:import", "id\nd1\n", bearer(one), csv, prefers).wantStatus(t, 202).Header.Get("Location")
	r.do("GET", imported+"?wait=30s", nil, bearer(one)).wantStatus(t, 200)
	r.do("GET", imported+"/result", nil, bearer(one)).wantStatus(t, 200)
	r.do("GET", imported, nil, bearer(r.admin)).wantStatus(t, 200)
	r.do("GET", imported+"/result", nil, bearer(r.admin)).wantProblem(t, 403, "forbidden")
	if a := r.do("DELETE", at, nil, bearer(r.admin)).wantStatus(t, 200).decode(t); a["state"] != "cancelled" {
		t.Errorf("an admin's cancel gives %v", a)
	}
}

func TestTasksAreListedInPages(t *testing.T) {
	r := newRig(t)
	close(r.gate)
	var want []string
	for range 5 {
		at := r.as("POST", "/api/v1/tasks", object{"kind": "gate"}).wantStatus(t, 202).Header.Get("Location")
		r.as("GET", at+"?wait=30s", nil).wantStatus(t, 200)
		want = append(want, strings.TrimPrefix(at, "/api/v1/tasks/"))
	}
	slices.Reverse(want)
	var got []string
	for next := ""; ; {
		page := r.as("GET", "/api/v1/tasks?limit=2&cursor="+next, nil).wantStatus(t, 200).decode(t)
		for _, item := range page["items"].([]any) {
			got = append(got, item.(map[string]any)["id"].(string))
		}
		if page["next"] == nil {
			break
		}
		next = page["next"].(string)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	kinds := r.as("GET", "/api/v1/task-kinds", nil).wantStatus(t, 200).decode(t)["items"].([]any)
	if len(kinds) != 8 || kinds[0].(map[string]any)["kind"] != "admins" {
		t.Errorf("the kinds are %v", kinds)
	}
}

func TestBulkRequestsBecomeTasksWhenThatIsPreferred(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	r.device("d2")
	csv := header("Content-Type", "text/csv")
	reader := r.key(accounts.DevicesRead)
	result := func(a answer, kind string, input string) string {
		t.Helper()
		a.wantStatus(t, 202)
		at := a.Header.Get("Location")
		task := r.as("GET", at+"?wait=30s", nil).wantStatus(t, 200).decode(t)
		got, err := json.Marshal(task["input"])
		r.must(err)
		if a.Header.Get("Preference-Applied") != "respond-async" || task["kind"] != kind || string(got) != input || task["durable"] != true {
			t.Errorf("%v: the task is %v", a.Header, task)
		}
		res := r.as("GET", at+"/result", nil)
		return string(res.body)
	}
	list := "id,name\nd3,Three\n"
	if got := result(r.do("POST", "/api/v1/devices:import?partial=true", list, bearer(r.admin), csv, prefers), "devices.import", `{"format":"csv","partial":true}`); got != list {
		t.Errorf("the task got the list %q", got)
	}
	result(r.do("GET", "/api/v1/devices:export?q=id:d*&format=ndjson", nil, bearer(r.admin), prefers), "devices.export", `{"format":"ndjson","q":"id:d*"}`)
	update := object{"q": "id:d*", "expect": 2, "tags": object{"site": "a", "old": nil}}
	if got := result(r.do("POST", "/api/v1/devices:update", update, bearer(r.admin), prefers), "devices.update", `{"tags":{"old":null,"site":"a"}}`); got != "d1\nd2\n" {
		t.Errorf("the task got the ids %q", got)
	}
	remove := object{"ids": []any{"d2"}, "data": "delete"}
	if got := result(r.do("POST", "/api/v1/devices:delete", remove, bearer(r.admin), prefers), "devices.delete", `{"data":"delete"}`); got != "d2\n" {
		t.Errorf("the task got the ids %q", got)
	}
	if r.registry.Count() != 2 {
		t.Errorf("there are %d devices: something was done at once", r.registry.Count())
	}
	r.do("GET", "/api/v1/devices:export", nil, bearer(reader), prefers).wantStatus(t, 200) // a preference is no demand
	r.do("POST", "/api/v1/devices:update", object{"q": "id:d*", "expect": 3}, bearer(r.admin), prefers).wantProblem(t, 409, "conflict")
	dry := r.do("POST", "/api/v1/devices:update", object{"q": "id:d*", "dry_run": true}, bearer(r.admin), prefers).wantStatus(t, 200)
	if dry.Header.Get("Preference-Applied") != "" || dry.Header.Get("Location") != "" {
		t.Errorf("a dry run says %v", dry.Header)
	}
	r.do("POST", "/api/v1/devices:import", "id\n", bearer(reader), csv, prefers).wantProblem(t, 403, "forbidden")
}

func TestAKeyForSomeDevicesStartsNoTasks(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	_, key, err := r.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "some", Scopes: []string{accounts.DevicesRead, accounts.DevicesWrite}, Selector: "id:d1"})
	r.must(err)
	for _, kind := range []string{"gate", "devices.export", "identicon"} {
		r.do("POST", "/api/v1/tasks", object{"kind": kind}, bearer(key)).wantProblem(t, 403, "forbidden")
	}
	for _, path := range []string{"/api/v1/devices:update", "/api/v1/devices:delete"} {
		a := r.do("POST", path, object{"q": "id:d1", "expect": 1, "data": "keep"}, bearer(key), prefers)
		if a.StatusCode == http.StatusAccepted {
			t.Errorf("%s becomes a task", path)
		}
	}
	if page, _ := r.tasks.List(tasks.Query{By: tasks.Viewer{Admin: true}, Limit: 10}); len(page) != 0 {
		t.Errorf("there are %v", page)
	}
}

func TestADevicesPictureIsDrawnOnceAndKnownByItsTag(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	at := "/api/v1/devices/d1/identicon.png?size=64"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if a := r.as("GET", at, nil); a.StatusCode != http.StatusOK {
				t.Errorf("it gives %d %s", a.StatusCode, a.body)
			}
		})
	}
	wg.Wait()
	a := r.as("GET", at, nil).wantStatus(t, 200)
	m, err := png.Decode(bytes.NewReader(a.body))
	r.must(err)
	if m.Bounds().Dx() != 64 || a.Header.Get("Content-Type") != "image/png" || r.draws.Load() != 1 {
		t.Errorf("%v, %v, drawn %d times", m.Bounds(), a.Header, r.draws.Load())
	}
	r.do("GET", at, nil, bearer(r.admin), header("If-None-Match", a.Header.Get("Etag"))).wantStatus(t, 304)
	r.do("GET", at+"&oversample=1", nil, bearer(r.admin), header("If-None-Match", a.Header.Get("Etag"))).wantStatus(t, 200)
	r.as("GET", "/api/v1/devices/nobody/identicon.png", nil).wantProblem(t, 404, "not_found")
	for _, q := range []string{"size=15", "size=1025", "size=x", "oversample=0", "oversample=33", "wait=2m", "colour=red"} {
		r.as("GET", "/api/v1/devices/d1/identicon.png?"+q, nil).wantStatus(t, 422)
	}
	r.do("GET", at, nil, bearer(r.key(accounts.TelemetryRead))).wantProblem(t, 403, "forbidden")
	busy := "/api/v1/devices/d1/identicon.png?size=1000&oversample=1&wait=1ms"
	r.as("GET", busy, nil).wantProblem(t, 408, "timeout")
	r.as("GET", "/api/v1/devices/d1/identicon.png?size=65", nil).wantProblem(t, 429, "busy")
	close(r.gate)
	r.as("GET", strings.Replace(busy, "1ms", "30s", 1), nil).wantStatus(t, 200)
	if r.draws.Load() != 3 {
		t.Errorf("%d pictures were drawn, want 3", r.draws.Load())
	}
}

func TestTheResultOfAnImportIsNotForWhoMayNotWriteDevicesAnyMore(t *testing.T) {
	r := newRig(t)
	id := r.person("op@example.com", accounts.Operator)
	r.person("admin@example.com", accounts.Admin)
	who := withCookie(r.enter("op@example.com"))
	at := r.do("POST", "/api/v1/devices:import", "id\nd1\n", who, header("Content-Type", "text/csv"), prefers).wantStatus(t, 202).Header.Get("Location")
	r.do("GET", at+"?wait=30s", nil, who).wantStatus(t, 200)
	r.do("GET", at+"/result", nil, who).wantStatus(t, 200)
	_, err := r.accounts.UpdateUser(t.Context(), id, accounts.UserChange{Role: new(accounts.Viewer)})
	r.must(err)
	r.do("GET", at+"/result", nil, who).wantProblem(t, 403, "forbidden")
}
