package outbox

import (
	"cmp"
	"slices"
	"time"
)

// maxShown is how many queues a Status has.
const maxShown = 1000

// ChannelCounts count what came of a channel's attempts and deliveries since New.
type ChannelCounts struct {
	Attempts  int64         // that ended
	Delivered int64         // of these, like the next three
	Again     int64         // panics too
	Later     int64         // which are no attempts of the delivery
	Refused   int64         // for good: dead, gone or dropped by the channel
	Panics    int64         // of the channel
	Time      time.Duration // of all attempts together
	Sent      int64         // deliveries that ended so, like the next two
	Dead      int64
	Dropped   int64
}

func (c *ChannelCounts) add(a tried) {
	c.Attempts++
	c.Time += a.Duration
	switch a.Verdict {
	case Delivered:
		c.Delivered++
	case Later:
		c.Later++
	case Dead, Gone, Dropped:
		c.Refused++
	default:
		c.Again++
	}
	if a.panicked {
		c.Panics++
	}
}

func (c *ChannelCounts) end(s State) {
	switch s {
	case StateSent:
		c.Sent++
	case StateDead:
		c.Dead++
	default:
		c.Dropped++
	}
}

// counters are of the whole dispatcher.
type counters struct {
	storeErrors, lost, abandoned int64
	failing                      map[string]bool // what the store refused when it was done last, of a handful
}

// ChannelStatus is how a channel does.
type ChannelStatus struct {
	Name    string
	Slots   int
	Running int // attempts under way
	Urgent  int // of these of the urgent lane
	Counts  ChannelCounts
}

// QueueStatus is how a queue does.
type QueueStatus struct {
	Name      string
	Channel   string
	Running   int
	Breaker   BreakerState
	Failures  int       // in a row
	OpenUntil time.Time // zero when it is closed
}

// Status is how a Dispatcher does. What waits in the store is not in it: DeliveryDepths
// has that.
type Status struct {
	Worker      string
	Running     bool
	StoreAway   bool // something that is asked of it fails
	StoreErrors int64
	Lost        int64           // leases that others had when they were to be settled
	Abandoned   int64           // leases that ended before the store took what came of them
	Unsettled   int             // attempts under way or not written yet
	Channels    []ChannelStatus // in order of name
	Queues      []QueueStatus   // those with an open breaker first, then by name; at most 1000
}

// Status returns how d does now.
func (d *Dispatcher) Status() Status {
	now := d.c.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		Worker: d.c.Worker, Running: d.active, StoreAway: len(d.count.failing) > 0,
		StoreErrors: d.count.storeErrors, Lost: d.count.lost, Abandoned: d.count.abandoned, Unsettled: len(d.jobs),
	}
	for name, l := range d.lines {
		s.Channels = append(s.Channels, ChannelStatus{name, l.s.Concurrency, l.running, l.running - l.slow, l.count})
	}
	for _, q := range d.queues {
		st := QueueStatus{Name: q.name, Channel: q.line.Name(), Running: q.running, Breaker: q.breaker.state(now), Failures: q.breaker.failures}
		if st.Breaker != Closed {
			st.OpenUntil = q.breaker.until
		}
		s.Queues = append(s.Queues, st)
	}
	slices.SortFunc(s.Channels, func(a, b ChannelStatus) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Queues, func(a, b QueueStatus) int {
		if x, y := a.Breaker == Closed, b.Breaker == Closed; x != y {
			if y {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	s.Queues = s.Queues[:min(len(s.Queues), maxShown)]
	return s
}
