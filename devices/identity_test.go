package devices_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

// openAt is open with a clock.
func openAt(t testing.TB, m *memory, c *clock, o devices.Options) *devices.Registry {
	t.Helper()
	r := devices.NewRegistry(m, c.now, quiet(), o)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// selfSigned is a certificate valid for a day around c's time, with what change says.
func selfSigned(t testing.TB, c *clock, key any, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	var public any
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		public = &k.PublicKey
	case *rsa.PrivateKey:
		public = &k.PublicKey
	case ed25519.PrivateKey:
		public = k.Public()
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "thing"}, NotBefore: c.at.Add(-time.Hour), NotAfter: c.at.Add(24 * time.Hour),
	}
	for _, f := range change {
		f(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

// wantDenied checks why a login was refused, and that the client is told nothing.
func wantDenied(t testing.TB, err error, reason string) {
	t.Helper()
	wantKind(t, err, muster.Unauthorized)
	d, ok := errors.AsType[*devices.Denied](err)
	if !ok || !strings.Contains(d.Reason, reason) {
		t.Errorf("the reason is %v, want %q", d, reason)
	}
	if muster.Public(err) != "bad user name or password" {
		t.Errorf("the client is told %q", muster.Public(err))
	}
}

func TestARotatedCredentialIsGoodBesideTheNewOneUntilTheOverlapEnds(t *testing.T) {
	for _, kind := range []devices.CredentialKind{devices.Token, devices.Secret} {
		t.Run(string(kind), func(t *testing.T) {
			c, m := newClock(), newMemory()
			r := openAt(t, m, c, devices.Options{})
			mustCreate(t, r, devices.Spec{ID: "a"})
			old, err := r.AddGrant(t.Context(), "a", devices.Grant{Kind: kind, Label: "line 3"})
			must(t, err)
			fresh, err := r.Rotate(t.Context(), "a", old.ID, time.Hour, devices.Grant{})
			must(t, err)
			for _, at := range []time.Duration{0, time.Hour - time.Microsecond} {
				c.at = newClock().at.Add(at)
				for _, r := range []*devices.Registry{r, openAt(t, m, c, devices.Options{})} {
					for _, is := range []devices.Issued{old, fresh} {
						if id, cred, err := r.Authenticate(is.Username, []byte(is.Password)); err != nil || id != "a" || cred != is.ID {
							t.Errorf("after %v %s gives %s %s, %v", at, is, id, cred, err)
						}
						if _, err := r.Refresh("a", is.ID); err != nil {
							t.Errorf("after %v %s: %v", at, is, err)
						}
					}
				}
			}
			c.at = newClock().at.Add(time.Hour)
			for _, r := range []*devices.Registry{r, openAt(t, m, c, devices.Options{})} {
				_, _, err = r.Authenticate(old.Username, []byte(old.Password))
				wantDenied(t, err, "expired at 2026-01-01T01:00:00Z")
				_, err = r.Refresh("a", old.ID)
				wantKind(t, err, muster.Unauthorized)
				if _, _, err := r.Authenticate(fresh.Username, []byte(fresh.Password)); err != nil {
					t.Error(err)
				}
			}
			cs, err := r.Credentials("a")
			must(t, err)
			if len(cs) != 2 || cs[0].Label != "line 3" || cs[1].Label != "line 3" || cs[1].Expires != 0 {
				t.Errorf("the credentials are %+v", cs)
			}
			_, err = r.Rotate(t.Context(), "a", old.ID, time.Hour, devices.Grant{})
			wantKind(t, err, muster.Conflict)
		})
	}
}

func TestARotationThatIsRefusedChangesNothing(t *testing.T) {
	c, m := newClock(), newMemory()
	r := openAt(t, m, c, devices.Options{})
	is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	mustCreate(t, r, devices.Spec{ID: "b", Credential: devices.Token, Given: "the-token-of-another-device"})
	for _, tt := range []struct {
		name    string
		id      string
		overlap time.Duration
		grant   devices.Grant
		kind    muster.Kind
	}{
		{"a token of another device", is.ID, 0, devices.Grant{Given: "the-token-of-another-device"}, muster.Conflict},
		{"a token that is too short", is.ID, 0, devices.Grant{Given: "short"}, muster.Invalid},
		{"a negative overlap", is.ID, -1, devices.Grant{}, muster.Invalid},
		{"an overlap of a year", is.ID, 365 * 24 * time.Hour, devices.Grant{}, muster.Invalid},
		{"a certificate that is not given", is.ID, 0, devices.Grant{Kind: devices.X509}, muster.Invalid},
		{"a credential that is not there", "cred_x", 0, devices.Grant{}, muster.NotFound},
		{"an expiry in the past", is.ID, 0, devices.Grant{Expires: c.at}, muster.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.Rotate(t.Context(), "a", tt.id, tt.overlap, tt.grant)
			wantKind(t, err, tt.kind)
		})
	}
	m.setDown(true)
	if _, err := r.Rotate(t.Context(), "a", is.ID, 0, devices.Grant{}); err == nil {
		t.Error("a rotation that is not stored is no error")
	}
	m.setDown(false)
	cs, err := r.Credentials("a")
	must(t, err)
	if len(cs) != 1 || cs[0].Expires != 0 {
		t.Errorf("the credentials are %+v", cs)
	}
}

func TestADeviceThatRotatesForeverNeverRunsOutOfPlaces(t *testing.T) {
	c := newClock()
	r := openAt(t, newMemory(), c, devices.Options{})
	is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	for i := range 3 * devices.MaxCredentials {
		c.at = c.at.Add(2 * time.Hour)
		fresh, err := r.Rotate(t.Context(), "a", is.ID, time.Hour, devices.Grant{})
		if err != nil {
			t.Fatalf("rotation %d: %v", i, err)
		}
		is = fresh
	}
	c.at = c.at.Add(2 * time.Hour)
	for i := range devices.MaxCredentials - 1 {
		if _, err := r.AddCredential(t.Context(), "a", devices.Token, ""); err != nil {
			t.Fatalf("credential %d: %v", i, err)
		}
	}
	_, err := r.AddCredential(t.Context(), "a", devices.Token, "")
	wantKind(t, err, muster.Conflict)
}

func TestExpiredCredentialsAreReportedAtTheirTimeAndNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type cut struct {
			at         time.Duration
			credential string
		}
		var mu sync.Mutex
		var cuts []cut
		var all []string
		begun := time.Now()
		r := devices.NewRegistry(newMemory(), time.Now, quiet(), devices.Options{OnRights: func(affects func(muster.DeviceID, string) bool) {
			mu.Lock()
			defer mu.Unlock()
			for _, id := range all {
				if affects("a", id) {
					cuts = append(cuts, cut{time.Since(begun), id})
				}
			}
		}})
		mustCreate(t, r, devices.Spec{ID: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.RunExpiry(ctx) }()
		synctest.Wait()
		watch := func(id string) string {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, id)
			return id
		}
		add := func(after time.Duration) string {
			is, err := r.AddGrant(t.Context(), "a", devices.Grant{Kind: devices.Secret, Expires: begun.Add(after)})
			must(t, err)
			return watch(is.ID)
		}
		late, soon := add(3*time.Hour), add(90*time.Second)
		watch(mustAdd(t, r)) // never
		removed := add(2 * time.Hour)
		must(t, r.RemoveCredential(t.Context(), "a", removed))
		rotated := watch(mustAdd(t, r))
		_, err := r.Rotate(t.Context(), "a", rotated, time.Hour, devices.Grant{})
		must(t, err)
		<-time.After(24 * time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		want := []cut{{0, removed}, {90 * time.Second, soon}, {time.Hour, rotated}, {3 * time.Hour, late}}
		if d := cmp.Diff(want, cuts, cmp.AllowUnexported(cut{})); d != "" {
			t.Error(d)
		}
		cancel()
		must(t, <-done)
	})
}

