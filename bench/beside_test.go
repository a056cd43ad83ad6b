//go:build linux

package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	besidePairs = 5
	besideFor   = 8 * time.Second
	besideRate  = 5000 // telemetry messages a second
)

// BenchmarkTelemetryBesideDownloads measures from PUBLISH to PUBACK while 200 ranges of an image
// are downloaded at once under the bandwidth limit that the server comes with, and while none
// are, in turns. Clients and server share the cores.
func BenchmarkTelemetryBesideDownloads(b *testing.B) {
	image := make([]byte, imageBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(image) // it never fails
	s, logins, addresses := startDelivery(b, image)
	fetchRanges(b, addresses, image, rangesAtOnce) // files into memory, connections made once
	s.besides(logins, nil, image)                  // all that is made once, too
	for range b.N {
		fmt.Printf("\ntelemetry beside downloads: %d messages/s at QoS 1 of %d devices, %d ranges at once under the default limit, %d pairs of %s\n",
			besideRate, len(logins), rangesAtOnce, besidePairs, besideFor)
		fmt.Printf("  %-34s %10s %10s %8s %10s\n", "PUBLISH to PUBACK, p99 in ms", "without", "with", "ratio", "MiB/s")
		var ratios []float64
		for i := range besidePairs {
			var without, with, rate float64
			if i%2 == 0 {
				without, _ = s.besides(logins, nil, image)
			}
			with, rate = s.besides(logins, addresses, image)
			if i%2 == 1 {
				without, _ = s.besides(logins, nil, image)
			}
			ratios = append(ratios, with/without)
			fmt.Printf("  %-34s %10.2f %10.2f %8.2f %10.1f\n", fmt.Sprint("pair ", i+1), without, with, with/without, rate)
		}
		fmt.Printf("  %-34s %10s %10s %8.2f   goal < 2\n", "median of the pairs", "", "", median(ratios))
		b.ReportMetric(median(ratios), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// besides publishes for a while, and downloads when there are addresses. It returns the p99
// from PUBLISH to PUBACK in ms, and the MiB a second that were downloaded.
func (s *server) besides(logins []login, addresses []string, image []byte) (p99, rate float64) {
	s.b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range min(rangesAtOnce, len(addresses)*rangesAtOnce) {
		wg.Go(func() {
			if err := fetcher(addresses[i%len(addresses)], image, &next, 1<<40); err != nil {
				s.b.Error(err)
			}
		})
	}
	s.await("the downloads to be under way", settleLimit, func() bool { return len(addresses) == 0 || next.Load() > 2*rangesAtOnce })
	before, began := next.Load(), time.Now()
	l := &load{
		addr: s.mqtt, logins: logins, window: readWindow, payload: `{"temperature":77.77,"humidity":77.77}`,
		period: time.Second * time.Duration(len(logins)) / besideRate,
	}
	ctx, cancel := context.WithCancel(s.b.Context())
	timer := time.AfterFunc(besideFor, cancel)
	if err := l.run(ctx, func() {}); err != nil {
		s.b.Fatal(err)
	}
	timer.Stop()
	cancel()
	ranges, took := next.Load()-before, time.Since(began).Seconds()
	next.Store(1 << 40) // no fetcher begins another
	wg.Wait()
	return ms(l.quantiles(0.99)[0]), float64(ranges) * rangeBytes / (1 << 20) / took
}
