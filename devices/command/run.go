package command

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"muster"
)

// run is a job of which something is unfinished.
type run struct {
	Job
	pace  pace
	wake  muster.Micros      // when to start more, 0 for not by time
	loose map[int64]struct{} // targets with the Desirer
}

func newRun(j Job, now muster.Micros) *run {
	return &run{Job: j, pace: newPace(j.Rate, j.LastStart, now), wake: 1, loose: map[int64]struct{}{}}
}

// end is where the open waves end.
func (r *run) end(s *JobState) int64 {
	if len(r.Ends) == 0 {
		return 0
	}
	return r.Ends[min(s.Wave, len(r.Ends))-1]
}

// loadJobs reads unfinished jobs, and what became of their targets while nobody looked.
func (c *Commands) loadJobs(ctx context.Context) error {
	d := &c.desk
	c.wants.reset()
	c.slots.init()
	err := c.store.LoadJobs(ctx, func(j Job) error {
		d.runs[j.ID] = newRun(j, c.micros())
		return nil
	})
	if err != nil {
		return fmt.Errorf("load jobs: %w", err)
	}
	for _, r := range c.runsInOrder() {
		if r.Phase == Running || r.Phase == Paused {
			c.slots.put(r.ID)
		}
		if err := c.loadStarted(ctx, r); err != nil {
			return err
		}
		if r.Phase == Aborted {
			c.cancelQueued(r)
		}
	}
	return nil
}

