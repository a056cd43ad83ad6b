package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/client"
	"muster/server"
	"muster/server/servertest"
)

// rolls is a server with two releases and devices, which verbs speak to.
type rolls struct {
	verbs
	offline
	older, newer string // releases
}

func newRolls(t *testing.T) *rolls {
	t.Helper()
	s := servertest.Start(t, func(c *server.Config) { c.DDI.Busy = time.Second })
	t.Setenv("MUSTER_KEY", "")
	r := &rolls{verbs: verbs{t, "http://" + s.HTTPAddr()}, offline: offline{t, t.TempDir()}}
	at := r.server
	r.offline.do(0, "keygen", r.path("k"))
	r.online(0, at, "trust", r.path("k.pub"), "--name", "ana")
	release := func(version string) string {
		image, manifest := r.write("fw-"+version, "image "+version), r.path(version+".json")
		r.offline.do(0, "manifest", "--product", "pump", "--release-version", version, "--out", manifest, image)
		r.offline.do(0, "sign", "--key", r.path("k"), manifest)
		r.online(0, at, "upload", image)
		id, _ := r.online(0, at, "release", manifest, "--publish")
		return strings.Fields(id)[0]
	}
	r.older, r.newer = release("1.0.0"), release("2.0.0")
	for i := range 3 {
		r.muster(0, "device", "create", fmt.Sprintf("pump-%d", i))
	}
	return r
}

// muster runs a verb that must end with the exit code want.
func (r *rolls) muster(want int, args ...string) (out, failed string) {
	r.verbs.Helper()
	return r.verbs.do(want, args...)
}

// says has the verb, and looks for words in what it prints or why it fails.
func (r *rolls) says(want int, words string, args ...string) string {
	r.verbs.Helper()
	out, failed := r.muster(want, append([]string{"rollout"}, args...)...)
	for word := range strings.SplitSeq(words, "|") {
		if !strings.Contains(out+failed, word) {
			r.verbs.Errorf("rollout %v: no %q in\n%s%s", args, word, out, failed)
		}
	}
	return out
}

func (r *rolls) shown(id string) (x client.RolloutBody) {
	r.verbs.Helper()
	out := r.says(0, id, "show", id, "--json")
	if err := json.Unmarshal([]byte(out), &x); err != nil {
		r.verbs.Fatalf("%v: %s", err, out)
	}
	return x
}

// create makes a draft, and returns its id.
func (r *rolls) create(args ...string) string {
	r.verbs.Helper()
	out := r.says(0, "STATUS", append([]string{"create", "Pumps", "--release", r.newer, "--query", "id:pump-*"}, args...)...)
	return strings.Fields(out)[1]
}

// asks has a device of hawkBit's clients ask for firmware, so that it is there.
func (r *rolls) asks(device, token string) {
	r.verbs.Helper()
	req, err := http.NewRequestWithContext(r.verbs.Context(), http.MethodGet, r.server+"/default/controller/v1/"+device, http.NoBody)
	if err != nil {
		r.verbs.Fatal(err)
	}
	req.Header.Set("Authorization", "TargetToken "+token)
	res := send(r.verbs.T, req)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		r.verbs.Fatalf("%s asks, and is answered %s", device, res.Status)
	}
}

func TestARolloutByCommand(t *testing.T) {
	r := newRolls(t)
	r.says(1, "not one", "create", "Pumps", "--release", r.newer, "--query", "id:*", "--plan", r.write("bad.json", `{"fases":[]}`))
	r.says(1, "plan/phases/0/regression/key", "create", "Pumps", "--release", r.newer, "--query", "id:*",
		"--plan", r.write("gate.json", `{"phases":[{"percent":100,"regression":{"key":"a\u0000","worse":"up"}}]}`))
	plan := r.write("plan.json", `{"soak_s":0,"phases":[{"name":"first","q":"id:pump-0","gate":"manual","success":0,"regression":{"key":"current","worse":"up"}},{"percent":100}]}`)
	id := r.create("--plan", plan, "--concurrent", "2", "--rollback", r.older)
	x := r.shown(id)
	if x.Progress.Status != "draft" || *x.Plan.Concurrent != 2 || len(x.Plan.Phases) != 2 || *x.Rollback != r.older || x.Plan.Phases[0].Regression.Key != "current" {
		t.Errorf("a draft is %+v", x)
	}
	r.says(1, "draft", "pause", id)
	r.says(0, "running", "start", id)
	r.says(0, id+"|Pumps|running|1/2", "list", "--status", "running")
	r.says(0, "PHASE 1|first (1 devices, now) queued 1|IN FLIGHT|0 of 2", "show", id)
	r.says(0, "not there|NO|phase_open|reachable", "why", id, "pump-1")
	r.says(1, "no such device", "why", id, "nobody")
	token, _ := r.muster(0, "device", "create", "pump-9", "--json")
	if token == "" {
		t.Error("a device without a token")
	}
	r.says(1, "waits", "approve", id)
	r.says(0, "paused: operator", "pause", id)
	r.says(0, "running", "resume", id)
	r.says(1, "pause or abort", "rollback", id)
	r.says(0, "running", "supersede", id)
	r.says(0, "paused", "pause", id)
	r.says(0, "running", "resume", id, "--skip-phase")
	if x := r.shown(id); x.Progress.Phase != 2 {
		t.Errorf("phase %d", x.Progress.Phase)
	}
	r.says(0, "aborted: operator", "abort", id)
	r.says(0, "aborted", "abort", id, "--force")
	back := strings.Fields(r.says(0, "draft", "rollback", id))[1]
	r.says(1, "no device", "start", back)
	r.says(0, "DOWNGRADE|get it too", "show", back)
	r.says(0, "DOWNGRADE", "show", r.create("--downgrade"))
	if asked := r.shown(strings.Fields(r.says(0, "draft", "rollback", id, "--approvals", "2"))[1]); *asked.MinApprovals != 2 || !*asked.Downgrade {
		t.Errorf("the rollback is %+v", asked)
	}
	if strings.Contains(r.says(0, id, "show", id), "DOWNGRADE") {
		t.Error("a rollout is a downgrade by itself")
	}
	unnamed := r.create("--start") // it does not say which release devices had before
	r.says(0, "aborted", "abort", unnamed)
	r.says(1, "name it", "rollback", unnamed)
	r.says(0, "draft", "rollback", unnamed, "--release", r.older)
	r.says(0, "AT|DEVICE", "log", id)
	r.says(1, "no such rollout", "show", "rol_none")
	r.says(1, "--limit", "log", id, "--limit", "0")
}

