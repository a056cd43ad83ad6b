package broker

import (
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzConnection sends anything to a running broker, from the first byte or behind a
// good CONNECT, over a socket and over a pipe. The broker does not panic, it ends the
// connection or goes on, nothing of it is left, and another client is served.
func FuzzConnection(f *testing.F) {
	for mode := range byte(8) {
		for _, bad := range malformed() {
			f.Add(bad, mode)
		}
		f.Add([]byte{0xf0, 2, 0x19, 0}, mode)
		f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mode)
	}
	f.Add(encode(f, 5, subscribePacket(1, "devices/me/#", "$share/g/devices/me/desired", "#")), byte(3))
	f.Add(encode(f, 4, publishPacket("devices/me/telemetry", "1", 2, 1)), byte(2))
	f.Add(append(encode(f, 5, retainedPacket("devices/a", "1", 2, 1)), encode(f, 5, ackPacket(packets.Pubrel, 1))...), byte(3))
	f.Add(append(encode(f, 4, publishPacket("t", "1", 1, 1)), encode(f, 4, connectPacket(4, "fuzz", "token-a", ""))...), byte(2))
	f.Add(encode(f, 5, connectPacket(5, "fuzz", "admin", "")), byte(0))
	r := start(f, func(c *Config) { c.MaxTakeovers, c.ConnectTimeout = 1<<30, 50*time.Millisecond })
	witness := r.client(5, "witness", "token-b")
	f.Fuzz(func(t *testing.T, in []byte, mode byte) {
		all := in
		if five := mode & 1; mode&2 != 0 {
			all = append(encode(t, 4+five, connectPacket(4+five, "fuzz", "admin", "")), in...)
		}
		r := &rig{Broker: r.Broker, t: t, sink: r.sink, watch: r.watch, log: r.log, reg: r.reg}
		r.feed(t, all, mode&4 != 0)
		witness.t = t
		witness.publish(publishPacket("devices/me/telemetry", "1", 1, 1))
		if n := r.metric("panics_total"); n != 0 {
			t.Fatalf("%v panics: %s", n, r.log)
		}
		for len(r.sink.messages) > 0 {
			<-r.sink.messages
		}
		for len(r.sink.refusals) > 0 {
			<-r.sink.refusals
		}
		for len(r.watch.events) > 0 {
			<-r.watch.events
		}
	})
}

// feed sends bytes, hangs up, and waits until nothing of the connection is left.
func (r *rig) feed(t *testing.T, all []byte, pipe bool) {
	ours, theirs := net.Pipe()
	var g group
	if pipe {
		g.start(func() { r.serve(theirs, &Login{Listener: "pipe"}) })
	} else {
		_, _ = ours.Close(), theirs.Close()
		nc, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ours = nc
	}
	if err := ours.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	g.start(func() {
		buf := make([]byte, 4096)
		for {
			if _, err := ours.Read(buf); err != nil {
				return
			}
		}
	})
	_, _ = ours.Write(all) // the broker may have ended it before
	_ = ours.Close()
	g.close()
	if err := g.wait(t.Context(), "the connection"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection's end", func() bool { known, half := r.conns.count(); return known == 1 && half == 0 })
}
