package api_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/devices"
	"muster/feed"
	"muster/notify/chat"
	"muster/notify/hooks"
	"muster/notify/webhook"
)

// openSealer seals nothing: what is sealed is tested where it is done.
type openSealer struct{}

func (openSealer) Seal(plain []byte, _ string) ([]byte, error)  { return plain, nil }
func (openSealer) Open(sealed []byte, _ string) ([]byte, error) { return sealed, nil }

func (r *rig) newWebhooks(store hooks.Store) *hooks.Webhooks {
	sender := webhook.New(webhook.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Version: "1.2.3", Now: time.Now})
	r.Cleanup(sender.Close)
	chats := chat.New(chat.Config{Next: sender, Poster: sender, Services: map[string]chat.Compose{"plain": toPlain}, Now: time.Now})
	w := hooks.New(store, hooks.Options{Devices: r.registry, Sealer: openSealer{}, Sender: chats, Chats: chats, Now: time.Now})
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
		"id": id, "url": "https://hooks.example.com/a", "description": "", "types": []any{"device.*"}, "q": "", "topics": []any{}, "disabled": false, "owner": "MUSTER_ADMIN_KEY",
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

func TestAWebhookNamesTopicsAndIsAnsweredForByWhoMadeIt(t *testing.T) {
	r := newRig(t)
	eve := r.enters("eve", accounts.Admin)
	for _, name := range []string{"a", "b", "c"} {
		eve.topic(object{"name": name})
	}
	got := eve.do("POST", "/webhooks", map[string]any{"url": "https://x.example", "types": []string{"notification.*"}, "topics": []string{"b", "a", "b"}}).wantStatus(t, 201).decode(t)
	id := field(got, "webhook", "id")
	if topics := got["webhook"].(map[string]any)["topics"]; !cmp.Equal(topics, []any{"a", "b"}) {
		t.Errorf("its topics are %v", topics)
	}
	owner := func() string {
		all, err := r.control.Webhooks(t.Context())
		r.must(err)
		return all[slices.IndexFunc(all, func(h hooks.Webhook) bool { return h.ID == id })].OwnerID
	}
	if owner() != eve.id {
		t.Errorf("%q answers for it", owner())
	}
	for name, tt := range map[string]struct{ topics, want any }{
		"what is absent stays": {nil, []any{"a", "b"}},
		"one":                  {[]string{"c"}, []any{"c"}},
		"none is all":          {[]string{}, []any{}},
	} {
		t.Run(name, func(t *testing.T) {
			change := map[string]any{}
			if tt.topics != nil {
				change["topics"] = tt.topics
			} else {
				r.as("PATCH", "/api/v1/webhooks/"+id, map[string]any{"topics": []string{"a", "b"}}).wantStatus(t, 200)
			}
			if got := r.as("PATCH", "/api/v1/webhooks/"+id, change).wantStatus(t, 200).decode(t); !cmp.Equal(got["topics"], tt.want) {
				t.Errorf("its topics are %v", got["topics"])
			}
		})
	}
	if owner() != eve.id {
		t.Errorf("a change by another gives it to %q", owner())
	}
	r.as("PATCH", "/api/v1/webhooks/"+id, map[string]any{"topics": []string{"a\nb"}}).wantProblem(t, 422, "invalid")
}

