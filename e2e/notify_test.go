package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"muster/notify/email/mailtest"
	"muster/store/control/controltest"
)

// caretaker is a person who gets notifications: a browser without a screen, and a mailbox.
type caretaker struct {
	*visitor
	id, email string
}

// inbox returns what is in his inbox, the newest first: title, state and who acked.
func (r *caretaker) inbox() (out []string) {
	r.Helper()
	items, _ := r.ask(http.MethodGet, "/api/v1/me/inbox", nil, http.StatusOK)["items"].([]any)
	for _, it := range items {
		n := it.(map[string]any)["notification"].(map[string]any)
		by, _ := n["acked_by"].(string)
		out = append(out, strings.TrimSpace(n["title"].(string)+" "+n["state"].(string)+" "+by))
	}
	return out
}

// mails returns those that a person got about notifications, the oldest first. One that was
// under way when the server was killed comes again, under the same Message-ID, by which mail
// programs know it.
func (r *caretaker) mails(post *mailtest.Server) (out []mailtest.Mail) {
	seen := map[string]bool{}
	for _, m := range post.Mails() {
		if id := m.Header.Get("Message-Id"); m.To[0] == r.email && strings.HasPrefix(m.Subject, "[") && !seen[id] {
			seen[id] = id != ""
			out = append(out, m)
		}
	}
	return out
}

// caretakers makes two operators whose addresses are known to reach them.
func caretakers(t *testing.T, m *muster, post *mailtest.Server) (ann, bea *caretaker) {
	t.Helper()
	ann, bea = &caretaker{visitor: newVisitor(t, m), email: "ann@example.com"}, &caretaker{visitor: newVisitor(t, m), email: "bea@example.com"}
	for _, p := range []*caretaker{ann, bea} {
		var invited struct {
			Invitation string `json:"invitation"`
			User       struct {
				ID string `json:"id"`
			} `json:"user"`
		}
		m.ask(http.MethodPost, "/api/v1/users", map[string]string{"email": p.email, "role": "operator"}, http.StatusCreated, &invited)
		p.id = invited.User.ID
		token := linkTo(t, invited.Invitation, "/invite/")
		m.await("the invitation's mail", workLimit, func() bool {
			for _, mail := range post.Mails() {
				if mail.To[0] == p.email {
					return true
				}
			}
			return false
		})
		name := strings.ToUpper(p.email[:1]) + p.email[1:3]
		p.ask(http.MethodPost, "/api/v1/invitations/accept", map[string]string{"token": token, "name": name, "password": firstPassword}, http.StatusOK)
		p.is(name, "operator")
	}
	return ann, bea
}

// plain sends a request as a mail program's browser does: without any cookie.
func plain(t *testing.T, method, link string, form url.Values) (status int, page string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, link, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(bytes.TrimSpace(text))
}

func ackLink(t *testing.T, mail mailtest.Mail) string {
	t.Helper()
	link := regexp.MustCompile(`http://127\.0\.0\.1:\d+/n/[A-Za-z0-9_.-]+`).FindString(mail.Text)
	if link == "" {
		t.Fatalf("there is no link in %s", mail.Text)
	}
	return link
}

// TestADeviceThatGoesAwayIsToldOfUntilSomebodyTakesCareOfIt is what notifications are for: a
// device goes absent, a mail goes out, nobody acks, the next one is told and acks by the link
// in the mail, the escalation stops, everybody sees who acked, the device comes back, and who
// was told is told so. The broker, the store and the dispatcher are the binary's own, which is
// killed on the way.
func TestADeviceThatGoesAwayIsToldOfUntilSomebodyTakesCareOfIt(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			post := mailtest.Start(t, mailtest.Config{})
			m := newMuster(t)
			m.args = []string{"--public-url", "http://" + m.http, "--smtp", post.URL("muster@example.org"), "--presence-grace", "1s"}
			if engine == "postgres" {
				m.args = append(m.args, "--database", controltest.Database(t, timescale(t)))
			}
			m.start()
			m.ready()
			ann, bea := caretakers(t, m, post)
			ann.ask(http.MethodPost, "/api/v1/topics", map[string]any{
				"name": "cold-chain", "title": "Cold chain",
				"sources":    []any{map[string]any{"types": []string{"presence.offline"}, "clears": []string{"presence.online"}, "severity": "major"}},
				"escalation": map[string]any{"steps": []any{map[string]any{"after_s": 3, "to": []string{bea.id}, "channels": []string{"email"}}}, "repeat": 3},
			}, http.StatusCreated)
			ann.ask(http.MethodPut, "/api/v1/topics/cold-chain/subscriptions/me", map[string]any{"channels": []any{map[string]any{"channel": "email"}}}, http.StatusOK)

			const pump = "pump-1"
			cred := m.device(pump, "token")
			c := paho3Client(t, m, "tcp://"+m.mqtt, "", cred.Token, "")
			m.awaitConnected(pump)
			c.Disconnect(0)
			m.await("the mail to ann", workLimit, func() bool { return len(ann.mails(post)) == 1 })
			first := ann.mails(post)[0]
			if want := "[Cold chain] " + pump + " is offline"; !strings.HasPrefix(first.Subject, want) {
				t.Errorf("the mail's subject is %q, want %q", first.Subject, want)
			}
			m.kill() // before the step of the escalation is due
			m.start()
			m.ready()
			m.await("the mail to bea, whom the escalation names", workLimit, func() bool { return len(bea.mails(post)) >= 1 })
			link := ackLink(t, bea.mails(post)[0])
			if status, page := plain(t, http.MethodGet, link, nil); status != http.StatusOK || !strings.Contains(page, pump) {
				t.Fatalf("the link shows %d %s", status, page)
			}
			if got := ann.inbox(); len(got) != 1 || !strings.HasSuffix(got[0], " open") {
				t.Fatalf("who looks at the link has acked: %v", got)
			}
			if status, page := plain(t, http.MethodPost, link, url.Values{"note": {"on my way"}}); status != http.StatusOK || !strings.Contains(page, "Bea") {
				t.Fatalf("the ack gives %d %s", status, page)
			}
			for _, p := range []*caretaker{ann, bea} {
				if got := p.inbox(); len(got) != 1 || !strings.HasSuffix(got[0], " acked Bea") {
					t.Errorf("%s sees %v", p.email, got)
				}
			}
			told := len(bea.mails(post))
			<-time.After(7 * time.Second) // two more steps would have been due
			if n := len(bea.mails(post)); n != told || len(ann.mails(post)) != 1 {
				t.Errorf("after the ack bea got %d more mails, ann %d", n-told, len(ann.mails(post))-1)
			}

			c = paho3Client(t, m, "tcp://"+m.mqtt, "", cred.Token, "")
			defer c.Disconnect(0)
			over := func(p *caretaker) bool {
				mails := p.mails(post)
				return len(mails) > 0 && strings.HasPrefix(mails[len(mails)-1].Subject, "[Cold chain] Resolved: "+pump)
			}
			m.await("everybody is told that it is over", workLimit, func() bool { return over(ann) && over(bea) })
			if status, page := plain(t, http.MethodPost, link, url.Values{"note": {"late"}}); status != http.StatusOK || !strings.Contains(page, "over") {
				t.Errorf("a late ack gives %d %s", status, page)
			}
			if got := ann.inbox(); len(got) != 1 || !strings.HasSuffix(got[0], " resolved Bea") {
				t.Errorf("in the end ann sees %v", got)
			}
			m.stop()
		})
	}
}
