package sim_test

import (
	"testing"

	"muster"
	"muster/sim"
)

func TestTheAddressOfTheHTTPListenerIsHostAndPortOrAURL(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8080":              "http://127.0.0.1:8080",
		"[::1]:8080":                  "http://[::1]:8080",
		"http://127.0.0.1:8080":       "http://127.0.0.1:8080",
		"http://127.0.0.1:8080/":      "http://127.0.0.1:8080",
		"https://muster.example":      "https://muster.example",
		"https://muster.example/sub/": "https://muster.example/sub",
		"ftp://127.0.0.1:8080":        "",
		"http://":                     "",
		"http://u:p@127.0.0.1:8080":   "",
		"http://127.0.0.1:8080?x=1":   "",
		"http://127.0.0.1:80 80":      "",
	} {
		got, err := sim.BaseURL(addr)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q is %q (%v), want %q", addr, got, err, want)
		}
		if err != nil && muster.KindOf(err) != muster.Invalid {
			t.Errorf("%q: %v is no Invalid", addr, err)
		}
	}
}
