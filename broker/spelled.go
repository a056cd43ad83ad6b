package broker

import (
	"strings"

	"muster"
	"muster/broker/thingsboard"
)

// subscribeSpelled makes the subscription that a filter of ThingsBoard's means.
func subscribeSpelled(filter string) (x subscription, why string) {
	s, err := thingsboard.Subscribe(strings.Clone(filter)) // filter aliases its packet
	if err != nil {
		return x, muster.Public(err)
	}
	if s.Scope == thingsboard.Own {
		return subscription{filter: s.Rest, own: true, tb: &s}, ""
	}
	return subscription{filter: s.Filter, apart: true, tb: &s}, ""
}

// spelled is the filter as the client spelled it, but for devices/me.
func (x *subscription) spelled() string {
	if x.tb != nil {
		return x.tb.Filter
	}
	return x.filter
}

// spelledRest is childRest of a subscription at ThingsBoard's topics.
func spelledRest(tb *thingsboard.Subscription) (rest string, ok bool) {
	if tb == nil || tb.Scope != thingsboard.Children {
		return "", false
	}
	return tb.Rest, true
}

// deliverSpelled is deliverLive for a subscription at ThingsBoard's topics: one message
// may become none, or several.
func (s *session) deliverSpelled(r *route, x *subscription, o copyOf) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.conn == nil {
		return false
	}
	if o.life == liveState {
		s.pass(r.m.topic)
	}
	return s.putSpelled(r, x, o)
}

// putSpelled is deliverSpelled for a session that is locked and connected. Of state
// topics the client is told what differs from what it was told before.
func (s *session) putSpelled(r *route, x *subscription, o copyOf) bool {
	var prev []byte
	if o.life == liveState && s.showing != nil {
		prev = s.showing.told[x.told(r.m.topic)]
	}
	replies, err := x.tb.Down(r.m.topic, r.m.payload, prev)
	if err != nil {
		s.drop("untranslatable")
		return false
	}
	if o.life == liveState {
		in := s.shows()
		if in.told == nil {
			in.told = make(map[string][]byte)
		}
		in.told[x.told(r.m.topic)] = r.m.payload
	}
	sends := copyOf{qos: min(x.QoS, r.m.qos), parcel: o.parcel}
	if o.life == liveState {
		sends.life = liveUpdate
	}
	if x.Identifier > 0 {
		sends.ids = []uint32{x.Identifier}
	}
	for _, a := range replies {
		one := *r
		one.m = &message{topic: a.Topic, payload: a.Payload, qos: r.m.qos, expires: r.m.expires, owned: true}
		s.putLive(&one, sends)
	}
	return true
}

// told names what a subscription's client was told of a state topic.
func (x *subscription) told(name string) string { return x.tb.Filter + " " + name }

// untell forgets what the client was told of state topics, since some of it was lost on
// the way: it is told everything next time. The session's lock must be held.
func (s *session) untell() {
	if s.showing != nil {
		s.showing.told = nil
		s.shown()
	}
}

// setAbsent notes that a gateway's child has disconnected from it, or is back.
func (s *session) setAbsent(id muster.DeviceID, absent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !absent {
		if s.showing != nil {
			delete(s.showing.absent, id)
		}
		return
	}
	in := s.shows()
	if in.absent == nil {
		in.absent = make(map[muster.DeviceID]struct{})
	}
	in.absent[id] = struct{}{} // of its children, whom the registry bounds
}

func (s *session) isAbsent(id muster.DeviceID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.showing == nil {
		return false
	}
	_, gone := s.showing.absent[id]
	return gone
}
