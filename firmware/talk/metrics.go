package talk

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct{ told, reports, heard *prometheus.CounterVec }

func newMetrics() *metrics {
	return &metrics{
		told: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_firmware_told_total", Help: "Offers, and ends of offers, sent to devices over MQTT; away: nobody listened; dropped: too many were to be told.",
		}, []string{"result"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_firmware_reports_total", Help: "What devices reported of firmware over MQTT, by what became of it.",
		}, []string{"result"}),
		heard: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_firmware_heard_total", Help: "What ThingsBoard's devices said of firmware in their telemetry, by what became of it.",
		}, []string{"result"}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	if err := errors.Join(r.Register(m.told), r.Register(m.reports), r.Register(m.heard)); err != nil {
		return fmt.Errorf("register the metrics of firmware: %w", err)
	}
	return nil
}
