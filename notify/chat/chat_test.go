package chat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"muster"
	"muster/feed"
	"muster/notify/channeltest"
	"muster/notify/chat"
	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/notify/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "tk-hush-hush"

// toPlain is a service of its own: plain://token@host:port/ is told by a POST to it.
func toPlain(u *url.URL, title, text string) (*http.Request, error) {
	if u.User.Username() == "" {
		return nil, errors.New("no token in " + u.String())
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+u.Host+"/"+u.User.Username(), strings.NewReader(text))
	if err == nil {
		req.Header.Set("Title", mime.QEncoding.Encode("utf-8", title))
	}
	return req, err
}

func plainOnly() map[string]chat.Compose { return map[string]chat.Compose{"plain": toPlain} }

// place is a chat service on this machine, that behaves as the kit says.
type place struct {
	host   string
	status atomic.Int64 // 0: it says nothing; -1: it hangs up
	ended  chan struct{}

	mu     sync.Mutex
	titles []string
	bodies []string
}

func newPlace(t *testing.T) *place {
	p := &place{ended: make(chan struct{})}
	p.status.Store(http.StatusOK)
	s := httptest.NewServer(http.HandlerFunc(p.serve))
	p.host = strings.TrimPrefix(s.URL, "http://")
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(p.ended) })
	return p
}

func (p *place) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch status := p.status.Load(); status {
	case 0:
		select {
		case <-p.ended:
		case <-r.Context().Done():
		}
	case -1:
		panic(http.ErrAbortHandler)
	case http.StatusOK:
		title, _ := (&mime.WordDecoder{}).DecodeHeader(r.Header.Get("Title"))
		p.mu.Lock()
		p.titles, p.bodies = append(p.titles, title), append(p.bodies, string(body))
		p.mu.Unlock()
		_, _ = w.Write(body) // services repeat what they were told
	default:
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(int(status))
		_, _ = io.WriteString(w, "not now")
	}
}

func (p *place) behave(b channeltest.Behaviour) {
	p.status.Store(map[channeltest.Behaviour]int64{
		channeltest.Takes: http.StatusOK, channeltest.Busy: http.StatusTooManyRequests, channeltest.Refuses: http.StatusForbidden,
		channeltest.Stalls: 0, channeltest.Cuts: -1,
	}[b])
}

// refs are the contents' ids, which source makes the titles.
func (p *place) refs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, len(p.titles))
	for i, title := range p.titles {
		out[i] = strings.TrimPrefix(title, "[major] ")
	}
	return out
}

// sender sends to services over the real guard, which lets this machine be reached when allow says so.
func sender(t *testing.T, services map[string]chat.Compose, allow ...string) *chat.Sender {
	t.Helper()
	var open []netip.Prefix
	for _, s := range allow {
		open = append(open, netip.MustParsePrefix(s))
	}
	over := webhook.New(webhook.Config{Allow: open, Now: time.Now})
	t.Cleanup(over.Close)
	return chat.New(chat.Config{Next: over, Poster: over, Services: services, Now: time.Now})
}

// source words each delivery as an event about a notification, and sends all to one target.
type source struct{ target hooks.Target }

func (s source) Webhook(_ context.Context, ds []outbox.Delivery) (hooks.Target, hooks.Message, error) {
	e := feed.NewEvent(feed.NotificationCreated, "", 1, map[string]string{
		"title": ds[0].Content, "severity": "major", "body": string(ds[0].Body), "link": "https://muster.example.com/n/1",
	})
	return s.target, hooks.Message{ID: ds[0].Content, Body: e.Envelope()}, nil
}

func target(serviceURL string) hooks.Target {
	scheme, _, _ := strings.Cut(serviceURL, ":")
	return hooks.Target{URL: "shoutrrr:" + scheme, Keys: [][]byte{[]byte(serviceURL)}}
}

// isAChannel runs the kit over a service that the place plays.
func isAChannel(t *testing.T, services map[string]chat.Compose, serviceURL func(host string) string) {
	channeltest.Run(t, func(t *testing.T) channeltest.Rig {
		p := newPlace(t)
		to := source{target(serviceURL(p.host))}
		return channeltest.Rig{
			Channel: webhook.NewChannel(sender(t, services, "127.0.0.0/8"), to, time.Now), Behave: p.behave, Target: "whk_1",
			Secrets: []string{token}, Refs: p.refs,
		}
	})
}

