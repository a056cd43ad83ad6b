package ingest

import "sync"

// Ledger accounts for every message since the process started, in messages: one
// set of values at one time is one message, so an array of ten counts ten.
// Received + Recovered = Stored + Duplicate + Replaced + Rejected + Dropped +
// Queued holds in every Ledger that is handed out.
type Ledger struct {
	Received  uint64 `json:"received"`  // taken from devices: durable in the log, or dropped
	Recovered uint64 `json:"recovered"` // found in the log at start, not yet in the store
	Stored    uint64 `json:"stored"`    // a new row
	Duplicate uint64 `json:"duplicate"` // an equal row was there already
	Replaced  uint64 `json:"replaced"`  // took the place of a row of the same device, time and keys
	Rejected  uint64 `json:"rejected"`  // refused for good and kept with the reason
	Dropped   uint64 `json:"dropped"`   // QoS 0 or level received only: there was no room
	Queued    uint64 `json:"queued"`    // in the log, not yet in the store
}

// Balanced says whether l accounts for every message.
func (l Ledger) Balanced() bool {
	return l.Received+l.Recovered == l.Stored+l.Duplicate+l.Replaced+l.Rejected+l.Dropped+l.Queued
}

func (l *Ledger) receive(n uint64) { l.Received += n; l.Queued += n }
func (l *Ledger) recover(n uint64) { l.Recovered += n; l.Queued += n }
func (l *Ledger) drop(n uint64)    { l.Received += n; l.Dropped += n }
func (l *Ledger) reject(n uint64)  { l.Rejected += n; l.Queued -= n }

func (l *Ledger) settle(o Outcome, n uint64) {
	l.Queued -= n
	switch o {
	case Stored:
		l.Stored += n
	case Duplicate:
		l.Duplicate += n
	case Replaced:
		l.Replaced += n
	}
}

// totals is the Ledger of all devices, changed once per frame or batch.
type totals struct {
	mu sync.Mutex
	l  Ledger
}

func (t *totals) update(fn func(l *Ledger)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.l)
}

func (t *totals) snapshot() Ledger {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.l
}