func mustAdd(t testing.TB, r *devices.Registry) string {
	t.Helper()
	is, err := r.AddCredential(t.Context(), "a", devices.Secret, "")
	must(t, err)
	return is.ID
}

func TestWhenACredentialWasLastUsedIsSavedInBatchesAndOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		r := open(t, m, devices.Options{})
		is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
		unused := mustAdd(t, r)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.RunUses(ctx) }()
		<-time.After(61 * time.Second)
		use := func() muster.Micros {
			_, _, err := r.Authenticate(is.Token, nil)
			must(t, err)
			return muster.MicrosOf(time.Now())
		}
		first := use()
		synctest.Wait()
		if m.lastUsed(is.ID) != 0 {
			t.Error("a login waits for the store")
		}
		<-time.After(31 * time.Second)
		synctest.Wait()
		if got := m.lastUsed(is.ID); got != first {
			t.Errorf("stored as used at %d, want %d", got, first)
		}
		m.setDown(true)
		second := use()
		<-time.After(31 * time.Second)
		synctest.Wait()
		m.setDown(false)
		cancel()
		must(t, <-done)
		again := open(t, m, devices.Options{})
		cs, err := again.Credentials("a")
		must(t, err)
		for _, c := range cs {
			if c.ID == is.ID && c.LastUsed != second || c.ID == unused && c.LastUsed != 0 {
				t.Errorf("%s was used at %d", c.ID, c.LastUsed)
			}
		}
	})
}

