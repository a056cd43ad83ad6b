package join_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/join"
)

func TestWhichCertificatesLetADeviceIn(t *testing.T) {
	r := newRig(t)
	d := newDoor(r)
	at := r.now()
	day := 24 * time.Hour
	ca := r.root("Our CA")
	r.register(ca, false)
	r.device("pump")
	inter := r.issue(ca, "Line 3", nil, isCA)
	deep := r.issue(inter, "Station 4", nil, isCA)
	old := r.issue(ca, "Line 1", nil, isCA, between(at.Add(-2*day), at.Add(-day)))
	future := r.issue(ca, "Line 9", nil, isCA, between(at.Add(day), at.Add(2*day)))
	servers := r.issue(ca, "Servers only", nil, isCA, forUse(x509.ExtKeyUsageServerAuth))
	plain := r.issue(ca, "no-ca", nil)
	weak := r.issue(ca, "Weak", rsaKey(t, 1024), isCA)
	noPath := r.root("No path", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	r.register(noPath, false)
	below := r.issue(noPath, "Below", nil, isCA)
	aging := r.root("Aging CA", between(at.Add(-day), at.Add(time.Minute)))
	r.register(aging, false)
	unborn := r.root("Unborn CA", between(at.Add(day), at.Add(2*day)))
	r.register(unborn, false)
	weakRSA, rsa2048 := rsaKey(t, 1024), rsaKey(t, 2048)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	must(t, err)
	leaf := func(up pair, cs ...change) []pair { return []pair{r.issue(up, "pump", nil, cs...)} }
	foreign := r.root("Our CA") // by name only
	for _, tt := range []struct {
		name   string
		chain  []pair
		reason string // empty when it is let in
	}{
		{"signed by a registered authority", leaf(ca), ""},
		{"with the authority's certificate beside it", append(leaf(ca), ca), ""},
		{"through an authority between", append(leaf(inter), inter), ""},
		{"for client authentication", leaf(ca, forUse(x509.ExtKeyUsageClientAuth)), ""},
		{"for any purpose", leaf(ca, forUse(x509.ExtKeyUsageAny)), ""},
		{"with an RSA key", []pair{r.issue(ca, "pump", rsa2048)}, ""},
		{"that expires this very second", leaf(ca, between(at.Add(-day), at)), ""},
		{"through an authority that is not shown", leaf(inter), "no registered authority signed"},
		{"through two authorities between", append(leaf(deep), deep, inter), "the path to the authority has 4 certificates"},
		{"of a foreign authority with the same name", leaf(foreign), "no registered authority signed"},
		{"of a foreign authority that is shown", append(leaf(foreign), foreign), "no registered authority signed"},
		{"that expired", leaf(ca, between(at.Add(-2*day), at.Add(-day))), "the certificate expired at 2025-12-31T00:00:00Z"},
		{"that is not valid yet", leaf(ca, between(at.Add(day), at.Add(2*day))), "is not valid before 2026-01-02T00:00:00Z"},
		{"through an authority that expired", append(leaf(old), old), "the certificate of CN=Line 1 above it expired at"},
		{"through an authority that is not valid yet", append(leaf(future), future), "the certificate of CN=Line 9 above it is not valid before"},
		{"of a registered authority that is not valid yet", leaf(unborn), "the certificate of CN=Unborn CA above it is not valid before"},
		{"for a server", leaf(ca, forUse(x509.ExtKeyUsageServerAuth)), "purposes do not include client authentication"},
		{"through an authority for servers", append(leaf(servers), servers), "purposes of an authority above it do not include"},
		{"signed by a device", append(leaf(plain), plain), "no-ca above it is no authority"},
		{"of an authority itself", []pair{r.issue(ca, "pump", nil, isCA)}, "is an authority's and not a device's"},
		{"the registered authority's own", []pair{ca}, "is an authority's and not a device's"},
		{"below what its authority allows", append(leaf(below), below), "more authorities between"},
		{"with an RSA key of 1024 bits", []pair{r.issue(ca, "pump", weakRSA)}, "1024 bits"},
		{"with a key on P-224", []pair{r.issue(ca, "pump", p224)}, "P-256"},
		{"through an authority with a weak key", append(leaf(weak, algorithm(x509.SHA256WithRSA)), weak), "1024 bits"},
		{"self-signed", leaf(pair{}), "no registered authority signed"},
		{"whose common name is no id", []pair{r.issue(ca, "Pump 7 / Hall", nil)}, "common name is no device id"},
		{"whose common name is me", []pair{r.issue(ca, "me", nil)}, "common name is no device id"},
		{"without a common name", []pair{r.issue(ca, "", nil, names())}, "has 0 common names"},
		{"with two common names", []pair{r.issue(ca, "", nil, names("other", "pump"))}, "has 2 common names"},
		{"of a device that does not exist", []pair{r.issue(ca, "nobody", nil)}, "there is no device nobody, and the authority Our CA makes none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				if tt.chain[0].key.Public() == weakRSA.Public() && version == tls.VersionTLS13 {
					continue // no signature of TLS 1.3 fits such a key in every version of Go
				}
				id, credential, err := d.Certificate(t.Context(), d.present(tt.chain, version))
				if tt.reason != "" {
					wantDenied(t, err, tt.reason)
					continue
				}
				if err != nil || id != "pump" || credential == "" {
					t.Errorf("it gives %q %q, %v", id, credential, err)
				}
			}
		})
	}
	t.Run("of a registered authority that expired meanwhile", func(t *testing.T) {
		chain := leaf(aging)
		if _, _, err := d.enter(d.client(tls.VersionTLS13, chain...)); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Hour)
		_, _, err := d.enter(d.client(tls.VersionTLS13, chain...))
		wantDenied(t, err, "the certificate of CN=Aging CA above it expired at")
	})
}

// present is what the server gets of a chain in a handshake. Keys that no handshake
// takes any more are shown as they are.
func (d door) present(chain []pair, version uint16) []*x509.Certificate {
	switch k := chain[0].key.Public().(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P224() {
			return d.shake(d.client(version, chain...)).PeerCertificates
		}
	default:
		if devices.CheckKey(chain[0].cert) == nil {
			return d.shake(d.client(version, chain...)).PeerCertificates
		}
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, p := range chain {
		certs[i] = p.cert
	}
	return certs
}

func TestASHA1SignatureProvesNothing(t *testing.T) {
	// crypto/x509 makes no such certificate any more: this is what it says of one.
	r := newRig(t)
	ca := r.issue(pair{}, "Our CA", rsaKey(t, 2048), isCA)
	r.register(ca, true)
	good := r.issue(ca, "pump", nil)
	forged := *good.cert
	forged.SignatureAlgorithm = x509.SHA1WithRSA
	_, _, err := r.Certificate(t.Context(), []*x509.Certificate{&forged})
	wantDenied(t, err, "signed with SHA1-RSA")
}

func TestTwoDevicesMayNotShareAKeyAndBothSeeIt(t *testing.T) {
	r := newRig(t)
	d := newDoor(r)
	ca := r.root("Our CA")
	r.register(ca, true)
	key := newKey(t)
	if id, _, err := d.enter(d.client(tls.VersionTLS13, r.issue(ca, "first", key))); err != nil || id != "first" {
		t.Fatalf("%q, %v", id, err)
	}
	r.device("second")
	for _, name := range []string{"second", "third"} {
		_, _, err := d.enter(d.client(tls.VersionTLS13, r.issue(ca, name, key)))
		about := wantDenied(t, err, "has the key of first: two devices may not share one")
		if !cmp.Equal(about.Devices, []muster.DeviceID{muster.DeviceID(name), "first"}) {
			t.Errorf("it is about %v", about.Devices)
		}
	}
	if _, err := r.registry.Get("third"); err == nil {
		t.Error("a device was made of a key that another has")
	}
	// The device itself comes back, also with a renewed certificate.
	first, _, err := d.enter(d.client(tls.VersionTLS12, r.issue(ca, "first", key)))
	if err != nil || first != "first" {
		t.Errorf("%q, %v", first, err)
	}
	must(t, r.registry.Delete(t.Context(), "first", devices.KeepData))
	if id, _, err := d.enter(d.client(tls.VersionTLS13, r.issue(ca, "second", key))); err != nil || id != "second" {
		t.Errorf("the key of a deleted device: %q, %v", id, err)
	}
}

func TestADeviceIsMadeJustInTimeWithTheAuthoritysProfile(t *testing.T) {
	r := newRig(t)
	d := newDoor(r)
	must(t, r.registry.PutProfile(t.Context(), devices.Profile{Name: "meter"}))
	ca := r.root("Meters")
	a, err := r.AddAuthority(t.Context(), join.AuthoritySpec{Name: "Meters", PEM: pemOf(ca.cert), Profile: "meter", JIT: true, Proof: join.NoProof})
	must(t, err)
	client := d.client(tls.VersionTLS13, r.issue(ca, "meter-1", nil))
	id, credential, err := d.enter(client)
	must(t, err)
	made, err := r.registry.Get(id)
	must(t, err)
	if id != "meter-1" || made.Profile != "meter" {
		t.Errorf("made %+v", made)
	}
	cs, err := r.registry.Credentials(id)
	must(t, err)
	if len(cs) != 1 || cs[0].ID != credential || cs[0].CA != a.ID || cs[0].Label != "CN=meter-1" || cs[0].LastUsed == 0 {
		t.Errorf("its credentials are %+v", cs)
	}
	off := false
	_, err = r.ChangeAuthority(t.Context(), a.ID, join.AuthorityChange{JIT: &off})
	must(t, err)
	_, _, err = d.enter(d.client(tls.VersionTLS13, r.issue(ca, "meter-2", nil)))
	wantDenied(t, err, "the authority Meters makes none")
	r.restart()
	again, sameCredential, err := d.enter(client)
	if err != nil || again != id || sameCredential != credential {
		t.Errorf("after a restart: %q %q, %v", again, sameCredential, err)
	}
}

func TestManyThatComeAtOnceWithOneNewCertificateMakeOneDevice(t *testing.T) {
	r := newRig(t)
	ca := r.root("CA")
	r.register(ca, true)
	leaf := r.issue(ca, "d", nil)
	var wg sync.WaitGroup
	ids := make([]string, 16)
	for i := range ids {
		wg.Go(func() {
			_, credential, err := r.Certificate(t.Context(), []*x509.Certificate{leaf.cert})
			if err != nil {
				t.Error(err)
			}
			ids[i] = credential
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("credentials %s and %s", id, ids[0])
		}
	}
	if r.registry.Count() != 1 {
		t.Errorf("%d devices", r.registry.Count())
	}
}

func TestAResumedSessionIsJudgedAgain(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			r := newRig(t)
			d := newDoor(r)
			ca := r.root("CA")
			a := r.register(ca, true)
			r.device("pinned")
			self := r.issue(pair{}, "whatever", nil)
			pin, err := r.registry.AddGrant(t.Context(), "pinned", devices.Grant{Kind: devices.X509, Certificate: self.cert})
			must(t, err)
			byCA, alone, revoked := d.client(version, r.issue(ca, "d", nil)), d.client(version, self), d.client(version, r.issue(ca, "e", nil))
			_, credential, err := d.enter(byCA)
			must(t, err)
			_, _, err = d.enter(alone)
			must(t, err)
			_, second, err := d.enter(revoked)
			must(t, err)

			must(t, r.registry.RemoveCredential(t.Context(), "e", second))
			if !r.cut("e", second) {
				t.Error("a revoked key's connection is not cut")
			}
			must(t, r.DeleteAuthority(t.Context(), a.ID))
			if !r.cut("d", credential) {
				t.Error("the connection of a deleted authority's device is not cut")
			}
			must(t, r.registry.RemoveCredential(t.Context(), "pinned", pin.ID))
			if !r.cut("pinned", pin.ID) {
				t.Error("an unpinned connection is not cut")
			}
			for name, c := range map[string]*tls.Config{"by an authority": byCA, "pinned": alone, "revoked": revoked} {
				state := d.shake(c)
				if !state.DidResume {
					t.Errorf("%s: the session is not resumed", name)
				}
				_, _, err := r.Certificate(t.Context(), state.PeerCertificates)
				wantDenied(t, err, "no certificate authority is registered")
			}
			r.register(ca, true)
			if id, _, err := d.enter(byCA); err != nil || id != "d" {
				t.Errorf("the authority is back: %q, %v", id, err)
			}
			_, _, err = d.enter(revoked)
			wantDenied(t, err, "was revoked")
		})
	}
}

func TestAPinnedCertificateNeedsNoAuthorityAndLastsNoLongerThanItself(t *testing.T) {
	r := newRig(t)
	d := newDoor(r)
	ca := r.root("CA")
	r.device("a")
	r.device("b")
	key := newKey(t)
	self := r.issue(pair{}, "b", key, isCA) // as openssl req -x509 makes them
	pin, err := r.registry.AddGrant(t.Context(), "a", devices.Grant{Kind: devices.X509, Certificate: self.cert})
	must(t, err)
	client := d.client(tls.VersionTLS13, self)
	enter := func(c *tls.Config) {
		t.Helper()
		if id, credential, err := d.enter(c); err != nil || id != "a" || credential != pin.ID {
			t.Errorf("it gives %q %q, %v", id, credential, err)
		}
	}
	enter(client)
	r.register(ca, true)
	enter(client)
	enter(d.client(tls.VersionTLS13, r.issue(ca, "a", key)))
	enter(d.client(tls.VersionTLS13, r.issue(ca, "not an id", key)))
	_, _, err = d.enter(d.client(tls.VersionTLS13, r.issue(ca, "b", key)))
	wantDenied(t, err, "has the key of a")
	_, _, err = d.enter(d.client(tls.VersionTLS13, r.issue(pair{}, "a", nil)))
	wantDenied(t, err, "no registered authority signed")
	_, _, err = d.enter(d.client(tls.VersionTLS13, r.issue(pair{}, "a", key, forUse(x509.ExtKeyUsageServerAuth))))
	wantDenied(t, err, "purposes")
	longer := r.issue(pair{}, "a", key, between(r.now(), r.now().AddDate(50, 0, 0)))
	r.pass(2 * 366 * 24 * time.Hour)
	_, _, err = d.enter(d.client(tls.VersionTLS13, longer)) // whoever has the key can write itself any date
	wantDenied(t, err, "expired")
}

