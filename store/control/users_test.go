package control_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pquerna/otp/totp"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/store/control"
)

func TestUsersAndWhatIsTheirs(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		u1 := accounts.UserRecord{
			ID: "usr_1", Email: "a@example.com", Name: `A "é" '; DROP TABLE account; --`, Role: "admin", Password: "$argon2id$", TOTP: "c2VhbGVk",
			TOTPStep: 1 << 40, Recovery: []string{"aa", "bb"}, Networks: []accounts.SeenNetwork{{Network: "192.0.2.1", At: 3}}, Confirmed: true, Created: 1, LastLogin: 2,
		}
		u2 := accounts.UserRecord{ID: "usr_2", Email: "b@example.com", Role: "viewer", Disabled: true, Created: 3}
		i1 := accounts.Identity{Issuer: "https://idp", Subject: "s'1", User: "usr_1", Created: 4}
		t1 := accounts.Token{Hash: sha256.Sum256([]byte("1")), Kind: "invite", User: "usr_2", Email: "b@example.com", Created: 5, Expires: 6}
		t2 := accounts.Token{Hash: sha256.Sum256([]byte("2")), Kind: "reset", User: "usr_2", Created: 7, Expires: 8}
		k1 := accounts.APIKey{ID: "key_1", Name: "k", Hash: sha256.Sum256([]byte("k")), Scopes: []string{"admin"}, Selector: "group:cold", Owner: "usr_2", Created: 9, LastUsed: 10}
		s1 := accounts.Session{ID: "ses_1", Hash: sha256.Sum256([]byte("3")), Role: "viewer", User: "usr_2", Agent: "B", Address: "::1", Seen: 11, Created: 12, Expires: 13}
		s2 := accounts.Session{ID: "ses_2", Hash: sha256.Sum256([]byte("4")), Role: "admin", Key: "key_1", Created: 14, Expires: 15}
		s3 := accounts.Session{ID: "ses_3", Hash: sha256.Sum256([]byte("5")), Role: "admin", User: "usr_1", Created: 16, Expires: 17}
		want := func(us []accounts.UserRecord, is []accounts.Identity, ts []accounts.Token, ss []accounts.Session, ks []accounts.APIKey) {
			t.Helper()
			users, err := c.Users(ctx)
			wantNil(t, err)
			identities, err := c.Identities(ctx)
			wantNil(t, err)
			tokens, err := c.Tokens(ctx)
			wantNil(t, err)
			sessions, err := c.Sessions(ctx)
			wantNil(t, err)
			keys, err := c.APIKeys(ctx)
			wantNil(t, err)
			type state struct {
				U []accounts.UserRecord
				I []accounts.Identity
				T []accounts.Token
				S []accounts.Session
				K []accounts.APIKey
			}
			if d := cmp.Diff(state{us, is, ts, ss, ks}, state{users, identities, tokens, sessions, keys}); d != "" {
				t.Errorf("accounts differ (-want +got):\n%s", d)
			}
		}
		want(nil, nil, nil, nil, nil)
		wantNil(t, c.InsertAPIKey(ctx, k1))
		wantNil(t, c.WriteAccounts(ctx, accounts.Batch{
			Users: []accounts.UserRecord{u2, u1}, Identities: []accounts.Identity{i1}, Tokens: []accounts.Token{t1, t2}, Sessions: []accounts.Session{s3, s2, s1},
		}))
		want([]accounts.UserRecord{u1, u2}, []accounts.Identity{i1}, []accounts.Token{t1, t2}, []accounts.Session{s1, s2, s3}, []accounts.APIKey{k1})

		t.Run("a batch is written whole or not at all", func(t *testing.T) {
			bad := u2
			bad.Name, bad.Disabled = "changed", false
			err := c.WriteAccounts(ctx, accounts.Batch{
				EndSessions: []accounts.SessionsOf{{User: "usr_2"}}, Users: []accounts.UserRecord{bad}, Identities: []accounts.Identity{i1},
			})
			wantKind(t, err, muster.Conflict)
			other := u2
			other.Email = u1.Email
			if err := c.WriteAccounts(ctx, accounts.Batch{DropTokens: []accounts.TokensOf{{User: "usr_2"}}, Users: []accounts.UserRecord{other}}); err == nil {
				t.Error("two users have one e-mail")
			}
			want([]accounts.UserRecord{u1, u2}, []accounts.Identity{i1}, []accounts.Token{t1, t2}, []accounts.Session{s1, s2, s3}, []accounts.APIKey{k1})
		})
		t.Run("uses are kept, of what is gone nothing", func(t *testing.T) {
			wantNil(t, c.TouchAPIKeys(ctx, []accounts.Use{{ID: "key_0", Seen: 1}, {ID: "key_1", Seen: 20}}))
			wantNil(t, c.TouchSessions(ctx, []accounts.Use{{ID: "ses_0", Seen: 1}, {ID: "ses_1", Seen: 21, Expires: 22}}))
			k1.LastUsed, s1.Seen, s1.Expires = 20, 21, 22
			want([]accounts.UserRecord{u1, u2}, []accounts.Identity{i1}, []accounts.Token{t1, t2}, []accounts.Session{s1, s2, s3}, []accounts.APIKey{k1})
		})
		t.Run("tokens of a kind, and sessions but one, end alone", func(t *testing.T) {
			u1.TOTP, u1.TOTPStep, u1.Recovery = "", 0, nil
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{
				DropTokens: []accounts.TokensOf{{User: "usr_2", Kind: "invite"}}, EndSessions: []accounts.SessionsOf{{User: "usr_2", Except: "ses_1"}},
				Users: []accounts.UserRecord{u1},
			}))
			want([]accounts.UserRecord{u1, u2}, []accounts.Identity{i1}, []accounts.Token{t2}, []accounts.Session{s1, s3}, []accounts.APIKey{k1})
		})
		t.Run("with a user goes all that is his", func(t *testing.T) {
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{Sessions: []accounts.Session{s2}}))
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{DropUsers: []string{"usr_2"}}))
			want([]accounts.UserRecord{u1}, []accounts.Identity{i1}, nil, []accounts.Session{s3}, nil)
			wantNil(t, c.WriteAccounts(ctx, accounts.Batch{DropUsers: []string{"usr_1"}}))
			want(nil, nil, nil, nil, nil)
		})
	})
}

