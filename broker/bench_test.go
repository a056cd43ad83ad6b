package broker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// nowhere is a socket that swallows what is written.
type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }
func (nowhere) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

type nodSink struct{}

func (nodSink) Accept(_ context.Context, m Message) error {
	if m.From != nil {
		m.From.Acked(m.Token, nil)
	}
	return nil
}

func (nodSink) Refuse(Message, string, string, int) {}

// BenchmarkPublish measures a PUBLISH from its decoded packet to its PUBACK in
// the outbox: topic, rights, sink and acknowledgement.
func BenchmarkPublish(b *testing.B) {
	for _, topic := range []string{"devices/a/telemetry", "devices/me/telemetry/env/t"} {
		b.Run(topic, func(b *testing.B) {
			r := start(b, nil)
			r.Broker.sink = nodSink{}
			c := newConn(r.Broker, nowhere{}, "tcp")
			c.rights, c.dialect, c.qos2 = newRights(Identity{Device: "a"}), dialect{version: 4}, &received{limit: 64}
			c.out.release()
			raw := encode(b, 4, publishPacket(topic, "21.5", 1, 1))[2:]
			pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Remaining: len(raw)}, ProtocolVersion: 4}
			h := newHook(r.Broker)
			cl := r.srv.NewClient(c, "tcp", "x", false)
			b.ReportAllocs()
			for b.Loop() {
				if err := pk.PublishDecode(raw); err != nil {
					b.Fatal(err)
				}
				if _, err := h.OnPacketRead(cl, pk); err != nil {
					b.Fatal(err)
				}
			}
			c.out.wait(patience, true)
		})
	}
}

func BenchmarkGate(b *testing.B) {
	in := bytes.Repeat(encode(b, 4, publishPacket("devices/a/telemetry", "21.5", 1, 1)), 20)
	g := gate{first: maxConnect, max: 256 << 10, opened: true}
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, v := g.scan(in); v.flaw != flawNone {
			b.Fatal(v)
		}
	}
}

// lateSink acknowledges from a goroutine of its own, in batches.
type lateSink struct{ in chan Message }

func (s lateSink) Accept(_ context.Context, m Message) error {
	s.in <- m
	return nil
}

func (lateSink) Refuse(Message, string, string, int) {}

func (s lateSink) run() {
	for m := range s.in {
		m.From.Acked(m.Token, nil)
	}
}

// BenchmarkAcks measures QoS 1 messages from socket to PUBACK on the socket, the
// clients included, each with a window of 20.
func BenchmarkAcks(b *testing.B) {
	for _, clients := range []int{20, 100} {
		b.Run(fmt.Sprintf("%d clients", clients), func(b *testing.B) {
			r := newRig(b, nil)
			sink := lateSink{make(chan Message, 10_000)}
			r.Broker.sink = sink
			if err := r.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer r.halt()
			var sinks, wg sync.WaitGroup
			sinks.Go(sink.run)
			cs := make([]*raw, clients)
			for i := range cs {
				cs[i] = r.client(4, "c", fmt.Sprintf("dev-%d", i))
			}
			const window = 20
			batch := bytes.Repeat(encode(b, 4, publishPacket("devices/me/telemetry", "{\"t\":21.5,\"h\":40}", 1, 1)), window)
			b.ReportAllocs()
			b.ResetTimer()
			for _, c := range cs {
				wg.Go(func() { c.flood(batch, window, b.N/clients/window+1) })
			}
			wg.Wait()
			b.StopTimer()
			for _, c := range cs {
				_ = c.nc.Close()
			}
			r.halt()
			close(sink.in)
			sinks.Wait()
		})
	}
}

// flood writes a batch of n messages and reads its acks, rounds times.
func (c *raw) flood(batch []byte, n, rounds int) {
	acks := make([]byte, 4*n)
	for range rounds {
		if _, err := c.nc.Write(batch); err != nil {
			c.t.Error(err)
			return
		}
		for got := 0; got < len(acks); {
			k, err := c.r.Read(acks[got:])
			if err != nil {
				c.t.Error(err)
				return
			}
			got += k
		}
	}
}

// BenchmarkIdle measures the memory of a connection with three subscriptions and
// of its raw client (about 5 KB).
func BenchmarkIdle(b *testing.B) {
	const n = 1000
	for range b.N {
		r := start(b, nil)
		before := inUse()
		for i := range n {
			r.client(4, "c", fmt.Sprintf("dev-%d", i)).subscribed("devices/me/desired", "devices/me/commands/+", "devices/me/errors")
		}
		b.ReportMetric(float64(inUse()-before)/n, "B/conn")
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
