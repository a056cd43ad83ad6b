package broker

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// nodSink keeps every message at once.
type nodSink struct{}

func (nodSink) Accept(_ context.Context, m Message) error {
	if m.From != nil {
		m.From.Acked(m.Token, nil)
	}
	return nil
}

func (nodSink) Refuse(Message, string, string, int) {}

// BenchmarkWalks measures messages from socket to socket, the raw clients included,
// which allocate nothing per message.
func BenchmarkWalks(b *testing.B) {
	for _, w := range []struct {
		name        string
		topic       string
		qos         byte
		subscribers int
		keeps       bool
	}{
		{name: "telemetry, QoS 0", topic: "devices/me/telemetry"},
		{name: "telemetry, QoS 1, acked", topic: "devices/me/telemetry", qos: 1},
		{name: "relayed, QoS 0, one subscriber", topic: "bench/x", subscribers: 1},
		{name: "relayed, QoS 1, one subscriber", topic: "bench/x", qos: 1, subscribers: 1},
		{name: "relayed, QoS 1, one kept session that is away", topic: "bench/x", qos: 1, subscribers: 1, keeps: true},
		{name: "relayed, QoS 0, 100 subscribers", topic: "bench/x", subscribers: 100},
	} {
		b.Run(w.name, func(b *testing.B) {
			r := newRig(b, func(c *Config) { c.Rate = Rate{1 << 30, 1 << 30} })
			r.Broker.sink = nodSink{}
			if err := r.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer r.halt()
			user := "admin"
			if w.subscribers == 0 {
				user = "token-a"
			}
			var readers sync.WaitGroup
			subs := make([]*raw, w.subscribers)
			for i := range subs {
				subs[i] = r.client(4, fmt.Sprintf("sub-%d", i), "admin", func(pk *packets.Packet) { pk.Connect.Clean = !w.keeps })
				subs[i].subscribed(w.topic)
				if w.keeps {
					_ = subs[i].nc.Close()
					continue
				}
				readers.Go(func() { swallow(subs[i], w.qos) })
			}
			const window = 50
			c := r.client(4, "pub", user)
			batch := bytes.Repeat(encode(b, 4, publishPacket(w.topic, `{"t":21.5,"h":40}`, w.qos, 1)), window)
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += window {
				c.round(batch, int(w.qos)*window)
			}
			c.quiet() // by now the last message has been routed
			b.StopTimer()
			_ = c.nc.Close()
			for _, s := range subs {
				_ = s.nc.Close()
			}
			readers.Wait()
		})
	}
}

// round writes a batch and reads its n acknowledgements.
func (c *raw) round(batch []byte, n int) {
	if _, err := c.nc.Write(batch); err != nil {
		c.t.Fatal(err)
	}
	var acks [4096]byte
	for left := 4 * n; left > 0; {
		k, err := c.r.Read(acks[:min(left, len(acks))])
		if err != nil {
			c.t.Fatal(err)
		}
		left -= k
	}
}

// swallow reads what comes, and acknowledges QoS 1 messages.
func swallow(c *raw, qos byte) {
	buf := make([]byte, 64<<10)
	ack := []byte{0x40, 2, 0, 0}
	var acks []byte
	for have := 0; ; {
		n, err := c.nc.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		at := 0
		acks = acks[:0]
		for have-at >= 2 && have-at >= 2+int(buf[at+1]) {
			size := 2 + int(buf[at+1])
			if qos == 1 {
				id := at + 4 + int(buf[at+3])
				ack[2], ack[3] = buf[id], buf[id+1]
				acks = append(acks, ack...)
			}
			at += size
		}
		have = copy(buf, buf[at:have])
		if len(acks) > 0 {
			if _, err := c.nc.Write(acks); err != nil {
				return
			}
		}
	}
}