// kept is everything in a room: the accounts on a store, and what they mailed.
type kept struct {
	*accounts.Accounts
	mails chan accounts.Mail
}

func (k kept) Send(_ context.Context, m accounts.Mail) error { k.mails <- m; return nil }

// resetToken runs the loop of mails until the link of a forgotten password comes.
func (k kept) resetToken(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- k.RunMail(ctx) }()
	defer func() { cancel(); wantNil(t, <-done) }()
	for {
		select {
		case m := <-k.mails:
			if _, rest, ok := strings.Cut(m.Text, accounts.PathReset); ok {
				return rest[:26]
			}
		case <-ctx.Done():
			t.Fatal("no link comes")
		}
	}
}

// plainSealer is a Sealer that hides by exclusive or: enough to see whether it is used.
type plainSealer struct{}

func (plainSealer) Seal(plain []byte, bind string) ([]byte, error) {
	out := []byte(bind + "|")
	for _, b := range plain {
		out = append(out, b^0x5a)
	}
	return out, nil
}

func (plainSealer) Open(sealed []byte, bind string) ([]byte, error) {
	rest, ok := strings.CutPrefix(string(sealed), bind+"|")
	if !ok {
		return nil, muster.Errorf(muster.Invalid, "sealed for something else")
	}
	out := []byte(rest)
	for i := range out {
		out[i] ^= 0x5a
	}
	return out, nil
}

func openAccounts(t *testing.T, c *control.Control, now func() time.Time) kept {
	t.Helper()
	k := kept{mails: make(chan accounts.Mail, 100)}
	k.Accounts = accounts.New(c, now, slog.New(slog.DiscardHandler), accounts.Config{
		Sealer: plainSealer{}, CheckSelector: func(string) error { return nil }, CreateUsers: true,
	})
	k.SetMailer(k)
	wantNil(t, k.Load(t.Context()))
	return k
}

// dump is every row of the tables of accounts and of the audit log, as text.
func dump(t *testing.T, h control.Handles) (all, log string) {
	t.Helper()
	for _, table := range []string{"account", "account_token", "account_identity", "session", "api_key", "service_account", "setting"} {
		all += rowsOf(t, h, table)
	}
	log = rowsOf(t, h, "audit")
	return all + log, log
}

func rowsOf(t *testing.T, h control.Handles, table string) string {
	t.Helper()
	rows, err := h.Read.QueryContext(t.Context(), "SELECT * FROM "+table)
	wantNil(t, err)
	defer func() { wantNil(t, rows.Close()) }()
	columns, err := rows.Columns()
	wantNil(t, err)
	var text strings.Builder
	for rows.Next() {
		row := make([]any, len(columns))
		for i := range row {
			row[i] = new(sql.NullString)
		}
		wantNil(t, rows.Scan(row...))
		for _, v := range row {
			text.WriteString(v.(*sql.NullString).String + "\n") //nolint:forcetypeassert // made above
		}
	}
	wantNil(t, rows.Err())
	return text.String()
}

