package api

import (
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Limits are how many requests are answered. The zero value of each is its default.
type Limits struct {
	Rate   int // requests a second of one key or session: 100. Of one with the scope admin ten times that
	Burst  int // requests at once of one key or session: 400, likewise
	SignIn int // tries to sign in, a minute and address: 10
	Tests  int // tests of channels and webhooks, a minute of one user and all his keys, or of a key that is nobody's: 10
	Nobody int // requests at once of one address with a key or cookie that is nobody's: 300, and a tenth of that a second
}

const (
	adminTimes  = 10 // an admin's limits over others'
	maxBuckets  = 1 << 16
	signInKey   = "sign-in" // in an operation's Metadata as its policy
	policyOf    = "policy"
	publicRate  = 50 // requests a second of one address to public operations
	publicBurst = 200
)

// policy is one limit: burst requests at once, and one more every interval.
type policy struct {
	name    string
	every   time.Duration
	burst   int
	headers []string // RateLimit-Policy
}

func newPolicy(name string, perSecond float64, burst int) *policy {
	window := int(math.Ceil(float64(burst) / perSecond))
	return &policy{
		name: name, every: time.Duration(float64(time.Second) / perSecond), burst: burst,
		headers: []string{`"` + name + `";q=` + strconv.Itoa(burst) + ";w=" + strconv.Itoa(window)},
	}
}

// policies are the limits of an API.
type policies struct{ key, admin, public, signIn, test, stranger *policy }

func newPolicies(l Limits) policies {
	or := func(v, d int) int {
		if v <= 0 {
			return d
		}
		return v
	}
	rate, burst, signIn, tests, nobody := or(l.Rate, 100), or(l.Burst, 400), or(l.SignIn, 10), or(l.Tests, 10), or(l.Nobody, 300)
	return policies{
		key: newPolicy("key", float64(rate), burst), admin: newPolicy("admin", float64(rate*adminTimes), burst*adminTimes),
		public: newPolicy("address", publicRate, publicBurst), signIn: newPolicy(signInKey, float64(signIn)/60, signIn),
		test:     newPolicy("test", float64(tests)/60, tests),
		stranger: newPolicy("stranger", float64(nobody)/10, nobody),
	}
}

// caller is who has a bucket: a principal, or an address (of IPv6 its /64).
type caller struct {
	policy *policy
	id     string
	addr   netip.Prefix
}

// buckets has one token bucket for each caller, as the time when it is full again (the generic cell rate
// algorithm). There are at most maxBuckets: those that were not used longest are forgotten in halves, and their
// callers begin with a full one. It is safe for concurrent use.
type buckets struct {
	now        func() time.Time
	mu         sync.Mutex
	young, old map[caller]time.Time
}

func newBuckets(now func() time.Time) *buckets {
	return &buckets{now: now, young: map[caller]time.Time{}, old: map[caller]time.Time{}}
}

// take takes a token and returns how many are left and when all are back; ok is false when there was none, and
// wait how long until there is one.
func (b *buckets) take(c caller) (left int, full, wait time.Duration, ok bool) {
	now := b.now()
	most := time.Duration(c.policy.burst) * c.policy.every
	b.mu.Lock()
	defer b.mu.Unlock()
	at, have := b.young[c]
	if !have {
		at = b.old[c]
	}
	if at.Before(now) {
		at = now
	}
	if at.After(now.Add(most)) { // the clock was set back
		at = now.Add(most)
	}
	next := at.Add(c.policy.every)
	if over := next.Sub(now) - most; over > 0 {
		return 0, at.Sub(now), over, false
	}
	if !have && len(b.young) >= maxBuckets/2 {
		b.old, b.young = b.young, make(map[caller]time.Time, maxBuckets/2)
	}
	b.young[c] = next
	full = next.Sub(now)
	return int((most - full) / c.policy.every), full, 0, true
}

// limited takes a token of c, writes the RateLimit headers (draft-ietf-httpapi-ratelimit-headers-10), and returns a
// problem when there was none.
func (a *API) limited(h http.Header, c caller) *Problem {
	left, full, wait, ok := a.buckets.take(c)
	if !ok {
		full = wait
	}
	s := seconds(full)
	var buf [64]byte
	v := append(buf[:0], '"')
	v = append(append(v, c.policy.name...), `";r=`...)
	v = strconv.AppendInt(v, int64(left), 10)
	v = strconv.AppendInt(append(v, ";t="...), s, 10)
	h["Ratelimit-Policy"], h["Ratelimit"] = c.policy.headers, []string{string(v)}
	if ok {
		return nil
	}
	a.metrics.limited.WithLabelValues(c.policy.name).Inc()
	h.Set("Retry-After", strconv.FormatInt(s, 10))
	return newProblem(http.StatusTooManyRequests, "there were too many requests: try again in "+strconv.FormatInt(s, 10)+" s") // people read it at the sign-in too
}

func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// byAddress is the bucket of an address under p.
func byAddress(p *policy, addr netip.Addr) caller {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	net, err := addr.Prefix(bits)
	if err != nil { // the zero address, of a socket without one: they share a bucket
		return caller{policy: p}
	}
	return caller{policy: p, addr: net}
}

// Stranger returns what counts one wrong credential against the address that r comes from, as a request with one
// does; it says whether there may be more. It is for doors that ask for credentials after the request.
func (a *API) Stranger(r *http.Request) func() bool {
	c := byAddress(a.policies.stranger, a.client(r))
	return func() bool {
		_, _, _, ok := a.buckets.take(c)
		if !ok {
			a.metrics.limited.WithLabelValues(c.policy.name).Inc()
		}
		return ok
	}
}
