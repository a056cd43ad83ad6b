package accounts_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/accounts"
)

// machine drives accounts by what people do, beside a model that knows for each cookie,
// link and key whether it must work.
type machine struct {
	p     *people
	users map[string]*modelUser // by e-mail
	links []*modelLink
	seats []*modelSession
	keys  []*modelKey
	n     int
}

type modelUser struct {
	id, email, role, password string
	disabled, gone            bool
}

type modelLink struct {
	kind, token string
	user        *modelUser
	until       time.Time
	void        bool
}

type modelSession struct {
	cookie, id string
	user       *modelUser
	used       time.Time
	begun      time.Time
	over       bool
}

type modelKey struct {
	secret string
	scopes []string
	owner  *modelUser
}

func modelPassword(n int) string { return fmt.Sprintf("a good password %d", n) }

func (m *machine) user(t *rapid.T) *modelUser {
	var here []*modelUser
	for _, e := range slices.Sorted(maps.Keys(m.users)) {
		here = append(here, m.users[e])
	}
	return rapid.SampledFrom(here).Draw(t, "user")
}

func (u *modelUser) canEnter() bool { return !u.gone && !u.disabled && u.password != "" }

// lastAdmin says whether nobody else could come in as admin without u.
func (m *machine) lastAdmin(u *modelUser) bool {
	if u.role != accounts.Admin || !u.canEnter() {
		return false
	}
	for _, o := range m.users {
		if o != u && o.role == accounts.Admin && o.canEnter() {
			return false
		}
	}
	return true
}

func (m *machine) voidLinks(u *modelUser, kind string) {
	for _, l := range m.links {
		if l.user == u && (kind == "" || l.kind == kind) {
			l.void = true
		}
	}
}

func (m *machine) endSeats(u *modelUser, except string) {
	for _, s := range m.seats {
		if s.user == u && s.id != except {
			s.over = true
		}
	}
}

func (m *machine) wantErr(t *rapid.T, err error, bad bool, doing string) {
	t.Helper()
	if (err != nil) != bad {
		t.Fatalf("%s: %v, want an error: %v", doing, err, bad)
	}
}

func (m *machine) Invite(t *rapid.T) {
	m.n++
	email, role := fmt.Sprintf("u%d@example.com", m.n), rapid.SampledFrom([]string{accounts.Viewer, accounts.Admin}).Draw(t, "role")
	if rapid.Bool().Draw(t, "again") {
		email = m.user(t).email
	}
	u, known := m.users[email]
	_, link, err := m.p.Invite(context.Background(), byAdmin(), email, role)
	if known && (u.password != "" || u.disabled) {
		m.wantErr(t, err, true, "invite who is here")
		return
	}
	m.wantErr(t, err, false, "invite")
	if !known {
		u = &modelUser{email: email}
		m.users[email] = u
		for _, x := range m.p.Users() {
			if x.Email == email {
				u.id = x.ID
			}
		}
	}
	u.role = role
	m.voidLinks(u, "invite")
	m.link("invite", link[len("https://muster.example"+accounts.PathInvite):], u, 7*24*time.Hour)
}

func (m *machine) link(kind, token string, u *modelUser, life time.Duration) {
	m.links = append(m.links, &modelLink{kind: kind, token: token, user: u, until: m.p.clock.now().Add(life)})
}

func (m *machine) Forgot(t *rapid.T) {
	u := m.user(t)
	if err := m.p.ForgotPassword(context.Background(), u.email, accounts.Client{}); err != nil {
		m.wantErr(t, err, muster.KindOf(err) == muster.Busy, "forgot")
		return
	}
	before := len(m.p.mails.all())
	flush(t, m.p.Accounts)
	for _, mail := range m.p.mails.all()[before:] {
		if mail.Subject == "Set a new password" {
			if u.disabled {
				t.Fatal("a disabled user gets a link")
			}
			m.voidLinks(u, "reset")
			m.link("reset", resetToken(mail.Text), u, time.Hour)
		}
	}
}

