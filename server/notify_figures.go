package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/notify/outbox"
)

const (
	depthsEvery = 10 * time.Second // how old the depths may be: with many deliveries they are costly
	depthsTime  = 5 * time.Second
)

// notifyFigures are the outbox's, for the System page and /metrics.
type notifyFigures struct {
	outbox *outbox.Dispatcher
	store  outbox.Keeper
	now    func() time.Time

	mu     sync.Mutex
	depths []outbox.Depth
	at     time.Time
}

// waiting returns what waits, as it was some seconds ago.
func (f *notifyFigures) waiting() []outbox.Depth {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if !f.at.IsZero() && now.Sub(f.at) < depthsEvery {
		return f.depths
	}
	ctx, cancel := context.WithTimeout(context.Background(), depthsTime)
	defer cancel()
	f.at = now // a store that is away is not asked all the time
	if depths, err := f.store.DeliveryDepths(ctx); err == nil {
		f.depths = depths
	}
	return f.depths
}

// outboxSection is the part of the System page.
type outboxSection struct {
	StoreAway bool             `json:"store_away"`
	Lost      int64            `json:"leases_lost"`
	Channels  []channelSection `json:"channels"`
	Queues    []queueSection   `json:"queues"` // whose breaker is not closed
}

type channelSection struct {
	Name      string `json:"name"`
	Slots     int    `json:"slots"`
	Running   int    `json:"running"`
	Queued    int64  `json:"queued"`
	Sending   int64  `json:"sending"`
	Dead      int64  `json:"dead"`
	OldestAge int64  `json:"oldest_seconds"` // of those that are open
	Attempts  int64  `json:"attempts"`       // since the start, like the others
	Delivered int64  `json:"delivered"`
	Failed    int64  `json:"failed"`
	Refused   int64  `json:"refused"`
}

type queueSection struct {
	Name      string    `json:"name"`
	Breaker   string    `json:"breaker"`
	Failures  int       `json:"failures"`
	OpenUntil time.Time `json:"open_until"`
}

func (f *notifyFigures) section() outboxSection {
	st, now := f.outbox.Status(), f.now()
	out := outboxSection{StoreAway: st.StoreAway, Lost: st.Lost, Channels: []channelSection{}, Queues: []queueSection{}}
	depths := f.waiting()
	for _, c := range st.Channels {
		s := channelSection{
			Name: c.Name, Slots: c.Slots, Running: c.Running, Attempts: c.Counts.Attempts, Delivered: c.Counts.Delivered,
			Failed: c.Counts.Again, Refused: c.Counts.Refused,
		}
		for _, d := range depths {
			if d.Channel == c.Name {
				s.add(d, now)
			}
		}
		out.Channels = append(out.Channels, s)
	}
	for _, q := range st.Queues {
		if q.Breaker != outbox.Closed {
			out.Queues = append(out.Queues, queueSection{q.Name, string(q.Breaker), q.Failures, q.OpenUntil})
		}
	}
	return out
}

func (s *channelSection) add(d outbox.Depth, now time.Time) {
	switch d.State {
	case outbox.StateQueued:
		s.Queued += d.Count
	case outbox.StateSending:
		s.Sending += d.Count
	case outbox.StateDead:
		s.Dead += d.Count
	default:
	}
	if d.State.Open() && d.Oldest != 0 {
		s.OldestAge = max(s.OldestAge, int64(muster.MicrosOf(now)-d.Oldest)/1_000_000)
	}
}

// The metrics. Channels are few, and states too: no queue is a label.
func attemptsDesc() *prometheus.Desc {
	return prometheus.NewDesc("muster_delivery_attempts_total", "Attempts at deliveries by what came of them.", []string{"channel", "result"}, nil)
}

func attemptTimeDesc() *prometheus.Desc {
	return prometheus.NewDesc("muster_delivery_attempt_seconds", "How long attempts at deliveries took.", []string{"channel"}, nil)
}

func endedDesc() *prometheus.Desc {
	return prometheus.NewDesc("muster_deliveries_ended_total", "Deliveries that ended, by how.", []string{"channel", "state"}, nil)
}

func depthDesc() *prometheus.Desc {
	return prometheus.NewDesc("muster_deliveries", "Deliveries in the store, by state and lane; some seconds old.", []string{"channel", "state", "lane"}, nil)
}

func oldestDesc() *prometheus.Desc {
	return prometheus.NewDesc("muster_delivery_oldest_seconds", "Age of the oldest delivery that is open; some seconds old.", []string{"channel"}, nil)
}

func breakersDesc() *prometheus.Desc {
	return prometheus.NewDesc("muster_delivery_breakers_open", "Queues whose breaker is not closed.", []string{"channel"}, nil)
}

// Describe implements prometheus.Collector.
func (f *notifyFigures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{attemptsDesc(), attemptTimeDesc(), endedDesc(), depthDesc(), oldestDesc(), breakersDesc()} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *notifyFigures) Collect(ch chan<- prometheus.Metric) {
	st, depths := f.outbox.Status(), f.waiting()
	oldest, open := map[string]float64{}, map[string]float64{}
	for _, c := range st.Channels {
		oldest[c.Name], open[c.Name] = 0, 0
		for result, n := range map[string]int64{
			"delivered": c.Counts.Delivered, "again": c.Counts.Again, "later": c.Counts.Later, "refused": c.Counts.Refused,
		} {
			ch <- prometheus.MustNewConstMetric(attemptsDesc(), prometheus.CounterValue, float64(n), c.Name, result)
		}
		ch <- prometheus.MustNewConstSummary(attemptTimeDesc(), uint64(c.Counts.Attempts), c.Counts.Time.Seconds(), nil, c.Name)
		for state, n := range map[string]int64{"sent": c.Counts.Sent, "dead": c.Counts.Dead, "dropped": c.Counts.Dropped} {
			ch <- prometheus.MustNewConstMetric(endedDesc(), prometheus.CounterValue, float64(n), c.Name, state)
		}
	}
	now := muster.MicrosOf(f.now())
	for _, d := range depths {
		ch <- prometheus.MustNewConstMetric(depthDesc(), prometheus.GaugeValue, float64(d.Count), d.Channel, string(d.State), d.Lane.String())
		if d.State.Open() && d.Oldest != 0 {
			oldest[d.Channel] = max(oldest[d.Channel], float64(now-d.Oldest)/1e6)
		}
	}
	for _, q := range st.Queues {
		if q.Breaker != outbox.Closed {
			open[q.Channel]++
		}
	}
	for name := range oldest {
		ch <- prometheus.MustNewConstMetric(oldestDesc(), prometheus.GaugeValue, oldest[name], name)
		ch <- prometheus.MustNewConstMetric(breakersDesc(), prometheus.GaugeValue, open[name], name)
	}
}
