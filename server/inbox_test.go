package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"muster/dashboard/live"
	"muster/server"
	"muster/server/servertest"
)

// person is a user with a session, and a browser.
type person struct {
	t      *testing.T
	s      *server.Server
	id     string
	cookie *http.Cookie
}

func (p *person) call(method, path string, body any) (int, map[string]any) {
	p.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.s.HTTPAddr()+"/api/v1"+path, bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", "http://"+p.s.HTTPAddr())
	if p.cookie == nil {
		req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	} else {
		req.AddCookie(p.cookie)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for _, c := range res.Cookies() {
		p.cookie = c
	}
	out := map[string]any{}
	_ = json.NewDecoder(res.Body).Decode(&out) // some answers have no body
	return res.StatusCode, out
}

func (p *person) must(method, path string, body any) map[string]any {
	p.t.Helper()
	status, out := p.call(method, path, body)
	if status >= 300 {
		p.t.Fatalf("%s %s: %d %v", method, path, status, out)
	}
	return out
}

// newPerson makes a user who has signed in.
func newPerson(t *testing.T, s *server.Server, name, role string) *person {
	t.Helper()
	p := &person{t: t, s: s}
	made := p.must(http.MethodPost, "/users", map[string]any{"email": name + "@example.com", "name": name, "role": role, "password": "correct horse battery"})
	p.id = made["user"].(map[string]any)["id"].(string)
	p.must(http.MethodPost, "/session", map[string]string{"email": name + "@example.com", "password": "correct horse battery"})
	return p
}

// socket opens one as the person's browser does.
func (p *person) socket(sub string) (*socket, frame) {
	p.t.Helper()
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: channelTime}
	conn, res, err := d.Dial("ws://"+p.s.HTTPAddr()+"/api/v1/live", http.Header{"Origin": {"http://" + p.s.HTTPAddr()}, "Cookie": {p.cookie.String()}})
	if err != nil {
		p.t.Fatal(err)
	}
	_ = res.Body.Close()
	p.t.Cleanup(func() { _ = conn.Close() })
	k := &socket{conn: conn}
	return k, p.ask(k, `{"t":"hello","id":1}`, `{"t":"sub","id":2,"ch":"inbox"`+sub+`}`)
}

// ask says commands and returns the answer to the last, whose id is their number.
func (p *person) ask(k *socket, commands ...string) frame {
	p.t.Helper()
	for _, c := range commands {
		if err := k.say(c); err != nil {
			p.t.Fatal(err)
		}
	}
	return p.until(k, func(f frame) bool { return f["re"] == float64(len(commands)) })
}

