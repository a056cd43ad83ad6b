package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"muster/dashboard/live"
	"muster/server"
	"muster/server/servertest"
)

// within is a key with a selector, and every way in that it has.
type within struct {
	id, secret string
	mqtt       client
	heard      chan string
	live       *websocket.Conn
	cookie     *http.Cookie
}

const withinScopes = "devices:read telemetry:read firmware:read topics:read alerts:read mqtt"

func comeIn(t *testing.T, s *server.Server, selector string) *within {
	t.Helper()
	id, secret, err := s.CreateKeyForTest(t.Context(), strings.Fields(withinScopes), selector)
	if err != nil {
		t.Fatal(err)
	}
	w := &within{id: id, secret: secret, heard: make(chan string, 100)}
	w.mqtt = dial(t, s, "within", secret, "")
	tok := w.mqtt.Subscribe("devices/+/telemetry/#", 1, func(_ mqtt.Client, m mqtt.Message) { w.heard <- m.Topic() })
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}}
	conn, res, err := d.Dial("ws://"+s.HTTPAddr()+"/api/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	w.live = conn
	w.tell(t, `{"t":"hello","id":1,"token":"`+secret+`"}`, "welcome")
	answer := request(t, s, http.MethodPost, "/api/v1/session", "", fmt.Sprintf(`{"key":%q}`, secret))
	if len(answer.Cookies()) != 1 {
		t.Fatalf("signing in gives %s", answer.Status)
	}
	w.cookie = answer.Cookies()[0]
	return w
}

// tell sends a frame to the live gateway and reads until one that contains what.
func (w *within) tell(t *testing.T, frame, what string) string {
	t.Helper()
	if err := w.live.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		t.Fatal(err)
	}
	for {
		_ = w.live.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, data, err := w.live.ReadMessage()
		if err != nil {
			t.Fatalf("no %s: %v", what, err)
		}
		if strings.Contains(string(data), what) {
			return string(data)
		}
	}
}

func request(t *testing.T, s *server.Server, method, path, key, body string, cookies ...*http.Cookie) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTPAddr()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for _, c := range cookies {
		r.AddCookie(c)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestAKeyWithASelectorHearsOfItsDevicesByEveryDoor(t *testing.T) {
	s := servertest.Start(t)
	tokens := map[string]string{}
	for _, id := range []string{"in", "outside"} {
		tokens[id] = create(t, s, id)
	}
	call(t, s, http.MethodPatch, "/api/v1/devices/in", map[string]any{"tags": map[string]string{"site": "berlin"}}, nil)
	w := comeIn(t, s, "tag:site=berlin")
	w.tell(t, `{"t":"sub","id":2,"ch":"device:outside"}`, `"not_found"`)
	w.tell(t, `{"t":"sub","id":3,"ch":"fleet"}`, `"forbidden"`)
	if list := w.tell(t, `{"t":"sub","id":4,"ch":"devices"}`, `"snapshot"`); strings.Contains(list, "outside") || !strings.Contains(list, `"total":1`) {
		t.Errorf("the list is %s", list)
	}
	for id, token := range tokens {
		c := dial(t, s, "c-"+id, token, "")
		if tok := c.Publish("devices/me/telemetry", 1, false, `{"t":1}`); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	if got := <-w.heard; got != "devices/in/telemetry" {
		t.Errorf("over MQTT it hears of %s", got)
	}
	for _, r := range []*http.Response{
		request(t, s, http.MethodGet, "/api/v1/devices/outside", w.secret, ""), request(t, s, http.MethodGet, "/api/v1/devices/outside", "", "", w.cookie),
	} {
		if r.StatusCode != http.StatusNotFound {
			t.Errorf("over HTTP a device outside gives %s", r.Status)
		}
	}
	// The device leaves: its page is taken away, and its next message does not come.
	call(t, s, http.MethodPatch, "/api/v1/devices/in", map[string]any{"tags": map[string]any{"site": "rome"}}, nil)
	w.tell(t, `{"t":"ping","id":5}`, `"del":["in"]`)
	c := dial(t, s, "again", tokens["in"], "")
	if tok := c.Publish("devices/me/telemetry", 1, false, `{"t":2}`); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	w.mqtt.wantLive(t)
	select {
	case topic := <-w.heard:
		t.Errorf("over MQTT it hears of %s, which has left", topic)
	default:
	}
}

func TestARevokedKeyWorksNowhereAfterASecond(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "d")
	w := comeIn(t, s, "id:d")
	for name, r := range map[string]*http.Response{
		"key": request(t, s, http.MethodGet, "/api/v1/devices/d", w.secret, ""), "session": request(t, s, http.MethodGet, "/api/v1/devices/d", "", "", w.cookie),
	} {
		if r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", name, r.Status)
		}
	}
	since := time.Now()
	call(t, s, http.MethodDelete, "/api/v1/api-keys/"+w.id, nil, nil)
	for name, r := range map[string]*http.Response{
		"key":     request(t, s, http.MethodGet, "/api/v1/devices/d", w.secret, ""),
		"session": request(t, s, http.MethodGet, "/api/v1/devices/d", "", "", w.cookie),
		"sign in": request(t, s, http.MethodPost, "/api/v1/session", "", fmt.Sprintf(`{"key":%q}`, w.secret)),
	} {
		if r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", name, r.Status)
		}
	}
	w.mqtt.wantCut(t, since)
	_ = w.live.SetReadDeadline(since.Add(time.Second))
	for {
		_, _, err := w.live.ReadMessage()
		if err == nil {
			continue
		}
		if !websocket.IsCloseError(err, 4009) {
			t.Errorf("the live connection ends with %v", err)
		}
		break
	}
}
