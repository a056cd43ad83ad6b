package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// candidate is a client in the adoption inbox, as the API shows it.
type candidate struct {
	ID       string
	ClientID string `json:"client_id"`
	Username string
	Key      string `json:"adoption_key"`
	Messages int
	Samples  []struct {
		Topic, Text, Hex string
		Decoded          []struct{ Values map[string]float64 }
		Rejected         []string
	}
}

// TestAnUnknownClientIsAdopted has a client with an adoption key publish as it always
// did. One call adopts it; it comes back with what it has, as the device, now and after
// the server was killed.
func TestAnUnknownClientIsAdopted(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			var key struct{ Secret string }
			m.ask(http.MethodPost, "/api/v1/adoption-keys", map[string]string{"name": "workshop"}, http.StatusCreated, &key)
			c := &returning{m: m, login: login{clientID: "plug/7", user: "esp", password: key.Secret}}
			c.connect()
			must(t, c.now.Publish("devices/me/telemetry", 1, false, `{"temperature":`))
			must(t, c.now.Publish("cmnd/plug/raw", 1, false, "\xff\x00"))
			m.showsCandidate(c.now)

			var adopted struct {
				Device     struct{ ID, Profile string }
				Credential struct{ Token string }
			}
			m.ask(http.MethodPost, "/api/v1/inbox/plug-7/adopt", map[string]any{"id": "plug", "tags": map[string]string{"hall": "3"}}, http.StatusCreated, &adopted)
			m.comesBack(c, 1)
			m.ask(http.MethodGet, "/api/v1/inbox/plug-7", nil, http.StatusNotFound, nil)
			must(t, paho3Client(t, m, "tcp://"+m.mqtt, "new", adopted.Credential.Token, "").Publish("devices/plug/telemetry", 1, false, `{"seq":2}`))
			m.kill()
			m.start()
			m.ready()
			m.comesBack(c, 3)
			if got := m.awaitTelemetry("plug", 3); len(got) != 3 {
				t.Errorf("the device has %v: what it sent as a candidate is not its telemetry", got)
			}
		})
	}
}

// showsCandidate checks what the inbox has of the client, which goes on to publish: the
// last 20 messages, newest first, decoded.
func (m *muster) showsCandidate(client paho3.Client) {
	t := m.t
	t.Helper()
	var c candidate
	m.ask(http.MethodGet, "/api/v1/inbox/plug-7", nil, http.StatusOK, &c)
	if c.ClientID != "plug/7" || c.Username != "esp" || c.Key != "workshop" || len(c.Samples) != 2 {
		t.Fatalf("the candidate is %+v", c)
	}
	if raw, broken := c.Samples[0], c.Samples[1]; raw.Hex != "ff00" || len(raw.Decoded) > 0 || broken.Text != `{"temperature":` || len(broken.Rejected) != 1 {
		t.Errorf("what cannot be decoded is shown as %+v and %+v", raw, broken)
	}
	sent := 0
	m.await("28 messages of the candidate", clientLimit, func() bool { // 20 at once and then 10 a second are kept
		must(t, client.Publish("tele/plug/SENSOR", 1, false, fmt.Sprintf(`{"ENERGY":{"Power":%d},"n":%d}`, sent+1000, sent)))
		sent++
		c = candidate{}
		m.ask(http.MethodGet, "/api/v1/inbox/plug-7", nil, http.StatusOK, &c)
		return c.Messages >= 28
	})
	if len(c.Samples) != 20 {
		t.Errorf("%d messages are shown", len(c.Samples))
	}
	before := float64(sent)
	for _, s := range c.Samples {
		if len(s.Decoded) != 1 || len(s.Rejected) > 0 {
			t.Fatalf("a message is decoded as %+v", s)
		}
		v := s.Decoded[0].Values
		if n := v["n"]; n >= before || v["ENERGY.Power"] != n+1000 {
			t.Errorf("after message %v there is %v", before, v)
		}
		before = v["n"]
	}
}

// returning is a client that connects again, just as before, when its connection is
// lost. (paho's own way publishes once more what is published meanwhile.)
type returning struct {
	m     *muster
	login login
	now   paho3.Client
	lost  chan struct{}
}

// connect connects anew, and again and again while the server does not answer.
func (r *returning) connect() {
	r.m.t.Helper()
	lost := make(chan struct{})
	options := paho3.NewClientOptions().AddBroker("tcp://" + r.m.mqtt).SetClientID(r.login.clientID).SetUsername(r.login.user).SetPassword(r.login.password).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectTimeout(clientLimit).
		SetConnectionLostHandler(func(paho3.Client, error) { close(lost) })
	r.m.await("the client to be let in", clientLimit, func() bool {
		r.now, r.lost = paho3.NewClient(options), lost
		return answered3(r.now.Connect()) == nil
	})
	c := r.now
	r.m.t.Cleanup(func() { c.Disconnect(100) })
}

// comesBack waits until the client was cut, connects it again and has it publish: it
// is the device.
func (m *muster) comesBack(c *returning, value int) {
	m.t.Helper()
	select {
	case <-c.lost:
	case <-time.After(clientLimit):
		m.t.Fatal("the client is not cut")
	}
	c.connect()
	must(m.t, c.now.Publish("devices/me/telemetry", 1, false, fmt.Sprintf(`{"seq":%d}`, value)))
	m.awaitConnected("plug")
	m.await("its value", clientLimit, func() bool { v, err := m.latest("plug", "seq"); return err == nil && v == float64(value) })
	var d struct {
		Tags       map[string]string
		Connection struct {
			ClientID string `json:"client_id"`
		}
	}
	m.ask(http.MethodGet, "/api/v1/devices/plug", nil, http.StatusOK, &d)
	if d.Tags["hall"] != "3" || d.Connection.ClientID != "plug/7" {
		m.t.Errorf("it is back as %+v", d)
	}
}

// TestAClaimCodeGuessedTooOftenIs429 claims a device by its code, and then guesses.
func TestAClaimCodeGuessedTooOftenIs429(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			var right [2]struct{ Code, URL string }
			for i, id := range []string{"a", "b"} {
				m.device(id, "token")
				m.ask(http.MethodPost, "/api/v1/devices/"+id+"/claim-code", nil, http.StatusCreated, &right[i])
			}
			claim := func(code string) (int, string) {
				status, body, err := request(t.Context(), http.MethodPost, "http://"+m.http+"/api/v1/claims", m.key, map[string]string{"code": code})
				if err != nil {
					t.Fatal(err)
				}
				return status, string(body)
			}
			typed := strings.ToLower(right[0].Code[:4]) + "-" + right[0].Code[4:]
			if status, body := claim(typed); status != http.StatusOK || !strings.Contains(body, `"owner"`) {
				t.Fatalf("the right code, typed by a person, is answered %d %s", status, body)
			}
			var answers []int
			for range 6 {
				status, body := claim("WRONGWRO")
				answers = append(answers, status)
				if status == http.StatusTooManyRequests && !strings.Contains(body, `"code":"busy"`) {
					t.Errorf("429 says %s", body)
				}
			}
			if fmt.Sprint(answers) != "[404 404 404 404 404 429]" {
				t.Errorf("six guesses are answered %v", answers)
			}
			if status, _ := claim(right[1].Code); status != http.StatusTooManyRequests {
				t.Errorf("the right code is answered %d while guessing is over its limit: a guesser would know", status)
			}
			var d struct{ Tags map[string]string }
			m.ask(http.MethodGet, "/api/v1/devices/b", nil, http.StatusOK, &d)
			if d.Tags["owner"] != "" {
				t.Error("the device was claimed by a guesser")
			}
		})
	}
}
