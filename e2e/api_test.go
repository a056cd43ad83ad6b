package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	requestLimit = 10 * time.Second
	answerLimit  = 64 << 20 // bytes of an answer
)

// get asks for a URL, with an API key unless it is empty.
func get(ctx context.Context, from, key string) (status int, body []byte, err error) {
	return request(ctx, http.MethodGet, from, key, nil)
}

func request(ctx context.Context, method, to, key string, in any) (status int, body []byte, err error) {
	var sent io.Reader = http.NoBody
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return 0, nil, fmt.Errorf("encode the body: %w", err)
		}
		sent = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, sent)
	if err != nil {
		return 0, nil, fmt.Errorf("make a request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	// A connection each: the server is killed and started again between them.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	return resp.StatusCode, body, err
}

// ask calls the API and decodes the answer, which must have status want.
func (m *muster) ask(method, path string, in any, want int, out any) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	status, body, err := request(ctx, method, "http://"+m.http+path, m.key, in)
	if err != nil {
		m.t.Fatalf("%s %s: %v", method, path, err)
	}
	if status != want {
		m.t.Fatalf("%s %s answers %d, want %d: %s", method, path, status, want, body)
	}
	if out == nil {
		return
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := dec.Decode(out); err != nil {
		m.t.Fatalf("%s %s answers what cannot be read: %v\n%s", method, path, err, body)
	}
}

// credential is what a device logs in with.
type credential struct {
	Token, Username, Password string
}

// device makes a device with a credential of kind token or secret.
func (m *muster) device(id, kind string) credential {
	m.t.Helper()
	var made struct{ Credential credential }
	m.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": id, "credential": kind}, http.StatusCreated, &made)
	if made.Credential.Username == "" {
		m.t.Fatalf("the device %s was made without a user name", id)
	}
	return made.Credential
}

// devices makes n devices with tokens, several at a time, and returns id and token
// of each.
func (m *muster) devices(prefix string, n int) []*publisher {
	m.t.Helper()
	made := make([]*publisher, n)
	errs := make([]error, n)
	turns := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			id := fmt.Sprintf("%s-%03d", prefix, i)
			ctx, cancel := context.WithTimeout(context.Background(), 2*requestLimit)
			defer cancel()
			status, body, err := request(ctx, http.MethodPost, "http://"+m.http+"/api/v1/devices", m.key, map[string]string{"id": id, "credential": "token"})
			var answer struct{ Credential credential }
			if err == nil {
				err = json.Unmarshal(body, &answer)
			}
			if err != nil || status != http.StatusCreated {
				errs[i] = fmt.Errorf("make device %s: status %d: %w", id, status, err)
				return
			}
			made[i] = &publisher{addr: m.mqtt, id: id, token: answer.Credential.Token}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return made
}

// point is one reading as the API shows it; numbers are json.Number.
type point struct {
	Time   string
	Values map[string]any
}

// telemetry returns all readings of a device, oldest first.
func (m *muster) telemetry(id string) []point {
	m.t.Helper()
	var page struct{ Items []point }
	m.ask(http.MethodGet, "/api/v1/devices/"+url.PathEscape(id)+"/telemetry?limit=1000", nil, http.StatusOK, &page)
	return page.Items
}

// awaitTelemetry waits until a device has n readings and returns them.
func (m *muster) awaitTelemetry(id string, n int) []point {
	m.t.Helper()
	var got []point
	m.await(fmt.Sprintf("%d readings of %s", n, id), 20*time.Second, func() bool {
		got = m.telemetry(id)
		return len(got) >= n
	})
	return got
}

// refusal is one rejected message as the API shows it.
type refusal struct {
	Topic, Code, Reason string
	PayloadText         *string `json:"payload_text"`
	Size                int
}

// awaitRejected waits until a device has n rejected messages and returns them,
// newest first.
func (m *muster) awaitRejected(id string, n int) []refusal {
	m.t.Helper()
	var page struct{ Items []refusal }
	m.await(fmt.Sprintf("%d rejected messages of %s", n, id), 20*time.Second, func() bool {
		page.Items = nil
		m.ask(http.MethodGet, "/api/v1/devices/"+url.PathEscape(id)+"/rejected", nil, http.StatusOK, &page)
		return len(page.Items) >= n
	})
	return page.Items
}

// ledger is what /metrics says of messages.
type ledger struct {
	received, recovered, stored, duplicate, replaced, rejected, dropped, queued int64
	logLost, framesLost                                                         int64
}

func (l ledger) balanced() bool {
	return l.received+l.recovered == l.stored+l.duplicate+l.replaced+l.rejected+l.dropped+l.queued
}

// scrape reads the ledger from /metrics.
func (m *muster) scrape(ctx context.Context) (ledger, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	status, body, err := get(ctx, "http://"+m.http+"/metrics", "")
	if err != nil {
		return ledger{}, err
	}
	if status != http.StatusOK {
		return ledger{}, fmt.Errorf("/metrics answers %d", status)
	}
	return parseLedger(string(body))
}

func parseLedger(text string) (ledger, error) {
	var l ledger
	want := map[string]*int64{
		"muster_ingest_received_total": &l.received, "muster_ingest_recovered_total": &l.recovered,
		"muster_ingest_stored_total": &l.stored, "muster_ingest_duplicate_total": &l.duplicate,
		"muster_ingest_replaced_total": &l.replaced, "muster_ingest_rejected_total": &l.rejected,
		"muster_ingest_dropped_total": &l.dropped, "muster_ingest_queued": &l.queued,
		"muster_log_lost_total": &l.logLost, "muster_log_lost_frames_total": &l.framesLost,
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		into, ok := want[name]
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return ledger{}, fmt.Errorf("metric %s: %w", name, err)
		}
		*into = int64(f)
		delete(want, name)
	}
	for name := range want {
		return ledger{}, fmt.Errorf("/metrics has no %s", name)
	}
	return l, nil
}

