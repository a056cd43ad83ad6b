package server

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/broker"
	"muster/devices"
	"muster/devices/join"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

// door is a login over a real store.
func door(t *testing.T) login {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	store, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	log := slog.New(slog.DiscardHandler)
	l := login{registry: devices.NewRegistry(store, time.Now, log, devices.Options{}), accounts: accounts.New(store, time.Now, log, accounts.Config{CheckSelector: func(string) error { return nil }})}
	l.join = join.New(l.registry, store, time.Now, log, join.Options{})
	l.logins = devices.NewLogins(time.Now, func(id muster.DeviceID) bool { _, err := l.registry.Get(id); return err == nil })
	must(t, l.registry.Load(t.Context()))
	must(t, l.join.Load(t.Context()))
	must(t, l.accounts.Load(t.Context()))
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhoAnMQTTClientIs(t *testing.T) {
	l := door(t)
	ctx := t.Context()
	must(t, l.registry.PutProfile(ctx, devices.Profile{Name: "p", Publish: []string{"x/{id}"}, Subscribe: []string{"y/#"}, MessageRate: 3, ByteRate: 4}))
	_, secret, err := l.registry.Create(ctx, devices.Spec{ID: "d", Profile: "p", Credential: devices.Secret})
	must(t, err)
	token, err := l.registry.AddCredential(ctx, "d", devices.Token, "mst_a-token-that-looks-like-an-api-key")
	must(t, err)
	_, child, err := l.registry.Create(ctx, devices.Spec{ID: "svc", Parent: "d", Credential: devices.Secret, Given: "secret-of-the-device"})
	must(t, err)
	svc, word, err := l.accounts.CreateServiceAccount(ctx, accounts.ServiceSpec{Name: "svc", Publish: []string{"a"}, Subscribe: []string{"b"}})
	must(t, err)
	admin, adminKey, err := l.accounts.CreateKey(ctx, accounts.KeySpec{Name: "k", Scopes: []string{accounts.Admin}})
	must(t, err)
	topics, topicsKey, err := l.accounts.CreateKey(ctx, accounts.KeySpec{Name: "k", Scopes: []string{accounts.MQTT, accounts.TopicsRead, accounts.TopicsWrite}})
	must(t, err)
	_, plainKey, err := l.accounts.CreateKey(ctx, accounts.KeySpec{Name: "k", Scopes: []string{accounts.DevicesRead}})
	must(t, err)
	boundTo, boundKey, err := l.accounts.CreateKey(ctx, accounts.KeySpec{Name: "k", Scopes: []string{accounts.MQTT, accounts.TelemetryRead}, Selector: "id:svc"})
	must(t, err)
	device := func(credential string) broker.Identity {
		return broker.Identity{Device: "d", Credential: credential, Publish: []string{"x/d"}, Subscribe: []string{"y/#"}, Rate: broker.Rate{Messages: 3, Bytes: 4}}
	}
	account := broker.Identity{Name: "svc", Credential: svc.ID, Publish: []string{"a"}, Subscribe: []string{"b"}}
	tests := []struct {
		name, user, password string
		want                 broker.Identity
		kind                 muster.Kind // when want is empty
	}{
		{"a device by its secret", "d", secret.Password, device(secret.ID), 0},
		{"a device by a token, also one that looks like an API key", token.Token, "", device(token.ID), 0},
		{"a device whose id is a service account's name, by the device's secret", "svc", child.Password, broker.Identity{Device: "svc", Credential: child.ID}, 0},
		{"that service account, by its own secret", "svc", word, account, 0},
		{"a service account by its secret alone", word, "", account, 0},
		{"an admin key", adminKey, "", broker.Identity{Name: "k " + admin.ID, Credential: admin.ID, Admin: true}, 0},
		{"a key with the scope mqtt", topicsKey, "", broker.Identity{Name: "k " + topics.ID, Credential: topics.ID, ReadFree: true, WriteFree: true}, 0},
		{"a key without it", plainKey, "", broker.Identity{}, muster.Forbidden},
		{"a service account's secret with a device's id", "d", word, broker.Identity{}, muster.Unauthorized},
		{"a device's secret with a service account's name that is no device", "grafana", secret.Password, broker.Identity{}, muster.Unauthorized},
		{"nobody", "", "", broker.Identity{}, muster.Unauthorized},
		{"an unknown key", "mst_nobodys-key-0123456789", "", broker.Identity{}, muster.Unauthorized},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			who, err := l.Authenticate(broker.Login{Username: tt.user, Password: []byte(tt.password)})
			if d := cmp.Diff(tt.want, who); d != "" {
				t.Error(d)
			}
			if tt.want.Credential == "" {
				if err == nil || muster.KindOf(err) != tt.kind {
					t.Errorf("error is %v, want kind %v", err, tt.kind)
				}
				return
			}
			must(t, err)
			again, err := l.Refresh(who)
			must(t, err)
			if d := cmp.Diff(who, again); d != "" {
				t.Errorf("refreshed: %s", d)
			}
		})
	}
	bound, err := l.Authenticate(broker.Login{Username: boundKey})
	must(t, err)
	if again, err := l.Refresh(bound); err != nil || again.May == nil {
		t.Errorf("refreshed it is bound to nothing: %v", err)
	}
	if bound.Credential != boundTo.ID || bound.May == nil || !bound.May("svc") || bound.May("d") || bound.May("nobody") {
		t.Error("a key with a selector is not bound to its devices")
	}
	if l.Parent("svc") != "d" || l.Parent("d") != "" {
		t.Errorf("svc belongs to %q, d to %q", l.Parent("svc"), l.Parent("d"))
	}
	must(t, l.registry.SetProfile(ctx, "d", ""))
	who, err := l.Refresh(device(token.ID))
	must(t, err)
	if d := cmp.Diff(broker.Identity{Device: "d", Credential: token.ID}, who); d != "" {
		t.Error(d)
	}
	for _, gone := range []broker.Identity{{}, {Device: "d"}, {Device: "x", Credential: token.ID}, {Credential: token.ID}, {Device: "d", Credential: svc.ID}, {Credential: "key_x"}} {
		if _, err := l.Refresh(gone); err == nil || muster.KindOf(err) != muster.Unauthorized {
			t.Errorf("%+v is refreshed: %v", gone, err)
		}
	}
}
