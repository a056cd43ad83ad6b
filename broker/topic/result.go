package topic

import (
	"math"
	"slices"
	"sync/atomic"
)

// Result is who gets a message published to one topic. It is immutable and may be kept,
// but keeps its targets in memory: a connection that falls idle lets go of it.
type Result[S comparable] struct {
	Plain  []Target[S] // in no stated order; an owner is here once
	Shared []*Group[S] // one member of each gets a copy; by filter and name

	name    string
	sources []source[S]   // what it was made of
	weight  int           // elements that no other result shares
	at      atomic.Uint64 // Index.changes when it was last known to stand
}

type source[S comparable] struct {
	of      *audience[S]
	version uint64
}

// Target is one session that gets one copy, however many of its filters match (MQTT 5,
// 3.3.4 allows it).
type Target[S comparable] struct {
	Owner             S
	QoS               byte     // the highest of all that match (MQTT-3.3.4-2)
	RetainAsPublished bool     // true when one that matches has it
	NoLocal           bool     // true only when all that match have it
	Identifiers       []uint32 // of all that match and have one, also twice the same (3.3.4); in no stated order

	own *Target[S] // what is left of it for the owner's own message; nil when that is all or, with NoLocal, nothing
}

// ForPublisher returns the copy that the owner gets of a message that it published
// itself: subscriptions with No Local do not count (MQTT-3.8.3-3). It is false when
// nothing is left.
func (t *Target[S]) ForPublisher() (Target[S], bool) {
	switch {
	case t.NoLocal:
		return Target[S]{}, false
	case t.own != nil:
		return *t.own, true
	}
	return *t, true
}

// begin makes t the target of one subscription. Its identifier goes to the end of ids,
// which has room for it.
func (t *Target[S]) begin(m *Member[S], ids []uint32) []uint32 {
	t.Owner, t.QoS, t.RetainAsPublished, t.NoLocal = m.Owner, m.QoS, m.RetainAsPublished, m.NoLocal
	if m.Identifier != 0 {
		ids = append(ids, m.Identifier)
		t.Identifiers = slices.Clip(ids[len(ids)-1:])
	}
	return ids
}

// add lets one more subscription of the same owner count.
func (t *Target[S]) add(o Options) {
	switch {
	case t.NoLocal && !o.NoLocal: // the first that counts for the owner's own message
		t.own = &Target[S]{Owner: t.Owner}
		t.own.count(o)
	case !t.NoLocal && o.NoLocal && t.own == nil: // all that counted before do, this does not
		own := *t
		own.Identifiers = slices.Clip(own.Identifiers)
		t.own = &own
	case t.own != nil && !o.NoLocal:
		t.own.count(o)
	}
	t.NoLocal = t.NoLocal && o.NoLocal
	t.count(o)
}

func (t *Target[S]) count(o Options) {
	t.QoS = max(t.QoS, o.QoS)
	t.RetainAsPublished = t.RetainAsPublished || o.RetainAsPublished
	if o.Identifier != 0 {
		t.Identifiers = append(t.Identifiers, o.Identifier)
	}
}

// Group is one shared subscription, $share/{name}/{filter} (MQTT 5, 4.8.2), as it was
// when Match found it.
type Group[S comparable] struct {
	name, filter string
	members      []Member[S]
	turn         *atomic.Uint64 // outlives this view of the group
}

// Name returns the group's name and Filter its filter: together they tell the group
// from any other.
func (g *Group[S]) Name() string { return g.name }

// Filter returns the filter without $share/{name}/.
func (g *Group[S]) Filter() string { return g.filter }

// Members returns the members in order of joining, at least one. The slice is
// immutable.
func (g *Group[S]) Members() []Member[S] { return g.members }

// Next returns where the search for a member begins this time: 0, 1, 2 and so on, to be
// taken modulo the number of members. It goes on when members join and leave.
func (g *Group[S]) Next() int {
	return int((g.turn.Add(1) - 1) & math.MaxInt)
}
