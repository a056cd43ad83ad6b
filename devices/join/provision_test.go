package join_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/join"
)

const (
	key    = "line-3-key"
	secret = "line-3-secret-0000"
)

// provisioned is a rig whose profile "meter" lets devices register themselves.
func provisioned(t testing.TB, s join.Strategy) *rig {
	t.Helper()
	r := newRig(t)
	must(t, r.registry.PutProfile(t.Context(), devices.Profile{Name: "meter"}))
	_, shown, err := r.PutProvisioning(t.Context(), "meter", join.ProvisioningSpec{Strategy: s, Key: key, Secret: secret})
	must(t, err)
	if shown != "" {
		t.Errorf("a secret that was given is shown: %q", shown)
	}
	return r
}

func request(id string, change ...func(*join.Request)) join.Request {
	q := join.Request{ProfileKey: key, ProfileSecret: secret, ID: id}
	for _, c := range change {
		c(&q)
	}
	return q
}

const from = "10.0.0.1:5000"

func TestADeviceRegistersItselfWithTheCredentialItAsksFor(t *testing.T) {
	r := provisioned(t, join.Create)
	cert := r.issue(pair{}, "whatever", nil)
	hash, err := devices.KeyHash(cert.cert)
	must(t, err)
	for _, tt := range []struct {
		name  string
		ask   join.Request
		want  join.Response // without what Muster makes
		enter func(res join.Response) (muster.DeviceID, string, error)
	}{
		{"a token made for it", request("t1"), join.Response{Credential: "token"}, nil},
		{"its own token", request("t2", func(q *join.Request) { q.Token = "a-token-of-its-own-0" }), join.Response{Credential: "token", Token: "a-token-of-its-own-0", Username: "a-token-of-its-own-0"}, nil},
		{"a secret made for it", request("s1", func(q *join.Request) { q.Credential = "secret" }), join.Response{Credential: "secret", Username: "s1"}, nil},
		{"its own secret", request("s2", func(q *join.Request) { q.Password = "a secret of its own" }), join.Response{Credential: "secret", Username: "s2", Password: "a secret of its own"}, nil},
		{"its own user name", request("b1", func(q *join.Request) { q.Username, q.Password = "user", "a secret of its own" }), join.Response{Credential: "basic", Username: "user", Password: "a secret of its own"}, func(res join.Response) (muster.DeviceID, string, error) {
			return r.registry.AuthenticateWhole(devices.Basic, "any", res.Username, []byte(res.Password))
		}},
		{"its own user name and client id", request("b2", func(q *join.Request) { q.Username, q.ClientID = "user2", "client" }), join.Response{Credential: "basic", Username: "user2"}, func(res join.Response) (muster.DeviceID, string, error) {
			return r.registry.AuthenticateWhole(devices.Basic, "client", res.Username, []byte(res.Password))
		}},
		{"its own id as user name", request("b3", func(q *join.Request) { q.Credential, q.Username = "basic", "b3" }), join.Response{Credential: "secret", Username: "b3"}, nil},
		{"its certificate", request("x1", func(q *join.Request) { q.Certificate = pemOf(cert.cert) }), join.Response{Credential: "x509", Username: "x1"}, func(join.Response) (muster.DeviceID, string, error) {
			return r.registry.AuthenticateKey(hash)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := r.Provision(t.Context(), from, tt.ask)
			must(t, err)
			enter := tt.enter
			if enter == nil {
				enter = func(res join.Response) (muster.DeviceID, string, error) {
					return r.registry.Authenticate(res.Username, []byte(res.Password))
				}
			}
			if id, _, err := enter(res); err != nil || string(id) != tt.ask.ID {
				t.Errorf("its credential gives %q, %v", id, err)
			}
			tt.want.ID, tt.want.Profile = muster.DeviceID(tt.ask.ID), "meter"
			if tt.want.Token == "" && tt.want.Credential == "token" {
				tt.want.Token, tt.want.Username = res.Token, res.Token
			}
			if tt.want.Password == "" {
				tt.want.Password = res.Password
			}
			if d := cmp.Diff(tt.want, res); d != "" {
				t.Error(d)
			}
			if text := fmt.Sprintf("%v %+v", res, res); strings.Contains(text, "secret of") || strings.Contains(text, "mdt_") {
				t.Errorf("printing it shows %s", text)
			}
			if d, err := r.registry.Get(tt.want.ID); err != nil || d.Profile != "meter" {
				t.Errorf("the device is %+v, %v", d, err)
			}
			_, err = r.Provision(t.Context(), from, tt.ask)
			wantKind(t, err, muster.Conflict)
		})
	}
	res, err := r.Provision(t.Context(), from, request(""))
	must(t, err)
	if _, err := muster.ParseDeviceID(string(res.ID)); err != nil || !strings.HasPrefix(string(res.ID), "dev-") {
		t.Errorf("the id made is %q, %v", res.ID, err)
	}
}

