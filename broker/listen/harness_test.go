package listen

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childMain()
		return
	}
	goleak.VerifyTestMain(m)
}

// got is a connection that was handed over.
type got struct {
	net.Conn
	info Info
}

// counts are the hooks' counts.
type counts struct {
	mu sync.Mutex
	n  map[string]int
	ch chan string // each as it is counted
}

func (c *counts) add(name string) {
	c.mu.Lock()
	c.n[name]++
	c.mu.Unlock()
	c.ch <- name
}

func (c *counts) get(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// wait waits until name has been counted n times in all.
func (c *counts) wait(t *testing.T, name string, n int) {
	t.Helper()
	limit := time.After(patience)
	for c.get(name) < n {
		select {
		case <-c.ch:
		case <-limit:
			t.Fatalf("%s was counted %d times, want %d", name, c.get(name), n)
		}
	}
}

func newCounts() *counts { return &counts{n: map[string]int{}, ch: make(chan string, 100000)} }

func (c *counts) hooks() Hooks {
	return Hooks{
		Accepted:       func(k Kind) { c.add("accepted") },
		Refused:        func(k Kind, r Refusal) { c.add(string(r)) },
		AcceptError:    func(k Kind) { c.add("accept") },
		HandshakeError: func(k Kind, r string) { c.add(r) },
	}
}

// room is a listener under test, serving.
type room struct {
	*Listener
	conns  chan got
	counts *counts
	stop   func() error // ends Serve and returns its error; may be called twice
}

func open(t *testing.T, cfg Config) *room {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	c := newCounts()
	cfg.Hooks = c.hooks()
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l, c)
}

func serve(t *testing.T, l *Listener, c *counts) *room {
	t.Helper()
	r := &room{Listener: l, conns: make(chan got, 10000), counts: c}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, func(nc net.Conn, info Info) { r.conns <- got{nc, info} }) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return os.ErrDeadlineExceeded
		}
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		for {
			select {
			case g := <-r.conns:
				_ = g.Close()
			default:
				return
			}
		}
	})
	return r
}

// next returns the connection handed over next.
func (r *room) next(t *testing.T) got {
	t.Helper()
	select {
	case g := <-r.conns:
		t.Cleanup(func() { _ = g.Close() })
		return g
	case <-time.After(patience):
		t.Fatal("no connection was handed over")
		return got{}
	}
}

// dial connects; the connection ends with the test and never waits forever.
func (r *room) dial(t *testing.T) net.Conn {
	t.Helper()
	nc, err := net.Dial(r.Addr().Network(), r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// dialTLS connects and makes a handshake.
func (r *room) dialTLS(t *testing.T, cfg *tls.Config) (*tls.Conn, error) {
	t.Helper()
	c := tls.Client(r.dial(t), cfg)
	err := c.Handshake()
	return c, err
}

// say writes text to w.
func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// hear reads len(want) bytes and compares them.
func hear(t *testing.T, r io.Reader, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(r, buf); err != nil {
		t.Fatalf("read %q: %v", want, err)
	}
	if string(buf) != want {
		t.Fatalf("read %q, want %q", buf, want)
	}
}

// authority is a CA made for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// leaf is what a certificate is made for.
type leaf struct {
	name   string
	from   time.Time // zero: an hour ago
	until  time.Time // zero: in a day
	client bool
}

func newCA(t *testing.T, name string) *authority {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a certificate and its key, as PEM.
func (a *authority) issue(t *testing.T, l leaf) (cert, key []byte) {
	t.Helper()
	if l.from.IsZero() {
		l.from = time.Now().Add(-time.Hour)
	}
	if l.until.IsZero() {
		l.until = time.Now().Add(24 * time.Hour)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: l.name}, DNSNames: []string{l.name},
		NotBefore: l.from, NotAfter: l.until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if l.client {
		tmpl.DNSNames, tmpl.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	k := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})
}

// client makes a client's key pair.
func (a *authority) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, leaf{name: name, client: true}))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// put writes a server certificate for name to dir, and returns its files.
func (a *authority) put(t *testing.T, dir, name string) Pair {
	t.Helper()
	p := Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	cert, key := a.issue(t, leaf{name: name})
	write(t, p.Cert, cert)
	write(t, p.Key, key)
	return p
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// load makes Certs.
func load(t *testing.T, cfg CertsConfig) *Certs {
	t.Helper()
	c, err := LoadCerts(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