func TestADeviceThatIsOfferedTheReleaseIsInTheLogAndThePhaseGoesOnByAPerson(t *testing.T) {
	r := newRolls(t)
	out, _ := r.muster(0, "device", "create", "pump-7", "--json")
	var made client.CreatedDevice
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	plan := r.write("plan.json", `{"soak_s":0,"phases":[{"name":"first","q":"id:pump-7","success":0,"gate":"manual"},{"percent":100}]}`)
	id := r.create("--plan", plan, "--start")
	r.await("the offer is in the log", func() bool {
		r.asks("pump-7", made.Credential.Username)
		return strings.Contains(r.says(0, "AT", "log", id, "--device", "pump-7"), "offered")
	})
	r.says(0, "The device has the offer", "why", id, "pump-7")
	r.await("it waits for a person", func() bool { return r.shown(id).Progress.Waiting })
	r.says(0, "waits for an approval", "show", id)
	r.says(0, "running", "approve", id)
	if x := r.shown(id); x.Progress.Phase != 2 || x.Progress.Waiting {
		t.Errorf("%+v", x.Progress)
	}
}

func (r *rolls) await(what string, ok func() bool) {
	r.verbs.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			r.verbs.Fatalf("waited in vain: %s", what)
		}
	}
}

// keyOf makes an admin, and returns a key that he owns.
func (r *rolls) keyOf(t *testing.T, email string) string {
	t.Helper()
	t.Setenv("MUSTER_PASSWORD", usersPassword)
	r.muster(0, "user", "create", email, "--role", "admin")
	t.Setenv("MUSTER_PASSWORD", "")
	who := signIn(t, r.server, email, usersPassword)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server+"/api/v1/api-keys", strings.NewReader(`{"name":"own","scopes":["firmware:read","firmware:write"],"owner":"me"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.AddCookie(who.cookie)
	res := send(t, req)
	defer res.Body.Close()
	var key struct{ Secret string }
	if err := json.NewDecoder(res.Body).Decode(&key); err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("a key of %s: %s, %v", email, res.Status, err)
	}
	return key.Secret
}

// with has a verb of rollouts with a key, and returns what it prints.
func (r *rolls) with(t *testing.T, key string, args ...string) string {
	t.Helper()
	var o, e bytes.Buffer
	if code := run(t.Context(), append(append([]string{"rollout"}, args...), "--server", r.server, "--key", key), &console{&o, &e}); code != 0 {
		t.Fatalf("rollout %v: %s%s", args, o.String(), e.String())
	}
	return o.String()
}

func TestASecondPersonAgreesByCommand(t *testing.T) {
	r := newRolls(t)
	r.says(1, "no user owns", "start", r.create("--approvals", "1")) // the server's own key
	ann, eve := r.keyOf(t, "ann@example.com"), r.keyOf(t, "eve@example.com")
	id := strings.Fields(r.with(t, ann, "create", "Pumps", "--release", r.newer, "--query", "id:pump-*", "--approvals", "1"))[1]
	r.says(1, "must agree", "start", id)
	r.says(1, "second person", "agree", id)
	r.with(t, eve, "agree", id, "--note", "seen")
	if x := r.shown(id); len(x.Approvals) != 1 || *x.Approvals[0].Note != "seen" {
		t.Errorf("%+v", x.Approvals)
	}
	if out := r.with(t, ann, "start", id); !strings.Contains(out, "running") {
		t.Errorf("started: %s", out)
	}
	r.says(1, "no such file", "create", "x", "--release", r.newer, "--query", "id:*", "--plan", filepath.Join(r.dir, "none.json"))
}
