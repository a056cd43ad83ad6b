package email

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"

	"muster"
)

const (
	maxAddress = 254       // bytes of an address (RFC 5321, section 4.5.3.1.3, without the brackets)
	maxSubject = 400       // bytes
	maxBody    = 256 << 10 // bytes of text and HTML together
	maxKey     = 256       // bytes
)

// Mail is one message. Key makes its Message-ID: the same for each attempt at the same
// mail, so that a mailbox that got it twice shows it once; empty for a new one each
// time. To is one bare address, HTML may be empty.
//
// Note goes with the attempt: what was not as it was to be; empty for nothing.
type Mail struct{ To, Subject, Text, HTML, Key, Note string }

// Send hands m to the server within Timeout. Invalid means that trying again is of no
// use (the mail breaks a rule, or the server refused it with a 5xx); Unavailable that it
// may help later, also when the server does not let us in at all. nil means that the
// server has taken the mail. No address, key or subject with a line break is sent.
func (m *Mailer) Send(ctx context.Context, mail Mail) error {
	if err := check(mail); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	msg, err := m.message(mail)
	if err != nil {
		return err
	}
	line := &line{m: m}
	defer line.close()
	c, err := m.client(line.dialer(ctx))
	if err != nil {
		return err
	}
	err = c.DialAndSendWithContext(ctx, msg)
	if err == nil || msg.IsDelivered() { // a connection that breaks after the server's yes changes nothing
		return nil
	}
	if cause := ctx.Err(); cause != nil {
		return muster.Errorf(muster.Unavailable, "the mail server did not take the mail in time: %w", cause)
	}
	return m.failure(err)
}

// message is mail as it goes out. RFC 3834, section 5: it says that no person wrote it.
func (m *Mailer) message(mail Mail) (*gomail.Msg, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(m.from)
	if err := msg.To(mail.To); err != nil {
		return nil, badAddress()
	}
	msg.Subject(mail.Subject)
	msg.SetDateWithValue(m.now())
	msg.SetMessageIDWithValue(m.messageID(mail.Key))
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(gomail.TypeTextPlain, mail.Text)
	if mail.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, mail.HTML)
	}
	return msg, nil
}

// messageID is a hash of the key, which may be anything.
func (m *Mailer) messageID(key string) string {
	if key == "" {
		key = rand.Text()
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16]) + "@" + m.domain
}

