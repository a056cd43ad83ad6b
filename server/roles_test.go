package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"muster/accounts"
	"muster/dashboard/live"
	"muster/server"
	"muster/server/servertest"
)

// roleSession makes a user of a role and signs him in; it returns what a browser sends.
func roleSession(t *testing.T, s *server.Server, role string) http.Header {
	t.Helper()
	who := map[string]any{"email": role + "@example.com", "role": role, "password": "a good long password"}
	call(t, s, http.MethodPost, "/api/v1/users", who, nil)
	body := strings.NewReader(fmt.Sprintf(`{"email":"%s@example.com","password":"a good long password"}`, role))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/api/v1/session", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if len(res.Cookies()) != 1 {
		t.Fatalf("signing in gives %s", res.Status)
	}
	return http.Header{"Cookie": {"muster=" + res.Cookies()[0].Value}, "Origin": {"http://" + s.HTTPAddr()}}
}

func TestWhichChannelsAreOpenToTheSessionsOfARole(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "d")
	var drawn struct{ ID string }
	call(t, s, http.MethodPost, "/api/v1/tasks", map[string]any{"kind": "identicon", "input": map[string]any{"subject": "devices/d"}}, &drawn)
	others := "task:" + drawn.ID // the admin key's
	everybody := []string{"fleet", "devices", "device:d", "events", "system", "tasks"}
	for _, role := range []string{accounts.Viewer, accounts.Operator, accounts.Admin} {
		t.Run(role, func(t *testing.T) {
			header := roleSession(t, s, role)
			d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: channelTime}
			conn, res, err := d.Dial("ws://"+s.HTTPAddr()+"/api/v1/live", header)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			t.Cleanup(func() { _ = conn.Close() })
			k := &socket{conn: conn}
			if err := k.say(`{"t":"hello","id":1}`); err != nil {
				t.Fatal(err)
			}
			if _, err := k.until(func(f frame) bool { return f["t"] == "welcome" }); err != nil {
				t.Fatal(err)
			}
			for _, ch := range append(everybody, others) {
				want, status := "snapshot", http.StatusOK
				if ch == others && role != accounts.Admin {
					want, status = "not_found", http.StatusNotFound
				}
				if got := outcome(k.ask(t, ch, "")); got != want {
					t.Errorf("a socket's %s gives %s, want %s", ch, got, want)
				}
				if got := streamStatus(t, s, header, ch); got != status {
					t.Errorf("a stream of %s gives %d, want %d", ch, got, status)
				}
			}
		})
	}
}

// streamStatus opens a stream as a browser does, and leaves it.
func streamStatus(t *testing.T, s *server.Server, header http.Header, channel string) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTPAddr()+"/api/v1/stream?channel="+url.QueryEscape(channel), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", header.Get("Cookie"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode
}

func TestWrongTokensOfTheWebSocketCountAgainstTheirAddress(t *testing.T) {
	s := servertest.Start(t, func(c *server.Config) { c.Web.Limits.Nobody = 3 })
	guess := func() (code int, told string) {
		d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: channelTime}
		conn, res, err := d.Dial("ws://"+s.HTTPAddr()+"/api/v1/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		defer func() { _ = conn.Close() }()
		k := &socket{conn: conn}
		if err := k.say(`{"t":"hello","id":1,"token":"mst_a-guess-0123456789"}`); err != nil {
			t.Fatal(err)
		}
		_, err = k.until(func(f frame) bool {
			if f["t"] == "error" {
				told, _ = f["code"].(string)
			}
			return false
		})
		for _, c := range []int{4501, 4505} {
			if websocket.IsCloseError(err, c) {
				code = c
			}
		}
		return code, told
	}
	for range 3 {
		if code, _ := guess(); code != 4501 {
			t.Errorf("a wrong token is ended with %d", code)
		}
	}
	if code, told := guess(); code != 4505 || told != "busy" {
		t.Errorf("one too many is ended with %d, and told %q", code, told)
	}
	if r := request(t, s, http.MethodGet, "/api/v1/devices", "mst_a-guess-0123456789", ""); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("over HTTP the next gives %s: both doors have one limit", r.Status)
	}
	mustSocket(t, s, servertest.AdminKey) // who has a key is let in all the same
}