func TestARevokedCredentialDoesNotComeBackByItsLastUse(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	is := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	_, _, err := r.Authenticate(is.Token, nil)
	must(t, err)
	must(t, r.RemoveCredential(t.Context(), "a", is.ID))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.RunUses(ctx))
	if len(m.creds) != 0 {
		t.Errorf("the store has %d credentials", len(m.creds))
	}
}

func TestAPinnedKeyIsItsDevices(t *testing.T) {
	c, m := newClock(), newMemory()
	r := openAt(t, m, c, devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	mustCreate(t, r, devices.Spec{ID: "b"})
	key := newKey(t)
	cert := selfSigned(t, c, key)
	is, err := r.AddGrant(t.Context(), "a", devices.Grant{Kind: devices.X509, Certificate: cert})
	must(t, err)
	hash, err := devices.KeyHash(cert)
	must(t, err)
	for _, r := range []*devices.Registry{r, openAt(t, m, c, devices.Options{})} {
		if id, cred, err := r.AuthenticateKey(hash); err != nil || id != "a" || cred != is.ID {
			t.Errorf("the key gives %s %s, %v", id, cred, err)
		}
	}
	// The same key in another certificate is the same key.
	other := selfSigned(t, c, key, func(c *x509.Certificate) { c.Subject.CommonName, c.SerialNumber = "b", big.NewInt(7) })
	_, err = r.AddGrant(t.Context(), "b", devices.Grant{Kind: devices.X509, Certificate: other})
	wantKind(t, err, muster.Conflict)
	_, _, err = r.Create(t.Context(), devices.Spec{ID: "n", Grants: []devices.Grant{{Kind: devices.X509, Certificate: other}}})
	wantKind(t, err, muster.Conflict)
	_, err = r.AddGrant(t.Context(), "a", devices.Grant{Kind: devices.X509, Certificate: other})
	wantKind(t, err, muster.Conflict)
	// Nobody comes in by the public key as a user name.
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	_, _, err = r.Authenticate(string(spki), nil)
	wantKind(t, err, muster.Unauthorized)
	c.at = cert.NotAfter
	if _, _, err := r.AuthenticateKey(hash); err != nil {
		t.Error(err) // the last moment counts (RFC 5280, 4.1.2.5)
	}
	c.at = cert.NotAfter.Add(time.Second)
	_, _, err = r.AuthenticateKey(hash)
	wantDenied(t, err, "expired")
	c.at = newClock().at
	must(t, r.RemoveCredential(t.Context(), "a", is.ID))
	_, _, err = r.AuthenticateKey(hash)
	wantKind(t, err, muster.Unauthorized)
	_, err = r.AddGrant(t.Context(), "b", devices.Grant{Kind: devices.X509, Certificate: other})
	must(t, err)
}

func TestWhichCertificatesCannotBePinned(t *testing.T) {
	c := newClock()
	r := openAt(t, newMemory(), c, devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	for _, tt := range []struct {
		name   string
		cert   *x509.Certificate
		refuse string // empty when it is taken
	}{
		{"RSA of 1024 bits", selfSigned(t, c, rsa1024), "1024 bits"},
		{"ECDSA on P-224", selfSigned(t, c, p224), "P-256"},
		{"RSA of 2048 bits", selfSigned(t, c, rsa2048), ""},
		{"Ed25519", selfSigned(t, c, ed), ""},
		{"one that has expired", selfSigned(t, c, newKey(t), func(x *x509.Certificate) { x.NotAfter = c.at.Add(-time.Minute) }), "expired at"},
		{"one that is not valid yet", selfSigned(t, c, newKey(t), func(x *x509.Certificate) { x.NotBefore = c.at.Add(time.Minute) }), ""},
		{"a server's", selfSigned(t, c, newKey(t), func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "client authentication"},
		{"a client's", selfSigned(t, c, newKey(t), func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), ""},
		{"one that calls itself an authority", selfSigned(t, c, newKey(t), func(x *x509.Certificate) { x.IsCA, x.BasicConstraintsValid = true, true }), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.AddGrant(t.Context(), "a", devices.Grant{Kind: devices.X509, Certificate: tt.cert})
			if tt.refuse == "" {
				must(t, err)
				return
			}
			wantKind(t, err, muster.Invalid)
			if !strings.Contains(err.Error(), tt.refuse) {
				t.Errorf("the reason is %q, want %q", err, tt.refuse)
			}
		})
	}
}

func TestCertificatesAreReadFromPEMInOneLineTooAndNothingElse(t *testing.T) {
	c := newClock()
	cert := selfSigned(t, c, newKey(t))
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	for _, good := range []string{text, strings.ReplaceAll(text, "\n", ""), strings.ReplaceAll(text, "\n", "\r\n"), " \n" + text + "\n\n"} {
		if got, err := devices.ParseCertificate(good); err != nil || !got.Equal(cert) {
			t.Errorf("%.40q: %v", good, err)
		}
	}
	private, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	must(t, err)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	for _, bad := range []string{"", "x", text + text, text + key, key, text[:len(text)-30], strings.Repeat("A", devices.MaxCertificate+1)} {
		if _, err := devices.ParseCertificate(bad); err == nil {
			t.Errorf("%.60q is read", bad)
		}
	}
}

func TestAKeyOfAnAuthorityIsLearnedRenewedRevokedAndForgotten(t *testing.T) {
	c, m := newClock(), newMemory()
	var l live
	r := openAt(t, m, c, devices.Options{OnRights: l.affected})
	mustCreate(t, r, devices.Spec{ID: "a"})
	mustCreate(t, r, devices.Spec{ID: "b"})
	cert := selfSigned(t, c, newKey(t))
	grant := devices.Grant{CA: "ca_1", Certificate: cert, Expires: cert.NotAfter}
	cred, err := r.Learn(t.Context(), "a", grant)
	must(t, err)
	again, err := r.Learn(t.Context(), "a", grant)
	must(t, err)
	if again != cred {
		t.Errorf("the key has the credentials %s and %s", cred, again)
	}
	_, err = r.Learn(t.Context(), "nobody", devices.Grant{CA: "ca_1", Certificate: selfSigned(t, c, newKey(t))})
	wantKind(t, err, muster.NotFound)
	_, err = r.Learn(t.Context(), "b", grant)
	wantDenied(t, err, "two devices may not share one")
	if d, _ := errors.AsType[*devices.Denied](err); !cmp.Equal(d.Devices, []muster.DeviceID{"b", "a"}) {
		t.Errorf("it is about %v", d.Devices)
	}

	grant.CA, grant.Expires = "ca_2", c.at.Add(time.Hour) // renewed by another authority
	if renewed, err := r.Learn(t.Context(), "a", grant); err != nil || renewed != cred {
		t.Errorf("renewed it is %s, %v", renewed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, r.RunUses(ctx))
	r = openAt(t, m, c, devices.Options{OnRights: l.affected})
	if kept, err := r.Learn(t.Context(), "a", grant); err != nil || kept != cred {
		t.Errorf("after a restart it is %s, %v", kept, err)
	}

	_, err = r.Rotate(t.Context(), "a", cred, time.Minute, devices.Grant{Kind: devices.Token})
	wantKind(t, err, muster.Conflict) // the next login would learn it again
	l.connections = []connection{{"a", cred}, {"b", "cred_x"}}
	must(t, r.RemoveCredential(t.Context(), "a", cred))
	l.want(t, connection{"a", cred})
	wantKind(t, r.RemoveCredential(t.Context(), "a", cred), muster.Conflict)
	for _, r := range []*devices.Registry{r, openAt(t, m, c, devices.Options{})} {
		_, err = r.Learn(t.Context(), "a", grant)
		wantDenied(t, err, "was revoked")
		_, err = r.Refresh("a", cred)
		wantKind(t, err, muster.Unauthorized)
	}
	must(t, r.ForgetAuthority(t.Context(), "ca_2", func(context.Context) error { return nil }))
	_, err = r.Learn(t.Context(), "a", grant)
	wantDenied(t, err, "was revoked") // also when the authority comes back
	is, err := r.AddGrant(t.Context(), "a", devices.Grant{Kind: devices.X509, Certificate: cert})
	must(t, err)
	if id, err := r.Learn(t.Context(), "a", grant); err != nil || id != is.ID {
		t.Errorf("given again it is %s, %v", id, err)
	}
}

func TestForgettingAnAuthorityCutsThoseWhoCameByIt(t *testing.T) {
	c, m := newClock(), newMemory()
	var l live
	r := openAt(t, m, c, devices.Options{OnRights: l.affected})
	ids := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		mustCreate(t, r, devices.Spec{ID: muster.DeviceID(name)})
		ca := "ca_1"
		if name == "c" {
			ca = "ca_2"
		}
		id, err := r.Learn(t.Context(), muster.DeviceID(name), devices.Grant{CA: ca, Certificate: selfSigned(t, c, newKey(t))})
		must(t, err)
		ids[name] = id
		l.connections = append(l.connections, connection{muster.DeviceID(name), id})
	}
	down := errors.New("down")
	if err := r.ForgetAuthority(t.Context(), "ca_1", func(context.Context) error { return down }); !errors.Is(err, down) {
		t.Errorf("the error is %v", err)
	}
	if _, err := r.Refresh("a", ids["a"]); err != nil {
		t.Errorf("what is not stored took effect: %v", err)
	}
	must(t, r.ForgetAuthority(t.Context(), "ca_1", nil))
	l.want(t, connection{"a", ids["a"]}, connection{"b", ids["b"]})
	for _, name := range []string{"a", "b"} {
		_, err := r.Refresh(muster.DeviceID(name), ids[name])
		wantKind(t, err, muster.Unauthorized)
	}
	if _, err := r.Refresh("c", ids["c"]); err != nil {
		t.Errorf("another authority's device: %v", err)
	}
}

func TestACertificateThatExpiresIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		r := open(t, m, devices.Options{})
		mustCreate(t, r, devices.Spec{ID: "a"})
		mustCreate(t, r, devices.Spec{ID: "b"})
		c := &clock{time.Now()}
		grant := devices.Grant{CA: "ca_1", Certificate: selfSigned(t, c, newKey(t))}
		id, err := r.Learn(t.Context(), "a", grant)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.RunExpiry(ctx) }()
		<-time.After(25 * time.Hour)
		synctest.Wait()
		if cs, err := r.Credentials("a"); err != nil || len(cs) != 0 {
			t.Errorf("the device has %v, %v", cs, err)
		}
		_, err = r.Refresh("a", id)
		wantKind(t, err, muster.Unauthorized)
		cancel()
		must(t, <-done)
	})
}

