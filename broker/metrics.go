package broker

import (
	"github.com/prometheus/client_golang/prometheus"

	"muster/broker/listen"
)

// metrics are the broker's counters. No label carries a device id.
type metrics struct {
	connects        prometheus.Counter
	refusedConnects *prometheus.CounterVec // by reason
	disconnects     *prometheus.CounterVec // by listener and reason
	refused         *prometheus.CounterVec // messages refused for good by the broker, by code
	dropped         *prometheus.CounterVec // messages not delivered, by reason
	accepted        *prometheus.CounterVec // by listener
	turnedAway      *prometheus.CounterVec // connections that limits refused, by listener and reason
	handshakes      *prometheus.CounterVec // that failed, by listener and reason
	acceptErrors    *prometheus.CounterVec // by listener
	panics          prometheus.Counter
	throttled       prometheus.Counter
	flapping        prometheus.Counter
	evicted         prometheus.Counter
	bytesIn         prometheus.Counter
	bytesOut        prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_mqtt_" + name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_mqtt_" + name, Help: help}, labels)
	}
	return &metrics{
		connects:        counter("connects_total", "MQTT connections that were admitted."),
		refusedConnects: vec("connects_refused_total", "CONNECT packets that were refused.", "reason"),
		disconnects:     vec("disconnects_total", "MQTT connections that ended, admitted or not.", "listener", "reason"),
		refused:         vec("refused_total", "Messages that the broker refused for good.", "code"),
		dropped:         vec("dropped_total", "Messages that were not delivered, not retained, or not kept at QoS 0.", "reason"),
		accepted:        vec("accepted_total", "Connections accepted.", "listener"),
		turnedAway:      vec("turned_away_total", "Connections closed at once because of a limit.", "listener", "reason"),
		handshakes:      vec("handshake_errors_total", "PROXY headers and TLS handshakes that failed.", "listener", "reason"),
		acceptErrors:    vec("accept_errors_total", "Errors of listeners, which go on.", "listener"),
		panics:          counter("panics_total", "Panics in connections, each of which ended one connection."),
		throttled:       counter("throttled_total", "Times a client had to wait because it published more than its rate."),
		flapping:        counter("flapping_total", "CONNECT packets that had to wait because clients fight over an id."),
		evicted:         counter("sessions_evicted_total", "Kept sessions that ended because their owner had as many as it may have."),
		bytesIn:         counter("received_bytes_total", "Bytes received from MQTT clients."),
		bytesOut:        counter("sent_bytes_total", "Bytes sent to MQTT clients."),
	}
}

// hooks counts what a listener does.
func (m *metrics) hooks() listen.Hooks {
	return listen.Hooks{
		Accepted:       func(k listen.Kind) { m.accepted.WithLabelValues(string(k)).Inc() },
		Refused:        func(k listen.Kind, why listen.Refusal) { m.turnedAway.WithLabelValues(string(k), string(why)).Inc() },
		AcceptError:    func(k listen.Kind) { m.acceptErrors.WithLabelValues(string(k)).Inc() },
		HandshakeError: func(k listen.Kind, why string) { m.handshakes.WithLabelValues(string(k), why).Inc() },
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
		m.connects, m.refusedConnects, m.disconnects, m.refused, m.dropped, m.accepted, m.turnedAway, m.handshakes,
		m.acceptErrors, m.panics, m.evicted, m.throttled, m.flapping, m.bytesIn, m.bytesOut,
		gauge("connections", "Admitted MQTT connections.", func() float64 { return float64(b.Stats().Connections) }),
		gauge("half_open", "Connections without a CONNECT yet.", func() float64 { return float64(b.Stats().HalfOpen) }),
		gauge("sessions", "Sessions, connected or kept.", func() float64 { return float64(b.sessions.count.Load()) }),
		gauge("subscriptions", "Subscriptions in the general index: all but devices' own topics.", func() float64 { return float64(b.index.Len()) }),
		gauge("retained", "Topics with a retained message.", func() float64 { return float64(b.retained.tree.Len()) }),
		gauge("journal_bytes", "Size of the log of sessions.", func() float64 { return float64(b.journal.Stats().LogBytes) }),
		gauge("journal_items", "What the log of sessions keeps: sessions, messages in queues, retained messages.",
			func() float64 { return float64(b.journal.Stats().Items) }),
		gauge("journal_pending_bytes", "Bytes on their way to the log of sessions.", func() float64 { return float64(b.journal.Stats().PendingBytes) }),
		total("messages_sent_total", "PUBLISH packets sent to clients.", nil, func() float64 { return float64(b.sent.Load()) }),
		total("journal_records_total", "Records written to the log of sessions.", nil, func() float64 { return float64(b.journal.Stats().Records) }),
		total("journal_errors_total", "Appends and purges of the log of sessions that failed.", nil,
			func() float64 { return float64(b.journal.Stats().Errors) }),
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
