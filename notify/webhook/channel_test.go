package webhook_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/notify/channeltest"
	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/notify/webhook"
)

// source sends everything to one address.
type source struct {
	target hooks.Target
	err    error
}

func (s source) Webhook(_ context.Context, ds []outbox.Delivery) (hooks.Target, hooks.Message, error) {
	return s.target, hooks.Message{ID: ds[0].Content, Body: ds[0].Body}, s.err
}

// place is a receiver that behaves as the kit says.
type place struct {
	url    string
	status atomic.Int64 // 0: it says nothing; -1: it hangs up
	ended  chan struct{}

	mu  sync.Mutex
	ids []string
	bad error // of a signature
}

func newPlace(t *testing.T) *place {
	p := &place{ended: make(chan struct{})}
	p.status.Store(http.StatusOK)
	s := httptest.NewServer(http.HandlerFunc(p.serve))
	p.url = s.URL + "/hush-hush"
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(p.ended) })
	return p
}

func (p *place) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch status := p.status.Load(); status {
	case 0:
		select {
		case <-p.ended:
		case <-r.Context().Done():
		}
	case -1:
		panic(http.ErrAbortHandler)
	case http.StatusOK:
		p.mu.Lock()
		p.ids = append(p.ids, r.Header.Get("webhook-id"))
		p.bad = errors.Join(p.bad, err, webhook.Verify(vectorSecret, r.Header, body, time.Now()))
		p.mu.Unlock()
	default:
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(int(status))
	}
}

func (p *place) behave(b channeltest.Behaviour) {
	p.status.Store(map[channeltest.Behaviour]int64{
		channeltest.Takes: http.StatusOK, channeltest.Busy: http.StatusTooManyRequests, channeltest.Refuses: http.StatusGone,
		channeltest.Stalls: 0, channeltest.Cuts: -1,
	}[b])
}

func TestWebhooksAreAChannel(t *testing.T) {
	channeltest.Run(t, func(t *testing.T) channeltest.Rig {
		p := newPlace(t)
		s := sender(t, webhook.Config{Allow: here()})
		t.Cleanup(func() {
			if p.bad != nil {
				t.Errorf("what came was not signed: %v", p.bad)
			}
		})
		return channeltest.Rig{
			Channel: webhook.NewChannel(s, source{target: target(t, p.url)}, time.Now), Behave: p.behave, Target: "whk_1",
			Secrets: []string{vectorSecret, string(key(t, vectorSecret)), "hush-hush"},
			Refs: func() []string {
				p.mu.Lock()
				defer p.mu.Unlock()
				return append([]string(nil), p.ids...)
			},
		}
	})
}

func TestTheAnswerOfAReceiverBecomesAVerdict(t *testing.T) {
	p := newPlace(t)
	ch := webhook.NewChannel(sender(t, webhook.Config{Allow: here()}), source{target: target(t, p.url)}, time.Now)
	for name, tt := range map[string]struct {
		status  int64
		verdict outbox.Verdict
		after   time.Duration
	}{
		"an error is for now":             {500, outbox.Again, 2 * time.Minute},
		"too many wait as it wishes":      {429, outbox.Again, 2 * time.Minute},
		"gone is for good":                {410, outbox.Gone, 2 * time.Minute},
		"a redirect is no way":            {302, outbox.Again, 2 * time.Minute},
		"that it is not there is for now": {404, outbox.Again, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			p.status.Store(tt.status)
			a := ch.Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1", Content: "evt_7", Body: []byte("{}")}})
			if a.Verdict != tt.verdict || a.Status != int(tt.status) || a.RetryAfter != tt.after || a.Reference != "evt_7" {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestAnInnerAddressIsDeadAtOnce(t *testing.T) {
	p := newPlace(t)
	ch := webhook.NewChannel(sender(t, webhook.Config{}), source{target: target(t, p.url)}, time.Now)
	a := ch.Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1", Content: "evt_7", Body: []byte("{}")}})
	if a.Verdict != outbox.Dead || !strings.Contains(a.Error, "inner network") || len(p.ids) != 0 {
		t.Errorf("%+v", a)
	}
}

func TestAWebhookThatIsGoneOrUnknownIsJudgedByWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		verdict outbox.Verdict
	}{
		"it was deleted or disabled": {muster.Errorf(muster.NotFound, "there is no such webhook"), outbox.Dropped},
		"its message is too long":    {muster.Errorf(muster.TooLarge, "the event is too long"), outbox.Dead},
		"its template is broken":     {muster.Errorf(muster.Invalid, "the template is broken"), outbox.Dead},
		"its secret does not open":   {errors.New("key abc"), outbox.Again},
	} {
		t.Run(name, func(t *testing.T) {
			ch := webhook.NewChannel(sender(t, webhook.Config{}), source{err: tt.err}, time.Now)
			a := ch.Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1"}})
			if a.Verdict != tt.verdict || a.Error == "" || strings.Contains(a.Error, "abc") || a.At == 0 {
				t.Errorf("%+v", a)
			}
		})
	}
}
