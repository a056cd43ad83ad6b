package notify

import (
	"context"
	"time"

	"muster"
)

const (
	escalateAtOnce = 100
	escalateIdle   = 30 * time.Second // between two looks at the store when nothing is said
)

// escalates has RunEscalation look when at comes; 0 is never.
func (n *Notify) escalates(at muster.Micros) {
	if at == 0 {
		return
	}
	select {
	case n.wake <- struct{}{}:
	default: // a signal waits already
	}
}

// RunEscalation tells the next people of what nobody acked, and closes what nobody is left to ack, until ctx ends. Several may
// run on one store: each step is done by one.
func (n *Notify) RunEscalation(ctx context.Context) error {
	for ctx.Err() == nil {
		wait, err := n.escalateDue(ctx)
		if err != nil && ctx.Err() == nil {
			n.options.Logger.Warn("escalations wait for the store", "err", err)
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-n.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// escalateDue does what is due, and returns how long nothing is.
func (n *Notify) escalateDue(ctx context.Context) (time.Duration, error) {
	c, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := n.closeLeft(c); err != nil {
		return 0, err
	}
	for {
		due, err := n.store.DueEscalations(c, n.now(), escalateAtOnce)
		if err != nil {
			return 0, err //nolint:wrapcheck // the store says what it was doing
		}
		for i := range due {
			err := n.escalate(c, due[i])
			if err != nil && muster.KindOf(err) != muster.Conflict { // then somebody acked, or did it
				return 0, err
			}
		}
		if len(due) < escalateAtOnce {
			break
		}
	}
	next, err := n.store.NextEscalation(c)
	if err != nil {
		return 0, err //nolint:wrapcheck // likewise
	}
	if next == 0 {
		return escalateIdle, nil
	}
	return min(max(time.Duration(next-n.now())*time.Microsecond, time.Millisecond), escalateIdle), nil
}

// escalate does the next step of old. Steps of a topic that has fewer by now, or that is
// gone or inactive, or of what has expired, end the escalation.
func (n *Notify) escalate(ctx context.Context, old Notification) error {
	now := n.now()
	note := old
	note.Version, note.EscalateAt = old.Version+1, 0
	t, ok := n.topic(old.Topic)
	steps := t.Escalation.Steps
	if !ok || t.Status != Active || len(steps) == 0 || !old.Live(now) || old.Step >= len(steps)+t.Escalation.Repeat {
		_, err := n.store.Write(ctx, Write{Updates: []Update{{note, old.Version}}, Touch: []string{note.ID}})
		return err //nolint:wrapcheck // the store says what it was doing
	}
	step := steps[min(old.Step, len(steps)-1)]
	note.Step = old.Step + 1
	if note.Step < len(steps)+t.Escalation.Repeat {
		next := steps[min(note.Step, len(steps)-1)]
		note.EscalateAt = now + muster.Micros(next.After.Microseconds())
	}
	p := plan{n: &note, at: now}
	called := map[Subject]bool{}
	for _, to := range step.To {
		s := Subject(to)
		if called[s] || !n.present(s) || !n.entitled(&t, s) || n.younger(s, &note, t.Escalation.Named) {
			continue
		}
		called[s] = true
		r, err := n.store.Receipt(ctx, note.ID, s)
		switch {
		case muster.KindOf(err) == muster.NotFound:
			note.Recipients++
		case err != nil:
			return err //nolint:wrapcheck // likewise
		case r.Acked != 0:
			continue // who acked is not called, where all must
		}
		p.call(s, step.Channels)
	}
	_, err := n.store.Write(ctx, Write{Updates: []Update{{note, old.Version}}, Receipts: p.receipts, Touch: []string{note.ID}, Out: p.batch()})
	return err //nolint:wrapcheck // likewise
}

// younger says whether s is a device that was made after a notification, and after the steps were changed, at named: whoever named
// it then meant the one before it that had its id. A new device that is put into the steps is called as a new user is.
func (n *Notify) younger(s Subject, note *Notification, named muster.Micros) bool {
	id, device := s.Device()
	if !device {
		return false
	}
	at, _ := n.options.Devices.Made(id)
	return at > note.Created && at > named
}
