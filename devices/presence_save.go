package devices

import (
	"slices"
	"strings"
)

// soil has p's row saved at the next flush.
func (t *tracker) soil(p *track) {
	if !p.soiled && !p.gone {
		p.soiled = true
		t.dirty = append(t.dirty, p)
	}
}

// age has p's history saved when it is its turn.
func (t *tracker) age(p *track) {
	if !p.old && !p.gone {
		p.old = true
		t.aged = append(t.aged, p)
	}
}

// takeDirty returns the devices whose rows need saving, in order of id. What changes
// from here on is for the next flush.
func (t *tracker) takeDirty() []*track {
	t.mu.Lock()
	defer t.mu.Unlock()
	ps := t.dirty
	t.dirty = nil
	for _, p := range ps {
		p.soiled = false
	}
	slices.SortFunc(ps, func(a, b *track) int { return strings.Compare(string(a.id), string(b.id)) })
	return ps
}

// takeAged returns up to n devices whose histories need saving, oldest change first.
func (t *tracker) takeAged(n int) []*track {
	t.mu.Lock()
	defer t.mu.Unlock()
	ps := slices.Clone(t.aged[:min(n, len(t.aged))])
	t.aged = slices.Delete(t.aged, 0, len(ps))
	for _, p := range ps {
		p.old = false
	}
	return ps
}

// again has ps saved once more, by soil or age.
func (t *tracker) again(ps []*track, mark func(*tracker, *track)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range ps {
		mark(t, p)
	}
}

// rowsOf returns the rows of those of ps that still exist.
func (t *tracker) rowsOf(ps []*track) []PresenceRow {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows := make([]PresenceRow, 0, len(ps))
	for _, p := range ps {
		if p.gone {
			continue
		}
		row := PresenceRow{Device: p.id, Presence: p.presence(), Rhythm: p.rhythm.seconds(), Link: linkNames[p.link]}
		p.savedSeen, p.savedRhythm = row.LastSeen, int32(row.Rhythm)
		rows = append(rows, row)
	}
	return rows
}

// historiesOf is rowsOf for histories.
func (t *tracker) historiesOf(ps []*track) []HistoryRow {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows := make([]HistoryRow, 0, len(ps))
	for _, p := range ps {
		if !p.gone && p.history != nil {
			rows = append(rows, HistoryRow{Device: p.id, History: p.history.encode()})
		}
	}
	return rows
}

// sweepOld looks at some devices, all in sweepTurns calls, and has those saved that
// were seen long after their row says, or have another rhythm.
func (t *tracker) sweepOld() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range min(len(t.list), len(t.list)/sweepTurns+1) {
		t.sweep = (t.sweep + 1) % len(t.list)
		p := t.list[t.sweep]
		rhythm := int32(p.rhythm.seconds())
		moved := rhythm - p.savedRhythm
		if max(p.seen, p.heard) > p.savedSeen+oldAfter || max(moved, -moved) > p.savedRhythm/10 {
			t.soil(p)
		}
	}
}
