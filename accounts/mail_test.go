package accounts_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"muster"
	"muster/accounts"
)

// mailRoom is accounts on a bubble's own clock with a loop of mails that stops with
// stop.
func mailRoom(t *testing.T, o *outbox) (a *accounts.Accounts, stop func()) {
	t.Helper()
	a = accounts.New(newMemory(), time.Now, discard(), accounts.Config{URL: func() string { return "https://muster.example" }})
	a.Cheap()
	a.SetMailer(o)
	must(t, a.Load(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.RunMail(ctx) }()
	return a, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run mail: %v", err)
		}
	}
}

func invite(t *testing.T, a *accounts.Accounts, email string) {
	t.Helper()
	_, _, err := a.Invite(t.Context(), byAdmin(), email, accounts.Viewer)
	must(t, err)
}

func TestAMailThatFailsIsTriedAgainWithGrowingPausesAndTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox()
		var at []time.Duration
		keys := map[string]bool{}
		begun := time.Now()
		o.fail = func(m accounts.Mail) error {
			if m.To != "slow@example.com" {
				return nil
			}
			at = append(at, time.Since(begun).Round(time.Second))
			keys[m.Key] = true
			if len(at) < 5 {
				return errors.New("451 try later")
			}
			return nil
		}
		a, stop := mailRoom(t, o)
		invite(t, a, "slow@example.com")
		invite(t, a, "other@example.com")
		<-time.After(time.Second)
		if got := o.all(); len(got) != 1 || got[0].To != "other@example.com" {
			t.Errorf("the others wait: %d were sent", len(got))
		}
		<-time.After(time.Hour)
		stop()
		want := []time.Duration{0, 5 * time.Second, 15 * time.Second, 35 * time.Second, 75 * time.Second}
		if fmt.Sprint(at) != fmt.Sprint(want) || len(keys) != 1 {
			t.Errorf("tried at %v with %d keys, want %v", at, len(keys), want)
		}
		if s := a.Stats(); s.MailSent != 2 || s.MailFailed != 0 || s.MailQueued != 0 {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestAMailIsGivenUpAfterAnHourOrWhenItIsRefusedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox()
		tries := map[string]int{}
		o.fail = func(m accounts.Mail) error {
			tries[m.To]++
			if m.To == "gone@example.com" {
				return fmt.Errorf("send: %w", muster.Errorf(muster.Invalid, "550 no such user"))
			}
			return errors.New("no route")
		}
		a, stop := mailRoom(t, o)
		defer stop()
		invite(t, a, "gone@example.com")
		invite(t, a, "down@example.com")
		<-time.After(59 * time.Minute)
		tried := func() map[string]int {
			o.mu.Lock()
			defer o.mu.Unlock()
			return maps.Clone(tries)
		}
		if s := a.Stats(); s.MailFailed != 1 || s.MailQueued != 1 || tried()["gone@example.com"] != 1 {
			t.Errorf("counted %+v, tried %v", s, tried())
		}
		<-time.After(12 * time.Minute)
		if s, n := a.Stats(), tried()["down@example.com"]; s.MailFailed != 2 || s.MailQueued != 0 || n < 8 || n > 16 {
			t.Errorf("counted %+v, tried %d times", s, n)
		}
	})
}

func TestOneMoreMailThanMayWaitIsDroppedAndCounted(t *testing.T) {
	p := newPeople(t)
	for i := range accounts.MaxMails + 5 {
		_, _, err := p.Invite(t.Context(), byAdmin(), fmt.Sprintf("u%d@example.com", i), accounts.Viewer)
		must(t, err) // the link is there all the same
	}
	if s := p.Stats(); s.MailQueued != accounts.MaxMails || s.MailDropped != 5 {
		t.Errorf("counted %+v", s)
	}
	p.mailing(t)
	for i := range accounts.MaxMails {
		if m := p.mails.next(t); m.To != fmt.Sprintf("u%d@example.com", i) {
			t.Fatalf("mail %d goes to %s", i, m.To)
		}
	}
}

func TestAPanicOfTheMailerCostsOneMail(t *testing.T) {
	o := newOutbox()
	o.fail = func(m accounts.Mail) error {
		if m.To == "bad@example.com" {
			panic("a fault in the mailer")
		}
		return nil
	}
	p := newPeople(t)
	p.SetMailer(panicky{o})
	for _, email := range []string{"bad@example.com", "good@example.com"} {
		_, _, err := p.Invite(t.Context(), byAdmin(), email, accounts.Viewer)
		must(t, err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic does not reach who restarts the loop")
			}
		}()
		_ = p.RunMail(t.Context())
	}()
	flush(t, p.Accounts)
	if s := p.Stats(); s.MailFailed != 1 || s.MailQueued != 0 || s.MailSent != 1 {
		t.Errorf("counted %+v", s)
	}
}

// flush runs the loop of mails until none waits.
func flush(t interface {
	Helper()
	Errorf(format string, args ...any)
}, a *accounts.Accounts,
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.RunMail(ctx) }()
	for a.Stats().MailQueued > 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run mail: %v", err)
	}
}

// panicky is a Mailer that may panic: it holds no lock meanwhile.
type panicky struct{ *outbox }

func (p panicky) Send(_ context.Context, m accounts.Mail) error { return p.fail(m) }

func TestAStopLeavesTheMailsThatWait(t *testing.T) {
	p := newPeople(t)
	_, _, err := p.Invite(t.Context(), byAdmin(), "u@example.com", accounts.Viewer)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, p.RunMail(ctx))
	if s := p.Stats(); s.MailSent != 0 || s.MailFailed != 0 || s.MailQueued != 1 {
		t.Errorf("counted %+v", s)
	}
}

func TestTheStoreBeingAwayDelaysAResetLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, o := newMemory(), newOutbox()
		a := accounts.New(m, time.Now, discard(), accounts.Config{URL: func() string { return "https://muster.example" }})
		a.Cheap()
		a.SetMailer(o)
		must(t, a.Load(t.Context()))
		_, err := a.CreateUser(t.Context(), accounts.NewUser{Email: "u@example.com", Role: accounts.Viewer, Password: goodPassword})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.RunMail(ctx) }()
		m.mu.Lock()
		m.down = true
		m.mu.Unlock()
		must(t, a.ForgotPassword(t.Context(), "u@example.com", accounts.Client{}))
		<-time.After(10 * time.Second)
		m.mu.Lock()
		m.down = false
		m.mu.Unlock()
		<-time.After(time.Minute)
		got := o.all()
		if len(got) != 1 {
			t.Fatalf("%d mails were sent", len(got))
		}
		must(t, a.ResetPassword(t.Context(), linkIn(t, got[0].Text, accounts.PathReset), "another good password", accounts.Client{}))
		cancel()
		must(t, <-done)
	})
}
