package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"muster"
	"muster/notify/hooks"
	"muster/notify/outbox"
)

const (
	// Timeout is how long one attempt may take, from the name's look-up to the answer.
	Timeout = 10 * time.Second
	// MaxExcerpt is how much of an answer is kept, in bytes.
	MaxExcerpt = 1 << 10

	maxHeader     = 16 << 10 // bytes of an answer's head
	maxDiscard    = 16 << 10 // bytes of an answer's body that are read to use the connection again
	maxRetryAfter = 24 * time.Hour
)

// Config is what New needs; all may be zero but Now.
type Config struct {
	Allow    []netip.Prefix // inner networks that may be reached
	Resolver Resolver       // the system's when nil
	Roots    *x509.CertPool // of receivers' certificates; the system's when nil
	Timeout  time.Duration  // of one attempt; the constant of that name when 0
	Version  string         // of Muster, for User-Agent
	Now      func() time.Time
}

// Sender sends events. It is safe for concurrent use.
type Sender struct {
	transport *http.Transport
	timeout   time.Duration
	agent     string
	now       func() time.Time
}

var _ hooks.Sender = (*Sender)(nil)

// New returns a Sender. It knows no proxy, whatever the environment says: a proxy would
// dial what the guard forbids.
func New(c Config) *Sender {
	g := &guard{resolver: c.Resolver, allow: slices.Clone(c.Allow), inner: innerNetworks()}
	if g.resolver == nil {
		g.resolver = net.DefaultResolver
	}
	timeout := cmp.Or(c.Timeout, Timeout)
	return &Sender{
		timeout: timeout, now: c.Now, agent: strings.TrimSuffix("Muster/"+c.Version, "/"),
		transport: &http.Transport{
			DialContext: g.dial, ForceAttemptHTTP2: true, DisableCompression: true,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
			TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns: 100, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
		},
	}
}

// Close ends the connections that wait for the next attempt.
func (s *Sender) Close() { s.transport.CloseIdleConnections() }

// Deliver makes one attempt: a POST of m to t, signed with every key of t, that follows
// no redirect and takes at most Timeout.
func (s *Sender) Deliver(ctx context.Context, t hooks.Target, m hooks.Message) outbox.Attempt {
	began := s.now()
	req, err := s.request(ctx, t, m, began)
	if err != nil {
		return outbox.Attempt{At: muster.MicrosOf(began), Verdict: outbox.Dead, Error: muster.Public(err)}
	}
	return s.Post(ctx, req)
}

// Post makes one attempt at a request as it is, unsigned, that follows no redirect and takes
// at most Timeout. It sets User-Agent.
func (s *Sender) Post(ctx context.Context, req *http.Request) outbox.Attempt {
	began := s.now()
	a := outbox.Attempt{At: muster.MicrosOf(began)}
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req = req.Clone(limited)
	req.Header.Set("User-Agent", s.agent)
	res, err := s.transport.RoundTrip(req) // the transport itself: a client follows redirects and may keep cookies
	if err != nil {
		a.Duration = s.now().Sub(began)
		a.Verdict, a.Error = failure(err)
		return a
	}
	defer func() { _ = res.Body.Close() }() // what was wanted of it was read
	a.Status, a.Response = res.StatusCode, excerpt(res.Body)
	a.Duration = s.now().Sub(began)
	a.RetryAfter = retryAfter(res.Header.Get("Retry-After"), s.now())
	a.Verdict, a.Error = judge(res.StatusCode)
	return a
}

// request is m, ready to be sent.
func (s *Sender) request(ctx context.Context, t hooks.Target, m hooks.Message, at time.Time) (*http.Request, error) {
	if err := checkID(m.ID); err != nil {
		return nil, err
	}
	if len(m.Body) > hooks.MaxEvent {
		return nil, muster.Errorf(muster.TooLarge, "the event has %d bytes, at most %d are sent", len(m.Body), hooks.MaxEvent)
	}
	if len(t.Keys) == 0 {
		return nil, muster.Errorf(muster.Invalid, "there is no secret to sign with")
	}
	u, err := url.Parse(t.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, muster.Errorf(muster.Invalid, "the URL is not https://host/path")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(m.Body))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the URL cannot be sent to")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(HeaderID, m.ID)
	req.Header.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	req.Header.Set(HeaderSignature, Sign(t.Keys, m.ID, at, m.Body))
	return req, nil
}

// failure is an attempt without an answer. Its words name hosts and addresses, and
// nothing of the URL's path.
func failure(err error) (outbox.Verdict, string) {
	if in, ok := errors.AsType[*innerError](err); ok {
		return outbox.Dead, in.Error()
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return outbox.Again, "there was no answer in time"
	}
	if d, ok := errors.AsType[*net.DNSError](err); ok { // its own words name the resolver
		return outbox.Again, clean([]byte("the host " + d.Name + " is not known: " + d.Err))
	}
	return outbox.Again, clean([]byte(err.Error()))
}

// judge says what an answer's status means ("Delivery success and failure").
func judge(status int) (outbox.Verdict, string) {
	switch {
	case status >= 200 && status <= 299:
		return outbox.Delivered, ""
	case status == http.StatusGone:
		return outbox.Gone, "the receiver wants no more events (410 Gone)"
	case status >= 300 && status <= 399:
		return outbox.Again, fmt.Sprintf("the receiver redirects (%d), which is not followed: use the URL it redirects to", status)
	}
	return outbox.Again, fmt.Sprintf("the receiver answered %d", status)
}

// excerpt reads how a body begins, and a little more so that the connection can be used
// again.
func excerpt(r io.Reader) string {
	head, err := io.ReadAll(io.LimitReader(r, MaxExcerpt))
	if err == nil {
		_, _ = io.CopyN(io.Discard, r, maxDiscard) // the connection is closed when there is more
	}
	return clean(head)
}

// clean is b as plain text of at most MaxExcerpt bytes.
func clean(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
	if len(s) > MaxExcerpt {
		s = strings.ToValidUTF8(s[:MaxExcerpt], "")
	}
	return s
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, section 10.2.3).
func retryAfter(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		d = time.Duration(min(max(n, 0), int64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
