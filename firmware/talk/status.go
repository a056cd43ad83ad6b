package talk

import (
	"context"
	"sync"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// Said is a report of a device, or its answer to an offer that was taken back.
type Said struct {
	Device  muster.DeviceID
	Ack     bool // at firmware/cancel/ack, else at firmware/status
	Payload []byte
}

// Take keeps what devices said, and returns an error for each: nil when it is committed.
// What one device says is taken in its order; of reports of progress that follow each other
// the last is kept, and stands for those before. OverRate tells of an error whether the device
// says too much. Of the others Invalid and TooLarge break the form, NotFound is about what the device has not been offered, Stale
// about an action or attempt that is over, Conflict about what cannot happen now; all else
// may be given again.
func (t *Talk) Take(ctx context.Context, list []Said) []error {
	errs := make([]error, len(list))
	chains := map[muster.DeviceID][]*step{}
	for i := range list {
		s, err := t.step(&list[i])
		if err != nil {
			errs[i] = err
			continue
		}
		s.at = append(s.at, i)
		id := list[i].Device
		if n := len(chains[id]); n > 0 && chains[id][n-1].yields(s) {
			s.at = append(s.at, chains[id][n-1].at...)
			chains[id][n-1] = s
			continue
		}
		if !t.rates.take(id, t.cfg.Now()) {
			errs[i] = errOverRate()
			continue
		}
		chains[id] = append(chains[id], s)
	}
	var all sync.WaitGroup
	for id, chain := range chains { // of one batch: at most so many as it has messages
		all.Go(func() {
			for _, s := range chain {
				err := t.do(ctx, id, s)
				for _, i := range s.at {
					errs[i] = err
				}
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		t.metrics.reports.WithLabelValues(resultOf(err)).Inc()
	}
	return errs
}

func resultOf(err error) string {
	if err == nil {
		return "kept"
	}
	return muster.KindOf(err).String()
}

// step is one thing that a device said, and the messages it stands for.
type step struct {
	at     []int // of the messages
	status Status
	ack    *CancelAck // instead
}

// yields says whether next, which follows s, says all that s does.
func (s *step) yields(next *step) bool {
	return s.ack == nil && next.ack == nil && s.status.State == StateDownloading && next.status.State == StateDownloading &&
		s.status.Action == next.status.Action && s.status.Attempt == next.status.Attempt && (s.status.Seq == 0) == (next.status.Seq == 0) &&
		s.status.Seq <= next.status.Seq
}

func (t *Talk) step(m *Said) (*step, error) {
	if m.Ack {
		a, err := ParseCancelAck(m.Payload)
		return &step{ack: &a}, err
	}
	s, err := ParseStatus(m.Payload)
	return &step{status: s}, err
}

func (t *Talk) do(ctx context.Context, id muster.DeviceID, s *step) error {
	if s.ack != nil {
		return t.answer(ctx, id, s.ack)
	}
	err := t.cfg.Desk.Report(ctx, s.status.report(id))
	kind := muster.KindOf(err)
	if err == nil || kind != muster.Conflict && (kind != muster.Stale || s.status.Seq == 0) {
		return err //nolint:wrapcheck // likewise
	}
	o, look := t.cfg.Desk.Offer(ctx, id)
	current := look == nil && o.Action == s.status.Action && (s.status.Attempt == 0 || o.Attempt == s.status.Attempt)
	// The same report again, whose acknowledgement was lost, is no mistake, and neither is what a device says
	// before it hears that the offer was taken back.
	if current && (kind == muster.Stale || o.Stop) {
		return nil
	}
	return err //nolint:wrapcheck // likewise
}

// answer takes a device's answer to an offer that was taken back. One that goes on regardless is followed.
func (t *Talk) answer(ctx context.Context, id muster.DeviceID, a *CancelAck) error {
	if err := t.cfg.Desk.Stopped(ctx, id, a.Action); err != nil || a.Stopped {
		return err //nolint:wrapcheck // it says what it was doing
	}
	err := t.cfg.Desk.Report(ctx, director.Report{Device: id, Fact: rollout.Fact{Event: rollout.SaysInstalling, Action: a.Action}})
	if kind := muster.KindOf(err); kind == muster.NotFound || kind == muster.Stale || kind == muster.Conflict {
		return nil // it is about nothing that is followed
	}
	return err //nolint:wrapcheck // likewise
}

// report is what a device said, for the desk. Whether the version that it runs is the one it
// was offered is decided where the release is known.
func (s *Status) report(id muster.DeviceID) director.Report {
	r := director.Report{Device: id, Fact: rollout.Fact{Action: s.Action, Attempt: s.Attempt, Seq: s.Seq, Progress: s.Progress, Detail: s.Error}}
	if e, ok := s.State.event(); ok {
		r.Fact.Event = e
	} else {
		r.Version = s.Version
	}
	return r
}
