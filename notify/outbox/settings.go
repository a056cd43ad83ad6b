package outbox

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Settings are how a channel is used. What is 0 is as the comment says.
type Settings struct {
	// Concurrency is how many attempts are under way at once; 10.
	Concurrency int
	// Reserved is how many of these the urgent lane has for itself; a fifth, at least one
	// of two.
	Reserved int
	// PerQueue is how many attempts of one queue are under way at once, so that one slow
	// target leaves room for others; Concurrency. A fifth of it is the urgent lane's.
	PerQueue int
	// Rate is how many attempts of one queue begin in a second, on average; 0 for no bound.
	Rate float64
	// Burst is how many may begin at once; 1, or Rate when that is more.
	Burst int
	// Timeout of one attempt; 10 s.
	Timeout time.Duration
	// Schedule is what is waited before each attempt, the first included (which begins when
	// the delivery is due): after as many attempts a delivery is dead; MailSchedule.
	Schedule []time.Duration
	// Jitter is how much of a wait is left to chance: 1 for all of it (0 to the wait), 0.2
	// for its last fifth; 1.
	Jitter float64
	// Ordered has each target get its deliveries of a lane in the order in which they were made:
	// of those that are due, or were tried, the oldest first, and one at a time. One that a target does not take
	// holds up those behind it until it is sent, dead or expired.
	Ordered bool
	// Later is what is waited when the target cannot take anything now, unless Hasten is
	// called; 10 minutes.
	Later time.Duration
	// Failures is after how many failures in a row a queue's breaker opens; 5.
	Failures int
	// OpenFor is how long it stays open at first; 30 s. It doubles with each probe that fails.
	OpenFor time.Duration
	// MaxOpen is how long at most; 10 minutes.
	MaxOpen time.Duration
}

// WebhookSchedule returns the waits of Standard Webhooks ("Deliverability and
// reliability"): ten attempts over about three days.
func WebhookSchedule() []time.Duration {
	return []time.Duration{
		0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
		10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

// MailSchedule returns waits that double from 10 seconds to 4 hours: grey listing is over
// within the first of them, and a mail is dead after about a day, when none reads it as news.
func MailSchedule() []time.Duration {
	out := []time.Duration{0}
	for d := 10 * time.Second; d < 4*time.Hour; d *= 2 {
		out = append(out, d)
	}
	for range 6 {
		out = append(out, 4*time.Hour)
	}
	return out
}

// MailSettings are for e-mail over one server.
func MailSettings() Settings { return Settings{Timeout: 15 * time.Second, Failures: 10}.complete() }

// WebhookSettings are for webhooks, of which each has a queue of its own.
func WebhookSettings() Settings {
	return Settings{Concurrency: 40, PerQueue: 5, Schedule: WebhookSchedule(), Jitter: 0.2, MaxOpen: time.Hour}.complete()
}

// MQTTSettings are for devices, which share a queue: many slots, since each that does not
// acknowledge holds one until its time is over. A device gets what it is sent in order.
func MQTTSettings() Settings { return Settings{Concurrency: 100, Ordered: true}.complete() }

// complete puts what is said for 0.
func (s Settings) complete() Settings {
	s.Concurrency = or(s.Concurrency, 10)
	s.PerQueue = min(or(s.PerQueue, s.Concurrency), s.Concurrency)
	s.Reserved = min(or(s.Reserved, reserve(s.Concurrency)), s.Concurrency-1)
	s.Burst = or(s.Burst, max(1, int(s.Rate)))
	s.Timeout = or(s.Timeout, 10*time.Second)
	if len(s.Schedule) == 0 {
		s.Schedule = MailSchedule()
	}
	s.Schedule = slices.Clone(s.Schedule)
	s.Jitter = min(or(s.Jitter, 1), 1)
	s.Later = or(s.Later, 10*time.Minute)
	s.Failures = or(s.Failures, 5)
	s.OpenFor = or(s.OpenFor, 30*time.Second)
	s.MaxOpen = max(or(s.MaxOpen, 10*time.Minute), s.OpenFor)
	return s
}

// reserve is the urgent lane's share of slots.
func reserve(slots int) int {
	if slots < 2 {
		return 0
	}
	return max(1, slots/5)
}

func or[T int | float64 | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// maxRetryAfter bounds what a receiver may wish for.
const maxRetryAfter = 24 * time.Hour

// wait is what is waited after so many attempts, at least as long as the receiver wishes;
// false when there are none any more.
func (s *Settings) wait(attempts int, retryAfter time.Duration) (time.Duration, bool) {
	if attempts >= len(s.Schedule) {
		return 0, false
	}
	d := float64(s.Schedule[max(attempts, 0)])
	jittered := time.Duration(d*(1-s.Jitter) + d*s.Jitter*rand.Float64())
	if retryAfter <= 0 {
		return jittered, true
	}
	wish := min(retryAfter, maxRetryAfter)
	wish += time.Duration(float64(wish) * 0.1 * rand.Float64()) // all who were told the same do not come at once
	return max(jittered, wish), true
}
