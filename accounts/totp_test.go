package accounts_test

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/accounts"
)

// secondFactor turns one on for a user and moves on by a step, so that its code is new.
func (p *people) secondFactor(t testing.TB, id string) (secret string, recovery []string) {
	t.Helper()
	setup, err := p.BeginTOTP(t.Context(), id)
	must(t, err)
	recovery, err = p.ConfirmTOTP(t.Context(), id, p.code(t, setup.Secret, 0))
	must(t, err)
	p.clock.add(30 * time.Second)
	return setup.Secret, recovery
}

func TestASecondFactorIsAskedForAfterTheRightPassword(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	setup, err := p.BeginTOTP(t.Context(), u.ID)
	must(t, err)
	uri, err := url.Parse(setup.URI)
	if err != nil || uri.Scheme != "otpauth" || uri.Host != "totp" || uri.Query().Get("secret") != setup.Secret || uri.Query().Get("issuer") != "Muster" {
		t.Errorf("the URI is not for an authenticator: %v", err)
	}
	p.signIn(t, "u@example.com") // it is not on yet
	_, err = p.ConfirmTOTP(t.Context(), u.ID, "000000")
	wantKind(t, err, muster.Invalid)
	recovery, err := p.ConfirmTOTP(t.Context(), u.ID, p.code(t, setup.Secret, 0))
	must(t, err)
	if len(recovery) != 8 {
		t.Errorf("there are %d recovery codes", len(recovery))
	}
	_, err = p.ConfirmTOTP(t.Context(), u.ID, p.code(t, setup.Secret, 0))
	wantKind(t, err, muster.Conflict)
	_, err = p.BeginTOTP(t.Context(), u.ID)
	wantKind(t, err, muster.Conflict)
	if now, err := p.User(u.ID); err != nil || !now.SecondFactor {
		t.Errorf("it is not on, %v", err)
	}
	p.clock.add(30 * time.Second)
	p.restart(t)
	in := accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword}
	err = p.try(t, in)
	if _, ok := errors.AsType[*accounts.NeedCodeError](err); !ok || muster.KindOf(err) != muster.Unauthorized {
		t.Errorf("without a code the answer is %v", err)
	}
	in.Password = "not the password"
	err = p.try(t, in)
	if _, ok := errors.AsType[*accounts.NeedCodeError](err); ok || muster.KindOf(err) != muster.Unauthorized {
		t.Errorf("with a wrong password the answer is %v", err)
	}
	in.Password, in.Code = goodPassword, p.code(t, setup.Secret, 0)
	in.Code = in.Code[:3] + " " + in.Code[3:]
	must(t, p.try(t, in))
	rec := p.recordOf("u@example.com")
	for _, plain := range append(recovery, setup.Secret) {
		if strings.Contains(rec.TOTP+strings.Join(rec.Recovery, " "), plain) {
			t.Error("the store holds a secret in plain")
		}
	}
}

func TestACodeIsTakenFromThreeStepsAndOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		step int
		ok   bool
	}{
		{"of two steps ago", -2, false},
		{"of the step before", -1, true},
		{"of now", 0, true},
		{"of the next step", 1, true},
		{"of two steps ahead", 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeople(t)
			u := p.user(t, "u@example.com", accounts.Viewer)
			secret, _ := p.secondFactor(t, u.ID)
			p.clock.add(5 * time.Minute)
			in := accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword, Code: p.code(t, secret, tt.step)}
			err := p.try(t, in)
			if (err == nil) != tt.ok {
				t.Fatalf("the answer is %v", err)
			}
			p.restart(t)
			wantKind(t, p.try(t, in), muster.Unauthorized) // replayed, also over a restart
			if tt.step == 1 {
				in.Code = p.code(t, secret, 0)
				wantKind(t, p.try(t, in), muster.Unauthorized) // older than the last one used
			}
		})
	}
}

func TestTheCodeThatTurnsItOnSignsNobodyIn(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	setup, err := p.BeginTOTP(t.Context(), u.ID)
	must(t, err)
	code := p.code(t, setup.Secret, 0)
	_, err = p.ConfirmTOTP(t.Context(), u.ID, code)
	must(t, err)
	wantKind(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword, Code: code}), muster.Unauthorized)
}

