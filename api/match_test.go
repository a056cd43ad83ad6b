package api

import (
	"testing"

	"muster/devices/twin"
)

func FuzzIfMatch(f *testing.F) {
	f.Add(`"7"`)
	f.Add(`"7-3", W/"1", "x"`)
	f.Add(`*`)
	f.Fuzz(func(t *testing.T, value string) {
		match, err := parseMatch(value)
		if err == nil && match != nil && match(twin.Versions{Document: -5, Effective: -6, Reported: -7}) {
			t.Errorf("%q matches versions that cannot be", value)
		}
	})
}
