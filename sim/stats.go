package sim

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats is what the fleet has done since Run began, but for AckP50 and AckP99,
// which are of the messages acked since the last call of progress (one second).
type Stats struct {
	Connected int    // devices, or gateways, connected now
	Sent      uint64 // messages written, resends left out
	Acked     uint64 // messages the server answered for; 0 at QoS 0
	Resent    uint64 // messages written again after a reconnect, with DUP
	Errors    uint64 // connections refused, lost or broken
	Patched   uint64 // updates that were made by a patch
	LastError string // the newest of these, empty when there is none
	AckP50    time.Duration
	AckP99    time.Duration
}

// tally is one part of the fleet's counters; devices are spread over several so
// that two cores rarely write the same one.
type tally struct {
	connected                   atomic.Int64
	sent, acked, resent, failed atomic.Uint64
	patched                     atomic.Uint64
	acks                        histogram
	_                           [64]byte
}

const tallies = 16

type counters struct {
	part      [tallies]tally
	lastError atomic.Pointer[string]
}

func (c *counters) of(device int) *tally { return &c.part[device%tallies] }

func (c *counters) failed(device int, err error) {
	c.of(device).failed.Add(1)
	text := err.Error()
	c.lastError.Store(&text)
}

// take returns the totals and starts the latencies anew.
func (c *counters) take() Stats {
	var s Stats
	var latency [buckets]uint64
	for i := range c.part {
		p := &c.part[i]
		s.Connected += int(p.connected.Load())
		s.Sent += p.sent.Load()
		s.Acked += p.acked.Load()
		s.Resent += p.resent.Load()
		s.Errors += p.failed.Load()
		s.Patched += p.patched.Load()
		p.acks.drain(&latency)
	}
	if text := c.lastError.Load(); text != nil {
		s.LastError = *text
	}
	s.AckP50, s.AckP99 = quantile(&latency, 0.50), quantile(&latency, 0.99)
	return s
}

// histogram counts durations in eight buckets per doubling, from a microsecond
// to over a minute: a quantile is at most an eighth too high.
type histogram [buckets]atomic.Uint64

const buckets = 27 * 8

func (h *histogram) add(d time.Duration, n uint64) { h[bucketOf(d)].Add(n) }

func (h *histogram) drain(into *[buckets]uint64) {
	for i := range h {
		if h[i].Load() != 0 {
			into[i] += h[i].Swap(0)
		}
	}
}

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 8 {
		return int(us)
	}
	octave := bits.Len64(us) - 4 // 0 for 8 to 15
	return min(8+octave*8+int(us>>octave&7), buckets-1)
}

// bucketTop returns the first duration that is over bucket i.
func bucketTop(i int) time.Duration {
	if i < 8 {
		return time.Duration(i+1) * time.Microsecond
	}
	octave, part := (i-8)/8, (i-8)%8
	return time.Duration((8+part+1)<<octave) * time.Microsecond
}

// quantile returns the duration that a share q of those counted do not exceed, 0
// when nothing was counted.
func quantile(counts *[buckets]uint64, q float64) time.Duration {
	var total, seen uint64
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return 0
	}
	want := max(uint64(q*float64(total)), 1)
	for i, n := range counts {
		if seen += n; seen >= want {
			return bucketTop(i)
		}
	}
	return bucketTop(buckets - 1)
}
