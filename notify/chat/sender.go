package chat

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/notify/hooks"
	"muster/notify/outbox"
)

// Compose reads a service URL and returns the request that says text under title. Both are
// plain text; title is one line. An error means that the URL is not one of the service; its
// words may hold secrets.
type Compose func(u *url.URL, title, text string) (*http.Request, error)

// Poster makes one attempt at a request: it follows no redirect, reaches no inner address
// and ends with ctx. *webhook.Sender is one.
type Poster interface {
	Post(ctx context.Context, req *http.Request) outbox.Attempt
}

// Config is what New needs; all but Services.
type Config struct {
	Next     hooks.Sender       // sends to what is no chat service
	Poster   Poster             // sends the requests
	Services map[string]Compose // by scheme, as Services returns them; none when they are not built in
	Now      func() time.Time
}

// Sender sends events to chat services, and gives all others to the next one. It is safe for
// concurrent use.
type Sender struct{ config Config }

var (
	_ hooks.Sender = (*Sender)(nil)
	_ hooks.Chats  = (*Sender)(nil)
)

// New returns a Sender.
func New(c Config) *Sender { return &Sender{c} }

// Has implements hooks.Chats.
func (s *Sender) Has(service string) bool { return s.config.Services[service] != nil }

// Check implements hooks.Chats. Its words tell nothing of the URL but the service.
func (s *Sender) Check(serviceURL string) (string, error) {
	u, compose, err := s.read(serviceURL)
	if err != nil {
		return "", err
	}
	if _, err := compose(u, "a", "b"); err != nil {
		return "", notUnderstood(u.Scheme)
	}
	return u.Scheme, nil
}

// Deliver implements hooks.Sender. Of a chat service the target's only key is the service
// URL, and an attempt that was taken has no Response: services repeat what they were told.
func (s *Sender) Deliver(ctx context.Context, t hooks.Target, m hooks.Message) outbox.Attempt {
	service, ok := hooks.ChatOf(t.URL)
	if !ok {
		return s.config.Next.Deliver(ctx, t, m)
	}
	req, err := s.request(t, m)
	if err != nil {
		a := outbox.Attempt{At: muster.MicrosOf(s.config.Now()), Verdict: outbox.Dead, Error: muster.Public(err)}
		if muster.KindOf(err) == muster.Unavailable { // another binary may send it
			a.Verdict = outbox.Again
		}
		return a
	}
	a := s.config.Poster.Post(ctx, req)
	judge(&a, service)
	return a
}

// request is m as the service of t is told it.
func (s *Sender) request(t hooks.Target, m hooks.Message) (*http.Request, error) {
	if len(s.config.Services) == 0 {
		return nil, muster.Errorf(muster.Unavailable, hooks.NoChats)
	}
	if len(t.Keys) != 1 {
		return nil, muster.Errorf(muster.Invalid, "there is no service URL to send to")
	}
	u, compose, err := s.read(string(t.Keys[0]))
	if err != nil {
		return nil, err
	}
	title, text := wording(m.Body)
	req, err := compose(u, title, text)
	if err != nil {
		return nil, notUnderstood(u.Scheme)
	}
	return req, nil
}

// read finds the service of a service URL.
func (s *Sender) read(serviceURL string) (*url.URL, Compose, error) {
	if len(s.config.Services) == 0 {
		return nil, nil, muster.InvalidAt("url", hooks.NoChats)
	}
	u, err := url.Parse(serviceURL)
	if err != nil || u.Scheme == "" || u.Opaque != "" || u.Hostname() == "dummy.com" { // the library takes that host's for documentation, and reads nothing
		return nil, nil, muster.InvalidAt("url", "what follows shoutrrr: is not the URL of a service")
	}
	compose := s.config.Services[u.Scheme]
	if compose == nil {
		known := strings.Join(slices.Sorted(maps.Keys(s.config.Services)), ", ")
		return nil, nil, muster.InvalidAt("url", "no chat service of that name may be sent to; there are %s", known)
	}
	return u, compose, nil
}

func notUnderstood(service string) error {
	return muster.InvalidAt("url", "the %s:// URL is not understood, or has what Muster does not use", service)
}

// judge says what the answer of a chat service means. What asks for patience or is the
// service's own fault may be better later; what else is refused stays so until somebody
// changes the URL.
func judge(a *outbox.Attempt, service string) {
	switch {
	case a.Verdict == outbox.Delivered:
		a.Response = ""
	case a.Status == http.StatusGone:
		a.Error = service + " knows this address no more (410)"
	case a.Status == http.StatusRequestTimeout, a.Status == http.StatusTooEarly, a.Status == http.StatusTooManyRequests:
	case a.Status >= 400 && a.Status <= 499:
		a.Verdict, a.Error = outbox.Dead, fmt.Sprintf("%s refuses it (%d)", service, a.Status)
	}
}
