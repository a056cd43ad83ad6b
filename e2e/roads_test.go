package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// road is a way to the broker.
type road struct {
	name      string
	unix      bool
	missing   string // why it cannot be taken; empty means it can
	url       string // for clients that take one
	address   string // host:port, of TLS
	tls       *tls.Config
	ca        string   // path of the certificate to trust
	mosquitto []string // arguments of mosquitto_pub and mosquitto_sub; nil means they cannot
	dial      func() (net.Conn, error)
}

// needed skips the test when the road is missing; in CI that is a failure.
func (r road) needed(t *testing.T) {
	t.Helper()
	if r.missing != "" {
		missing(t, r.missing)
	}
}

// doors are the listeners beside TCP and WebSocket.
type doors struct{ tls, unix, cert, key string }

// roadArgs returns the arguments that open every road, and makes the certificate.
func roadArgs(t *testing.T) []string {
	t.Helper()
	if !offers(t, "--mqtts") || !offers(t, "--mqtt-unix") {
		return nil
	}
	dir := t.TempDir()
	d := doors{tls: freeAddr(t), unix: filepath.Join(dir, "mqtt.sock"), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	certificate(t, d.cert, d.key)
	return []string{"--mqtts", d.tls, "--tls-cert", d.cert, "--tls-key", d.key, "--mqtt-unix", d.unix}
}

// offers says whether muster serve has a flag.
func offers(t *testing.T, flag string) bool {
	t.Helper()
	r := command(t, program, "serve", "--help")
	return strings.Contains(r.stdout+r.stderr, flag)
}

// value returns what stands behind a flag in a server's arguments.
func (m *muster) value(flag string) string {
	for i, a := range m.args {
		if a == flag {
			return m.args[i+1]
		}
	}
	return ""
}

// roads returns the ways to a server that was started with roadArgs.
func roads(t *testing.T, m *muster) []road {
	t.Helper()
	host, port, err := net.SplitHostPort(m.mqtt)
	if err != nil {
		t.Fatal(err)
	}
	ws := "ws://" + m.http + "/mqtt"
	all := []road{
		{
			name: "TCP", url: "mqtt://" + m.mqtt, mosquitto: []string{"-h", host, "-p", port},
			dial: func() (net.Conn, error) { return net.DialTimeout("tcp", m.mqtt, clientLimit) },
		},
		{
			name: "WebSocket", url: ws,
			dial: func() (net.Conn, error) { return paho3.NewWebsocket(ws, nil, clientLimit, nil, nil) },
		},
		{name: "TLS", missing: "this muster has no flag --mqtts"},
		{name: "a unix socket", unix: true, missing: "this muster has no flag --mqtt-unix"},
	}
	if m.value("--mqtts") == "" {
		return all
	}
	all[2], all[3] = secureRoad(t, m), unixRoad(m.value("--mqtt-unix"))
	return all
}

func secureRoad(t *testing.T, m *muster) road {
	t.Helper()
	host, port, err := net.SplitHostPort(m.value("--mqtts"))
	if err != nil {
		t.Fatal(err)
	}
	ca := m.value("--tls-cert")
	raw, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	config := &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}
	return road{
		name: "TLS", url: "mqtts://" + m.value("--mqtts"), address: m.value("--mqtts"), tls: config, ca: ca, mosquitto: []string{"-h", host, "-p", port, "--cafile", ca},
		dial: func() (net.Conn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
			defer cancel()
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", m.value("--mqtts"))
		},
	}
}

func unixRoad(path string) road {
	return road{
		name: "a unix socket", unix: true, url: "unix://" + path, mosquitto: []string{"--unix", path},
		dial: func() (net.Conn, error) { return net.DialTimeout("unix", path, clientLimit) },
	}
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key.
func certificate(t *testing.T, certPath, keyPath string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "muster e2e"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: der}, keyPath: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
