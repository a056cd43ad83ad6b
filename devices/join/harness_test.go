package join_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/devices"
	"muster/devices/join"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a Join over a real registry and store, with a clock that tests move.
type rig struct {
	testing.TB
	*join.Join
	registry *devices.Registry
	store    *control.Control

	mu     sync.Mutex
	at     time.Time
	rights []func(muster.DeviceID, string) bool // changes of devices' rights,
	guests []func(string) bool                  // and of guests'
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = r.at.Add(d)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	store, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	r := &rig{TB: t, store: store, at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.restart()
	return r
}

// restart builds registry and join anew from the store.
func (r *rig) restart() {
	r.Helper()
	log := slog.New(slog.DiscardHandler)
	r.registry = devices.NewRegistry(r.store, r.now, log, devices.Options{
		OnRights: func(affects func(muster.DeviceID, string) bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.rights = append(r.rights, affects)
		},
		OnDeleted: func(id muster.DeviceID) { r.DeviceDeleted(id) },
	})
	r.Join = join.New(r.registry, r.store, r.now, log, join.Options{OnGuests: func(affects func(string) bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.guests = append(r.guests, affects)
	}})
	must(r, r.registry.Load(r.Context()))
	must(r, r.Load(r.Context()))
}

// cut says whether a connection of device by credential was reported since the last
// call.
func (r *rig) cut(device muster.DeviceID, credential string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	hit := slices.ContainsFunc(r.rights, func(affects func(muster.DeviceID, string) bool) bool { return affects(device, credential) })
	r.rights = nil
	return hit
}

// cutGuest is cut for a guest.
func (r *rig) cutGuest(credential string) bool {
	r.mu.Lock()
	all := r.guests
	r.guests = nil
	r.mu.Unlock()
	return slices.ContainsFunc(all, func(affects func(string) bool) bool { return affects(credential) })
}

func (r *rig) device(id muster.DeviceID) {
	r.Helper()
	_, _, err := r.registry.Create(r.Context(), devices.Spec{ID: id})
	must(r, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != kind {
		t.Errorf("error is %v (%v), want kind %v", err, muster.KindOf(err), kind)
	}
}

// wantDenied checks why a login was refused, and that the client is told nothing.
func wantDenied(t testing.TB, err error, reason string) *devices.Denied {
	t.Helper()
	wantKind(t, err, muster.Unauthorized)
	d, ok := errors.AsType[*devices.Denied](err)
	if !ok || !strings.Contains(d.Reason, reason) {
		t.Fatalf("the reason is %v, want %q", d, reason)
	}
	if err != nil && strings.Contains(muster.Public(err), reason) {
		t.Errorf("the client is told %q", muster.Public(err))
	}
	return d
}

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	must(t, err)
	return k
}

type change func(*x509.Certificate)

// issue makes a certificate for a year around r's time, signed by up, by itself when
// that has no key. A nil key is a new one.
func (r *rig) issue(up pair, name string, key crypto.Signer, changes ...change) pair {
	r.Helper()
	if key == nil {
		key = newKey(r)
	}
	at := r.now()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(r, err)
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: at.Add(-time.Hour), NotAfter: at.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	for _, c := range changes {
		c(tmpl)
	}
	parent, signer := up.cert, up.key
	if signer == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	must(r, err)
	cert, err := x509.ParseCertificate(der)
	must(r, err)
	return pair{cert, key}
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
}

func between(from, to time.Time) change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
}

func forUse(u ...x509.ExtKeyUsage) change { return func(c *x509.Certificate) { c.ExtKeyUsage = u } }

func algorithm(a x509.SignatureAlgorithm) change {
	return func(c *x509.Certificate) { c.SignatureAlgorithm = a }
}

func names(cn ...string) change {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{}
		for _, n := range cn {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: n})
		}
	}
}

func (r *rig) root(name string, changes ...change) pair {
	r.Helper()
	return r.issue(pair{}, name, nil, append([]change{isCA}, changes...)...)
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (r *rig) register(ca pair, jit bool) join.Authority {
	r.Helper()
	a, err := r.AddAuthority(r.Context(), join.AuthoritySpec{Name: ca.cert.Subject.CommonName, PEM: pemOf(ca.cert), JIT: jit, Proof: join.NoProof})
	must(r, err)
	return a
}

// door is a TLS server that asks for any certificate, as the broker's does, and client
// sessions that come back with their ticket.
type door struct {
	*rig
	server *tls.Config
}

func newDoor(r *rig) door {
	r.Helper()
	own := r.issue(pair{}, "server", nil, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
	return door{r, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{own.cert.Raw}, PrivateKey: own.key}},
		ClientAuth:   tls.RequestClientCert, Time: r.now, MinVersion: tls.VersionTLS12,
	}}
}

// client is who connects with chain; its sessions are kept.
func (d door) client(version uint16, chain ...pair) *tls.Config {
	c := tls.Certificate{PrivateKey: chain[0].key}
	for _, p := range chain {
		c.Certificate = append(c.Certificate, p.cert.Raw)
	}
	return &tls.Config{
		InsecureSkipVerify: true, ServerName: "localhost", MinVersion: version, MaxVersion: version, Time: d.now,
		ClientSessionCache:   tls.NewLRUClientSessionCache(1),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil },
	}
}

// shake makes a real handshake and returns what the server learned.
func (d door) shake(client *tls.Config) tls.ConnectionState {
	d.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(d, err)
	defer l.Close()
	type result struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer nc.Close()
		s := tls.Server(nc, d.server)
		if err = s.Handshake(); err == nil {
			_, err = s.Write([]byte("x")) // a ticket of TLS 1.3 comes with it
		}
		done <- result{s.ConnectionState(), err}
	}()
	nc, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
	must(d, err)
	defer nc.Close()
	must(d, nc.SetDeadline(time.Now().Add(20*time.Second)))
	c := tls.Client(nc, client)
	_, err = io.ReadFull(c, make([]byte, 1))
	must(d, err)
	res := <-done
	must(d, res.err)
	return res.state
}

// enter is shake and the judgement.
func (d door) enter(client *tls.Config) (id muster.DeviceID, credential string, err error) {
	d.Helper()
	return d.Certificate(d.Context(), d.shake(client).PeerCertificates)
}
