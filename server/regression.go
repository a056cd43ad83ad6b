package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"muster"
	"muster/firmware/regression"
	"muster/firmware/rollout"
	"muster/ingest"
)

const (
	judgeEvery    = time.Second      // how often it is asked whose telemetry is to be looked at
	longestLook   = 30 * time.Second // of one rollout
	longestUnseen = time.Minute      // between two looks at a rollout, at most
	looksAWindow  = 10               // how often a window is looked at while it passes
	mostReadings  = 1000             // of a device: the newest
)

// sampler finds devices of a rollout by chance: see operator.DeviceReader.
type sampler interface {
	RolloutSample(ctx context.Context, id string, state rollout.State, phase, limit int) ([]rollout.Device, error)
}

// judges look at the telemetry of rollouts whose phase asks for it, beside the director, which
// must not wait for that.
type judges struct {
	owner   string // of the leases of this process
	devices sampler
	store   ingest.RangeStore
	now     func() time.Time
	logger  *slog.Logger
	changed func() // a verdict is another

	mu     sync.Mutex
	asking []rollout.Rollout // whose phase asks, and whose lease is ours
	heard  map[string]heard  // of those, by id
}

// heard is what the telemetry of a phase says.
type heard struct {
	phase   int
	verdict rollout.Verdict
	words   string
	at      time.Time
}

func newJudges(owner string, devices sampler, store ingest.RangeStore, now func() time.Time, logger *slog.Logger, changed func()) *judges {
	return &judges{owner: owner, devices: devices, store: store, now: now, logger: logger, changed: changed, heard: map[string]heard{}}
}

// verdict is a director.Options.Verdict. What was not looked at yet is not known yet, after a
// restart too.
func (j *judges) verdict(r *rollout.Rollout) (rollout.Verdict, string) {
	gate := &r.Plan.Phases[r.Phase].Regression
	if !gate.Asked() {
		return rollout.NotAsked, ""
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if h, ok := j.heard[r.ID]; ok && h.phase == r.Phase {
		return h.verdict, h.words
	}
	return rollout.NotYet, fmt.Sprintf("the telemetry of %q was not looked at yet", gate.Key)
}

// watch is told which rollouts are open.
func (j *judges) watch(open []rollout.Rollout) {
	var asking []rollout.Rollout
	known := map[string]heard{}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range open {
		x := &open[i]
		if x.Status != rollout.Running || !x.Plan.Phases[x.Phase].Regression.Asked() || x.Owner != "" && x.Owner != j.owner {
			continue
		}
		asking = append(asking, *x)
		if h, ok := j.heard[x.ID]; ok && h.phase == x.Phase {
			known[x.ID] = h
		}
	}
	j.asking, j.heard = asking, known
}

// run looks at what is due, one rollout after the other.
func (j *judges) run(ctx context.Context) error {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		for _, r := range j.due() {
			j.look(ctx, &r)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (j *judges) due() (out []rollout.Rollout) {
	now := j.now()
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.asking {
		x := &j.asking[i]
		wait := min(longestUnseen, x.Plan.Phases[x.Phase].Regression.Window/looksAWindow)
		if h, ok := j.heard[x.ID]; !ok || now.Sub(h.at) >= wait || now.Before(h.at) {
			out = append(out, *x)
		}
	}
	return out
}

// look judges one rollout, and keeps what it found. Telemetry that cannot be read opens no phase.
func (j *judges) look(ctx context.Context, r *rollout.Rollout) {
	within, cancel := context.WithTimeout(ctx, longestLook)
	defer cancel()
	h := heard{phase: r.Phase, at: j.now()}
	var err error
	if h.verdict, h.words, err = j.judge(within, r); err != nil {
		if ctx.Err() != nil {
			return
		}
		h.verdict, h.words = rollout.NotYet, "the telemetry could not be read"
		j.logger.Warn("the telemetry of a rollout is not known, trying again", "rollout", r.ID, "err", err)
	}
	j.mu.Lock()
	was := j.heard[r.ID]
	j.heard[r.ID] = h
	j.mu.Unlock()
	if was.verdict != h.verdict {
		j.changed()
	}
}

// judge compares the devices of the phase that have the release with those that nothing was tried
// with yet, of whatever phase.
func (j *judges) judge(ctx context.Context, r *rollout.Rollout) (rollout.Verdict, string, error) {
	gate := &r.Plan.Phases[r.Phase].Regression
	sides := [2][]float64{}
	for i, updated := range []bool{true, false} {
		list, err := j.side(ctx, r, updated)
		if err != nil {
			return 0, "", err
		}
		if sides[i], err = j.numbers(ctx, gate, list); err != nil {
			return 0, "", err
		}
	}
	v, words := gate.Judge(sides[0], sides[1])
	return v, words, nil
}

// from is a device with since when its readings count.
type from struct {
	device muster.DeviceID
	since  muster.Micros
}

// side returns the devices of one side, at most regression.MaxDevices.
func (j *judges) side(ctx context.Context, r *rollout.Rollout, updated bool) (out []from, err error) {
	states, phase := []rollout.State{rollout.Queued}, -1
	if updated {
		states, phase = []rollout.State{rollout.Confirmed, rollout.Rebooting}, r.Phase
	}
	for _, state := range states {
		list, err := j.devices.RolloutSample(ctx, r.ID, state, phase, regression.MaxDevices-len(out))
		if err != nil {
			return nil, err //nolint:wrapcheck // it says what it was doing
		}
		for i := range list {
			if since, counts := countsSince(&list[i], &r.Plan); counts {
				out = append(out, from{list[i].ID, since})
			}
		}
	}
	return out, nil
}

// countsSince says since when the readings of a device count, and whether they do at all: those of
// one that has the version since it has it, those of one that waits and did not fail always.
func countsSince(d *rollout.Device, p *rollout.Plan) (muster.Micros, bool) {
	soak := muster.Micros(p.Soak / time.Microsecond)
	switch {
	case d.State == rollout.Confirmed:
		return d.Updated - soak, true
	case d.State == rollout.Rebooting && d.Soaking:
		return d.Deadline - soak, true
	default:
		return 0, d.State == rollout.Queued && d.Failures == 0
	}
}

// numbers returns one number of each device that has readings.
func (j *judges) numbers(ctx context.Context, gate *regression.Gate, list []from) (out []float64, err error) {
	now := j.now()
	begin := muster.MicrosOf(now.Add(-gate.Window))
	for _, x := range list {
		q := ingest.RangeQuery{Device: x.device, Keys: []string{gate.Key}, From: max(begin, x.since), To: muster.MicrosOf(now) + 1, Limit: mostReadings, Desc: true}
		var readings []float64
		for r, err := range j.store.Range(ctx, q) {
			if err != nil {
				return nil, err //nolint:wrapcheck // it says what it was doing
			}
			for v := range r.Values {
				if v.Key.Name == gate.Key && v.Key.Kind != muster.JSON {
					readings = append(readings, v.Num)
				}
			}
		}
		if n, ok := gate.Aggregate.Of(readings); ok {
			out = append(out, n)
		}
	}
	return out, nil
}
