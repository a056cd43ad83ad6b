package devices_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

func mustCreate(t testing.TB, r *devices.Registry, s devices.Spec) devices.Issued {
	t.Helper()
	_, is, err := r.Create(t.Context(), s)
	if err != nil {
		t.Fatalf("create %s: %v", s.ID, err)
	}
	return is
}

func TestACreatedDeviceIsThereAfterARestartWithItsCredential(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	token := mustCreate(t, r, devices.Spec{ID: "a", Name: "Pump", Credential: devices.Token})
	secret := mustCreate(t, r, devices.Spec{ID: "b", Credential: devices.Secret})
	want, _ := r.Get("a")

	again := open(t, m, devices.Options{})
	got, err := again.Get("a")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, r := range []*devices.Registry{r, again} {
		if id, cred, err := r.Authenticate(token.Token, nil); err != nil || id != "a" || cred != token.ID {
			t.Errorf("token gives %q, %v", id, err)
		}
		if id, cred, err := r.Authenticate("b", []byte(secret.Password)); err != nil || id != "b" || cred != secret.ID {
			t.Errorf("secret gives %q, %v", id, err)
		}
	}
	if !strings.HasPrefix(token.Token, "mdt_") || len(token.Token) < 30 || token.Username != token.Token {
		t.Errorf("issued token has the wrong form (%d bytes)", len(token.Token))
	}
	if !strings.HasPrefix(secret.Password, "mds_") || len(secret.Password) < 30 || secret.Username != "b" {
		t.Errorf("issued secret has the wrong form (%d bytes)", len(secret.Password))
	}
}

func TestOnlyTheHashOfACredentialReachesTheStore(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	c := m.creds[is.ID]
	if c.Hash != sha256.Sum256([]byte(is.Token)) || strings.Contains(fmt.Sprintf("%+v", c), is.Token) {
		t.Error("the stored credential is not just the hash")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(verb, is), is.Token) {
			t.Errorf("%s of an issued credential shows the token", verb)
		}
	}
}

func TestWhatCreateRefuses(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	const given = "a-token-chosen-by-hand"
	mustCreate(t, r, devices.Spec{ID: "taken", Credential: devices.Token, Given: given})
	mustCreate(t, r, devices.Spec{ID: "an-id-that-could-be-a-token"})
	tests := []struct {
		name string
		spec devices.Spec
		kind muster.Kind
	}{
		{"an id that is taken", devices.Spec{ID: "taken"}, muster.Conflict},
		{"an id with a slash", devices.Spec{ID: "a/b"}, muster.Invalid},
		{"the id me", devices.Spec{ID: "me"}, muster.Invalid},
		{"a name over 200 bytes", devices.Spec{ID: "x", Name: strings.Repeat("n", 201)}, muster.Invalid},
		{"a name with a newline", devices.Spec{ID: "x", Name: "a\nb"}, muster.Invalid},
		{"a name that is not UTF-8", devices.Spec{ID: "x", Name: "\xff"}, muster.Invalid},
		{"a token that another device has", devices.Spec{ID: "x", Credential: devices.Token, Given: given}, muster.Conflict},
		{"a token that is another device's id", devices.Spec{ID: "x", Credential: devices.Token, Given: "an-id-that-could-be-a-token"}, muster.Conflict},
		{"an id that is another device's token", devices.Spec{ID: given}, muster.Conflict},
		{"a token of 19 characters", devices.Spec{ID: "x", Credential: devices.Token, Given: strings.Repeat("t", 19)}, muster.Invalid},
		{"a token with a space", devices.Spec{ID: "x", Credential: devices.Token, Given: strings.Repeat("t ", 19)}, muster.Invalid},
		{"a secret of 15 bytes", devices.Spec{ID: "x", Credential: devices.Secret, Given: strings.Repeat("t", 15)}, muster.Invalid},
		{"a secret with a control character", devices.Spec{ID: "x", Credential: devices.Secret, Given: strings.Repeat("t", 15) + "\n"}, muster.Invalid},
		{"an unknown kind", devices.Spec{ID: "x", Credential: "x509"}, muster.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := r.Create(t.Context(), tt.spec)
			wantKind(t, err, tt.kind)
			if tt.spec.Given != "" && err != nil && strings.Contains(err.Error(), tt.spec.Given) {
				t.Error("the error echoes the token or secret")
			}
			if r.Count() != 2 || len(m.devices) != 2 {
				t.Errorf("there are %d devices in memory and %d in the store, want 2", r.Count(), len(m.devices))
			}
		})
	}
}

