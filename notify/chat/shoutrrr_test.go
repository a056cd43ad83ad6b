//go:build shoutrrr

package chat_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/notify/chat"
	"muster/notify/hooks"
	"muster/notify/outbox"
)

func TestNtfyIsAChannel(t *testing.T) {
	isAChannel(t, chat.Services(), func(host string) string { return "ntfy://ann:" + token + "@" + host + "/pumps?scheme=http" })
}

func TestNtfyOnAnInnerAddressIsNotReached(t *testing.T) {
	p := newPlace(t)
	a := sender(t, chat.Services()).Deliver(t.Context(), target("ntfy://ann:"+token+"@"+p.host+"/pumps?scheme=http"), hooks.Message{ID: "evt_1", Body: []byte("{}")})
	if a.Verdict != outbox.Dead || !strings.Contains(a.Error, "inner network") || len(p.bodies) != 0 {
		t.Errorf("%+v", a)
	}
}

const (
	slackToken = "T01234567/B01234567/abcdefghijklmnopqrstuvwx"
	chatURL    = "googlechat://chat.googleapis.com/v1/spaces/S/messages?key=k1&token=t1"
)

func TestEachServiceIsToldInItsOwnWay(t *testing.T) {
	type told struct{ URL, Content, Body string }
	for name, tt := range map[string]struct {
		service, url string
		want         told
	}{
		"Discord, in an embed": {"discord", "discord://tok-1@4711?username=Roll", told{
			"https://discord.com/api/webhooks/4711/tok-1", "application/json",
			`{"embeds":[{"title":"[info] \u003c@everyone\u003e","description":"a \u0026 \u003c!channel\u003e \u003cusers/all\u003e"}],"username":"Roll"}`,
		}},
		"Google Chat, calling nobody": {"googlechat", chatURL, told{
			"https://chat.googleapis.com/v1/spaces/S/messages?key=k1&token=t1", "application/json",
			`{"text":"[info] \u003c@everyone\u003e\na \u0026 \u003c!channel\u003e \u003c users/all\u003e"}`,
		}},
		"ntfy of a host of its own": {"ntfy", "ntfy://ann:pw@ntfy.example.com:8443/pumps?priority=high&tags=a,b", told{
			"https://ntfy.example.com:8443/pumps", "text/plain; charset=utf-8", "a & <!channel> <users/all>",
		}},
		"ntfy.sh": {"ntfy", "ntfy:///pumps", told{"https://ntfy.sh/pumps", "text/plain; charset=utf-8", "a & <!channel> <users/all>"}},
		"Pushover": {"pushover", "pushover://shoutrrr:app-tok@user-key?devices=phone&priority=1", told{
			"https://api.pushover.net/1/messages.json", "application/x-www-form-urlencoded",
			url.Values{
				"token": {"app-tok"}, "user": {"user-key"}, "device": {"phone"}, "priority": {"1"}, "title": {"[info] <@everyone>"}, "message": {"a & <!channel> <users/all>"},
			}.Encode(),
		}},
		"Slack, its signs made literal": {"slack", "slack://hook:" + strings.ReplaceAll(slackToken, "/", "-") + "@webhook", told{
			"https://hooks.slack.com/services/" + slackToken, "application/json",
			`{"text":"[info] \u0026lt;@everyone\u0026gt;","attachments":[{"text":"a \u0026amp; \u0026lt;!channel\u0026gt; \u0026lt;users/all\u0026gt;"}]}`,
		}},
		"Telegram, in a thread": {"telegram", "telegram://12:AB_c@telegram?chats=-100:7&notification=no", told{
			"https://api.telegram.org/bot12:AB_c/sendMessage", "application/json",
			`{"text":"[info] \u003c@everyone\u003e\na \u0026 \u003c!channel\u003e \u003cusers/all\u003e","chat_id":"-100","message_thread_id":7,"disable_web_page_preview":false,"disable_notification":true,"reply_to_message_id":0}`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			req, err := chat.Services()[tt.service](u, "[info] <@everyone>", "a & <!channel> <users/all>")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(req.Body)
			if err != nil || req.Method != http.MethodPost {
				t.Fatalf("%s: %v", req.Method, err)
			}
			if d := cmp.Diff(tt.want, told{req.URL.String(), req.Header.Get("Content-Type"), string(body)}); d != "" {
				t.Error(d)
			}
			if name, err := sender(t, chat.Services()).Check(tt.url); name != tt.service || err != nil {
				t.Errorf("%q %v", name, err)
			}
		})
	}
}

