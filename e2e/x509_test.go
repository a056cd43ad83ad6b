package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// paper is a certificate with its key, and the files that have them.
type paper struct {
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certFile, keyFile string
}

func (p paper) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

// issue makes a certificate for name, an authority's or a client's, that by signs;
// itself when by is nil. It is valid from an hour ago until ends. key may be nil.
func issue(t *testing.T, by *paper, name string, authority bool, ends time.Time, key *ecdsa.PrivateKey) *paper {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: ends.Add(-25 * time.Hour), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: authority,
	}
	if authority {
		template.KeyUsage |= x509.KeyUsageCertSign
	} else {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &paper{cert: cert, key: key, certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{p.certFile: p.pem(), p.keyFile: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// shows has mosquitto_pub publish one value over TLS with a certificate, and no user
// name.
func (m *muster) shows(p *paper, clientID string, value int) result {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.value("--mqtts"))
	if err != nil {
		m.t.Fatal(err)
	}
	return command(m.t, needs(m.t, "mosquitto_pub"), "-h", host, "-p", port, "--cafile", m.value("--tls-cert"), "--cert", p.certFile, "--key", p.keyFile,
		"-i", clientID, "-q", "1", "-t", "devices/me/telemetry", "-m", fmt.Sprintf(`{"seq":%d}`, value))
}

// TestCertificatesLetDevicesIn has mosquitto_pub come in over TLS with certificates
// that are good, and with others.
func TestCertificatesLetDevicesIn(t *testing.T) {
	needs(t, "mosquitto_pub")
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, append(args, roadArgs(t)...)...)
			soon := time.Now().Add(24 * time.Hour)
			plant := issue(t, nil, "Plant", true, soon, nil)
			m.ask(http.MethodPut, "/api/v1/profiles/pump", map[string]any{"message_rate": 100}, http.StatusOK, nil)
			var authority struct {
				ID   string
				Code string `json:"verification_code"`
			}
			m.ask(http.MethodPost, "/api/v1/certificate-authorities",
				map[string]any{"name": "Plant", "certificate": plant.pem(), "jit": true, "profile": "pump"}, http.StatusCreated, &authority)
			m.device("pinned", "token")
			self := issue(t, nil, "whatever it says", false, soon, nil)
			m.ask(http.MethodPost, "/api/v1/devices/pinned/credentials", map[string]string{"certificate": self.pem()}, http.StatusCreated, nil)

			made := issue(t, plant, "pump-1", false, soon, nil)
			m.refuses(made, "", "the authority Plant is not verified yet")
			verify := func(p *paper, want int) {
				m.ask(http.MethodPost, "/api/v1/certificate-authorities/"+authority.ID+"/verify", map[string]string{"certificate": p.pem()}, want, nil)
			}
			verify(issue(t, nil, authority.Code, false, soon, nil), http.StatusUnprocessableEntity)
			verify(issue(t, plant, authority.Code, false, soon, nil), http.StatusOK)
			m.letsIn(made, "pump-1", "pump")
			m.letsIn(self, "pinned", "default")
			m.keepsOut(t, plant, made, self)

			m.ask(http.MethodDelete, "/api/v1/certificate-authorities/"+authority.ID, nil, http.StatusNoContent, nil)
			m.refuses(made, "pump-1", "no certificate authority is registered")
			m.letsIn(self, "pinned", "default")
		})
	}
}

// keepsOut tries certificates that let nobody in.
func (m *muster) keepsOut(t *testing.T, plant, made, self *paper) {
	t.Helper()
	soon, past := time.Now().Add(24*time.Hour), time.Now().Add(-time.Hour)
	foreign := issue(t, nil, "Plant", true, soon, nil) // of the same name, but another
	for _, bad := range []struct {
		p              *paper
		device, reason string
	}{
		{issue(t, foreign, "pump-1", false, soon, nil), "pump-1", "no registered authority signed the certificate; its issuer is CN=Plant"},
		{issue(t, nil, "pump-1", false, soon, nil), "pump-1", "no registered authority signed the certificate"},
		{issue(t, plant, "pump-1", false, past, nil), "pump-1", "the certificate expired at " + past.UTC().Format("2006-01-02")},
		{issue(t, nil, "whatever it says", false, past, self.key), "pinned", "the certificate expired at"},
		{issue(t, plant, "pinned", false, soon, made.key), "pinned", "a certificate for pinned has the key of pump-1"},
		{issue(t, foreign, "pump-9", false, soon, nil), "", "no registered authority signed the certificate"},
		{issue(t, plant, "pump 9", false, soon, nil), "", "common name is no device id"},
	} {
		m.refuses(bad.p, bad.device, bad.reason)
	}
	m.ask(http.MethodGet, "/api/v1/devices/pump-9", nil, http.StatusNotFound, nil)
}

// letsIn checks that the client with the certificate is the device.
func (m *muster) letsIn(p *paper, device, profile string) {
	m.t.Helper()
	value := int(time.Now().UnixMilli() % 1e9) // another one each time
	if r := m.shows(p, "any-client-id", value); r.code != 0 {
		m.t.Fatalf("%s: %s\nfailed logins: %+v %+v", device, r, m.logins(device), m.logins(""))
	}
	var d struct{ Profile string }
	m.ask(http.MethodGet, "/api/v1/devices/"+device, nil, http.StatusOK, &d)
	if v, err := m.latest(device, "seq"); err != nil || v != float64(value) || d.Profile != profile {
		m.t.Errorf("%s of profile %s has the value %v, %v, want %d", device, d.Profile, v, err, value)
	}
}

// refuses checks that the client with the certificate is refused, that it is not told
// why, and that the operator is: on the device's page, or in the list of the fleet.
func (m *muster) refuses(p *paper, device, reason string) {
	m.t.Helper()
	r := m.shows(p, "any-client-id", 1)
	if said := strings.ToLower(r.stderr); r.code == 0 || !strings.Contains(said, "not authorised") && !strings.Contains(said, "bad user name or password") {
		m.t.Errorf("who is to be refused since %s: %s", reason, r)
	}
	shown := m.logins(device)
	if len(shown) == 0 || !strings.Contains(shown[0].Reason, reason) || shown[0].Listener != "tls" || shown[0].Subject != p.cert.Subject.CommonName {
		m.t.Errorf("the failed logins of %q are %+v\nwant %q", device, shown, reason)
	}
}
