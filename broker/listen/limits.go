package listen

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// Defaults of LimitsConfig, and the bits that make an IPv6 client.
const (
	defaultRate         = 10_000
	defaultBurst        = 20_000
	defaultAddressRate  = 2000
	defaultAddressBurst = 20_000
	defaultAddressConns = 20000
	defaultAddresses    = 65536
	ipv6Bits            = 64
)

// Refusal says which limit refused a connection.
type Refusal string

// The refusals.
const (
	Admitted           Refusal = ""
	RefusedRate        Refusal = "rate"                // too many new connections in all
	RefusedAddressRate Refusal = "address_rate"        // too many new connections from the address
	RefusedAddress     Refusal = "address_connections" // too many connections from the address
)

// LimitsConfig sets the limits. In each field 0 means the default and a negative
// value no limit.
type LimitsConfig struct {
	Rate         int // new connections a second, all addresses; 10,000
	Burst        int // and at once; 20,000
	AddressRate  int // new connections a second from one address; 2,000
	AddressBurst int // and at once; 20,000
	AddressConns int // connections open from one address; 20,000
	// Addresses is how many addresses are known at once; 65,536, which negative
	// means too. Over it the least recently seen one without connections is
	// forgotten; when all have connections, a new address is not tracked and only
	// Rate limits it.
	Addresses int
	Now       func() time.Time // nil means time.Now
}

// Limits limits new connections: token buckets in all and for each address, and
// connections for each address. One IPv6 client is a /64. Loopback is an address
// like any other. The zero Limits is not usable.
type Limits struct {
	cfg   LimitsConfig
	start time.Time

	mu    sync.Mutex
	all   bucket
	known map[netip.Addr]*address
	idle  list.List // of *address without connections, least recently seen first
}

// address is what is known of one address.
type address struct {
	key    netip.Addr
	bucket bucket
	conns  int
	at     *list.Element // in idle; nil with connections
}

// NewLimits returns limits under which nobody is connected.
func NewLimits(cfg LimitsConfig) *Limits {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&cfg.Rate, defaultRate},
		{&cfg.Burst, defaultBurst},
		{&cfg.AddressRate, defaultAddressRate},
		{&cfg.AddressBurst, defaultAddressBurst},
		{&cfg.AddressConns, defaultAddressConns},
		{&cfg.Addresses, defaultAddresses},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if cfg.Addresses < 0 {
		cfg.Addresses = defaultAddresses
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l := &Limits{cfg: cfg, start: cfg.Now(), known: make(map[netip.Addr]*address)}
	l.all = newBucket(cfg.Burst, 0)
	return l
}

// Admit asks for one connection from addr. When it returns Admitted, the connection
// counts until Release. What is refused takes no tokens, so that a flood from one
// address leaves the others theirs.
func (l *Limits) Admit(addr netip.Addr) Refusal {
	now := l.cfg.Now().Sub(l.start)
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.find(keyOf(addr), now)
	switch {
	case a != nil && l.cfg.AddressConns >= 0 && a.conns >= l.cfg.AddressConns:
		return RefusedAddress
	case a != nil && !a.bucket.has(now, l.cfg.AddressRate, l.cfg.AddressBurst):
		return RefusedAddressRate
	case !l.all.has(now, l.cfg.Rate, l.cfg.Burst):
		return RefusedRate
	}
	l.all.tokens--
	if a == nil {
		return Admitted
	}
	a.bucket.tokens--
	a.conns++
	if a.at != nil {
		l.idle.Remove(a.at)
		a.at = nil
	}
	return Admitted
}

// Release gives back a connection that Admit counted. For an address that is not
// tracked, the zero one too, it does nothing; when it was not tracked at Admit and
// is now, one connection fewer is counted than there is, never one more.
func (l *Limits) Release(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.known[keyOf(addr)]
	if a == nil || a.conns == 0 {
		return
	}
	a.conns--
	if a.conns == 0 {
		a.at = l.idle.PushBack(a)
	}
}

// Addresses returns how many addresses are tracked.
func (l *Limits) Addresses() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.known)
}

// find returns the address, made when it is new; nil when there is no room.
func (l *Limits) find(key netip.Addr, now time.Duration) *address {
	if a := l.known[key]; a != nil {
		if a.at != nil {
			l.idle.MoveToBack(a.at)
		}
		return a
	}
	if len(l.known) >= l.cfg.Addresses {
		oldest := l.idle.Front()
		if oldest == nil {
			return nil
		}
		old, _ := l.idle.Remove(oldest).(*address)
		delete(l.known, old.key)
	}
	a := &address{key: key, bucket: newBucket(l.cfg.AddressBurst, now)}
	a.at = l.idle.PushBack(a)
	l.known[key] = a
	return a
}

func keyOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(ipv6Bits)
	if err != nil {
		return a
	}
	return p.Addr()
}

// bucket is a token bucket. Its rate and burst are given at each use, since many
// share them.
type bucket struct {
	tokens float64
	seen   time.Duration // since Limits.start
}

func newBucket(burst int, now time.Duration) bucket {
	return bucket{tokens: float64(max(burst, 0)), seen: now}
}

// has refills the bucket and says whether a token is there. A clock that goes back
// refills nothing.
func (b *bucket) has(now time.Duration, rate, burst int) bool {
	if rate < 0 || burst < 0 {
		b.tokens = 0
		return true
	}
	if gone := now - b.seen; gone > 0 {
		b.tokens = min(b.tokens+gone.Seconds()*float64(rate), float64(burst))
		b.seen = now
	}
	return b.tokens >= 1
}