func TestAnAuthorityMustBeOne(t *testing.T) {
	r := newRig(t)
	at := r.now()
	ca := r.root("CA")
	leaf := r.issue(ca, "d", nil)
	for _, tt := range []struct {
		name, text string
		spec       join.AuthoritySpec
		kind       muster.Kind
	}{
		{"a device's certificate", pemOf(leaf.cert), join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"two at once", pemOf(ca.cert) + pemOf(ca.cert), join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"one that expired", pemOf(r.root("old", between(at.Add(-2*time.Hour), at.Add(-time.Hour))).cert), join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"one with a weak key", pemOf(r.issue(pair{}, "weak", rsaKey(t, 1024), isCA).cert), join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"one for servers", pemOf(r.root("servers", forUse(x509.ExtKeyUsageServerAuth)).cert), join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"one that may not sign", pemOf(r.root("mute", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }).cert), join.AuthoritySpec{Name: "x"}, muster.Invalid},
		{"one with a profile that is not there", pemOf(ca.cert), join.AuthoritySpec{Name: "x", Profile: "nothing"}, muster.Invalid},
		{"one with a proof that there is not", pemOf(ca.cert), join.AuthoritySpec{Name: "x", Proof: "word"}, muster.Invalid},
		{"one without a name", pemOf(ca.cert), join.AuthoritySpec{}, muster.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.spec.PEM = tt.text
			_, err := r.AddAuthority(t.Context(), tt.spec)
			wantKind(t, err, tt.kind)
		})
	}
	if n := len(r.Authorities()); n != 0 {
		t.Errorf("%d authorities", n)
	}
	a := r.register(ca, false)
	_, err := r.AddAuthority(t.Context(), join.AuthoritySpec{Name: "again", PEM: pemOf(ca.cert)})
	wantKind(t, err, muster.Conflict)
	r.restart()
	got, err := r.Authority(a.ID)
	must(t, err)
	if !got.Cert.Equal(ca.cert) || got.Name != "CA" || got.Profile != devices.DefaultProfile {
		t.Errorf("after a restart it is %+v", got)
	}
	must(t, r.DeleteAuthority(t.Context(), a.ID))
	wantKind(t, r.DeleteAuthority(t.Context(), a.ID), muster.NotFound)
}

