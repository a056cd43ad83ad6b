package api_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/accounts"
	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
)

// rolloutRig is the rollouts of a rig, whose devices are all there.
type rolloutRig struct {
	rollouts *operator.Operator
	director *director.Director
}

// anyFleet is one whose devices can all be offered everything.
type anyFleet struct{}

func (anyFleet) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: time.Now(), Version: "1.0.0"}
}
func (anyFleet) Knows(string) bool { return true }

func (anyFleet) Life(muster.DeviceID) rollout.Life                { return rollout.Life{There: true} }
func (anyFleet) Is(*rollout.Rollout, string) bool                 { return true }
func (anyFleet) Version(*rollout.Rollout, muster.DeviceID) string { return "" }

// stock is the catalogue as rollouts ask it.
type stock struct{ *catalog.Catalog }

func (s stock) Known(ctx context.Context, id string) (operator.Release, error) {
	r, err := s.Release(ctx, id)
	return operator.Release{Product: r.Product}, err
}

func (r *rig) newRollouts(store *control.Control) *operator.Operator {
	notes := operator.NewNoting(store)
	quorum := rollout.Quorum{May: func(p rollout.Person) bool { return r.accounts.May(p.ID, accounts.FirmwareWrite) }}
	r.director = director.New(notes, anyFleet{}, time.Now, director.Options{Owner: "rig", Quorum: quorum})
	r.rollouts = operator.New(operator.Parts{
		Store: store, Reader: store, Fleet: operator.Devices{Registry: r.registry}, Facts: anyFleet{}, Releases: stock{r.firmware}, Now: time.Now,
	}, notes, operator.Options{Quorum: quorum})
	return r.rollouts
}

// tick has the director look once.
func (r *rig) tick() {
	r.Helper()
	r.must(r.director.Tick(r.Context()))
}

// releases makes two versions of a product, published, and returns their ids.
func (w *writer) releases() (older, newer string) {
	w.Helper()
	w.ask("PUT", "/firmware/policy", object{"threshold": 1})
	k, product := w.releaseKey(w.name("key")), w.name("product")
	published := func(version string) string {
		img := []byte(w.name("image"))
		w.image(img)
		at := w.release(manifestOf(version, img, func(m *firmware.Manifest) { m.Product = product }), k)
		w.ask("POST", at+"/publish", nil)
		return at[len("/firmware/releases/"):]
	}
	return published("1.0.0"), published("2.0.0")
}

// rollout makes one of some devices, and returns its path.
func (w *writer) rollout(change object) string {
	w.Helper()
	older, newer := w.releases()
	w.newDevice()
	spec := object{
		"name": w.name("rollout"), "release": newer, "rollback": older, "q": "id:*",
		"plan": object{"soak_s": 0, "phases": []any{object{"name": "first", "count": 1, "gate": "manual", "success": 0}, object{"name": "all", "percent": 100}}},
	}
	maps.Copy(spec, change)
	return "/rollouts/" + w.ask("POST", "/rollouts", spec)["id"].(string)
}

func rolloutDoings() doings {
	running := object{"start": true}
	return doings{
		"create-rollout": func(w *writer) deed {
			_, newer := w.releases()
			return deed{path: "/rollouts", body: object{"name": "r", "release": newer, "q": "id:*"}, want: records("rollout.create rollouts/* a")}
		},
		"change-rollout": func(w *writer) deed {
			return deed{path: w.rollout(nil), body: object{"note": "n"}, want: records("rollout.update rollouts/* ba")}
		},
		"delete-rollout": func(w *writer) deed {
			return deed{path: w.rollout(nil), want: records("rollout.delete rollouts/* b")}
		},
		"start-rollout": func(w *writer) deed {
			at := w.rollout(nil)
			return deed{path: at + "/start", want: records("rollout.start rollouts/* ba")}
		},
		"pause-rollout": func(w *writer) deed {
			return deed{path: w.rollout(running) + "/pause", want: records("rollout.pause rollouts/* ba")}
		},
		"resume-rollout": func(w *writer) deed {
			at := w.rollout(running)
			w.ask("POST", at+"/pause", nil)
			return deed{path: at + "/resume", body: object{}, want: records("rollout.resume rollouts/* ba")}
		},
		"abort-rollout": func(w *writer) deed {
			return deed{path: w.rollout(running) + "/abort", body: object{"force": true}, want: records("rollout.abort rollouts/* ba")}
		},
		"approve-rollout": func(w *writer) deed {
			at := w.rollout(running)
			w.tick()
			w.tick()
			return deed{path: at + "/approve", want: records("rollout.approve rollouts/* ba")}
		},
		"agree-to-rollout": func(w *writer) deed {
			eve := w.enters(w.name("eve"), accounts.Operator)
			return deed{path: w.rollout(nil) + "/approvals", body: object{"note": "seen"}, who: []option{eve.as}, want: records("rollout.agree rollouts/* ba")}
		},
		"supersede-rollout": func(w *writer) deed {
			return deed{path: w.rollout(running) + "/supersede", want: records("rollout.supersede rollouts/* ba", "rollout.replace rollouts/* ba")}
		},
		"rollback-rollout": func(w *writer) deed {
			at := w.rollout(running)
			w.ask("POST", at+"/abort", object{})
			return deed{path: at + "/rollback", body: object{}, want: records("rollout.create rollouts/* a")}
		},
	}
}

