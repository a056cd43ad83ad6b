package command

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"

	"muster"
	"muster/audit"
	"muster/feed"
)

// Counts are how many targets of a job are in which state.
type Counts struct {
	Pending, Running, Succeeded, Failed, Expired, Cancelled int64
}

// Counts returns them; those that an aborted job did not start are cancelled.
func (j *Job) Counts() Counts {
	n := Counts{
		Pending: j.Total - j.Next, Running: j.InFlight(),
		Succeeded: j.Succeeded, Failed: j.Failed, Expired: j.Expired, Cancelled: j.Cancelled,
	}
	if j.Phase == Aborted {
		n.Cancelled, n.Pending = n.Cancelled+n.Pending, 0
	}
	return n
}

// CountJob checks s and returns how many targets it would have now.
func (c *Commands) CountJob(s JobSpec) (int, error) {
	if err := c.checkJob(&s); err != nil {
		return 0, err
	}
	targets, err := c.targets(&s)
	return len(targets), err
}

func (c *Commands) checkJob(s *JobSpec) error {
	if err := s.check(); err != nil {
		return err
	}
	if c.Selector == nil || s.Kind == KindDesired && c.Desirer == nil {
		return muster.Errorf(muster.Unavailable, "jobs of this kind cannot be run here")
	}
	return nil
}

// CreateJob selects the targets of a job, stores it with them, and starts it. The
// order of the targets is random, so that the first waves are a fair sample.
//
// Busy: MaxJobs are running or paused. TooLarge: more than MaxTargets match. After
// Unavailable it may run or not: the same key again tells.
func (c *Commands) CreateJob(ctx context.Context, s JobSpec) (Job, error) {
	if err := c.checkJob(&s); err != nil {
		return Job{}, err
	}
	if s.Key == "" {
		return c.createJob(ctx, s, "", "")
	}
	key, hash := keyHash(s.By, s.Key), s.bodyHash()
	release, err := c.wish.hold(ctx, "job "+key)
	if err != nil {
		return Job{}, err
	}
	defer release()
	found, ok, err := c.store.JobByKey(ctx, key)
	switch {
	case err != nil:
		return Job{}, err
	case !ok || found.Created <= c.micros()-micros(KeyFor):
		return c.createJob(ctx, s, key, hash)
	case found.Hash != hash:
		return Job{}, errOtherBody()
	}
	audit.Nothing(ctx) // it was made before
	return c.store.Job(ctx, found.ID)
}

func (c *Commands) createJob(ctx context.Context, s JobSpec, key, hash string) (Job, error) {
	if c.unfinished.Load() >= maxUnfinished {
		return Job{}, muster.Errorf(muster.Busy, "%d jobs have unfinished targets, more are not allowed", maxUnfinished)
	}
	targets, err := c.targets(&s)
	if err != nil {
		return Job{}, err
	}
	id, err := c.store.TakeCommandIDs(ctx, 1)
	if err != nil {
		return Job{}, err
	}
	if err := c.slots.take(id); err != nil {
		return Job{}, err
	}
	shuffle(targets, id)
	total := int64(len(targets))
	j := Job{
		ID: id, Query: s.Query, Kind: s.Kind, Method: s.Method, Params: s.Params, TTL: s.TTL, Patch: s.Patch,
		Ends: ends(s.Waves, total), Rate: s.Rate, MaxInFlight: s.MaxInFlight, Abort: s.Abort, CreatedBy: s.By,
		Created: c.micros(), Total: total, Key: key, Hash: hash, JobState: JobState{ID: id, Phase: Running, Wave: 1},
	}
	ctx = feed.With(ctx)
	feed.Note(ctx, jobEvent(feed.JobStarted, &j, &j.JobState, j.Created))
	if err := c.store.InsertJob(ctx, j, targets); err != nil {
		c.inbox.adopt(id) // it may be there all the same
		return Job{}, err
	}
	audit.Note(ctx, "job.create", jobObject(id), nil, map[string]any{"query": s.Query, "kind": s.Kind, "method": s.Method, "targets": total})
	o := &adoptOp{reply: newReply(), job: j}
	if err := c.do(ctx, o, o.reply); err != nil {
		c.inbox.adopt(id)
		return Job{}, err
	}
	return c.store.Job(ctx, id)
}

func jobObject(id int64) string { return "jobs/" + strconv.FormatInt(id, 10) }

// targets returns every device that matches now, or those that were named, each once.
func (c *Commands) targets(s *JobSpec) ([]muster.DeviceID, error) {
	if len(s.Devices) > 0 {
		ids := slices.Clone(s.Devices)
		slices.Sort(ids)
		return slices.Compact(ids), nil
	}
	e, err := c.Selector.Compile(s.Query)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	ids := c.Selector.MatchAll(e)
	if len(ids) > MaxTargets {
		return nil, muster.Errorf(muster.TooLarge, "%d devices match, a job has at most %d targets", len(ids), MaxTargets)
	}
	return ids, nil
}

