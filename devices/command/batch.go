package command

import (
	"muster"
)

// maxBatch is how many events, and besides how many callers, one transaction has.
const maxBatch = 500

// batch is one transaction being put together. It works on drafts: the desk changes
// when the batch is committed.
type batch struct {
	Batch
	at         muster.Micros
	happenings []happening // for another batch when this one fails
	settled    []settled   // likewise
	ops        []op
	drafts     map[int64]*draft
	order      []*draft
	jobs       map[int64]*jobDraft
	jobOrder   []*jobDraft
	added      map[muster.DeviceID]int // commands to insert
	ended      map[int64]Ended         // of commands that are reported on and not open
	desires    []wanted
	events     []Event
}

// draft is a command as it will be.
type draft struct {
	it *item
	Change
	changed bool
}

// jobDraft is a job as it will be.
type jobDraft struct {
	run *run
	JobState
	started int64   // targets that start with this batch
	final   []int64 // numbers of targets without a command that end with it
}

// wanted is a target for the Desirer.
type wanted struct {
	run    *run
	number int64
	device muster.DeviceID
}

func newBatch(at muster.Micros) *batch {
	return &batch{
		at: at, drafts: map[int64]*draft{}, jobs: map[int64]*jobDraft{}, added: map[muster.DeviceID]int{},
	}
}

func (b *batch) draft(it *item) *draft {
	d := b.drafts[it.ID]
	if d == nil {
		d = &draft{it: it, Change: Change{ID: it.ID, State: it.State, Attempts: it.Attempts, Progress: it.Progress}}
		b.drafts[it.ID] = d
		b.order = append(b.order, d)
	}
	return d
}

func (b *batch) job(r *run) *jobDraft {
	d := b.jobs[r.ID]
	if d == nil {
		d = &jobDraft{run: r, JobState: r.JobState}
		b.jobs[r.ID] = d
		b.jobOrder = append(b.jobOrder, d)
	}
	return d
}

// happen lets ev happen to a command. Whatever comes after its time finds it expired.
// It returns why the table refuses it, empty when it does not.
func (c *Commands) happen(b *batch, it *item, ev event, at muster.Micros, r *report) (refused string) {
	d := b.draft(it)
	if at >= it.Expires && ev != evExpire && !d.State.Final() {
		c.happen(b, it, evExpire, it.Expires, nil)
	}
	v := next(d.State, ev)
	if v.refused != "" {
		return v.refused
	}
	if v.to == d.State && ev != evProgress {
		return ""
	}
	if v.to.Final() && d.State.Final() {
		return ""
	}
	d.move(v.to, ev, at, r)
	b.events = append(b.events, Event{
		ID: it.ID, Device: it.Device, Method: it.Method, State: d.State, Progress: d.Progress, Job: it.Job, At: at,
	})
	if d.State.Final() {
		c.targetEnded(b, it, d.State)
	}
	return ""
}

func (d *draft) move(s State, ev event, at muster.Micros, r *report) {
	d.changed, d.State = true, s
	switch ev { //nolint:exhaustive // the others change no more than the state
	case evSend:
		d.Attempts++
		d.Sent = at
	case evAck:
		d.Delivered = at
	case evAccept:
		d.Accepted = at
	case evProgress:
		d.Reported = at
	case evOK:
		d.Progress = 100
	}
	if s.Final() {
		d.Finished = at
	}
	if r == nil {
		return
	}
	if r.progress >= 0 && ev != evOK {
		d.Progress = r.progress
	}
	if len(r.result) > 0 {
		d.Result = r.result
	}
	if len(r.err) > 0 {
		d.Error = r.err
	}
}

// fill adds the event h when it is about what is true still.
func (c *Commands) fill(b *batch, h happening) {
	it := c.desk.items[h.id]
	if it == nil {
		return
	}
	switch h.ev { //nolint:exhaustive // the others are about no delivery
	case evSend, evAck, evLost:
		if it.tries != h.attempt {
			return
		}
	}
	c.happen(b, it, h.ev, h.at, nil)
}

// seal makes of the drafts what the store writes.
func (c *Commands) seal(b *batch) {
	for _, d := range b.order {
		if d.changed {
			b.Changes = append(b.Changes, d.Change)
		}
	}
	for _, j := range b.jobOrder {
		b.Jobs = append(b.Jobs, j.JobState)
	}
	c.desk.token.n++
	b.Token = c.desk.token.run + FormatID(int64(c.desk.token.n))
}

func (b *batch) empty() bool {
	return len(b.Insert)+len(b.Changes)+len(b.Late)+len(b.Targets)+len(b.Jobs) == 0
}

// apply makes the desk what the store is now, and tells everybody.
func (c *Commands) apply(b *batch, missing []int64) {
	gone := make(map[int64]bool, len(missing))
	for _, id := range missing {
		gone[id] = true
	}
	for _, d := range b.order {
		if d.changed {
			c.applyDraft(d)
		}
	}
	for i := range b.Insert {
		c.applyInsert(b, &b.Insert[i], gone[b.Insert[i].ID])
	}
	for _, j := range b.jobOrder {
		c.applyJob(b, j)
	}
	c.wantDesired(b)
	for _, o := range b.ops {
		if s, ok := o.(*sendOp); ok && gone[s.id] {
			c.drop(o, muster.Errorf(muster.NotFound, "there is no such device"))
			continue
		}
		o.committed(c, b)
		o.end(nil)
	}
	c.tell(b)
}

func (c *Commands) applyDraft(d *draft) {
	it := d.it
	it.Attempts, it.Progress = d.Attempts, d.Progress
	c.desk.moved(it, d.State)
	if d.State == Queued { // only a loss leads back there
		c.landed(it)
	}
	if d.State.Final() {
		c.prune.touch(it.Device)
	}
}

// landed has a command that was lost wait again: for Ready, unless somebody came
// meanwhile; or no more, when its job was aborted.
func (c *Commands) landed(it *item) {
	l := it.line
	if l.flying == it {
		l.flying = nil
	}
	if c.calledOff(it) {
		c.desk.later(happening{id: it.ID, ev: evCancel, at: c.micros()}, 1)
		return
	}
	if l.heard {
		c.desk.soil(l)
	}
}

func (c *Commands) applyInsert(b *batch, n *Insert, missing bool) {
	if missing {
		if n.Job != 0 {
			c.desk.loose = append(c.desk.loose, settled{job: n.Job, number: n.Target, device: n.Device, err: errDeleted})
		}
		return
	}
	it := c.desk.add(Open{ID: n.ID, Device: n.Device, Method: n.Method, Expires: n.Expires, Job: n.Job, Target: n.Target}, n.Params)
	c.desk.soil(it.line)
	b.events = append(b.events, Event{ID: n.ID, Device: n.Device, Method: n.Method, State: Queued, Job: n.Job, At: n.Created})
}

const errDeleted = "there is no such device any more"

// tell is the last: nobody hears of what is not committed.
func (c *Commands) tell(b *batch) {
	for i := range b.events {
		if b.events[i].State.Final() {
			c.waits.finished(b.events[i].ID)
		}
	}
	if len(b.events) > 0 {
		c.OnChange(b.events)
	}
	for _, j := range b.jobOrder {
		c.OnJob(j.run.Job)
	}
	c.open.Store(int64(len(c.desk.items)))
	c.unfinished.Store(int64(len(c.desk.runs)))
}
