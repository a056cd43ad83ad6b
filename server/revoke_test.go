package server_test

import (
	"net/http"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"muster/server"
	"muster/server/servertest"
)

// client is a connected MQTT client that tells when its connection is lost.
type client struct {
	mqtt.Client
	lost chan time.Time
}

func dial(t *testing.T, s *server.Server, id, user, password string) client {
	t.Helper()
	c := client{lost: make(chan time.Time, 1)}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetClientID(id).SetUsername(user).SetPassword(password).
		SetAutoReconnect(false).SetConnectionLostHandler(func(mqtt.Client, error) { c.lost <- time.Now() })
	c.Client = mqtt.NewClient(o)
	if tok := c.Connect(); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("connect %s: %v", id, tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

// wantCut checks that c is cut within a second of since.
func (c client) wantCut(t *testing.T, since time.Time) {
	t.Helper()
	select {
	case at := <-c.lost:
		if took := at.Sub(since); took > time.Second {
			t.Errorf("the connection was cut after %s, want a second at most", took)
		}
	case <-time.After(10 * time.Second):
		t.Error("the connection is not cut")
	}
}

// wantLive checks that c still gets answers.
func (c client) wantLive(t *testing.T) {
	t.Helper()
	tok := c.Unsubscribe("nothing")
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Errorf("the connection does not live: %v", tok.Error())
	}
}

func TestWhatIsRevokedIsCutWithinASecondAndNothingElse(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "d")
	type secret struct {
		Credential struct{ ID, Username, Password string }
	}
	var first, second secret
	const credentials = "/api/v1/devices/d/credentials"
	for _, c := range []*secret{&first, &second} {
		call(t, s, http.MethodPost, credentials, map[string]string{"kind": "secret"}, c)
	}
	var account struct {
		ServiceAccount struct{ ID string } `json:"service_account"`
		Secret         string
	}
	call(t, s, http.MethodPost, "/api/v1/service-accounts", map[string]any{"name": "svc", "subscribe": []string{"x/#"}}, &account)
	type key struct {
		APIKey struct{ ID string } `json:"api_key"`
		Secret string
	}
	var deleted, expiring key
	call(t, s, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"mqtt"}}, &deleted)

	byToken := dial(t, s, "token", token, "")
	byFirst := dial(t, s, "first", "d", first.Credential.Password)
	bySecond := dial(t, s, "second", "d", second.Credential.Password)
	byName := dial(t, s, "svc", "svc", account.Secret)
	byKey := dial(t, s, "key", deleted.Secret, "")
	admin := dial(t, s, "admin", servertest.AdminKey, "")

	since := time.Now()
	call(t, s, http.MethodDelete, credentials+"/"+first.Credential.ID, nil, nil)
	byFirst.wantCut(t, since)
	since = time.Now()
	call(t, s, http.MethodPatch, "/api/v1/service-accounts/"+account.ServiceAccount.ID, map[string]bool{"disabled": true}, nil)
	byName.wantCut(t, since)
	since = time.Now()
	call(t, s, http.MethodDelete, "/api/v1/api-keys/"+deleted.APIKey.ID, nil, nil)
	byKey.wantCut(t, since)

	expires := time.Now().Add(700 * time.Millisecond)
	call(t, s, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"mqtt"}, "expires_at": expires}, &expiring)
	dial(t, s, "expiring", expiring.Secret, "").wantCut(t, expires)

	for _, c := range []client{byToken, bySecond, admin} {
		c.wantLive(t)
	}
	since = time.Now()
	call(t, s, http.MethodDelete, "/api/v1/devices/d?data=delete", nil, nil)
	byToken.wantCut(t, since)
	bySecond.wantCut(t, since)
	admin.wantLive(t)
}
