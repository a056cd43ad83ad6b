package broker

import (
	"strings"
	"sync"
	"time"

	"muster/broker/journal"
	"muster/broker/topic"
)

// retained is a topic's retained message.
type retained struct {
	item journal.Item
	m    *message
	by   string // key of the session that published it, for its quota
}

// retainedSet holds the retained messages, within MaxRetained topics, and
// MaxRetainedOwn and MaxRetainedBytes of them from one client. A message beyond
// that is delivered, not retained, and counted.
type retainedSet struct {
	b    *Broker
	tree *topic.Tree[*retained]
	sys  *topic.Tree[*retained] // the server's own values, which are not written down

	mu    sync.Mutex // held over a change of the tree and its record, so that both have one order
	owned map[string]quota
	swept int64 // when what had expired was cleared last
	bytes int   // of all
}

// maxRetainedAll is how many bytes all retained messages may take, a part of the log.
const maxRetainedAll = 256 << 20

// quotaKey is the owner in a session's key: a quota is a device's or an account's.
func quotaKey(by string) string { return by[:max(strings.LastIndexByte(by, 0), 0)] }

type quota struct{ topics, bytes int }

func newRetainedSet(b *Broker) *retainedSet {
	return &retainedSet{b: b, tree: topic.NewTree[*retained](), sys: topic.NewTree[*retained](), owned: make(map[string]quota)}
}

// keep retains m, or clears its topic when it has no payload. It says whether that
// is written down, and done told when it is durable; else nothing changed.
func (s *retainedSet) keep(m *message, done func(error)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(m.payload) == 0 {
		return s.clear(m.topic, done)
	}
	by := ""
	if m.from != nil {
		by = m.from.key
	}
	old, had := s.tree.Get(m.topic)
	if !s.mayKeep(by, m, old, had) && (!s.sweep() || !s.mayKeep(by, m, old, had)) {
		s.b.metrics.dropped.WithLabelValues("retained").Inc()
		return false
	}
	m.own()
	x := &retained{m: m, by: by}
	x.item.Owner = x
	var drop []*journal.Item
	if had {
		drop = append(drop, &old.item)
		s.charge(old, -1)
	}
	s.tree.Set(m.topic, x)
	s.charge(x, 1)
	s.b.journal.WriteFunc(x.AppendRecord, &x.item, drop, done)
	return true
}

func (s *retainedSet) clear(name string, done func(error)) bool {
	old, had := s.tree.Delete(name)
	if !had {
		return false
	}
	s.charge(old, -1)
	s.b.journal.WriteFunc(func(b []byte) []byte { return appendCleared(b, name) }, nil, []*journal.Item{&old.item}, done)
	return true
}

// forget clears what an owner's clients have retained.
func (s *retainedSet) forget(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.owned[owner]; !has {
		return
	}
	var names []string
	s.tree.Each(func(name string, x *retained) bool {
		if quotaKey(x.by) == owner {
			names = append(names, name)
		}
		return true
	})
	for _, name := range names {
		s.clear(name, nil)
	}
}

// sweep clears the messages that have expired, at most once a second. It says whether
// there were any.
func (s *retainedSet) sweep() bool {
	now := s.b.clock.Load()
	if now-s.swept < time.Second.Milliseconds() {
		return false
	}
	s.swept = now
	var over []string
	s.tree.Each(func(name string, x *retained) bool {
		if x.m.expired(now) {
			over = append(over, name)
		}
		return true
	})
	for _, name := range over {
		s.clear(name, nil)
	}
	return len(over) > 0
}

func (s *retainedSet) mayKeep(by string, m *message, old *retained, had bool) bool {
	cfg := &s.b.cfg
	if !had && s.tree.Len() >= cfg.MaxRetained || s.bytes+m.size() > maxRetainedAll {
		return false
	}
	q := s.owned[quotaKey(by)]
	if had && quotaKey(old.by) == quotaKey(by) {
		q.topics--
		q.bytes -= old.m.size()
	}
	return by == "" || q.topics < cfg.MaxRetainedOwn && q.bytes+m.size() <= cfg.MaxRetainedBytes
}

func (s *retainedSet) charge(x *retained, n int) {
	s.bytes += n * x.m.size()
	key := quotaKey(x.by)
	q := s.owned[key]
	q.topics += n
	q.bytes += n * x.m.size()
	if q.topics <= 0 {
		delete(s.owned, key)
		return
	}
	s.owned[key] = q
}

// show puts one of the server's own values in.
func (s *retainedSet) show(m *message) { s.sys.Set(m.topic, &retained{m: m}) }

// match returns what a filter matches, by name, at most limit.
func (s *retainedSet) match(filter string, limit int) (found []*retained, more bool) {
	if strings.HasPrefix(filter, "$") {
		return s.sys.Match(filter, limit)
	}
	return s.tree.Match(filter, limit)
}

// restore puts a message in as it was read from the journal. nil clears.
func (s *retainedSet) restore(name string, x *retained, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, had := s.tree.Delete(name); had {
		s.charge(old, -1)
		s.b.journal.Unplace(&old.item)
	}
	if x == nil {
		return
	}
	x.item.Owner = x
	s.tree.Set(name, x)
	s.charge(x, 1)
	s.b.journal.Place(&x.item, seq)
}

// maxShown is how many retained messages one subscription gets at once. One that
// matches more gets the first by name.
const maxShown = 100_000

// shown is what a new subscription to filter is to be sent.
func (s *retainedSet) shown(filter string) []*retained {
	found, more := s.match(filter, maxShown)
	if more {
		s.b.metrics.dropped.WithLabelValues("retained_limit").Inc()
	}
	return found
}

// show sends a session the retained messages that a new subscription matched.
func (s *session) show(k *kicks, found []*retained, x *subscription) {
	now := s.b.clock.Load()
	for _, v := range found {
		id, rest, _ := splitDevice(v.m.topic)
		if v.m.expired(now) || x.own && !isDown(rest) || x.kids && s.b.auth.Parent(id) != s.device {
			continue
		}
		if x.NoLocal && v.by == s.key {
			continue
		}
		o := copyOf{qos: min(x.QoS, v.m.qos), retain: true, me: x.me, stored: true}
		if x.Identifier > 0 {
			o.ids = []uint32{x.Identifier}
		}
		if o.qos == 0 {
			s.catchUp(k)
		}
		r := route{b: s.b, m: v.m, kicks: k, now: now}
		s.deliver(&r, o)
		if r.kept != nil {
			s.b.commit(r.kept, nil, nil)
		}
	}
}

// catchUp waits for a client that is shown more than it has read. It is for the
// client's own reader.
func (s *session) catchUp(k *kicks) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil || k == nil {
		return
	}
	c.mu.Lock()
	behind := c.backlog() > pressOut
	c.mu.Unlock()
	if behind {
		k.flush(s.b)
		c.flushed(s.b.cfg.WriteTimeout)
	}
}
