package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/devices/command"
	"muster/devices/twin"
	"muster/store/control"
)

// listeners stands for the broker: devices that listen acknowledge at once, and answer.
type listeners struct {
	mu     sync.Mutex
	answer map[muster.DeviceID]string // the report of each device that listens
	report func(device muster.DeviceID, id, payload string)
	wg     sync.WaitGroup
}

// Send implements command.Sender.
func (l *listeners) Send(d command.Delivery) bool {
	l.mu.Lock()
	payload, ok := l.answer[d.Device]
	l.mu.Unlock()
	if !ok {
		return false
	}
	d.Done(command.Acked)
	if payload != "" {
		l.wg.Go(func() { l.report(d.Device, string(d.Correlation), payload) })
	}
	return true
}

func (l *listeners) listen(id muster.DeviceID, answer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer[id] = answer
}

// twinDesirer patches desired documents.
type twinDesirer struct{ twins *twin.Twins }

// Desire implements command.Desirer.
func (d twinDesirer) Desire(ctx context.Context, ids []muster.DeviceID, patch []byte, _ string) []error {
	return d.twins.PatchDevices(ctx, ids, patch)
}

// commandRig is the rig's commands, and what stands for the broker.
type commandRig struct {
	commands     *command.Commands
	listeners    *listeners
	stopCommands func()
}

// startCommands runs the commands of the rig until stopCommands.
func (r *rig) startCommands(store *control.Control, log *slog.Logger) {
	r.listeners = &listeners{answer: map[muster.DeviceID]string{}}
	r.commands = command.New(store, time.Now, log, command.Options{
		Sender: r.listeners, Registry: r.registry, Selector: r.registry, Desirer: twinDesirer{r.twins},
	})
	r.listeners.report = func(device muster.DeviceID, id, payload string) {
		for _, err := range r.commands.Results(context.Background(), []command.Report{{Device: device, Command: id, Payload: []byte(payload)}}) {
			if err != nil {
				r.Errorf("a report is refused: %v", err)
			}
		}
	}
	r.must(r.commands.Load(r.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 2)
	go func() { ran <- r.commands.Run(ctx) }()
	go func() { ran <- r.commands.RunDesired(ctx) }()
	r.stopCommands = func() {
		r.listeners.wg.Wait()
		cancel()
		for range 2 {
			r.must(<-ran)
		}
	}
}

const commandsPath = "/api/v1/devices/d/commands"

func TestACommandGoesToItsDeviceAndItsResultComesBack(t *testing.T) {
	r := newRig(t)
	r.device("d")
	r.listeners.listen("d", `{"status":"ok","result":{"t":21.5}}`)
	a := r.as("POST", commandsPath+"?wait=10s", `{"method":"measure","params":{"unit":"C"},"ttl_s":60}`).wantStatus(t, 201)
	got := a.decode(t)
	at := a.Header.Get("Location")
	if at != commandsPath+"/"+got["id"].(string) {
		t.Errorf("it is at %s", at)
	}
	for _, k := range []string{"created_at", "expires_at", "sent_at", "delivered_at", "finished_at"} {
		if s, _ := got[k].(string); s == "" {
			t.Errorf("%s is %v", k, got[k])
		}
	}
	want := object{
		"id": got["id"], "device": "d", "method": "measure", "params": object{"unit": "C"}, "state": "succeeded", "progress": 100.0, "attempts": 1.0,
		"result": object{"t": 21.5}, "error": nil, "created_by": got["created_by"], "created_at": got["created_at"], "expires_at": got["expires_at"],
		"sent_at": got["sent_at"], "delivered_at": got["delivered_at"], "accepted_at": nil, "progress_at": nil, "finished_at": got["finished_at"],
	}
	shown := r.as("GET", at, nil).wantStatus(t, 200).decode(t)
	listed := r.as("GET", commandsPath+"?state=finished", nil).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(want, got) + cmp.Diff(want, shown) + cmp.Diff(object{"items": []any{want}, "next": nil}, listed); d != "" {
		t.Error(d)
	}
	r.as("POST", at+"/cancel", nil).wantProblem(t, 409, "conflict")
}

func TestACommandForADeviceThatIsAwayWaitsAndIsCalledOff(t *testing.T) {
	r := newRig(t)
	r.device("d")
	begun := time.Now()
	a := r.as("POST", commandsPath+"?wait=100ms", `{"method":"m"}`).wantStatus(t, 201)
	if got := a.decode(t); got["state"] != "queued" || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("after %s it is %v", time.Since(begun), got["state"])
	}
	at := a.Header.Get("Location")
	for range 2 {
		if got := r.as("POST", at+"/cancel", nil).wantStatus(t, 200).decode(t); got["state"] != "cancelled" {
			t.Errorf("it is %v", got["state"])
		}
	}
	var ids []any
	for range 3 {
		ids = append(ids, r.as("POST", commandsPath, `{"method":"m"}`).wantStatus(t, 201).decode(t)["id"])
	}
	page := r.as("GET", commandsPath+"?limit=2&state=open", nil).wantStatus(t, 200).decode(t)
	rest := r.as("GET", commandsPath+"?limit=2&state=open&after="+page["next"].(string), nil).wantStatus(t, 200).decode(t)
	var got []any
	for _, p := range []object{rest, page} {
		items := p["items"].([]any)
		for _, x := range slices.Backward(items) {
			got = append(got, x.(object)["id"])
		}
	}
	if d := cmp.Diff(ids, got); d != "" || rest["next"] != nil {
		t.Error(d)
	}
}

