package traffic

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// MaxAccounts is how many accounts are counted by themselves. One more takes the place of
// one that has no connection, whose counts go to Others; when all have one, the new one
// is itself counted among the others.
const MaxAccounts = 10_000

// Transport is the way a client is connected by.
type Transport uint8

// The transports.
const (
	MQTT      Transport = iota // over any listener, WebSocket included
	WebSocket                  // the live gateway
	SSE                        // server-sent events
	transports
)

// String returns the transport's name in metrics and on the wire.
func (t Transport) String() string { return [...]string{"mqtt", "websocket", "sse"}[t] }

// Transports returns every transport there is.
func Transports() []Transport { return []Transport{MQTT, WebSocket, SSE} }

// Who is whose connections are counted together.
type Who struct {
	ID   string // of the user, API key or service account
	Name string // for people; the newest is shown
}

// Counts are those of one account, or sums of them.
type Counts struct {
	Connections [transports]int64  // open now, by Transport
	Received    [transports]uint64 // messages from clients since the start
	Sent        [transports]uint64 // messages to clients since the start
}

// Open is how many connections there are, over all transports.
func (c *Counts) Open() (n int64) {
	for _, v := range c.Connections {
		n += v
	}
	return n
}

// Messages are those over all transports.
func (c *Counts) Messages() (received, sent uint64) {
	for t := range transports {
		received += c.Received[t]
		sent += c.Sent[t]
	}
	return received, sent
}

// Add adds o to c.
func (c *Counts) Add(o *Counts) {
	for t := range transports {
		c.Connections[t] += o.Connections[t]
		c.Received[t] += o.Received[t]
		c.Sent[t] += o.Sent[t]
	}
}

// Account is what one account has counted.
type Account struct {
	Who
	Counts
}

// Meter counts. It is safe for concurrent use.
type Meter struct {
	mu       sync.Mutex
	accounts map[string]*account // at most MaxAccounts
	others   account             // of those that were let go, or came when all places were taken
	limit    int
}

// account has the counters; mu of the meter guards who and open.
type account struct {
	who  Who
	open [transports]int64

	received, sent [transports]atomic.Uint64
}

// New returns a meter that has counted nothing.
func New() *Meter { return &Meter{accounts: map[string]*account{}, limit: MaxAccounts} }

// Conn is an open connection. A nil one counts nothing. Its methods are safe for
// concurrent use.
type Conn struct {
	meter *Meter
	of    *account
	over  Transport
	done  atomic.Bool
}

// Open counts a connection of who, until Close. A nil Meter gives a nil Conn.
func (m *Meter) Open(who Who, over Transport) *Conn {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[who.ID]
	if a == nil {
		a = m.add(who)
	}
	if a != &m.others {
		a.who.Name = who.Name
	}
	a.open[over]++
	return &Conn{meter: m, of: a, over: over}
}

// add makes an account, with the lock held.
func (m *Meter) add(who Who) *account {
	if len(m.accounts) >= m.limit && !m.letGo() {
		return &m.others
	}
	a := &account{who: who}
	m.accounts[who.ID] = a
	return a
}

// letGo moves the counts of an account without a connection to the others. Nobody counts
// on it any more: each who could has closed its Conn.
func (m *Meter) letGo() bool {
	for id, a := range m.accounts {
		if a.open != [transports]int64{} {
			continue
		}
		for t := range transports {
			m.others.received[t].Add(a.received[t].Load())
			m.others.sent[t].Add(a.sent[t].Load())
		}
		delete(m.accounts, id)
		return true
	}
	return false
}

// Received counts n messages from the client, n not negative. It must not be called after Close.
func (c *Conn) Received(n int) {
	if c != nil {
		c.of.received[c.over].Add(uint64(n))
	}
}

// Sent counts n messages to the client, n not negative. It must not be called after Close.
func (c *Conn) Sent(n int) {
	if c != nil {
		c.of.sent[c.over].Add(uint64(n))
	}
}

// Close counts the connection no more. Closing it twice is closing it once.
func (c *Conn) Close() {
	if c == nil || c.done.Swap(true) {
		return
	}
	c.meter.mu.Lock()
	defer c.meter.mu.Unlock()
	c.of.open[c.over]--
}

// Read returns the accounts that are counted by themselves, the busiest first (by
// messages, then by id), and what the others have counted. The sum of all of it never
// shrinks but in Connections.
func (m *Meter) Read() (accounts []Account, others Counts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	accounts = make([]Account, 0, len(m.accounts))
	for _, a := range m.accounts {
		accounts = append(accounts, Account{a.who, a.read()})
	}
	slices.SortFunc(accounts, func(x, y Account) int {
		return cmp.Or(cmp.Compare(y.total(), x.total()), cmp.Compare(x.ID, y.ID))
	})
	return accounts, m.others.read()
}

func (a *Account) total() uint64 {
	received, sent := a.Messages()
	return received + sent
}

// read is called with the meter's lock held.
func (a *account) read() Counts {
	out := Counts{Connections: a.open}
	for t := range transports {
		out.Received[t], out.Sent[t] = a.received[t].Load(), a.sent[t].Load()
	}
	return out
}