func TestARequestThatIsRefusedMakesNothing(t *testing.T) {
	r := provisioned(t, join.Create)
	r.device("taken")
	cert := pemOf(r.issue(pair{}, "x", nil).cert)
	for _, tt := range []struct {
		name string
		ask  join.Request
		kind muster.Kind
	}{
		{"a wrong secret", request("n", func(q *join.Request) { q.ProfileSecret += "x" }), muster.Unauthorized},
		{"no secret", request("n", func(q *join.Request) { q.ProfileSecret = "" }), muster.Unauthorized},
		{"an unknown key", request("n", func(q *join.Request) { q.ProfileKey = "x" }), muster.Unauthorized},
		{"no key", request("n", func(q *join.Request) { q.ProfileKey = "" }), muster.Unauthorized},
		{"a device that exists", request("taken"), muster.Conflict},
		{"an id that is none", request("a/b"), muster.Invalid},
		{"the id me", request("me"), muster.Invalid},
		{"a certificate to be signed", request("n", func(q *join.Request) { q.CSR = "-----BEGIN" }), muster.Invalid},
		{"a token that is too short", request("n", func(q *join.Request) { q.Token = "short" }), muster.Invalid},
		{"an unknown kind", request("n", func(q *join.Request) { q.Credential = "adoption" }), muster.Invalid},
		{"a token and a certificate", request("n", func(q *join.Request) { q.Token, q.Certificate = "a-token-of-its-own-0", cert }), muster.Invalid},
		{"a user name and a kind it is not of", request("n", func(q *join.Request) { q.Username, q.Credential = "u", "secret" }), muster.Invalid},
		{"no certificate", request("n", func(q *join.Request) { q.Credential = "x509" }), muster.Invalid},
		{"a name of 300 bytes", request("n", func(q *join.Request) { q.Name = strings.Repeat("n", 300) }), muster.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.Provision(t.Context(), from, tt.ask)
			wantKind(t, err, tt.kind)
			if n := r.registry.Count(); n != 1 {
				t.Errorf("%d devices", n)
			}
			var answer struct{ Status, Code, Detail string }
			must(t, json.Unmarshal(join.Answer(join.Response{}, err), &answer))
			if answer.Status != "error" || answer.Code != tt.kind.String() || answer.Detail == "" {
				t.Errorf("the answer is %+v", answer)
			}
		})
	}
}

func TestAPreprovisionedDeviceGetsItsCredentialOnce(t *testing.T) {
	r := provisioned(t, join.Preprovisioned)
	r.device("other-profile")
	_, _, err := r.registry.Create(t.Context(), devices.Spec{ID: "d", Profile: "meter"})
	must(t, err)
	for _, id := range []string{"nobody", "other-profile"} {
		_, err := r.Provision(t.Context(), from, request(id))
		wantKind(t, err, muster.NotFound)
	}
	res, err := r.Provision(t.Context(), from, request("d"))
	must(t, err)
	if id, _, err := r.registry.Authenticate(res.Token, nil); err != nil || id != "d" {
		t.Errorf("its token gives %q, %v", id, err)
	}
	_, err = r.Provision(t.Context(), from, request("d"))
	wantKind(t, err, muster.Conflict)
	if n := r.registry.Count(); n != 2 {
		t.Errorf("%d devices", n)
	}
}

func TestWrongSecretsAreLimitedByAddressAndByKey(t *testing.T) {
	r := provisioned(t, join.Create)
	wrong := request("n", func(q *join.Request) { q.ProfileSecret = "wrong" })
	try := func(peer string, q join.Request) muster.Kind {
		_, err := r.Provision(t.Context(), peer, q)
		if err == nil {
			return muster.Conflict // not used for a wrong one
		}
		return muster.KindOf(err)
	}
	for i := range 10 {
		if k := try(fmt.Sprint("10.0.0.1:", i), wrong); k != muster.Unauthorized {
			t.Fatalf("try %d: %v", i, k)
		}
	}
	if k := try("10.0.0.1:99", wrong); k != muster.Busy {
		t.Errorf("the 11th is %v", k)
	}
	if k := try("10.0.0.1:99", request("right")); k != muster.Busy {
		t.Errorf("who guesses on learns whether it was right: %v", k)
	}
	if _, err := r.Provision(t.Context(), "10.0.0.2:1", request("right")); err != nil {
		t.Errorf("another address: %v", err)
	}
	r.pass(time.Minute)
	if k := try("10.0.0.1:1", wrong); k != muster.Unauthorized {
		t.Errorf("a minute later: %v", k)
	}
	for i := range 99 {
		if k := try(fmt.Sprintf("10.1.%d.1:1", i), wrong); k != muster.Unauthorized {
			t.Fatalf("address %d: %v", i, k)
		}
	}
	if k := try("10.2.0.1:1", wrong); k != muster.Busy {
		t.Errorf("the 101st for one key is %v", k)
	}
	// One who has an IPv6 network has all its addresses.
	r.pass(time.Minute)
	for i := range 11 {
		want := muster.Unauthorized
		if i == 10 {
			want = muster.Busy
		}
		if k := try(fmt.Sprintf("[2001:db8::%d]:1", i), wrong); k != want {
			t.Errorf("IPv6 try %d: %v, want %v", i, k, want)
		}
	}
}

