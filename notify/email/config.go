package email

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/mail"
	"net/url"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"muster"
)

// Timeout is how long one mail may take, from the dial to the server's last word.
const Timeout = 15 * time.Second

// The ports of message submission (RFC 6409 and RFC 8314, section 3.3).
const (
	submissionPort  = 587
	submissionsPort = 465
)

// The ways of starttls in the URL.
const (
	ttRequired      = "required"
	ttOpportunistic = "opportunistic"
	ttOff           = "off"
)

// Config is what New needs.
type Config struct {
	// URL is smtp[s]://user:pass@host:port?from=Name <a@b>&starttls=required. The port is
	// 587 when absent, 465 with smtps. starttls is required, opportunistic or off; when
	// absent it is required, and opportunistic on this machine itself. A user's password
	// is sent over TLS only, or to this machine.
	URL string
	// Roots are the authorities of the server's certificate, the system's when nil.
	Roots *x509.CertPool
	// Timeout of one mail; the constant of that name when 0.
	Timeout time.Duration
	Now     func() time.Time
}

// Mailer sends mail through one server. It is safe for concurrent use; each mail has
// a connection of its own.
type Mailer struct {
	host, addr     string // addr is host:port
	port           int
	user, password string
	from           *mail.Address
	domain         string // of from, for message ids
	implicit       bool   // TLS from the first byte
	policy         gomail.TLSPolicy
	tls            *tls.Config
	timeout        time.Duration
	now            func() time.Time
}

// New reads c. Invalid when the URL is not understood; the error never repeats it,
// since it holds the password.
func New(c Config) (*Mailer, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Hostname() == "" || u.Scheme != "smtp" && u.Scheme != "smtps" {
		return nil, muster.Errorf(muster.Invalid, "the SMTP URL is not smtp[s]://user:password@host:port?from=address")
	}
	if u.Path != "" && u.Path != "/" || u.Fragment != "" || strings.ContainsFunc(u.Hostname(), unfit) {
		return nil, muster.Errorf(muster.Invalid, "the SMTP URL has more than a user, a host, a port and parameters")
	}
	m := &Mailer{host: u.Hostname(), implicit: u.Scheme == "smtps", timeout: c.Timeout, now: c.Now, port: submissionPort}
	if m.timeout == 0 {
		m.timeout = Timeout
	}
	if m.implicit {
		m.port = submissionsPort
	}
	if p := u.Port(); p != "" {
		if m.port, err = strconv.Atoi(p); err != nil || m.port < 1 || m.port > 65535 {
			return nil, muster.Errorf(muster.Invalid, "the SMTP URL's port is not between 1 and 65535")
		}
	}
	m.addr = net.JoinHostPort(m.host, strconv.Itoa(m.port))
	m.tls = &tls.Config{ServerName: m.host, MinVersion: tls.VersionTLS12, RootCAs: c.Roots}
	if u.User != nil {
		m.user = u.User.Username()
		m.password, _ = u.User.Password()
	}
	if err := m.params(u.RawQuery); err != nil {
		return nil, err
	}
	return m, nil
}

// params reads what follows the question mark.
func (m *Mailer) params(query string) error {
	q, err := url.ParseQuery(query)
	if err != nil {
		return muster.Errorf(muster.Invalid, "the SMTP URL's parameters are not understood")
	}
	for name, values := range q {
		if len(values) != 1 || name != "from" && name != "starttls" {
			return muster.Errorf(muster.Invalid, "the SMTP URL's parameters are from and starttls, each at most once")
		}
	}
	from, err := mail.ParseAddress(q.Get("from"))
	if err != nil || checkAddress(from.Address) != nil || strings.ContainsFunc(from.Name, unfit) {
		return muster.Errorf(muster.Invalid, "the SMTP URL's from is not a mail address")
	}
	m.from = from
	m.domain = from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	return m.security(q.Get("starttls"))
}

// security chooses when TLS begins.
func (m *Mailer) security(starttls string) error {
	if m.implicit {
		if starttls != "" {
			return muster.Errorf(muster.Invalid, "smtps:// is TLS from the first byte: starttls belongs to smtp://")
		}
		m.policy = gomail.TLSOpportunistic // the connection is over TLS before go-mail sees it
		return nil
	}
	if starttls == "" {
		starttls = ttRequired
		if local(m.host) {
			starttls = ttOpportunistic
		}
	}
	switch starttls {
	case ttRequired:
		m.policy = gomail.TLSMandatory
	case ttOpportunistic:
		m.policy = gomail.TLSOpportunistic
	case ttOff:
		m.policy = gomail.NoTLS
		if m.password != "" && !local(m.host) {
			return muster.Errorf(muster.Invalid, "the SMTP password would cross the network in clear text: use smtps:// or starttls=required")
		}
	default:
		return muster.Errorf(muster.Invalid, "the SMTP URL's starttls is not required, opportunistic or off")
	}
	return nil
}

// local says whether host is this machine, as go-mail decides it for passwords.
func local(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }
