package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	pendingGoal = 1_000_000
	senders     = 50 // keys that fill the queue; each may send 30 at once
	urgents     = 50
	mailTakes   = 250 * time.Millisecond
)

// slowPost is a mail server that takes its time for each mail.
type slowPost struct {
	addr string

	mu   sync.Mutex
	came map[string]time.Time // by subject: urgent ones only
}

func startSlowPost(b *testing.B) *slowPost {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	p := &slowPost{addr: l.Addr().String(), came: map[string]time.Time{}}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &slowMail{p}, nil }))
	server.Domain, server.MaxMessageBytes, server.ErrorLog = "mail.test", 1<<20, silent{}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close(); <-ended })
	return p
}

func (p *slowPost) url() string { return "smtp://" + p.addr + "?from=muster@example.org&starttls=off" }

func (p *slowPost) at(title string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.came[title]
	return at, ok
}

type silent struct{}

func (silent) Printf(string, ...any) {}
func (silent) Println(...any)        {}

// slowMail is one conversation.
type slowMail struct{ post *slowPost }

func (*slowMail) Mail(string, *smtp.MailOptions) error { return nil }
func (*slowMail) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (*slowMail) Reset()                               {}
func (*slowMail) Logout() error                        { return nil }

// Data notes when an urgent mail came, and takes its time for what is measured.
func (m *slowMail) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if _, after, ok := strings.Cut(string(raw), "Urgent-"); ok && len(after) >= 4 {
		m.post.mu.Lock()
		if title := "Urgent-" + after[:4]; m.post.came[title].IsZero() {
			m.post.came[title] = time.Now()
		}
		m.post.mu.Unlock()
	}
	if !strings.Contains(string(raw), "Bulletin") && !strings.Contains(string(raw), "Urgent-") {
		return nil // invitations are urgent too: ten thousand of them would go out first
	}
	pause := time.NewTimer(mailTakes)
	<-pause.C
	return nil
}

// urgent has a million mails wait, and measures how long urgent ones take.
func (s *server) urgent(people []person, post *slowPost) {
	s.b.Helper()
	s.topic(map[string]any{"name": "bulletin"}, people, "email")
	s.topic(map[string]any{"name": "alarm"}, people[:1], "email")
	began := time.Now()
	s.fill(people)
	filled := time.Since(began)
	pending := s.pendingMails(pendingGoal / 10 * 9)
	var took []time.Duration
	for i := range urgents {
		title := fmt.Sprintf("Urgent-%04d", i)
		as, err := s.sender(senders + i)
		if err != nil {
			s.b.Fatal(err)
		}
		at := time.Now()
		if err := as.must(http.MethodPost, "/api/v1/notifications", map[string]any{"topic": "alarm", "title": title, "severity": "critical"}, nil, http.StatusAccepted); err != nil {
			s.b.Fatal(err)
		}
		s.await("the urgent mail", time.Minute, func() bool { _, ok := post.at(title); return ok })
		came, _ := post.at(title)
		took = append(took, came.Sub(at))
	}
	slices.Sort(took)
	fmt.Printf("  %-46s %8.1f ms  worst of %d, p50 %.1f, with %d deliveries pending, made within %.0f s; goal < 1000\n",
		"from sending an urgent one to the mail server", ms(took[len(took)-1]), urgents, ms(took[len(took)/2]), pending, filled.Seconds())
}

// pendingMails waits until at least so many mails are known to be pending.
func (s *server) pendingMails(atLeast int64) (n int64) {
	s.b.Helper()
	s.await("the queue's figures", time.Minute, func() bool {
		n = s.metrics(`muster_deliveries{channel="email",`, `state="queued"`)
		return n >= atLeast
	})
	return n
}

// fill sends until a million deliveries are pending, by so many keys that none is over what
// a sender may send.
func (s *server) fill(people []person) {
	s.b.Helper()
	each := pendingGoal / len(people) / senders
	var wg sync.WaitGroup
	errs := make([]error, senders)
	turns := make(chan struct{}, 2)
	for i := range senders {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[i] = s.sendAs(i, each)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.b.Fatal(err)
	}
}

// sender is the server with a key of its own, that has sent nothing yet.
func (s *server) sender(i int) (server, error) {
	var made struct{ Secret string }
	err := s.must(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": fmt.Sprintf("sender %d", i), "scopes": []string{"admin"}}, &made, http.StatusCreated)
	as := *s
	as.key = made.Secret
	return as, err
}

// sendAs sends with a key of its own.
func (s *server) sendAs(i, n int) error {
	as, err := s.sender(i)
	if err != nil {
		return err
	}
	for k := range n {
		body := map[string]any{"topic": "bulletin", "title": fmt.Sprintf("Bulletin %d of %d", k, i), "severity": "warning"}
		if err := as.must(http.MethodPost, "/api/v1/notifications", body, nil, http.StatusAccepted); err != nil {
			return err
		}
	}
	return nil
}
