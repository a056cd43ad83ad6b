package notify

import (
	"slices"
	"time"

	"muster"
	"muster/notify/outbox"
)

// Queues of the outbox: one for all mail, one for all devices.
const (
	queueEmail = "email"
	queueMQTT  = "mqtt"
)

// plan is who gets a notification, and how.
type plan struct {
	n        *Notification
	at       muster.Micros
	rise     bool     // only channels where nothing is queued, and that ask for more than above; and those that waiting holds back
	above    Severity // what the notification was before
	receipts []Receipt
	out      []outbox.Delivery

	subscribed bool                          // who is told is so by his subscription, and as it says
	waiting    map[[2]string]outbox.Delivery // of a rise: what is queued of what was told before, by channel and target
	superseded []string                      // of these, the ids of those that out has something sooner for
}

// tell adds a recipient by his subscription.
func (p *plan) tell(s *Subscription) {
	p.receipts = append(p.receipts, Receipt{Notification: p.n.ID, Subject: s.Subject, Step: p.n.Step})
	if p.at < s.Muted {
		return
	}
	for i := range s.Channels {
		v := &s.Channels[i]
		if p.n.Severity < v.Severity {
			continue
		}
		d := p.delivery(s.Subject, v.Channel)
		if v.Digest > 0 {
			d.Fold = v.Channel + " " + string(s.Subject)
		}
		v.hold(&d, p.n.Severity)
		if p.rise && !p.rises(v, &d) {
			continue
		}
		p.out = append(p.out, d)
	}
}

// rises says whether d is told of a rise. When something is queued in its place, which says by then what d would, only when it is due
// before that, which it supersedes: however severe the subscription wishes it by now.
func (p *plan) rises(v *Via, d *outbox.Delivery) bool {
	old, ok := p.waiting[[2]string{d.Channel, d.Target}]
	switch {
	case !ok:
		return v.Severity > p.above
	case retried(&old) || d.Due >= old.Due:
		return false
	}
	p.superseded = append(p.superseded, old.ID)
	return true
}

// hold has a delivery wait for the end of a digest's period, and of quiet hours.
func (v *Via) hold(d *outbox.Delivery, severity Severity) {
	was := d.Due
	if v.Digest > 0 {
		d.Due = nextDigest(d.Due, v.Digest)
	}
	if v.Quiet != nil && severity < v.Quiet.Except {
		d.Due = muster.MicrosOf(v.Quiet.after(d.Due.Time()))
	}
	d.Held = d.Due > was
}

// nextDigest is the end of the period of length every that at lies in: periods lie on the
// clock, so that whoever asks, when ever, comes to the same.
func nextDigest(at muster.Micros, every time.Duration) muster.Micros {
	n := muster.Micros(every.Microseconds())
	return at - at%n + n
}

// call adds a recipient over the channels of an escalation's step.
func (p *plan) call(s Subject, channels []string) {
	p.receipts = append(p.receipts, Receipt{Notification: p.n.ID, Subject: s, Step: p.n.Step})
	_, device := s.Device()
	if device {
		p.out = append(p.out, p.delivery(s, ChannelMQTT))
		return
	}
	for _, c := range channels {
		if c != ChannelMQTT {
			p.out = append(p.out, p.delivery(s, c))
		}
	}
}

func (p *plan) delivery(s Subject, channel string) outbox.Delivery {
	queue, target := queueEmail, string(s)
	if id, ok := s.Device(); ok {
		queue, target = queueMQTT, string(id)
	}
	return outbox.Delivery{
		ID: outbox.NewID(outbox.IDPrefix, p.at), Channel: channel, Queue: queue, Target: target, Notification: p.n.ID, Topic: p.n.Topic, Severity: int(p.n.Severity), Content: p.content(),
		Lane: outbox.Lane(p.n.Lane), State: outbox.StateQueued, Due: p.at, Created: p.at, Expires: p.n.Expires,
	}
}

// subjectOf returns whom a delivery goes to.
func subjectOf(d *outbox.Delivery) Subject {
	if d.Channel == ChannelMQTT {
		return DeviceSubject(muster.DeviceID(d.Target))
	}
	return Subject(d.Target)
}

// content is the id of what goes out: each version of a notification says something else.
func (p *plan) content() string { return contentID(p.n) }

// batch returns what is to be written. Without deliveries there is no content.
func (p *plan) batch() outbox.Batch {
	if len(p.out) == 0 {
		return outbox.Batch{}
	}
	return outbox.Batch{Contents: []outbox.Content{{ID: p.content(), Body: encodeLetter(p.n, p.subscribed)}}, Deliveries: p.out}
}

// after returns when something that is due at t may go out: t, or the end of the quiet
// hours that t lies in, of those too that begin where others end. Hours that never end are
// refused when they are set.
func (q *Quiet) after(t time.Time) time.Time {
	for range mostQuietDays {
		end := q.endOf(t)
		if end.Equal(t) {
			break
		}
		t = end
	}
	return t
}

// mostQuietDays is how many quiet hours can follow each other: a week's.
const mostQuietDays = 8

// endOf returns the end of the quiet hours that t lies in, or t.
func (q *Quiet) endOf(t time.Time) time.Time {
	zone, err := time.LoadLocation(q.Zone)
	if err != nil { // it was checked; a machine that lost its zones is not quiet
		return t
	}
	local := t.In(zone)
	for back := range 2 { // quiet hours of today, and those that began yesterday
		day := local.AddDate(0, 0, -back)
		if !q.on(day.Weekday()) {
			continue
		}
		from := atMinute(day, q.From)
		to := atMinute(day, q.To)
		if q.To <= q.From {
			to = atMinute(day.AddDate(0, 0, 1), q.To)
		}
		if !local.Before(from) && local.Before(to) {
			return to.UTC()
		}
	}
	return t
}

func (q *Quiet) on(d time.Weekday) bool {
	return len(q.Days) == 0 || slices.Contains(q.Days, int(d))
}

func atMinute(day time.Time, minute int) time.Time {
	return time.Date(day.Year(), day.Month(), day.Day(), minute/60, minute%60, 0, 0, day.Location())
}
