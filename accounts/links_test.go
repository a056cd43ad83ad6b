package accounts_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
)

func byAdmin() accounts.Principal {
	return accounts.Principal{Name: "Root", Scopes: []string{accounts.Admin}}
}

func TestWhoIsInvitedComesInByTheLinkOnce(t *testing.T) {
	p := newPeople(t)
	p.mailing(t)
	u, link, err := p.Invite(t.Context(), byAdmin(), "New@example.com", accounts.Operator)
	must(t, err)
	token := linkIn(t, link, accounts.PathInvite)
	if m := p.mails.next(t); m.To != "new@example.com" || linkIn(t, m.Text, accounts.PathInvite) != token || linkIn(t, m.HTML, accounts.PathInvite) != token {
		t.Errorf("the mail to %s has another link", m.To)
	}
	if u.HasPassword || u.Confirmed || u.Role != accounts.Operator {
		t.Errorf("the user is %+v", u)
	}
	if strings.Contains(fmt.Sprintf("%+v", p.store.tokens), token) {
		t.Error("the token is stored")
	}
	p.restart(t)
	_, _, err = p.AcceptInvite(t.Context(), "no link of ours", "New", "short", accounts.Client{}) // a stranger is told nothing of rules
	wantKind(t, err, muster.NotFound)
	_, _, err = p.AcceptInvite(t.Context(), token, "New", "short", accounts.Client{})
	wantKind(t, err, muster.Invalid)
	_, _, err = p.AcceptInvite(t.Context(), token, "a\nb", goodPassword, accounts.Client{})
	wantKind(t, err, muster.Invalid)
	cookie, s, err := p.AcceptInvite(t.Context(), token, "New", goodPassword, accounts.Client{Address: "192.0.2.1"})
	must(t, err)
	who := p.principal(t, cookie)
	if who.ID != s.ID || who.User != u.ID || who.Role != accounts.Operator || !who.Confirmed || who.Name != "New" {
		t.Errorf("the session is %+v", who)
	}
	_, _, err = p.AcceptInvite(t.Context(), token, "Thief", goodPassword, accounts.Client{})
	wantKind(t, err, muster.NotFound)
	p.signIn(t, "new@example.com")
	_, _, err = p.Invite(t.Context(), byAdmin(), "new@example.com", accounts.Viewer)
	wantKind(t, err, muster.Conflict)
}

func TestOfSeveralWhoComeInByOneInvitationOneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeople(t)
		_, link, err := p.Invite(t.Context(), byAdmin(), "new@example.com", accounts.Operator)
		must(t, err)
		token := linkIn(t, link, accounts.PathInvite)
		const several = 4
		release, errs := make(chan struct{}), make(chan error, several)
		p.store.hold = func() { <-release }
		for i := range several {
			go func() {
				_, _, err := p.AcceptInvite(t.Context(), token, fmt.Sprint("New ", i), goodPassword, accounts.Client{Address: fmt.Sprintf("192.0.2.%d", i+1)})
				errs <- err
			}()
		}
		synctest.Wait() // one writes, the others have seen that the link is good
		close(release)
		in := 0
		for range several {
			switch err := <-errs; {
			case err == nil:
				in++
			case muster.KindOf(err) != muster.NotFound:
				t.Error(err)
			}
		}
		if in != 1 {
			t.Errorf("%d came in by it", in)
		}
	})
}