func TestADeviceOfAnAuthorityThatChangesItsKeyOftenLosesTheOldestAndNoneThatWasGivenOrRevoked(t *testing.T) {
	c, m := newClock(), newMemory()
	cut := map[string]bool{}
	var ids []string
	r := openAt(t, m, c, devices.Options{OnRights: func(affects func(muster.DeviceID, string) bool) {
		for _, id := range ids {
			cut[id] = cut[id] || affects("a", id)
		}
	}})
	token := mustCreate(t, r, devices.Spec{ID: "a", Credential: devices.Token})
	learn := func() string {
		c.at = c.at.Add(time.Second)
		id, err := r.Learn(t.Context(), "a", devices.Grant{CA: "ca", Certificate: selfSigned(t, c, newKey(t))})
		must(t, err)
		ids = append(ids, id)
		return id
	}
	revoked, second := learn(), learn()
	must(t, r.RemoveCredential(t.Context(), "a", revoked))
	for range devices.MaxCredentials - 3 {
		learn()
	}
	last := learn()
	if !cut[second] || cut[last] {
		t.Errorf("the connection of the key that was forgotten is cut: %v, of the last: %v", cut[second], cut[last])
	}
	cs, err := r.Credentials("a")
	must(t, err)
	have := map[string]bool{}
	for _, c := range cs {
		have[c.ID] = true
	}
	if len(cs) != devices.MaxCredentials || !have[token.ID] || !have[revoked] || !have[last] || have[second] {
		t.Errorf("%d credentials, token %v, revoked %v, last %v, oldest %v", len(cs), have[token.ID], have[revoked], have[last], have[second])
	}
}

