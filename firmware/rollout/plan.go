package rollout

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"muster"
	"muster/firmware/regression"
)

// Plan says how a rollout goes on. It does not change once the rollout runs, but for
// Concurrent, PerMinute and Windows.
type Plan struct {
	Phases     []Phase       `json:"phases"`     // at least one; the last has all that are in none before
	Concurrent int           `json:"concurrent"` // devices in flight at a time, at most
	PerMinute  int           `json:"per_minute"` // offers in a minute, at most; 0 for no such limit
	Windows    []Window      `json:"windows,omitempty"`
	Zone       string        `json:"zone,omitempty"` // IANA zone of devices that have none; UTC when empty
	Deadlines  Deadlines     `json:"deadlines"`
	Attempts   int           `json:"attempts"`   // of each device
	RetryAfter time.Duration `json:"retry"`      // before the second attempt; twice that before the third, and so on
	Soak       time.Duration `json:"soak"`       // for which a device has the version before it counts as confirmed
	OnFailure  Outcome       `json:"on_failure"` // what a failure threshold does
}

// Outcome is what a crossed threshold does to a rollout.
type Outcome string

// The outcomes.
const (
	Pauses Outcome = "pause"
	Aborts Outcome = "abort"
)

// Deadlines are how long a device may be silent in a state, after which it has TimedOut.
// Downloading begins anew with each progress, and a device that reports no percent has it for the whole image;
// nothing else begins anew by what a device repeats.
type Deadlines struct {
	Offered     time.Duration `json:"offered"`
	Downloading time.Duration `json:"downloading"`
	Installing  time.Duration `json:"installing"`
	Rebooting   time.Duration `json:"rebooting"`
}

// Of returns how long a device may be silent in s; 0 for ever.
func (d Deadlines) Of(s State) time.Duration {
	switch s {
	case Offered:
		return d.Offered
	case Downloading:
		return d.Downloading
	case Downloaded, Installing:
		return d.Installing
	case Rebooting:
		return d.Rebooting
	default:
		return 0
	}
}

// Phase is a part of the devices, and what must be true of it before the next begins.
// One of Percent, Count and Query says who is in it.
type Phase struct {
	Name    string  `json:"name"`
	Percent float64 `json:"percent,omitempty"` // of all devices, with those of the phases before
	Count   int     `json:"count,omitempty"`   // devices in it
	Query   string  `json:"query,omitempty"`   // devices that it matches: canaries

	Success float64       `json:"success"` // percent of the devices that were to get the release that must be confirmed: see Counts.Asked
	Failure Threshold     `json:"failure"`
	Soak    time.Duration `json:"soak"` // from when Success is reached
	Gate    Gate          `json:"gate"`

	Regression regression.Gate `json:"regression,omitzero"` // what its telemetry is asked
}

// Gate says who lets the next phase begin.
type Gate string

// The gates.
const (
	Auto   Gate = "auto"
	Manual Gate = "manual" // a person, after Success and Soak
)

// Threshold stops a rollout. A device counts from its first failure until it is confirmed
// after all, retried or not. The zero Threshold never does. Of devices that begin together
// those that fail are known before those that do well: a MinSample far below
// Plan.Concurrent stops rollouts that are good.
type Threshold struct {
	Absolute  int     `json:"absolute,omitempty"` // so many devices; 0 for none
	Percent   float64 `json:"percent,omitempty"`  // of those that were confirmed or failed; 0 for none
	MinSample int     `json:"min_sample,omitempty"`
}

// Crossed says whether so many failures of so many results are too many.
func (t Threshold) Crossed(failures, results int) bool {
	if failures == 0 {
		return false
	}
	return t.Absolute > 0 && failures >= t.Absolute ||
		t.Percent > 0 && results >= t.MinSample && float64(failures)*100 >= t.Percent*float64(results)
}

// DefaultPlan is ten canaries, then a tenth, then all; with Muster's own limits, in which a
// rollout stops itself when two canaries fail, or later one device in ten.
func DefaultPlan() Plan {
	stop := Threshold{Percent: 10, MinSample: 100}
	return Plan{
		Phases: []Phase{
			{Name: "canary", Count: 10, Success: 90, Failure: Threshold{Absolute: 2}, Soak: 10 * time.Minute, Gate: Auto},
			{Name: "tenth", Percent: 10, Success: 90, Failure: stop, Soak: time.Hour, Gate: Auto},
			{Name: "all", Percent: 100, Success: 90, Failure: stop, Gate: Auto},
		},
		Concurrent: 100,
		Deadlines:  Deadlines{Offered: 24 * time.Hour, Downloading: 2 * time.Hour, Installing: 30 * time.Minute, Rebooting: 15 * time.Minute},
		Attempts:   3, RetryAfter: 5 * time.Minute, Soak: time.Minute, OnFailure: Pauses,
	}
}

// Rank is the place of a device in the order of a rollout: the first 64 bits of the SHA-256
// of the seed and the device's id, so that it is the same on every node, and no list of the
// order is needed.
func Rank(seed string, device muster.DeviceID) uint64 {
	sum := sha256.Sum256([]byte(seed + "\x00" + string(device)))
	return binary.BigEndian.Uint64(sum[:8])
}

// below says whether a rank is among the first percent of all ranks.
func below(rank uint64, percent float64) bool {
	if percent >= 100 {
		return true
	}
	const parts = 1_000_000 // of a hundred percent: 0.0001 % is the finest
	hi, _ := bits.Mul64(rank, parts)
	return float64(hi) < percent*parts/100
}

// Member is a device as Place sees it.
type Member struct {
	Rank    uint64
	Matches func(query string) bool // of a phase
}

// Place returns the phase that a device belongs to. upto holds, for each phase with a Count, the rank of the
// first device that is not in it, as Cuts returns them; of a phase with a Percent that few devices would leave
// empty it is the one behind its only device's. 0 for all others.
func (p *Plan) Place(m Member, upto []uint64) int {
	last := len(p.Phases) - 1
	for i := range p.Phases[:last] {
		switch ph := &p.Phases[i]; {
		case ph.Query != "":
			if m.Matches != nil && m.Matches(ph.Query) {
				return i
			}
		case ph.Count > 0:
			if i < len(upto) && m.Rank < upto[i] {
				return i
			}
		case p.percents(i, m.Rank, upto):
			return i
		}
	}
	return last
}

// percents says whether a rank is among those of phase i, which has a Percent.
func (p *Plan) percents(i int, rank uint64, upto []uint64) bool {
	return below(rank, p.Phases[i].Percent) || i < len(upto) && rank < upto[i]
}

// Seat returns the phase of a device that joins a rollout which is on its way: the one that Place
// found for it, unless that is over or has as many devices as its Count; then the next one that the
// device belongs to or that has room. total says how many devices a phase has.
func (r *Rollout) Seat(d *Device, total func(phase int) int) int {
	last := len(r.Plan.Phases) - 1
	for i := max(d.Phase, r.Phase); i < last; i++ {
		switch ph := &r.Plan.Phases[i]; {
		case ph.Query != "":
			if i == d.Phase {
				return i
			}
		case ph.Count > 0:
			if total(i) < ph.Count {
				return i
			}
		case r.Plan.percents(i, d.Rank, r.Upto):
			return i
		}
	}
	return last
}

// Cuts returns what Place needs of all devices, in the ascending order of their ranks. Of a Snapshot a phase with
// a Percent has one device at least while any are left for it, that of the lowest rank: a canary that is empty
// shows nothing.
func (p *Plan) Cuts(left []Member, of Membership) []uint64 {
	out, last := make([]uint64, len(p.Phases)), len(p.Phases)-1
	for i := range p.Phases[:last] {
		ph := &p.Phases[i]
		if ph.Count > 0 {
			out[i] = ^uint64(0)
			if ph.Count < len(left) {
				out[i] = left[ph.Count].Rank
			}
			left = left[min(ph.Count, len(left)):]
			continue
		}
		is := func(m Member) bool { return below(m.Rank, ph.Percent) }
		if ph.Query != "" {
			is = func(m Member) bool { return m.Matches != nil && m.Matches(ph.Query) }
		}
		rest := slices.DeleteFunc(slices.Clone(left), is)
		if len(rest) == len(left) && len(left) > 0 && ph.Query == "" && of == Snapshot {
			out[i], rest = left[0].Rank+1, left[1:]
		}
		left = rest
	}
	return out
}
