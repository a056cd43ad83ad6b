package broker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/broker/wire"
)

// Client describes one session and its connection, for operators.
type Client struct {
	ClientID      string          `json:"client_id"`
	Device        muster.DeviceID `json:"device,omitempty"`
	Account       string          `json:"account,omitempty"`
	Connected     bool            `json:"connected"`
	Peer          string          `json:"peer,omitempty"`
	Listener      string          `json:"listener,omitempty"`
	Protocol      byte            `json:"protocol,omitempty"` // 3, 4 (3.1.1) or 5
	KeepAlive     int             `json:"keepalive"`          // seconds
	Since         time.Time       `json:"since"`              // connected, or disconnected
	Subscriptions int             `json:"subscriptions"`
	Queued        int             `json:"queued"`   // QoS 1 and 2 messages that wait
	Inflight      int             `json:"inflight"` // QoS 1 and 2 messages sent and not acknowledged
	Backlog       int             `json:"backlog"`  // bytes that wait: in the queue and on the way to the socket
	Dropped       uint64          `json:"dropped"`  // messages that this session lost, since it began or the server started
	Unacked       int             `json:"unacked"`  // messages from the client that are not acknowledged yet
	Received      uint64          `json:"received"` // PUBLISH packets of this connection
	Sent          uint64          `json:"sent"`
	ReceivedBytes uint64          `json:"received_bytes"`
	SentBytes     uint64          `json:"sent_bytes"`
	ReceivedRate  float64         `json:"received_rate"` // messages per second since the connection was listed last, or began
	SentRate      float64         `json:"sent_rate"`
}

// ClientsQuery selects clients.
type ClientsQuery struct {
	Device muster.DeviceID // only of this device
	Search string          // only with this in the client id, device or account
	Sort   string          // id (default), backlog, dropped, queued, received or sent: largest first
	Offset int
	Limit  int // 1 to 1000
}

// Sorts are the orders Clients can give.
func Sorts() []string { return []string{"id", "backlog", "dropped", "queued", "received", "sent"} }

