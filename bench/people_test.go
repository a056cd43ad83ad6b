package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const (
	peopleAtOnce = 8 // that are made at a time
	helloLimit   = 30 * time.Second
	socketBuffer = 2048
)

// person is a user; token accepts his invitation, cookie is his session once he has.
type person struct{ id, email, token, cookie string }

// together calls f for 0 to n-1, several at a time.
func together(b *testing.B, n int, f func(i int) error) {
	b.Helper()
	errs := make([]error, n)
	turns := make(chan struct{}, peopleAtOnce)
	var wg sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		text := err.Error()
		b.Fatal(text[:min(len(text), 2000)])
	}
}

// must asks with the bench's key and wants a status.
func (s *server) must(method, path string, in, out any, want int) error {
	status, err := s.ask(method, path, in, out)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, path, err)
	case status != want:
		return fmt.Errorf("%s %s: status %d, want %d", method, path, status, want)
	}
	return nil
}

// people invites n users.
func (s *server) people(n int) []person {
	s.b.Helper()
	all := make([]person, n)
	together(s.b, n, func(i int) error {
		var made struct {
			Invitation string
			User       struct{ ID string }
		}
		email := fmt.Sprintf("p%05d@example.com", i)
		err := s.must(http.MethodPost, "/api/v1/users", map[string]string{"email": email, "role": "viewer"}, &made, http.StatusCreated)
		all[i] = person{id: made.User.ID, email: email, token: made.Invitation[strings.LastIndexByte(made.Invitation, '/')+1:]}
		return err
	})
	return all
}

// homeOf is an address that few people share: each may try only so often.
func homeOf(i int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 1, 0, byte(1+i%sources))} }

// signIn has people accept their invitations.
func (s *server) signIn(all []person) {
	s.b.Helper()
	together(s.b, len(all), func(i int) error {
		p := &all[i]
		raw, err := json.Marshal(map[string]string{"token": p.token, "name": "Person " + p.id, "password": "correct horse battery"})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/api/v1/invitations/accept", bytes.NewReader(raw))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		from := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: homeOf(i)}).DialContext}}
		res, err := from.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK || len(res.Cookies()) == 0 {
			return fmt.Errorf("accept an invitation: status %d: %.200s", res.StatusCode, text)
		}
		p.cookie = res.Cookies()[0].Name + "=" + res.Cookies()[0].Value
		return nil
	})
}

// topic makes a topic to which people are subscribed, by the channels given beside their inboxes.
func (s *server) topic(topic map[string]any, all []person, channels ...string) {
	s.b.Helper()
	if err := s.must(http.MethodPost, "/api/v1/topics", topic, nil, http.StatusCreated); err != nil {
		s.b.Fatal(err)
	}
	via := make([]map[string]string, len(channels))
	for i, c := range channels {
		via[i] = map[string]string{"channel": c}
	}
	together(s.b, len(all), func(i int) error {
		path := fmt.Sprintf("/api/v1/topics/%s/subscriptions/%s", topic["name"], all[i].id)
		return s.must(http.MethodPut, path, map[string]any{"channels": via}, nil, http.StatusOK)
	})
}

// seat is a socket of the live gateway that follows an inbox.
type seat struct {
	conn *websocket.Conn
	got  func(frame []byte, at time.Time)
}

// gallery is many seats, each read by a goroutine that close waits for.
type gallery struct {
	seats  []*seat
	events atomic.Int64
	over   atomic.Bool
	lost   atomic.Int64
	wg     sync.WaitGroup
}

// sit opens sockets for each of the people, which each follow his inbox; got is called with
// every frame that has an event, from many goroutines; nil means it is only counted.
func (s *server) sit(all []person, each int, got func(frame []byte, at time.Time)) *gallery {
	s.b.Helper()
	g := &gallery{seats: make([]*seat, len(all)*each)}
	together(s.b, len(g.seats), func(i int) error {
		k := &seat{got: got}
		g.seats[i] = k
		return k.open(s.http, all[i/each].cookie)
	})
	for _, k := range g.seats {
		g.wg.Go(func() { g.read(k) })
	}
	s.b.Cleanup(g.close)
	return g
}

func (k *seat) open(addr, cookie string) error {
	d := websocket.Dialer{Subprotocols: []string{"muster.v1"}, HandshakeTimeout: helloLimit, ReadBufferSize: socketBuffer, WriteBufferSize: 512}
	conn, res, err := d.Dial("ws://"+addr+"/api/v1/live", http.Header{"Cookie": {cookie}, "Origin": {"http://" + addr}})
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	_ = res.Body.Close()
	k.conn = conn
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`[{"t":"hello","id":1},{"t":"sub","id":2,"ch":"inbox","limit":1}]`)); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloLimit)) // an error shows in the read
	for {
		_, data, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("wait for the inbox: %w", err)
		}
		if bytes.Contains(data, []byte(`"t":"snapshot"`)) {
			return conn.SetReadDeadline(time.Time{})
		}
		if bytes.Contains(data, []byte(`"t":"error"`)) {
			return fmt.Errorf("the inbox is refused: %.200s", data)
		}
	}
}

func (g *gallery) read(k *seat) {
	for {
		_, data, err := k.conn.ReadMessage()
		if err != nil {
			if !g.over.Load() {
				g.lost.Add(1)
			}
			return
		}
		n := bytes.Count(data, []byte(`{"t":"event","ch":"inbox"`))
		if n == 0 {
			continue
		}
		if k.got != nil {
			k.got(data, time.Now())
		}
		g.events.Add(int64(n))
	}
}

func (g *gallery) close() {
	g.over.Store(true)
	for _, k := range g.seats {
		_ = k.conn.Close() // what counts is that its reader ends
	}
	g.wg.Wait()
}