func TestAnAuthorityLetsNobodyInBeforeItsKeyIsProved(t *testing.T) {
	r := newRig(t)
	d := newDoor(r)
	ca, other := r.root("Plant"), r.root("Plant")
	a, err := r.AddAuthority(t.Context(), join.AuthoritySpec{Name: "Plant", PEM: pemOf(ca.cert), JIT: true})
	must(t, err)
	b, err := r.AddAuthority(t.Context(), join.AuthoritySpec{Name: "Other", PEM: pemOf(other.cert)})
	must(t, err)
	if len(a.Code) < 26 || a.Code == b.Code || a.Verified != 0 || a.Proof != join.ByCertificate {
		t.Fatalf("registered as %+v", a)
	}
	client := d.client(tls.VersionTLS13, r.issue(ca, "pump-1", nil))
	_, _, err = d.enter(client)
	wantDenied(t, err, "the authority Plant is not verified yet")
	at := r.now()
	proof := r.issue(ca, a.Code, nil)
	for name, c := range map[string]pair{
		"of another authority with its name": r.issue(other, a.Code, nil),
		"self-signed":                        r.issue(pair{}, a.Code, nil),
		"the authority's own":                ca,
		"with the code of another":           r.issue(ca, b.Code, nil),
		"with two names":                     r.issue(ca, "", nil, names(a.Code, a.Code)),
		"that expired":                       r.issue(ca, a.Code, nil, between(at.Add(-2*time.Hour), at.Add(-time.Hour))),
		"that is not valid yet":              r.issue(ca, a.Code, nil, between(at.Add(time.Hour), at.Add(2*time.Hour))),
		"signed by a device":                 r.issue(r.issue(ca, "pump-1", nil), a.Code, nil),
	} {
		t.Run("a certificate "+name, func(t *testing.T) {
			_, err := r.VerifyAuthority(t.Context(), a.ID, pemOf(c.cert))
			wantKind(t, err, muster.Invalid)
		})
	}
	_, err = r.VerifyAuthority(t.Context(), a.ID, "x")
	wantKind(t, err, muster.Invalid)
	_, err = r.VerifyAuthority(t.Context(), "ca_x", pemOf(proof.cert))
	wantKind(t, err, muster.NotFound)
	_, _, err = d.enter(client)
	wantDenied(t, err, "is not verified yet")
	_, err = r.ChangeAuthority(t.Context(), a.ID, join.AuthorityChange{})
	must(t, err)
	_, _, err = d.enter(client)
	wantDenied(t, err, "is not verified yet")

	got, err := r.VerifyAuthority(t.Context(), a.ID, pemOf(proof.cert))
	must(t, err)
	if got.Verified != muster.MicrosOf(at) {
		t.Errorf("verified as %+v", got)
	}
	_, err = r.VerifyAuthority(t.Context(), a.ID, pemOf(proof.cert))
	wantKind(t, err, muster.Conflict)
	r.restart()
	id, _, err := d.enter(client)
	if must(t, err); id != "pump-1" {
		t.Errorf("let in as %s", id)
	}
	_, _, err = d.enter(d.client(tls.VersionTLS13, proof))
	wantDenied(t, err, "the one that verified the authority Plant")
	_, _, err = d.enter(d.client(tls.VersionTLS13, r.issue(other, "pump-2", nil)))
	wantDenied(t, err, "the authority Other is not verified yet")
}

func TestAnAuthorityThatIsNotVerifiedTakesNothingFromOneAboveIt(t *testing.T) {
	r := newRig(t)
	d := newDoor(r)
	root := r.root("Root")
	r.register(root, true)
	inter := r.issue(root, "Inter", nil, isCA)
	_, err := r.AddAuthority(t.Context(), join.AuthoritySpec{Name: "Inter", PEM: pemOf(inter.cert), JIT: true})
	must(t, err)
	leaf := r.issue(inter, "pump-1", nil)
	_, _, err = d.enter(d.client(tls.VersionTLS13, leaf))
	wantDenied(t, err, "the authority Inter is not verified yet")
	if id, _, err := d.enter(d.client(tls.VersionTLS13, leaf, inter)); err != nil || id != "pump-1" {
		t.Errorf("by the root it is %q, %v", id, err)
	}
}

// FuzzCertificate holds the judgement to this: whatever is presented, only what a
// registered authority signed, or a pinned key, lets a client in, as that device.
func FuzzCertificate(f *testing.F) {
	r := newRig(f)
	n := byte(0)
	issue := func(up pair, name string, changes ...change) pair { // the same in each process that fuzzes
		n++
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
		return r.issue(up, name, key, append(changes, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(int64(n)) })...)
	}
	ca := issue(pair{}, "CA", isCA)
	r.register(ca, true)
	inter := issue(ca, "inter", isCA)
	good, low := issue(ca, "good"), issue(inter, "low")
	pinned := issue(pair{}, "self")
	r.device("pinned")
	_, err := r.registry.AddGrant(f.Context(), "pinned", devices.Grant{Kind: devices.X509, Certificate: pinned.cert})
	must(f, err)
	for _, c := range []pair{good, low, pinned, ca, issue(pair{}, "good")} {
		f.Add(c.cert.Raw, inter.cert.Raw)
	}
	signed := map[muster.DeviceID]*x509.Certificate{"good": good.cert, "low": low.cert, "pinned": pinned.cert}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var certs []*x509.Certificate
		for _, der := range [][]byte{first, second} {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				continue
			}
			certs = append(certs, c)
		}
		id, _, err := r.Certificate(t.Context(), certs)
		if err != nil {
			wantKind(t, err, muster.Unauthorized)
			return
		}
		if c := signed[id]; c == nil || !bytes.Equal(c.RawSubjectPublicKeyInfo, certs[0].RawSubjectPublicKeyInfo) {
			t.Errorf("let in as %q: %x", id, first)
		}
	})
}
