package accounts_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"muster"
	"muster/accounts"
)

const goodPassword = "correct horse battery"

// cipher is a Sealer whose sealed text shows nothing of the plain one and opens for its
// bind only.
type cipher struct{ key byte }

func (c cipher) mask(bind string, i int) byte {
	h := sha256.Sum256([]byte(bind))
	return h[i%len(h)] ^ c.key
}

func (c cipher) Seal(plain []byte, bind string) ([]byte, error) {
	sum := sha256.Sum256(append([]byte(bind), plain...))
	out := bytes.Clone(sum[:4])
	for i, b := range plain {
		out = append(out, b^c.mask(bind, i))
	}
	return out, nil
}

func (c cipher) Open(sealed []byte, bind string) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, errors.New("too short")
	}
	var out []byte
	for i, b := range sealed[4:] {
		out = append(out, b^c.mask(bind, i))
	}
	if sum := sha256.Sum256(append([]byte(bind), out...)); !bytes.Equal(sum[:4], sealed[:4]) {
		return nil, muster.Errorf(muster.Invalid, "not sealed here")
	}
	return out, nil
}

// clock is what time it is, moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// outbox is a Mailer that keeps what it is given, or fails.
type outbox struct {
	mu    sync.Mutex
	mails []accounts.Mail
	fail  func(m accounts.Mail) error
	came  chan struct{}
}

func newOutbox() *outbox { return &outbox{came: make(chan struct{}, 10_000)} }

func (o *outbox) Send(_ context.Context, m accounts.Mail) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		if err := o.fail(m); err != nil {
			return err
		}
	}
	o.mails = append(o.mails, m)
	o.came <- struct{}{}
	return nil
}

func (o *outbox) all() []accounts.Mail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]accounts.Mail(nil), o.mails...)
}

// next waits for a mail that was not waited for before.
func (o *outbox) next(t testing.TB) accounts.Mail {
	t.Helper()
	select {
	case <-o.came:
	case <-time.After(10 * time.Second):
		t.Fatal("no mail comes")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.mails[0]
	o.mails = o.mails[1:]
	return m
}

// linkIn returns the token of the link to path in a mail or text.
func linkIn(t testing.TB, text, path string) string {
	t.Helper()
	m := regexp.MustCompile(regexp.QuoteMeta("https://muster.example"+path) + `([A-Z2-7]{26})`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("there is no link to %s", path)
	}
	return m[1]
}

// people are accounts with users, a clock of their own, and a record of what ended.
type people struct {
	*accounts.Accounts
	store *memory
	clock *clock
	mails *outbox
	cfg   accounts.Config

	mu    sync.Mutex
	ended []string
	cut   []string // keys whose MQTT rights were looked at again
}

func newPeople(t testing.TB, change ...func(*accounts.Config)) *people {
	t.Helper()
	p := &people{store: newMemory(), clock: newClock(), mails: newOutbox(), cfg: accounts.Config{
		URL: func() string { return "https://muster.example" }, Sealer: cipher{7},
		CheckSelector: func(s string) error {
			if strings.Contains(s, "(") {
				return muster.Errorf(muster.Invalid, "there is no ) for this")
			}
			return nil
		},
	}}
	for _, c := range change {
		c(&p.cfg)
	}
	p.restart(t)
	return p
}

// restart opens the accounts anew on what the store has.
func (p *people) restart(t testing.TB) {
	t.Helper()
	p.Accounts = accounts.New(p.store, p.clock.now, slog.New(slog.DiscardHandler), p.cfg)
	p.Cheap()
	p.SetMailer(p.mails)
	p.OnEnded(func(id string) { p.mu.Lock(); p.ended = append(p.ended, id); p.mu.Unlock() })
	p.OnRights(func(affects func(string) bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.store.mu.Lock()
		defer p.store.mu.Unlock()
		for id := range p.store.keys {
			if affects(id) {
				p.cut = append(p.cut, id)
			}
		}
	})
	must(t, p.Load(t.Context()))
}

func (p *people) takeEnded() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]bool{}
	for _, id := range p.ended {
		out[id] = true
	}
	p.ended = nil
	return out
}

// mailing runs the loop of mails until the test ends.
func (p *people) mailing(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- p.RunMail(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run mail: %v", err)
		}
	})
}

func (p *people) user(t testing.TB, email, role string) accounts.User {
	t.Helper()
	u, err := p.CreateUser(t.Context(), accounts.NewUser{Email: email, Name: "", Role: role, Password: goodPassword})
	must(t, err)
	return u
}

func (p *people) signIn(t testing.TB, email string) (cookie string, s accounts.Session) {
	t.Helper()
	cookie, s, err := p.SignInPassword(t.Context(), accounts.PasswordLogin{Email: email, Password: goodPassword})
	must(t, err)
	return cookie, s
}

func (p *people) try(t testing.TB, in accounts.PasswordLogin) error {
	t.Helper()
	_, _, err := p.SignInPassword(t.Context(), in)
	return err
}

func (p *people) principal(t testing.TB, cookie string) accounts.Principal {
	t.Helper()
	who, err := p.AuthenticateSession(cookie)
	must(t, err)
	return who
}

func (p *people) code(t testing.TB, secret string, steps int) string {
	t.Helper()
	c, err := totp.GenerateCodeCustom(secret, p.clock.now().Add(time.Duration(steps)*30*time.Second), totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix})
	must(t, err)
	return c
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
