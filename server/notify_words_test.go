package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/accounts"
	"muster/dashboard/live"
	"muster/feed"
	"muster/notify"
	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/notify/webhook"
)

// told is a webhook of a running server, and what its receiver gets.
type told struct {
	*Server
	t    *testing.T
	hook hooks.Webhook
	got  chan string // bodies whose signature is right
}

// boss is who may everything in notifications.
func boss() notify.Who { return notify.Who{Kind: "key", ID: "key_boss", Name: "boss", Admin: true} }

func newTold(t *testing.T, owner func(*Server) string, topics ...string) *told {
	t.Helper()
	r := &told{t: t, got: make(chan string, 10)}
	var secret string
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		if err := webhook.Verify(secret, req.Header, b, time.Now()); err != nil || !strings.HasPrefix(req.Header.Get("webhook-id"), "evt_") {
			t.Errorf("it is not signed: %v", err)
		}
		r.got <- string(b)
	}))
	r.Server = outward(t, func(c *Config) { c.WebhookAllow = []string{"127.0.0.0/8"} })
	t.Cleanup(receiver.Close)
	var err error
	for i, name := range topics {
		topic, _, err := r.notify.CreateTopic(t.Context(), boss(), notify.TopicSpec{Name: name, Title: "Cold chain", Visibility: notify.Private, AckPolicy: notify.AckAny})
		if err != nil {
			t.Fatal(err)
		}
		topics[i] = topic.ID
	}
	r.hook, secret, err = r.webhooks.Create(t.Context(), hooks.Spec{
		URL: receiver.URL, Types: []string{"notification.*"}, Topics: topics, OwnerID: owner(r.Server),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sends makes the topic cold-chain, unless it is there, as it is to be, and sends a notification to it.
func (r *told) sends(v notify.Visibility, template string) notify.Notification {
	r.t.Helper()
	_, _, err := r.notify.CreateTopic(r.t.Context(), boss(), notify.TopicSpec{
		Name: "cold-chain", Title: "Cold chain", Visibility: v, AckPolicy: notify.AckAny, Template: notify.Template{Webhook: template}, IfAbsent: true,
	})
	if err == nil {
		_, err = r.notify.ChangeTopic(r.t.Context(), boss(), "cold-chain", notify.TopicChange{Visibility: &v, Template: &notify.Template{Webhook: template}})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := r.notify.Send(r.t.Context(), boss(), notify.Message{
		Topic: "cold-chain", Severity: notify.Major, Title: `The "door" is open`, Body: "since 10 minutes", Data: json.RawMessage(`{"hall":3}`),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return res.Notification
}

// ended returns the webhook's one delivery when it has ended.
func (r *told) ended() outbox.Delivery {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		page, err := r.stores.control.Deliveries(r.t.Context(), outbox.Query{Channel: hooks.Channel, Limit: 10})
		if err != nil {
			r.t.Fatal(err)
		}
		if len(page) == 1 && !page[0].State.Open() {
			d, err := r.stores.control.Delivery(r.t.Context(), page[0].ID)
			if err != nil {
				r.t.Fatal(err)
			}
			return d
		}
		<-tick.C
	}
	r.t.Fatal("no delivery ended")
	return outbox.Delivery{}
}

func nobody(*Server) string { return "" }

// someone makes a user of a role.
func someone(t *testing.T, role string) func(*Server) string {
	return func(s *Server) string {
		t.Helper()
		u, err := s.accounts.CreateUser(t.Context(), accounts.NewUser{Email: role + "@example.com", Name: role, Role: role, Password: "long-enough-0123"})
		if err != nil {
			t.Fatal(err)
		}
		return u.ID
	}
}

func TestAWebhookOfATopicIsWordedByItsTemplate(t *testing.T) {
	t.Parallel()
	const good = `{"text":{{json .Title}},"where":{{json .Topic}},"hall":{{.Data.hall}},"state":"{{.State}}"{{if .AckLink}},"ack":1{{end}}}`
	const words = `{"text":"The \"door\" is open","where":"Cold chain","hall":3,"state":"open"}`
	for name, tt := range map[string]struct {
		visibility notify.Visibility
		topics     []string
		template   string
		whole      string   // the body, where it is known
		has, not   []string // parts of the body
		note       string   // part of the attempt's
	}{
		"a topic that all see":                        {notify.Internal, []string{"cold-chain"}, strings.ReplaceAll(good, "{{.Data.hall}}", "{{json .Data.hall}}"), words, nil, nil, ""},
		"a private topic":                             {notify.Private, []string{"cold-chain"}, strings.ReplaceAll(good, "{{.Data.hall}}", "{{json .Data.hall}}"), words, nil, nil, ""},
		"a private topic without a template":          {notify.Private, []string{"cold-chain"}, "", "", []string{`"type":"notification.created"`, `"topic":"cold-chain"`, `The \"door\" is open`, `"hall":3`}, nil, ""},
		"a private topic, of a webhook of all topics": {notify.Private, nil, `{"text":{{json .Title}}}`, "", []string{`"type":"notification.created"`, `"severity":"major"`}, []string{"door", "cold-chain", "hall"}, ""},
		"a webhook of all topics has the event":       {notify.Internal, nil, `{"text":{{json .Title}}}`, "", []string{`"type":"notification.created"`, `The \"door\" is open`}, nil, ""},
		"words that make no JSON fall back":           {notify.Internal, []string{"cold-chain"}, `{"text":"{{.Title}}"}`, "", []string{`"type":"notification.created"`, `The \"door\" is open`}, nil, "makes no JSON"},
		"words that fail fall back":                   {notify.Private, []string{"cold-chain"}, `{"text":{{json (index .Data.hall 1)}}}`, "", []string{`"type":"notification.created"`, `The \"door\" is open`}, nil, "the template webhook does not work"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTold(t, nobody, slices.Clone(tt.topics)...)
			if strings.Contains(tt.template, "index") { // it works for the sample, whose data has no hall
				tt.template = "{{if .Data.hall}}" + tt.template + "{{else}}{}{{end}}"
			}
			note := r.sends(tt.visibility, tt.template)
			body := <-r.got
			if !json.Valid([]byte(body)) || tt.whole != "" && body != tt.whole {
				t.Errorf("it gets %s", body)
			}
			for _, part := range tt.has {
				if !strings.Contains(body, part) {
					t.Errorf("it gets %s, without %s", body, part)
				}
			}
			for _, part := range tt.not {
				if strings.Contains(body, part) {
					t.Errorf("it gets %s, with %s", body, part)
				}
			}
			d := r.ended()
			if d.State != outbox.StateSent || d.Notification != note.ID || len(d.Tries) != 1 {
				t.Fatalf("the delivery is %+v", d)
			}
			if got := d.Tries[0].Note; (got == "") != (tt.note == "") || !strings.Contains(got, tt.note) {
				t.Errorf("the note is %q, want %q", got, tt.note)
			}
		})
	}
}

func TestWordsOfAPrivateTopicGoToWhoMaySeeIt(t *testing.T) {
	for name, tt := range map[string]struct {
		role   string
		member bool
		state  outbox.State
	}{
		"a member":                  {accounts.Operator, true, outbox.StateSent},
		"an admin":                  {accounts.Admin, false, outbox.StateSent},
		"who is no member any more": {accounts.Operator, false, outbox.StateDropped},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTold(t, someone(t, tt.role), "cold-chain")
			if tt.member {
				r.notify.CreateTopic(t.Context(), boss(), notify.TopicSpec{Name: "cold-chain", Title: "Cold chain", Visibility: notify.Private, IfAbsent: true})
				if _, err := r.notify.PutMember(t.Context(), boss(), "cold-chain", r.hook.OwnerID, notify.RoleSubscriber); err != nil {
					t.Fatal(err)
				}
				if _, err := r.notify.Send(t.Context(), boss(), notify.Message{Topic: "cold-chain", Title: `The "door" is open`}); err != nil {
					t.Fatal(err)
				}
			} else {
				r.sends(notify.Private, "")
			}
			d := r.ended()
			if d.State != tt.state {
				t.Fatalf("the delivery is %+v", d)
			}
			if tt.state == outbox.StateDropped {
				if len(r.got) != 0 || !strings.Contains(d.Error, "does not see the topic") {
					t.Errorf("%d came; the error is %q", len(r.got), d.Error)
				}
				return
			}
			if body := <-r.got; !strings.Contains(body, `The \"door\" is open`) {
				t.Errorf("it gets %s", body)
			}
		})
	}
}

func TestAWebhookOfAnotherTopicHearsNothing(t *testing.T) {
	r := newTold(t, nobody, "elsewhere")
	r.sends(notify.Private, "")
	if err := r.feedRead(feed.NotificationCreated); err != nil {
		t.Fatal(err)
	}
	page, err := r.stores.control.Deliveries(t.Context(), outbox.Query{Channel: hooks.Channel, Target: r.hook.ID, Limit: 10})
	if err != nil || len(page) != 0 {
		t.Errorf("%d deliveries, %v", len(page), err)
	}
}

// A name is of another topic after two renames; the webhook is still of the one that it named.
func TestAWebhookFollowsItsTopicWhateverItIsCalled(t *testing.T) {
	r := newTold(t, nobody, "cold-chain")
	called := func(topic, name string) {
		t.Helper()
		if _, err := r.notify.ChangeTopic(t.Context(), boss(), topic, notify.TopicChange{Name: &name}); err != nil {
			t.Fatal(err)
		}
	}
	called("cold-chain", "freezers")
	other, _, err := r.notify.CreateTopic(t.Context(), boss(), notify.TopicSpec{Name: "cold-chain", Visibility: notify.Internal})
	if err != nil {
		t.Fatal(err)
	}
	for topic, title := range map[string]string{other.ID: "not of it", "freezers": "of it"} {
		if _, err := r.notify.Send(t.Context(), boss(), notify.Message{Topic: topic, Title: title}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.feedRead(feed.NotificationCreated); err != nil {
		t.Fatal(err)
	}
	if body := <-r.got; !strings.Contains(body, `"topic":"freezers"`) || !strings.Contains(body, `"of it"`) {
		t.Errorf("it gets %s", body)
	}
	if page, err := r.stores.control.Deliveries(t.Context(), outbox.Query{Channel: hooks.Channel, Target: r.hook.ID, Limit: 10}); err != nil || len(page) != 1 {
		t.Errorf("%d deliveries, %v", len(page), err)
	}
}

// A database of before has webhooks that name topics by their names.
func TestWebhooksThatNamedTopicsByNameNameThemByID(t *testing.T) {
	r := newTold(t, nobody, "cold-chain")
	id := r.hook.Topics[0]
	if _, err := r.webhooks.Update(t.Context(), r.hook.ID, hooks.Change{Topics: &[]string{"cold-chain", "deleted"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.nameTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{id, "deleted"}
	slices.Sort(want)
	kept, err := r.stores.control.Webhooks(t.Context())
	if err != nil || len(kept) != 1 || !slices.Equal(kept[0].Topics, want) {
		t.Errorf("%+v %v, want %v", kept, err, want)
	}
	if h, err := r.webhooks.Get(r.hook.ID); err != nil || !slices.Equal(h.Topics, want) {
		t.Errorf("%+v %v, want %v", h, err, want)
	}
}

// feedRead waits until webhooks were told of everything that is in the feed: another one, of all
// topics, gets the newest event.
func (r *told) feedRead(kind string) error {
	all := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		all <- string(b)
	}))
	r.t.Cleanup(s.Close)
	ctx := r.t.Context()
	h, _, err := r.webhooks.Create(ctx, hooks.Spec{URL: s.URL, Types: []string{kind}})
	if err != nil {
		return err
	}
	if _, err := r.notify.Send(ctx, boss(), notify.Message{Topic: "cold-chain", Title: "Second"}); err != nil {
		return err
	}
	select {
	case <-all:
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.webhooks.Delete(ctx, h.ID, nil)
}

// Who does not see a topic learns by no webhook that something was sent to it, or that a delivery died.
func TestAWebhookOfAllTopicsHearsOfThoseAloneThatWhoAnswersForItSees(t *testing.T) {
	for name, tt := range map[string]struct {
		role string
		want []string
	}{
		"an operator": {accounts.Operator, []string{"notification.created public", "device.created"}},
		"an admin":    {accounts.Admin, []string{"notification.created", "notification.created public", "delivery.dead", "device.created"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTold(t, someone(t, tt.role))
			if _, err := r.webhooks.Update(t.Context(), r.hook.ID, hooks.Change{Types: []string{"*"}}); err != nil {
				t.Fatal(err)
			}
			for topic, v := range map[string]notify.Visibility{"cold-chain": notify.Private, "public": notify.Internal} {
				if _, _, err := r.notify.CreateTopic(t.Context(), boss(), notify.TopicSpec{Name: topic, Visibility: v}); err != nil {
					t.Fatal(err)
				}
			}
			var note notify.Notification
			for _, topic := range []string{"cold-chain", "public"} {
				res, err := r.notify.Send(t.Context(), boss(), notify.Message{Topic: topic, Title: "x"})
				if err != nil {
					t.Fatal(err)
				}
				note = res.Notification
			}
			now := muster.MicrosOf(time.Now())
			ctx := feed.With(t.Context())
			feed.Note(ctx, feed.NewEvent(feed.DeliveryDead, "", now, map[string]string{"delivery": "dlv_x", "channel": "email", "target": "usr_x", "notification": note.ID}),
				feed.NewEvent(feed.DeviceCreated, "d1", now, map[string]string{"device": "d1"}))
			if err := r.stores.control.WriteNotes(ctx); err != nil {
				t.Fatal(err)
			}
			var got []string
			for range tt.want {
				var e struct {
					Type string
					Data struct{ Topic string }
				}
				if err := json.Unmarshal([]byte(<-r.got), &e); err != nil {
					t.Fatal(err)
				}
				got = append(got, strings.TrimSpace(e.Type+" "+e.Data.Topic))
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("it is told of %v, want %v", got, tt.want)
			}
		})
	}
}

// What happens between the first request and the start of the loops is told, whenever the server ends.
func TestWhatIsToBeToldHasAPlaceBeforeTheFirstRequest(t *testing.T) {
	s, err := New(t.Context(), outwardConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := s.loadDevices(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"notify.webhooks", "notify.sources"} {
		if c, err := s.stores.control.Cursor(t.Context(), name); err != nil || c.Epoch != s.feed.Epoch() || c.Seq != s.feed.Last() {
			t.Errorf("the place of %s is %+v, %v", name, c, err)
		}
	}
}

// The sockets' channel events is filtered as streams are.
func TestTheLiveChannelOfEventsTellsOfDeadDeliveriesToAdminsAlone(t *testing.T) {
	s := outward(t, func(*Config) {})
	events := liveEvents{s.feed, s.registry, s.notify.Notify}
	follow := func(admin bool) *feed.Follower {
		t.Helper()
		f, err := events.Follow(live.Principal{Who: notify.Who{Kind: "user", ID: "usr_x", User: "usr_x", Admin: admin}}, "delivery.*,device.*", "", "")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	viewer, admin := follow(false), follow(true)
	now := muster.MicrosOf(time.Now())
	ctx := feed.With(t.Context())
	feed.Note(ctx, feed.NewEvent(feed.DeliveryDead, "", now, map[string]string{"delivery": "dlv_x"}), feed.NewEvent(feed.DeviceCreated, "d1", now, map[string]string{"device": "d1"}))
	if err := s.stores.control.WriteNotes(ctx); err != nil {
		t.Fatal(err)
	}
	for who, c := range map[string]struct {
		f    *feed.Follower
		want int
	}{"a viewer": {viewer, 1}, "an admin": {admin, 2}} {
		if got, err := c.f.Next(t.Context(), 10); err != nil || len(got) != c.want || got[len(got)-1].Type != feed.DeviceCreated {
			t.Errorf("%s is told of %+v, %v", who, got, err)
		}
	}
}

// Each attempt asks again, a retry and a replay too.
func TestAnAttemptOfAWebhookOfAllTopicsAsksAgainWhetherWhoAnswersForItMayLearnOfIt(t *testing.T) {
	t.Parallel()
	dead := feed.NewEvent(feed.DeliveryDead, "", 5, map[string]string{"delivery": "dlv_x", "channel": "email", "target": "usr_x"})
	made := feed.NewEvent(feed.DeviceCreated, "d1", 5, map[string]string{"device": "d1"})
	for name, tt := range map[string]struct {
		lose func(r *told, owner accounts.User)
		want string // of what is sent: the topic's, one that is too long, the other's, of the dead delivery, of the device
	}{
		"who is an admin": {func(*told, accounts.User) {}, "words long other dead device"},
		"who is one no more": {func(r *told, owner accounts.User) {
			role := accounts.Operator
			if _, err := r.accounts.UpdateUser(r.t.Context(), owner.ID, accounts.UserChange{Role: &role}); err != nil {
				r.t.Fatal(err)
			}
		}, "other device"},
		"who is disabled": {func(r *told, owner accounts.User) {
			disabled := true
			if _, err := r.accounts.UpdateUser(r.t.Context(), owner.ID, accounts.UserChange{Disabled: &disabled}); err != nil {
				r.t.Fatal(err)
			}
		}, "device"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTold(t, someone(t, accounts.Admin))
			note := r.sends(notify.Internal, "")
			if _, _, err := r.notify.CreateTopic(t.Context(), boss(), notify.TopicSpec{Name: "public"}); err != nil {
				t.Fatal(err)
			}
			res, err := r.notify.Send(t.Context(), boss(), notify.Message{Topic: "public", Title: "x"})
			if err != nil {
				t.Fatal(err)
			}
			private := notify.Private
			topic, err := r.notify.ChangeTopic(t.Context(), boss(), "cold-chain", notify.TopicChange{Visibility: &private})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.accounts.CreateUser(t.Context(), accounts.NewUser{Email: "x@example.com", Name: "x", Role: accounts.Admin, Password: "long-enough-0123"}); err != nil {
				t.Fatal(err) // the last admin stays one
			}
			owner, err := r.accounts.User(r.hook.OwnerID)
			if err != nil {
				t.Fatal(err)
			}
			tt.lose(r, owner)
			about := func(n, topic string, fill int) feed.Event {
				return feed.NewEvent(feed.NotificationCreated, "", 5, map[string]string{
					"notification": n, "topic_id": topic, "state": "open", "title": strings.Repeat("x", fill),
				})
			}
			var got []string
			for _, d := range []struct {
				name, note string
				event      feed.Event
			}{
				{"words", note.ID, about(note.ID, topic.ID, 1)},
				{"long", note.ID, about(note.ID, topic.ID, hooks.MaxEvent)},
				{"other", res.Notification.ID, about(res.Notification.ID, res.Notification.Topic, 1)},
				{"dead", "", dead},
				{"device", "", made},
			} {
				_, _, err := r.notify.fanOut.Webhook(t.Context(), []outbox.Delivery{{
					Target: r.hook.ID, Content: "evt_1", Notification: d.note, Body: hooks.MessageOf(d.event).Body,
				}})
				switch {
				case err == nil:
					got = append(got, d.name)
				case muster.KindOf(err) != muster.NotFound || !strings.Contains(err.Error(), "does not see the topic"):
					t.Errorf("%s: %v", d.name, err)
				}
			}
			if words := strings.Join(got, " "); words != tt.want {
				t.Errorf("it is told of %q, want %q", words, tt.want)
			}
		})
	}
}