// client makes go-mail's client for one mail. It has no second chance and no log.
func (m *Mailer) client(dial gomail.DialContextFunc) (*gomail.Client, error) {
	opts := []gomail.Option{
		gomail.WithPort(m.port), gomail.WithTimeout(m.timeout + 2*time.Second), gomail.WithTLSPolicy(m.policy), gomail.WithTLSConfig(m.tls),
		gomail.WithDialContextFunc(dial), gomail.WithoutNoop(), gomail.WithoutRset(),
	}
	if m.user != "" {
		opts = append(opts, gomail.WithUsername(m.user), gomail.WithPassword(m.password), gomail.WithOpportunisticSMTPAuth(
			gomail.SMTPAuthSCRAMSHA256, gomail.SMTPAuthSCRAMSHA1, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	c, err := gomail.NewClient(m.host, opts...)
	if err != nil {
		return nil, muster.Errorf(muster.Unavailable, "the mail client cannot be set up: %w", err)
	}
	return c, nil
}

// line is the connection of one mail. go-mail leaves it open when signing in fails, and
// would begin its time anew at each step.
type line struct {
	m    *Mailer
	conn net.Conn
	stop func() bool
}

// dialer opens the line, which ends with ctx.
func (l *line) dialer(ctx context.Context) gomail.DialContextFunc {
	return func(dialing context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		raw, err := d.DialContext(dialing, network, l.m.addr)
		if err != nil {
			return nil, fmt.Errorf("dial: %w", err)
		}
		until, _ := ctx.Deadline()
		l.conn = bounded{raw, until.Add(time.Second)} // the context is to be first, to say why
		l.stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
		if !l.m.implicit {
			return l.conn, nil
		}
		secure := tls.Client(l.conn, l.m.tls)
		if err := secure.HandshakeContext(dialing); err != nil {
			return nil, fmt.Errorf("begin TLS: %w", err)
		}
		return secure, nil
	}
}

func (l *line) close() {
	if l.conn != nil {
		l.stop()
		_ = l.conn.Close() // everything was said
	}
}

// bounded is a connection whose deadline is never put off beyond until.
type bounded struct {
	net.Conn
	until time.Time
}

func (c bounded) SetDeadline(t time.Time) error {
	if t.IsZero() || t.After(c.until) {
		t = c.until
	}
	return c.Conn.SetDeadline(t)
}

// failure says what became of a mail that was not taken. What the server wrote is kept
// as the cause, and only of steps before it saw the mail's text: servers repeat what
// they refuse, passwords included.
func (m *Mailer) failure(err error) error {
	refused, ok := errors.AsType[*gomail.SendError](err)
	if !ok {
		return m.noEntry(err)
	}
	doing, cause := "the mail", error(nil)
	switch refused.Reason {
	case gomail.ErrSMTPMailFrom:
		doing, cause = "the sender", errors.New(plain(refused.Error()))
	case gomail.ErrSMTPRcptTo:
		doing, cause = "the recipient", errors.New(plain(refused.Error()))
	case gomail.ErrGetRcpts:
		return badAddress()
	default:
	}
	code := refused.ErrorCode()
	if code == 0 {
		return &muster.Error{Kind: muster.Unavailable, Msg: "the connection to the mail server broke", Err: cause}
	}
	kind := muster.Unavailable
	if code >= 500 && !aboutUs(code) {
		kind = muster.Invalid
	}
	words := strings.TrimSpace(fmt.Sprint(code, " ", refused.EnhancedStatusCode()))
	return &muster.Error{Kind: kind, Msg: fmt.Sprintf("the mail server refused %s (%s)", doing, words), Err: &reply{code, cause}}
}

// aboutUs says whether a 5xx is about how we signed in, which the operator can change
// (RFC 4954, section 6): the mail itself is not refused for good.
func aboutUs(code int) bool { return code == 530 || code == 534 || code == 535 || code == 538 }

// noEntry is a failure before the mail itself: name, network, TLS, sign-in. None of
// them is the mail's fault.
func (m *Mailer) noEntry(err error) error {
	if said, ok := errors.AsType[*textproto.Error](err); ok {
		return &muster.Error{Kind: muster.Unavailable, Msg: fmt.Sprintf("the mail server does not let us in (%d)", said.Code), Err: &reply{said.Code, nil}}
	}
	if m.password != "" && strings.Contains(err.Error(), m.password) {
		return muster.Errorf(muster.Unavailable, "the mail server does not let us in")
	}
	return &muster.Error{Kind: muster.Unavailable, Msg: "the mail server cannot be used: " + err.Error(), Err: &reply{0, err}}
}

// plain is s as one line of at most 300 bytes.
func plain(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s), "?")
	return s[:min(len(s), 300)]
}

// check refuses what may not become a mail.
func check(m Mail) error {
	if err := checkAddress(m.To); err != nil {
		return err
	}
	switch {
	case m.Subject == "" || len(m.Subject) > maxSubject || strings.ContainsFunc(m.Subject, unfit) || !utf8.ValidString(m.Subject):
		return muster.Errorf(muster.Invalid, "the mail's subject is not one line of 1 to %d bytes", maxSubject)
	case len(m.Key) > maxKey || strings.ContainsFunc(m.Key, unfit):
		return muster.Errorf(muster.Invalid, "the mail's key is not one line of at most %d bytes", maxKey)
	case m.Text == "" || len(m.Text)+len(m.HTML) > maxBody:
		return muster.Errorf(muster.Invalid, "the mail has no text, or more than %d bytes", maxBody)
	case !utf8.ValidString(m.Text) || !utf8.ValidString(m.HTML):
		return muster.Errorf(muster.Invalid, "the mail's text is not UTF-8")
	}
	return nil
}

// checkAddress takes a bare address: no name, no brackets, no quotes.
func checkAddress(s string) error {
	if len(s) > maxAddress || strings.ContainsFunc(s, unfit) {
		return badAddress()
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Name != "" || a.Address != s {
		return badAddress()
	}
	return nil
}

func badAddress() error {
	return muster.Errorf(muster.Invalid, "the recipient is not a mail address")
}

// unfit says whether r may not stand in a header: line breaks and other controls.
func unfit(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }
