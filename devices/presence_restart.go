package devices

import (
	"context"
	"fmt"
	"unique"

	"muster"
)

const (
	// backWithin is how long a device that was online before a restart may take to
	// come back before it counts as offline.
	backWithin = 30 // seconds
	// backAtLast is how long it may take while others keep coming.
	backAtLast = 5 * 60
	// Others keep coming while in the last returnWindow seconds one in returnShare of
	// the connections that are missing came back.
	returnWindow = 10
	returnShare  = 100
)

// loadPresence takes over what was kept. What was connected, in whatever state, is
// unknown from when the server was last known to run: Run declares it offline when it
// is not back in time.
func (r *Registry) loadPresence(ctx context.Context) error {
	alive, err := r.store.LoadAlive(ctx)
	if err != nil {
		return fmt.Errorf("load when the server last ran: %w", err)
	}
	t, lost := &r.presence, 0
	err = r.store.LoadHistory(ctx, func(row HistoryRow) error {
		if !t.loadHistory(row) {
			lost++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load presence histories: %w", err)
	}
	if lost > 0 {
		r.log.Warn("presence histories are not readable and begin anew", "devices", lost)
	}
	now := muster.MicrosOf(r.now())
	if alive == 0 || alive > now {
		alive = now
	}
	err = r.store.LoadPresence(ctx, func(row PresenceRow) error {
		t.load(row, alive, now)
		return nil
	})
	if err != nil {
		return fmt.Errorf("load presence: %w", err)
	}
	t.restarted(now)
	return nil
}

// loadHistory says whether the history can be read.
func (t *tracker) loadHistory(row HistoryRow) bool {
	h, err := decodeHistory(row.History)
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.rows[row.Device]; ok {
		p.history = h
	}
	return err == nil
}

// load takes a kept row over. The time that the server was down is unknown.
func (t *tracker) load(row PresenceRow, alive, now muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.rows[row.Device]
	if !ok {
		return
	}
	p.seen, p.savedSeen = row.LastSeen, row.LastSeen
	p.rhythm.restore(row.Rhythm)
	p.savedRhythm = int32(p.rhythm.seconds())
	p.link = linkOf(row.Link)
	kept := stateOf(row.State)
	p.spoken = kept
	if kept == never {
		return
	}
	p.note(kept, row.Since) // the history may be older than the row
	p.note(unknown, alive)
	t.count(p, -1)
	if kept == offline {
		p.note(offline, now)
		p.state, p.since, p.reason = offline, row.Since, unique.Make(row.Reason).Value()
	} else {
		p.state, p.since, p.reason = unknown, max(alive, row.Since), reasonRestarted
		switch p.link {
		case relayed:
			t.attach(p)
		case direct, unlinked:
			p.await = true
			t.awaited++
		case byData:
		}
		t.soil(p)
	}
	t.count(p, 1)
	t.moves++
	t.age(p)
}

func (t *tracker) restarted(at muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.boot, t.waiting = at, true
	for _, p := range t.list {
		if p.state == unknown {
			t.arm(p)
		}
	}
}

// begin has the wait for devices begin now, when listeners are about to open: reading
// the log may have taken long.
func (t *tracker) begin(now muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun {
		t.boot, t.begun = now, true
	}
}

// missing returns the devices that the restart has cost their connection, once the
// wait for them is over: 30 s after the start, or later while a storm of returning
// devices lasts, at most 5 min. It is asked every second.
func (t *tracker) missing(now muster.Micros) []*track {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.waiting {
		return nil
	}
	waited := int((now - t.boot) / second)
	returns := 0
	for _, n := range t.back {
		returns += n
	}
	for t.second < waited { // the next second's place is made free
		t.second++
		t.back[t.second%returnWindow] = 0
	}
	storm := returns > 0 && returns >= t.awaited/returnShare
	if waited < backWithin || storm && waited < backAtLast {
		return nil
	}
	t.waiting = false
	var out []*track
	for _, p := range t.list {
		hangs := p.slot >= 0 && p.parent.state == unknown // its gateway takes it along
		if p.state == unknown && !hangs && p.deadline(t.grace, t.boot) == 0 {
			out = append(out, p)
		}
	}
	return out
}

// awaitNot ends the wait for a device, and says whether there was one.
func (t *tracker) awaitNot(p *track) bool {
	if !p.await {
		return false
	}
	p.await = false
	t.awaited--
	return true
}

// giveUp makes those of ps offline that are still unknown.
func (t *tracker) giveUp(ps []*track, now muster.Micros) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range ps {
		if !p.gone && p.state == unknown && p.deadline(t.grace, t.boot) == 0 {
			t.down(p, now, reasonNotBack)
		}
	}
}
