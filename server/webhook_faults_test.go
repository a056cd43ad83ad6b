package server_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/server"
	"muster/server/servertest"
)

// receiver is somebody's endpoint for webhooks. It answers each request by the next of its
// faults, and by 204 when there are none left.
type receiver struct {
	*httptest.Server

	mu     sync.Mutex
	faults []http.HandlerFunc
	got    []hookRequest
}

type hookRequest struct {
	at     time.Time
	header http.Header
	body   []byte
}

func newReceiver(t *testing.T, faults ...http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{faults: faults}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	r.got = append(r.got, hookRequest{time.Now(), req.Header, body})
	answer := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	if len(r.faults) > 0 {
		answer, r.faults = r.faults[0], r.faults[1:]
	}
	r.mu.Unlock()
	if err == nil {
		answer(w, req)
	}
}

func (r *receiver) requests() []hookRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]hookRequest(nil), r.got...)
}

func answers(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	}
}

// quick has webhooks be tried again after some milliseconds.
func quick(c *server.Config) { impatient(10 * time.Second)(c) }

// impatient is quick, and waits for an answer as long as this.
func impatient(timeout time.Duration) func(*server.Config) {
	return func(c *server.Config) {
		schedule := []time.Duration{0}
		for range 7 {
			schedule = append(schedule, 20*time.Millisecond)
		}
		c.Notify.Channels = map[string]outbox.Settings{hooks.Channel: {Schedule: schedule, Timeout: timeout, Failures: 100}}
	}
}

func reaching(cidr ...string) func(*server.Config) {
	return func(c *server.Config) { c.WebhookAllow = cidr }
}

// hooked is an admin with a webhook for new devices.
func hooked(t *testing.T, s *server.Server, target string) (ada *person, id, secret string) {
	t.Helper()
	ada = newPerson(t, s, "Ada", "admin")
	made := ada.must(http.MethodPost, "/webhooks", map[string]any{"url": target, "types": []string{"device.created"}})
	return ada, made["webhook"].(map[string]any)["id"].(string), made["secret"].(string)
}

// ended makes a device, and returns the delivery of that when it has ended.
func (p *person) ended(webhook string) map[string]any {
	p.t.Helper()
	p.must(http.MethodPost, "/devices", map[string]any{"id": "pump-1"})
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		list := p.must(http.MethodGet, "/webhooks/"+webhook+"/deliveries", nil)["items"].([]any)
		if len(list) == 1 && list[0].(map[string]any)["ended_at"] != nil {
			return p.must(http.MethodGet, "/deliveries/"+list[0].(map[string]any)["id"].(string), nil)
		}
	}
	p.t.Fatal("the delivery has not ended")
	return nil
}

func tries(d map[string]any) (out []map[string]any) {
	list, _ := d["tries"].([]any)
	for _, a := range list {
		out = append(out, a.(map[string]any))
	}
	return out
}

