package accounts_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
)

func TestAUserSignsInAcrossARestart(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, " Ann@Example.com ", accounts.Operator)
	if u.Email != "ann@example.com" || !u.HasPassword || u.Confirmed {
		t.Errorf("the user is %+v", u)
	}
	p.restart(t)
	p.clock.add(time.Hour)
	in := accounts.PasswordLogin{Email: "ANN@example.com", Password: goodPassword, Client: accounts.Client{Address: "[2001:db8::1]:443", Agent: "Browser\n1"}}
	cookie, s, err := p.SignInPassword(t.Context(), in)
	must(t, err)
	p.restart(t)
	who := p.principal(t, cookie)
	if d := cmp.Diff(accounts.Principal{
		ID: s.ID, Name: "ann@example.com", Role: accounts.Operator, Scopes: who.Scopes, User: u.ID,
		Expires: muster.MicrosOf(p.clock.now().Add(accounts.SessionIdle)),
	}, who); d != "" {
		t.Error(d)
	}
	got := p.Sessions(u.ID)
	if len(got) != 1 || got[0].Address != "2001:db8::1" || got[0].Agent != "Browser1" || got[0].Role != accounts.Operator {
		t.Errorf("sessions are %+v", got)
	}
	if u, err = p.User(u.ID); err != nil || u.LastLogin != muster.MicrosOf(p.clock.now()) {
		t.Errorf("last login is %v, %v", u.LastLogin, err)
	}
	if text := fmt.Sprintf("%+v", p.store); strings.Contains(text, goodPassword) || strings.Contains(text, cookie) {
		t.Error("the store holds the password or the cookie")
	}
}

func TestWhoCannotComeInGetsOneAnswerAfterTheSameWork(t *testing.T) {
	p := newPeople(t)
	p.user(t, "here@example.com", accounts.Viewer)
	off := p.user(t, "off@example.com", accounts.Viewer)
	yes := true
	_, err := p.UpdateUser(t.Context(), off.ID, accounts.UserChange{Disabled: &yes})
	must(t, err)
	_, err = p.CreateUser(t.Context(), accounts.NewUser{Email: "invited@example.com", Role: accounts.Viewer})
	must(t, err)
	tests := []struct{ name, email, password string }{
		{"a wrong password", "here@example.com", goodPassword + "x"},
		{"an empty password", "here@example.com", ""},
		{"a password of a megabyte", "here@example.com", strings.Repeat("p", 1<<20)},
		{"an unknown user", "nobody@example.com", goodPassword},
		{"no e-mail", "", goodPassword},
		{"an e-mail of a megabyte", strings.Repeat("e", 1<<20), goodPassword},
		{"SQL for an e-mail", "' OR 1=1 --", goodPassword},
		{"a disabled user with the right password", "off@example.com", goodPassword},
		{"a user without a password", "invited@example.com", ""},
		{"a user without a password, and one", "invited@example.com", goodPassword},
	}
	var text string
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := p.Stats().Hashes
			err := p.try(t, accounts.PasswordLogin{Email: tt.email, Password: tt.password})
			wantKind(t, err, muster.Unauthorized)
			if text == "" {
				text = err.Error()
			}
			if err.Error() != text {
				t.Errorf("the answer is %q, another is %q", err, text)
			}
			if n := p.Stats().Hashes - before; n != 1 {
				t.Errorf("%d hashes were computed, want 1", n)
			}
		})
	}
}

func TestTheHashThatAnUnknownUserIsHeldAgainstCostsWhatAnyOtherDoes(t *testing.T) {
	p := newPeople(t)
	p.Costly()
	p.user(t, "here@example.com", accounts.Viewer)
	const want = "$argon2id$v=19$m=19456,t=2,p=1$"
	for name, phc := range map[string]string{"a user's": p.recordOf("here@example.com").Password, "nobody's": p.Dummy()} {
		if !strings.HasPrefix(phc, want) || len(phc) != len(want)+22+1+43 {
			t.Errorf("%s hash is %.40s, %d bytes", name, phc, len(phc))
		}
	}
}

func (p *people) recordOf(email string) accounts.UserRecord {
	for _, u := range p.store.users {
		if u.Email == email {
			return u
		}
	}
	return accounts.UserRecord{}
}

func TestAHashOfAnotherCostIsRenewedAtLogin(t *testing.T) {
	p := newPeople(t)
	p.user(t, "a@example.com", accounts.Viewer)
	cheap := p.recordOf("a@example.com").Password
	p.Costly()
	wantKind(t, p.try(t, accounts.PasswordLogin{Email: "a@example.com", Password: "not the password"}), muster.Unauthorized)
	if p.recordOf("a@example.com").Password != cheap {
		t.Error("a wrong password renewed the hash")
	}
	p.signIn(t, "a@example.com")
	renewed := p.recordOf("a@example.com").Password
	if !strings.HasPrefix(renewed, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("the hash is still of the costs %.40s", renewed)
	}
	p.restart(t)
	p.Costly()
	p.signIn(t, "a@example.com")
	if p.recordOf("a@example.com").Password != renewed {
		t.Error("a hash of today's cost was renewed")
	}
}

