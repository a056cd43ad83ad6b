package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"muster"
)

const (
	providerTime = 10 * time.Second // for one request to the provider
	retryPause   = 5 * time.Second  // after the provider could not be discovered
	maxAnswer    = 1 << 20          // bytes of an answer of the provider
)

// discovered is what the provider says of itself.
type discovered struct {
	*oidc.Provider
	namesItself bool // answers carry iss (RFC 9207)
}

// discovery asks the provider who it is, once, and again while it does not answer.
type discovery struct {
	found  atomic.Pointer[discovered]
	turn   chan struct{} // of one: who asks
	failed atomic.Int64  // Unix nanoseconds of the last failure
}

func newDiscovery() *discovery { return &discovery{turn: make(chan struct{}, 1)} }

// provider returns the discovered provider. Unavailable when it does not answer, or said
// so a moment ago.
func (p *OpenID) provider(ctx context.Context) (*discovered, error) {
	d := p.discovery
	if found := d.found.Load(); found != nil {
		return found, nil
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, errAway(ctx.Err())
	}
	if found := d.found.Load(); found != nil {
		return found, nil
	}
	now := p.cfg.Now()
	if failed := d.failed.Load(); failed != 0 && now.Sub(time.Unix(0, failed)).Abs() < retryPause {
		return nil, errAway(nil)
	}
	found, err := p.discover(ctx)
	if err != nil {
		d.failed.Store(now.UnixNano())
		return nil, errAway(err)
	}
	d.found.Store(found)
	return found, nil
}

func (p *OpenID) discover(ctx context.Context) (*discovered, error) {
	ctx, cancel := context.WithTimeout(p.client(ctx), providerTime)
	defer cancel()
	found, err := oidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		if _, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
			return nil, fmt.Errorf("discover the provider: %w", err)
		}
		return nil, errors.New("discover the provider: no OpenID configuration is to be had at the issuer") // its answer is not for our log
	}
	var more struct {
		NamesItself bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := found.Claims(&more); err != nil {
		return nil, fmt.Errorf("read the provider's configuration: %w", err)
	}
	return &discovered{Provider: found, namesItself: more.NamesItself}, nil
}

func errAway(err error) error {
	if err == nil {
		return muster.Errorf(muster.Unavailable, "the OpenID provider does not answer: try again in a moment")
	}
	return &muster.Error{Kind: muster.Unavailable, Msg: "the OpenID provider does not answer: try again in a moment", Err: err}
}

// client has requests under ctx go by p's client.
func (p *OpenID) client(ctx context.Context) context.Context { return oidc.ClientContext(ctx, p.http) }

// short lets through answers up to maxAnswer bytes.
type short struct{ http.RoundTripper }

func (s short) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := s.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // a transport's error
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxAnswer), res.Body}
	return res, nil
}

// newClient returns a client for the provider, and what ends its idle connections.
func newClient() (*http.Client, func()) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: providerTime, ResponseHeaderTimeout: providerTime,
		IdleConnTimeout: time.Minute, MaxIdleConns: 4, ForceAttemptHTTP2: true,
	}
	c := &http.Client{
		Transport: short{t}, Timeout: providerTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // what is configured is what is asked
	}
	return c, t.CloseIdleConnections
}