func TestAWebhookNamesTopicsThatAreThereAndSaysWhenOneIsNot(t *testing.T) {
	r := newRig(t)
	eve := r.enters("eve", accounts.Admin)
	first, second := eve.topic(object{"name": "doors"}), eve.topic(object{"name": "pumps"})
	hook := func(topics ...string) map[string]any {
		return map[string]any{"url": "https://x.example", "types": []string{"notification.*"}, "topics": topics}
	}
	eve.do("POST", "/webhooks", hook("nothing")).wantField(t, 422, "invalid", "#/topics/0")
	made := eve.do("POST", "/webhooks", hook(first, "pumps")).wantStatus(t, 201).decode(t)["webhook"].(map[string]any)
	path := "/webhooks/" + made["id"].(string)
	if !cmp.Equal(made["topics"], []any{"doors", "pumps"}) || made["problem"] != nil {
		t.Errorf("%v", made)
	}
	eve.do("PATCH", "/topics/"+second, object{"name": "valves"}).wantStatus(t, 200)
	if got := eve.do("GET", path, nil).wantStatus(t, 200).decode(t); got["problem"] != nil || !cmp.Equal(got["topics"], []any{"doors", "valves"}) {
		t.Errorf("the webhook of a topic that was renamed says %v", got)
	}
	eve.do("PATCH", path, object{"topics": []string{"pumps"}}).wantField(t, 422, "invalid", "#/topics/0")
	eve.do("PATCH", path, object{"topics": []string{"doors", "pumps"}}).wantField(t, 422, "invalid", "#/topics/1")
	if got := eve.do("PATCH", path, object{"topics": []string{"doors", "valves"}}).wantStatus(t, 200).decode(t); got["problem"] != nil {
		t.Errorf("%v", got)
	}
	eve.do("DELETE", "/topics/"+second, nil).wantStatus(t, 204)
	if got := eve.do("GET", path, nil).wantStatus(t, 200).decode(t); got["problem"] != "there is no topic "+second+" any more" {
		t.Errorf("the webhook of a topic that was deleted says %v", got["problem"])
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
		if err != nil || len(text) > hooks.MaxEvent {
			t.Errorf("%v: %v", e["type"], err)
		}
	}
}

// toPlain is a chat service: plain://token@host/ is told by a POST of the text.
func toPlain(u *url.URL, _, text string) (*http.Request, error) {
	if u.User.Username() == "" {
		return nil, errors.New("there is no token")
	}
	return http.NewRequest(http.MethodPost, "http://"+u.Host+"/"+u.User.Username(), strings.NewReader(text))
}

func TestTheURLOfAChatServiceIsTakenAndNeverShown(t *testing.T) {
	r := newRig(t)
	told := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		told <- r.URL.Path + " " + string(b)
	}))
	t.Cleanup(s.Close)
	service := "shoutrrr:plain://tok-hush@" + strings.TrimPrefix(s.URL, "http://") + "/"
	id, secret, _ := r.newWebhook(service)
	path := "/api/v1/webhooks/" + id
	got := r.as("GET", path, nil).wantStatus(t, 200)
	if hook := got.decode(t); hook["url"] != "shoutrrr:plain" || hook["problem"] != nil || secret != "" {
		t.Errorf("%v, and the secret is %q", hook, secret)
	}
	test := r.as("POST", path+"/test", nil).wantStatus(t, 200)
	if a := test.decode(t); a["verdict"] != "delivered" {
		t.Errorf("%v", a)
	}
	if said := <-told; said != "/tok-hush webhook.test" {
		t.Errorf("it was told %q", said)
	}
	for name, a := range map[string]answer{
		"shown": got, "listed": r.as("GET", "/api/v1/webhooks", nil).wantStatus(t, 200), "tested": test,
		"changed":   r.as("PATCH", path, map[string]any{"url": strings.Replace(service, "tok-", "new-", 1)}).wantStatus(t, 200),
		"rotated":   r.as("POST", path+"/rotate", nil).wantStatus(t, 409),
		"refused":   r.as("PATCH", path, map[string]any{"url": "shoutrrr:plain://x.example/hush"}).wantStatus(t, 422),
		"unknown":   r.as("PATCH", path, map[string]any{"url": "shoutrrr:hush://x.example/"}).wantStatus(t, 422),
		"addressed": r.as("PATCH", path, map[string]any{"url": "https://x.example/hush"}).wantStatus(t, 422),
	} {
		if strings.Contains(string(a.body), "hush") {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}