func TestARolloutOverTheAPI(t *testing.T) {
	w := newWriter(t)
	ids := []string{w.newDevice(), w.newDevice(), w.newDevice()}
	at := w.rollout(nil)
	draft := w.as("GET", "/api/v1"+at, nil).wantStatus(t, 200)
	shown := draft.decode(t)
	plan := shown["plan"].(object)
	if shown["progress"].(object)["status"] != "draft" || shown["membership"] != "snapshot" || plan["concurrent"] != 100.0 || plan["deadlines"].(object)["offered_s"] != 86400.0 || plan["soak_s"] != 0.0 {
		t.Errorf("a draft is %v", shown)
	}
	admin := bearer(w.admin)
	stale := header("If-Match", `"nothing"`)
	w.do("PATCH", "/api/v1"+at, object{"note": "x"}, admin, stale).wantStatus(t, 412)
	w.do("PATCH", "/api/v1"+at, object{"plan": object{"windows": []any{object{"from": "22:00", "to": "22:30", "days": []any{"mon"}}}}}, admin, header("If-Match", draft.Header.Get("ETag"))).wantStatus(t, 200)
	w.do("POST", "/api/v1"+at+"/start", nil, admin, header("If-Match", draft.Header.Get("ETag"))).wantStatus(t, 412)
	w.ask("PATCH", at, object{"plan": object{"windows": []any{}}})
	for path, body := range map[string]object{
		"#/plan/phases/0/percent": {"plan": object{"phases": []any{object{"percent": 30}}}},
		"#/q":                     {"q": "group:nobody"},
		"#/start_at":              {"start_at": "soon"},
		"#/rollback":              {"rollback": "rel_none"},
	} {
		a := w.as("PATCH", "/api/v1"+at, body)
		errs, _ := a.decode(t)["errors"].([]any)
		if a.StatusCode/100 != 4 || len(errs) != 1 || errs[0].(object)["pointer"] != path {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	started := w.ask("POST", at+"/start", nil)
	if p := started["progress"].(object); p["status"] != "running" || p["devices"] != 6.0 || started["started_by"] == nil {
		t.Errorf("started it is %v", started)
	}
	w.as("DELETE", "/api/v1"+at, nil).wantStatus(t, 409)
	w.as("PATCH", "/api/v1"+at, object{"name": "other"}).wantStatus(t, 409)
	w.ask("PATCH", at, object{"plan": object{"concurrent": 2}})
	w.tick()
	offered := w.ask("GET", at+"/devices?state=offered", nil)["items"].([]any)
	if len(offered) != 1 {
		t.Fatalf("one canary is offered: %v", offered)
	}
	canary := offered[0].(object)["device"].(string)
	why := w.ask("GET", at+"/devices/"+canary+"/why", nil)
	if why["held"] != "not_in_flight" || why["state"].(object)["attempt"] != 1.0 || len(why["rules"].([]any)) < 15 {
		t.Errorf("why: %v", why)
	}
	other := ids[slices.IndexFunc(ids, func(id string) bool { return id != canary })]
	if why := w.ask("GET", at+"/devices/"+other+"/why", nil); why["held"] != "phase_open" || why["words"] != "The device waits: the device is in phase all, the rollout in first." {
		t.Errorf("why: %v", why)
	}
	if f := w.ask("GET", "/devices/"+canary+"/firmware", nil); f["current"].(object)["state"] != "offered" || len(f["actions"].([]any)) != 1 {
		t.Errorf("its firmware is %v", f)
	}
	if f := w.ask("GET", "/devices/"+other+"/firmware", nil); f["current"] != nil || len(f["waiting"].([]any)) != 1 {
		t.Errorf("its firmware is %v", f)
	}
	log := w.ask("GET", at+"/log?limit=1", nil)
	if items := log["items"].([]any); len(items) != 1 || items[0].(object)["to"] != "offered" || items[0].(object)["device"] != canary || log["next"] != nil {
		t.Errorf("the log is %v", log)
	}
	newest := w.ask("GET", at+"/log?order=desc&limit=1", nil)
	if items := newest["items"].([]any); len(items) != 1 || items[0].(object)["number"] != log["items"].([]any)[0].(object)["number"] {
		t.Errorf("the newest of one change is %v", newest)
	}
	w.as("GET", "/api/v1"+at+"/log?order=sideways", nil).wantStatus(t, 422)
	first := w.ask("GET", at+"/devices?limit=3", nil)
	rest := w.ask("GET", at+"/devices?limit=3&after="+first["next"].(string), nil)
	if len(first["items"].([]any)) != 3 || len(rest["items"].([]any)) != 3 || rest["next"] != nil {
		t.Errorf("the pages are %v and %v", first, rest)
	}
	if list := w.ask("GET", "/rollouts?status=running", nil)["items"].([]any); len(list) != 1 {
		t.Errorf("%d run", len(list))
	}
	w.as("GET", "/api/v1/rollouts/rol_none", nil).wantStatus(t, 404)
	w.as("GET", "/api/v1"+at+"/devices/nobody/why", nil).wantStatus(t, 404)
}

func TestAPersonAgreesOnceWithWhateverKey(t *testing.T) {
	w := newWriter(t)
	ann, eve := w.enters("ann", accounts.Operator), w.enters("eve", accounts.Operator)
	keyOf := func(owner string) option {
		_, secret, err := w.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: owner, Scopes: []string{accounts.FirmwareRead, accounts.FirmwareWrite}, Owner: owner})
		w.must(err)
		return bearer(secret)
	}
	older, newer := w.releases()
	w.newDevice()
	made := w.do("POST", "/api/v1/rollouts", object{"name": "two", "release": newer, "rollback": older, "q": "id:*", "min_approvals": 2}, ann.as).wantStatus(t, 201).decode(t)
	at := "/api/v1/rollouts/" + made["id"].(string)
	for name, c := range map[string]struct {
		who  option
		want int
	}{
		"who made it":                 {ann.as, 403},
		"a key of who made it":        {keyOf(ann.id), 403},
		"a key that nobody owns":      {bearer(w.key(accounts.FirmwareWrite)), 403},
		"the admin key of the server": {bearer(w.admin), 403},
	} {
		if a := w.do("POST", at+"/approvals", object{}, c.who); a.StatusCode != c.want {
			t.Errorf("%s agrees: %d, want %d: %s", name, a.StatusCode, c.want, a.body)
		}
	}
	w.do("POST", at+"/approvals", object{}, keyOf(eve.id)).wantStatus(t, 200)
	w.do("POST", at+"/approvals", object{}, eve.as).wantStatus(t, 409)
	w.do("POST", at+"/approvals", object{}, keyOf(eve.id)).wantStatus(t, 409)
	w.do("POST", at+"/start", nil, ann.as).wantStatus(t, 409)
	bob := w.enters("bob", accounts.Operator)
	if got := w.do("POST", at+"/approvals", object{}, bob.as).wantStatus(t, 200).decode(t); len(got["approvals"].([]any)) != 2 {
		t.Errorf("%v agree", got["approvals"])
	}
	w.do("POST", at+"/start", nil, ann.as).wantStatus(t, 200)
}

