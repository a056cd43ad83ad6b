package operator

import (
	"context"
	"sync"
	"time"

	"muster/firmware/rollout"
)

// Progress is how far a rollout is.
type Progress struct {
	Rollout   rollout.Rollout
	InFlight  int     // devices that take a slot
	Total     int     // devices
	Ended     int     // of them
	PerMinute float64 // devices that ended in a minute, of late; 0 while that is not known
	// ETA is when the devices of all phases will have ended at that rate, without soaks, gates
	// and windows that are to come; 0 while that is not known, and when it does not run.
	ETA time.Duration
}

const (
	lookFor    = 200 * time.Millisecond // for how long an answer is kept
	sampleFor  = 10 * time.Minute       // over which the rate is taken
	sampleStep = 5 * time.Second        // between two samples
	mostLooked = 1000                   // rollouts that are kept; the one that was asked for longest ago goes
)

// board keeps what was asked for of late, for the rates.
type board struct {
	mu   sync.Mutex
	kept map[string]*watched
}

// watched is a rollout that somebody looks at.
type watched struct {
	asked   time.Time
	last    Progress
	samples []sample
}

type sample struct {
	at    time.Time
	ended int
}

// Progress returns how far a rollout is; an answer is at most 200 ms old, and none of before a verb. NotFound when there is none.
func (o *Operator) Progress(ctx context.Context, id string) (Progress, error) {
	now := o.p.Now()
	if p, ok := o.board.fresh(id, now); ok {
		return p, nil
	}
	r, err := o.Rollout(ctx, id)
	if err != nil {
		return Progress{}, err
	}
	return o.board.note(ProgressOf(r), now), nil
}

// ProgressOf counts a rollout, without a rate.
func ProgressOf(r rollout.Rollout) Progress {
	p := Progress{Rollout: r, InFlight: r.InFlight()}
	for i := range r.Counts {
		n := r.Counts[i].Total()
		p.Total += n
		p.Ended += n - r.Counts[i].Open()
	}
	return p
}

// fresh returns what was found just now.
func (b *board) fresh(id string, now time.Time) (Progress, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.kept[id]
	if w == nil || now.Sub(w.asked) >= lookFor || now.Before(w.asked) {
		return Progress{}, false
	}
	return w.last, true
}

// changed has a rollout looked at anew: who did a verb sees what came of it.
func (o *Operator) changed(id string) {
	o.notes.changes.Add(1)
	o.board.mu.Lock()
	defer o.board.mu.Unlock()
	if w := o.board.kept[id]; w != nil {
		w.asked = time.Time{}
	}
}

// note keeps p, and adds the rate to it.
func (b *board) note(p Progress, now time.Time) Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.kept[p.Rollout.ID]
	if w == nil {
		b.makeRoom()
		w = &watched{}
		b.kept[p.Rollout.ID] = w
	}
	w.sample(p.Ended, now)
	first, last := w.samples[0], sample{now, p.Ended}
	if took := last.at.Sub(first.at); took >= sampleStep && last.ended > first.ended {
		p.PerMinute = float64(last.ended-first.ended) / took.Minutes()
	}
	if left := p.Total - p.Ended; p.PerMinute > 0 && left > 0 && p.Rollout.Status == rollout.Running {
		p.ETA = time.Duration(float64(left) / p.PerMinute * float64(time.Minute))
	}
	w.asked, w.last = now, p
	return p
}

// sample keeps how many had ended at a time, for as long as that is of late.
func (w *watched) sample(ended int, now time.Time) {
	for len(w.samples) > 1 && now.Sub(w.samples[0].at) > sampleFor {
		w.samples = w.samples[1:]
	}
	if n := len(w.samples); n == 0 || now.Sub(w.samples[n-1].at) >= sampleStep {
		w.samples = append(w.samples, sample{now, ended})
	}
}

func (b *board) makeRoom() {
	if len(b.kept) < mostLooked {
		return
	}
	oldest := ""
	for id, w := range b.kept {
		if oldest == "" || w.asked.Before(b.kept[oldest].asked) {
			oldest = id
		}
	}
	delete(b.kept, oldest)
}
