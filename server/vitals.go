package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/dashboard/live"
)

const (
	storingOver   = 60               // seconds that the time of storing is looked back
	commandsOver  = time.Hour        // that commands are looked back
	commandsEvery = 10 * time.Second // between two counts of commands
	commandsTime  = 5 * time.Second  // for one
)

// endings counts the commands that ended, as store/control does.
type endings interface {
	CommandsEnded(ctx context.Context, since muster.Micros) (ended, acked int64, err error)
}

// vitals are figures of the Overview that are looked at by a loop, once for all who watch.
type vitals struct {
	storing  *prometheus.Registry // has the histogram of batches alone
	commands endings
	now      func() time.Time
	log      *slog.Logger

	// Of the loop alone: what the histogram said in each of the last seconds.
	past  [storingOver + 1][]bucket
	ticks int

	mu    sync.Mutex
	store live.Storing
	acked live.Commands
}

func newVitals(seconds prometheus.Collector, commands endings, now func() time.Time, log *slog.Logger) *vitals {
	v := &vitals{storing: prometheus.NewRegistry(), commands: commands, now: now, log: log}
	v.storing.MustRegister(seconds)
	return v
}

// run looks at the figures until ctx ends.
func (v *vitals) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var counted time.Time
	for {
		v.lookAtStore()
		if now := v.now(); counted.IsZero() || now.Sub(counted) >= commandsEvery {
			counted = now
			v.countCommands(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookAtStore compares the histogram with what it said a minute ago, or at the start.
func (v *vitals) lookAtStore() {
	is := v.buckets()
	was := v.past[(v.ticks+1)%len(v.past)] // the oldest
	if v.ticks < storingOver {
		was = nil
	}
	v.past[v.ticks%len(v.past)] = is
	v.ticks++
	since := make([]bucket, len(is))
	n := uint64(0)
	for i, b := range is {
		if since[i] = b; i < len(was) {
			since[i].upTo -= was[i].upTo
		}
		n = since[i].upTo // the last has all
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.store = live.Storing{Batches: n, P99: 1000 * quantile(since, n, 0.99)}
}

// buckets reads the histogram; the last bucket has what was above all bounds too.
func (v *vitals) buckets() []bucket {
	families, err := v.storing.Gather()
	if err != nil || len(families) == 0 || len(families[0].GetMetric()) == 0 {
		return nil
	}
	h := families[0].GetMetric()[0].GetHistogram()
	out := make([]bucket, 0, len(h.GetBucket())+1)
	top := 0.0
	for _, b := range h.GetBucket() {
		top = b.GetUpperBound()
		out = append(out, bucket{top, b.GetCumulativeCount()})
	}
	return append(out, bucket{top, h.GetSampleCount()})
}

func (v *vitals) countCommands(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, commandsTime)
	defer cancel()
	ended, acked, err := v.commands.CommandsEnded(ctx, muster.MicrosOf(v.now().Add(-commandsOver)))
	if err != nil { // what it was stays, until the store answers
		v.log.Debug("count the commands that ended", "err", err)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.acked = live.Commands{Ended: ended, Acked: acked}
}

// get returns the figures as they were some seconds ago.
func (v *vitals) get() (live.Storing, live.Commands) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.store, v.acked
}