func TestCreateManyIsAllOrNothing(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "m"})
	_, _, err := r.CreateMany(t.Context(), []devices.Spec{{ID: "z"}, {ID: "a"}, {ID: "z"}})
	wantKind(t, err, muster.Conflict)
	tok := strings.Repeat("t", 20)
	_, _, err = r.CreateMany(t.Context(), []devices.Spec{
		{ID: "z", Credential: devices.Token, Given: tok},
		{ID: "a", Credential: devices.Token, Given: tok},
	})
	wantKind(t, err, muster.Conflict)
	_, _, err = r.CreateMany(t.Context(), make([]devices.Spec, devices.MaxBatch+1))
	wantKind(t, err, muster.TooLarge)
	if r.Count() != 1 {
		t.Errorf("count is %d, want 1", r.Count())
	}
	ds, is, err := r.CreateMany(t.Context(), []devices.Spec{{ID: "z", Credential: devices.Token}, {ID: "a"}, {ID: "p", Credential: devices.Secret}})
	if err != nil {
		t.Fatal(err)
	}
	if ds[0].ID != "z" || is[0].Token == "" || is[1] != (devices.Issued{}) || is[2].Password == "" {
		t.Error("results are not in the order of the specs")
	}
	if got := listIDs(t, r, 10, ""); !cmp.Equal(got, []muster.DeviceID{"a", "m", "p", "z"}) {
		t.Errorf("list is %v", got)
	}
}

func TestAFailedStoreChangesNothingInMemory(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	m.setDown(true)
	if _, _, err := r.Create(t.Context(), devices.Spec{ID: "b"}); err == nil {
		t.Error("create succeeded without a store")
	}
	if _, err := r.AddCredential(t.Context(), "a", devices.Secret, ""); err == nil {
		t.Error("add credential succeeded without a store")
	}
	if err := r.RemoveCredential(t.Context(), "a", is.ID); err == nil {
		t.Error("remove credential succeeded without a store")
	}
	if err := r.Delete(t.Context(), "a", devices.KeepData); err == nil {
		t.Error("delete succeeded without a store")
	}
	if _, _, err := r.Authenticate(is.Token, nil); err != nil || r.Count() != 1 {
		t.Errorf("memory changed: %v, %d devices", err, r.Count())
	}
}

func TestACallerWhoGoesAwayDoesNotTearMemoryAndStoreApart(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := r.Create(ctx, devices.Spec{ID: "a"})
	if _, inMemory := r.Get("a"); (err == nil) != (inMemory == nil) || len(m.devices) != r.Count() {
		t.Errorf("create gave %v; memory has %d devices, the store %d", err, r.Count(), len(m.devices))
	}
}

func TestDeletingOrRevokingEndsTheRightAndReportsTheDevice(t *testing.T) {
	l := &live{}
	r := open(t, newMemory(), devices.Options{OnRights: l.affected})
	first := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Secret})
	second, err := r.AddCredential(t.Context(), "a", devices.Secret, "")
	if err != nil {
		t.Fatal(err)
	}
	token, err := r.AddCredential(t.Context(), "a", devices.Token, "given-token-given-token")
	if err != nil {
		t.Fatal(err)
	}
	l.connections = []connection{{"a", first.ID}, {"a", second.ID}, {"a", token.ID}, {"b", "cred_b"}}
	if err := r.RemoveCredential(t.Context(), "a", first.ID); err != nil {
		t.Fatal(err)
	}
	l.want(t, connection{"a", first.ID})
	wantKind(t, r.RemoveCredential(t.Context(), "a", first.ID), muster.NotFound)
	wantKind(t, r.RemoveCredential(t.Context(), "nobody", first.ID), muster.NotFound)
	_, _, err = r.Authenticate("a", []byte(first.Password))
	wantKind(t, err, muster.Unauthorized)
	if _, _, err := r.Authenticate("a", []byte(second.Password)); err != nil {
		t.Errorf("the other secret stopped working: %v", err)
	}
	made, _ := r.Made("a")
	if d, err := r.Get("a"); err != nil || made == 0 || made != d.Created {
		t.Errorf("it was made at %d, not %d, %v", made, d.Created, err)
	}
	if err := r.Delete(t.Context(), "a", devices.KeepData); err != nil {
		t.Fatal(err)
	}
	if at, ok := r.Made("a"); ok || at != 0 {
		t.Errorf("what was deleted was made at %d", at)
	}
	l.want(t, l.connections[:3]...)
	wantKind(t, r.Delete(t.Context(), "a", devices.KeepData), muster.NotFound)
	_, _, err = r.Authenticate(token.Token, nil)
	wantKind(t, err, muster.Unauthorized)
	_, err = r.Credentials("a")
	wantKind(t, err, muster.NotFound)
	r.Connected(devices.Connection{Device: "a", Session: 1})
	l.want(t, l.connections[:3]...) // the connection that came after the deletion
	if c := r.Counts(); c["never"]+c["online"] != 0 {
		t.Errorf("counts still has the deleted device: %v", c)
	}
	mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token, Given: token.Token})
}