func TestWhoAgreedAndIsDisabledOrLostTheRightIsShownNotToCountAndDoesNot(t *testing.T) {
	w := newWriter(t)
	ann, eve := w.enters("ann", accounts.Operator), w.enters("eve", accounts.Operator)
	_, newer := w.releases()
	w.newDevice()
	made := w.do("POST", "/api/v1/rollouts", object{"name": "one", "release": newer, "q": "id:*", "min_approvals": 1}, ann.as).wantStatus(t, 201).decode(t)
	at := "/api/v1/rollouts/" + made["id"].(string)
	w.do("POST", at+"/approvals", object{}, eve.as).wantStatus(t, 200)
	for _, c := range []struct {
		change object
		counts bool
	}{{object{"disabled": true}, false}, {object{"disabled": false}, true}, {object{"role": "viewer"}, false}} {
		w.ask("PATCH", "/users/"+eve.id, c.change)
		got := w.do("GET", at, nil, ann.as).wantStatus(t, 200).decode(t)["approvals"].([]any)
		if len(got) != 1 || got[0].(object)["counts"] != c.counts {
			t.Errorf("after %v: %v", c.change, got)
		}
		if !c.counts {
			if a := w.do("POST", at+"/start", nil, ann.as).wantStatus(t, 409); !strings.Contains(string(a.body), "who may not any more") {
				t.Errorf("it is not said why: %s", a.body)
			}
		}
	}
	w.ask("PATCH", "/users/"+eve.id, object{"role": "operator"})
	w.do("POST", at+"/start", nil, ann.as).wantStatus(t, 200)
}

