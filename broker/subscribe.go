package broker

import (
	"slices"
	"strings"
	"sync/atomic"

	"muster/broker/thingsboard"
	"muster/broker/topic"
	"muster/broker/wire"
)

// maxFilters is how many filters one SUBSCRIBE may have; more are refused.
const maxFilters = 256

// subscribe handles a SUBSCRIBE. SUBACK leaves when the subscriptions of a kept
// session are durable; retained messages may come before it.
func (c *conn) subscribe(sc *scratch, p *wire.SubscribePacket) error {
	if err := c.roomForState(sc); err != nil {
		return err
	}
	asked := c.allowed.Load()
	codes := make([]byte, len(p.Subs))
	var made []subscription
	reason := ""
	for i := range p.Subs {
		x, code, why := c.subscription(&p.Subs[i], p.Identifier, len(made))
		codes[i] = code
		if code >= wire.CodeUnspecified {
			reason = firstOf(reason, why)
			continue
		}
		made = append(made, x)
	}
	id, d := p.ID, c.dialect
	var open atomic.Int32
	open.Store(2) // durable, and the retained messages of this moment known
	suback := func(err error) {
		if err == nil && open.Add(-1) == 0 {
			c.add(nil, func(b []byte) []byte { return d.AppendSuback(b, id, codes, reason) })
		}
	}
	fresh, ok := c.sess.addSubscriptions(c, made, suback)
	if !ok {
		return errGone
	}
	if c.allowed.Load() != asked { // changed meanwhile, when these were not there to be looked at
		if err := c.recheck(); err != nil {
			return err
		}
	}
	shown := make([][]*retained, len(made))
	for i := range made {
		if x := &made[i]; x.shows(fresh[i]) && x.tb == nil && (!x.apart || x.kids) {
			shown[i] = c.b.retained.shown(c.sess.fullFilter(x))
		}
	}
	suback(nil) // what is retained once it is seen comes as a message only
	for i := range made {
		x := &made[i]
		if !x.shows(fresh[i]) {
			continue
		}
		c.sess.show(&sc.kicks, shown[i], x)
		c.tellStates(&sc.kicks, x, false)
	}
	c.tellReady(made)
	return nil
}