// loadStarted finds the targets of r that were started and have nothing under way.
func (c *Commands) loadStarted(ctx context.Context, r *run) error {
	open := make(map[int64]struct{})
	for _, it := range c.desk.due {
		if it.Job == r.ID {
			open[it.Target] = struct{}{}
		}
	}
	err := c.store.LoadStarted(ctx, r.ID, r.Next, func(t Target) error {
		if _, ok := open[t.Number]; !ok {
			c.loadLoose(r, t)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load the targets of a job: %w", err)
	}
	return nil
}

// loadLoose takes in a target that was started and has nothing under way. A device's
// patch is applied again, which changes nothing when it was; a command that is not
// there went with its device.
func (c *Commands) loadLoose(r *run, t Target) {
	if r.Kind == KindDesired {
		r.loose[t.Number] = struct{}{}
		c.wants.put(wanted{r, t.Number, t.Device})
		return
	}
	c.desk.loose = append(c.desk.loose, settled{job: r.ID, number: t.Number, device: t.Device, err: errDeleted})
}

func (c *Commands) runsInOrder() []*run {
	out := make([]*run, 0, len(c.desk.runs))
	for _, id := range slices.Sorted(maps.Keys(c.desk.runs)) {
		out = append(out, c.desk.runs[id])
	}
	return out
}

// targetEnded counts a command of a job.
func (c *Commands) targetEnded(b *batch, it *item, s State) {
	r := c.desk.runs[it.Job]
	if it.Job == 0 || r == nil {
		return
	}
	b.job(r).count(s)
	b.Targets = append(b.Targets, Target{Job: r.ID, Number: it.Target, Command: it.ID, State: s.String()})
}

func (j *jobDraft) count(s State) {
	switch s { //nolint:exhaustive // the others are not final
	case Succeeded:
		j.Succeeded++
	case Failed:
		j.Failed++
	case Expired:
		j.Expired++
	case Cancelled:
		j.Cancelled++
	}
}

// settleTarget counts a target without a command, once.
func (c *Commands) settleTarget(b *batch, s settled) {
	r := c.desk.runs[s.job]
	if r == nil {
		return
	}
	j := b.job(r)
	if r.Kind == KindDesired {
		if _, ok := r.loose[s.number]; !ok || slices.Contains(j.final, s.number) {
			return
		}
		j.final = append(j.final, s.number)
	}
	b.fail(j, s.number, s.err)
}

// fail ends a target: well when why is empty.
func (b *batch) fail(j *jobDraft, number int64, why string) {
	state := Succeeded
	if why != "" {
		state = Failed
	}
	j.count(state)
	b.Targets = append(b.Targets, Target{Job: j.ID, Number: number, State: state.String(), Error: why})
}

// stepJobs takes every job as far as it may go with this batch: aborts it, ends it,
// opens its next wave, and starts targets.
func (c *Commands) stepJobs(ctx context.Context, b *batch, start bool) error {
	if len(c.desk.runs) == 0 {
		return nil
	}
	runs := c.runsInOrder()
	running := 0
	for _, r := range runs {
		c.judge(b, r)
		if b.state(r).Phase == Running {
			running++
		}
	}
	for _, r := range runs {
		if start && b.state(r).Phase == Running {
			if err := c.start(ctx, b, r, int64(maxBatch/running)); err != nil {
				return err
			}
		}
		if b.jobs[r.ID] == nil {
			r.plan(b.at)
		}
	}
	return nil
}

// state is a job as it stands in b.
func (b *batch) state(r *run) *JobState {
	if j := b.jobs[r.ID]; j != nil {
		return &j.JobState
	}
	return &r.JobState
}

func (c *Commands) judge(b *batch, r *run) {
	s := b.state(r)
	live := s.Phase == Running || s.Phase == Paused
	bad, over := s.Failed+s.Expired, s.final()
	rule := r.Abort
	switch {
	case live && over == r.Total:
		b.job(r).end(Done, "", b.at)
	case live && rule.FailedPercent > 0 && over > 0 && over >= int64(rule.MinFinished) && bad*100 >= int64(rule.FailedPercent)*over:
		b.job(r).end(Aborted, fmt.Sprintf("%d of %d finished targets failed or expired", bad, over), b.at)
	case s.Phase == Running && s.Next == r.end(s) && s.InFlight() == 0:
		b.job(r).Wave++
	}
	if s := b.state(r); s.Phase == Aborted && s.InFlight() == 0 || s.Phase == Done {
		if !s.Settled {
			b.job(r).Settled = true
		}
	}
}

func (j *jobDraft) end(p Phase, why string, at muster.Micros) {
	j.Phase, j.Reason, j.Ended = p, why, at
}

// room is how many targets of r may start in a batch.
func (c *Commands) room(b *batch, r *run, limit int64) int64 {
	s := b.state(r)
	n := min(limit, r.end(s)-s.Next, r.pace.allowed(b.at), int64(MaxOpen-len(c.desk.items)-len(b.Insert)))
	if r.MaxInFlight > 0 {
		n = min(n, int64(r.MaxInFlight)-s.InFlight())
	}
	if r.Kind == KindDesired {
		n = min(n, maxBatch-s.InFlight())
	}
	return n
}

func (c *Commands) start(ctx context.Context, b *batch, r *run, limit int64) error {
	n := c.room(b, r, limit)
	if n <= 0 {
		return nil
	}
	s := b.state(r)
	call, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	targets, err := c.store.LoadTargets(call, r.ID, s.Next, int(n))
	if err != nil {
		return fmt.Errorf("load targets: %w", err)
	}
	if int64(len(targets)) != n {
		return muster.Errorf(muster.Internal, "job %d has %d targets from %d on, not %d", r.ID, len(targets), s.Next, n)
	}
	j := b.job(r)
	for _, t := range targets {
		c.startTarget(b, j, t)
	}
	j.Next += n
	j.started += n
	j.LastStart = b.at
	return nil
}

func (c *Commands) startTarget(b *batch, j *jobDraft, t Target) {
	r := j.run
	if r.Kind == KindDesired {
		b.desires = append(b.desires, wanted{r, t.Number, t.Device})
		return
	}
	id, err := c.place(b, t.Device)
	if err != nil {
		b.fail(j, t.Number, muster.Public(err))
		return
	}
	b.Insert = append(b.Insert, Insert{
		ID: id, Device: t.Device, Method: r.Method, By: r.CreatedBy, Created: b.at, Expires: b.at + micros(r.TTL),
		Job: r.ID, Target: t.Number,
	})
}

// applyJob makes a job what the store has.
func (c *Commands) applyJob(b *batch, j *jobDraft) {
	r := j.run
	before := r.Phase
	r.JobState = j.JobState
	r.pace.take(j.started)
	for _, n := range j.final {
		delete(r.loose, n)
	}
	r.plan(b.at)
	if r.Phase == Done || r.Phase == Aborted {
		c.slots.give(r.ID)
	}
	if r.Phase == Aborted && before != Aborted {
		c.cancelQueued(r)
	}
	if r.Settled {
		delete(c.desk.runs, r.ID)
	}
}

// plan says when r can go on by itself. What ends a target looks at it anyway.
func (r *run) plan(now muster.Micros) {
	s := &r.JobState
	r.wake = 0
	switch {
	case s.Phase != Running:
	case r.final() == r.Total, s.InFlight() == 0 && s.Next == r.end(s): // done, or the next wave
		r.wake = 1
	case s.Next >= r.end(s), r.MaxInFlight > 0 && s.InFlight() >= int64(r.MaxInFlight), r.Kind == KindDesired && s.InFlight() >= maxBatch:
	case r.pace.allowed(now) > 0:
		r.wake = now // more at once, or when there is room
	default:
		r.wake = r.pace.next()
	}
}

func (c *Commands) jobsDue(now muster.Micros) bool {
	for _, r := range c.desk.runs {
		if r.wake != 0 && r.wake <= now {
			return true
		}
	}
	return false
}

func (c *Commands) jobsWake(at muster.Micros) muster.Micros {
	if len(c.desk.items) >= MaxOpen {
		return at // nothing starts
	}
	for _, r := range c.desk.runs {
		if r.wake != 0 {
			at = min(at, r.wake)
		}
	}
	return at
}

// cancelQueued calls off what an aborted job has waiting.
func (c *Commands) cancelQueued(r *run) {
	now := c.micros()
	for _, it := range c.desk.due {
		if it.Job == r.ID && it.State == Queued && it.line.flying != it {
			c.desk.later(happening{id: it.ID, ev: evCancel, at: now}, 1)
		}
	}
}

// wantDesired hands what was started to the Desirer's loop.
func (c *Commands) wantDesired(b *batch) {
	for _, w := range b.desires {
		w.run.loose[w.number] = struct{}{}
		c.wants.put(w)
	}
}
