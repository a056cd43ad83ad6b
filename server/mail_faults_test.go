package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/notify"
	"muster/notify/email/mailtest"
	"muster/notify/outbox"
	"muster/server"
	"muster/server/servertest"
)

// mailed starts a server with post, whose mails are tried every few milliseconds, sends Anna
// one notification and returns its delivery when wanted says so.
func mailed(t *testing.T, post *mailtest.Server, fault func(), smtp string, wanted func(d map[string]any) bool) (anna *person, d map[string]any) {
	t.Helper()
	s := servertest.Start(t, func(c *server.Config) {
		c.SMTP = smtp
		schedule := []time.Duration{0}
		for range 400 {
			schedule = append(schedule, 50*time.Millisecond)
		}
		c.Notify.Channels = map[string]outbox.Settings{notify.ChannelEmail: {Schedule: schedule, Timeout: 700 * time.Millisecond, Failures: 1000}}
	})
	sender := &person{t: t, s: s}
	anna = invited(t, s, "anna@example.com")
	anna.must(http.MethodPost, "/topics", map[string]any{"name": "pumps"})
	anna.must(http.MethodPut, "/topics/pumps/subscriptions/me", map[string]any{"channels": []any{map[string]any{"channel": "email"}}})
	fault()
	made := sender.must(http.MethodPost, "/notifications", map[string]any{"topic": "pumps", "title": "Pump 3"})
	id := made["notification"].(map[string]any)["id"].(string)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		list := sender.must(http.MethodGet, "/notifications/"+id+"/deliveries", nil)["items"].([]any)
		if len(list) != 1 {
			t.Fatalf("deliveries: %v", list)
		}
		d = sender.must(http.MethodGet, "/deliveries/"+list[0].(map[string]any)["id"].(string), nil)
		if wanted(d) {
			return anna, d
		}
	}
	t.Fatalf("it came to %v; %d mails", d, len(post.Mails()))
	return nil, nil
}

// invited makes an admin whose address is known to reach him.
func invited(t *testing.T, s *server.Server, address string) *person {
	t.Helper()
	p := &person{t: t, s: s}
	made := p.must(http.MethodPost, "/users", map[string]any{"email": address, "role": "admin"})
	p.id = made["user"].(map[string]any)["id"].(string)
	_, token, _ := strings.Cut(made["invitation"].(string), "/invite/")
	p.must(http.MethodPost, "/invitations/accept", map[string]string{"token": token, "name": "Anna", "password": "correct horse battery"})
	return p
}

// notes are the mails that a server took about notifications.
func notes(post *mailtest.Server) (out []mailtest.Mail) {
	for _, m := range post.Mails() {
		if strings.HasPrefix(m.Subject, "[") {
			out = append(out, m)
		}
	}
	return out
}

func hasEnded(d map[string]any) bool { return d["ended_at"] != nil }

// untilTried lets a fault be until the delivery was tried n times, and mends it then.
func untilTried(n int, mend func()) func(map[string]any) bool {
	return func(d map[string]any) bool {
		if len(tries(d)) >= n {
			mend()
		}
		return hasEnded(d)
	}
}

func TestAMailServersFaultsAreOvercomeWithOneMessageID(t *testing.T) {
	for name, tt := range map[string]struct {
		step  mailtest.Step
		fault mailtest.Fault
		twice bool // the server keeps what it does not say yes to
	}{
		"451 and then a yes":                            {mailtest.To, mailtest.Fault{Code: 451, Enhanced: [3]int{4, 7, 1}, Text: "grey listed"}, false},
		"silence after DATA, which is lost":             {mailtest.Content, mailtest.Fault{Silence: true}, false},
		"silence after DATA, which is kept":             {mailtest.Kept, mailtest.Fault{Silence: true}, true},
		"a connection that drops on the way":            {mailtest.From, mailtest.Fault{HangUp: true}, false},
		"a connection that drops before the kept's yes": {mailtest.Kept, mailtest.Fault{HangUp: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			post := mailtest.Start(t, mailtest.Config{})
			_, d := mailed(t, post, func() { post.Fail(tt.step, tt.fault) }, post.URL("muster@example.org"), untilTried(2, func() { post.Fail(tt.step, mailtest.Fault{}) }))
			list := tries(d)
			if d["state"] != "sent" || len(list) < 3 {
				t.Fatalf("%v", d)
			}
			for _, a := range list[:len(list)-1] {
				if text, _ := a["error"].(string); a["verdict"] != "again" || text == "" {
					t.Errorf("%v", a)
				}
			}
			mails := notes(post)
			if len(mails) == 0 || tt.twice && len(mails) < 3 || !tt.twice && len(mails) != 1 {
				t.Errorf("%d mails came", len(mails))
			}
			for _, m := range mails {
				if id := m.Header.Get("Message-Id"); id == "" || id != d["reference"] || !strings.Contains(m.Subject, "Pump 3") {
					t.Errorf("%s has the Message-ID %s, the delivery says %v", m.Subject, id, d["reference"])
				}
			}
		})
	}
}

func TestAMailThatIsRefusedForGoodIsDeadAtOnceAndItsRecipientIsToldInTheInbox(t *testing.T) {
	post := mailtest.Start(t, mailtest.Config{})
	refuse := func() {
		post.Fail(mailtest.To, mailtest.Fault{Code: 550, Enhanced: [3]int{5, 1, 1}, Text: "no such user"})
	}
	anna, d := mailed(t, post, refuse, post.URL("muster@example.org"), hasEnded)
	if list := tries(d); d["state"] != "dead" || len(list) != 1 || list[0]["status"] != 550.0 || d["error"] == nil {
		t.Errorf("%v", d)
	}
	anna.told("A mail was given up")
	post.Fail(mailtest.To, mailtest.Fault{})
	anna.must(http.MethodPost, "/deliveries:requeue", map[string]any{"ids": []any{d["id"]}})
	for end := time.Now().Add(20 * time.Second); len(notes(post)) == 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what is queued again is not sent")
		}
	}
	if id := notes(post)[0].Header.Get("Message-Id"); id != d["reference"] {
		t.Errorf("queued again it comes as %s, was %v", id, d["reference"])
	}
}

func TestAMailServerWithoutTheSTARTTLSThatIsRequiredGetsNothing(t *testing.T) {
	post := mailtest.Start(t, mailtest.Config{})
	_, d := mailed(t, post, func() {}, post.URL("muster@example.org", "starttls", "required"), func(d map[string]any) bool { return len(tries(d)) >= 2 })
	if text, _ := d["error"].(string); hasEnded(d) || !strings.Contains(text, "STARTTLS") || len(post.Mails()) != 0 {
		t.Errorf("%v; %d mails", d, len(post.Mails()))
	}
}