func TestAChatServiceIsAChannel(t *testing.T) {
	isAChannel(t, plainOnly(), func(host string) string { return "plain://" + token + "@" + host })
}

func TestEventsAreWorded(t *testing.T) {
	note := func(kind string, data map[string]string) []byte { return feed.NewEvent(kind, "", 1, data).Envelope() }
	long := strings.Repeat("ü", 2000)
	for name, tt := range map[string]struct {
		body        []byte
		title, text string
	}{
		"a notification has severity, title, body and link": {
			note(feed.NotificationCreated, map[string]string{"title": "Pump 7", "severity": "critical", "body": "It\nstopped", "link": "https://x.example/7"}),
			"[critical] Pump 7", "It\nstopped\nhttps://x.example/7",
		},
		"one with a title only says it": {
			note(feed.NotificationCreated, map[string]string{"title": "Pump 7", "severity": "info"}), "[info] Pump 7", "[info] Pump 7",
		},
		"an acknowledged one says by whom": {
			note(feed.NotificationAcked, map[string]string{"title": "Pump 7", "acked_by": "Ann"}), "Acknowledged by Ann: Pump 7", "Acknowledged by Ann: Pump 7",
		},
		"one that is over says so": {
			note(feed.NotificationResolved, map[string]string{"title": "Pump 7", "body": "b"}), "Over: Pump 7", "b",
		},
		"a thin one says its type and severity": {
			note(feed.NotificationCreated, map[string]string{"severity": "major"}), "Muster", "notification.created major",
		},
		"an event is one line with type and device": {
			note(feed.DeviceCreated, map[string]string{"device": "d1", "title": "no title of its own"}), "Muster", "device.created d1",
		},
		"an event of no device has its type": {note(feed.WebhookTest, map[string]string{"webhook": "whk_1"}), "Muster", "webhook.test"},
		"a long body is cut between characters, and the link stays": {
			note(feed.NotificationCreated, map[string]string{"title": "t", "severity": "info", "body": long, "link": "https://x.example/"}),
			"[info] t", strings.Repeat("ü", 489) + "…\nhttps://x.example/",
		},
		"control characters and lines in a title are spaces": {
			note(feed.NotificationCreated, map[string]string{"title": "a\r\nb\x00c", "severity": "info", "body": "x\x1by"}), "[info] a b c", "x y",
		},
		"what is no JSON is an event": {[]byte("\xff"), "Muster", "an event"},
	} {
		t.Run(name, func(t *testing.T) {
			if title, text := chat.Wording(tt.body); title != tt.title || text != tt.text {
				t.Errorf("%q %q", title, text)
			}
		})
	}
}

