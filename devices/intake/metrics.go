package intake

import "github.com/prometheus/client_golang/prometheus"

// metrics shows the ledgers; each kind's values in a scrape are one snapshot, so
// that they balance.
type metrics struct {
	in       *Intake
	counters [4]*prometheus.Desc
	queued   *prometheus.Desc
}

func newMetrics(in *Intake) *metrics {
	m := &metrics{in: in}
	for i, h := range [4][2]string{
		{"received", "Messages beside telemetry taken from devices."},
		{"stored", "Messages beside telemetry that their owner has kept."},
		{"rejected", "Messages beside telemetry refused for good and kept with the reason."},
		{"dropped", "Messages beside telemetry of QoS 0 for which there was no room."},
	} {
		m.counters[i] = prometheus.NewDesc("muster_intake_"+h[0]+"_total", h[1], []string{"kind"}, nil)
	}
	m.queued = prometheus.NewDesc("muster_intake_queued", "Messages beside telemetry that wait to be stored.", []string{"kind"}, nil)
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range m.counters {
		ch <- d
	}
	ch <- m.queued
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.in.Status() {
		for i, v := range [4]uint64{s.Received, s.Stored, s.Rejected, s.Dropped} {
			ch <- prometheus.MustNewConstMetric(m.counters[i], prometheus.CounterValue, float64(v), s.Kind)
		}
		ch <- prometheus.MustNewConstMetric(m.queued, prometheus.GaugeValue, float64(s.Queued), s.Kind)
	}
}
