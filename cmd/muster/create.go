package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"muster"
	"muster/client"
	"muster/sim"
)

// creators is how many requests createDevices has under way at once.
const creators = 8

// createDevices makes the fleet's devices by the API and returns their tokens. A
// device that exists gets one more token.
func createDevices(ctx context.Context, addr, key string, cfg sim.Config, progress func(done int)) ([]string, error) {
	base, err := sim.BaseURL(addr)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is wrong with the address
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	web := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: creators}}
	defer web.CloseIdleConnections()
	api, err := client.New(base, key, client.WithHTTPClient(web))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "address %q: %w", addr, err)
	}
	tokens := make([]string, cfg.Devices)
	var mu sync.Mutex
	next, done := 0, 0
	var wg sync.WaitGroup
	for range creators {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= cfg.Devices {
					return
				}
				name := "Simulated " + string(cfg.ID(i))
				token, err := createDevice(ctx, api, &client.NewDevice{ID: string(cfg.ID(i)), Name: &name})
				if err != nil {
					cancel(err)
					return
				}
				mu.Lock()
				tokens[i] = token
				done++
				progress(done)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return tokens, context.Cause(ctx)
}

// createDevice makes a device, or has one that exists get one more token, and returns its token.
func createDevice(ctx context.Context, c *client.Client, d *client.NewDevice) (string, error) {
	made, err := c.CreateDevice(ctx, d, nil)
	if err == nil {
		return tokenOf(made.Credential), nil
	}
	if client.Code(err) != muster.Conflict.String() {
		return "", muster.Errorf(muster.Unavailable, "creating %s: %w", d.ID, err)
	}
	kind := "token"
	more, err := c.AddCredential(ctx, d.ID, &client.NewCredential{Kind: &kind}, nil)
	if err != nil {
		return "", muster.Errorf(muster.Unavailable, "a token for %s: %w", d.ID, err)
	}
	return tokenOf(&more.Credential), nil
}

// tokenOf is the token that was issued, empty when there is none.
func tokenOf(i *client.Issued) string {
	if i == nil || i.Token == nil {
		return ""
	}
	return *i.Token
}
