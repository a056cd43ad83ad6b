package broker

import (
	"time"

	"muster/broker/wire"
)

// Rates of one client that nobody has given others (Config, Identity).
const (
	defaultMessages = 20_000   // per second
	defaultBytes    = 16 << 20 // per second
	rateBurst       = 2        // seconds' worth that may come at once
	slowest         = time.Second
	overTime        = time.Minute // of being slowed down without a pause, after which a client is cut
)

// bucket measures what one client publishes. It is of the reader.
type bucket struct {
	messages, bytes float64 // what may come now
	at              int64   // of the last refill, unix milliseconds; 0 before the first
	over            int64   // since when the client has been over its rate, 0 when it is not
}

// take takes a packet out and returns how long the client must wait before the next
// one is handled. state is the size of the session's record.
func (r *bucket) take(b *Broker, rate Rate, head byte, size, state int) time.Duration {
	switch head >> 4 {
	case wire.Publish:
	case wire.Subscribe, wire.Unsubscribe:
		size += state // the session's record is written anew
	default:
		return 0
	}
	now := b.clock.Load()
	m, n := float64(rate.Messages), float64(rate.Bytes)
	if r.at == 0 {
		r.at, r.messages, r.bytes = now, rateBurst*m, rateBurst*n
	}
	if now > r.at {
		s := float64(now-r.at) / 1000
		r.messages, r.bytes = min(r.messages+s*m, rateBurst*m), min(r.bytes+s*n, rateBurst*n)
		r.at = now
	}
	r.messages--
	r.bytes -= float64(size)
	if r.messages >= 0 && r.bytes >= 0 {
		if r.messages > m/2 && r.bytes > n/2 {
			r.over = 0
		}
		return 0
	}
	if r.over == 0 {
		r.over = now
	}
	wait := max(-r.messages/m, -r.bytes/n)
	return min(max(time.Duration(wait*float64(time.Second)), b.cfg.Tick), slowest)
}

// stateSize is about how large the record of the client's session is, in bytes.
func (c *conn) stateSize(head byte) int {
	if k := head >> 4; c.sess == nil || k != wire.Subscribe && k != wire.Unsubscribe {
		return 0
	}
	n := 0
	for _, x := range c.sess.state.Load().subs {
		n += len(x.filter) + len(x.group) + 8
	}
	return n
}

// rateOf returns the client's rate.
func (c *conn) rateOf() Rate {
	r := c.b.cfg.Rate
	if a := c.allowed.Load(); a != nil {
		if a.who.Rate.Messages > 0 {
			r.Messages = a.who.Rate.Messages
		}
		if a.who.Rate.Bytes > 0 {
			r.Bytes = a.who.Rate.Bytes
		}
	}
	return r
}

// slowDown lets a client wait that publishes too much, so that TCP slows it down.
// One that has been slowed for overTime without a pause is cut.
func (c *conn) slowDown(sc *scratch, d time.Duration) error {
	c.b.metrics.throttled.Inc()
	if c.b.clock.Load()-c.rate.over > c.b.cfg.OverTime.Milliseconds() {
		return c.bye(wire.CodeQuota, "more messages or bytes per second than this client may publish", causeRate)
	}
	sc.kicks.flush(c.b)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.ended():
		return errGone
	}
}
