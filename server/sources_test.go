package server

import (
	"testing"
	"time"

	"muster"
	"muster/accounts"
)

func TestWhoMayWatchTheFleetLive(t *testing.T) {
	reads := []string{accounts.DevicesRead, accounts.TelemetryRead}
	for name, c := range map[string]struct {
		p    accounts.Principal
		kind muster.Kind
		role string
	}{
		"a key that reads":            {accounts.Principal{ID: "k", Scopes: reads, Expires: 7_000_000}, 0, accounts.Viewer},
		"an admin":                    {accounts.Principal{ID: "s", Scopes: []string{accounts.Admin}, Role: accounts.Admin}, 0, accounts.Admin},
		"a key without telemetry":     {accounts.Principal{Scopes: reads[:1]}, muster.Forbidden, ""},
		"a key bound to some devices": {accounts.Principal{ID: "k", Scopes: reads, Selector: "id:a"}, 0, accounts.Viewer},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := viewers{accounts: door(t).accounts}.viewer(c.p, nil)
			if c.role == "" {
				if muster.KindOf(err) != c.kind || err == nil {
					t.Errorf("it gets %v", err)
				}
				return
			}
			want := time.Time{}
			if c.p.Expires != 0 {
				want = c.p.Expires.Time()
			}
			if got.Only != c.p.Selector || (got.Sees != nil) != (c.p.Selector != "") {
				t.Errorf("it is bound to %q", got.Only)
			}
			if err != nil || got.ID != c.p.ID || got.Role != c.role || !got.Expires.Equal(want) {
				t.Errorf("it is %+v, %v", got, err)
			}
		})
	}
}
