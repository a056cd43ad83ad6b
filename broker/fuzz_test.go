package broker

import (
	"net"
	"testing"
	"time"
)

// FuzzConnection sends anything behind a good CONNECT and checks that the
// connection ends, and that nothing of it is left.
func FuzzConnection(f *testing.F) {
	for _, bad := range malformed() {
		f.Add(bad, true)
		f.Add(bad, false)
	}
	f.Add(encode(f, 5, subscribePacket(1, "devices/me/#", "$share/g/devices/me/desired")), true)
	f.Add(encode(f, 4, publishPacket("devices/me/telemetry", "1", 2, 1)), false)
	r := start(f, nil)
	f.Fuzz(func(t *testing.T, in []byte, five bool) {
		version := byte(4)
		if five {
			version = 5
		}
		client, server := net.Pipe()
		deadline := time.Now().Add(patience)
		if err := client.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		var g group
		g.start(func() { r.serve(server, "tcp") })
		g.start(func() {
			buf := make([]byte, 4096)
			for {
				if _, err := client.Read(buf); err != nil {
					return
				}
			}
		})
		_, err := client.Write(append(encode(t, version, connectPacket(version, "fuzz", "token-a", "")), in...))
		_ = client.Close()
		g.close()
		if werr := g.wait(t.Context(), "the connection"); werr != nil {
			t.Fatal(werr, err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the connection hung")
		}
		if known, half := r.conns.count(); known != 0 || half != 0 {
			t.Fatalf("%d known and %d half-open connections left", known, half)
		}
		for len(r.watch.events) > 0 {
			<-r.watch.events
		}
		for len(r.sink.messages) > 0 {
			<-r.sink.messages
		}
		for len(r.sink.refusals) > 0 {
			<-r.sink.refusals
		}
	})
}
