package ingest

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the pipeline's own; the ledger's come from one consistent snapshot.
type metrics struct {
	in           *Ingest
	ledger       [7]*prometheus.Desc
	queued       *prometheus.Desc
	fill         *prometheus.Desc
	unstored     *prometheus.Desc
	storeDown    *prometheus.Desc
	frames       prometheus.Histogram
	frameSize    prometheus.Histogram
	appendSecs   prometheus.Histogram
	storeSecs    prometheus.Histogram
	appendErrors prometheus.Counter
	lostFrames   prometheus.Counter
	logLost      prometheus.Counter
	ackPanics    prometheus.Counter
	unknown      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, in *Ingest) *metrics {
	m := &metrics{in: in}
	help := [7][2]string{
		{"received", "Messages taken from devices."},
		{"recovered", "Messages found in the log at start and not yet stored."},
		{"stored", "Messages stored as a new row."},
		{"duplicate", "Messages whose equal row was there already."},
		{"replaced", "Messages that replaced a row of the same device, time and keys."},
		{"rejected", "Messages refused for good and kept with the reason."},
		{"dropped", "Messages of QoS 0 or ack level received for which there was no room."},
	}
	for i, h := range help {
		m.ledger[i] = prometheus.NewDesc("muster_ingest_"+h[0]+"_total", h[1], nil, nil)
	}
	m.queued = prometheus.NewDesc("muster_ingest_queued", "Messages in the log and not yet in the store.", nil, nil)
	m.fill = prometheus.NewDesc("muster_log_unstored_ratio", "Share of the log's bound that is not stored yet.", nil, nil)
	m.unstored = prometheus.NewDesc("muster_log_unstored_bytes", "Bytes in the log and not yet in the store.", nil, nil)
	m.storeDown = prometheus.NewDesc("muster_store_down", "1 while the store does not take data.", nil, nil)
	hist := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m.frames = hist("muster_log_frame_messages", "Messages in a frame.", prometheus.ExponentialBuckets(1, 4, 8))
	m.frameSize = hist("muster_log_frame_bytes", "Bytes of a frame.", prometheus.ExponentialBuckets(64, 4, 8))
	m.appendSecs = hist("muster_log_append_seconds", "Time to make a frame durable.", prometheus.ExponentialBuckets(0.0002, 2, 14))
	m.storeSecs = hist("muster_store_append_seconds", "Time to store a batch.", prometheus.ExponentialBuckets(0.001, 2, 14))
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m.appendErrors = counter("muster_log_append_errors_total", "Failed tries to append to the log.")
	m.lostFrames = counter("muster_log_lost_frames_total", "Frames of the log that could not be read.")
	m.logLost = counter("muster_log_lost_total", "Starts at which the log was not the one the store was written from.")
	m.ackPanics = counter("muster_ingest_ack_panics_total", "Senders that panicked when told of an acknowledgement.")
	m.unknown = counter("muster_ingest_unknown_total", "Payloads refused because there is no such device.")
	if reg != nil {
		reg.MustRegister(m, m.frames, m.frameSize, m.appendSecs, m.storeSecs, m.appendErrors, m.lostFrames, m.logLost, m.ackPanics, m.unknown)
	}
	return m
}

// StoreSeconds is the histogram of how long batches took to store, muster_store_append_seconds.
func (in *Ingest) StoreSeconds() prometheus.Collector { return in.metrics.storeSecs }

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.ledger {
		ch <- d
	}
	ch <- m.queued
	ch <- m.fill
	ch <- m.unstored
	ch <- m.storeDown
}

// Collect implements prometheus.Collector. The ledger is one snapshot, so that
// every scrape balances.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	l := m.in.Ledger()
	for i, v := range [7]uint64{l.Received, l.Recovered, l.Stored, l.Duplicate, l.Replaced, l.Rejected, l.Dropped} {
		ch <- prometheus.MustNewConstMetric(m.ledger[i], prometheus.CounterValue, float64(v))
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(m.queued, float64(l.Queued))
	gauge(m.fill, m.in.fill())
	gauge(m.unstored, float64(m.in.unstoredBytes()))
	down := 0.0
	if m.in.isStoreDown() {
		down = 1
	}
	gauge(m.storeDown, down)
}

func (m *metrics) frame(count, bytes int, took time.Duration) {
	m.frames.Observe(float64(count))
	m.frameSize.Observe(float64(bytes))
	m.appendSecs.Observe(took.Seconds())
}

func (m *metrics) batch(took time.Duration) { m.storeSecs.Observe(took.Seconds()) }