func wantWait(t testing.TB, err error) time.Duration {
	t.Helper()
	w, ok := errors.AsType[*accounts.WaitError](err)
	if !ok || muster.KindOf(err) != muster.Busy || w.Wait <= 0 {
		t.Fatalf("the answer is %v, want a WaitError", err)
	}
	return w.Wait
}

func TestTooManyPasswordsForOneAccountAreRefusedKnownOrNot(t *testing.T) {
	p := newPeople(t)
	p.user(t, "here@example.com", accounts.Viewer)
	answers := map[string]string{}
	for _, email := range []string{"here@example.com", "nobody@example.com"} {
		for i := range 100 {
			err := p.try(t, accounts.PasswordLogin{Email: email, Password: "not the password", Client: accounts.Client{Address: fmt.Sprintf("192.0.2.%d", i)}})
			wantKind(t, err, muster.Unauthorized)
		}
		before := p.Stats().Hashes
		// The right password is refused too, or the limit would be worth nothing; so is
		// another spelling of the address.
		err := p.try(t, accounts.PasswordLogin{Email: " " + strings.ToUpper(email), Password: goodPassword, Client: accounts.Client{Address: "198.51.100.1"}})
		answers[email] = fmt.Sprint(err, wantWait(t, err), p.Stats().Hashes-before)
	}
	if answers["here@example.com"] != answers["nobody@example.com"] {
		t.Errorf("the answers tell who is here: %v", answers)
	}
	p.clock.add(30 * time.Second)
	here := func(password string) error {
		return p.try(t, accounts.PasswordLogin{Email: "here@example.com", Password: password, Client: accounts.Client{Address: "198.51.100.1"}})
	}
	for range 2 {
		wantKind(t, here("not the password"), muster.Unauthorized)
	}
	must(t, here(goodPassword))
	for range 10 { // signing in filled the bucket of where he is
		wantKind(t, here("not the password"), muster.Unauthorized)
	}
	wantWait(t, here(goodPassword))
}

