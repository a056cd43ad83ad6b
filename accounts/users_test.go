package accounts_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
)

func TestWhatCreateUserRefuses(t *testing.T) {
	p := newPeople(t)
	p.user(t, "taken@example.com", accounts.Viewer)
	good := accounts.NewUser{Email: "new@example.com", Name: "New", Role: accounts.Viewer, Password: goodPassword}
	tests := []struct {
		name   string
		change func(*accounts.NewUser)
		kind   muster.Kind
	}{
		{"no e-mail", func(n *accounts.NewUser) { n.Email = "" }, muster.Invalid},
		{"an e-mail without @", func(n *accounts.NewUser) { n.Email = "new.example.com" }, muster.Invalid},
		{"an e-mail with a name", func(n *accounts.NewUser) { n.Email = "New <new@example.com>" }, muster.Invalid},
		{"two e-mails", func(n *accounts.NewUser) { n.Email = "a@example.com,b@example.com" }, muster.Invalid},
		{"a header in an e-mail", func(n *accounts.NewUser) { n.Email = "a@example.com\r\nBcc: b@example.com" }, muster.Invalid},
		{"an e-mail that only looks like another", func(n *accounts.NewUser) { n.Email = "tаken@example.com" }, muster.Invalid},
		{"an e-mail of 161 bytes", func(n *accounts.NewUser) { n.Email = strings.Repeat("a", 50) + "@" + strings.Repeat("b", 106) + ".com" }, muster.Invalid},
		{"a taken e-mail in other letters", func(n *accounts.NewUser) { n.Email = "TAKEN@example.com" }, muster.Conflict},
		{"a name with a newline", func(n *accounts.NewUser) { n.Name = "a\nb" }, muster.Invalid},
		{"a name of 201 bytes", func(n *accounts.NewUser) { n.Name = strings.Repeat("n", 201) }, muster.Invalid},
		{"no role", func(n *accounts.NewUser) { n.Role = "" }, muster.Invalid},
		{"an unknown role", func(n *accounts.NewUser) { n.Role = "root" }, muster.Invalid},
		{"a password of 9 characters", func(n *accounts.NewUser) { n.Password = "ëëëëëëëëë" }, muster.Invalid},
		{"a password of 129 characters", func(n *accounts.NewUser) { n.Password = strings.Repeat("p", 129) }, muster.Invalid},
		{"a password that is no text", func(n *accounts.NewUser) { n.Password = "\xff\xfe" + goodPassword }, muster.Invalid},
		{"the e-mail as password", func(n *accounts.NewUser) { n.Password = "NEW@example.com" }, muster.Invalid},
		{"the name as password", func(n *accounts.NewUser) { n.Name, n.Password = "Maria Mustermann", " maria mustermann" }, muster.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := good
			tt.change(&n)
			_, err := p.CreateUser(t.Context(), n)
			wantKind(t, err, tt.kind)
			if n.Password != "" && err != nil && strings.Contains(err.Error(), n.Password) {
				t.Error("the error echoes the password")
			}
		})
	}
	if n := len(p.Users()); n != 1 {
		t.Errorf("there are %d users", n)
	}
	good.Password = strings.Repeat("ë", 128)
	_, err := p.CreateUser(t.Context(), good)
	must(t, err)
	must(t, p.try(t, accounts.PasswordLogin{Email: good.Email, Password: good.Password}))
	wantKind(t, p.try(t, accounts.PasswordLogin{Email: good.Email, Password: good.Password + "ë"}), muster.Unauthorized)
}

