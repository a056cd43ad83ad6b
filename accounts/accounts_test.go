package accounts_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/accounts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, m *memory) *accounts.Accounts {
	t.Helper()
	a := accounts.New(m, time.Now, slog.New(slog.DiscardHandler), accounts.Config{})
	if err := a.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

func wantKind(t testing.TB, err error, kind muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != kind {
		t.Errorf("error is %v, want kind %v", err, kind)
	}
}

func mustKey(t testing.TB, a *accounts.Accounts, scopes ...string) (accounts.APIKey, string) {
	t.Helper()
	k, secret, err := a.CreateKey(t.Context(), accounts.KeySpec{Name: "test", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return k, secret
}

var allReads = []string{
	accounts.DevicesRead, accounts.TelemetryRead, accounts.FirmwareRead, accounts.TopicsRead, accounts.AlertsRead,
}

func TestAnAPIKeyWorksAcrossARestartUntilItIsDeleted(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	k, secret := mustKey(t, a, accounts.TelemetryRead, accounts.DevicesRead, accounts.DevicesRead)
	if !strings.HasPrefix(secret, "mst_") || len(secret) < 30 {
		t.Errorf("the key has the wrong form (%d bytes)", len(secret))
	}
	if strings.Contains(fmt.Sprintf("%+v", m.keys[k.ID]), secret) {
		t.Error("the stored key holds the secret")
	}
	want := accounts.Principal{ID: k.ID, Key: k.ID, Name: "test", Scopes: []string{"devices:read", "telemetry:read"}}
	for _, a := range []*accounts.Accounts{a, open(t, m)} {
		p, err := a.Authenticate(secret)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, p); d != "" {
			t.Error(d)
		}
	}
	if err := a.DeleteKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	wantKind(t, a.DeleteKey(t.Context(), k.ID), muster.NotFound)
	for _, bad := range []string{secret, "", "mst_", strings.Repeat("x", 9999)} {
		_, err := a.Authenticate(bad)
		wantKind(t, err, muster.Unauthorized)
	}
}

func TestAnAPIKeyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, newMemory())
		_, secret, err := a.CreateKey(t.Context(), accounts.KeySpec{Name: "short", Scopes: []string{accounts.Admin}, Expires: time.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Authenticate(secret); err != nil {
			t.Fatal(err)
		}
		cookie, _, err := a.SignIn(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		_, err = a.Authenticate(secret)
		wantKind(t, err, muster.Unauthorized)
		_, err = a.AuthenticateSession(cookie)
		wantKind(t, err, muster.Unauthorized)
	})
}

func TestWhatCreateKeyRefuses(t *testing.T) {
	a := open(t, newMemory())
	tests := []struct {
		name    string
		key     string
		scopes  []string
		expires time.Time
	}{
		{"no name", "", allReads, time.Time{}},
		{"a name over 200 bytes", strings.Repeat("n", 201), allReads, time.Time{}},
		{"a name with a newline", "a\nb", allReads, time.Time{}},
		{"the reserved name", accounts.AdminKeyName, allReads, time.Time{}},
		{"no scope", "k", nil, time.Time{}},
		{"an unknown scope", "k", []string{"devices:read", "devices:*"}, time.Time{}},
		{"a past expiry", "k", allReads, time.Now().Add(-time.Second)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := a.CreateKey(t.Context(), accounts.KeySpec{Name: tt.key, Scopes: tt.scopes, Expires: tt.expires})
			wantKind(t, err, muster.Invalid)
			if n := len(a.Keys()); n != 0 {
				t.Errorf("there are %d keys", n)
			}
		})
	}
}

func TestAdminImpliesEveryScopeAndNoOtherImpliesAny(t *testing.T) {
	admin := accounts.Principal{Scopes: []string{accounts.Admin}}
	for _, have := range accounts.Scopes() {
		if !admin.Allows(have) {
			t.Errorf("admin lacks %s", have)
		}
		for _, want := range accounts.Scopes() {
			p := accounts.Principal{Scopes: []string{have}}
			if p.Allows(want) != (have == want || have == accounts.Admin) {
				t.Errorf("%s allows %s: %v", have, want, p.Allows(want))
			}
		}
	}
	if len(accounts.Scopes()) != 14 {
		t.Errorf("there are %d scopes", len(accounts.Scopes()))
	}
}

