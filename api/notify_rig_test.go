package api_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/accounts"
	"muster/feed"
	"muster/notify"
	mail "muster/notify/outbox"
	"muster/store/control"
)

// notifyRig is notifications over the real store.
type notifyRig struct {
	notify *notify.Notify
	tester *tester
}

// people are the rig's users, as notifications know them.
type people struct{ *accounts.Accounts }

func (p people) Person(id string) (notify.Person, bool) {
	u, err := p.User(id)
	return notify.Person{ID: u.ID, Name: u.Name, Email: u.Email, Reachable: u.Confirmed, Disabled: u.Disabled}, err == nil
}

// tester stands for the channels, which are tested where they are wired.
type tester struct {
	mu      sync.Mutex
	asked   []string
	attempt mail.Attempt
	err     error
}

func (t *tester) TestChannel(_ context.Context, channel, user string) (mail.Attempt, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = append(t.asked, channel+" "+user)
	return t.attempt, t.err
}

func (r *rig) startNotify(store *control.Control, f *feed.Feed, log *slog.Logger) {
	r.Helper()
	r.tester = &tester{attempt: mail.Attempt{Verdict: mail.Delivered, At: muster.MicrosOf(time.Now()), Reference: "<x@muster.example>"}}
	r.notify = notify.New(store, notify.Options{
		People: people{r.accounts}, Devices: r.registry, Feed: f, Key: []byte("0123456789abcdef0123456789abcdef"), URL: func() string { return publicURL },
		WebhookOwner: func(string) string { return "" }, Now: time.Now, Logger: log, Limits: notify.Limits{Burst: 40, Every: time.Hour},
	})
	store.OnInbox(r.notify.Inbox().Publish)
	r.must(r.notify.Load(r.Context()))
}

// someone is a signed-in user of a test.
type someone struct {
	r     *rig
	id    string
	email string
	as    option
}

// enters makes a user with a name and signs him in.
func (r *rig) enters(name, role string) someone {
	r.Helper()
	email := name + "@secret-address.example"
	u, err := r.accounts.CreateUser(r.Context(), accounts.NewUser{Email: email, Name: name, Role: role, Password: goodPassword})
	r.must(err)
	return someone{r, u.ID, email, withCookie(r.enter(email))}
}

func (s someone) do(method, path string, body any, options ...option) answer {
	s.r.Helper()
	return s.r.do(method, "/api/v1"+path, body, append([]option{s.as}, options...)...)
}

// topic makes a topic of somebody's and returns its id.
func (s someone) topic(body object) string {
	s.r.Helper()
	return s.do("POST", "/topics", body).wantStatus(s.r, 201).decode(s.r)["id"].(string)
}

// subscribes subscribes himself.
func (s someone) subscribes(topic string) {
	s.r.Helper()
	s.do("PUT", "/topics/"+topic+"/subscriptions/me", object{}).wantStatus(s.r, 200)
}

// sends sends a notification and returns its id.
func (s someone) sends(body object) string {
	s.r.Helper()
	return s.do("POST", "/notifications", body).wantStatus(s.r, 202).decode(s.r)["notification"].(object)["id"].(string)
}

// listed returns the items of a list.
func (a answer) listed(t testing.TB) []object {
	t.Helper()
	var out []object
	for _, i := range a.wantStatus(t, http.StatusOK).decode(t)["items"].([]any) {
		out = append(out, i.(object))
	}
	return out
}

// field returns what is at a path of names in an answer, as text.
func field(v any, names ...string) string {
	for _, n := range names {
		o, ok := v.(object)
		if !ok {
			return ""
		}
		v = o[n]
	}
	return fmt.Sprint(v)
}
