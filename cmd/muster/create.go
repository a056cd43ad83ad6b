package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"muster"
	"muster/sim"
)

// creators is how many requests createDevices has under way at once.
const creators = 8

// createDevices makes the fleet's devices by the API and returns their tokens. A
// device that exists gets one more token.
func createDevices(ctx context.Context, addr, key string, cfg sim.Config, progress func(done int)) ([]string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: creators}}
	defer client.CloseIdleConnections()
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
				token, err := createDevice(ctx, client, addr, key, cfg.ID(i))
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

func createDevice(ctx context.Context, client *http.Client, addr, key string, id muster.DeviceID) (string, error) {
	var made struct {
		Credential struct {
			Token string `json:"token"`
		} `json:"credential"`
	}
	status, err := post(ctx, client, "http://"+addr+"/api/v1/devices", key, map[string]string{"id": string(id), "name": "Simulated " + string(id)}, &made)
	if err != nil || status == http.StatusCreated {
		return made.Credential.Token, err
	}
	if status != http.StatusConflict {
		return "", muster.Errorf(muster.Unavailable, "creating %s: the server answered %d", id, status)
	}
	more := made
	status, err = post(ctx, client, "http://"+addr+"/api/v1/devices/"+url.PathEscape(string(id))+"/credentials", key, map[string]string{"kind": "token"}, &more)
	if err == nil && status != http.StatusCreated {
		err = muster.Errorf(muster.Unavailable, "a token for %s: the server answered %d", id, status)
	}
	return more.Credential.Token, err
}

// post sends body as JSON and decodes a 2xx answer into out.
func post(ctx context.Context, client *http.Client, to, key string, body, out any) (int, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("encode the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(raw))
	if err != nil {
		return 0, muster.Errorf(muster.Invalid, "address %q: %w", to, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := client.Do(req)
	if err != nil {
		return 0, muster.Errorf(muster.Unavailable, "no server answers at %s", req.URL.Host)
	}
	defer func() { _ = resp.Body.Close() }()
	limited := io.LimitReader(resp.Body, 1<<20)
	if resp.StatusCode/100 == 2 {
		if err := json.NewDecoder(limited).Decode(out); err != nil {
			return resp.StatusCode, fmt.Errorf("decode the answer of %s: %w", to, err)
		}
	}
	_, _ = io.Copy(io.Discard, limited) // lets the connection be used again
	return resp.StatusCode, nil
}