func TestMQTTTakesAKeyWithTheScopeMQTTOrAdmin(t *testing.T) {
	a := open(t, newMemory())
	for scope, kind := range map[string]muster.Kind{accounts.MQTT: 0, accounts.Admin: 0, accounts.DevicesRead: muster.Forbidden} {
		_, secret := mustKey(t, a, scope)
		_, err := a.AuthenticateMQTT(secret, nil)
		if kind == 0 && err != nil || kind != 0 && muster.KindOf(err) != kind {
			t.Errorf("%s gives %v", scope, err)
		}
	}
	_, err := a.AuthenticateMQTT("somebody", nil)
	wantKind(t, err, muster.Unauthorized)
}

func TestTheAdminKeyOfTheEnvironmentIsOneRowOverRestarts(t *testing.T) {
	m := newMemory()
	const first, second = "mst_first-value-0123456789", "mst_second-value-0123456789"
	for range 3 {
		a := open(t, m)
		if err := a.EnsureAdminKey(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		p, err := a.Authenticate(first)
		if err != nil || !p.Allows(accounts.Admin) || p.Name != "MUSTER_ADMIN_KEY" || len(m.keys) != 1 {
			t.Errorf("got %+v, %v with %d rows", p, err, len(m.keys))
		}
	}
	a := open(t, m)
	cookie, _, err := a.SignIn(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnsureAdminKey(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	_, err = a.Authenticate(first)
	wantKind(t, err, muster.Unauthorized)
	_, err = a.AuthenticateSession(cookie)
	wantKind(t, err, muster.Unauthorized)
	if _, err := a.Authenticate(second); err != nil || len(m.keys) != 1 {
		t.Errorf("the new value gives %v with %d rows", err, len(m.keys))
	}
	for _, bad := range []string{"", "mst_", "mst_" + strings.Repeat("x", 19), "key_" + strings.Repeat("x", 30), "mst_" + strings.Repeat("x y", 10)} {
		err := a.EnsureAdminKey(t.Context(), bad)
		wantKind(t, err, muster.Invalid)
		if bad != "" && len(bad) > 10 && err != nil && strings.Contains(err.Error(), bad) {
			t.Error("the error echoes the key")
		}
	}
}

func TestSigningInWithAKeyNeverGivesMoreThanTheKey(t *testing.T) {
	a := open(t, newMemory())
	operator := append(slices.Clone(allReads), accounts.DevicesWrite, accounts.TelemetryWrite, accounts.CommandsSend,
		accounts.FirmwareWrite, accounts.TopicsWrite, accounts.NotifySend, accounts.AlertsWrite)
	tests := []struct {
		name   string
		scopes []string
		role   string
	}{
		{"an admin key gives admin", []string{accounts.Admin}, accounts.Admin},
		{"all reads give viewer", allReads, accounts.Viewer},
		{"all reads and writes give operator", operator, accounts.Operator},
		{"all but one write give viewer", operator[:len(operator)-1], accounts.Viewer},
		{"some reads give nothing", allReads[1:], ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, secret := mustKey(t, a, tt.scopes...)
			cookie, s, err := a.SignIn(t.Context(), secret)
			if tt.role == "" {
				wantKind(t, err, muster.Forbidden)
				return
			}
			if err != nil || s.Role != tt.role {
				t.Fatalf("role %q, %v", s.Role, err)
			}
			p, err := a.AuthenticateSession(cookie)
			if err != nil || p.Role != tt.role {
				t.Errorf("session gives %+v, %v", p, err)
			}
			key, _ := a.Authenticate(secret)
			for _, scope := range p.Scopes {
				if !key.Allows(scope) {
					t.Errorf("the session may %s, the key may not", scope)
				}
			}
		})
	}
	_, _, err := a.SignIn(t.Context(), "mst_unknown")
	wantKind(t, err, muster.Unauthorized)
}

func TestASessionEndsWithItsKeyAlsoAfterARestart(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	k, secret := mustKey(t, a, accounts.Admin)
	cookie, _, err := a.SignIn(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	if len(m.sessions) != 0 {
		t.Error("the session is still stored")
	}
	for _, a := range []*accounts.Accounts{a, open(t, m)} {
		_, err = a.AuthenticateSession(cookie)
		wantKind(t, err, muster.Unauthorized)
	}
}

func TestASessionEndsAtSignOut(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	_, secret := mustKey(t, a, accounts.Admin)
	cookie, s, err := a.SignIn(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if len(cookie) < 43 || strings.Contains(fmt.Sprintf("%+v", m.sessions[s.ID]), cookie) {
		t.Error("the cookie is short, or stored")
	}
	if err := a.SignOut(t.Context(), cookie); err != nil {
		t.Fatal(err)
	}
	wantKind(t, a.SignOut(t.Context(), cookie), muster.NotFound)
	for _, bad := range []string{cookie, "", strings.Repeat("x", 9999)} {
		_, err := a.AuthenticateSession(bad)
		wantKind(t, err, muster.Unauthorized)
	}
	if len(m.sessions) != 0 {
		t.Error("the session is still stored")
	}
}

// running runs a until stop, which waits for it.
func running(t *testing.T, a *accounts.Accounts) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestASessionLives14DaysIdleAnd60DaysAtMost(t *testing.T) {
	const day = 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := open(t, m)
		stop := running(t, a)
		_, secret := mustKey(t, a, accounts.Admin)
		idle, _, err := a.SignIn(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		used, _, err := a.SignIn(t.Context(), secret)
		if err != nil {
			t.Fatal(err)
		}
		for d := 0; d < 60; d += 10 {
			if _, err := a.AuthenticateSession(used); err != nil {
				t.Fatalf("day %d: %v", d, err)
			}
			if d == 30 { // a restart keeps what was used
				stop()
				a = open(t, m)
				stop = running(t, a)
			}
			<-time.After(10 * day)
		}
		for _, cookie := range []string{idle, used} {
			_, err = a.AuthenticateSession(cookie)
			wantKind(t, err, muster.Unauthorized)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if len(m.sessions) != 0 {
			t.Errorf("%d sessions are still stored", len(m.sessions))
		}
		stop()
	})
}

func TestOneMoreSessionThanAllowedEndsTheOneThatExpiresFirst(t *testing.T) {
	m := newMemory()
	for i := range accounts.MaxSessions {
		id := fmt.Sprintf("ses_%d", i)
		m.sessions[id] = accounts.Session{
			ID: id, Hash: [32]byte{byte(i), byte(i >> 8)}, Role: accounts.Viewer,
			Created: muster.MicrosOf(time.Now()), Expires: muster.MicrosOf(time.Now().Add(time.Hour + time.Duration(i)*time.Second)),
		}
	}
	a := open(t, m)
	_, secret := mustKey(t, a, accounts.Admin)
	if _, _, err := a.SignIn(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.sessions["ses_0"]; ok || len(m.sessions) != accounts.MaxSessions {
		t.Errorf("there are %d sessions, the first is still there: %v", len(m.sessions), ok)
	}
}

func TestTheSetupLinkWorksOnceAndIsNewAtEachStart(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	old, err := a.SetupToken(t.Context())
	if err != nil || old == "" {
		t.Fatalf("token %q, %v", old, err)
	}
	a = open(t, m)
	token, err := a.SetupToken(t.Context())
	if err != nil || token == "" || token == old {
		t.Fatalf("the second start gives %v", err)
	}
	_, _, err = a.RedeemSetup(t.Context(), old)
	wantKind(t, err, muster.NotFound)
	_, _, err = a.RedeemSetup(t.Context(), "")
	wantKind(t, err, muster.NotFound)
	cookie, s, err := a.RedeemSetup(t.Context(), token)
	if err != nil || s.Role != accounts.Admin {
		t.Fatalf("redeem gives %+v, %v", s, err)
	}
	if p, err := a.AuthenticateSession(cookie); err != nil || !p.Allows(accounts.Admin) {
		t.Errorf("the session gives %+v, %v", p, err)
	}
	for _, a := range []*accounts.Accounts{a, open(t, m)} {
		_, _, err = a.RedeemSetup(t.Context(), token)
		wantKind(t, err, muster.Conflict)
		_, _, err = a.RedeemSetup(t.Context(), old)
		wantKind(t, err, muster.NotFound)
	}
	if again, err := a.SetupToken(t.Context()); err != nil || again != "" {
		t.Errorf("a token is made after the link was used: %v", err)
	}
	for name, v := range m.settings {
		if strings.Contains(v, token) {
			t.Errorf("setting %s holds the token", name)
		}
	}
}

func TestOfManyWhoRedeemAtOnceExactlyOneWins(t *testing.T) {
	a := open(t, newMemory())
	token, err := a.SetupToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, _, err := a.RedeemSetup(t.Context(), token)
			switch {
			case err == nil:
				won.Add(1)
			case muster.KindOf(err) == muster.Conflict:
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 15 {
		t.Errorf("%d won, %d were told it is used", won.Load(), lost.Load())
	}
}

func TestASetupLinkSurvivesAStoreThatIsDown(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	token, err := a.SetupToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.down = true
	if _, _, err := a.RedeemSetup(t.Context(), token); err == nil {
		t.Error("redeem succeeded without a store")
	}
	m.down = false
	if _, _, err := a.RedeemSetup(t.Context(), token); err != nil {
		t.Errorf("the link was lost: %v", err)
	}
}

func TestAnAdminWhoSignsInByKeyEndsTheSetupLink(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	_, viewer := mustKey(t, a, allReads...)
	if _, _, err := a.SignIn(t.Context(), viewer); err != nil {
		t.Fatal(err)
	}
	token, err := a.SetupToken(t.Context())
	if err != nil || token == "" {
		t.Fatalf("a viewer ended the set-up: %v", err)
	}
	_, admin := mustKey(t, a, accounts.Admin)
	if _, _, err := a.SignIn(t.Context(), admin); err != nil {
		t.Fatal(err)
	}
	_, _, err = a.RedeemSetup(t.Context(), token)
	wantKind(t, err, muster.Conflict)
	if again, err := a.SetupToken(t.Context()); err != nil || again != "" {
		t.Errorf("a token is made while he is in: %v", err)
	}
	a = open(t, m)
	must(t, a.EnsureAdminKey(t.Context(), "mst_0123456789012345678901"))
	if again, err := a.SetupToken(t.Context()); err != nil || again == "" {
		t.Errorf("the environment's key takes the first person's way in: %v", err)
	}
}

func TestASetupLinkThatLedToNoAdminIsMadeAgainAtTheNextStart(t *testing.T) {
	m := newMemory()
	var last string
	for range 3 {
		a := open(t, m)
		token, err := a.SetupToken(t.Context())
		if err != nil || token == "" {
			t.Fatalf("a start without an admin makes no link: %v", err)
		}
		cookie, s, err := a.RedeemSetup(t.Context(), token)
		must(t, err)
		if last != "" {
			_, err = a.AuthenticateSession(last)
			wantKind(t, err, muster.Unauthorized)
		}
		if all := a.Sessions(""); len(all) != 1 || all[0].ID != s.ID {
			t.Errorf("there are the sessions %v", all)
		}
		last = cookie
	}
	a := open(t, m)
	who, err := a.AuthenticateSession(last)
	must(t, err)
	_, err = a.FirstAdmin(t.Context(), who, "Ana", "ana@example.com", goodPassword)
	must(t, err)
	for _, a := range []*accounts.Accounts{a, open(t, m)} {
		if again, err := a.SetupToken(t.Context()); err != nil || again != "" {
			t.Errorf("a token is made beside an admin: %v", err)
		}
	}
}

func BenchmarkAuthenticateAKey(b *testing.B) {
	a := open(b, newMemory())
	_, secret := mustKey(b, a, accounts.Admin)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Authenticate(secret); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTheEndOfAKeyOrSessionIsTold(t *testing.T) {
	a := open(t, newMemory())
	var ended []string
	a.OnEnded(func(id string) { ended = append(ended, id) })
	k, secret, err := a.CreateKey(t.Context(), accounts.KeySpec{Name: "k", Scopes: []string{accounts.Admin}})
	if err != nil {
		t.Fatal(err)
	}
	cookie, own, err := a.SignIn(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SignOut(t.Context(), cookie); err != nil {
		t.Fatal(err)
	}
	_, orphan, err := a.SignIn(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{own.ID, k.ID, orphan.ID}, ended); diff != "" {
		t.Error(diff)
	}
}
