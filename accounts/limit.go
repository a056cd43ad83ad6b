package accounts

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"muster"
)

// WaitError refuses for now, alike whether or not what was named exists: too much was
// tried. Its kind is Busy.
type WaitError struct{ Wait time.Duration } // until it is worth trying again

func (e *WaitError) Error() string { return "too many attempts: try again later" }

// Unwrap gives the error its kind.
func (e *WaitError) Unwrap() error { return muster.Errorf(muster.Busy, "%s", e.Error()) }

// rate is how much may be tried: burst at once, and one more in each every.
type rate struct {
	burst int
	every time.Duration
}

// The rates. An account is what was typed as e-mail, known or not. One network gets a third of what an account
// gets back from all of them: a stranger with one address cannot empty it.
func accountRate() rate    { return rate{10, 30 * time.Second} }  // passwords for one account, from one network
func everywhereRate() rate { return rate{100, 10 * time.Second} } // passwords for one account, from all networks where it is not at home
func codeRate() rate       { return rate{5, 5 * time.Minute} }    // second factors for one user
func mailRate() rate       { return rate{3, 10 * time.Minute} }   // mails to one address
func addressRate() rate    { return rate{60, time.Second} }       // of everything, from one network

// maxBuckets bounds what limits remember of one sort. When full the bucket that was used
// least recently is forgotten, and with it what was tried: who wants that must make
// as many tries elsewhere, each of which costs a hash.
const maxBuckets = 10_000

// limits are token buckets by key.
type limits struct {
	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // of *bucket, the most recently used in front
	waits uint64     // how often something was refused
}

// bucket has tokens again in full at full.
type bucket struct {
	key  string
	full time.Time
}

func newLimits() *limits {
	return &limits{byKey: map[string]*list.Element{}, order: list.New()}
}

// take takes a token of key's bucket, or returns a WaitError and takes none.
func (l *limits) take(now time.Time, key string, r rate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(key)
	full := b.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(r.every)
	if wait := full.Sub(now) - time.Duration(r.burst)*r.every; wait > 0 {
		l.waits++
		return &WaitError{Wait: wait}
	}
	b.full = full
	return nil
}

// bucket is called with the lock held.
func (l *limits) bucket(key string) *bucket {
	if e, ok := l.byKey[key]; ok {
		l.order.MoveToFront(e)
		return e.Value.(*bucket) //nolint:forcetypeassert // only buckets are put in
	}
	if l.order.Len() >= maxBuckets {
		last := l.order.Back()
		delete(l.byKey, last.Value.(*bucket).key) //nolint:forcetypeassert // only buckets are put in
		l.order.Remove(last)
	}
	b := &bucket{key: key}
	l.byKey[key] = l.order.PushFront(b)
	return b
}

// reset fills key's bucket.
func (l *limits) reset(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		delete(l.byKey, key)
		l.order.Remove(e)
	}
}

func (l *limits) refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits
}

// noNetwork is the network of what is no address.
const noNetwork = "unknown"

// network is the key of an address: itself for IPv4, its /64 for IPv6, of which one
// machine has all addresses. Addresses that are none share one key.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return noNetwork
		}
		ip = ap.Addr()
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return noNetwork
	}
	return p.String()
}

// host is an address without its port, empty when it is none.
func host(address string) string {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.Unmap().String()
	}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return ap.Addr().Unmap().String()
	}
	return ""
}

// typed is the key of what was typed as e-mail.
func typed(email string) string {
	email = canonical(email)
	return email[:min(len(email), MaxEmail+1)]
}