// It goes through what people do, and then looks in the database for every secret that
// was shown, and in the audit log for every hash.
func TestNoSecretIsStoredAndNoHashIsInTheAuditLog(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		h := e.open(t)
		c, err := control.Open(t.Context(), h, e.dialect)
		wantNil(t, err)
		defer func() { wantNil(t, c.Close()) }()
		at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		a := openAccounts(t, c, func() time.Time { return at })
		ctx := func() context.Context {
			return audit.With(t.Context(), audit.Actor{Kind: audit.User, ID: "usr_root", Address: "192.0.2.9"}, func() time.Time { return at })
		}
		const first, second = "planted-password-one", "planted-password-two"
		secrets := []string{first, second}
		root, err := a.CreateUser(ctx(), accounts.NewUser{Email: "root@example.com", Role: accounts.Admin, Password: first})
		wantNil(t, err)
		u, link, err := a.Invite(ctx(), accounts.Principal{Name: "Root", Scopes: []string{accounts.Admin}}, "u@example.com", accounts.Operator)
		wantNil(t, err)
		token := link[len(accounts.PathInvite):]
		cookie, _, err := a.AcceptInvite(ctx(), token, "U", first, accounts.Client{Address: "192.0.2.1", Agent: "B"})
		wantNil(t, err)
		secrets = append(secrets, token, cookie)
		me, err := a.AuthenticateSession(cookie)
		wantNil(t, err)
		wantNil(t, a.ChangePassword(ctx(), me, first, second))
		setup, err := a.BeginTOTP(ctx(), u.ID)
		wantNil(t, err)
		code, err := totp.GenerateCode(setup.Secret, at)
		wantNil(t, err)
		recovery, err := a.ConfirmTOTP(ctx(), u.ID, code)
		wantNil(t, err)
		secrets = append(append(secrets, setup.Secret), recovery...)
		for _, r := range recovery {
			secrets = append(secrets, strings.ReplaceAll(r, "-", ""))
		}
		_, key, err := a.CreateKey(ctx(), accounts.KeySpec{Name: "k", Scopes: []string{accounts.DevicesRead}, Selector: "group:cold", Owner: u.ID})
		wantNil(t, err)
		_, service, err := a.CreateServiceAccount(ctx(), accounts.ServiceSpec{Name: "grafana"})
		wantNil(t, err)
		secrets = append(secrets, key, service)
		wantNil(t, a.ForgotPassword(ctx(), "root@example.com", accounts.Client{}))
		secrets = append(secrets, a.resetToken(t))
		done, cancel := context.WithCancel(t.Context())
		cancel()
		ext, _, err := a.SignInExternal(ctx(), accounts.External{Issuer: "https://idp", Subject: "42", Email: "x@example.com", EmailVerified: true}, accounts.Client{})
		wantNil(t, err)
		secrets = append(secrets, ext)

		a = openAccounts(t, c, func() time.Time { return at.Add(30 * time.Second) })
		again, err := a.AuthenticateSession(cookie)
		wantNil(t, err)
		if d := cmp.Diff(me, again); d != "" {
			t.Errorf("after a restart the session differs: %s", d)
		}
		_, _, err = a.SignInPassword(ctx(), accounts.PasswordLogin{Email: "u@example.com", Password: second, Code: code})
		wantKind(t, err, muster.Unauthorized) // used before the restart
		two, _, err := a.SignInPassword(ctx(), accounts.PasswordLogin{Email: "u@example.com", Password: second, Code: recovery[3]})
		wantNil(t, err)
		who, err := a.Authenticate(key)
		wantNil(t, err)
		if who.Selector != "group:cold" {
			t.Errorf("the key is %+v", who)
		}
		secrets = append(secrets, two)
		wantNil(t, a.Run(done)) // stores when keys were used
		yes := true
		_, err = a.UpdateUser(ctx(), u.ID, accounts.UserChange{Disabled: &yes})
		wantNil(t, err)
		all, log := dump(t, h)
		for i, s := range secrets {
			if strings.Contains(all, s) {
				t.Errorf("secret %d is in the database", i)
			}
			sum := sha256.Sum256([]byte(s))
			if strings.Contains(log, hex.EncodeToString(sum[:])) {
				t.Errorf("the hash of secret %d is in the audit log", i)
			}
		}
		if strings.Contains(log, "argon2") || strings.Contains(log, "totp:") {
			t.Error("a password's hash or a sealed secret is in the audit log")
		}
		for _, action := range []string{
			"user.create", "user.invite", "user.accept", "user.password", "user.totp_on", "user.link", "user.update",
			"session.create", "api_key.create", "service_account.create",
		} {
			if !strings.Contains(log, action+"\n") {
				t.Errorf("the audit log lacks %s", action)
			}
		}
		wantNil(t, a.DeleteUser(ctx(), u.ID))
		wantKind(t, a.DeleteUser(ctx(), root.ID), muster.Conflict)
		a = openAccounts(t, c, func() time.Time { return at })
		if us := a.Users(); len(us) != 2 || len(a.Keys()) != 0 {
			t.Errorf("left are %+v and %d keys", us, len(a.Keys()))
		}
	})
}