func TestOfManyWithOneCodeExactlyOneComesIn(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	secret, recovery := p.secondFactor(t, u.ID)
	for _, code := range []string{p.code(t, secret, 0), recovery[0]} {
		var in atomic.Int32
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword, Code: code}) == nil {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		if in.Load() != 1 {
			t.Errorf("%d came in with one code", in.Load())
		}
		p.restart(t)
	}
}

func TestARecoveryCodeWorksOnceInAnySpelling(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	_, recovery := p.secondFactor(t, u.ID)
	in := accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword}
	for i, spell := range []func(string) string{
		strings.ToLower,
		func(s string) string { return strings.ReplaceAll(s, "-", "") },
		func(s string) string { return " " + strings.ReplaceAll(s, "-", " ") },
	} {
		in.Code = spell(recovery[i])
		must(t, p.try(t, in))
		p.restart(t)
		wantKind(t, p.try(t, in), muster.Unauthorized)
	}
	if n := len(p.recordOf("u@example.com").Recovery); n != 5 {
		t.Errorf("%d codes are left", n)
	}
}

func TestCodesAreGuessedSlowly(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	secret, _ := p.secondFactor(t, u.ID)
	in := accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword, Code: "12345"}
	for range 5 {
		wantKind(t, p.try(t, in), muster.Unauthorized)
	}
	p.clock.add(4 * time.Minute) // fills the account's bucket, not the code's
	in.Code = p.code(t, secret, 0)
	wantWait(t, p.try(t, in))
	p.clock.add(time.Minute)
	in.Code = p.code(t, secret, 0)
	must(t, p.try(t, in))
}

func TestASecondFactorIsRemovedByItsUserOrAnAdmin(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	wantKind(t, p.DropTOTP(t.Context(), u.ID, goodPassword), muster.Conflict)
	wantKind(t, p.ClearTOTP(t.Context(), u.ID), muster.Conflict)
	wantKind(t, p.ClearTOTP(t.Context(), "usr_nobody"), muster.NotFound)
	_, recovery := p.secondFactor(t, u.ID)
	wantKind(t, p.DropTOTP(t.Context(), u.ID, "not the password"), muster.Forbidden)
	must(t, p.DropTOTP(t.Context(), u.ID, goodPassword))
	p.signIn(t, "u@example.com")
	p.secondFactor(t, u.ID)
	must(t, p.ClearTOTP(t.Context(), u.ID))
	p.signIn(t, "u@example.com")
	_, fresh := p.secondFactor(t, u.ID)
	in := accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword, Code: recovery[0]}
	wantKind(t, p.try(t, in), muster.Unauthorized)
	in.Code = fresh[0]
	must(t, p.try(t, in))
}

func TestASecondFactorThatIsBegunLastsTenMinutes(t *testing.T) {
	p := newPeople(t)
	u := p.user(t, "u@example.com", accounts.Viewer)
	_, err := p.ConfirmTOTP(t.Context(), u.ID, "123456")
	wantKind(t, err, muster.Conflict)
	setup, err := p.BeginTOTP(t.Context(), u.ID)
	must(t, err)
	p.clock.add(10 * time.Minute)
	_, err = p.ConfirmTOTP(t.Context(), u.ID, p.code(t, setup.Secret, 0))
	wantKind(t, err, muster.Conflict)
}

func TestASecretThatWasSealedElsewhereOpensNothing(t *testing.T) {
	p := newPeople(t)
	a, b := p.user(t, "a@example.com", accounts.Viewer), p.user(t, "b@example.com", accounts.Viewer)
	secret, _ := p.secondFactor(t, a.ID)
	_, recovery := p.secondFactor(t, b.ID)
	// Whoever can write the database puts his own secret in another's place.
	rec := p.store.users[b.ID]
	rec.TOTP, rec.TOTPStep = p.store.users[a.ID].TOTP, 0
	p.store.users[b.ID] = rec
	p.restart(t)
	in := accounts.PasswordLogin{Email: "b@example.com", Password: goodPassword, Code: p.code(t, secret, 0)}
	wantKind(t, p.try(t, in), muster.Unavailable)
	in.Code = recovery[0]
	must(t, p.try(t, in))
	p.cfg.Sealer = nil
	p.restart(t)
	in.Email, in.Code = "a@example.com", p.code(t, secret, 0)
	wantKind(t, p.try(t, in), muster.Unavailable)
	_, err := p.BeginTOTP(t.Context(), b.ID)
	wantKind(t, err, muster.Unavailable)
}
