package chunk

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	pieces, bytes prometheus.Counter
	refused       *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		pieces:  prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_firmware_pieces_total", Help: "Pieces of images sent over MQTT."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_firmware_piece_bytes_total", Help: "Bytes of images sent over MQTT."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_firmware_pieces_refused_total", Help: "Requests for pieces that were not met, by why."}, []string{"code"}),
	}
}

func (m *metrics) register(r prometheus.Registerer, p *Pump) error {
	if r == nil {
		return nil
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_firmware_pieces_waiting", Help: "Pieces of images that wait to be sent."}, func() float64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return float64(p.waiting)
	})
	if err := errors.Join(r.Register(m.pieces), r.Register(m.bytes), r.Register(m.refused), r.Register(waiting)); err != nil {
		return fmt.Errorf("register the metrics of firmware pieces: %w", err)
	}
	return nil
}