func TestABasicCredentialIsUserNameAndPasswordAndItsClientIDWhenThatIsGiven(t *testing.T) {
	c, m := newClock(), newMemory()
	r := openAt(t, m, c, devices.Options{})
	const password = "a password of the device"
	mustCreate(t, r, devices.Spec{ID: "a", Grants: []devices.Grant{{Kind: devices.Basic, Username: "u", Given: password}}})
	mustCreate(t, r, devices.Spec{ID: "b", Grants: []devices.Grant{{Kind: devices.Basic, Username: "v", ClientID: "c", Given: password}}})
	mustCreate(t, r, devices.Spec{ID: "d", Grants: []devices.Grant{{Kind: devices.Adoption, Hash: devices.AdoptionHash("c", "u", "mak_key")}}})
	for _, tt := range []struct {
		kind                         devices.CredentialKind
		clientID, username, password string
		want                         muster.DeviceID
	}{
		{devices.Basic, "", "u", password, "a"},
		{devices.Basic, "any", "u", password, "a"},
		{devices.Basic, "c", "v", password, "b"},
		{devices.Basic, "", "v", password, ""},
		{devices.Basic, "C", "v", password, ""},
		{devices.Basic, "cv", "", password, ""},
		{devices.Basic, "", "u", password + " ", ""},
		{devices.Basic, "c", "u", "mak_key", ""},
		{devices.Adoption, "c", "u", "mak_key", "d"},
		{devices.Adoption, "", "u", "mak_key", ""},
		{devices.Adoption, "", "u", password, ""},
	} {
		id, _, err := r.AuthenticateWhole(tt.kind, tt.clientID, tt.username, []byte(tt.password))
		if id != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s %q %q gives %q, %v", tt.kind, tt.clientID, tt.username, id, err)
		}
	}
	_, _, err := r.Create(t.Context(), devices.Spec{ID: "e", Grants: []devices.Grant{{Kind: devices.Basic, Username: "u", Given: password}}})
	wantKind(t, err, muster.Conflict)
}

