package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"muster"
	"muster/internal/lifecycle"
)

const (
	maxText    = 1 << 10 // bytes of each text of an attempt
	extraTries = 3       // beyond the schedule, for attempts whose worker ended
)

// unsent is the verdict on what was not tried, through no fault of anybody: it is queued
// again as it was.
const unsent Verdict = "unsent"

// job is one attempt: one delivery, or those of one fold.
type job struct {
	q        *queue
	ds       []Delivery
	lease    time.Time
	lane     Lane // whose slot it has
	probe    bool // of the breaker
	hastened bool // its target can take it again; guarded by mu
	open     int  // of ds that are not settled; guarded by mu
}

// begin takes a slot and starts the attempt.
func (r *runner) begin(j *job) {
	r.mu.Lock()
	j.open = len(j.ds)
	r.jobs[j] = struct{}{}
	r.slot(j, 1)
	r.mu.Unlock()
	r.attempts.Go(func() { r.attempt(j) })
}

// slot takes or frees the slot of j. It is called with mu held.
func (d *Dispatcher) slot(j *job, n int) {
	l := j.q.line
	l.running, j.q.running = l.running+n, j.q.running+n
	if j.lane != Urgent {
		l.slow, j.q.slow = l.slow+n, j.q.slow+n
	}
}

// attempt makes one and hands over what came of it. The slot is free when that was taken.
func (r *runner) attempt(j *job) {
	now := r.c.Now()
	live := make([]Delivery, 0, len(j.ds))
	var out []*settled
	for _, d := range j.ds {
		switch {
		case d.Expires != 0 && d.Expires <= muster.MicrosOf(now):
			out = append(out, r.ends(j, d, StateDropped, uncounted(d), "it expired before it could be sent"))
		case d.Attempts > len(j.q.line.s.Schedule)+extraTries:
			out = append(out, r.ends(j, d, StateDead, d.Attempts, fmt.Sprintf("%d attempts were begun, and the last of them never ended", d.Attempts-1)))
		default:
			live = append(live, d)
		}
	}
	live, held := r.pass(j, live)
	out = append(out, held...)
	if len(live) == 0 {
		r.breakerOf(j, tried{Attempt: Attempt{Verdict: Dropped}})
	} else {
		a := r.deliver(j, live)
		r.breakerOf(j, a)
		for _, d := range live {
			out = append(out, r.judge(j, d, a.Attempt))
		}
	}
	r.give(out)
	r.mu.Lock()
	r.slot(j, -1)
	r.mu.Unlock()
	r.nudge()
}

// pass returns which of ds go out now, and what becomes of the others.
func (r *runner) pass(j *job, ds []Delivery) (live []Delivery, held []*settled) {
	if r.c.Pass == nil || len(ds) == 0 {
		return ds, nil
	}
	ctx, cancel := context.WithTimeout(r.work, storeTime)
	defer cancel()
	var list []Pass
	err := lifecycle.Guard(func() (err error) {
		list, err = r.c.Pass(ctx, ds)
		return err
	})
	if r.failed(r.work, "ask what may go out", err) || len(list) != len(ds) {
		for _, d := range ds {
			held = append(held, r.waits(j, d, r.c.Now().Add(claimAgain), uncounted(d), d.Error))
		}
		return nil, held
	}
	for i, d := range ds {
		switch p := list[i]; {
		case p.Drop != "":
			held = append(held, r.ends(j, d, StateDropped, uncounted(d), p.Drop))
		case p.Hold != 0: // without an error: it holds nothing up, and is not hastened
			s := r.waits(j, d, p.Hold.Time(), uncounted(d), "")
			s.Held = true
			held = append(held, s)
		default:
			live = append(live, d)
		}
	}
	return live, held
}

// give hands over what is to be written, and waits while too much waits already. When Run is
// to end it waits for a moment only: what is not written is sent again.
func (r *runner) give(list []*settled) {
	var patience <-chan time.Time
	end := r.work.Done()
	for i := 0; i < len(list); {
		select {
		case r.settling <- list[i]:
			i++
		case <-end:
			end, patience = nil, time.After(lastFlush)
		case <-patience:
			r.abandon(list[i:])
			return
		}
	}
}

// breakerOf tells the breaker what came of j.
func (d *Dispatcher) breakerOf(j *job, a tried) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := &j.q.breaker
	switch v := a.Verdict; {
	case a.panicked || v == Later || v == unsent || v == Dropped:
		b.nothing(j.probe)
	case v == Again && !a.Alone:
		b.failure(d.c.Now(), j.probe)
	default:
		b.success()
	}
}

// tried is an attempt, and whether it is a panic of ours.
type tried struct {
	Attempt
	panicked bool
}