func shuffle(ids []muster.DeviceID, seed int64) {
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
}

// Action is what may be done to a job.
type Action string

// The actions on a job.
const (
	Pause    Action = "pause"  // starts no more targets
	Resume   Action = "resume" // goes on
	Stop     Action = "abort"  // for good: its queued commands are cancelled
	NextWave Action = "next"   // opens the next wave though the one before is not finished
)

// ControlJob does a to a job and returns it. NotFound when there is none, Conflict when
// it is not in a phase for that. Doing what is done already is no error.
func (c *Commands) ControlJob(ctx context.Context, id int64, a Action) (Job, error) {
	j, err := c.store.Job(ctx, id)
	if err != nil {
		return Job{}, err
	}
	if _, err := act(&j, a); err != nil {
		return Job{}, err
	}
	o := &jobOp{reply: newReply(), id: id, action: a}
	if err := c.do(ctx, o, o.reply); err != nil {
		return Job{}, err
	}
	audit.Note(ctx, "job."+string(a), jobObject(id), map[string]any{"phase": j.Phase}, nil)
	return c.store.Job(ctx, id)
}

// act changes j's phase or wave and says whether it did.
func act(j *Job, a Action) (changed bool, err error) {
	switch {
	case a == Pause && j.Phase == Running:
		j.Phase = Paused
	case a == Resume && j.Phase == Paused:
		j.Phase = Running
	case a == Stop && (j.Phase == Running || j.Phase == Paused):
		j.Phase = Aborted
	case a == NextWave && j.Phase == Running && j.Wave < len(j.Ends):
		j.Wave++
	case a == NextWave && j.Phase == Running:
		return false, muster.Errorf(muster.Conflict, "the last wave is open already")
	case a == Pause && j.Phase == Paused, a == Resume && j.Phase == Running, a == Stop && j.Phase == Aborted:
		return false, nil
	default:
		return false, muster.Errorf(muster.Conflict, "the job is %s", j.Phase)
	}
	return true, nil
}

// jobOp changes a job's phase.
type jobOp struct {
	reply
	id     int64
	action Action
}

func (o *jobOp) add(c *Commands, b *batch) bool {
	r := c.desk.runs[o.id]
	if r == nil {
		if o.action != Stop { // aborted and settled is aborted still
			o.end(muster.Errorf(muster.Conflict, "the job has ended"))
		}
		o.end(nil)
		return false
	}
	j := r.Job
	j.JobState = *b.state(r)
	changed, err := act(&j, o.action)
	if err != nil {
		o.end(err)
		return false
	}
	if changed {
		d := b.job(r)
		d.JobState = j.JobState
		if j.Phase == Aborted {
			d.end(Aborted, "aborted by hand", b.at)
		}
	}
	return true
}

func (o *jobOp) committed(*Commands, *batch) {}

// adoptOp takes over a job that was stored.
type adoptOp struct {
	reply
	job Job
}

func (o *adoptOp) add(*Commands, *batch) bool { return true }

func (o *adoptOp) committed(c *Commands, b *batch) { c.takeOver(o.job, b.at) }

func (c *Commands) takeOver(j Job, now muster.Micros) {
	if c.desk.runs[j.ID] == nil {
		c.desk.runs[j.ID] = newRun(j, now)
	}
}

// adoptDoubtful takes over jobs of which it was not known whether they are stored.
func (c *Commands) adoptDoubtful(ctx context.Context) bool {
	d := &c.desk
	for len(d.adopt) > 0 {
		id := d.adopt[0]
		j, err := c.store.Job(ctx, id)
		switch {
		case err == nil && !j.Settled:
			c.takeOver(j, c.micros())
		case err != nil && muster.KindOf(err) != muster.NotFound:
			c.failed(ctx, "look for a job", err, nil)
			return false
		case d.runs[id] == nil:
			c.slots.give(id)
		}
		d.adopt = d.adopt[1:]
	}
	return true
}

// Job returns a job; NotFound when there is none.
func (c *Commands) Job(ctx context.Context, id int64) (Job, error) { return c.store.Job(ctx, id) }

// Jobs returns a page of jobs, newest first, and the id to give as before for the next
// one, 0 at the end.
func (c *Commands) Jobs(ctx context.Context, before int64, limit int) ([]Job, int64, error) {
	list, err := c.store.Jobs(ctx, before, limit+1)
	if err != nil || len(list) <= limit {
		return list, 0, err
	}
	return list[:limit], list[limit-1].ID, nil
}

// JobTargets returns a page of a job's targets and the number to go on with, 0 at the
// end. NotFound when there is no such job.
func (c *Commands) JobTargets(ctx context.Context, q TargetQuery) ([]Target, int64, error) {
	if _, err := c.store.Job(ctx, q.Job); err != nil {
		return nil, 0, err
	}
	limit := q.Limit
	q.Limit++
	list, err := c.store.JobTargets(ctx, q)
	if err != nil || len(list) <= limit {
		return list, 0, err
	}
	return list[:limit], list[limit].Number, nil
}