func TestWhyALoginFailedIsKeptOnTheDevicesItNamed(t *testing.T) {
	c := newClock()
	known := map[muster.DeviceID]bool{"a": true, "b": true, "c": true}
	l := devices.NewLogins(c.now, func(id muster.DeviceID) bool { return known[id] })
	a := devices.Attempt{Username: "a", ClientID: "b", Subject: "unknown", Peer: "10.0.0.1:1", Listener: "tcp"}
	l.Failed(a, devices.Deny("wrong", "c"))
	c.at = c.at.Add(time.Second)
	a.Peer = "10.0.0.1:2"
	l.Failed(a, devices.Deny("wrong", "c"))
	l.Failed(devices.Attempt{Username: "a", Peer: "10.0.0.2:1"}, devices.Deny("another"))
	first, last := muster.MicrosOf(newClock().at), muster.MicrosOf(c.at)
	both := devices.FailedLogin{
		Reason: "wrong", Username: "a", ClientID: "b", Subject: "unknown", Peer: "10.0.0.1:2", Listener: "tcp", First: first, Last: last, Count: 2,
	}
	other := devices.FailedLogin{Reason: "another", Username: "a", Peer: "10.0.0.2:1", First: last, Last: last, Count: 1}
	for id, want := range map[muster.DeviceID][]devices.FailedLogin{"a": {other, both}, "b": {both}, "c": {both}, "unknown": nil} {
		if d := cmp.Diff(want, l.Device(id)); d != "" {
			t.Errorf("%s: %s", id, d)
		}
	}
	if got := l.Fleet(); len(got) != 0 {
		t.Errorf("the fleet has %v", got)
	}
	l.Unregistered(devices.Attempt{Username: "provision", ClientID: "new"}, "c", muster.Errorf(muster.Conflict, "it is taken"))
	if got := l.Device("c"); len(got) != 2 || got[0].Reason != "refused to register: it is taken" || got[0].ClientID != "new" {
		t.Errorf("after a registration that was refused c has %v", got)
	}
	l.Unregistered(devices.Attempt{Username: "provision"}, "", muster.Errorf(muster.Unauthorized, "a wrong key"))
	if got := l.Fleet(); len(got) != 1 || got[0].Reason != "refused to register: a wrong key" {
		t.Errorf("after one that named no device the fleet has %v", got)
	}
	l.Forget("a")
	if got := l.Device("a"); got != nil {
		t.Errorf("a deleted device has %v", got)
	}
}

