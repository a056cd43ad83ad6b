package live

import "github.com/prometheus/client_golang/prometheus"

// Metrics returns the collector of the figures of Stats, as muster_live_….
func (g *Gateway) Metrics() prometheus.Collector {
	m := &metrics{g: g}
	m.add("connections", "Sockets of dashboards and others that are open.", prometheus.GaugeValue, func(s *Stats) float64 { return float64(s.Connections) })
	m.add("streams", "Streams of server-sent events that show channels.", prometheus.GaugeValue, func(s *Stats) float64 { return float64(s.Streams) })
	m.add("rate_hertz", "How often in a second a client is told of changes: 5, or fewer when many are told.", prometheus.GaugeValue, func(s *Stats) float64 { return float64(s.Hz) })
	m.add("rows", "Devices that somebody watches.", prometheus.GaugeValue, func(s *Stats) float64 { return float64(s.Rows) })
	m.add("messages_total", "Messages written to sockets.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.Messages) })
	m.add("sent_bytes_total", "Bytes in them, before they are deflated.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.Bytes) })
	m.add("failed_total", "Sockets ended because a write failed or did not drain.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.Failed) })
	m.add("overflows_total", "Sockets ended because their answers were not read.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.Overflows) })
	m.add("slowed_total", "Times that a slow client's rate was lowered.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.Slowed) })
	m.add("panics_total", "Panics, each of which ended one connection or one tick.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.Panics) })
	m.add("inbox_faults_total", "Times that an inbox could not be read or counted.", prometheus.CounterValue, func(s *Stats) float64 { return float64(s.InboxFaults) })
	return m
}

type metrics struct {
	g    *Gateway
	list []metric
}

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*Stats) float64
}

func (m *metrics) add(name, help string, kind prometheus.ValueType, of func(*Stats) float64) {
	m.list = append(m.list, metric{prometheus.NewDesc("muster_live_"+name, help, nil, nil), kind, of})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, one := range m.list {
		ch <- one.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	s := m.g.Stats()
	for _, one := range m.list {
		ch <- prometheus.MustNewConstMetric(one.desc, one.kind, one.of(&s))
	}
}