func TestTooManyPasswordsFromOneNetworkAreRefused(t *testing.T) {
	tests := []struct {
		name        string
		from, other func(i int) string
	}{
		{
			"an IPv4 address, spelled either way",
			func(i int) string { return []string{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1:80"}[i%3] },
			func(int) string { return "192.0.2.2" },
		},
		{
			"all addresses of an IPv6 /64",
			func(i int) string { return fmt.Sprintf("2001:db8:0:1::%x", i) },
			func(int) string { return "2001:db8:0:2::1" },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeople(t)
			p.user(t, "here@example.com", accounts.Viewer)
			in := func(i int, from func(int) string) accounts.PasswordLogin {
				return accounts.PasswordLogin{Email: fmt.Sprintf("u%d@example.com", i), Password: goodPassword, Client: accounts.Client{Address: from(i)}}
			}
			for i := range 60 {
				wantKind(t, p.try(t, in(i, tt.from)), muster.Unauthorized)
			}
			last := in(61, tt.from)
			last.Email = "here@example.com"
			wantWait(t, p.try(t, last))
			last.Address = tt.other(0)
			must(t, p.try(t, last))
		})
	}
}

func TestWhoFindsNoPlaceToHashIsToldToComeBack(t *testing.T) {
	p := newPeople(t)
	p.user(t, "here@example.com", accounts.Viewer)
	leave := p.Crowd()
	for _, email := range []string{"here@example.com", "nobody@example.com"} {
		wantWait(t, p.try(t, accounts.PasswordLogin{Email: email, Password: goodPassword}))
	}
	leave()
	p.signIn(t, "here@example.com")
}

func TestASessionNeverSurvivesWhatEndsItWhileItIsMade(t *testing.T) {
	p := newPeople(t)
	p.user(t, "admin@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Viewer)
	var made atomic.Int32
	var wg sync.WaitGroup
	var mu sync.Mutex
	var cookies []string
	for range 8 {
		wg.Go(func() {
			cookie, _, err := p.SignInPassword(t.Context(), accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword})
			if err != nil {
				return
			}
			made.Add(1)
			mu.Lock()
			cookies = append(cookies, cookie)
			mu.Unlock()
		})
	}
	wg.Go(func() {
		if err := p.DeleteUser(t.Context(), u.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	wg.Wait()
	for _, c := range cookies {
		_, err := p.AuthenticateSession(c)
		wantKind(t, err, muster.Unauthorized)
	}
	if n := len(p.store.sessions); n != 0 {
		t.Errorf("%d of %d sessions are still stored", n, made.Load())
	}
}

func TestTheFirstAdminTakesTheSessionOfTheSetUpLink(t *testing.T) {
	p := newPeople(t)
	token, err := p.SetupToken(t.Context())
	must(t, err)
	cookie, s, err := p.RedeemSetupFrom(t.Context(), token, accounts.Client{Address: "192.0.2.7"})
	must(t, err)
	anonymous := p.principal(t, cookie)
	_, err = p.FirstAdmin(t.Context(), anonymous, "Root", "root@example.com", "short")
	wantKind(t, err, muster.Invalid)
	_, err = p.FirstAdmin(t.Context(), anonymous, "Root", "root@example.com", "")
	wantKind(t, err, muster.Invalid)
	u, err := p.FirstAdmin(t.Context(), anonymous, "Root", "root@example.com", goodPassword)
	must(t, err)
	p.restart(t)
	who := p.principal(t, cookie)
	if who.ID != s.ID || who.User != u.ID || who.Name != "Root" || who.Role != accounts.Admin {
		t.Errorf("the session is %+v", who)
	}
	_, err = p.FirstAdmin(t.Context(), who, "Again", "again@example.com", goodPassword)
	wantKind(t, err, muster.Conflict)
	key, secret := mustKey(t, p.Accounts, accounts.Admin)
	byKey, _, err := p.SignIn(t.Context(), secret)
	must(t, err)
	for _, other := range []accounts.Principal{{ID: key.ID}, p.principal(t, byKey), {}} {
		_, err = p.FirstAdmin(t.Context(), other, "Other", "other@example.com", goodPassword)
		wantKind(t, err, muster.Forbidden)
	}
	p.signIn(t, "root@example.com")
}

func TestTheAdminOfTheEnvironmentIsMadeOnce(t *testing.T) {
	p := newPeople(t)
	for range 2 {
		must(t, p.EnsureAdminUser(t.Context(), "Root@example.com", goodPassword))
		p.restart(t)
	}
	if us := p.Users(); len(us) != 1 || us[0].Role != accounts.Admin || !us[0].Confirmed {
		t.Fatalf("users are %+v", us)
	}
	if token, err := p.SetupToken(t.Context()); err != nil || token != "" {
		t.Errorf("there is still a set-up link: %v", err)
	}
	must(t, p.EnsureAdminUser(t.Context(), "root@example.com", "another password"))
	p.signIn(t, "root@example.com")
	must(t, p.EnsureAdminUser(t.Context(), "second@example.com", goodPassword))
	if n := len(p.Users()); n != 1 {
		t.Errorf("there are %d users: another admin is there already", n)
	}
	wantKind(t, p.EnsureAdminUser(t.Context(), "x", goodPassword), muster.Invalid)
	wantKind(t, p.EnsureAdminUser(t.Context(), "x@example.com", "short"), muster.Invalid)
}

func TestAStrangerAtOneAddressKeepsNobodyOut(t *testing.T) {
	p := newPeople(t)
	p.user(t, "here@example.com", accounts.Admin)
	stranger, other := accounts.Client{Address: "192.0.2.66"}, accounts.Client{Address: "198.51.100.7"}
	try := func(email, password string, from accounts.Client) error {
		return p.try(t, accounts.PasswordLogin{Email: email, Password: password, Client: from})
	}
	for _, email := range []string{"here@example.com", "nobody@example.com"} {
		for range 240 { // two hours at the rate that he gets
			p.clock.add(30 * time.Second)
			wantKind(t, try(email, "not the password", stranger), muster.Unauthorized)
		}
		for range 9 {
			wantKind(t, try(email, "not the password", stranger), muster.Unauthorized)
		}
		before := p.Stats().Hashes
		wantWait(t, try(email, goodPassword, stranger))
		wantKind(t, try(email, "not the password", other), muster.Unauthorized)
		if n := p.Stats().Hashes - before; n != 1 {
			t.Errorf("%d passwords are checked of %s", n, email)
		}
	}
	must(t, try("here@example.com", goodPassword, other))
}

func TestStrangersEverywhereKeepNobodyOutOfWhereHeIsAtHome(t *testing.T) {
	p := newPeople(t)
	p.user(t, "here@example.com", accounts.Admin)
	home, before, away := accounts.Client{Address: "[2001:db8:1:1::7]:4711"}, accounts.Client{Address: "198.51.100.7"}, accounts.Client{Address: "198.51.100.8"}
	try := func(from accounts.Client) error {
		return p.try(t, accounts.PasswordLogin{Email: "here@example.com", Password: goodPassword, Client: from})
	}
	flood := func() {
		for i := range 100 {
			from := accounts.Client{Address: fmt.Sprintf("192.0.%d.2", i)}
			wantKind(t, p.try(t, accounts.PasswordLogin{Email: "here@example.com", Password: "not the password", Client: from}), muster.Unauthorized)
		}
	}
	must(t, try(before))
	for _, s := range p.Sessions("") {
		must(t, p.EndSession(t.Context(), s.ID))
	}
	must(t, try(home))
	p.clock.add(13 * 24 * time.Hour)
	flood()
	for range 2 {
		wantWait(t, try(away))
		must(t, try(accounts.Client{Address: "2001:db8:1:1::8"})) // of the same network
		must(t, try(before))                                      // without a session there
		p.restart(t)
		flood() // a restart forgets tries, and not where he is at home
	}
	for range 10 { // at home there is a bound, too
		wantKind(t, p.try(t, accounts.PasswordLogin{Email: "here@example.com", Password: "not the password", Client: home}), muster.Unauthorized)
	}
	wantWait(t, try(home))
	p.clock.add(31 * 24 * time.Hour) // longer than he is remembered, and than a session lives
	flood()
	wantWait(t, try(before))
}