func TestAChangeOfRoleCountsAtOnceAndCutsConnections(t *testing.T) {
	p := newPeople(t)
	p.user(t, "other@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Admin)
	cookie, s := p.signIn(t, "u@example.com")
	k, secret, err := p.CreateKey(t.Context(), accounts.KeySpec{Name: "mine", Scopes: []string{accounts.DevicesRead, accounts.DevicesWrite, accounts.MQTT}, Owner: u.ID})
	must(t, err)
	got, err := p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Role: new(accounts.Viewer)})
	must(t, err)
	if got.Role != accounts.Viewer {
		t.Errorf("the role is %s", got.Role)
	}
	for range 2 {
		if who := p.principal(t, cookie); who.Role != accounts.Viewer || who.Allows(accounts.DevicesWrite) {
			t.Errorf("the session is %+v", who)
		}
		who, err := p.Authenticate(secret)
		must(t, err)
		if d := cmp.Diff([]string{accounts.DevicesRead, accounts.MQTT}, who.Scopes); d != "" {
			t.Errorf("the key's scopes differ: %s", d)
		}
		if c, err := p.AuthenticateMQTT(secret, nil); err != nil || len(c.Subscribe) != 3 {
			t.Errorf("over MQTT it is %+v, %v", c, err)
		}
		p.restart(t)
	}
	p.takeEnded()
	_, err = p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Role: new(accounts.Operator)})
	must(t, err)
	if d := cmp.Diff(map[string]bool{s.ID: true, k.ID: true, u.ID: true}, p.takeEnded()); d != "" {
		t.Errorf("told to be cut: %s", d)
	}
	if !slices.Contains(p.cut, k.ID) {
		t.Error("the key's MQTT connections are not looked at again")
	}
	if who, err := p.Authenticate(secret); err != nil || !who.Allows(accounts.DevicesWrite) {
		t.Errorf("the key may not what its owner may again: %+v, %v", who, err)
	}
}

func TestADisabledUserIsOutInEveryWayAtOnce(t *testing.T) {
	p := newPeople(t)
	p.user(t, "admin@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Admin)
	cookie, s := p.signIn(t, "u@example.com")
	k, secret, err := p.CreateKey(t.Context(), accounts.KeySpec{Name: "mine", Scopes: []string{accounts.Admin}, Owner: u.ID})
	must(t, err)
	byKey, ks, err := p.SignIn(t.Context(), secret)
	must(t, err)
	free, freeSecret := mustKey(t, p.Accounts, accounts.Admin)
	_, err = p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Disabled: new(true)})
	must(t, err)
	ended := p.takeEnded()
	for range 2 {
		for _, c := range []string{cookie, byKey} {
			_, err = p.AuthenticateSession(c)
			wantKind(t, err, muster.Unauthorized)
		}
		_, err = p.Authenticate(secret)
		wantKind(t, err, muster.Unauthorized)
		_, err = p.AuthenticateMQTT(secret, nil)
		wantKind(t, err, muster.Unauthorized)
		_, err = p.RefreshMQTT(k.ID)
		wantKind(t, err, muster.Unauthorized)
		_, _, err = p.SignIn(t.Context(), secret)
		wantKind(t, err, muster.Unauthorized)
		wantKind(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword}), muster.Unauthorized)
		if _, err := p.Authenticate(freeSecret); err != nil {
			t.Errorf("another's key is refused: %v", err)
		}
		p.restart(t)
	}
	if d := cmp.Diff(map[string]bool{s.ID: true, ks.ID: true, k.ID: true, u.ID: true}, ended); d != "" {
		t.Errorf("told to be cut: %s", d)
	}
	if ended[free.ID] || len(p.store.sessions) != 0 {
		t.Errorf("the store has %d sessions", len(p.store.sessions))
	}
	_, err = p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Disabled: new(false)})
	must(t, err)
	if _, err := p.Authenticate(secret); err != nil {
		t.Errorf("the key of who is enabled again is refused: %v", err)
	}
	_, err = p.AuthenticateSession(cookie)
	wantKind(t, err, muster.Unauthorized)
}

