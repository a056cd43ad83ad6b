package devices

import (
	"muster"
	"muster/devices/query"
)

const (
	// historic is how far behind its arrival a message's own time may lie before it
	// is history, and no sign of life of a device without a connection.
	historic = 24 * hour
	// strayGap is how far apart two messages are that say that a device which lost its
	// connection is there without one. A single one may be its last will.
	strayGap = second
)

func (t *tracker) observe(rs []muster.Reading) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var p *track
	for i := range rs {
		r := &rs[i]
		if p == nil || p.id != r.Device {
			if p = t.rows[r.Device]; p == nil {
				continue
			}
		} else if p.state == online && r.Arrival-p.heard < strayGap { // the rest of a batch
			p.heard = max(p.heard, r.Arrival)
			continue
		}
		t.heard(p, r.Arrival, r.Time)
	}
}

// heard takes a message, and for a device that hangs on its gateway's connection it
// is one of the gateway too.
func (t *tracker) heard(p *track, at, stamp muster.Micros) {
	p.rhythm.hear(at, stamp)
	p.heard = max(p.heard, at)
	switch {
	case p.state != online || p.pending():
		t.revive(p, at, stamp)
	case p.timer < 0 && p.allowance() > 0:
		t.arm(p) // its rhythm is known from now on
	}
	if p.link == relayed && p.parent.isUp() {
		t.heard(p.parent, at, at)
	}
}

// revive decides what a message says of a device that is not plainly online.
func (t *tracker) revive(p *track, at, stamp muster.Micros) {
	lost := p.lostAt(t.boot)
	switch {
	case p.state == quiet && !p.pending():
		t.set(p, online, at, "")
		t.arm(p)
	case at <= lost || at-stamp > historic:
	case p.doubtful() && (p.stray <= lost || at < p.stray+strayGap):
		if p.stray <= lost {
			p.stray = at
		}
	case p.parent.isUp():
		t.attach(p)
		t.up(p, at, relayed)
	default:
		t.up(p, at, byData)
	}
}

// lostAt is until when messages may have been on their way when the device was lost.
func (p *track) lostAt(boot muster.Micros) muster.Micros {
	switch {
	case p.pending():
		return p.ties.ended
	case p.state == offline:
		return p.since
	case p.state == unknown:
		return boot
	}
	return 0
}

// doubtful says whether one message alone may be a last will: after the end of the
// connection the device hung on.
func (p *track) doubtful() bool {
	return p.link == direct || p.link == relayed && !p.parent.isUp()
}

// checkIn is how many seconds apart messages are expected.
func (p *track) checkIn() int64 {
	if p.check > 0 {
		return int64(p.check)
	}
	if p.rhythm.known() {
		return p.rhythm.seconds()
	}
	return query.DefaultCheckIn
}

// allowance is how long a device may be silent: until a second message is missing. It
// is 0, for ever, while nothing is known of its rhythm.
func (p *track) allowance() muster.Micros {
	switch {
	case p.check > 0:
		return 2 * second * muster.Micros(p.check)
	case p.rhythm.known():
		return muster.Micros(2 * float64(p.rhythm.every) * float64(second))
	}
	return 0
}

// patience is the allowance of a device that only its messages can bring back or keep.
func (p *track) patience() muster.Micros {
	if a := p.allowance(); a > 0 {
		return a
	}
	return 2 * query.DefaultCheckIn * second
}