func TestANewInvitationVoidsTheOlderAndEachLastsSevenDays(t *testing.T) {
	p := newPeople(t)
	u, first, err := p.Invite(t.Context(), byAdmin(), "new@example.com", accounts.Viewer)
	must(t, err)
	again, second, err := p.Invite(t.Context(), byAdmin(), "new@example.com", accounts.Operator)
	must(t, err)
	if again.ID != u.ID || again.Role != accounts.Operator || len(p.Users()) != 1 {
		t.Errorf("the second invitation is for %+v", again)
	}
	_, _, err = p.AcceptInvite(t.Context(), linkIn(t, first, accounts.PathInvite), "", goodPassword, accounts.Client{})
	wantKind(t, err, muster.NotFound)
	p.clock.add(7*24*time.Hour - time.Second)
	p.restart(t)
	p.clock.add(time.Second)
	_, _, err = p.AcceptInvite(t.Context(), linkIn(t, second, accounts.PathInvite), "", goodPassword, accounts.Client{})
	wantKind(t, err, muster.NotFound)
	stop := running(t, p.Accounts)
	stop()
	if n := len(p.store.tokens); n != 0 {
		t.Errorf("%d expired tokens are still stored", n)
	}
	_, _, err = p.Invite(t.Context(), accounts.Principal{Scopes: []string{accounts.DevicesWrite}}, "x@example.com", accounts.Admin)
	wantKind(t, err, muster.Forbidden)
	_, _, err = p.Invite(t.Context(), byAdmin(), "x", accounts.Admin)
	wantKind(t, err, muster.Invalid)
	_, _, err = p.Invite(t.Context(), byAdmin(), "x@example.com", "root")
	wantKind(t, err, muster.Invalid)
}

func TestOfManyWhoUseALinkAtOnceOneWins(t *testing.T) {
	p := newPeople(t)
	_, link, err := p.Invite(t.Context(), byAdmin(), "new@example.com", accounts.Viewer)
	must(t, err)
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, _, err := p.AcceptInvite(t.Context(), linkIn(t, link, accounts.PathInvite), fmt.Sprint(i), goodPassword, accounts.Client{})
			switch {
			case err == nil:
				won.Add(1)
			case muster.KindOf(err) == muster.NotFound:
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 7 || len(p.store.sessions) != 1 {
		t.Errorf("%d won, %d lost, %d sessions", won.Load(), lost.Load(), len(p.store.sessions))
	}
}

func TestAForgottenPasswordIsResetByMailOnceWithinAnHour(t *testing.T) {
	p := newPeople(t)
	p.mailing(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	p.user(t, "v@example.com", accounts.Viewer)
	cookie, s := p.signIn(t, "u@example.com")
	other, _ := p.signIn(t, "v@example.com")
	must(t, p.ForgotPassword(t.Context(), "U@example.com", accounts.Client{Address: "192.0.2.1"}))
	m := p.mails.next(t)
	token := linkIn(t, m.Text, accounts.PathReset)
	wantKind(t, p.ResetPassword(t.Context(), token, "u@example.com", accounts.Client{}), muster.Invalid)
	const next = "another good password"
	must(t, p.ResetPassword(t.Context(), token, next, accounts.Client{}))
	if told := p.mails.next(t); told.To != "u@example.com" || strings.Contains(told.Text, "https://") {
		t.Errorf("the user is told %+v", told)
	}
	_, err := p.AuthenticateSession(cookie)
	wantKind(t, err, muster.Unauthorized)
	p.principal(t, other)
	if d := cmp.Diff(map[string]bool{s.ID: true}, p.takeEnded()); d != "" {
		t.Error(d)
	}
	wantKind(t, p.ResetPassword(t.Context(), token, next, accounts.Client{}), muster.NotFound)
	wantKind(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword}), muster.Unauthorized)
	must(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: next}))
	if now, err := p.User(u.ID); err != nil || !now.Confirmed {
		t.Errorf("the e-mail that the link came by is not confirmed: %v", err)
	}
	must(t, p.ForgotPassword(t.Context(), "u@example.com", accounts.Client{}))
	token = linkIn(t, p.mails.next(t).Text, accounts.PathReset)
	p.clock.add(time.Hour)
	wantKind(t, p.ResetPassword(t.Context(), token, next, accounts.Client{}), muster.NotFound)
}