func TestAnIdempotencyKeySendsOnce(t *testing.T) {
	r := newRig(t)
	r.device("d")
	key := header("Idempotency-Key", "one")
	one := r.do("POST", commandsPath, `{"method":"m","params":[1]}`, bearer(r.admin), key).wantStatus(t, 201)
	two := r.do("POST", commandsPath, `{"params":[ 1 ],"method":"m"}`, bearer(r.admin), key).wantStatus(t, 201)
	if one.decode(t)["id"] != two.decode(t)["id"] {
		t.Error("one key made two commands")
	}
	r.do("POST", commandsPath, `{"method":"m","params":[2]}`, bearer(r.admin), key).wantProblem(t, 409, "conflict")
	other := r.do("POST", commandsPath, `{"method":"m","params":[2]}`, bearer(r.key(accounts.CommandsSend)), key).wantStatus(t, 201)
	if one.decode(t)["id"] == other.decode(t)["id"] {
		t.Error("a key of another is one's own")
	}
	r.do("POST", commandsPath, `{"method":"m"}`, bearer(r.admin), header("Idempotency-Key", strings.Repeat("k", 257))).wantProblem(t, 422, "invalid")
}

func TestCommandsThatAreRefused(t *testing.T) {
	r := newRig(t)
	r.device("d")
	for _, tt := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"a device that is not there", "/api/v1/devices/x/commands", `{"method":"m"}`, 404, "not_found"},
		{"a device that cannot be", "/api/v1/devices/me/commands", `{"method":"m"}`, 404, "not_found"},
		{"a device of a foreign alphabet", "/api/v1/devices/a%20b/commands", `{"method":"m"}`, 404, "not_found"},
		{"no method", commandsPath, `{}`, 422, "invalid"},
		{"a method with a space", commandsPath, `{"method":"a b"}`, 422, "invalid"},
		{"no time to live", commandsPath, `{"method":"m","ttl_s":0}`, 422, "invalid"},
		{"31 days to live", commandsPath, `{"method":"m","ttl_s":2678400}`, 422, "invalid"},
		{"a member that is none", commandsPath, `{"method":"m","timeout":1}`, 422, "invalid"},
		{"params over 64 KiB", commandsPath, `{"method":"m","params":"` + strings.Repeat("x", 64<<10) + `"}`, 413, "too_large"},
		{"a body over its limit", commandsPath, `{"method":"m","params":"` + strings.Repeat("x", 200<<10) + `"}`, 413, "too_large"},
		{"no JSON", commandsPath, `{`, 400, "malformed"},
		{"a wait of two minutes", commandsPath + "?wait=2m", `{"method":"m"}`, 422, "invalid"},
		{"a wait back in time", commandsPath + "?wait=-1s", `{"method":"m"}`, 422, "invalid"},
		{"a wait of 10", commandsPath + "?wait=10", `{"method":"m"}`, 422, "invalid"},
	} {
		t.Run(tt.name, func(t *testing.T) { r.as("POST", tt.path, tt.body).wantProblem(t, tt.status, tt.code) })
	}
	r.as("POST", commandsPath, `{"method":"m","params":"`+strings.Repeat("x", 64<<10-2)+`"}`).wantStatus(t, 201)
	for _, path := range []string{"/0", "/01", "/x", "/999999", "/-1"} {
		r.as("GET", commandsPath+path, nil).wantProblem(t, 404, "not_found")
		r.as("POST", commandsPath+path+"/cancel", nil).wantProblem(t, 404, "not_found")
	}
	for _, q := range []string{"?state=none", "?after=x", "?after=0", "?limit=0", "?q=x"} {
		r.as("GET", commandsPath+q, nil).wantProblem(t, 422, "invalid")
	}
	for i := range command.MaxOpenPerDevice - 1 {
		if _, err := r.commands.Send(t.Context(), command.Spec{Device: "d", Method: fmt.Sprint("m", i)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if a := r.as("POST", commandsPath, `{"method":"m"}`); a.Header.Get("Retry-After") == "" {
		t.Error("429 says not when to try again")
	} else {
		a.wantProblem(t, 429, "busy")
	}
}

// TestWhatAPersonSendsIsThePersonsAndNotTheSessions sends a command and a job from a browser: its session is gone
// one day, and is nobody's name.
func TestWhatAPersonSendsIsThePersonsAndNotTheSessions(t *testing.T) {
	r := newRig(t)
	r.device("d")
	id := r.person("ann@example.com", accounts.Operator)
	by := withCookie(r.enter("ann@example.com"))
	if got := r.do("POST", commandsPath, object{"method": "m"}, by).wantStatus(t, 201).decode(t)["created_by"]; got != id {
		t.Errorf("the command is by %v, want %s", got, id)
	}
	if got := r.do("POST", "/api/v1/jobs", object{"q": "id:d", "kind": "command", "method": "m"}, by).wantStatus(t, 201).decode(t)["job"].(object)["created_by"]; got != id {
		t.Errorf("the job is by %v, want %s", got, id)
	}
}

// TestWhatAKeysSessionSendsIsTheKeys sends them from a browser that came in by an API key, which is who did it in the audit log too.
func TestWhatAKeysSessionSendsIsTheKeys(t *testing.T) {
	r := newRig(t)
	r.device("d")
	k, secret, err := r.accounts.CreateKey(r.Context(), accounts.KeySpec{Name: "night shift", Scopes: []string{accounts.Admin}})
	r.must(err)
	by := withCookie(r.login(object{"key": secret}))
	if got := r.do("POST", commandsPath, object{"method": "m"}, by).wantStatus(t, 201).decode(t)["created_by"]; got != k.ID {
		t.Errorf("the command is by %v, want %s", got, k.ID)
	}
	if got := r.do("POST", "/api/v1/jobs", object{"q": "id:d", "kind": "command", "method": "m"}, by).wantStatus(t, 201).decode(t)["job"].(object)["created_by"]; got != k.ID {
		t.Errorf("the job is by %v, want %s", got, k.ID)
	}
	records := itemsOf(r.do("GET", "/api/v1/audit?action=command.send", nil, bearer(r.admin)), t)
	if len(records) != 1 {
		t.Fatalf("the audit log has %v", records)
	}
	actor := records[0]["actor"].(object)
	if actor["kind"] != "key" || actor["id"] != k.ID || actor["name"] != "night shift" {
		t.Errorf("the audit log says %v", actor)
	}
}

func TestAJobIsCountedRunAndShown(t *testing.T) {
	r := newRig(t)
	for i := range 10 {
		id := muster.DeviceID(fmt.Sprint("d", i))
		r.device(id)
		r.listeners.listen(id, `{"status":"ok"}`)
	}
	body := object{
		"q": "id:d*", "kind": "command", "method": "m", "params": object{"a": 1}, "waves": []object{{"percent": 20}, {"count": 3}},
		"rate_per_minute": 600000, "max_in_flight": 2, "abort": object{"failed_percent": 50, "min_finished": 5}, "ttl_s": 60,
	}
	dry := maps.Clone(body)
	dry["dry_run"] = true
	if d := cmp.Diff(object{"dry_run": true, "matched": 10.0}, r.as("POST", "/api/v1/jobs", dry).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	key := header("Idempotency-Key", "one")
	a := r.do("POST", "/api/v1/jobs", body, bearer(r.admin), key).wantStatus(t, 201)
	job := a.decode(t)["job"].(object)
	at := a.Header.Get("Location")
	if again := r.do("POST", "/api/v1/jobs", body, bearer(r.admin), key).wantStatus(t, 201); again.Header.Get("Location") != at {
		t.Error("one key made two jobs")
	}
	got := r.untilDone(at)
	want := object{
		"id": job["id"], "q": "id:d*", "kind": "command", "method": "m", "params": object{"a": 1.0}, "ttl_s": 60.0, "rate_per_minute": 600000.0,
		"max_in_flight": 2.0, "abort": object{"failed_percent": 50.0, "min_finished": 5.0}, "state": "done", "wave": 3.0, "waves": []any{2.0, 3.0, 5.0},
		"total": 10.0, "counts": object{"pending": 0.0, "running": 0.0, "succeeded": 10.0, "failed": 0.0, "expired": 0.0, "cancelled": 0.0},
		"created_by": job["created_by"], "created_at": job["created_at"], "ended_at": got["ended_at"],
	}
	list := r.as("GET", "/api/v1/jobs", nil).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(want, got) + cmp.Diff(object{"items": []any{want}, "next": nil}, list); d != "" || at != "/api/v1/jobs/"+job["id"].(string) {
		t.Error(at, d)
	}
	seen := map[string]bool{}
	for next := ""; ; {
		p := r.as("GET", at+"/targets?state=succeeded&limit=4"+next, nil).wantStatus(t, 200).decode(t)
		for _, x := range p["items"].([]any) {
			o := x.(object)
			c := r.as("GET", "/api/v1/devices/"+o["device"].(string)+"/commands/"+o["command"].(string), nil).wantStatus(t, 200).decode(t)
			if c["job"] != job["id"] || c["state"] != "succeeded" || !cmp.Equal(c["params"], any(object{"a": 1.0})) || o["state"] != "succeeded" {
				t.Errorf("target %v has the command %v", o, c)
			}
			seen[o["device"].(string)] = true
		}
		n, more := p["next"].(string)
		if !more {
			break
		}
		next = "&after=" + n
	}
	if len(seen) != 10 {
		t.Errorf("%d targets are listed", len(seen))
	}
	if p := r.as("GET", at+"/targets?state=failed", nil).wantStatus(t, 200).decode(t); len(p["items"].([]any)) != 0 {
		t.Errorf("failed: %v", p)
	}
	r.as("POST", at+"/pause", nil).wantProblem(t, 409, "conflict")
}

// untilDone asks for a job until it has ended.
func (r *rig) untilDone(at string) object {
	r.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got := r.as("GET", at, nil).wantStatus(r, 200).decode(r)
		if got["state"] == "done" || got["state"] == "aborted" {
			return got
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			r.Fatalf("the job is %v", got)
		}
	}
}

func TestAJobIsPausedResumedMovedOnAndAborted(t *testing.T) {
	r := newRig(t)
	for i := range 4 {
		r.device(muster.DeviceID(fmt.Sprint("d", i)))
	}
	at := r.as("POST", "/api/v1/jobs", `{"q":"id:d*","kind":"command","method":"m","waves":[{"count":1},{"count":1}]}`).wantStatus(t, 201).Header.Get("Location")
	for _, tt := range []struct{ action, state string }{
		{"pause", "paused"}, {"pause", "paused"}, {"resume", "running"}, {"next", "running"}, {"next", "running"}, {"abort", "aborted"}, {"abort", "aborted"},
	} {
		if got := r.as("POST", at+"/"+tt.action, nil).wantStatus(t, 200).decode(t); got["state"] != tt.state {
			t.Errorf("after %s it is %v", tt.action, got["state"])
		}
	}
	r.as("POST", at+"/resume", nil).wantProblem(t, 409, "conflict")
	for _, path := range []string{"/api/v1/jobs/x", "/api/v1/jobs/999999"} {
		r.as("GET", path, nil).wantProblem(t, 404, "not_found")
		r.as("GET", path+"/targets", nil).wantProblem(t, 404, "not_found")
		r.as("POST", path+"/abort", nil).wantProblem(t, 404, "not_found")
	}
}

func TestAJobOfKindDesiredNeedsItsScopeAndChangesTwins(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	r.device("d2")
	body := `{"q":"id:d*","kind":"desired","patch":{"mode":"eco"}}`
	r.do("POST", "/api/v1/jobs", body, bearer(r.key(accounts.CommandsSend))).wantProblem(t, 403, "forbidden")
	a := r.do("POST", "/api/v1/jobs", body, bearer(r.key(accounts.CommandsSend, accounts.DevicesWrite))).wantStatus(t, 201)
	r.untilDone(a.Header.Get("Location"))
	for _, id := range []string{"d1", "d2"} {
		got := r.as("GET", "/api/v1/devices/"+id+"/desired", nil).wantStatus(t, 200).decode(t)
		if !cmp.Equal(got["state"], any(object{"mode": "eco"})) {
			t.Errorf("%s is wanted to be %v", id, got["state"])
		}
	}
}

// TestAJobIsGivenItsDevicesByTheirIds has more of them than a query has terms.
func TestAJobIsGivenItsDevicesByTheirIds(t *testing.T) {
	r := newRig(t)
	var ids []string
	for i := range 150 {
		id := muster.DeviceID(fmt.Sprint("d", i))
		r.device(id)
		r.listeners.listen(id, `{"status":"ok"}`)
		if i%2 == 0 {
			ids = append(ids, string(id))
		}
	}
	body := object{"ids": append(ids, ids[0]), "kind": "command", "method": "m", "dry_run": true}
	if d := cmp.Diff(object{"dry_run": true, "matched": 75.0}, r.as("POST", "/api/v1/jobs", body).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	delete(body, "dry_run")
	key := header("Idempotency-Key", "one")
	at := r.do("POST", "/api/v1/jobs", body, bearer(r.admin), key).wantStatus(t, 201).Header.Get("Location")
	body["ids"] = ids[1:]
	r.do("POST", "/api/v1/jobs", body, bearer(r.admin), key).wantProblem(t, 409, "conflict")
	if got := r.untilDone(at); got["total"] != 75.0 || got["q"] != nil {
		t.Error("the job is", got)
	}
	seen := map[string]bool{}
	for _, x := range r.as("GET", at+"/targets", nil).wantStatus(t, 200).decode(t)["items"].([]any) {
		seen[x.(object)["device"].(string)] = true
	}
	for _, id := range ids {
		if !seen[id] {
			t.Errorf("%s was sent nothing", id)
		}
	}
	r.as("POST", "/api/v1/jobs", object{"ids": []string{"d0", "nobody"}, "kind": "command", "method": "m"}).wantProblem(t, 404, "not_found")
}

func TestJobsThatAreRefused(t *testing.T) {
	r := newRig(t)
	r.device("d")
	for name, body := range map[string]string{
		"no query":              `{"kind":"command","method":"m"}`,
		"a query and ids":       `{"q":"id:*","ids":["d"],"kind":"command","method":"m"}`,
		"an id that is none":    `{"ids":["a/b"],"kind":"command","method":"m"}`,
		"an empty query":        `{"q":"","kind":"command","method":"m"}`,
		"an unknown term":       `{"q":"colour=red","kind":"command","method":"m"}`,
		"an unknown kind":       `{"q":"id:*","kind":"reboot"}`,
		"no method":             `{"q":"id:*","kind":"command"}`,
		"a method with a space": `{"q":"id:*","kind":"command","method":"a b"}`,
		"a wave of nothing":     `{"q":"id:*","kind":"command","method":"m","waves":[{}]}`,
		"a wave of both":        `{"q":"id:*","kind":"command","method":"m","waves":[{"percent":1,"count":1}]}`,
		"a patch of an array":   `{"q":"id:*","kind":"desired","patch":[]}`,
		"a rate over all":       `{"q":"id:*","kind":"command","method":"m","rate_per_minute":600001}`,
		"a member that is none": `{"q":"id:*","kind":"command","method":"m","x":1}`,
	} {
		t.Run(name, func(t *testing.T) { r.as("POST", "/api/v1/jobs", body).wantProblem(t, 422, "invalid") })
	}
	var list struct{ Items []json.RawMessage }
	r.must(json.Unmarshal(r.as("GET", "/api/v1/jobs", nil).wantStatus(t, 200).body, &list))
	if len(list.Items) != 0 {
		t.Errorf("%d jobs were made", len(list.Items))
	}
}