// drained waits until nothing is queued and returns the ledger.
func (m *muster) drained(limit time.Duration) ledger {
	m.t.Helper()
	var l ledger
	m.await("the server to store what is queued", limit, func() bool {
		var err error
		if l, err = m.scrape(m.t.Context()); err != nil {
			m.t.Fatalf("scrape: %v", err)
		}
		return l.queued == 0
	})
	return l
}

// auditor scrapes the ledger again and again while the server comes and goes.
type auditor struct {
	scrapes int
	worst   []ledger // those that did not balance
	lost    []ledger // those that count losses of the log
	end     context.CancelFunc
	wg      sync.WaitGroup
}

func (m *muster) audit(t *testing.T) *auditor {
	ctx, cancel := context.WithCancel(t.Context())
	a := &auditor{end: cancel}
	a.wg.Go(func() {
		for pause(ctx, 30*time.Millisecond) {
			l, err := m.scrape(ctx)
			if err != nil {
				continue // it is down; that it comes up is waited for elsewhere
			}
			a.scrapes++
			if !l.balanced() {
				a.worst = append(a.worst, l)
			}
			if l.logLost+l.framesLost > 0 {
				a.lost = append(a.lost, l)
			}
		}
	})
	t.Cleanup(func() { cancel(); a.wg.Wait() })
	return a
}

// verdict ends the auditor and fails the test unless every one of at least least
// scrapes balanced.
func (a *auditor) verdict(t *testing.T, least int) {
	t.Helper()
	a.end()
	a.wg.Wait()
	if len(a.worst) > 0 {
		t.Errorf("%d of %d scrapes of the ledger do not balance, the first: %+v", len(a.worst), a.scrapes, a.worst[0])
	}
	if len(a.lost) > 0 {
		t.Errorf("%d scrapes count frames or logs that were lost, the first: %+v", len(a.lost), a.lost[0])
	}
	if a.scrapes < least {
		t.Errorf("the ledger was scraped %d times, want at least %d", a.scrapes, least)
	}
	t.Logf("the ledger was scraped %d times", a.scrapes)
}
