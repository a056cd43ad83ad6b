package deliver

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// The ways a request for an image ends, as its metric has them.
const (
	resultSent    = "sent"    // all that was asked for
	resultUnsent  = "unsent"  // answered without a byte of it: HEAD, 304, 412, 416
	resultCut     = "cut"     // the client left, stalled, or the server stops
	resultSpent   = "spent"   // the budget ended
	resultBusy    = "busy"    // too many of the device at a time
	resultRefused = "refused" // not signed, another's, expired, over, not there
	resultFailed  = "failed"  // a fault of ours
)

// metrics are the handler's. No label carries a device or an image.
type metrics struct {
	downloads *prometheus.CounterVec
	bytes     prometheus.Counter
	waited    prometheus.Counter
	open      prometheus.GaugeFunc
}

func newMetrics(r prometheus.Registerer, open func() int) (*metrics, error) {
	m := &metrics{
		downloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_firmware_downloads_total", Help: "Requests for images over HTTP, by how they ended.",
		}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_firmware_sent_bytes_total", Help: "Bytes of images that were sent over HTTP.",
		}),
		waited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_firmware_paced_seconds_total", Help: "Seconds that downloads waited because of the bandwidth limit.",
		}),
		open: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_firmware_downloads", Help: "Downloads over HTTP that go on.",
		}, func() float64 { return float64(open()) }),
	}
	for _, c := range []prometheus.Collector{m.downloads, m.bytes, m.waited, m.open} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of downloads: %w", err)
		}
	}
	return m, nil
}