func TestFailedLoginsShowNoTokenAndAreBounded(t *testing.T) {
	c := newClock()
	l := devices.NewLogins(c.now, func(id muster.DeviceID) bool { return strings.HasPrefix(string(id), "dev") })
	const token = "mdt_THETOKENTHATNOBODYMAYSEE00"
	l.Failed(devices.Attempt{Username: token, ClientID: token}, devices.Deny("unknown"))
	l.Failed(devices.Attempt{Username: token, ClientID: "dev1"}, devices.Deny("unknown"))
	for _, f := range append(l.Fleet(), l.Device("dev1")...) {
		if strings.Contains(fmt.Sprintf("%+v", f), token[:8]) || f.Username != "mdt_..." {
			t.Errorf("it shows %+v", f)
		}
	}
	l.Failed(devices.Attempt{Username: "pump-7\x00\n", ClientID: strings.Repeat("x", 500)}, devices.Deny(strings.Repeat("y", 1000)))
	if f := l.Fleet()[0]; f.Username != "pump-7" || len(f.ClientID) > 64 || len(f.Reason) > 300 {
		t.Errorf("it shows %+v", f)
	}
	for i := range 3000 {
		l.Failed(devices.Attempt{Username: fmt.Sprint("u", i)}, devices.Deny("unknown"))
		l.Failed(devices.Attempt{Username: "dev", ClientID: fmt.Sprint(i)}, devices.Deny("unknown"))
	}
	if n := len(l.Fleet()); n != devices.MaxFailedFleet || l.Fleet()[0].Username != "u2999" {
		t.Errorf("the fleet has %d, the first %+v", n, l.Fleet()[0])
	}
	if n := len(l.Device("dev")); n != devices.MaxFailedLogins || l.Device("dev")[0].ClientID != "2999" {
		t.Errorf("the device has %d", n)
	}
	for i := range 10_001 {
		l.Failed(devices.Attempt{Username: fmt.Sprint("dev-", i)}, devices.Deny("unknown"))
	}
	if l.Device("dev") != nil || l.Device("dev-0") != nil || l.Device("dev-1") == nil {
		t.Error("it is not the device whose login failed longest ago that gave way")
	}
}