func TestADeviceHasABoundedNumberOfCredentials(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	for range devices.MaxCredentials {
		if _, err := r.AddCredential(t.Context(), "a", devices.Token, ""); err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.AddCredential(t.Context(), "a", devices.Token, "")
	wantKind(t, err, muster.Conflict)
	cs, err := r.Credentials("a")
	if err != nil || len(cs) != devices.MaxCredentials {
		t.Errorf("%d credentials, %v", len(cs), err)
	}
}

func TestWhoIsNotLetIn(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	token := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	secret := mustCreate(t, r, devices.Spec{ID: "b", Credential: devices.Secret})
	tests := []struct {
		name, user, password string
		want                 muster.DeviceID
	}{
		{"a token with any password is let in", token.Token, "whatever", "a"},
		{"an id without its secret is not", "b", "", ""},
		{"an id with another's secret is not", "a", secret.Password, ""},
		{"a secret as user name is not", secret.Password, "", ""},
		{"a token as password is not", "a", token.Token, ""},
		{"an unknown user is not", "nobody", "x", ""},
		{"nobody is not", "", "", ""},
		{"a very long user name is not", strings.Repeat("x", 70_000), "", ""},
		{"a token with one more letter is not", token.Token + "A", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, _, err := r.Authenticate(tt.user, []byte(tt.password))
			if id != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v", id, err)
			}
			if err != nil {
				wantKind(t, err, muster.Unauthorized)
				if err.Error() != "bad user name or password" {
					t.Errorf("the answer gives something away: %v", err)
				}
			}
		})
	}
}

func selected(t testing.TB, r *devices.Registry, q string, s devices.Selection) devices.Selected {
	t.Helper()
	var err error
	if s.Query, err = r.Compile(q); err != nil {
		t.Fatal(err)
	}
	page, err := r.Select(s)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func listIDs(t testing.TB, r *devices.Registry, limit int, q string) []muster.DeviceID {
	t.Helper()
	var ids []muster.DeviceID
	for after := ""; ; {
		page := selected(t, r, q, devices.Selection{After: after, Limit: limit})
		for _, d := range page.Devices {
			ids = append(ids, d.ID)
		}
		if after = page.Next; after == "" {
			return ids
		}
	}
}

func TestListPagesBytewiseAndStaysStableUnderChange(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	var specs []devices.Spec
	for i := range 5000 {
		specs = append(specs, devices.Spec{ID: muster.DeviceID(fmt.Sprintf("dev-%04d", i)), Name: fmt.Sprintf("Kühl %d", i%7)})
	}
	if _, _, err := r.CreateMany(t.Context(), specs); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, r, devices.Spec{ID: "Zeta"})
	for _, limit := range []int{1, 7, 1000, 2047, 2048, 5001, 9999} {
		got := listIDs(t, r, limit, "")
		if len(got) != 5001 || got[0] != "Zeta" || got[5000] != "dev-4999" {
			t.Fatalf("limit %d lists %d devices", limit, len(got))
		}
	}
	if got := listIDs(t, r, 100, `"KüHL 3"`); len(got) != 714 {
		t.Errorf("a search by name finds %d, want 714", len(got))
	}
	if got := listIDs(t, r, 100, "DEV-00"); len(got) != 100 {
		t.Errorf("a search by id finds %d, want 100", len(got))
	}
	page := selected(t, r, "", devices.Selection{Limit: 2})
	next := page.Next
	if err := r.Delete(t.Context(), page.Devices[1].ID, devices.KeepData); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, r, devices.Spec{ID: "A-before-the-cursor"})
	if page = selected(t, r, "", devices.Selection{After: next, Limit: 1}); page.Devices[0].ID != "dev-0001" {
		t.Errorf("after the cursor comes %s, want dev-0001", page.Devices[0].ID)
	}
	if page = selected(t, r, "", devices.Selection{Total: true}); len(page.Devices) != 0 || page.Total != 5001 {
		t.Errorf("limit 0 lists %d of %d", len(page.Devices), page.Total)
	}
}

