package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkEncode is the cost of making one message.
func BenchmarkEncode(b *testing.B) {
	for _, profile := range []string{Sensor, Meter, Tracker} {
		b.Run(profile, func(b *testing.B) {
			cfg, err := Config{Addr: "127.0.0.1:1", Devices: 1, QoS: 1, Profile: profile}.withDefaults()
			if err != nil {
				b.Fatal(err)
			}
			d := newDevice(&fleet{cfg: cfg}, 0)
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				d.out = d.out[:0]
				d.add(now)
				d.head, d.count = 0, 0
			}
		})
	}
}

// BenchmarkFlood is the whole load client against a server that only counts
// packets and acks: cpu-ns/msg is the processor time of both together, so more
// than the client costs.
func BenchmarkFlood(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				ackFast(conn)
			})
		}
	})
	defer wg.Wait()
	defer l.Close()

	const devices = 20
	cfg := Config{Addr: l.Addr().String(), Devices: devices, QoS: 1, Window: 20, Limit: b.N/devices + 1, Profile: Sensor, Ramp: 1e6}
	var last Stats
	before := cpu(b)
	b.ResetTimer()
	if err := Run(context.Background(), cfg, func(s Stats) { last = s }); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu(b)-before)/float64(last.Acked), "cpu-ns/msg")
	b.ReportMetric(float64(last.Acked)/b.Elapsed().Seconds(), "acks/s")
}

// ackFast acks every PUBLISH it finds in what one read brings with one write.
func ackFast(conn net.Conn) {
	buf := make([]byte, 0, 64<<10)
	var acks []byte
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		acks = acks[:0]
		rest := buf
		for len(rest) > 2 {
			size, k := binary.Uvarint(rest[1:])
			if k <= 0 || len(rest) < 1+k+int(size) {
				break
			}
			body := rest[1+k : 1+k+int(size)]
			switch rest[0] & 0xf0 {
			case 0x10:
				acks = append(acks, 0x20, 2, 0, 0)
			case 0x30:
				id := 2 + int(binary.BigEndian.Uint16(body))
				acks = append(acks, 0x40, 2, body[id], body[id+1])
			}
			rest = rest[1+k+int(size):]
		}
		buf = buf[:copy(buf, bytes.Clone(rest))]
		if _, err := conn.Write(acks); err != nil {
			return
		}
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
