package accounts

import (
	"time"
)

// Cheap makes hashes cost next to nothing from now on.
func (a *Accounts) Cheap() { a.hasher.setCost(cost{memory: 8, time: 1, lanes: 1}) }

// Costly makes hashes cost what they do in production from now on.
func (a *Accounts) Costly() { a.hasher.setCost(defaultCost()) }

// Dummy is what the password of nobody is held against.
func (a *Accounts) Dummy() string { return a.hasher.dummy }

// Crowd takes all places to hash, and all to wait for one, until the result is called.
func (a *Accounts) Crowd() (leave func()) {
	for range cap(a.hasher.places) {
		a.hasher.places <- struct{}{}
	}
	a.hasher.waiting.Add(maxHashers)
	return func() {
		a.hasher.waiting.Add(-maxHashers)
		for range cap(a.hasher.places) {
			<-a.hasher.places
		}
	}
}

// Limits are exported for their model.
type Limits = limits

// NewLimits, MaxBuckets and Network are exported for their tests.
const MaxBuckets = maxBuckets

func NewLimits() *Limits { return newLimits() }

func Network(address string) string { return network(address) }

// Take takes one token of a bucket and returns how long to wait when there is none.
func (l *limits) Take(now time.Time, key string, burst int, every time.Duration) time.Duration {
	if err := l.take(now, key, rate{burst, every}); err != nil {
		return err.(*WaitError).Wait //nolint:errorlint,forcetypeassert // what take returns
	}
	return 0
}

// Reset and Len are exported for their tests.
func (l *limits) Reset(key string) { l.reset(key) }

func (l *limits) Len() int { return len(l.byKey) }

// ParsePHC returns what a stored hash becomes when it is written again.
func ParsePHC(s string) (string, error) {
	p, err := parsePHC(s)
	return p.String(), err
}

// AgentOf is what is kept of what a browser calls itself.
func AgentOf(agent string) string { return Client{Agent: agent}.agent() }

// Plain is how a name stands in a mail.
func Plain(name string) string { return plain(name) }