func TestWhoForgotHisPasswordLearnsNothingAboutOthers(t *testing.T) {
	p := newPeople(t)
	off := p.user(t, "off@example.com", accounts.Viewer)
	_, err := p.UpdateUser(t.Context(), off.ID, accounts.UserChange{Disabled: new(true)})
	must(t, err)
	p.user(t, "here@example.com", accounts.Viewer)
	for _, email := range []string{"nobody@example.com", "off@example.com", "", "no e-mail", "here@example.com"} {
		before := len(p.store.tokens)
		for range 3 {
			must(t, p.ForgotPassword(t.Context(), email, accounts.Client{}))
		}
		must(t, p.ForgotPassword(t.Context(), email, accounts.Client{})) // and sends no fourth mail
		if len(p.store.tokens) != before {
			t.Errorf("%q makes the request wait for the store", email)
		}
	}
	must(t, p.ForgotPassword(t.Context(), strings.Repeat("x", 1<<20), accounts.Client{}))
	if n := p.Stats().MailQueued; n != 15 {
		t.Errorf("%d mails are queued, want 15: as many for nobody", n)
	}
	p.mailing(t)
	for range 3 {
		if m := p.mails.next(t); m.To != "here@example.com" {
			t.Errorf("a mail goes to %s", m.To)
		}
	}
	for i := range 39 { // 21 of 60 were made above
		must(t, p.ForgotPassword(t.Context(), fmt.Sprintf("u%d@example.com", i), accounts.Client{}))
	}
	wantWait(t, p.ForgotPassword(t.Context(), "one-more@example.com", accounts.Client{}))
}

func TestAnEMailIsConfirmedByItsLink(t *testing.T) {
	p := newPeople(t)
	p.mailing(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	must(t, p.RequestConfirm(t.Context(), u.ID))
	token := linkIn(t, p.mails.next(t).Text, accounts.PathConfirm)
	wantKind(t, p.ResetPassword(t.Context(), token, goodPassword, accounts.Client{}), muster.NotFound)
	must(t, p.ConfirmEmail(t.Context(), token))
	wantKind(t, p.ConfirmEmail(t.Context(), token), muster.NotFound)
	wantKind(t, p.ConfirmEmail(t.Context(), ""), muster.NotFound)
	wantKind(t, p.ConfirmEmail(t.Context(), strings.Repeat("x", 1<<20)), muster.NotFound)
	if now, err := p.User(u.ID); err != nil || !now.Confirmed {
		t.Errorf("it is not confirmed, %v", err)
	}
	wantKind(t, p.RequestConfirm(t.Context(), u.ID), muster.Conflict)
	wantKind(t, p.RequestConfirm(t.Context(), "usr_nobody"), muster.NotFound)

	v := p.user(t, "v@example.com", accounts.Viewer)
	must(t, p.RequestConfirm(t.Context(), v.ID))
	token = linkIn(t, p.mails.next(t).Text, accounts.PathConfirm)
	_, err := p.UpdateUser(t.Context(), v.ID, accounts.UserChange{Email: new("w@example.com")})
	must(t, err)
	wantKind(t, p.ConfirmEmail(t.Context(), token), muster.NotFound) // it was mailed elsewhere
}

func TestAnotherEMailIsTheUsersOnceItIsConfirmed(t *testing.T) {
	p := newPeople(t)
	p.mailing(t)
	p.user(t, "taken@example.com", accounts.Viewer)
	u := p.user(t, "old@example.com", accounts.Viewer)
	cookie, _ := p.signIn(t, "old@example.com")
	me := p.principal(t, cookie)
	wantKind(t, p.ChangeEmail(t.Context(), me, "not the password", "new@example.com"), muster.Forbidden)
	wantKind(t, p.ChangeEmail(t.Context(), accounts.Principal{ID: "key_1"}, goodPassword, "new@example.com"), muster.Forbidden)
	wantKind(t, p.ChangeEmail(t.Context(), me, goodPassword, "new"), muster.Invalid)
	must(t, p.ChangeEmail(t.Context(), me, goodPassword, "taken@example.com"))
	if m := p.mails.next(t); m.To != "old@example.com" {
		t.Errorf("who has the address got a mail: %s", m.To)
	}
	must(t, p.ChangeEmail(t.Context(), me, goodPassword, "New@example.com"))
	link, told := p.mails.next(t), p.mails.next(t)
	if link.To != "new@example.com" || told.To != "old@example.com" {
		t.Errorf("mails go to %s and %s", link.To, told.To)
	}
	if now, err := p.User(u.ID); err != nil || now.Email != "old@example.com" {
		t.Errorf("it is %s already, %v", now.Email, err)
	}
	must(t, p.ConfirmEmail(t.Context(), linkIn(t, link.Text, accounts.PathConfirm)))
	if now, err := p.User(u.ID); err != nil || now.Email != "new@example.com" || !now.Confirmed {
		t.Errorf("it is %+v, %v", now, err)
	}
	p.signIn(t, "new@example.com")
	p.principal(t, cookie)

	must(t, p.ChangeEmail(t.Context(), me, goodPassword, "third@example.com"))
	link = p.mails.next(t)
	p.mails.next(t)
	p.user(t, "third@example.com", accounts.Viewer)
	wantKind(t, p.ConfirmEmail(t.Context(), linkIn(t, link.Text, accounts.PathConfirm)), muster.Conflict)
}

func TestAChangedPasswordEndsTheOtherSessions(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	own, _ := p.signIn(t, "u@example.com")
	other, s := p.signIn(t, "u@example.com")
	me := p.principal(t, own)
	const next = "another good password"
	wantKind(t, p.ChangePassword(t.Context(), me, "not the password", next), muster.Forbidden)
	wantKind(t, p.ChangePassword(t.Context(), me, goodPassword, "short"), muster.Invalid)
	wantKind(t, p.ChangePassword(t.Context(), accounts.Principal{Role: accounts.Admin}, goodPassword, next), muster.Forbidden)
	wantKind(t, p.ChangePassword(t.Context(), accounts.Principal{User: "usr_nobody"}, goodPassword, next), muster.NotFound)
	must(t, p.ChangePassword(t.Context(), me, goodPassword, next))
	p.principal(t, own)
	_, err := p.AuthenticateSession(other)
	wantKind(t, err, muster.Unauthorized)
	if d := cmp.Diff(map[string]bool{s.ID: true}, p.takeEnded()); d != "" {
		t.Error(d)
	}
	must(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: next}))
	for range 10 {
		wantKind(t, p.ChangePassword(t.Context(), me, "not the password", goodPassword), muster.Forbidden)
	}
	wantWait(t, p.ChangePassword(t.Context(), me, next, goodPassword))
	// Guessing there does not keep him from signing in, nor does the other way round.
	must(t, p.try(t, accounts.PasswordLogin{Email: u.Email, Password: next}))
}