func (m *machine) UseLink(t *rapid.T) {
	if len(m.links) == 0 {
		return
	}
	l := rapid.SampledFrom(m.links).Draw(t, "link")
	m.n++
	password := modelPassword(m.n)
	good := !l.void && m.p.clock.now().Before(l.until) && !l.user.disabled && !l.user.gone
	if l.kind == "reset" {
		err := m.p.ResetPassword(context.Background(), l.token, password, m.from())
		m.wantErr(t, err, !good, "reset")
		if good {
			l.user.password = password
			m.voidLinks(l.user, "")
			m.endSeats(l.user, "")
		}
		return
	}
	cookie, s, err := m.p.AcceptInvite(context.Background(), l.token, "N", password, m.from())
	m.wantErr(t, err, !good, "accept")
	if good {
		l.user.password = password
		m.voidLinks(l.user, "")
		m.seat(cookie, s, l.user)
	}
}

// from is another network each time, so that no rate matters.
func (m *machine) from() accounts.Client {
	m.n++
	return accounts.Client{Address: fmt.Sprintf("2001:db8:%x::1", m.n)}
}

func (m *machine) seat(cookie string, s accounts.Session, u *modelUser) {
	now := m.p.clock.now()
	m.seats = append(m.seats, &modelSession{cookie: cookie, id: s.ID, user: u, used: now, begun: now})
}

func (m *machine) SignIn(t *rapid.T) {
	u := m.user(t)
	password := u.password
	if rapid.IntRange(0, 3).Draw(t, "wrong") == 0 {
		password += "?"
	}
	cookie, s, err := m.p.SignInPassword(context.Background(), accounts.PasswordLogin{Email: u.email, Password: password, Client: m.from()})
	if muster.KindOf(err) == muster.Busy && err != nil {
		return
	}
	good := u.canEnter() && password == u.password
	m.wantErr(t, err, !good, "sign in")
	if good {
		m.seat(cookie, s, u)
	}
}

func (m *machine) Change(t *rapid.T) {
	u := m.user(t)
	var c accounts.UserChange
	role, disabled := u.role, u.disabled
	if rapid.Bool().Draw(t, "role or not") {
		role = rapid.SampledFrom([]string{accounts.Viewer, accounts.Operator, accounts.Admin}).Draw(t, "role")
		c.Role = &role
	} else {
		disabled = rapid.Bool().Draw(t, "disabled")
		c.Disabled = &disabled
	}
	refused := m.lastAdmin(u) && (role != accounts.Admin || disabled)
	_, err := m.p.UpdateUser(context.Background(), u.id, c)
	m.wantErr(t, err, refused, "change")
	if refused {
		return
	}
	if disabled && !u.disabled {
		m.endSeats(u, "")
		m.voidLinks(u, "")
	}
	u.role, u.disabled = role, disabled
}

func (m *machine) Delete(t *rapid.T) {
	u := m.user(t)
	refused := m.lastAdmin(u) || len(m.users) == 1
	if len(m.users) == 1 {
		return
	}
	m.wantErr(t, m.p.DeleteUser(context.Background(), u.id), refused, "delete")
	if refused {
		return
	}
	u.gone = true
	delete(m.users, u.email)
	m.endSeats(u, "")
	m.voidLinks(u, "")
}

func (m *machine) ChangePassword(t *rapid.T) {
	var live []*modelSession
	for _, s := range m.seats {
		if m.alive(s) {
			live = append(live, s)
		}
	}
	if len(live) == 0 {
		return
	}
	s := rapid.SampledFrom(live).Draw(t, "session")
	who, err := m.p.AuthenticateSession(s.cookie)
	m.wantErr(t, err, false, "use a session")
	s.used = m.p.clock.now()
	m.n++
	password := modelPassword(m.n)
	m.wantErr(t, m.p.ChangePassword(context.Background(), who, s.user.password, password), false, "change the password")
	s.user.password = password
	m.voidLinks(s.user, "reset")
	m.endSeats(s.user, s.id)
}

func (m *machine) EndOne(t *rapid.T) {
	if len(m.seats) == 0 {
		return
	}
	s := rapid.SampledFrom(m.seats).Draw(t, "session")
	_ = m.p.EndSession(context.Background(), s.id) // may be over already
	s.over = true
}

