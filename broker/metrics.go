package broker

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the broker's counters. No label carries a device id.
type metrics struct {
	connects        prometheus.Counter
	refusedConnects *prometheus.CounterVec // by reason
	disconnects     *prometheus.CounterVec // by reason
	refused         *prometheus.CounterVec // messages refused for good by the broker, by code
	dropped         *prometheus.CounterVec // messages not delivered, by reason
	acceptErrors    prometheus.Counter
	panics          prometheus.Counter
	bytesIn         prometheus.Counter
	bytesOut        prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_mqtt_" + name, Help: help})
	}
	vec := func(name, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_mqtt_" + name, Help: help}, []string{label})
	}
	return &metrics{
		connects:        counter("connects_total", "MQTT connections that were admitted."),
		refusedConnects: vec("connects_refused_total", "reason", "CONNECT packets that were refused."),
		disconnects:     vec("disconnects_total", "reason", "MQTT connections that ended, admitted or not."),
		refused:         vec("refused_total", "code", "Messages that the broker refused for good."),
		dropped:         vec("dropped_total", "reason", "Messages that were not delivered, or not kept at QoS 0."),
		acceptErrors:    counter("accept_errors_total", "Errors of the listener, which goes on."),
		panics:          counter("panics_total", "Panics in connections, each of which ended one connection."),
		bytesIn:         counter("received_bytes_total", "Bytes received from MQTT clients."),
		bytesOut:        counter("sent_bytes_total", "Bytes sent to MQTT clients."),
	}
}

// register registers the metrics, and gauges that read the broker's state.
func (m *metrics) register(reg prometheus.Registerer, b *Broker) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_mqtt_" + name, Help: help}, value)
	}
	total := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: "muster_mqtt_" + name, Help: help, ConstLabels: labels}, value)
	}
	all := []prometheus.Collector{ //nolint:prealloc // three more
		m.connects, m.refusedConnects, m.disconnects, m.refused, m.dropped, m.acceptErrors, m.panics,
		m.bytesIn, m.bytesOut,
		gauge("connections", "Admitted MQTT connections.", func() float64 { return float64(b.Stats().Connections) }),
		gauge("half_open", "Connections without a CONNECT yet.", func() float64 { return float64(b.Stats().HalfOpen) }),
		gauge("sessions", "Sessions, connected or kept.", func() float64 { return float64(b.srv.Clients.Len()) }),
		gauge("retained", "Topics with a retained message.", func() float64 { return float64(b.srv.Topics.Retained.Len()) }),
		total("messages_sent_total", "PUBLISH packets sent to clients.", nil, func() float64 { return float64(b.sent.Load()) }),
		total("inflight_dropped_total", "Messages dropped because a session had too many unacknowledged.", nil,
			func() float64 { return float64(atomic.LoadInt64(&b.srv.Info.InflightDropped)) }),
	}
	for qos, name := range []string{"0", "1", "2"} {
		n := &b.in[qos]
		all = append(all, total("messages_received_total", "PUBLISH packets received from clients.",
			prometheus.Labels{"qos": name}, func() float64 { return float64(n.Load()) }))
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}