// deliver gives ds to the channel, within the channel's time and the lease.
func (r *runner) deliver(j *job, ds []Delivery) (a tried) {
	l := j.q.line
	began := r.c.Now()
	if r.work.Err() != nil || began.Add(l.s.Timeout).After(j.lease) { // this process slept: the lease might end meanwhile
		return tried{Attempt: Attempt{Verdict: unsent}}
	}
	ctx, cancel := context.WithTimeout(r.work, l.s.Timeout)
	defer cancel()
	err := lifecycle.Guard(func() error {
		a.Attempt = l.Deliver(ctx, ds)
		return nil
	})
	if p, ok := errors.AsType[*lifecycle.PanicError](err); ok {
		r.c.Logger.Error("a channel panicked", "channel", l.Name(), "delivery", ds[0].ID, "panic", fmt.Sprint(p.Value), "stack", string(p.Stack))
		a = tried{Attempt: Attempt{Verdict: Again, Error: "the channel panicked: the log has the stack"}, panicked: true}
	}
	if a.Verdict == Again && r.work.Err() != nil {
		return tried{Attempt: Attempt{Verdict: unsent}}
	}
	if a.At == 0 {
		a.At = muster.MicrosOf(began)
	}
	if a.Duration == 0 {
		a.Duration = r.c.Now().Sub(began)
	}
	a.Error, a.Response, a.Reference, a.Note = plain(a.Error), plain(a.Response), plain(a.Reference), plain(a.Note)
	r.mu.Lock()
	defer r.mu.Unlock()
	l.count.add(a)
	return a
}

// judge says what follows from an attempt for d.
func (r *runner) judge(j *job, d Delivery, a Attempt) *settled {
	now := r.c.Now()
	if a.Verdict != Later && a.Verdict != unsent {
		d.Tries = append(d.Tries[max(0, len(d.Tries)+1-MaxTries):len(d.Tries):len(d.Tries)], a)
	}
	if a.Reference != "" {
		d.Reference = a.Reference
	}
	if a.Refused && (a.Verdict == Again || a.Verdict == Dead) {
		d.Refused++
	}
	switch a.Verdict {
	case Delivered:
		return r.ends(j, d, StateSent, d.Attempts, "")
	case Dropped:
		return r.ends(j, d, StateDropped, d.Attempts, a.Error)
	case Dead:
		return r.ends(j, d, StateDead, d.Attempts, a.Error)
	case Gone:
		r.gone(d, a.Error)
		return r.ends(j, d, StateDead, d.Attempts, a.Error)
	case Later:
		wait, _ := (&Settings{Schedule: []time.Duration{j.q.line.s.Later}, Jitter: 0.2}).wait(0, a.RetryAfter)
		s := r.waits(j, d, now.Add(wait), uncounted(d), a.Error)
		s.later = true
		return s
	case unsent:
		return r.waits(j, d, now, uncounted(d), d.Error)
	case Again:
	default:
		a.Error = "the channel says " + string(a.Verdict) + ", which is no verdict"
	}
	wait, more := j.q.line.s.wait(d.Attempts, a.RetryAfter)
	due := now.Add(wait)
	switch {
	case !more:
		return r.ends(j, d, StateDead, d.Attempts, a.Error)
	case d.Expires != 0 && d.Expires <= muster.MicrosOf(due):
		return r.ends(j, d, StateDropped, d.Attempts, "it expires before it can be tried again; "+a.Error)
	}
	return r.waits(j, d, due, d.Attempts, a.Error)
}

// uncounted is the attempts of d without the one that its claim counted.
func uncounted(d Delivery) int { return max(0, d.Attempts-1) }

// gone tells that d's target wants nothing any more. When that fails the next delivery
// tells it again.
func (r *runner) gone(d Delivery, why string) {
	if r.c.OnGone == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.work), storeTime)
	defer cancel()
	if err := lifecycle.Guard(func() error { return r.c.OnGone(ctx, d, why) }); err != nil {
		r.c.Logger.Warn("a target that is gone is not disabled yet", "channel", d.Channel, "target", d.Target, "err", err)
	}
}

// ends and waits make what is written of d.
func (r *runner) ends(j *job, d Delivery, state State, attempts int, why string) *settled {
	now := muster.MicrosOf(r.c.Now())
	return &settled{job: j, d: d, Settlement: Settlement{
		ID: d.ID, Worker: d.Worker, State: state, Attempts: attempts, Due: now, Ended: now, Error: plain(why), Reference: d.Reference, Tries: d.Tries,
		Refused: d.Refused,
	}}
}

func (r *runner) waits(j *job, d Delivery, due time.Time, attempts int, why string) *settled {
	return &settled{job: j, d: d, Settlement: Settlement{
		ID: d.ID, Worker: d.Worker, State: StateQueued, Attempts: attempts, Due: muster.MicrosOf(due), Error: plain(why), Reference: d.Reference, Tries: d.Tries,
		Refused: d.Refused, Severity: d.Severity,
	}}
}

// plain is s as every store takes it: UTF-8 without NUL, at most maxText bytes.
func plain(s string) string {
	if len(s) <= maxText && utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", " ")
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}