// Clients returns one page of the sessions that match, and how many match. An
// unknown sort is Invalid.
func (b *Broker) Clients(q ClientsQuery) (page []Client, total int, err error) {
	if q.Sort != "" && !slices.Contains(Sorts(), q.Sort) {
		return nil, 0, muster.Errorf(muster.Invalid, "sort must be one of %s", strings.Join(Sorts(), ", "))
	}
	var all []Client
	from := b.sessions.each
	if q.Device != "" {
		from = b.sessions.of(ownerOf(q.Device, ""))
	}
	for s := range from {
		if q.Search != "" && !strings.Contains(s.clientID, q.Search) && !strings.Contains(string(s.device), q.Search) &&
			!strings.Contains(s.account, q.Search) {
			continue
		}
		if c, ok := s.describe(); ok {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(x, y Client) int {
		return cmp.Or(cmp.Compare(y.by(q.Sort), x.by(q.Sort)), cmp.Compare(x.Device, y.Device),
			cmp.Compare(x.Account, y.Account), cmp.Compare(x.ClientID, y.ClientID))
	})
	first := min(max(q.Offset, 0), len(all))
	last := min(first+min(max(q.Limit, 1), 1000), len(all))
	return all[first:last], len(all), nil
}

// by is what a client is sorted by; the identity breaks ties.
func (c *Client) by(sort string) uint64 {
	switch sort {
	case "backlog":
		return uint64(c.Backlog)
	case "dropped":
		return c.Dropped
	case "queued":
		return uint64(c.Queued)
	case "received":
		return c.Received
	case "sent":
		return c.Sent
	}
	return 0
}

func (s *session) describe() (Client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state.Load()
	x := Client{
		ClientID: s.clientID, Device: s.device, Account: s.account, Subscriptions: len(st.subs), Dropped: s.dropped,
		Since: time.UnixMilli(st.gone).UTC(),
	}
	if s.q != nil {
		x.Queued, x.Inflight, x.Backlog = s.q.waiting.len(), s.q.open, s.q.bytes
	}
	if s.conn != nil {
		s.conn.describeInto(&x)
	}
	return x, !s.ended
}

// sample is what a connection had carried when it was listed last.
type sample struct {
	at             int64
	received, sent uint64

	receivedRate, sentRate float64
}

func (c *conn) describeInto(x *Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x.Connected, x.Peer, x.Listener, x.Protocol = true, c.login.Peer, c.login.Listener, c.dialect.Version
	x.KeepAlive, x.Since = int(c.keepalive/time.Second), time.UnixMilli(c.since).UTC()
	x.Backlog += c.backlog()
	x.Unacked = c.acks.len()
	x.Received, x.Sent = c.stats.received, c.stats.sent
	x.ReceivedBytes, x.SentBytes = c.stats.bytesIn, c.stats.bytesOut
	now := c.b.clock.Load()
	if c.sample == nil {
		c.sample = &sample{at: c.since}
	}
	if s := float64(now-c.sample.at) / 1000; s >= 1 {
		*c.sample = sample{
			now, x.Received, x.Sent, float64(x.Received-c.sample.received) / s, float64(x.Sent-c.sample.sent) / s,
		}
	}
	x.ReceivedRate, x.SentRate = c.sample.receivedRate, c.sample.sentRate
}

// KickClient cuts one client's connection. It is NotFound when there is none.
func (b *Broker) KickClient(device muster.DeviceID, account, clientID, reason string) error {
	key := sessionKey(device, account, clientID)
	k := &b.sessions.keys[b.sessions.shard(key)]
	k.mu.RLock()
	s := k.m[key]
	k.mu.RUnlock()
	if s == nil || !s.kick(reason) {
		return muster.Errorf(muster.NotFound, "no such client is connected")
	}
	return nil
}

// Forget ends every session of a device, or of an account, for good: its connections,
// subscriptions and queues, and clears what it has retained. It is for owners that
// were deleted. Before Start it does nothing.
func (b *Broker) Forget(device muster.DeviceID, account string) {
	if !b.running() {
		return
	}
	owner := ownerOf(device, account)
	for s := range b.sessions.of(owner) {
		s.mu.Lock()
		if s.ended {
			s.mu.Unlock()
			continue
		}
		c := s.conn
		s.will = nil
		after := s.end()
		s.mu.Unlock()
		if c != nil {
			_ = c.bye(wire.CodeNotAuthorized, "the device or account was deleted", causeRights)
		}
		after()
	}
	b.retained.forget(owner)
}

// Stats is what the broker says of itself on the System page.
type Stats struct {
	Connections int    `json:"connections"` // admitted
	HalfOpen    int    `json:"half_open"`   // without CONNECT yet
	Sessions    int    `json:"sessions"`    // connected or kept
	Retained    int    `json:"retained"`    // topics
	Received    uint64 `json:"received"`    // PUBLISH packets since start
	Sent        uint64 `json:"sent"`        // PUBLISH packets since start

	JournalBytes   int64 `json:"journal_bytes"`   // size of the log of sessions
	JournalPending int64 `json:"journal_pending"` // bytes on their way to it
}

// TopicCache returns how many topics' subscribers are remembered, and how often they were
// found so since the start; a connection remembers its last topic besides.
func (b *Broker) TopicCache() (topics int, hits, misses uint64) { return b.index.Remembered() }

// Stats returns the broker's counts.
func (b *Broker) Stats() Stats {
	known, half := b.conns.count()
	s := Stats{
		Connections: known, HalfOpen: half, Sessions: int(b.sessions.count.Load()), Retained: b.retained.tree.Len(),
		Sent: b.sent.Load(),
	}
	j := b.journal.Stats()
	s.JournalBytes, s.JournalPending = j.LogBytes, j.PendingBytes
	for i := range b.in {
		s.Received += b.in[i].Load()
	}
	return s
}