func TestWhoMayDoWhatWithRollouts(t *testing.T) {
	w := newWriter(t)
	ann, viewer, eve := w.enters("ann", accounts.Operator), w.enters("viewer", accounts.Viewer), w.enters("eve", accounts.Operator)
	_, newer := w.releases()
	w.newDevice()
	made := w.do("POST", "/api/v1/rollouts", object{"name": "one", "release": newer, "q": "id:*", "min_approvals": 1}, ann.as).wantStatus(t, 201).decode(t)
	at := "/rollouts/" + made["id"].(string)
	for _, c := range []struct {
		who    option
		method string
		path   string
		want   int
	}{
		{viewer.as, "GET", at, 200},
		{viewer.as, "POST", at + "/start", 403},
		{bearer(w.key(accounts.DevicesRead)), "GET", at, 403},
		{bearer(w.key(accounts.FirmwareRead)), "GET", at + "/log", 200},
		{bearer(w.key(accounts.FirmwareRead)), "POST", at + "/pause", 403},
		{bearer(w.admin), "POST", at + "/start", 409},
		{bearer(w.admin), "POST", at + "/approvals", 403},
		{eve.as, "POST", at + "/approvals", 200},
		{eve.as, "POST", at + "/approvals", 409},
		{bearer(w.admin), "POST", at + "/start", 403}, // a key that nobody owns
		{ann.as, "POST", at + "/start", 200},
	} {
		var body any
		if c.method == http.MethodPost {
			body = object{}
		}
		if c.path == at+"/start" || c.path == at+"/pause" {
			body = nil
		}
		if a := w.do(c.method, "/api/v1"+c.path, body, c.who); a.StatusCode != c.want {
			t.Errorf("%s %s gives %d, want %d: %s", c.method, c.path, a.StatusCode, c.want, a.body)
		}
	}
	mine := w.ask("GET", at+"/devices", nil)["items"].([]any)[0].(object)["device"].(string)
	w.newDevice()
	_, secret, err := w.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "some", Scopes: []string{accounts.FirmwareRead}, Selector: "id:" + mine})
	w.must(err)
	hidden := w.rollout(object{"start": true})
	some := bearer(secret)
	if items := w.do("GET", "/api/v1"+hidden+"/devices", nil, some).wantStatus(t, 200).decode(t)["items"].([]any); len(items) != 1 || items[0].(object)["device"] != mine {
		t.Errorf("a key for one device sees %v", items)
	}
	w.do("GET", "/api/v1"+hidden, nil, some).wantStatus(t, 403)
	w.do("GET", "/api/v1"+hidden+"/devices/"+mine+"/why", nil, some).wantStatus(t, 200)
	w.do("GET", "/api/v1"+hidden+"/devices/dev-9999/why", nil, some).wantStatus(t, 404)
}