func TestNtfyIsToldTitlePriorityAndWhoSends(t *testing.T) {
	u, err := url.Parse("ntfy://ann:pw@ntfy.example.com/pumps?priority=high&tags=a,b")
	if err != nil {
		t.Fatal(err)
	}
	req, err := chat.Services()["ntfy"](u, "Kälte", "x")
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := req.BasicAuth()
	got := []string{req.Header.Get("Title"), req.Header.Get("Priority"), req.Header.Get("Tags"), user, password}
	if d := cmp.Diff([]string{"=?utf-8?q?K=C3=A4lte?=", "High", "a,b", "ann", "pw"}, got); d != "" {
		t.Error(d)
	}
}

func TestServiceURLsThatLeadElsewhereOrAskForMoreAreRefused(t *testing.T) {
	s := sender(t, chat.Services(), "0.0.0.0/0", "::/0")
	for name, u := range map[string]string{
		"a service with any host":           "generic://hush.example.com/",
		"one that writes files or logs":     "logger://hush",
		"mail":                              "smtp://hush:pw@mail.example.com/?from=a@x.example&to=b@x.example",
		"gotify":                            "gotify://hush.example.com/AzyoeNS.D4iJLVa",
		"a custom URL":                      "slack+https://hooks.slack.com/services/hush",
		"Discord without a token":           "discord://hush",
		"Discord with raw JSON":             "discord://hush@4711/raw",
		"Discord with a path in the token":  "discord://hush%2F..%2F..%2Fusers@4711",
		"Discord with a path in the id":     "discord://hush@4711%2f..",
		"Discord with an unused parameter":  "discord://hush@4711?color=0x00",
		"Discord with JSON by a parameter":  "discord://hush@4711?json=yes",
		"a parameter that comes twice":      "discord://hush@4711?username=a&username=b",
		"parameters that are broken":        "discord://hush@4711?a=%zz",
		"Google Chat on another host":       "googlechat://hush.example.com/v1/spaces/S/messages?key=k&token=t",
		"Google Chat with a port":           "googlechat://chat.googleapis.com:99/v1/spaces/hush/messages?key=k&token=t",
		"Google Chat on another path":       "googlechat://chat.googleapis.com/hush?key=k&token=t",
		"Google Chat without a key":         "googlechat://chat.googleapis.com/v1/spaces/hush/messages?token=t",
		"ntfy without a topic":              "ntfy://hush.example.com/",
		"ntfy by another scheme":            "ntfy://hush.example.com/pumps?scheme=file",
		"ntfy without certificates":         "ntfy://hush.example.com/pumps?disabletlsverification=yes",
		"Pushover without a token":          "pushover://shoutrrr:@hush",
		"Pushover that asks until somebody": "pushover://shoutrrr:tok@hush?priority=2",
		"Slack with a bot's token":          "slack://xoxb:123456789-123456789-hushhushhushhushhushhush@C01",
		"Slack with a bad token":            "slack://hook:hush@webhook",
		"Telegram with a bad token":         "telegram://hush@telegram?chats=1",
		"Telegram without a chat":           "telegram://12:hush@telegram",
		"Telegram with several chats":       "telegram://12:hush@telegram?chats=1,2",
		"Telegram with a thread of words":   "telegram://12:hush@telegram?chats=1:x",
		"the library's dummy":               "slack://hush@dummy.com",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.Check(u)
			if muster.KindOf(err) != muster.Invalid || strings.Contains(fmt.Sprintf("%+v", err), "hush") {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}
