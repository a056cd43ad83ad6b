package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/dashboard/live"
)

// scripted is what a store says of commands.
type scripted struct {
	since muster.Micros
	err   error
}

func (s *scripted) CommandsEnded(_ context.Context, since muster.Micros) (ended, acked int64, err error) {
	s.since = since
	return 8, 6, s.err
}

func TestTheTimeOfStoringIsThatOfTheLastMinute(t *testing.T) {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds", Help: "Of a test.", Buckets: []float64{0.1, 0.2, 0.4}})
	v := newVitals(h, &scripted{}, time.Now, slog.New(slog.DiscardHandler))
	v.lookAtStore()
	if got, _ := v.get(); got != (live.Storing{}) {
		t.Errorf("before the first batch: %+v", got)
	}
	for range 100 {
		h.Observe(0.3)
	}
	for range 59 {
		v.lookAtStore()
	}
	if got, _ := v.get(); got.Batches != 100 || got.P99 < 397 || got.P99 > 399 {
		t.Errorf("of 100 slow batches: %+v", got)
	}
	for range 50 {
		h.Observe(0.05)
	}
	for range 3 { // the slow ones came more than a minute ago
		v.lookAtStore()
	}
	if got, _ := v.get(); got.Batches != 50 || got.P99 != 99 {
		t.Errorf("of 50 fast ones: %+v", got)
	}
	h.Observe(5)
	v.lookAtStore()
	if got, _ := v.get(); got.Batches != 51 || got.P99 != 400 {
		t.Errorf("with one beyond the last bucket: %+v", got)
	}
}

func TestTheCommandsOfAnHourStayAsTheyWereWhileTheStoreIsAway(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	store := &scripted{}
	v := newVitals(prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds", Help: "Of a test."}), store, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	v.countCommands(t.Context())
	if _, got := v.get(); got != (live.Commands{Ended: 8, Acked: 6}) || store.since != muster.MicrosOf(now.Add(-time.Hour)) {
		t.Errorf("%+v since %d", got, store.since)
	}
	store.err = errors.New("away")
	v.countCommands(t.Context())
	if _, got := v.get(); got.Ended != 8 {
		t.Errorf("%+v", got)
	}
}