func (m *machine) MakeKey(t *rapid.T) {
	u := m.user(t)
	scopes := rapid.SampledFrom([][]string{{accounts.DevicesRead}, {accounts.DevicesRead, accounts.DevicesWrite}, {accounts.Admin}}).Draw(t, "scopes")
	_, secret, err := m.p.CreateKey(context.Background(), accounts.KeySpec{Name: "k", Scopes: scopes, Owner: u.id})
	good := !u.disabled && len(allowed(scopes, u.role)) == len(scopes)
	m.wantErr(t, err, !good, "make a key")
	if good {
		m.keys = append(m.keys, &modelKey{secret: secret, scopes: scopes, owner: u})
	}
}

func allowed(scopes []string, role string) (out []string) {
	may := map[string][]string{
		accounts.Viewer: {accounts.DevicesRead}, accounts.Operator: {accounts.DevicesRead, accounts.DevicesWrite},
		accounts.Admin: {accounts.DevicesRead, accounts.DevicesWrite, accounts.Admin},
	}[role]
	for _, s := range scopes {
		if slices.Contains(may, s) {
			out = append(out, s)
		}
	}
	return out
}

func (m *machine) Wait(t *rapid.T) {
	m.p.clock.add(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 26 * time.Hour, 6 * 24 * time.Hour}).Draw(t, "time"))
}

func (m *machine) alive(s *modelSession) bool {
	now := m.p.clock.now()
	return !s.over && !s.user.gone && !s.user.disabled && now.Before(s.begun.Add(accounts.SessionMax)) &&
		now.Before(s.used.Add(accounts.SessionIdle))
}

// look asks of every cookie and key that there ever was whether it works. A session's
// end moves in steps of a day: within that, either is right.
func (m *machine) look(t *rapid.T) {
	now := m.p.clock.now()
	for _, s := range m.seats {
		who, err := m.p.AuthenticateSession(s.cookie)
		if idle := now.Sub(s.used) - accounts.SessionIdle; idle < 0 && idle > -24*time.Hour {
			s.over = s.over || err != nil
		}
		if (err == nil) != m.alive(s) {
			t.Fatalf("a session gives %v, want it alive: %v", err, m.alive(s))
		}
		if err == nil {
			s.used = now
			if who.Role != s.user.role || who.User != s.user.id {
				t.Fatalf("a session has the role %s, its user %s", who.Role, s.user.role)
			}
		}
	}
	for _, k := range m.keys {
		who, err := m.p.Authenticate(k.secret)
		want := !k.owner.gone && !k.owner.disabled
		if (err == nil) != want {
			t.Fatalf("a key gives %v, want it alive: %v", err, want)
		}
		if err == nil && !slices.Equal(who.Scopes, allowed(k.scopes, k.owner.role)) {
			t.Fatalf("a key of a %s has the scopes %v", k.owner.role, who.Scopes)
		}
	}
}

func resetToken(text string) string {
	_, rest, _ := strings.Cut(text, "https://muster.example"+accounts.PathReset)
	return rest[:26]
}

func TestSessionsLinksAndKeysAreLikeTheirModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{p: newPeople(t), users: map[string]*modelUser{}}
		root, err := m.p.CreateUser(context.Background(), accounts.NewUser{Email: "root@example.com", Role: accounts.Admin, Password: modelPassword(0)})
		must(t, err)
		m.users[root.Email] = &modelUser{id: root.ID, email: root.Email, role: accounts.Admin, password: modelPassword(0)}
		restart := func(*rapid.T) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			must(t, m.p.Run(ctx)) // what a stop stores
			m.p.restart(t)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": m.look, "invite": m.Invite, "forgot": m.Forgot, "use a link": m.UseLink, "sign in": m.SignIn, "change": m.Change,
			"delete": m.Delete, "change the password": m.ChangePassword, "end one": m.EndOne, "make a key": m.MakeKey,
			"wait": m.Wait, "restart": restart,
		})
	})
}