func TestWhatTheTelemetryOfAPhaseIsAskedIsWrittenAndShown(t *testing.T) {
	w := newWriter(t)
	at := w.rollout(nil)
	phases := func(gate object) object {
		return object{"plan": object{"phases": []any{object{"name": "first", "count": 1, "regression": gate}, object{"percent": 100}}}}
	}
	shown := w.ask("PATCH", at, phases(object{"key": "motor.current", "worse": "up"}))["plan"].(object)["phases"].([]any)
	got := shown[0].(object)["regression"].(object)
	for member, want := range (object{"key": "motor.current", "aggregate": "avg", "worse": "up", "percent": 10.0, "window_s": 3600.0, "min_devices": 3.0}) {
		if got[member] != want {
			t.Errorf("%s is %v, want %v", member, got[member], want)
		}
	}
	if shown[1].(object)["regression"] != nil {
		t.Errorf("a phase that asks nothing is %v", shown[1])
	}
	w.ask("PATCH", at, phases(object{"key": "t", "worse": "down", "aggregate": "p95", "percent": 0, "window_s": 60, "min_devices": 1}))
	if got := w.ask("GET", at, nil)["plan"].(object)["phases"].([]any)[0].(object)["regression"].(object); got["percent"] != 0.0 || got["aggregate"] != "p95" || got["window_s"] != 60.0 {
		t.Errorf("%v", got)
	}
	for name, gate := range map[string]object{
		"no direction": {"key": "t"}, "no key": {"worse": "up"}, "a NUL": {"key": "a\x00b", "worse": "up"}, "a short window": {"key": "t", "worse": "up", "window_s": 9},
	} {
		if a := w.as("PATCH", "/api/v1"+at, phases(gate)); a.StatusCode/100 != 4 {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	w.ask("PATCH", at, object{"plan": object{"phases": []any{object{"name": "first", "count": 1, "regression": object{"key": "t", "worse": "up"}}, object{"percent": 100}}, "concurrent": 3}})
	w.ask("POST", at+"/start", nil)
	w.ask("PATCH", at, object{"plan": object{"concurrent": 5}})
}

func TestTheVerbsOfARolloutNeedNoBody(t *testing.T) {
	w := newWriter(t)
	at := w.rollout(object{"start": true})
	w.ask("POST", at+"/pause", nil)
	if got := w.ask("POST", at+"/resume", nil)["progress"].(object)["status"]; got != "running" {
		t.Errorf("resumed it is %v", got)
	}
	if got := w.ask("POST", at+"/abort", nil); got["progress"].(object)["status"] != "aborted" || got["forced"] != nil {
		t.Errorf("aborted it is %v", got)
	}
	if got := w.ask("POST", at+"/rollback", nil); got["of"] != at[len("/rollouts/"):] || got["progress"].(object)["status"] != "draft" {
		t.Errorf("the rollback is %v", got)
	}
}

func TestADowngradeIsSaidShownAndAPartOfEveryRollback(t *testing.T) {
	w := newWriter(t)
	at := w.rollout(nil)
	if got := w.ask("GET", at, nil)["downgrade"]; got != nil {
		t.Errorf("a rollout is one by itself: %v", got)
	}
	if got := w.ask("PATCH", at, object{"downgrade": true}); got["downgrade"] != true {
		t.Errorf("changed it is %v", got["downgrade"])
	}
	if got := w.ask("GET", w.rollout(object{"downgrade": true}), nil)["downgrade"]; got != true {
		t.Errorf("made it is %v", got)
	}
	w.ask("POST", at+"/start", nil)
	w.as("PATCH", "/api/v1"+at, object{"downgrade": false}).wantStatus(t, 409)
	w.ask("POST", at+"/abort", nil)
	back := w.ask("POST", at+"/rollback", object{"min_approvals": 1})
	if back["downgrade"] != true || back["min_approvals"] != 1.0 {
		t.Errorf("the rollback is %v, and needs %v", back["downgrade"], back["min_approvals"])
	}
	w.as("PATCH", "/api/v1/rollouts/"+back["id"].(string), object{"downgrade": false}).wantStatus(t, 422)
}

func TestAChangeOfAScheduledRolloutAnswersThatNobodyHasAgreedToIt(t *testing.T) {
	w := newWriter(t)
	ann, eve := w.enters("ann", accounts.Operator), w.enters("eve", accounts.Operator)
	_, newer := w.releases()
	w.newDevice()
	spec := object{"name": "one", "release": newer, "q": "id:*", "min_approvals": 1, "start_at": "2199-01-01T00:00:00Z"}
	for _, change := range []func(at string) object{
		func(at string) object {
			return w.do("PATCH", at, object{"plan": object{"concurrent": 1_000_000}}, ann.as).wantStatus(t, 200).decode(t)
		},
		func(at string) object {
			return w.do("POST", at+"/supersede", nil, ann.as).wantStatus(t, 200).decode(t)
		},
	} {
		made := w.do("POST", "/api/v1/rollouts", spec, ann.as).wantStatus(t, 201).decode(t)
		at := "/api/v1/rollouts/" + made["id"].(string)
		w.do("POST", at+"/approvals", object{}, eve.as).wantStatus(t, 200)
		if got := w.do("POST", at+"/start", nil, ann.as).wantStatus(t, 200).decode(t); got["progress"].(object)["status"] != "scheduled" || len(got["approvals"].([]any)) != 1 {
			t.Fatalf("started it is %v", got)
		}
		if got := change(at); len(got["approvals"].([]any)) != 0 || got["edited_by"].(object)["id"] != ann.id {
			t.Errorf("changed it is agreed to by %v, written by %v", got["approvals"], got["edited_by"])
		}
		w.do("POST", at+"/approvals", object{}, eve.as).wantStatus(t, 200)
	}
}
