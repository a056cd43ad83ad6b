package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/devices"
	"muster/feed"
	"muster/notify"
	"muster/notify/webhook"
)

// openSealer seals nothing: what is sealed is tested where it is done.
type openSealer struct{}

func (openSealer) Seal(plain []byte, _ string) ([]byte, error)  { return plain, nil }
func (openSealer) Open(sealed []byte, _ string) ([]byte, error) { return sealed, nil }

func (r *rig) newWebhooks(store notify.Store) *notify.Webhooks {
	sender := webhook.New(webhook.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Version: "1.2.3", Now: time.Now})
	r.Cleanup(sender.Close)
	w := notify.New(store, notify.Options{Devices: r.registry, Sealer: openSealer{}, Sender: sender, Now: time.Now})
	r.must(w.Load(r.Context()))
	return w
}

// hooked is a receiver whose status can be set, and which verifies what it gets.
type hooked struct {
	url    string
	status atomic.Int64
	secret atomic.Pointer[string]
	bodies chan string
	wrong  chan error
}

func newHooked(t *testing.T) *hooked {
	t.Helper()
	h := &hooked{bodies: make(chan string, 20), wrong: make(chan error, 20)}
	h.status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(*h.secret.Load(), r.Header, b, time.Now()); err != nil {
			h.wrong <- err
		}
		h.bodies <- string(b)
		w.WriteHeader(int(h.status.Load()))
		_, _ = io.WriteString(w, "seen")
	}))
	t.Cleanup(s.Close)
	h.url = s.URL + "/muster"
	return h
}

func (r *rig) newWebhook(url string) (id, secret, tag string) {
	r.Helper()
	a := r.as("POST", "/api/v1/webhooks", map[string]any{"url": url, "types": []string{"device.*"}}).wantStatus(r, 201)
	got := a.decode(r)
	id = got["webhook"].(map[string]any)["id"].(string)
	if a.Header.Get("Location") != "/api/v1/webhooks/"+id {
		r.Errorf("Location is %s", a.Header.Get("Location"))
	}
	return id, got["secret"].(string), a.Header.Get("ETag")
}

func TestAWebhookIsMadeChangedAndDeleted(t *testing.T) {
	r := newRig(t)
	id, secret, tag := r.newWebhook("https://hooks.example.com/a")
	a := r.as("GET", "/api/v1/webhooks/"+id, nil).wantStatus(t, 200)
	got := a.decode(t)
	want := map[string]any{
		"id": id, "url": "https://hooks.example.com/a", "description": "", "types": []any{"device.*"}, "q": "", "disabled": false, "owner": "MUSTER_ADMIN_KEY",
		"secrets": []any{map[string]any{"created_at": got["created_at"], "ends_at": nil}}, "created_at": got["created_at"], "updated_at": got["created_at"],
	}
	if d := cmp.Diff(want, got); d != "" || a.Header.Get("ETag") != tag || tag != `"1"` {
		t.Errorf("ETag %s, %s", a.Header.Get("ETag"), d)
	}
	for _, path := range []string{"/api/v1/webhooks", "/api/v1/webhooks/" + id} {
		if strings.Contains(string(r.as("GET", path, nil).body), strings.TrimPrefix(secret, "whsec_")) {
			t.Errorf("%s shows the secret", path)
		}
	}
	change := map[string]any{"disabled": true, "types": []string{"command.failed", "*"}, "q": "id:a*"}
	r.do("PATCH", "/api/v1/webhooks/"+id, change, bearer(r.admin), header("If-Match", `"7"`)).wantProblem(t, 412, "stale")
	a = r.do("PATCH", "/api/v1/webhooks/"+id, change, bearer(r.admin), header("If-Match", tag)).wantStatus(t, 200)
	got = a.decode(t)
	if a.Header.Get("ETag") != `"2"` || got["disabled"] != true || !cmp.Equal(got["types"], []any{"*", "command.failed"}) || got["q"] != "id:a*" {
		t.Errorf("%s %v", a.Header.Get("ETag"), got)
	}
	r.do("DELETE", "/api/v1/webhooks/"+id, nil, bearer(r.admin), header("If-Match", `"1"`)).wantProblem(t, 412, "stale")
	r.do("DELETE", "/api/v1/webhooks/"+id, nil, bearer(r.admin), header("If-Match", `"2"`)).wantStatus(t, 204)
	for _, o := range [][2]string{{"GET", ""}, {"PATCH", ""}, {"DELETE", ""}, {"POST", "/test"}, {"POST", "/rotate"}} {
		var send any
		if o[0] == "PATCH" {
			send = map[string]any{}
		}
		r.as(o[0], "/api/v1/webhooks/"+id+o[1], send).wantProblem(t, 404, "not_found")
	}
}

