package accounts_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
)

// told records which of some ids each change of rights was about.
type told struct {
	mu      sync.Mutex
	ids     []string
	changes [][]string
}

func (c *told) affected(affects func(string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var hit []string
	for _, id := range c.ids {
		if affects(id) {
			hit = append(hit, id)
		}
	}
	c.changes = append(c.changes, hit)
}

func (c *told) want(t testing.TB, want ...[]string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := cmp.Diff(want, c.changes); d != "" {
		t.Errorf("changes of rights (-want +got):\n%s", d)
	}
	c.changes = nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustService(t testing.TB, a *accounts.Accounts, spec accounts.ServiceSpec) (accounts.ServiceAccount, string) {
	t.Helper()
	s, secret, err := a.CreateServiceAccount(t.Context(), spec)
	must(t, err)
	return s, secret
}

func TestAServiceAccountWorksAcrossARestartUntilItIsDeleted(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	spec := accounts.ServiceSpec{Name: "grafana", Publish: []string{"out/#"}, Subscribe: []string{"devices/+/telemetry/#", "$SYS/#"}}
	s, secret := mustService(t, a, spec)
	_, other := mustService(t, a, accounts.ServiceSpec{Name: "other"})
	if !strings.HasPrefix(secret, "mss_") || len(secret) < 30 || !strings.HasPrefix(s.ID, "svc_") {
		t.Errorf("the secret has the wrong form (%d bytes), or the id %s", len(secret), s.ID)
	}
	if strings.Contains(fmt.Sprintf("%+v", m.services[s.ID]), secret) {
		t.Error("the stored account holds the secret")
	}
	want := accounts.MQTTClient{ID: s.ID, Name: "grafana", Publish: spec.Publish, Subscribe: spec.Subscribe}
	for _, a := range []*accounts.Accounts{a, open(t, m)} {
		for _, c := range [][2]string{{"grafana", secret}, {secret, ""}, {secret, "whatever"}} {
			got, err := a.AuthenticateMQTT(c[0], []byte(c[1]))
			must(t, err)
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
		got, err := a.RefreshMQTT(s.ID)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	must(t, a.DeleteServiceAccount(t.Context(), s.ID))
	wantKind(t, a.DeleteServiceAccount(t.Context(), s.ID), muster.NotFound)
	_, err := a.ServiceAccount(s.ID)
	wantKind(t, err, muster.NotFound)
	_, err = a.RefreshMQTT(s.ID)
	wantKind(t, err, muster.Unauthorized)
	for _, c := range [][2]string{
		{"grafana", secret},
		{secret, ""},
		{"grafana", other},
		{"other", secret},
		{"other", ""},
		{"", ""},
		{"", other},
		{"svc_x", ""},
		{"nobody", other},
		{"mss_", ""},
		{other + "A", ""},
		{strings.ToLower(other), ""},
		{strings.Repeat("x", 70_000), ""},
		{"other", strings.Repeat("x", 70_000)},
	} {
		_, err := a.AuthenticateMQTT(c[0], []byte(c[1]))
		wantKind(t, err, muster.Unauthorized)
		if err != nil && err.Error() != "bad user name or password" {
			t.Errorf("the answer gives something away: %v", err)
		}
	}
}

func TestAServiceAccountIsNobodyToTheAPI(t *testing.T) {
	a := open(t, newMemory())
	_, secret := mustService(t, a, accounts.ServiceSpec{Name: "grafana"})
	_, err := a.Authenticate(secret)
	wantKind(t, err, muster.Unauthorized)
	_, _, err = a.SignIn(t.Context(), secret)
	wantKind(t, err, muster.Unauthorized)
}

func TestWhatCreateServiceAccountRefuses(t *testing.T) {
	a := open(t, newMemory())
	mustService(t, a, accounts.ServiceSpec{Name: "taken"})
	tests := []struct {
		name string
		spec accounts.ServiceSpec
		kind muster.Kind
	}{
		{"no name", accounts.ServiceSpec{}, muster.Invalid},
		{"a taken name", accounts.ServiceSpec{Name: "taken"}, muster.Conflict},
		{"a name with a space", accounts.ServiceSpec{Name: "a b"}, muster.Invalid},
		{"a name of 65 bytes", accounts.ServiceSpec{Name: strings.Repeat("n", 65)}, muster.Invalid},
		{"a name like a secret", accounts.ServiceSpec{Name: "mss_x"}, muster.Invalid},
		{"a name like an API key", accounts.ServiceSpec{Name: "mst_x"}, muster.Invalid},
		{"a broken filter", accounts.ServiceSpec{Name: "n", Publish: []string{"a#"}}, muster.Invalid},
		{"{id}", accounts.ServiceSpec{Name: "n", Subscribe: []string{"devices/{id}/telemetry"}}, muster.Invalid},
		{"publishing to $SYS", accounts.ServiceSpec{Name: "n", Publish: []string{"$SYS/x"}}, muster.Invalid},
		{"a shared subscription", accounts.ServiceSpec{Name: "n", Subscribe: []string{"$share/g/x"}}, muster.Invalid},
		{"33 filters", accounts.ServiceSpec{Name: "n", Subscribe: make([]string, 33)}, muster.Invalid},
		{"a past expiry", accounts.ServiceSpec{Name: "n", Expires: time.Now().Add(-time.Second)}, muster.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, secret, err := a.CreateServiceAccount(t.Context(), tt.spec)
			wantKind(t, err, tt.kind)
			if secret != "" || len(a.ServiceAccounts()) != 1 {
				t.Error("an account was made")
			}
		})
	}
}

func TestAChangedServiceAccountHasItsNewRightsAtOnce(t *testing.T) {
	m := newMemory()
	a := open(t, m)
	c := &told{}
	a.OnRights(c.affected)
	s, secret := mustService(t, a, accounts.ServiceSpec{Name: "s", Publish: []string{"a"}})
	x, _ := mustService(t, a, accounts.ServiceSpec{Name: "x"})
	c.ids = []string{s.ID, x.ID}
	c.want(t)
	publish, subscribe := []string{"b"}, []string{"c/#"}
	_, err := a.UpdateServiceAccount(t.Context(), s.ID, accounts.ServiceChange{Publish: &publish, Subscribe: &subscribe})
	must(t, err)
	c.want(t, []string{s.ID})
	publish[0] = "changed by the caller"
	got, err := a.AuthenticateMQTT("s", []byte(secret))
	must(t, err)
	if d := cmp.Diff(accounts.MQTTClient{ID: s.ID, Name: "s", Publish: []string{"b"}, Subscribe: []string{"c/#"}}, got); d != "" {
		t.Error(d)
	}
	on, off := true, false
	_, err = a.UpdateServiceAccount(t.Context(), s.ID, accounts.ServiceChange{Disabled: &on})
	must(t, err)
	_, err = a.AuthenticateMQTT(secret, nil)
	wantKind(t, err, muster.Unauthorized)
	_, err = open(t, m).RefreshMQTT(s.ID)
	wantKind(t, err, muster.Unauthorized)
	_, err = a.UpdateServiceAccount(t.Context(), s.ID, accounts.ServiceChange{Disabled: &off})
	must(t, err)
	_, err = a.RefreshMQTT(s.ID)
	must(t, err)
	c.want(t, []string{s.ID}, []string{s.ID})
	bad := []string{"#/a"}
	_, err = a.UpdateServiceAccount(t.Context(), s.ID, accounts.ServiceChange{Subscribe: &bad})
	wantKind(t, err, muster.Invalid)
	_, err = a.UpdateServiceAccount(t.Context(), "svc_x", accounts.ServiceChange{Disabled: &on})
	wantKind(t, err, muster.NotFound)
	m.down = true
	if _, err = a.UpdateServiceAccount(t.Context(), s.ID, accounts.ServiceChange{Disabled: &on}); err == nil {
		t.Error("a change succeeded without a store")
	}
	if a.DeleteServiceAccount(t.Context(), s.ID) == nil {
		t.Error("a deletion succeeded without a store")
	}
	_, err = a.RefreshMQTT(s.ID)
	must(t, err)
	c.want(t)
	m.down = false
	must(t, a.DeleteServiceAccount(t.Context(), s.ID))
	c.want(t, []string{s.ID})
}

func TestWhatTheScopesOfAKeyMeanForMQTT(t *testing.T) {
	a := open(t, newMemory())
	var none []string
	tests := []struct {
		scopes []string
		want   accounts.MQTTClient
	}{
		{[]string{accounts.MQTT}, accounts.MQTTClient{}},
		{[]string{accounts.Admin}, accounts.MQTTClient{Admin: true}},
		{[]string{accounts.Admin, accounts.MQTT, accounts.TopicsRead}, accounts.MQTTClient{Admin: true}},
		{[]string{accounts.MQTT, accounts.TelemetryRead}, accounts.MQTTClient{Subscribe: []string{"devices/+/telemetry/#"}}},
		{[]string{accounts.MQTT, accounts.DevicesRead}, accounts.MQTTClient{Subscribe: []string{"devices/+/presence", "devices/+/reported", "devices/+/events/#"}}},
		{[]string{accounts.MQTT, accounts.CommandsSend}, accounts.MQTTClient{Publish: []string{"devices/+/commands/+"}, Subscribe: []string{"devices/+/commands/+/result"}}},
		{[]string{accounts.MQTT, accounts.TopicsRead}, accounts.MQTTClient{ReadFree: true}},
		{[]string{accounts.MQTT, accounts.TopicsWrite}, accounts.MQTTClient{WriteFree: true}},
		{[]string{
			accounts.MQTT, accounts.DevicesWrite, accounts.TelemetryWrite, accounts.FirmwareRead, accounts.FirmwareWrite,
			accounts.NotifySend, accounts.AlertsRead, accounts.AlertsWrite,
		}, accounts.MQTTClient{Publish: none}},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.scopes, ","), func(t *testing.T) {
			k, secret := mustKey(t, a, tt.scopes...)
			tt.want.ID, tt.want.Name = k.ID, k.Name+" "+k.ID
			got, err := a.AuthenticateMQTT(secret, nil)
			must(t, err)
			again, err := a.RefreshMQTT(k.ID)
			must(t, err)
			if d := cmp.Diff(tt.want, got) + cmp.Diff(tt.want, again); d != "" {
				t.Error(d)
			}
			if err := muster.CheckRights(got.Publish, got.Subscribe); err != nil {
				t.Error(err)
			}
		})
	}
	all := slices.DeleteFunc(accounts.Scopes(), func(s string) bool { return s == accounts.Admin || s == accounts.MQTT })
	k, secret := mustKey(t, a, all...)
	_, err := a.AuthenticateMQTT(secret, nil)
	wantKind(t, err, muster.Forbidden)
	_, err = a.RefreshMQTT(k.ID)
	wantKind(t, err, muster.Forbidden)
}

func TestADeletedOrReplacedKeyIsTold(t *testing.T) {
	a := open(t, newMemory())
	c := &told{}
	a.OnRights(c.affected)
	k, _ := mustKey(t, a, accounts.MQTT)
	must(t, a.EnsureAdminKey(t.Context(), "mst_first-value-0123456789"))
	admin := a.Keys()[1]
	c.ids = []string{k.ID, admin.ID}
	must(t, a.DeleteKey(t.Context(), k.ID))
	must(t, a.EnsureAdminKey(t.Context(), "mst_second-value-0123456789"))
	c.want(t, []string{k.ID}, []string{admin.ID})
	for _, id := range c.ids {
		_, err := a.RefreshMQTT(id)
		wantKind(t, err, muster.Unauthorized)
	}
}

func TestWhatExpiresIsToldWithinTheSecondOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := open(t, m)
		c := &told{}
		var ended []string
		a.OnRights(c.affected)
		a.OnEnded(func(id string) { ended = append(ended, id) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.RunExpiry(ctx) }()
		synctest.Wait()

		start := time.Now()
		k, secret, err := a.CreateKey(ctx, accounts.KeySpec{Name: "k", Scopes: []string{accounts.MQTT}, Expires: start.Add(100 * time.Millisecond)})
		must(t, err)
		s, word := mustService(t, a, accounts.ServiceSpec{Name: "s", Expires: start.Add(3 * time.Hour)})
		late, _ := mustService(t, a, accounts.ServiceSpec{Name: "late", Expires: start.Add(3*time.Hour + time.Second)})
		forever, _ := mustService(t, a, accounts.ServiceSpec{Name: "forever"})
		c.ids = []string{k.ID, s.ID, late.ID, forever.ID}
		<-time.After(99 * time.Millisecond)
		c.want(t)
		_, err = a.AuthenticateMQTT(secret, nil)
		must(t, err)
		<-time.After(time.Second)
		c.want(t, []string{k.ID})
		if !slices.Equal(ended, []string{k.ID}) {
			t.Errorf("ended %v, want the key", ended)
		}
		_, err = a.AuthenticateMQTT(secret, nil)
		wantKind(t, err, muster.Unauthorized)
		<-time.After(3*time.Hour - time.Second)
		synctest.Wait()
		c.want(t, []string{s.ID})
		_, err = a.AuthenticateMQTT("s", []byte(word))
		wantKind(t, err, muster.Unauthorized)
		_, err = a.RefreshMQTT(s.ID)
		wantKind(t, err, muster.Unauthorized)
		<-time.After(time.Minute)
		c.want(t, []string{late.ID})
		cancel()
		must(t, <-done)
	})
}

func TestThereIsABoundOnServiceAccounts(t *testing.T) {
	a := open(t, newMemory())
	var first accounts.ServiceAccount
	for i := range accounts.MaxServiceAccounts {
		s, _ := mustService(t, a, accounts.ServiceSpec{Name: fmt.Sprintf("s%03d", i)})
		if i == 0 {
			first = s
		}
	}
	_, _, err := a.CreateServiceAccount(t.Context(), accounts.ServiceSpec{Name: "more"})
	wantKind(t, err, muster.Conflict)
	must(t, a.DeleteServiceAccount(t.Context(), first.ID))
	mustService(t, a, accounts.ServiceSpec{Name: first.Name})
	if all := a.ServiceAccounts(); len(all) != accounts.MaxServiceAccounts || all[0].Name != "s000" {
		t.Errorf("%d accounts, the first is %s", len(all), all[0].Name)
	}
}
