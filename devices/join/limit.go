package join

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"muster"
)

const (
	// maxLimited is how many addresses, keys and principals are counted at once: the one
	// that was quiet for longest is forgotten for the next.
	maxLimited = 10_000

	guessSpan      = time.Minute
	guessesAll     = 20  // wrong claim codes in guessSpan, of everybody together
	guessesOne     = 5   // of one principal, and of one address
	wrongByAddress = 10  // wrong provisioning secrets in guessSpan from one address
	wrongByKey     = 100 // for one provisioning key, from everywhere

	requestBurst = 1000 // provisioning requests from one address at once,
	requestRate  = 200  // and then so many a second
)

// limits are what guessing and haste run into.
type limits struct {
	claims    window // by "all", principal and address
	provision window // by address and key
	requests  buckets
}

func (l *limits) init(now func() time.Time) {
	l.claims.init(now)
	l.provision.init(now)
	l.requests = buckets{now: now, recent: newRecent()}
}

// recent is a map that forgets what was used longest ago.
type recent struct {
	byKey map[string]*list.Element
	order *list.List // newest first
}

type recentItem struct {
	key   string
	value any
}

func newRecent() recent { return recent{byKey: map[string]*list.Element{}, order: list.New()} }

// get returns the value of key, what fresh makes when there is none.
func (r *recent) get(key string, fresh func() any) any {
	if e, ok := r.byKey[key]; ok {
		r.order.MoveToFront(e)
		return e.Value.(*recentItem).value //nolint:forcetypeassert // nothing else is in it
	}
	if len(r.byKey) >= maxLimited {
		last := r.order.Back()
		r.order.Remove(last)
		delete(r.byKey, last.Value.(*recentItem).key) //nolint:forcetypeassert // nothing else is in it
	}
	item := &recentItem{key, fresh()}
	r.byKey[key] = r.order.PushFront(item)
	return item.value
}

// window allows so many wrong tries in any guessSpan.
type window struct {
	now    func() time.Time
	mu     sync.Mutex
	recent recent
}

func (w *window) init(now func() time.Time) { w.now, w.recent = now, newRecent() }

// WaitError is the cause of a Busy error that ends at a known time.
type WaitError struct{ Wait time.Duration }

func (l *WaitError) Error() string { return "again in " + l.Wait.String() }

// limited is a key of a window and how many tries it has.
type limited struct {
	key string
	max int
}

// judge answers Busy when one of ks has no more tries, also to one that is right, and
// else counts a try that is wrong against all of ks.
func (w *window) judge(right bool, ks ...limited) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	tries := make([]*[]time.Time, len(ks))
	for i, k := range ks {
		t := w.recent.get(k.key, func() any { return new([]time.Time) }).(*[]time.Time) //nolint:forcetypeassert // made here
		for len(*t) > 0 && now.Sub((*t)[0]) >= guessSpan {
			*t = (*t)[1:]
		}
		if len(*t) >= k.max {
			wait := guessSpan - now.Sub((*t)[len(*t)-k.max]) // until fewer than max are left
			return &muster.Error{Kind: muster.Busy, Msg: "too many wrong tries: wait a minute", Err: &WaitError{wait}}
		}
		tries[i] = t
	}
	if right {
		return nil
	}
	for _, t := range tries {
		*t = append(*t, now)
	}
	return nil
}

// buckets allow requestRate tries a second, and requestBurst at once.
type buckets struct {
	now    func() time.Time
	mu     sync.Mutex
	recent recent
}

type bucket struct {
	left float64
	at   time.Time
}

func (b *buckets) take(key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	k := b.recent.get(key, func() any { return &bucket{requestBurst, now} }).(*bucket) //nolint:forcetypeassert // made here
	if passed := now.Sub(k.at); passed > 0 {
		k.left = min(requestBurst, k.left+passed.Seconds()*requestRate)
	}
	k.at = now
	if k.left < 1 {
		return muster.Errorf(muster.Busy, "too many requests from one address")
	}
	k.left--
	return nil
}

// address is what of peer (host:port, or host) is counted: of IPv6 the network of 64
// bits, since whoever has one address has them all.
func address(peer string) string {
	if h, _, err := net.SplitHostPort(peer); err == nil {
		peer = h
	}
	ip, err := netip.ParseAddr(peer)
	if err != nil {
		return peer
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}