func TestWithAUserGoesAllThatIsHis(t *testing.T) {
	p := newPeople(t, func(c *accounts.Config) { c.LinkByEmail = true })
	p.user(t, "admin@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Operator)
	cookie, _ := p.signIn(t, "u@example.com")
	_, secret, err := p.CreateKey(t.Context(), accounts.KeySpec{Name: "mine", Scopes: []string{accounts.DevicesRead}, Owner: u.ID})
	must(t, err)
	must(t, p.RequestConfirm(t.Context(), u.ID))
	must(t, p.DeleteUser(t.Context(), u.ID))
	wantKind(t, p.DeleteUser(t.Context(), u.ID), muster.NotFound)
	for range 2 {
		_, err = p.AuthenticateSession(cookie)
		wantKind(t, err, muster.Unauthorized)
		_, err = p.Authenticate(secret)
		wantKind(t, err, muster.Unauthorized)
		_, err = p.User(u.ID)
		wantKind(t, err, muster.NotFound)
		p.restart(t)
	}
	if len(p.store.users) != 1 || len(p.store.keys)+len(p.store.sessions)+len(p.store.tokens) != 0 {
		t.Errorf("left: %d users, %d keys, %d sessions, %d tokens", len(p.store.users), len(p.store.keys), len(p.store.sessions), len(p.store.tokens))
	}
	again := p.user(t, "u@example.com", accounts.Viewer)
	if again.ID == u.ID {
		t.Error("the next of this e-mail has the same id")
	}
}

func TestTheLastAdminWhoCanComeInStays(t *testing.T) {
	p := newPeople(t)
	must(t, p.EnsureAdminKey(t.Context(), "mst_the-admin-key-0123456789"))
	a := p.user(t, "a@example.com", accounts.Admin)
	// An invited admin and a disabled one are none who can come in.
	invited, _, err := p.Invite(t.Context(), accounts.Principal{Scopes: []string{accounts.Admin}}, "i@example.com", accounts.Admin)
	must(t, err)
	off := p.user(t, "off@example.com", accounts.Admin)
	_, err = p.UpdateUser(t.Context(), off.ID, accounts.UserChange{Disabled: new(true)})
	must(t, err)
	refused := func() {
		t.Helper()
		wantKind(t, p.DeleteUser(t.Context(), a.ID), muster.Conflict)
		for _, c := range []accounts.UserChange{{Disabled: new(true)}, {Role: new(accounts.Operator)}} {
			_, err := p.UpdateUser(t.Context(), a.ID, c)
			wantKind(t, err, muster.Conflict)
		}
	}
	refused()
	p.restart(t)
	refused()
	if u, err := p.User(a.ID); err != nil || u.Role != accounts.Admin || u.Disabled {
		t.Errorf("the admin is %+v, %v", u, err)
	}
	must(t, p.DeleteUser(t.Context(), invited.ID))
	_, err = p.UpdateUser(t.Context(), off.ID, accounts.UserChange{Disabled: new(false)})
	must(t, err)
	must(t, p.DeleteUser(t.Context(), a.ID))
	a = off
	refused()
}

func TestUpdateUserChangesAllPartsOrNone(t *testing.T) {
	p := newPeople(t)
	p.user(t, "admin@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Viewer)
	for name, c := range map[string]accounts.UserChange{
		"a bad role":    {Name: new("New"), Role: new("root")},
		"a bad name":    {Role: new(accounts.Operator), Name: new("\x00")},
		"a bad e-mail":  {Name: new("New"), Email: new("x")},
		"a taken one":   {Name: new("New"), Email: new("Admin@example.com")},
		"what If meant": {Name: new("New"), If: func(now accounts.User) error { return muster.Errorf(muster.Stale, "it is %s", now.Name) }},
	} {
		_, err := p.UpdateUser(t.Context(), u.ID, c)
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	now, err := p.User(u.ID)
	must(t, err)
	if d := cmp.Diff(u, now); d != "" {
		t.Error(d)
	}
	now, err = p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Name: new("New"), Email: new("New@example.com"), If: func(accounts.User) error { return nil }})
	must(t, err)
	u.Name, u.Email = "New", "new@example.com"
	if d := cmp.Diff(u, now); d != "" {
		t.Error(d)
	}
	p.signIn(t, "new@example.com")
	wantKind(t, p.try(t, accounts.PasswordLogin{Email: "u@example.com", Password: goodPassword}), muster.Unauthorized)
	p.user(t, "u@example.com", accounts.Viewer) // the old address is free
	_, err = p.UpdateUser(t.Context(), "usr_nobody", accounts.UserChange{})
	wantKind(t, err, muster.NotFound)
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	p := newPeople(t)
	a, b := p.user(t, "a@example.com", accounts.Admin), p.user(t, "b@example.com", accounts.Viewer)
	var cookies []string
	var ids []string
	for _, email := range []string{"a@example.com", "a@example.com", "a@example.com", "b@example.com"} {
		p.clock.add(time.Second)
		c, s := p.signIn(t, email)
		cookies, ids = append(cookies, c), append(ids, s.ID)
	}
	list := func(user string) (out []string) {
		for _, s := range p.Sessions(user) {
			out = append(out, s.ID)
		}
		return out
	}
	for _, tt := range []struct {
		name, user string
		want       []string
	}{
		{"of one, newest first", a.ID, []string{ids[2], ids[1], ids[0]}},
		{"of all", "", []string{ids[3], ids[2], ids[1], ids[0]}},
		{"of nobody", "usr_nobody", nil},
	} {
		if d := cmp.Diff(tt.want, list(tt.user)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	must(t, p.EndSession(t.Context(), ids[0]))
	wantKind(t, p.EndSession(t.Context(), ids[0]), muster.NotFound)
	must(t, p.EndSessions(t.Context(), a.ID, ids[2]))
	wantKind(t, p.EndSessions(t.Context(), "usr_nobody", ""), muster.NotFound)
	p.restart(t)
	if d := cmp.Diff([]string{ids[2]}, list(a.ID)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{ids[3]}, list(b.ID)); d != "" {
		t.Error(d)
	}
	for i, c := range cookies {
		_, err := p.AuthenticateSession(c)
		if (err == nil) != (i >= 2) {
			t.Errorf("session %d gives %v", i, err)
		}
	}
	p.clock.add(accounts.SessionIdle)
	if got := list(""); got != nil {
		t.Errorf("expired sessions are listed: %v", got)
	}
}

func TestAUserHasAHundredSessionsAtMostAndTakesNoOthers(t *testing.T) {
	p := newPeople(t)
	p.user(t, "a@example.com", accounts.Admin)
	u := p.user(t, "b@example.com", accounts.Viewer)
	keep, _ := p.signIn(t, "a@example.com")
	first, _ := p.signIn(t, "b@example.com")
	for range accounts.MaxUserSessions {
		p.clock.add(time.Second)
		p.signIn(t, "b@example.com")
	}
	if n := len(p.Sessions(u.ID)); n != accounts.MaxUserSessions {
		t.Errorf("there are %d sessions", n)
	}
	p.principal(t, keep)
	_, err := p.AuthenticateSession(first)
	wantKind(t, err, muster.Unauthorized)
}

func TestKeysHaveASelectorAnOwnerAndALastUse(t *testing.T) {
	p := newPeople(t)
	admin := p.user(t, "admin@example.com", accounts.Admin)
	op := p.user(t, "op@example.com", accounts.Operator)
	spec := accounts.KeySpec{Name: "k", Scopes: allReads, Selector: "group:cold", Owner: admin.ID}
	for _, tt := range []struct {
		name   string
		change func(*accounts.KeySpec)
		kind   muster.Kind
	}{
		{"a selector that is no query", func(s *accounts.KeySpec) { s.Selector = "(" }, muster.Invalid},
		{"a selector beside admin", func(s *accounts.KeySpec) { s.Scopes = []string{accounts.Admin} }, muster.Invalid},
		{"an owner who is not there", func(s *accounts.KeySpec) { s.Owner = "usr_nobody" }, muster.NotFound},
		{"an owner who may less", func(s *accounts.KeySpec) {
			s.Owner, s.Selector, s.Scopes = op.ID, "", []string{accounts.Admin}
		}, muster.Forbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec
			tt.change(&s)
			_, _, err := p.CreateKey(t.Context(), s)
			wantKind(t, err, tt.kind)
		})
	}
	k, secret, err := p.CreateKey(t.Context(), spec)
	must(t, err)
	p.restart(t)
	who, err := p.Authenticate(secret)
	must(t, err)
	if who.Selector != "group:cold" || who.User != "" {
		t.Errorf("the key is %+v", who)
	}
	cookie, _, err := p.SignIn(t.Context(), secret)
	must(t, err)
	if s := p.principal(t, cookie); s.Selector != "group:cold" || s.User != "" {
		t.Errorf("a session made with it is %+v", s)
	}
	got, err := p.Key(k.ID)
	must(t, err)
	if got.LastUsed != muster.MicrosOf(p.clock.now()) || p.store.keys[k.ID].LastUsed != 0 {
		t.Errorf("last used %v, stored %v", got.LastUsed, p.store.keys[k.ID].LastUsed)
	}
	stop := running(t, p.Accounts)
	stop() // stores it
	p.clock.add(time.Hour)
	p.restart(t)
	if again, err := p.Key(k.ID); err != nil || again.LastUsed != got.LastUsed {
		t.Errorf("after a restart it was used %v, %v", again.LastUsed, err)
	}
	p.TouchKey(k.ID)
	p.TouchKey("key_nobody")
	if again, err := p.Key(k.ID); err != nil || again.LastUsed != muster.MicrosOf(p.clock.now()) {
		t.Errorf("touched, it was used %v, %v", again.LastUsed, err)
	}
	if _, err := p.Key("key_nobody"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("an unknown key gives %v", err)
	}
}

func TestAStoreThatIsDownChangesNobody(t *testing.T) {
	p := newPeople(t)
	p.user(t, "admin@example.com", accounts.Admin)
	u := p.user(t, "u@example.com", accounts.Viewer)
	cookie, _ := p.signIn(t, "u@example.com")
	p.store.down = true
	if _, err := p.UpdateUser(t.Context(), u.ID, accounts.UserChange{Role: new(accounts.Admin)}); err == nil {
		t.Error("a role was changed without a store")
	}
	if err := p.DeleteUser(t.Context(), u.ID); err == nil {
		t.Error("a user was deleted without a store")
	}
	if _, err := p.CreateUser(t.Context(), accounts.NewUser{Email: "n@example.com", Role: accounts.Viewer}); err == nil {
		t.Error("a user was made without a store")
	}
	p.store.down = false
	if who := p.principal(t, cookie); who.Role != accounts.Viewer {
		t.Errorf("the session is %+v", who)
	}
	if n := len(p.Users()); n != 2 {
		t.Errorf("there are %d users", n)
	}
}

func TestWhatABrowserCallsItselfIsKeptShortAndPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"Mozilla/5.0 (X11)":               "Mozilla/5.0 (X11)",
		"a\r\nSet-Cookie: x\x00\xffb":     "aSet-Cookie: xb",
		"Größe":                           "Größe",
		strings.Repeat("x", 10_000):       strings.Repeat("x", 197),
		strings.Repeat("x", 198) + "\xf0": strings.Repeat("x", 197),
	} {
		if got := accounts.AgentOf(in); got != want {
			t.Errorf("%.20q becomes %q", in, got)
		}
	}
	if got := accounts.AgentOf(strings.Repeat("é", 500)); len(got) > 200 || got != strings.Repeat("é", len(got)/2) {
		t.Errorf("it becomes %d bytes", len(got))
	}
}
