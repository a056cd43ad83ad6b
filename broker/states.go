package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/broker/topic"
	"muster/internal/lifecycle"
)

// PublishState tells the clients that are connected and subscribe to a state topic
// what it is at now. Those that are away are told when they come back: see States,
// where the change must be visible before. The changes of one topic must be given in
// their order. payload must not be changed afterwards. It waits for nobody. A topic
// that is none of States' is Invalid, a broker that does not run Unavailable.
func (b *Broker) PublishState(ctx context.Context, name string, payload []byte) error {
	id, rest, ok := splitDevice(name)
	if !ok || !isState(rest) {
		return muster.Errorf(muster.Invalid, "publish state: %q is no state topic", name)
	}
	if !b.running() {
		return muster.Errorf(muster.Unavailable, "publish state: the MQTT broker does not run")
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish state: %w", err)
	}
	var k kicks
	r := route{b: b, m: stateMessage(name, payload), kicks: &k, now: b.clock.Load()}
	for s := range b.sessions.of(ownerOf(id, "")) {
		s.deliverOwnLive(&r, rest, copyOf{life: liveState})
	}
	if gateway := b.auth.Parent(id); gateway != "" {
		for s := range b.sessions.of(ownerOf(gateway, "")) {
			s.deliverChild(&r, id, rest, copyOf{life: liveState})
		}
	}
	hit := b.index.Match(name)
	for i := range hit.Plain {
		t := &hit.Plain[i]
		t.Owner.deliverLive(&r, r.liveCopy(t, copyOf{life: liveState}), nil)
	}
	for _, g := range hit.Shared {
		r.toGroupLive(g, copyOf{life: liveState}, func(*session) bool { return true })
	}
	k.flush(b)
	return nil
}

// stateMessage makes the message of a state topic: like a retained one, of QoS 1.
func stateMessage(name string, payload []byte) *message {
	return &message{topic: name, payload: payload, qos: 1, retain: true, owned: true}
}

// stateTopics returns the state topics that a subscription's full filter matches; wild
// says that it may match those of many devices.
func stateTopics(filter string) (names []string, wild bool) {
	tail, ok := strings.CutPrefix(filter, deviceTopics)
	id, _, _ := strings.Cut(tail, "/")
	if _, err := muster.ParseDeviceID(id); !ok || err != nil {
		return nil, topic.Overlaps(filter, deviceTopics+"+/"+stateDesired) || topic.Overlaps(filter, deviceTopics+"+/"+statePresence)
	}
	for _, rest := range [...]string{stateDesired, statePresence} {
		if name := deviceTopics + id + "/" + rest; topic.Matches(filter, name) {
			names = append(names, name)
		}
	}
	return names, false
}

// showing is what a session's clients are being told of state topics because they
// subscribed or came back. It is there only while that goes on.
type showing struct {
	looks   []*look // of topics whose state is being looked up
	wild    []show  // filters whose topics are told one after another
	running bool    // somebody tells them

	// What ThingsBoard's clients were told of state topics, by filter and topic, and the
	// children that a gateway said have disconnected; both of the connection.
	told   map[string][]byte
	absent map[muster.DeviceID]struct{}
}

// look notes whether a topic has changed, and the session was told, while its state
// was looked up: then what was found may be old, and is not told after it.
type look struct {
	topic  string
	passed bool
}

// show is a subscription whose states a client is told.
type show struct {
	c     *conn
	x     subscription
	again bool              // the client came back: all its subscriptions together give one copy
	only  []muster.DeviceID // of a gateway's children these, which have just become so; nil for all
}

// tellStates tells the client what the state topics are at that its subscription
// matches: few at once, and many as it takes them, by a goroutine that ends with them
// or with the connection.
func (c *conn) tellStates(k *kicks, x *subscription, again bool) {
	behind := x.meansChild(stateDesired) || x.meansChild(statePresence)
	if c.b.cfg.States == nil || x.group != "" || x.apart && !behind {
		return
	}
	s := c.sess
	w := show{c: c, x: *x, again: again}
	names, wild := stateTopics(s.fullFilter(x))
	for _, name := range names {
		s.showState(k, &w, name)
	}
	if wild || behind {
		s.tellWild(w)
	}
}

// tellWild has a goroutine tell what a wild subscription matches.
func (s *session) tellWild(w show) {
	s.mu.Lock()
	if s.conn != w.c {
		s.mu.Unlock()
		return
	}
	in := s.shows()
	in.wild = slices.DeleteFunc(in.wild, func(y show) bool { return y.c != w.c || y.x.same(&w.x) && w.only == nil })
	in.want(w)
	begin := !in.running
	in.running = true
	s.mu.Unlock()
	if begin {
		s.b.work.start(s.runShows) // else the broker stops
	}
}

