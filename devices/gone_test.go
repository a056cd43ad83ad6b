package devices_test

import (
	"context"
	"fmt"
	"testing"

	"muster"
	"muster/devices"
)

func TestAChangeOfSomebodyWhoHasGoneIsNotBegun(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 20 { // by chance some would be
		if _, _, err := r.Create(ctx, devices.Spec{ID: muster.DeviceID(fmt.Sprintf("d%d", i))}); muster.KindOf(err) != muster.Busy {
			t.Errorf("the answer is %v", err)
		}
	}
	if n := r.Count(); n != 0 {
		t.Errorf("%d devices were made", n)
	}
}
