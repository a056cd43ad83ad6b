package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/accounts"
	"muster/ingest"
	"muster/notify/email/mailtest"
	"muster/notify/webhook"
)

const outwardKey = "mst_outward-admin-key-00001"

func outwardConfig(t *testing.T) Config {
	t.Helper()
	return Config{
		DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable,
		LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, AdminKey: outwardKey, Version: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

func outward(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := outwardConfig(t)
	change(&cfg)
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAnInvitationArrivesByMail(t *testing.T) {
	post := mailtest.Start(t, mailtest.Config{StartTLS: false, User: "muster", Password: "hush-hush"})
	s := outward(t, func(c *Config) { c.SMTP = post.URL("muster@example.org"); c.PublicURL = "https://m.example" })
	if _, err := s.accounts.CreateUser(t.Context(), accounts.NewUser{Email: "ada@example.com", Name: "Ada", Role: accounts.Viewer}); err != nil {
		t.Fatal(err)
	}
	got := post.Wait(t, 1)[0]
	if got.From != "muster@example.org" || got.To[0] != "ada@example.com" || !strings.Contains(got.Text, "https://m.example/invite/") {
		t.Errorf("from %s to %v: %s", got.From, got.To, got.Text)
	}
}

func TestAWebhookIsTriedOverTheNetwork(t *testing.T) {
	type request struct {
		header http.Header
		body   []byte
	}
	got := make(chan request, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{r.Header, b}
	}))
	t.Cleanup(receiver.Close)
	for name, allow := range map[string][]string{"allowed": {"127.0.0.0/8"}, "refused": nil} {
		t.Run(name, func(t *testing.T) {
			s := outward(t, func(c *Config) { c.WebhookAllow = allow })
			call := func(path string, body any, out any) {
				t.Helper()
				text, err := json.Marshal(body)
				if err != nil {
					t.Fatal(err)
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/api/v1"+path, bytes.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+outwardKey)
				req.Header.Set("Content-Type", "application/json")
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if err := json.NewDecoder(res.Body).Decode(out); err != nil || res.StatusCode > 299 {
					t.Fatalf("%s gives %d: %v", path, res.StatusCode, err)
				}
			}
			var made struct {
				Webhook struct{ ID string }
				Secret  string
			}
			call("/webhooks", map[string]any{"url": receiver.URL, "types": []string{"*"}}, &made)
			var attempt struct{ Verdict, Error string }
			call("/webhooks/"+made.Webhook.ID+"/test", map[string]any{}, &attempt)
			if allow == nil {
				if attempt.Verdict != "dead" || len(got) != 0 {
					t.Errorf("%+v", attempt)
				}
				return
			}
			r := <-got
			if err := webhook.Verify(made.Secret, r.header, r.body, time.Now()); err != nil || attempt.Verdict != "delivered" {
				t.Errorf("%+v: %v", attempt, err)
			}
		})
	}
}

func TestABadMailServerOrNetworkIsRefusedAtStart(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"an SMTP URL without from":  func(c *Config) { c.SMTP = "smtp://u:hush@mail.example" },
		"an SMTP URL that is none":  func(c *Config) { c.SMTP = "://hush" },
		"a network that is none":    func(c *Config) { c.WebhookAllow = []string{"10.0.0.1"} },
		"a network in IPv6 clothes": func(c *Config) { c.WebhookAllow = []string{"::ffff:10.0.0.0/104"} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{
				DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", LogMaxBytes: 256 << 20, MaxPacket: 256 << 10,
				Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			}
			change(&cfg)
			_, err := New(t.Context(), cfg)
			if err == nil || muster.KindOf(err) != muster.Invalid || strings.Contains(err.Error(), "hush") {
				t.Errorf("%v", err)
			}
		})
	}
}
