package devices_test

import (
	"testing"

	"muster/devices"
)

func TestADevicesLevelIsItsProfilesOfThatMoment(t *testing.T) {
	r := newRig(t, devices.Spec{ID: "d"}).r
	level := func() string { return r.Level("d") }
	if level() != "" || r.Level("nobody") != "" {
		t.Errorf("without one it is %q", level())
	}
	for _, want := range []string{"stored", "received", ""} {
		if err := r.PutProfile(t.Context(), devices.Profile{Name: "p", Level: want}); err != nil {
			t.Fatal(err)
		}
		p := "p"
		if _, err := r.Update(t.Context(), "d", devices.Change{Profile: &p}); err != nil {
			t.Fatal(err)
		}
		if level() != want {
			t.Errorf("it is %q, want %q", level(), want)
		}
	}
}