func (p *person) until(k *socket, wanted func(frame) bool) frame {
	p.t.Helper()
	f, err := k.until(wanted)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func isEvent(f frame) bool { return f["t"] == "event" && f["ch"] == "inbox" }

func told(f frame, of string) map[string]any {
	return f["ev"].(map[string]any)[of].(map[string]any)
}

func TestANotificationByASocketIsInTheOthersInboxInTheAPIsWordsAndOnceForAKey(t *testing.T) {
	s := servertest.Start(t)
	sender, anna := newPerson(t, s, "Otto", "operator"), newPerson(t, s, "Anna", "viewer")
	sender.must(http.MethodPost, "/topics", map[string]any{"name": "pumps", "ack_policy": "any"})
	anna.must(http.MethodPut, "/topics/pumps/subscriptions/me", map[string]any{})
	one, _ := anna.socket("")
	other, _ := anna.socket("")
	by, _ := sender.socket("")

	const pub = `{"t":"pub","id":1,"topic":"pumps","key":"k1","msg":{"severity":"major","title":"Pump 3","body":"hot","data":{"t":91}}}`
	first := sender.ask(by, pub)
	if first["t"] != "ok" || first["recipients"] != 1.0 {
		t.Fatalf("it is answered %v", first)
	}
	if again := sender.ask(by, pub); !cmp.Equal(again, first) {
		t.Errorf("the same with its key is answered %v, was %v", again, first)
	}
	if f := sender.ask(by, strings.Replace(pub, "hot", "cold", 1)); f["code"] != "idempotency_mismatch" {
		t.Errorf("another with its key: %v", f)
	}
	for _, bad := range []string{`{"titel":"x"}`, `{"title":7}`, `[]`, `{"title":"x","priority":"high"}`, `{"title":"x","severity":"bad"}`, `{"title":"x","topic":"other"}`} {
		if f := sender.ask(by, `{"t":"pub","id":1,"topic":"pumps","msg":`+bad+`}`); f["code"] != "invalid" {
			t.Errorf("%s: %v", bad, f)
		}
	}
	for _, k := range []*socket{one, other} {
		f := anna.until(k, isEvent)
		if n := told(f, "notification"); n["id"] != first["id"] || n["topic_name"] != "pumps" || n["severity"] != "major" || n["sender"].(map[string]any)["name"] != "Otto" {
			t.Errorf("%v", n)
		}
	}
	began := time.Now()
	ack := anna.ask(one, fmt.Sprintf(`{"t":"ack","id":1,"n":[%q],"state":"acked","note":"going"}`, first["id"]))
	if ack["moved"] != 1.0 {
		t.Errorf("%v", ack)
	}
	f := anna.until(other, isEvent)
	if n, r := told(f, "notification"), told(f, "receipt"); n["acked_by"] != "Anna" || r["state"] != "acked" || r["note"] != "going" || r["door"] != "live" {
		t.Errorf("the other session is told %v %v", n, r)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("after %v", d)
	}
	item := anna.must(http.MethodGet, "/me/inbox", nil)["items"].([]any)
	if len(item) != 1 || !cmp.Equal(item[0], f["ev"]) {
		t.Errorf("the API has %v, the socket said %v", item, f["ev"])
	}
	if f := anna.ask(one, `{"t":"pub","id":1,"topic":"pumps","msg":{"title":"x"}}`); f["code"] != "forbidden" {
		t.Errorf("a viewer sends: %v", f)
	}
}

// events reads a person's inbox as server-sent events, until n have come.
func (p *person) events(query, last string, n int) (ids []string, frames []frame) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), channelTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.s.HTTPAddr()+"/api/v1/stream?channel=inbox"+query, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.AddCookie(p.cookie)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for len(frames) < n && lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			ids = append(ids, id)
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var f frame
			if err := json.Unmarshal([]byte(data), &f); err != nil {
				p.t.Fatal(err)
			}
			frames = append(frames, f)
		}
	}
	if len(frames) < n {
		p.t.Fatalf("a stream with status %d ends after %d: %v", res.StatusCode, len(frames), lines.Err())
	}
	return ids, frames
}

func TestAStreamOfTheInboxGoesOnAfterItsLastEventID(t *testing.T) {
	s := servertest.Start(t)
	sender, anna := newPerson(t, s, "Otto", "operator"), newPerson(t, s, "Anna", "viewer")
	sender.must(http.MethodPost, "/topics", map[string]any{"name": "pumps"})
	anna.must(http.MethodPut, "/topics/pumps/subscriptions/me", map[string]any{})
	send := func(title string) {
		t.Helper()
		sender.must(http.MethodPost, "/notifications", map[string]any{"topic": "pumps", "title": title})
	}
	send("one")
	ids, frames := anna.events("&limit=5", "", 1)
	if frames[0]["t"] != "snapshot" || len(frames[0]["items"].([]any)) != 1 || frames[0]["unread"] != 1.0 {
		t.Fatalf("%v", frames)
	}
	send("two")
	send("three")
	_, frames = anna.events("", ids[0], 3)
	if _, whole := frames[0]["items"]; whole || frames[0]["unread"] != 3.0 {
		t.Errorf("it begins with %v", frames[0])
	}
	seen := map[any]bool{}
	for _, f := range frames[1:] {
		seen[told(f, "notification")["title"]] = true
	}
	ids, _ = anna.events("&after="+ids[0], "", 3)
	if len(ids) != 3 {
		t.Errorf("each frame has a place: %v", ids)
	}
	for path, want := range map[string]int{"/stream?channel=inbox&q=x": 422, "/stream?channel=inbox&cols=x": 422, "/stream?channel=inbox&after=x": 422} {
		if status, out := anna.call(http.MethodGet, path, nil); status != want {
			t.Errorf("%s: %d %v", path, status, out)
		}
	}
	key := &person{t: t, s: s}
	if status, out := key.call(http.MethodGet, "/stream?channel=inbox", nil); status != http.StatusForbidden {
		t.Errorf("a key: %d %v", status, out)
	}
}
