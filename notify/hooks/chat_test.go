package hooks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/notify"
	"muster/notify/hooks"
	"muster/notify/outbox"
)

// chats knows one service, whose URLs have a token.
type chats struct{}

func (chats) Has(service string) bool { return service == "discord" }

func (chats) Check(u string) (string, error) {
	if !strings.HasPrefix(u, "discord://tok") {
		return "", muster.InvalidAt("url", "it is not understood")
	}
	return "discord", nil
}

// chatting is a rig whose webhooks may go to chat services.
func chatting(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.Webhooks = hooks.New(r.store, hooks.Options{
		Devices: r.registry, Sealer: sealer{}, Sender: r.sent, Chats: chats{}, Now: func() time.Time { return r.clock },
	})
	return r
}

func chatSpec(u string) hooks.Spec {
	s := spec()
	s.URL = u
	return s
}

func TestTheURLOfAChatServiceIsShownNowhere(t *testing.T) {
	r := chatting(t)
	ctx := audit.With(t.Context(), audit.Actor{Kind: audit.System}, r.clockNow)
	h, secret, err := r.Create(ctx, chatSpec("shoutrrr:discord://tok-hush@4711"))
	must(t, err)
	if h.URL != "shoutrrr:discord" || secret != "" || len(h.Secrets) != 1 {
		t.Errorf("%+v %q", h, secret)
	}
	next := "shoutrrr:discord://tok-other-hush@4711"
	ctx = audit.With(t.Context(), audit.Actor{Kind: audit.System}, r.clockNow)
	h, err = r.Update(ctx, h.ID, hooks.Change{URL: &next})
	must(t, err)
	if h.URL != "shoutrrr:discord" || h.Version != 2 || len(h.Secrets) != 1 {
		t.Errorf("%+v", h)
	}
	all := records(t, r.db)
	kept, err := r.store.Webhooks(t.Context())
	must(t, err)
	log, err := json.Marshal(all)
	must(t, err)
	if seen := fmt.Sprintf("%+v %s %+v", h, log, kept); strings.Contains(seen, "hush") || len(all) != 2 {
		t.Errorf("%s", seen)
	}
	if after := string(all[0].After); !strings.Contains(after, `"host":"shoutrrr:discord"`) {
		t.Errorf("the audit log does not say which service: %s", after)
	}
	if keys, err := r.Keys(h); err != nil || len(keys) != 1 || string(keys[0]) != "discord://tok-other-hush@4711" {
		t.Errorf("%q %v", keys, err)
	}
	if _, err := r.Test(t.Context(), h.ID); err != nil || len(r.sent.targets) != 1 || r.sent.targets[0].URL != "shoutrrr:discord" {
		t.Errorf("%v %v", r.sent.targets, err)
	}
}

func (r *rig) clockNow() time.Time { return r.clock }

func TestAChatServiceThatIsWrittenBackAsShownStays(t *testing.T) {
	r := chatting(t)
	h, _ := r.make(t, chatSpec("shoutrrr:discord://tok@4711"))
	got, err := r.Update(t.Context(), h.ID, hooks.Change{URL: &h.URL})
	must(t, err)
	if got.Version != 1 {
		t.Errorf("%+v", got)
	}
	if keys, err := r.Keys(got); err != nil || string(keys[0]) != "discord://tok@4711" {
		t.Errorf("%q %v", keys, err)
	}
}

func TestAChatServiceHasNoSecretToRotate(t *testing.T) {
	r := chatting(t)
	h, _ := r.make(t, chatSpec("shoutrrr:discord://tok@4711"))
	_, _, err := r.RotateSecret(t.Context(), h.ID, 0)
	wantKind(t, err, muster.Conflict)
	if keys, err := r.Keys(h); err != nil || string(keys[0]) != "discord://tok@4711" {
		t.Errorf("%q %v", keys, err)
	}
}

func TestWhatCanBeNoChatServiceIsRefused(t *testing.T) {
	r := chatting(t)
	address, _ := r.make(t, spec())
	service, _ := r.make(t, chatSpec("shoutrrr:discord://tok@4711"))
	for name, try := range map[string]func() error{
		"a URL that is not understood": func() error {
			_, _, err := r.Create(t.Context(), chatSpec("shoutrrr:discord://hush"))
			return err
		},
		"the form in which it is shown": func() error {
			_, _, err := r.Create(t.Context(), chatSpec("shoutrrr:discord"))
			return err
		},
		"a long one": func() error {
			_, _, err := r.Create(t.Context(), chatSpec("shoutrrr:discord://tok"+strings.Repeat("k", 2048)))
			return err
		},
		"a change of an address into a service": func() error {
			u := "shoutrrr:discord://tok@1"
			_, err := r.Update(t.Context(), address.ID, hooks.Change{URL: &u})
			return err
		},
		"a change of a service into an address": func() error {
			u := "https://x.example/"
			_, err := r.Update(t.Context(), service.ID, hooks.Change{URL: &u})
			return err
		},
		"one of a binary that has none": func() error {
			_, _, err := r.again(t).Create(t.Context(), chatSpec("shoutrrr:discord://tok@1"))
			if err == nil || err.Error() != hooks.NoChats {
				t.Errorf("%v", err)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := try()
			wantKind(t, err, muster.Invalid)
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("it tells the URL: %v", err)
			}
		})
	}
	if got := r.List(); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAChatServiceThatIsNotBuiltInIsAProblem(t *testing.T) {
	r := chatting(t)
	h, _ := r.make(t, chatSpec("shoutrrr:discord://tok@4711"))
	if p := r.Problem(h); p != "" {
		t.Errorf("%q", p)
	}
	if p := r.again(t).Problem(h); p != hooks.NoChats {
		t.Errorf("%q", p)
	}
}

// worded is a topic with a template, whose words are too long for a webhook.
type worded struct{}

func (worded) TopicOf(context.Context, string) (string, error) { return "pumps", nil }

func (worded) Shows(context.Context, hooks.Webhook, *feed.Event) (bool, error) { return true, nil }

func (worded) Words(context.Context, hooks.Webhook, string, notify.NotificationState) (notify.Words, error) {
	return notify.Words{
		Data: json.RawMessage(`{"title":"Pump 7","body":"` + strings.Repeat("b", hooks.MaxEvent) + `"}`), Body: []byte(`{"text":"as the template has it"}`),
	}, nil
}

func TestAChatServiceIsToldWordsAndNotTheTemplate(t *testing.T) {
	r := chatting(t)
	f := hooks.NewFanOut(r.Webhooks, nil, nil, worded{}, r.clockNow, slog.New(slog.DiscardHandler))
	e := feed.NewEvent(feed.NotificationCreated, "", 5, map[string]string{"notification": "ntf_1", "state": "open"})
	for u, want := range map[string]string{"shoutrrr:discord://tok@4711": `"title":"Pump 7"`, "https://x.example/": "as the template has it"} {
		s := chatSpec(u)
		s.Topics = []string{"pumps"}
		h, _ := r.make(t, s)
		to, m, err := f.Webhook(t.Context(), []outbox.Delivery{{Target: h.ID, Content: "evt_1", Notification: "ntf_1", Body: e.Envelope()}})
		if err != nil || to.URL != h.URL || m.ID != "evt_1" || !strings.Contains(string(m.Body), want) || m.Note != "" {
			t.Errorf("%s: %.60s %q %v", to.URL, m.Body, m.Note, err)
		}
	}
}
