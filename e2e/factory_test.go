package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

const lineDevices = 500

// line is a factory line: the key and secret that its devices are made with.
type line struct{ Key, Secret string }

// newcomer is a device of the line: how it asks, what it got, and its connection.
type newcomer struct {
	open opener
	id   string
	own  bool              // it asks as Muster's devices do, else as ThingsBoard's
	more map[string]string // what it asks for beside
	got  login
	link link
}

// answer is what a registration may be answered, in either way.
type answer struct {
	Status, Code, Detail, ErrorMsg string
	ID, Token, Username, Password  string
	CredentialsType                string
	CredentialsValue               json.RawMessage
}

// newcomerOf is device i: libraries, ways and kinds of credential in turn.
func newcomerOf(i int) *newcomer {
	n := &newcomer{open: openers()[i%2], id: fmt.Sprintf("line-%03d", i), own: i/2%2 == 0}
	kind, mine := i/4%3, fmt.Sprintf("made-in-the-factory-%03d", i)
	switch {
	case kind == 0: // a token that the server makes
	case n.own && kind == 1:
		n.more = map[string]string{"credential": "secret"}
	case n.own:
		n.more = map[string]string{"token": mine}
	case kind == 1:
		n.more = map[string]string{"credentialsType": "ACCESS_TOKEN", "token": mine}
	default:
		n.more = map[string]string{"credentialsType": "MQTT_BASIC", "clientId": n.id, "username": "user-" + n.id, "password": mine}
	}
	return n
}

// register asks to be registered with a key and secret, and returns the answer.
func (n *newcomer) register(m *muster, l line) (answer, error) {
	k, err := n.open(m, login{clientID: "new-" + n.id, user: "provision"})
	if err != nil {
		return answer{}, fmt.Errorf("connect as provision: %w", err)
	}
	defer k.leave()
	slash, request := "", map[string]string{"id": n.id, "profile_key": l.Key, "profile_secret": l.Secret}
	if !n.own {
		slash, request = "/", map[string]string{"deviceName": n.id, "provisionDeviceKey": l.Key, "provisionDeviceSecret": l.Secret}
	}
	maps.Copy(request, n.more)
	text, err := json.Marshal(request)
	if err != nil {
		return answer{}, err
	}
	heard, err := k.ask(slash+"provision/response", slash+"provision/request", string(text))
	if err != nil {
		return answer{}, err
	}
	var a answer
	err = json.Unmarshal([]byte(heard), &a)
	return a, err
}

// login is what a registered device signs in with.
func (n *newcomer) login(a answer) (login, error) {
	l := login{clientID: n.id, user: a.Username, password: a.Password}
	if n.own {
		if a.Status != "ok" || a.ID != n.id || a.Username == "" {
			return l, fmt.Errorf("registered with %s: %s", a.Status, a.Detail)
		}
		return l, nil
	}
	if a.Status != "SUCCESS" {
		return l, fmt.Errorf("registered with %s: %s", a.Status, a.ErrorMsg)
	}
	if a.CredentialsType == "ACCESS_TOKEN" {
		err := json.Unmarshal(a.CredentialsValue, &l.user)
		return l, err
	}
	var basic struct{ ClientID, UserName, Password string }
	err := json.Unmarshal(a.CredentialsValue, &basic)
	return login{clientID: basic.ClientID, user: basic.UserName, password: basic.Password}, err
}

// start registers, signs in with what it got and publishes one message.
func (n *newcomer) start(m *muster, l line, value int) error {
	a, err := n.register(m, l)
	if err != nil {
		return err
	}
	if n.got, err = n.login(a); err != nil {
		return err
	}
	if n.link, err = n.open(m, n.got); err != nil {
		return fmt.Errorf("sign in with what it got: %w", err)
	}
	return n.link.publish("devices/me/telemetry", fmt.Sprintf(`{"seq":%d}`, value))
}