func TestBadWebhooksAreRefused(t *testing.T) {
	r := newRig(t)
	for name, b := range map[string]any{
		"no types":         map[string]any{"url": "https://x.example", "types": []string{}},
		"null types":       map[string]any{"url": "https://x.example", "types": nil},
		"an unknown type":  map[string]any{"url": "https://x.example", "types": []string{"device.exploded"}},
		"another scheme":   map[string]any{"url": "file:///etc/passwd", "types": []string{"*"}},
		"a password":       map[string]any{"url": "https://a:hush@x.example", "types": []string{"*"}},
		"a bad query":      map[string]any{"url": "https://x.example", "types": []string{"*"}, "q": "v.>"},
		"an unknown field": map[string]any{"url": "https://x.example", "types": []string{"*"}, "secret": "whsec_x"},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.as("POST", "/api/v1/webhooks", b)
			a.wantProblem(t, 422, "invalid")
			if strings.Contains(string(a.body), "hush") {
				t.Errorf("the answer repeats the password: %s", a.body)
			}
		})
	}
}

func TestWebhooksAreListedInPages(t *testing.T) {
	r := newRig(t)
	var want []string
	for range 5 {
		id, _, _ := r.newWebhook("https://x.example")
		want = append(want, id)
	}
	slices.Sort(want)
	var got []string
	after := ""
	for {
		p := r.as("GET", "/api/v1/webhooks"+query("limit", "2", "after", after), nil).wantStatus(t, 200).decode(t)
		for _, i := range p["items"].([]any) {
			got = append(got, i.(map[string]any)["id"].(string))
		}
		if p["next"] == nil {
			break
		}
		after = p["next"].(string)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestTheTestButtonTellsWhatCameOfIt(t *testing.T) {
	r := newRig(t)
	h := newHooked(t)
	id, secret, _ := r.newWebhook(h.url)
	h.secret.Store(&secret)
	test := func() map[string]any {
		t.Helper()
		return r.as("POST", "/api/v1/webhooks/"+id+"/test", nil).wantStatus(t, 200).decode(t)
	}
	got := test()
	if got["delivered"] != true || got["verdict"] != "delivered" || got["status"] != 200.0 || got["response"] != "seen" || got["error"] != nil {
		t.Errorf("%v", got)
	}
	if b := <-h.bodies; !strings.HasPrefix(b, `{"type":"webhook.test","timestamp":"`) || !strings.HasSuffix(b, `"data":{"webhook":"`+id+`"}}`) {
		t.Errorf("body is %s", b)
	}
	h.status.Store(503)
	if got := test(); got["delivered"] != false || got["verdict"] != "again" || got["status"] != 503.0 || got["error"] == nil {
		t.Errorf("%v", got)
	}
	h.status.Store(410)
	if got := test(); got["verdict"] != "gone" {
		t.Errorf("%v", got)
	}
	after := r.as("GET", "/api/v1/webhooks/"+id, nil).wantStatus(t, 200).decode(t)
	if after["disabled"] != true || after["reason"] != "it answered 410 Gone" {
		t.Errorf("%v", after)
	}
	select {
	case err := <-h.wrong:
		t.Error(err)
	default:
	}
}

func TestATestReachesNoInnerNetwork(t *testing.T) {
	r := newRig(t)
	for _, url := range []string{"http://169.254.169.254/latest/meta-data/", "http://[::1]:1/", "http://[::ffff:10.0.0.1]/", "http://10.0.0.1/"} {
		id, _, _ := r.newWebhook(url)
		got := r.as("POST", "/api/v1/webhooks/"+id+"/test", nil).wantStatus(t, 200).decode(t)
		if got["verdict"] != "dead" || !strings.Contains(got["error"].(string), "inner network") {
			t.Errorf("%s: %v", url, got)
		}
	}
}

func TestBothSecretsVerifyDuringTheOverlap(t *testing.T) {
	r := newRig(t)
	h := newHooked(t)
	id, first, _ := r.newWebhook(h.url)
	rotate := func(body any) (string, map[string]any) {
		t.Helper()
		a := r.as("POST", "/api/v1/webhooks/"+id+"/rotate", body).wantStatus(t, 200).decode(t)
		return a["secret"].(string), a["webhook"].(map[string]any)
	}
	verifies := func(secret string) bool {
		t.Helper()
		h.secret.Store(&secret)
		r.as("POST", "/api/v1/webhooks/"+id+"/test", nil).wantStatus(t, 200)
		<-h.bodies
		select {
		case <-h.wrong:
			return false
		default:
			return true
		}
	}
	second, shown := rotate(nil)
	if n := len(shown["secrets"].([]any)); n != 2 || first == second {
		t.Errorf("%d secrets are shown", n)
	}
	if !verifies(first) || !verifies(second) {
		t.Error("one of the two does not verify")
	}
	third, shown := rotate(map[string]any{"overlap_s": 0})
	if len(shown["secrets"].([]any)) != 1 || verifies(second) || verifies(first) || !verifies(third) {
		t.Error("without an overlap the one before still signs")
	}
	r.as("POST", "/api/v1/webhooks/"+id+"/rotate", map[string]any{"overlap_s": 604801}).wantProblem(t, 422, "invalid")
}

func TestAWebhookWhoseGroupIsGoneSaysSo(t *testing.T) {
	r := newRig(t)
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "g", Query: "id:d*"}))
	a := r.as("POST", "/api/v1/webhooks", map[string]any{"url": "https://x.example", "types": []string{"*"}, "q": "group:g"}).wantStatus(t, 201).decode(t)
	id := a["webhook"].(map[string]any)["id"].(string)
	r.must(r.registry.DeleteGroup(t.Context(), "g"))
	got := r.as("GET", "/api/v1/webhooks/"+id, nil).wantStatus(t, 200).decode(t)
	if p, _ := got["problem"].(string); !strings.Contains(p, "group") {
		t.Errorf("%v", got)
	}
}

func TestTheCatalogueHasASampleOfEachType(t *testing.T) {
	r := newRig(t)
	items := r.do("GET", "/api/v1/event-types", nil, bearer(r.key("devices:read"))).wantStatus(t, 200).decode(t)["items"].([]any)
	if len(items) != len(feed.Catalogue())+len(feed.Reserved()) {
		t.Errorf("%d types", len(items))
	}
	for _, i := range items {
		e := i.(map[string]any)
		if e["reserved"] == true {
			if e["sample"] != nil {
				t.Errorf("%v has a sample", e["type"])
			}
			continue
		}
		s, ok := e["sample"].(map[string]any)
		if !ok || s["type"] != e["type"] || s["timestamp"] != "2026-01-02T03:04:05.000000Z" || s["data"] == nil || e["summary"] == "" {
			t.Errorf("%v", e)
		}
		text, err := json.Marshal(s)
		if err != nil || len(text) > notify.MaxEvent {
			t.Errorf("%v: %v", e["type"], err)
		}
	}
}
