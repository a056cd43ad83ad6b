package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/ingest"
)

// erasures is what the System page shows of deleted devices whose telemetry is being
// deleted.
type erasures struct {
	Pending int               `json:"pending"`         // devices
	Since   *time.Time        `json:"since,omitempty"` // of the one that waits longest
	Next    []muster.DeviceID `json:"next,omitempty"`  // some of them
	ingest.EraseStatus
}

// shownErasures is how many devices the System page names.
const shownErasures = 10

func (s *Server) erasures() erasures {
	out := erasures{EraseStatus: s.ingest.EraseStatus()}
	var oldest muster.Micros
	if out.Pending, oldest = s.registry.Erasures(); out.Pending > 0 {
		at := oldest.Time()
		out.Since = &at
	}
	out.Next, _ = s.registry.Erasing("", shownErasures)
	return out
}

func (s *Server) measureErasures() {
	s.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_devices_erasing", Help: "Deleted devices whose telemetry is being deleted.",
	}, func() float64 {
		n, _ := s.registry.Erasures()
		return float64(n)
	}))
}
