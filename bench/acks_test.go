package bench

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"
)

const (
	threeKeys = `{"ts":1700000000000000,"values":{"temperature":77.77,"humidity":77.77,"battery":77.77}}`

	rounds   = 3
	warmUp   = 400 * time.Millisecond
	measured = 2 * time.Second
)

// BenchmarkAcks compares QoS 1 acks a second: Muster's, that follow an fsync,
// against Mosquitto's, that do not, with the same client and payload, in turns.
func BenchmarkAcks(b *testing.B) {
	muster, logins := startMuster(b, "", 100)
	mosquitto, others := startMosquitto(b, 100)
	for range b.N {
		fmt.Printf("\nQoS 1 acks/s, median of %d rounds of %s; the load client beside it on the same cores\n", rounds, measured)
		fmt.Printf("%-16s %14s %14s %8s   %s\n", "", "muster, fsync", "mosquitto, RAM", "ratio", "client's cost")
		for _, clients := range []int{20, 100} {
			l := load{window: 20, payload: threeKeys}
			var ours, theirs []float64
			own, sent := ownCPU(b), int64(0)
			for range rounds {
				l.logins = logins[:clients]
				ours = append(ours, rate(b, muster, l, &sent))
				l.logins = others[:clients]
				theirs = append(theirs, rate(b, mosquitto, l, &sent))
			}
			cost := (ownCPU(b) - own) / time.Duration(max(sent, 1))
			ratio := median(ours) / median(theirs)
			fmt.Printf("%3d x window 20  %14.0f %14.0f %8.2f   %s a message\n", clients, median(ours), median(theirs), ratio, cost)
			b.ReportMetric(ratio, fmt.Sprintf("ratio-%dx20", clients))
		}
		fmt.Printf("goal: ratio >= 0.4\n")
	}
	b.ReportMetric(0, "ns/op")
}

// rate floods a server and returns its acks a second once warm. It counts all acks
// in sent.
func rate(b *testing.B, s *server, l load, sent *int64) float64 {
	b.Helper()
	s.drain() // what one round left is not the next one's burden
	l.addr = s.mqtt
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	result := make(chan float64, 1)
	err := l.run(ctx, func() {
		go func() { // ends with ctx, and run waits for ctx
			defer cancel()
			wait(ctx, warmUp)
			before, began := l.total(), time.Now()
			wait(ctx, measured)
			result <- float64(l.total()-before) / time.Since(began).Seconds()
		}()
	})
	if err != nil {
		b.Fatalf("flood %s: %v", s.name, err)
	}
	*sent += l.total()
	return <-result
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// BenchmarkAckLatency paces 20,000 messages a second over 100 clients and compares
// how long a PUBACK takes.
func BenchmarkAckLatency(b *testing.B) {
	const clients, perSecond, lasts = 100, 20_000, 5 * time.Second
	muster, logins := startMuster(b, "", clients)
	mosquitto, others := startMosquitto(b, clients)
	for range b.N {
		fmt.Printf("\nPUBACK latency at %d msg/s over %d clients for %s\n", perSecond, clients, lasts)
		fmt.Printf("%-16s %10s %10s %10s %12s\n", "", "p50", "p99", "p99.9", "acks/s")
		for i, s := range []*server{muster, mosquitto} {
			l := load{addr: s.mqtt, logins: [][]login{logins, others}[i], window: 200, period: time.Second * clients / perSecond, payload: threeKeys}
			ctx, cancel := context.WithTimeout(b.Context(), lasts)
			if err := l.run(ctx, func() {}); err != nil {
				b.Fatalf("%s: %v", s.name, err)
			}
			cancel()
			q := l.quantiles(0.5, 0.99, 0.999)
			fmt.Printf("%-16s %10s %10s %10s %12.0f\n", s.name, q[0], q[1], q[2], float64(l.total())/lasts.Seconds())
			if s == muster {
				b.ReportMetric(float64(q[0].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(q[1].Microseconds())/1000, "p99-ms")
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}
