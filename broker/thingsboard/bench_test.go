package thingsboard

import (
	"fmt"
	"strings"
	"testing"
)

func BenchmarkIs(b *testing.B) {
	for b.Loop() {
		if Is("devices/me/telemetry") {
			b.Fatal("taken for ThingsBoard's")
		}
	}
}

func BenchmarkUp(b *testing.B) {
	var gw strings.Builder
	for i := range 100 {
		fmt.Fprintf(&gw, `,"Device %d":[{"ts":1483228800000,"values":{"temperature":42,"humidity":80}}]`, i)
	}
	for name, c := range map[string]struct{ topic, payload string }{
		"telemetry":            {"v1/devices/me/telemetry", `{"ts":1483228800000,"values":{"temperature":42,"humidity":80}}`},
		"attributes":           {"v1/devices/me/attributes", `{"firmwareVersion":"2.1.0","serialNumber":"SN-4A21F"}`},
		"gateway, 100 devices": {"v1/gateway/telemetry", "{" + gw.String()[1:] + "}"},
	} {
		b.Run(name, func(b *testing.B) {
			payload := []byte(c.payload)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Up(c.topic, "d1", payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