func TestAWebhooksFaultsAreSeenInTheAPIAndOvercome(t *testing.T) {
	inner := newReceiver(t)
	for name, tt := range map[string]struct {
		faults  []http.HandlerFunc
		because []string // what each attempt that failed says
		apart   time.Duration
	}{
		"500, 500 and then 200": {
			[]http.HandlerFunc{answers(500), answers(500), answers(200)}, []string{"the receiver answered 500", "the receiver answered 500"}, 0,
		},
		"429 with Retry-After is waited for": {
			[]http.HandlerFunc{answers(429, "Retry-After", "1")}, []string{"the receiver answered 429"}, time.Second,
		},
		"a redirect to this machine is not followed": {
			[]http.HandlerFunc{answers(302, "Location", inner.URL), answers(307, "Location", inner.URL)}, []string{"the receiver redirects (302)", "the receiver redirects (307)"}, 0,
		},
		"a connection that is reset": {
			[]http.HandlerFunc{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}, []string{""}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := newReceiver(t, tt.faults...)
			s := servertest.Start(t, quick, reaching("127.0.0.0/8"))
			ada, id, _ := hooked(t, s, to.URL)
			d := ada.ended(id)
			list := tries(d)
			if d["state"] != "sent" || len(list) != len(tt.because)+1 || d["attempts"] != float64(len(list)) {
				t.Fatalf("%v", d)
			}
			for i, why := range tt.because {
				saysWhy(t, list[i], why)
			}
			to.gotTheSame(t, len(list), tt.apart)
		})
	}
	t.Cleanup(func() {
		if n := len(inner.requests()); n > 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
}

func TestAReceiverThatIsSlowBeyondItsTimeIsAskedAgain(t *testing.T) {
	const patience = 400 * time.Millisecond
	to := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := servertest.Start(t, impatient(patience), reaching("127.0.0.0/8"))
	ada, id, _ := hooked(t, s, to.URL)
	d := ada.ended(id)
	list := tries(d)
	if d["state"] != "sent" || len(list) < 2 {
		t.Fatalf("%v", d)
	}
	for _, try := range list[:len(list)-1] { // on a busy machine a good answer may come too late, too
		saysWhy(t, try, "there was no answer in time")
	}
	to.gotTheSame(t, 2, patience)
}

// saysWhy looks whether an attempt failed for now, and says why.
func saysWhy(t *testing.T, try map[string]any, why string) {
	t.Helper()
	text, _ := try["error"].(string)
	if try["verdict"] != "again" || text == "" || !strings.Contains(text, why) {
		t.Errorf("an attempt is %v, not %q", try, why)
	}
}

// gotTheSame looks whether at least so many requests came, all with one id and one body,
// the second so long after the first.
func (r *receiver) gotTheSame(t *testing.T, atLeast int, apart time.Duration) {
	t.Helper()
	got := r.requests()
	if len(got) < atLeast || got[1].at.Sub(got[0].at) < apart {
		t.Errorf("%d requests, the second %v after the first", len(got), got[1].at.Sub(got[0].at))
	}
	for _, x := range got {
		if x.header.Get("webhook-id") != got[0].header.Get("webhook-id") || !bytes.Equal(x.body, got[0].body) {
			t.Errorf("another attempt is %v %s", x.header, x.body)
		}
	}
}

func TestAReceiverThatIsGoneDisablesItsWebhookAndTheOwnerIsTold(t *testing.T) {
	to := newReceiver(t, answers(http.StatusGone))
	s := servertest.Start(t, quick, reaching("127.0.0.0/8"))
	ada, id, _ := hooked(t, s, to.URL)
	if d := ada.ended(id); d["state"] != "dead" || len(tries(d)) != 1 || tries(d)[0]["verdict"] != "gone" {
		t.Errorf("%v", d)
	}
	if h := ada.must(http.MethodGet, "/webhooks/"+id, nil); h["disabled"] != true || !strings.Contains(h["reason"].(string), "410") {
		t.Errorf("%v", h)
	}
	ada.told("410")
	ada.must(http.MethodPost, "/devices", map[string]any{"id": "pump-2"})
	if list := ada.must(http.MethodGet, "/webhooks/"+id+"/deliveries", nil)["items"].([]any); len(list) != 1 || len(to.requests()) != 1 {
		t.Errorf("and then: %v, %d requests", list, len(to.requests()))
	}
}

// told waits for a notification of the inbox whose title says words.
func (p *person) told(words string) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		for _, it := range p.must(http.MethodGet, "/me/inbox", nil)["items"].([]any) {
			if strings.Contains(it.(map[string]any)["notification"].(map[string]any)["title"].(string), words) {
				return
			}
		}
	}
	p.t.Errorf("nobody told of %s", words)
}

// TestAWebhookDoesNotReachThisMachineUnlessItMay is about the address that is dialled, by
// whatever name: without --webhook-allow, and with another network in it, none of this
// machine is.
func TestAWebhookDoesNotReachThisMachineUnlessItMay(t *testing.T) {
	to := newReceiver(t)
	u, err := url.Parse(to.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1"} {
		for _, allow := range [][]string{nil, {"10.0.0.0/8"}} {
			t.Run(fmt.Sprint(host, " with ", allow, " allowed"), func(t *testing.T) {
				s := servertest.Start(t, quick, reaching(allow...))
				ada, id, _ := hooked(t, s, "http://"+host+":"+u.Port())
				d := ada.ended(id)
				if text, _ := d["error"].(string); d["state"] != "dead" || !strings.Contains(text, "inner network") || len(tries(d)) != 1 {
					t.Errorf("%v", d)
				}
				ada.told("inner network")
			})
		}
	}
	if n := len(to.requests()); n > 0 {
		t.Errorf("%d requests came", n)
	}
}

// TestTheProjectsOwnLibraryVerifiesWhatIsSent holds what goes out to the verifier of
// Standard Webhooks itself, with one secret, with both during a rotation, and after it.
func TestTheProjectsOwnLibraryVerifiesWhatIsSent(t *testing.T) {
	to := newReceiver(t, answers(500))
	s := servertest.Start(t, quick, reaching("127.0.0.0/8"))
	ada, id, first := hooked(t, s, to.URL)
	if d := ada.ended(id); d["state"] != "sent" {
		t.Fatalf("%v", d)
	}
	next := func(overlap int) string {
		t.Helper()
		secret := ada.must(http.MethodPost, "/webhooks/"+id+"/rotate", map[string]any{"overlap_s": overlap})["secret"].(string)
		ada.must(http.MethodPost, "/webhooks/"+id+"/test", map[string]any{})
		return secret
	}
	second := next(3600)
	third := next(0)
	got := to.requests()
	if len(got) != 4 {
		t.Fatalf("%d requests came", len(got))
	}
	good := [][]string{{first}, {first}, {first, second}, {third}}
	for i, r := range got {
		for _, secret := range []string{first, second, third} {
			v, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			want := false
			for _, g := range good[i] {
				want = want || g == secret
			}
			if err := v.Verify(r.body, r.header); (err == nil) != want {
				t.Errorf("request %d: %v", i, err)
			}
			if v.Verify(append(slices.Clip(r.body), ' '), r.header) == nil {
				t.Errorf("request %d is verified with another body", i)
			}
		}
	}
}
