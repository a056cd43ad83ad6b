package join_test

import (
	"crypto/x509"
	"fmt"
	"testing"

	"muster"
	"muster/devices"
)

// BenchmarkCertificate is what a login by certificate costs beside the handshake.
func BenchmarkCertificate(b *testing.B) {
	r := newRig(b)
	ca := r.root("CA")
	r.register(ca, true)
	inter := r.issue(ca, "inter", nil, isCA)
	for name, certs := range map[string][]*x509.Certificate{
		"direct":  {r.issue(ca, "d", nil).cert},
		"between": {r.issue(inter, "e", nil).cert, inter.cert},
		"refused": {r.issue(pair{}, "d", nil).cert},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, err := r.Certificate(b.Context(), certs)
				if (err != nil) != (name == "refused") {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFailedLogin is what it costs to remember one of many that fail.
func BenchmarkFailedLogin(b *testing.B) {
	r := newRig(b)
	l := devices.NewLogins(r.now, func(muster.DeviceID) bool { return true })
	names := make([]string, 20_000)
	for i := range names {
		names[i] = fmt.Sprint("d", i)
	}
	err := devices.Deny("the device has no secret")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Failed(devices.Attempt{Username: names[i%len(names)], ClientID: "c", Peer: "10.0.0.1:1"}, err)
	}
}
