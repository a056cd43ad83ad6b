package listen

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"muster"
)

// protocol is MQTT's name in ALPN (IANA's registry).
const protocol = "mqtt"

// maxPEM is the most that is read of one file, in bytes.
const maxPEM = 4 << 20

// Ways to treat client certificates, for CertsConfig.ClientAuth.
const (
	ClientNone    = "none"    // not asked for
	ClientRequest = "request" // asked for, shown to the caller, checked against no CA: for pinned certificates
	ClientVerify  = "verify"  // asked for; one that is given must chain to the CA
	ClientRequire = "require" // demanded, and must chain to the CA
)

// Pair names the PEM files of a certificate, with its intermediates, and of its key.
type Pair struct{ Cert, Key string }

// CertsConfig says where the certificates are.
type CertsConfig struct {
	Pairs      []Pair           // the client's SNI picks; the first is the default
	ClientCA   string           // a PEM file; for "verify" and "require", and only there
	ClientAuth string           // "" means "none"
	Now        func() time.Time // nil means time.Now
	Logger     *slog.Logger     // nil discards
	// Tick makes Watch's ticker; nil means time.NewTicker.
	Tick func(time.Duration) (ticks <-chan time.Time, stop func())
}

// Certs holds the server's certificates and what is asked of clients. Its files can
// be read again while connections live. Safe for concurrent use.
type Certs struct {
	cfg  CertsConfig
	auth tls.ClientAuthType
	// base is one for all time: session tickets are made and read with its keys,
	// which crypto/tls rotates, and so they outlive a reload.
	base     *tls.Config
	now      atomic.Pointer[loaded]
	busy     chan struct{} // one token: one reload at a time
	failures atomic.Uint64
}

// loaded is what was read from the files at one time.
type loaded struct {
	config  *tls.Config
	expires time.Time
	stamp   stamp
}

// LoadCerts reads the files. Errors are Invalid for a configuration or a file's
// content that cannot be used. A certificate that is out of date is used all the
// same, with a warning: a broker that starts is better than none.
func LoadCerts(cfg CertsConfig) (*Certs, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tick == nil {
		cfg.Tick = newTicker
	}
	auth, err := clientAuth(cfg)
	if err != nil {
		return nil, err
	}
	c := &Certs{cfg: cfg, auth: auth, busy: make(chan struct{}, 1)}
	l, err := c.load()
	if err != nil {
		return nil, err
	}
	if err := outdated(l.config.Certificates, cfg.Now()); err != nil {
		cfg.Logger.Warn("a TLS certificate is used although it is out of date", "err", err)
	}
	c.now.Store(l)
	c.base = c.newConfig()
	c.base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.now.Load().config, nil }
	return c, nil
}

func clientAuth(cfg CertsConfig) (tls.ClientAuthType, error) {
	if len(cfg.Pairs) == 0 {
		return 0, muster.Errorf(muster.Invalid, "load certificates: none is named")
	}
	var auth tls.ClientAuthType
	needsCA := false
	switch cfg.ClientAuth {
	case "", ClientNone:
		auth = tls.NoClientCert
	case ClientRequest:
		auth = tls.RequestClientCert
	case ClientVerify:
		auth, needsCA = tls.VerifyClientCertIfGiven, true
	case ClientRequire:
		auth, needsCA = tls.RequireAndVerifyClientCert, true
	default:
		return 0, muster.Errorf(muster.Invalid, "load certificates: client certificates are %q; none, request, verify and require are known", cfg.ClientAuth)
	}
	if needsCA != (cfg.ClientCA != "") {
		return 0, muster.Errorf(muster.Invalid, "load certificates: a client CA is for verify and require, and these need one")
	}
	return auth, nil
}

func (c *Certs) newConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{protocol},
		ClientAuth: c.auth,
		Time:       c.cfg.Now,
	}
}

// Config returns the configuration for tls.Server. It stays right through reloads.
// A client may go without ALPN; one that offers only other protocols is refused
// (RFC 7301, section 3.2).
func (c *Certs) Config() *tls.Config { return c.base }

// Reload reads the files again and uses them for new connections. When one cannot
// be used or is out of date, all stays as it was, the error is returned and
// Failures counts it.
func (c *Certs) Reload() error {
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	l, err := c.load()
	if err == nil {
		err = outdated(l.config.Certificates, c.cfg.Now())
	}
	if err != nil {
		c.failures.Add(1)
		return fmt.Errorf("reload certificates: %w", err)
	}
	c.now.Store(l)
	return nil
}

// Failures returns how many reloads have failed.
func (c *Certs) Failures() uint64 { return c.failures.Load() }

// Expires returns when the first of the server's certificates runs out; their
// intermediates and the client CA do not count.
func (c *Certs) Expires() time.Time { return c.now.Load().expires }

func (c *Certs) load() (*loaded, error) {
	l := &loaded{config: c.newConfig(), stamp: c.look()} // looked at first: what changes meanwhile is seen next time
	for _, p := range c.cfg.Pairs {
		cert, err := loadPair(p)
		if err != nil {
			return nil, err
		}
		if l.expires.IsZero() || cert.Leaf.NotAfter.Before(l.expires) {
			l.expires = cert.Leaf.NotAfter
		}
		l.config.Certificates = append(l.config.Certificates, cert)
	}
	if c.cfg.ClientCA == "" {
		return l, nil
	}
	pool, err := loadCA(c.cfg.ClientCA)
	if err != nil {
		return nil, err
	}
	l.config.ClientCAs = pool
	return l, nil
}

func loadPair(p Pair) (tls.Certificate, error) {
	cert, err := readPEM(p.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readPEM(p.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, muster.Errorf(muster.Invalid, "certificate %s with key %s: %w", p.Cert, p.Key, err)
	}
	return pair, nil
}

// loadCA reads a CA file. Every certificate in it must be whole, for one that is
// skipped would lock its devices out without a word.
func loadCA(path string) (*x509.CertPool, error) {
	text, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, muster.Errorf(muster.Invalid, "client CA %s: certificate %d: %w", path, n+1, err)
		}
		pool.AddCert(ca)
		n++
	}
	if n == 0 {
		return nil, muster.Errorf(muster.Invalid, "client CA %s: it holds no certificate", path)
	}
	return pool, nil
}

func readPEM(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxPEM {
		return nil, muster.Errorf(muster.Invalid, "read certificates: %s is no file, or over 4 MiB", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return text, nil
}

// outdated returns an Invalid error when one of the certificates is not valid now.
func outdated(certs []tls.Certificate, now time.Time) error {
	for _, c := range certs {
		leaf := c.Leaf
		if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
			return muster.Errorf(muster.Invalid, "the certificate of %s is valid from %s to %s only", leaf.Subject,
				leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
