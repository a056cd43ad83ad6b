package devices_test

import (
	"testing"

	"muster"
	"muster/devices"
)

func TestASearchWithAnOperatorIsRefused(t *testing.T) {
	for q, ok := range map[string]bool{"": true, "pump-1": true, "site:oslo": true, "status!=online": false, "v.t<1": false, "seen>10m": false} {
		if err := devices.CheckSearch(q); ok != (err == nil) || err != nil && muster.KindOf(err) != muster.Invalid {
			t.Errorf("%q: %v", q, err)
		}
	}
}
