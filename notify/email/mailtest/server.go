// Package mailtest is an SMTP server for tests: it keeps the mails it takes, speaks TLS
// from the first byte or by STARTTLS, asks for a password, and at each step can refuse,
// say nothing, or hang up. Tests of the mail channel and of whole servers call it; it
// is never part of the product.
package mailtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Config says what a Server offers.
type Config struct {
	TLS      bool // from the first byte
	StartTLS bool
	// User and Password are asked for when User is set.
	User, Password string
}

// Step is a moment of an SMTP conversation.
type Step string

// The steps at which a Server can be made to fail.
const (
	Greet   Step = "greet"   // before its first word; only silence and hanging up
	SignIn  Step = "sign in" // at AUTH
	From    Step = "from"    // at MAIL FROM
	To      Step = "to"      // at RCPT TO
	Content Step = "content" // at the end of DATA
	Kept    Step = "kept"    // when it has kept the mail, before its yes
	Taken   Step = "taken"   // after its yes to the mail; only hanging up
)

// Fault is what happens at a step instead of what should.
type Fault struct {
	Code     int    // answered, when not 0
	Enhanced [3]int // RFC 3463
	Text     string
	Silence  bool // nothing is said until the server ends
	HangUp   bool
}

// Server is a running SMTP server.
type Server struct {
	config Config
	addr   string
	roots  *x509.CertPool
	ended  chan struct{}

	mu     sync.Mutex
	faults map[Step]Fault
	mails  []Mail
	came   chan struct{} // closed and made anew with each mail
}

// Start runs a server on 127.0.0.1 until the test ends.
func Start(t testing.TB, c Config) *Server {
	t.Helper()
	cert, roots := certificate(t)
	s := &Server{config: c, roots: roots, ended: make(chan struct{}), faults: map[Step]Fault{}, came: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // binding does not wait
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	s.addr = l.Addr().String()
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server := smtp.NewServer(smtp.BackendFunc(func(conn *smtp.Conn) (smtp.Session, error) { return &session{server: s, conn: conn}, nil }))
	server.Domain, server.AllowInsecureAuth, server.MaxMessageBytes = "mail.test", true, 1<<20
	server.EnableSMTPUTF8 = true
	server.ErrorLog = quiet{}
	if c.StartTLS {
		server.TLSConfig = secure
	}
	l = greeter{l, s}
	if c.TLS {
		l = tls.NewListener(l, secure)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends with the test
	}()
	t.Cleanup(func() {
		close(s.ended)
		_ = server.Close()
		_ = l.Close() // the server does not know it before it serves
		<-served
	})
	return s
}

// certificate is good for 127.0.0.1 and signed by itself.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatalf("make a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("read the certificate: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// Addr returns host:port.
func (s *Server) Addr() string { return s.addr }

// Roots holds the server's certificate.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// URL returns where --smtp points to reach the server, with its user and password and
// parameters such as "starttls", "off" besides from.
func (s *Server) URL(from string, params ...string) string {
	u := url.URL{Scheme: "smtp", Host: s.addr}
	if s.config.TLS {
		u.Scheme = "smtps"
	}
	if s.config.User != "" {
		u.User = url.UserPassword(s.config.User, s.config.Password)
	}
	q := url.Values{"from": {from}}
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Fail has the server do f at step from now on; a zero f has it work again.
func (s *Server) Fail(step Step, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[step] = f
}

// Mails returns what the server has taken, oldest first.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Wait returns the first n mails as soon as there are so many, and fails the test when
// its own time is over before.
func (s *Server) Wait(t testing.TB, n int) []Mail {
	t.Helper()
	for {
		s.mu.Lock()
		mails, came := slices.Clone(s.mails), s.came
		s.mu.Unlock()
		if len(mails) >= n {
			return mails[:n]
		}
		select {
		case <-came:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d mails came, want %d", len(mails), n)
		}
	}
}

func (s *Server) take(m Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, m)
	close(s.came)
	s.came = make(chan struct{})
}

func (s *Server) fault(step Step) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults[step]
}

// quiet is a log that nobody reads.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

// greeter is a listener whose connections may end before the first word.
type greeter struct {
	net.Listener
	s *Server
}

func (g greeter) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		f := g.s.fault(Greet)
		if f.Silence {
			<-g.s.ended
		}
		if !f.Silence && !f.HangUp {
			return c, nil
		}
		_ = c.Close() // that was the point
	}
}

// session is one conversation.
type session struct {
	server *Server
	conn   *smtp.Conn
	user   string
	mail   Mail
	taken  bool
}

// at is what the server answers at step.
func (s *session) at(step Step) error {
	f := s.server.fault(step)
	switch {
	case f.Silence:
		<-s.server.ended
		return smtp.ErrAuthFailed
	case f.HangUp:
		_ = s.conn.Conn().Close() // that was the point
		return smtp.ErrAuthFailed
	case f.Code != 0:
		return &smtp.SMTPError{Code: f.Code, EnhancedCode: f.Enhanced, Message: f.Text}
	}
	return nil
}

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	if s.server.config.User == "" {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if err := s.at(SignIn); err != nil {
			return err
		}
		if user != s.server.config.User || password != s.server.config.Password {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.config.User != "" && s.user == "" {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	}
	_, secure := s.conn.TLSConnectionState()
	s.mail = Mail{From: from, User: s.user, TLS: secure}
	return s.at(From)
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.To = append(s.mail.To, to)
	return s.at(To)
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.at(Content); err != nil {
		return err
	}
	m := s.mail
	if err := m.read(raw); err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: err.Error()}
	}
	s.taken = true
	s.server.take(m)
	return s.at(Kept)
}

// Reset implements smtp.Session. It is called after the answer to DATA was written.
func (s *session) Reset() {
	if s.taken && s.server.fault(Taken).HangUp {
		_ = s.conn.Conn().Close() // that was the point
	}
}

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }
