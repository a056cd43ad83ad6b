package devices

import (
	"math"

	"muster"
)

const (
	second = muster.Micros(1_000_000)
	minute = 60 * second
	hour   = 60 * minute

	knownGaps = 5             // gaps that make a rhythm
	leastGap  = second        // what comes closer is one burst
	mostGap   = 7 * 24 * 3600 // seconds
	gapQuant  = 0.9           // of the time, in gaps of at most the rhythm
	gapRate   = 0.15          // how fast the rhythm follows
	calmGaps  = 4             // old rhythms without a long gap end the old rhythm
	backfills = 60            // seconds behind, before a message may be a backfilled one
)

// rhythm is how far apart a device's messages come, learned from their arrivals in 48
// bytes. It follows the 0.9 quantile of the gaps, each weighted by its length: the
// gap in which a device that reports in bursts spends its time, not the one between
// the messages of a burst. It is a stochastic approximation (Robbins and Monro, 1951)
// in steps that a single outlier cannot make large.
type rhythm struct {
	base  muster.Micros // the last arrival that counted, 0 before the first
	calm  muster.Micros // since when all gaps were short
	ended muster.Micros // when the last long gap ended
	every float32       // seconds; while gaps < knownGaps the second longest gap
	long  float32       // the last gap that was long, 0 for none; while learning the longest
	most  float32       // the longest gap since calm
	lag   int32         // seconds that the last message's own time lay behind its arrival
	gaps  uint8         // seen, up to knownGaps
}

// known says whether enough was heard to judge by.
func (r *rhythm) known() bool { return r.gaps >= knownGaps }

// seconds returns the rhythm, 0 while it is not known.
func (r *rhythm) seconds() int64 {
	if !r.known() {
		return 0
	}
	return int64(math.Round(float64(r.every)))
}

// restore takes over a rhythm that was kept, 0 for none.
func (r *rhythm) restore(seconds int64) {
	if seconds > 0 {
		r.every, r.gaps = float32(min(seconds, mostGap)), knownGaps
	}
}

// hear takes a message that arrived at the time at and carries the time stamp.
func (r *rhythm) hear(at, stamp muster.Micros) {
	gap := at - r.base
	if gap < leastGap { // of the same burst or batch, or reported late
		return
	}
	lag := int32(min(max((at-stamp)/second, 0), math.MaxInt32))
	first, before := r.base == 0, r.lag
	r.base, r.lag = at, lag
	if first {
		r.calm = at
		return
	}
	seconds := min(float32(gap)/float32(second), mostGap)
	if lag > backfills && backfilled(before, lag, seconds) {
		r.calm, r.most = at, 0
		return
	}
	if r.known() {
		r.follow(seconds, at)
		return
	}
	r.learn(seconds, at)
}

// backfilled says whether a message that lies lag seconds behind comes from a
// device's memory: its time runs away from that of the message before, twice as fast
// as the clock or backwards. A clock that is wrong stays as wrong as it was, and an
// upload of what was sampled since the last one begins where that ended.
func backfilled(before, lag int32, gap float32) bool {
	return float32(before-lag) > gap || float32(lag-before) > 1.5*gap+5
}

// learn keeps the two longest of the first gaps. The second is taken, since one may
// be the night after the installation.
func (r *rhythm) learn(gap float32, at muster.Micros) {
	if gap > r.long {
		r.long, gap = gap, r.long
	}
	r.every = max(r.every, gap)
	if r.gaps++; r.known() {
		r.every = max(r.every, 1)
		r.long, r.most, r.calm = 0, 0, at
	}
}

// follow moves a known rhythm by one gap.
func (r *rhythm) follow(gap float32, at muster.Micros) {
	if gap > 2*r.every {
		between := float32(at-r.ended)/float32(second) - gap
		if long := min(gap, r.long); long > 0 && between <= long/4 { // two with little between are no outliers
			r.every = long
			r.long, r.most, r.calm = 0, 0, at
			return
		}
		r.long, r.ended = gap, at
	}
	if gap > r.every/4 {
		r.most, r.calm = 0, at
	} else if r.most = max(r.most, gap); float32(at-r.calm)/float32(second) > calmGaps*r.every {
		r.every = max(r.most, 1)
		r.most, r.calm = 0, at
		return
	}
	if gap > r.every {
		r.every *= 1 + gapRate*gapQuant
	} else {
		r.every *= 1 - gapRate*(1-gapQuant)*gap/r.every
	}
	r.every = min(max(r.every, 1), mostGap)
}
