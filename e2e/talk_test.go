package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
)

// waiting is the answer to a command that somebody waits for, and then some.
const waiting = 30 * time.Second

// talk connects by paho 3.1.1 as anybody; its connection can be cut.
func talk(t *testing.T, m *muster, id, user, password string, keep bool) *session3 {
	t.Helper()
	s := &session3{t: t, conn: &cuttable{}, heard: make(chan message, 1000)}
	options := paho3.NewClientOptions().AddBroker("tcp://" + m.mqtt).SetClientID(id).SetUsername(user).SetPassword(password).SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectTimeout(clientLimit).SetOrderMatters(true).SetCleanSession(!keep).
		SetDefaultPublishHandler(func(_ paho3.Client, p paho3.Message) {
			s.heard <- message{p.Topic(), string(p.Payload()), p.Qos(), p.Retained()}
		})
	options.SetCustomOpenConnectionFn(func(_ *url.URL, _ paho3.ClientOptions) (net.Conn, error) {
		c, err := net.DialTimeout("tcp", m.mqtt, clientLimit)
		s.conn.Conn = c
		return s.conn, err
	})
	s.c = paho3.NewClient(options)
	must(t, s.c.Connect())
	t.Cleanup(func() { s.c.Disconnect(0) })
	return s
}

// cut ends the connection by a TCP reset.
func (s *session3) cut() {
	s.t.Helper()
	if err := s.conn.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		s.t.Fatalf("reset the connection: %v", err)
	}
	_ = s.conn.Close() // the client may have seen it before
}

// say publishes at QoS 1.
func (s *session3) say(topic, payload string) {
	s.t.Helper()
	s.publish(message{topic: topic, payload: payload, qos: 1})
}

// refused subscribes to what is not granted.
func (s *session3) refused(filter string) {
	s.t.Helper()
	token := s.c.Subscribe(filter, 1, nil)
	if !token.WaitTimeout(clientLimit) {
		s.t.Fatalf("subscribe to %s: no SUBACK", filter)
	}
	if code := token.(*paho3.SubscribeToken).Result()[filter]; code != 0x80 {
		s.t.Errorf("subscribe to %s: SUBACK %#x, want 0x80", filter, code)
	}
}

// hears wants the next message to be that JSON at that topic; spaces and the order of
// keys do not matter.
func (s *session3) hears(topic, payload string) {
	s.t.Helper()
	got := s.next()
	if got.topic != topic || canonical(s.t, got.payload) != canonical(s.t, payload) {
		s.t.Fatalf("heard %s\nwant  %s %s", got, topic, payload)
	}
}

// canonical is JSON without spaces, keys in order.
func canonical(t *testing.T, text string) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%q is no JSON: %v", text, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// account makes a service account and connects it.
func (m *muster) account(t *testing.T, name string, publish, subscribe []string) *session3 {
	t.Helper()
	var made struct{ Secret string }
	m.ask(http.MethodPost, "/api/v1/service-accounts", map[string]any{"name": name, "publish": publish, "subscribe": subscribe}, http.StatusCreated, &made)
	return talk(t, m, name, name, made.Secret, false)
}

// gateway makes a device of the profile gateway, which may bring children, and returns
// its token.
func (m *muster) gateway(id string) string {
	m.t.Helper()
	m.ask(http.MethodPut, "/api/v1/profiles/gateway", map[string]any{"create_children": true}, http.StatusOK, nil)
	var made struct{ Credential credential }
	m.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": id, "profile": "gateway"}, http.StatusCreated, &made)
	return made.Credential.Token
}

// known is a device as the API shows it.
type known struct {
	ID, Name, Parent, Profile string
	Tags                      map[string]string
	Presence                  struct{ State, Since, Reason string }
}

func (m *muster) known(id string) known {
	m.t.Helper()
	var d known
	m.ask(http.MethodGet, "/api/v1/devices/"+url.PathEscape(id), nil, http.StatusOK, &d)
	return d
}

// unknown wants a device not to exist.
func (m *muster) unknown(id string) {
	m.t.Helper()
	m.ask(http.MethodGet, "/api/v1/devices/"+url.PathEscape(id), nil, http.StatusNotFound, nil)
}

// desire patches a device's desired document.
func (m *muster) desire(id, patch string) {
	m.t.Helper()
	m.ask(http.MethodPatch, "/api/v1/devices/"+url.PathEscape(id)+"/desired", json.RawMessage(patch), http.StatusOK, nil)
}

// awaitReported waits until a device's reported document is want.
func (m *muster) awaitReported(id, want string) {
	m.t.Helper()
	var twin struct {
		Reported struct{ State json.RawMessage }
	}
	want = canonical(m.t, want)
	m.await(id+" to report "+want, clientLimit, func() bool {
		m.ask(http.MethodGet, "/api/v1/devices/"+url.PathEscape(id)+"/twin", nil, http.StatusOK, &twin)
		return canonical(m.t, string(twin.Reported.State)) == want
	})
}

// order is a command as the API shows it.
type order struct {
	ID, State     string
	Progress      int
	Result, Error json.RawMessage
}

// ordered is a command whose end somebody waits for.
type ordered struct {
	t    *testing.T
	done chan func() (order, error)
}

// send sends a command and waits for its end while the test goes on.
func (m *muster) send(t *testing.T, device, method, params string) *ordered {
	t.Helper()
	o := &ordered{t, make(chan func() (order, error), 1)}
	to := "http://" + m.http + "/api/v1/devices/" + url.PathEscape(device) + "/commands?wait=10s"
	go func() { // the test takes its answer
		ctx, cancel := context.WithTimeout(t.Context(), waiting)
		defer cancel()
		status, body, err := request(ctx, http.MethodPost, to, m.key, map[string]any{"method": method, "params": json.RawMessage(params)})
		var c order
		switch {
		case err != nil:
		case status != http.StatusCreated:
			err = fmt.Errorf("it answers %d: %s", status, body)
		default:
			err = json.Unmarshal(body, &c)
		}
		o.done <- func() (order, error) { return c, err }
	}()
	return o
}

// ends wants the command to end so; result is JSON.
func (o *ordered) ends(id, state, result string) {
	o.t.Helper()
	var c order
	select {
	case answer := <-o.done:
		var err error
		if c, err = answer(); err != nil {
			o.t.Fatalf("POST commands?wait=10s: %v", err)
		}
	case <-time.After(waiting):
		o.t.Fatal("POST commands?wait=10s does not answer")
	}
	type end struct{ ID, State, Result string }
	if diff := cmp.Diff(end{id, state, canonical(o.t, result)}, end{c.ID, c.State, canonical(o.t, string(c.Result))}); diff != "" {
		o.t.Errorf("the command (-want +got):\n%s", diff)
	}
}
