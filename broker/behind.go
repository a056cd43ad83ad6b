package broker

import (
	"slices"
	"strings"

	"muster"
	"muster/broker/topic"
)

// childTopics begins the filters by which a gateway subscribes to topics of all its
// children at once. They look like wildcards, and mean its own children only.
const childTopics = deviceTopics + "+/"

// behind says whether filter is one by which a gateway may subscribe to topics of all its
// children.
func behind(filter string) bool {
	rest, ok := strings.CutPrefix(filter, childTopics)
	return ok && coveredBy(downTopics[:], rest)
}

// childRest is what of its children's topics the subscription is for, behind
// devices/{id}/; ok is false when it is for no child's.
func (x *subscription) childRest() (rest string, ok bool) {
	if x.kids {
		return x.filter[len(childTopics):], true
	}
	return spelledRest(x.tb)
}

// meansChild says whether the subscription, a gateway's, is for topics of its children
// that stand behind devices/{id}/ as rest does.
func (x *subscription) meansChild(rest string) bool {
	filter, ok := x.childRest()
	return ok && (topic.Matches(filter, rest) || x.tells(rest))
}

// tells says whether a subscription at ThingsBoard's topics is told of what stands behind
// devices/{id}/, in other words, beside what it is for.
func (x *subscription) tells(rest string) bool { return x.tb != nil && x.tb.Tells(rest) }

// gets says whether a message at a topic, which no ThingsBoard client spells, is for
// the session by one of its subscriptions.
func (s *session) gets(x *subscription, name string) bool {
	if !topic.Matches(s.fullFilter(x), name) {
		return false
	}
	if !x.kids {
		return true
	}
	id, _, ok := splitDevice(name)
	return ok && s.b.auth.Parent(id) == s.device
}

// speaks says whether a device is a gateway: it has children, or may bring some.
func (b *Broker) speaks(who Identity) bool {
	return who.Brings || who.Device != "" && b.cfg.Children != nil && len(b.cfg.Children.Behind(who.Device)) > 0
}

// rightsOf makes the rights of an identity.
func (b *Broker) rightsOf(who Identity) *rights {
	r := newRights(who, b.auth.Parent)
	r.speaks = b.speaks
	return r
}

// childCopy makes o the one copy of a message at a child's topic that the session's
// subscriptions to devices/+/... give it. It says false when there are none.
func (s *session) childCopy(r *route, rest string, o *copyOf) (hit bool) {
	subs := s.state.Load().subs
	for i := range subs {
		x := &subs[i]
		if !x.kids || !x.meansChild(rest) || x.NoLocal && r.m.from == s {
			continue
		}
		o.take(x, r.m)
		hit = true
	}
	return hit
}

// deliverChild delivers to a gateway that is connected what is for a child of it: as it
// is, and as ThingsBoard spells it.
func (s *session) deliverChild(r *route, id muster.DeviceID, rest string, o copyOf) (took bool) {
	if own := o; s.childCopy(r, rest, &own) {
		took = s.deliverLive(r, own, nil)
	}
	subs := s.state.Load().subs
	for i := range subs {
		if x := &subs[i]; x.tb != nil && x.meansChild(rest) && !s.isAbsent(id) {
			took = s.deliverSpelled(r, x, o) || took
		}
	}
	return took
}

// toGateway delivers a message at a topic of a device to its gateway.
func (r *route) toGateway(id muster.DeviceID, rest string) {
	gateway := r.b.auth.Parent(id)
	if gateway == "" {
		return
	}
	for s := range r.b.sessions.of(ownerOf(gateway, "")) {
		var o copyOf
		if s.childCopy(r, rest, &o) {
			s.deliver(r, o)
		}
	}
}

// eachChildState yields the state topics of its children that a gateway's subscription
// is for: of those in only, of all when that is nil.
func (s *session) eachChildState(x *subscription, only []muster.DeviceID, yield func(name string) bool) {
	if only == nil && s.b.cfg.Children != nil {
		only = s.b.cfg.Children.Behind(s.device)
	}
	for _, id := range only {
		if s.b.auth.Parent(id) != s.device || x.tb != nil && s.isAbsent(id) {
			continue
		}
		for _, rest := range [...]string{stateDesired, statePresence} {
			if x.meansChild(rest) && !yield(deviceTopics+string(id)+"/"+rest) {
				return
			}
		}
	}
}

// ChildrenCame tells the gateways that listen for all their children (devices/+/...)
// what is there for devices that have become their children: what their state topics
// are at, and Ready. It is called when Authenticator.Parent says so, and waits for
// nobody. It does nothing when the broker does not run.
func (b *Broker) ChildrenCame(ids []muster.DeviceID) {
	if !b.running() {
		return
	}
	families := make(map[muster.DeviceID][]muster.DeviceID)
	for _, id := range ids {
		if gateway := b.auth.Parent(id); gateway != "" {
			families[gateway] = append(families[gateway], id)
		}
	}
	for gateway, children := range families {
		for s := range b.sessions.of(ownerOf(gateway, "")) {
			s.childrenCame(children)
		}
	}
}

func (s *session) childrenCame(ids []muster.DeviceID) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c == nil {
		return // it is told everything when it comes back
	}
	for _, x := range s.state.Load().subs {
		if !x.kids {
			continue // who connects by ThingsBoard's topics names its children
		}
		if s.b.cfg.States != nil && (x.meansChild(stateDesired) || x.meansChild(statePresence)) {
			s.tellWild(show{c: c, x: x, only: slices.Clone(ids)})
		}
		for _, l := range s.b.hearers() {
			if l.tell == nil || !l.wants(&x, x.filter, childTopics) {
				continue
			}
			for _, id := range ids {
				l.tell(id, false)
			}
		}
	}
}