// shows says whether what is retained is sent for a subscription that was made.
func (x *subscription) shows(fresh bool) bool {
	return x.group == "" && x.RetainHandling != 2 && (x.RetainHandling != 1 || fresh)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// subscription decides on one filter. made counts those of the packet that passed.
func (c *conn) subscription(s *wire.Sub, identifier uint32, made int) (x subscription, code byte, why string) {
	group, filter, ok := topic.SplitShare(s.Filter)
	if !ok {
		return x, wire.CodeBadFilter, "malformed $share filter"
	}
	if why := topic.CheckFilter(filter); why != "" {
		return x, wire.CodeBadFilter, why
	}
	x, why = c.allowed.Load().subscribe(filter)
	if why != "" && thingsboard.Is(filter) && filter != provisionResponseTB {
		return x, wire.CodeBadFilter, why
	}
	if why == "" && x.tb != nil && group != "" {
		return x, wire.CodeBadFilter, "ThingsBoard's topics are not shared"
	}
	if why == "" && group != "" && c.allowed.Load().who.May != nil {
		return x, wire.CodeNotAuthorized, "what is for some devices only is not shared"
	}
	if why == "" && x.kids && group != "" {
		return x, wire.CodeNotAuthorized, "what is for a gateway's children is not shared"
	}
	if why != "" {
		return x, wire.CodeNotAuthorized, why
	}
	x.group = strings.Clone(group)
	x.filter = intern(x.filter)
	x.Options = topic.Options{
		QoS: s.QoS, NoLocal: s.NoLocal, RetainAsPublished: s.RetainAsPublished,
		RetainHandling: s.RetainHandling, Identifier: identifier,
	}
	subs := c.sess.state.Load().subs
	known := slices.ContainsFunc(subs, func(y subscription) bool { return y.same(&x) })
	if made >= maxFilters || !known && len(subs)+made >= c.b.cfg.MaxSubscriptions {
		return x, wire.CodeQuota, "too many subscriptions"
	}
	return x, x.QoS, ""
}

func (x *subscription) same(y *subscription) bool {
	return x.own == y.own && x.group == y.group && x.filter == y.filter && x.spelled() == y.spelled()
}

// named says whether a client means the subscription by a filter, which own has split.
func (x *subscription) named(filter, canonical, rest string, own bool) bool {
	switch {
	case x.tb != nil:
		return x.tb.Filter == filter
	case x.own:
		return own && x.filter == rest
	}
	return x.filter == canonical
}

// fullFilter is a subscription's filter as the general index would have it.
func (s *session) fullFilter(x *subscription) string {
	if x.own {
		return deviceTopics + string(s.device) + "/" + x.filter
	}
	return x.filter
}

// addSubscriptions makes subscriptions or replaces what they were. fresh says of each
// whether it was new. ok is false when the session is not c's any more; else done is
// told when they are durable.
func (s *session) addSubscriptions(c *conn, made []subscription, done func(error)) (fresh []bool, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c || s.ended {
		return nil, false
	}
	if len(made) == 0 {
		done(nil)
		return nil, true
	}
	st := *s.state.Load()
	st.subs = slices.Clone(st.subs)
	fresh = make([]bool, len(made))
	for i := range made {
		x := &made[i]
		at := slices.IndexFunc(st.subs, func(y subscription) bool { return y.same(x) })
		fresh[i] = at < 0
		if at < 0 {
			st.subs = append(st.subs, *x)
		} else {
			if st.subs[at].kids != x.kids {
				s.leave(&st.subs[at]) // what it may hear is another now
			}
			st.subs[at] = *x
		}
		s.enter(x)
	}
	st.subs = slices.Clip(st.subs)
	if s.kept && slices.EqualFunc(st.subs, s.state.Load().subs, subscription.equal) { // nothing to write down but what may be on its way
		s.b.journal.Write(nothing(), nil, nil, done)
		return fresh, true
	}
	s.setState(&st, done)
	return fresh, true
}

// enter puts a subscription into the general index, where it belongs there: all but
// a device's own topics, which are found by the device, unless they are shared.
func (s *session) enter(x *subscription) {
	if (!x.own || x.group != "") && !x.apart {
		s.b.index.Subscribe(x.group, s.fullFilter(x), s, x.Options)
	}
}

func (s *session) leave(x *subscription) {
	if (!x.own || x.group != "") && !x.apart {
		s.b.index.Unsubscribe(x.group, s.fullFilter(x), s)
	}
}

// unsubscribe handles an UNSUBSCRIBE.
func (c *conn) unsubscribe(sc *scratch, p *wire.UnsubscribePacket) error {
	if err := c.roomForState(sc); err != nil {
		return err
	}
	codes := make([]byte, len(p.Filters))
	var gone []subscription
	for i, f := range p.Filters {
		group, filter, _ := topic.SplitShare(f)
		canonical, rest, own := c.allowed.Load().own(filter)
		codes[i] = wire.CodeNoSubscription
		for _, x := range c.sess.state.Load().subs {
			if x.group == group && x.named(filter, canonical, rest, own) {
				gone = append(gone, x)
				codes[i] = wire.CodeSuccess
				break
			}
		}
	}
	id, d := p.ID, c.dialect
	c.sess.removeSubscriptions(gone, func(err error) {
		if err == nil {
			c.add(nil, func(b []byte) []byte { return d.AppendUnsuback(b, id, codes) })
		}
	})
	return nil
}

// roomForState waits until a session's record, which may be 200 KiB, can be written.
func (c *conn) roomForState(sc *scratch) error {
	if !c.b.journal.Full() {
		return nil
	}
	sc.kicks.flush(c.b)
	if c.b.journal.Room(life{c}) != nil {
		return errGone
	}
	return nil
}

// removeSubscriptions ends subscriptions. done is told when that is durable.
func (s *session) removeSubscriptions(gone []subscription, done func(error)) {
	s.mu.Lock()
	if len(gone) == 0 || s.ended {
		s.mu.Unlock()
		if done != nil {
			done(nil)
		}
		return
	}
	st := *s.state.Load()
	var left []subscription
	for i := range st.subs {
		if slices.ContainsFunc(gone, func(y subscription) bool { return y.same(&st.subs[i]) }) {
			s.leave(&st.subs[i])
			continue
		}
		left = append(left, st.subs[i])
	}
	st.subs = left
	s.setState(&st, done)
	shared := s.takeShared(gone)
	s.mu.Unlock()
	if len(shared) > 0 {
		s.b.redirect(s, shared)
	}
}

// takeShared removes the copies that wait for the session because of shared
// subscriptions it has left. The session's lock must be held.
func (s *session) takeShared(gone []subscription) []entry {
	if s.q == nil || !slices.ContainsFunc(gone, func(x subscription) bool { return x.group != "" }) {
		return nil
	}
	return s.q.takeIf(func(e *entry) bool {
		return e.group != nil && slices.ContainsFunc(gone, func(x subscription) bool {
			return x.group == e.group.Name() && s.fullFilter(&x) == e.group.Filter()
		})
	})
}

// intern gives a filter memory of its own. Devices subscribe to the same few of
// their own topics, which have it already.
func intern(filter string) string {
	for _, f := range downTopics {
		if f == filter {
			return f
		}
	}
	return strings.Clone(filter)
}

// equal says whether two subscriptions are the same with all their options.
func (x subscription) equal(y subscription) bool {
	if !x.same(&y) {
		return false
	}
	x.tb, y.tb = nil, nil
	return x == y
}