// want adds w to what is to be told: to what waits of the same subscription, if there
// is any.
func (in *showing) want(w show) {
	i := slices.IndexFunc(in.wild, func(y show) bool { return y.x.same(&w.x) })
	switch {
	case i < 0:
		in.wild = append(in.wild, w)
	case in.wild[i].only == nil: // all are told, these too
	case len(in.wild[i].only)+len(w.only) > maxOnly:
		in.wild[i].only = nil
	default:
		in.wild[i].only = append(in.wild[i].only, w.only...)
	}
}

// maxOnly is how many new children of one gateway wait to be told of by name; with
// more, all its children are.
const maxOnly = 1000

// eachState yields the state topics that a wild subscription is for.
func (s *session) eachState(w *show, yield func(name string) bool) {
	if w.x.apart {
		s.eachChildState(&w.x, w.only, yield)
		return
	}
	s.b.cfg.States.Each(s.fullFilter(&w.x), yield)
}

// shows returns what is being told, which is there from now on. The session's lock
// must be held.
func (s *session) shows() *showing {
	if s.showing == nil {
		s.showing = new(showing)
	}
	return s.showing
}

// shown forgets what is not needed any more. The session's lock must be held.
func (s *session) shown() {
	if in := s.showing; in != nil && len(in.looks) == 0 && !in.running && in.told == nil && len(in.absent) == 0 {
		s.showing = nil
	}
}

// runShows tells what wild subscriptions match.
func (s *session) runShows() {
	for {
		s.mu.Lock()
		in := s.shows()
		if len(in.wild) == 0 {
			in.running = false
			s.shown()
			s.mu.Unlock()
			return
		}
		w := in.wild[0]
		in.wild = in.wild[1:]
		s.mu.Unlock()
		if err := lifecycle.Guard(func() error { s.runShow(&w); return nil }); err != nil {
			s.b.panicked(err)
		}
	}
}

func (s *session) runShow(w *show) {
	var k kicks
	defer k.flush(s.b)
	s.eachState(w, func(name string) bool {
		return s.awaitRoom(&k, w.c) && s.subscribes(&w.x) && s.showState(&k, w, name)
	})
}

// awaitRoom waits until the client has taken most of what it was sent. It says false
// when the connection has ended.
func (s *session) awaitRoom(k *kicks, c *conn) bool {
	for {
		s.mu.Lock()
		if s.conn != c || s.ended {
			s.mu.Unlock()
			return false
		}
		if !c.pressed() && (s.q == nil || s.q.waiting.len() <= s.b.cfg.MaxQueued/4) {
			s.mu.Unlock()
			return true
		}
		if s.relief == nil {
			s.relief = make(chan struct{})
		}
		relief := s.relief
		s.mu.Unlock()
		k.flush(s.b)
		select {
		case <-relief:
		case <-c.ended():
		}
	}
}

// subscribes says whether the subscription is still there.
func (s *session) subscribes(x *subscription) bool {
	return slices.ContainsFunc(s.state.Load().subs, x.equal)
}

// showState tells w's connection what a topic is at, unless a change of it has passed
// meanwhile. It says false when the connection is not the session's any more.
func (s *session) showState(k *kicks, w *show, name string) bool {
	o, ok := s.showCopy(w, name)
	if !ok {
		return true
	}
	l := &look{topic: name}
	s.mu.Lock()
	if s.conn != w.c || s.ended {
		s.mu.Unlock()
		return false
	}
	in := s.shows()
	in.looks = append(in.looks, l)
	s.mu.Unlock()
	payload, has := s.b.cfg.States.State(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	in.looks = slices.DeleteFunc(in.looks, func(y *look) bool { return y == l })
	s.shown()
	if s.conn != w.c || s.ended {
		return false
	}
	if !has || l.passed {
		return true
	}
	r := route{b: s.b, m: stateMessage(name, payload), kicks: k, now: s.b.clock.Load()}
	if w.x.tb != nil {
		delete(in.told, w.x.told(name)) // all of it
		s.putSpelled(&r, &w.x, copyOf{life: liveState})
		return true
	}
	s.putLive(&r, o)
	return true
}

// showCopy makes the copy of what a topic is at. A client that came back gets one,
// with the first of its subscriptions that matches.
func (s *session) showCopy(w *show, name string) (o copyOf, ok bool) {
	m := message{topic: name, qos: 1}
	if !w.again || w.x.tb != nil {
		o.take(&w.x, &m)
	} else {
		first := true
		for _, x := range s.state.Load().subs {
			if x.group != "" || x.apart && !x.kids || x.tb != nil || !s.gets(&x, name) {
				continue
			}
			if first && !x.equal(w.x) {
				return o, false
			}
			first = false
			o.take(&x, &m)
		}
		if first {
			return o, false
		}
	}
	o.retain, o.life, o.stored = true, liveState, true
	return o, true
}

// comeBack tells a client whose session was kept what its subscriptions are at.
func (c *conn) comeBack(sc *scratch) {
	for _, x := range c.sess.state.Load().subs {
		c.tellStates(&sc.kicks, &x, true)
	}
	c.tellReady(c.sess.state.Load().subs)
}