func TestWatchersHearOfEveryChangeAndMayCallBack(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	var heard []muster.DeviceID
	cancel := r.Watch(func(ids []muster.DeviceID) {
		heard = append(heard, ids...)
		if len(heard) == 1 {
			mustCreate(t, r, devices.Spec{ID: "from-the-watcher"})
		}
	})
	is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	if err := r.RemoveCredential(t.Context(), "a", is.ID); err != nil {
		t.Fatal(err)
	}
	c := devices.Connection{Device: "a", Session: 1, At: at(1)}
	r.Connected(c)
	r.Deliver()
	r.Disconnected(c, "disconnected", at(2))
	r.Deliver()
	if err := r.Delete(t.Context(), "a", devices.KeepData); err != nil {
		t.Fatal(err)
	}
	cancel()
	mustCreate(t, r, devices.Spec{ID: "unheard"})
	if want := []muster.DeviceID{"a", "from-the-watcher", "a", "a", "a", "a"}; !cmp.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}

func TestConcurrentUseKeepsMemoryAndStoreEqual(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{OnRights: func(func(muster.DeviceID, string) bool) {}})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range 300 {
				id := muster.DeviceID(fmt.Sprintf("d%d", rng.IntN(20)))
				_, is, err := r.Create(t.Context(), devices.Spec{ID: id, Credential: devices.Secret})
				if err == nil {
					c := devices.Connection{Device: id, Session: rng.Uint64()}
					r.Connected(c)
					_, _, _ = r.Authenticate(string(id), []byte(is.Password)) // another worker may have deleted it
					selected(t, r, "d", devices.Selection{Limit: 5})
					r.Disconnected(c, "closed", at(1))
				}
				if rng.IntN(2) == 0 {
					_ = r.Delete(t.Context(), id, devices.KeepData) // NotFound when another worker was first
				}
			}
		})
	}
	wg.Wait()
	if got := listIDs(t, r, 3, ""); len(got) != len(m.devices) || r.Count() != len(got) {
		t.Errorf("memory has %d devices, the store %d", len(got), len(m.devices))
	}
	sum := 0
	for _, n := range r.Counts() {
		sum += n
	}
	if sum != r.Count() {
		t.Errorf("presence counts %d devices of %d", sum, r.Count())
	}
}

// filled returns a registry of n devices with a token each, and the tokens.
func filled(b *testing.B, n int) (*devices.Registry, []string) {
	b.Helper()
	r := open(b, newMemory(), devices.Options{})
	var tokens []string
	for from := 0; from < n; from += devices.MaxBatch {
		var specs []devices.Spec
		for i := range min(devices.MaxBatch, n-from) {
			specs = append(specs, devices.Spec{ID: muster.DeviceID(fmt.Sprintf("device-%06d", from+i)), Credential: devices.Token})
		}
		_, is, err := r.CreateMany(b.Context(), specs)
		if err != nil {
			b.Fatal(err)
		}
		for _, i := range is {
			tokens = append(tokens, i.Token)
		}
	}
	return r, tokens
}

func BenchmarkAuthenticateAmong100kDevices(b *testing.B) {
	r, tokens := filled(b, 100_000)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, _, err := r.Authenticate(tokens[i*7919%len(tokens)], nil); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkListSearchWithoutAMatchIn100kDevices(b *testing.B) {
	r, _ := filled(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if page := selected(b, r, "nosuchdevice", devices.Selection{Limit: 100}); len(page.Devices) != 0 {
			b.Fatal("found something")
		}
	}
}

func BenchmarkConnectAndDisconnectAmong100kDevices(b *testing.B) {
	r, _ := filled(b, 100_000)
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		c := devices.Connection{Device: muster.DeviceID(fmt.Sprintf("device-%06d", i%100_000)), Session: i}
		r.Connected(c)
		r.Disconnected(c, "closed", at(1))
	}
}
