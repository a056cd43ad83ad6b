package accounts_test

import (
	"strings"
	"testing"

	"muster"
	"muster/accounts"
)

func FuzzStoredPasswords(f *testing.F) {
	for _, s := range []string{
		"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=4294967295,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=8,t=0,p=0$$", "", "$$$$$", strings.Repeat("$", 500),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out, err := accounts.ParsePHC(s)
		if err != nil {
			if muster.KindOf(err) != muster.Invalid {
				t.Errorf("the error is of kind %v", muster.KindOf(err))
			}
			return
		}
		again, err := accounts.ParsePHC(out)
		if err != nil || again != out {
			t.Errorf("%q becomes %q, %v", out, again, err)
		}
	})
}

func FuzzEMailAddresses(f *testing.F) {
	for _, s := range []string{"a@example.com", " A@B ", "a b@c", "<a@b>", "a@b, c@d", "\"a b\"@c", "a@[127.0.0.1]", "é@b", "a@b\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out, err := accounts.CheckEmail(s)
		if err != nil {
			return
		}
		again, err := accounts.CheckEmail(out)
		if err != nil || again != out {
			t.Errorf("%q becomes %q, %v", out, again, err)
		}
		if len(out) > accounts.MaxEmail || strings.ContainsAny(out, " \r\n\t<>,") || strings.Count(out, "@") < 1 {
			t.Errorf("%q is taken", out)
		}
	})
}

func TestAStoredHashThatCannotBeReadLetsNobodyIn(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	rec := p.store.users[u.ID]
	rec.Password = "$argon2id$v=19$m=4000000,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"
	p.store.users[u.ID] = rec
	p.restart(t)
	err := p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword})
	if err == nil || muster.KindOf(err) != muster.Internal || strings.Contains(muster.Public(err), "argon") {
		t.Errorf("the answer is %v", err)
	}
}

func BenchmarkSignInWithAPassword(b *testing.B) {
	p := newPeople(b)
	p.Costly()
	p.user(b, "u@example.com", accounts.Viewer)
	b.ReportAllocs()
	for b.Loop() {
		p.signIn(b, "u@example.com")
		p.clock.add(2e9)
	}
}

func BenchmarkAuthenticateASessionOfAUser(b *testing.B) {
	p := newPeople(b)
	p.user(b, "u@example.com", accounts.Viewer)
	cookie, _ := p.signIn(b, "u@example.com")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.AuthenticateSession(cookie); err != nil {
			b.Fatal(err)
		}
	}
}