// TestAFactoryLineOf500DevicesRegistersItself has 500 devices come in by their
// profile's key and secret, and tries what must be refused.
func TestAFactoryLineOf500DevicesRegistersItself(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, read := e.prepare(t)
			m := serve(t, args...)
			m.ask(http.MethodPut, "/api/v1/profiles/meter", map[string]any{"message_rate": 100}, http.StatusOK, nil)
			var l line
			m.ask(http.MethodPut, "/api/v1/profiles/meter/provisioning", map[string]string{"strategy": "create"}, http.StatusOK, &l)
			all := make([]*newcomer, lineDevices)
			for i := range all {
				all[i] = newcomerOf(i)
			}
			began := time.Now()
			inParallel(t, len(all), func(i int) error { return all[i].start(m, l, i) })
			t.Logf("%d devices registered, signed in and published in %s", len(all), time.Since(began).Round(time.Millisecond))
			m.lineIsThere(all)
			m.lineRefuses(all, l)
			inParallel(t, len(all), func(i int) error { all[i].link.leave(); return nil })
			m.drained(drainLimit)
			m.stop()
			stored := read(m)
			for i, n := range all {
				if have := stored.of[n.id]; len(have) != 1 || have[i] != 1 {
					t.Errorf("%s has the rows %v, want its value %d once", n.id, have, i)
				}
			}
		})
	}
}

// lineIsThere checks that the API has every device of the line, online, of its profile
// and with its value.
func (m *muster) lineIsThere(all []*newcomer) {
	m.t.Helper()
	var page struct {
		Items []struct {
			ID, Profile string
			Presence    struct{ State string }
		}
	}
	m.await("the whole line to be online", clientLimit, func() bool {
		m.ask(http.MethodGet, "/api/v1/devices?limit=1000&q=profile:meter+status=online+v.seq", nil, http.StatusOK, &page)
		return len(page.Items) >= len(all)
	})
	if len(page.Items) != len(all) {
		m.t.Fatalf("%d devices are online, want %d", len(page.Items), len(all))
	}
	for i, d := range page.Items { // sorted by id
		if d.ID != all[i].id || d.Profile != "meter" || d.Presence.State != "online" {
			m.t.Errorf("device %d is %+v", i, d)
		}
	}
	inParallel(m.t, len(all), func(i int) error {
		v, err := m.latest(all[i].id, "seq")
		if err == nil && v != float64(i) {
			err = fmt.Errorf("%s has the value %v", all[i].id, v)
		}
		return err
	})
}

// lineRefuses tries what must be refused, in both ways and with both libraries: the
// device is told, the operator sees it, and whoever is registered is so still.
func (m *muster) lineRefuses(all []*newcomer, l line) {
	m.t.Helper()
	m.device("taken", "token")
	for i, own := range []bool{true, false} {
		for _, try := range []struct {
			what, id         string
			line             line
			code, status     string
			detail, visible  string
			device           string // on whose page it is shown; empty for the fleet's
			registeredBefore bool
		}{
			{"a wrong key", "late", line{"wrong-key", l.Secret}, "unauthorized", "NOT_FOUND", "", "the profile's key or secret is wrong", "", false},
			{"a wrong secret", "late", line{l.Key, "wrong"}, "unauthorized", "NOT_FOUND", "", "the profile's key or secret is wrong", "", false},
			{"an id that is taken", "taken", l, "conflict", "FAILURE", "is taken", "is taken", "taken", false},
			{"a second registration", all[2*i].id, l, "conflict", "FAILURE", "is taken", "is taken", all[2*i].id, true},
		} {
			n := &newcomer{open: openers()[i], id: try.id, own: own}
			a, err := n.register(m, try.line)
			if err != nil {
				m.t.Fatalf("%s: %v", try.what, err)
			}
			if own && (a.Status != "error" || a.Code != try.code || a.Detail == "" || !strings.Contains(a.Detail, try.detail)) ||
				!own && (a.Status != try.status || a.ErrorMsg == "" || !strings.Contains(a.ErrorMsg, try.detail)) || a.Token != "" || a.CredentialsValue != nil {
				m.t.Errorf("%s is answered %+v", try.what, a)
			}
			shown := m.logins(try.device)
			if len(shown) == 0 || !strings.Contains(shown[0].Reason, try.visible) || shown[0].ClientID != "new-"+try.id || shown[0].Peer == "" {
				m.t.Errorf("%s: the operator sees %+v", try.what, shown)
			}
			if try.registeredBefore {
				if err := all[2*i].link.publish("devices/me/events/still", "{}"); err != nil {
					m.t.Errorf("the device that was asked for again: %v", err)
				}
			}
		}
	}
	m.ask(http.MethodGet, "/api/v1/devices/late", nil, http.StatusNotFound, nil)
}