func TestAFactoryLineOf500FromOneAddressIsNotHeldUpAndAFloodIs(t *testing.T) {
	r := provisioned(t, join.Create)
	for i := range 500 {
		if _, err := r.Provision(t.Context(), from, request(fmt.Sprint("unit-", i))); err != nil {
			t.Fatal(err)
		}
	}
	refused := 0
	for range 1000 {
		if _, err := r.Provision(t.Context(), from, request("unit-1")); muster.KindOf(err) == muster.Busy {
			refused++
		}
	}
	if refused != 500 {
		t.Errorf("%d of 1000 more at once are refused, want 500", refused)
	}
}

func TestAProfilesProvisioningIsReplacedKeptAndEnded(t *testing.T) {
	r := provisioned(t, join.Create)
	ctx := t.Context()
	_, _, err := r.PutProvisioning(ctx, "nothing", join.ProvisioningSpec{Strategy: join.Create})
	wantKind(t, err, muster.NotFound)
	_, _, err = r.PutProvisioning(ctx, devices.DefaultProfile, join.ProvisioningSpec{Strategy: join.Create, Key: key})
	wantKind(t, err, muster.Conflict)
	for _, s := range []join.ProvisioningSpec{{}, {Strategy: "maybe"}, {Strategy: join.Create, Key: "short"}, {Strategy: join.Create, Secret: "has a space in it 00"}, {Strategy: join.Create, Keep: true, Key: "another-key"}} {
		_, _, err := r.PutProvisioning(ctx, "meter", s)
		wantKind(t, err, muster.Invalid)
	}
	p, shown, err := r.PutProvisioning(ctx, "meter", join.ProvisioningSpec{Strategy: join.Preprovisioned, Keep: true})
	if err != nil || shown != "" || p.Key != key || p.Strategy != join.Preprovisioned {
		t.Errorf("%+v, %q, %v", p, shown, err)
	}
	_, err = r.Provision(ctx, from, request("n"))
	wantKind(t, err, muster.NotFound)
	p, shown, err = r.PutProvisioning(ctx, "meter", join.ProvisioningSpec{Strategy: join.Create})
	if err != nil || !strings.HasPrefix(p.Key, "mpk_") || !strings.HasPrefix(shown, "mps_") {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = r.Provision(ctx, from, request("n"))
	wantKind(t, err, muster.Unauthorized)
	r.restart()
	if _, err := r.Provision(ctx, from, join.Request{ProfileKey: p.Key, ProfileSecret: shown, ID: "n"}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	wantKind(t, r.registry.DeleteProfile(ctx, "meter"), muster.Conflict)
	must(t, r.DeleteProvisioning(ctx, "meter"))
	wantKind(t, r.DeleteProvisioning(ctx, "meter"), muster.NotFound)
	_, err = r.Provision(ctx, from, join.Request{ProfileKey: p.Key, ProfileSecret: shown, ID: "m"})
	wantKind(t, err, muster.Unauthorized)
}

func TestTheAnswerOfARegistrationIsWhatTheDeviceNeeds(t *testing.T) {
	got := string(join.Answer(join.Response{ID: "d", Profile: "p", Credential: "token", Token: "t", Username: "t"}, nil))
	if want := `{"status":"ok","id":"d","profile":"p","credential":"token","token":"t","username":"t"}`; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	got = string(join.Answer(join.Response{}, fmt.Errorf("pq: secret thing")))
	if want := `{"status":"error","code":"internal","detail":"internal error"}`; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
}

// FuzzRequest holds parsing to this: what is read is one object of known fields, and
// reads the same when it is written again.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"profile_key":"k","profile_secret":"s","id":"d"}`, `{"profile_key":"k","profile_secret":"s","name":"é","csr":"x"}`,
		`{"profile_key":"k","credential":"x509","certificate":"-----BEGIN CERTIFICATE-----"}`, `null`, `[]`, `{}`, `{}{}`, `{"id":1}`,
		`{"x":1}`, `{"ID":"d"}`, "{\"id\":\"\xff\"}", ` {"username":"u","password":"p","client_id":"c","token":"t"} `,
	} {
		f.Add([]byte(s))
	}
	r := provisioned(f, join.Create)
	f.Fuzz(func(t *testing.T, payload []byte) {
		q, err := join.ParseRequest(payload)
		if err != nil {
			if k := muster.KindOf(err); k != muster.Invalid && k != muster.TooLarge {
				t.Errorf("error of kind %v", k)
			}
			return
		}
		text, err := json.Marshal(q)
		must(t, err)
		again, err := join.ParseRequest(text)
		if err != nil || again != q {
			t.Errorf("%s reads as %+v, %v", text, again, err)
		}
		_, err = r.Provision(t.Context(), from, q)
		if err == nil && (q.ProfileKey != key || q.ProfileSecret != secret) {
			t.Errorf("registered by %s", text)
		}
		if err != nil && muster.KindOf(err) == muster.Internal {
			t.Errorf("%s: %v", text, err)
		}
	})
}