func TestWithoutAMailerLinksAreForAdminsOnly(t *testing.T) {
	p := newPeople(t)
	a := accounts.New(p.store, p.clock.now, discard(), p.cfg)
	a.Cheap()
	must(t, a.Load(t.Context()))
	_, link, err := a.Invite(t.Context(), byAdmin(), "u@example.com", accounts.Viewer)
	must(t, err)
	cookie, s, err := a.AcceptInvite(t.Context(), linkIn(t, link, accounts.PathInvite), "U", goodPassword, accounts.Client{})
	must(t, err)
	me, err := a.AuthenticateSession(cookie)
	must(t, err)
	must(t, a.ForgotPassword(t.Context(), "u@example.com", accounts.Client{}))
	wantKind(t, a.ChangeEmail(t.Context(), me, goodPassword, "v@example.com"), muster.Unavailable)
	wantKind(t, a.RequestConfirm(t.Context(), s.User), muster.Unavailable)
	if n := a.Stats().MailQueued; n != 0 {
		t.Errorf("%d mails wait for nobody", n)
	}
}

func TestNamesInMailsAreNoLinks(t *testing.T) {
	for in, want := range map[string]string{
		"Ann":                               "Ann",
		"http://evil.example/ <b>":          "http   evil example   b",
		"a\r\nBcc: x@example.com":           "a  Bcc  x example com",
		strings.Repeat("n", 100):            strings.Repeat("n", 60),
		"Jörg Ä":                            "Jörg Ä",
		"\u202emoc.live\u2028\u2029 hidden": "moc live   hidden",
	} {
		if got := accounts.Plain(in); got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
}
