package devices

import (
	"container/list"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"muster"
)

const (
	// MaxFailedLogins is how many kinds of failed login are kept for one device.
	MaxFailedLogins = 20
	// MaxFailedFleet is how many are kept of those that named no device.
	MaxFailedFleet = 1000

	maxFailedDevices = 10_000 // with failed logins; the one that failed longest ago gives way
	maxShown         = 64     // bytes of what a client said about itself
	maxReasonShown   = 300    // bytes
	showOf           = 4      // characters of a user name that may be a secret
)

// Attempt is who tried to come in, in the client's own words.
type Attempt struct {
	Username string
	ClientID string
	Subject  string // common name of its certificate
	Peer     string // host:port
	Listener string // tcp, tls, ws or unix; http for a registration by the API
}

// FailedLogin is a login that was refused, once or many times alike.
type FailedLogin struct {
	Reason   string
	Username string // shortened when it may be a token
	ClientID string
	Subject  string
	Peer     string // host:port of the last
	Listener string
	First    muster.Micros
	Last     muster.Micros
	Count    int64
}

// Logins remembers in memory which logins failed, by the device they named. It is
// safe for concurrent use.
type Logins struct {
	now   func() time.Time
	known func(muster.DeviceID) bool

	mu       sync.Mutex
	byDevice map[muster.DeviceID]*list.Element // of *failures
	order    *list.List                        // newest first
	fleet    failures
}

// failures are newest first.
type failures struct {
	device muster.DeviceID
	list   []FailedLogin
}

// NewLogins returns an empty memory; known says whether there is such a device.
func NewLogins(now func() time.Time, known func(muster.DeviceID) bool) *Logins {
	return &Logins{now: now, known: known, byDevice: map[muster.DeviceID]*list.Element{}, order: list.New()}
}

// Failed remembers that a was refused with err, whose *Denied says why: with each
// device that the client named by user name, certificate or client id or that err is
// about, or with the fleet when it named none.
func (l *Logins) Failed(a Attempt, err error) {
	named := []string{a.Username, a.Subject, a.ClientID}
	reason := muster.Public(err)
	if d, ok := errors.AsType[*Denied](err); ok {
		reason = d.Reason
		for _, id := range d.Devices {
			named = append(named, string(id))
		}
	}
	var about []muster.DeviceID
	for _, name := range named {
		id := muster.DeviceID(name)
		if name != "" && len(name) <= muster.MaxDeviceID && !slices.Contains(about, id) && l.known(id) {
			about = append(about, id)
		}
	}
	at := muster.MicrosOf(l.now())
	f := FailedLogin{
		Reason: shown(reason, maxReasonShown), Username: a.Username, ClientID: shown(a.ClientID, maxShown),
		Subject: shown(a.Subject, maxShown), Peer: a.Peer, Listener: a.Listener, First: at, Last: at, Count: 1,
	}
	if !slices.Contains(about, muster.DeviceID(a.Username)) {
		f.Username = guarded(a.Username)
		if a.ClientID == a.Username {
			f.ClientID = f.Username
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range about {
		l.of(id).add(f, MaxFailedLogins)
	}
	if len(about) == 0 {
		l.fleet.add(f, MaxFailedFleet)
	}
}

// Unregistered remembers that a was refused with err when it asked to be registered as
// the device id, which is empty when it named none: with that device when there is one.
func (l *Logins) Unregistered(a Attempt, id muster.DeviceID, err error) {
	l.Failed(a, Deny("refused to register: "+muster.Public(err), id))
}

// of returns the failures of a device, now the newest, with the lock held.
func (l *Logins) of(id muster.DeviceID) *failures {
	if e, ok := l.byDevice[id]; ok {
		l.order.MoveToFront(e)
		return e.Value.(*failures) //nolint:forcetypeassert // nothing else is in it
	}
	if l.order.Len() >= maxFailedDevices {
		last := l.order.Back()
		l.order.Remove(last)
		delete(l.byDevice, last.Value.(*failures).device) //nolint:forcetypeassert // nothing else is in it
	}
	f := &failures{device: id}
	l.byDevice[id] = l.order.PushFront(f)
	return f
}

// add counts one that is like another with it.
func (fs *failures) add(f FailedLogin, limit int) {
	i := slices.IndexFunc(fs.list, func(o FailedLogin) bool {
		return o.Reason == f.Reason && o.Username == f.Username && o.ClientID == f.ClientID && o.Subject == f.Subject && host(o.Peer) == host(f.Peer)
	})
	switch {
	case i >= 0:
		f.First, f.Count = fs.list[i].First, fs.list[i].Count+1
	case len(fs.list) < limit:
		fs.list = append(fs.list, f)
		i = len(fs.list) - 1
	default:
		i = len(fs.list) - 1
	}
	copy(fs.list[1:i+1], fs.list[:i])
	fs.list[0] = f
}

// Device returns the failed logins that named a device, newest first.
func (l *Logins) Device(id muster.DeviceID) []FailedLogin {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byDevice[id]
	if !ok {
		return nil
	}
	return slices.Clone(e.Value.(*failures).list) //nolint:forcetypeassert // nothing else is in it
}

// Fleet returns the failed logins that named no device, newest first.
func (l *Logins) Fleet() []FailedLogin {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.fleet.list)
}

// Forget drops what is kept about a device that is no more.
func (l *Logins) Forget(id muster.DeviceID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byDevice[id]; ok {
		l.order.Remove(e)
		delete(l.byDevice, id)
	}
}

func host(peer string) string {
	if h, _, err := net.SplitHostPort(peer); err == nil {
		return h
	}
	return peer
}

// guarded shows only the beginning of a user name that no device has and that is long
// enough for a token.
func guarded(s string) string {
	if len(s) < MinToken {
		return shown(s, maxShown)
	}
	return shown(s, showOf) + "..."
}

// shown is s as plain text of at most limit bytes, of its own so that nothing larger
// is kept for it.
func shown(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.Clone(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, "")))
}