func FuzzWordsAreShortAndPlain(f *testing.F) {
	f.Add([]byte(`{"type":"notification.created","data":{"title":"a","severity":"info","body":"b","link":"https://x.example/"}}`))
	f.Add([]byte(`{"type":"device.created","data":{"device":"d1"}}`))
	f.Add([]byte(`{"type":"notification.acked","data":{"title":"\u0000","body":"\ud800","link":"` + strings.Repeat("l", 1001) + `"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		title, text := chat.Wording(body)
		if title == "" || text == "" || len(title) > 240 || len(text) > 1000 || strings.ContainsAny(title, "\r\n\x00") ||
			strings.ContainsAny(text, "\r\x00\x1b") || !utf8.ValidString(title+text) {
			t.Errorf("%q %q", title, text)
		}
	})
}

func TestTheAnswerOfAServiceBecomesAVerdict(t *testing.T) {
	p := newPlace(t)
	s := sender(t, plainOnly(), "127.0.0.0/8")
	for name, tt := range map[string]struct {
		status  int64
		verdict outbox.Verdict
		words   string
	}{
		"its own fault is for now":              {500, outbox.Again, "500"},
		"too many is for now":                   {429, outbox.Again, "429"},
		"a redirect is not followed":            {302, outbox.Again, "not followed"},
		"a bad request is for good":             {400, outbox.Dead, "plain refuses it (400)"},
		"a token that is refused is for good":   {401, outbox.Dead, "plain refuses it (401)"},
		"an address that was never is for good": {404, outbox.Dead, "plain refuses it (404)"},
		"an address that is gone is disabled":   {410, outbox.Gone, "plain knows this address no more (410)"},
	} {
		t.Run(name, func(t *testing.T) {
			p.status.Store(tt.status)
			a := s.Deliver(t.Context(), target("plain://"+token+"@"+p.host), hooks.Message{ID: "evt_1", Body: []byte("{}")})
			if a.Verdict != tt.verdict || !strings.Contains(a.Error, tt.words) || a.Status != int(tt.status) || a.Response != "not now" || a.RetryAfter != 2*time.Minute {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestWhatIsNoChatServiceGoesToTheNext(t *testing.T) {
	p := newPlace(t)
	a := sender(t, nil, "127.0.0.0/8").Deliver(t.Context(), hooks.Target{URL: "http://" + p.host, Keys: [][]byte{bytes.Repeat([]byte("k"), 32)}},
		hooks.Message{ID: "evt_1", Body: []byte(`{"type":"x"}`)})
	if a.Verdict != outbox.Delivered || !slices.Equal(p.bodies, []string{`{"type":"x"}`}) {
		t.Errorf("%+v, and it was told %q", a, p.bodies)
	}
}

func TestAServiceOnAnInnerAddressIsNotReached(t *testing.T) {
	p := newPlace(t)
	a := sender(t, plainOnly()).Deliver(t.Context(), target("plain://"+token+"@"+p.host), hooks.Message{ID: "evt_1", Body: []byte("{}")})
	if a.Verdict != outbox.Dead || !strings.Contains(a.Error, "inner network") || len(p.bodies) != 0 {
		t.Errorf("%+v", a)
	}
}

func TestABinaryWithoutTheServicesKeepsDeliveriesForOneThatHasThem(t *testing.T) {
	s := sender(t, nil)
	a := s.Deliver(t.Context(), target("plain://"+token+"@x.example"), hooks.Message{ID: "evt_1", Body: []byte("{}")})
	if a.Verdict != outbox.Again || a.Error != hooks.NoChats || a.At == 0 || s.Has("plain") {
		t.Errorf("%+v", a)
	}
	if _, err := s.Check("plain://" + token + "@x.example"); muster.KindOf(err) != muster.Invalid || err.Error() != hooks.NoChats {
		t.Errorf("%v", err)
	}
}

func TestServiceURLsAreRefusedWithoutTellingThem(t *testing.T) {
	s := sender(t, plainOnly())
	if name, err := s.Check("plain://" + token + "@x.example"); name != "plain" || err != nil || !s.Has("plain") {
		t.Errorf("%q %v", name, err)
	}
	for name, u := range map[string]string{
		"nothing":                  "",
		"no URL":                   token,
		"what cannot be parsed":    "plain://" + token + "@%zz",
		"an opaque one":            "plain:" + token,
		"another service":          token + "-x://x.example",
		"the library's own dummy":  "plain://" + token + "@dummy.com",
		"one that its service":     "plain://x.example/" + token,
		"two services in one name": "plain+https://" + token + "@x.example",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Check(u)
			if muster.KindOf(err) != muster.Invalid || strings.Contains(fmt.Sprintf("%+v", err), token) {
				t.Errorf("%v", err)
			}
			a := s.Deliver(t.Context(), hooks.Target{URL: "shoutrrr:plain", Keys: [][]byte{[]byte(u)}}, hooks.Message{Body: []byte("{}")})
			if a.Verdict != outbox.Dead || a.Error == "" || strings.Contains(fmt.Sprintf("%+v", a), token) {
				t.Errorf("%+v", a)
			}
		})
	}
	if a := s.Deliver(t.Context(), hooks.Target{URL: "shoutrrr:plain"}, hooks.Message{}); a.Verdict != outbox.Dead {
		t.Errorf("without a service URL: %+v", a)
	}
}
