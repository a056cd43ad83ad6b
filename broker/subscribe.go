package broker

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

const (
	maxFilters = 256   // in one SUBSCRIBE
	standIn    = 65535 // the packet id that mochi sees instead of the client's
	undecided  = 0xff  // no reason code: mochi grants or refuses
	markMe     = "me"  // in a mochi subscription's ShareName, which mochi does not use
)

// grant is a SUBSCRIBE or UNSUBSCRIBE on its way through mochi. mochi keeps one
// map of packet ids for both directions, so it never sees the client's.
type grant struct {
	id    uint16
	codes []byte // per filter, undecided where mochi decides
	why   string // of the first refusal
}

// subscribe handles a SUBSCRIBE: filters without rights are refused here, the
// others go on to mochi in canonical spelling. pass is false when none is left.
func (c *conn) subscribe(pk *packets.Packet) (pass bool, err error) {
	if v := pk.SubscribeValidate(); v != packets.CodeSuccess {
		c.bye(v.Code, v.Reason, causeProtocol)
		return false, packets.ErrRejectPacket
	}
	g := grant{id: pk.PacketID, codes: make([]byte, len(pk.Filters))}
	var left packets.Subscriptions
	var names []string
	for i, s := range pk.Filters {
		var why string
		s.Filter = strings.Clone(s.Filter)
		g.codes[i], why = c.subscription(&s, len(left))
		if g.codes[i] == undecided {
			left, names = append(left, s), append(names, s.Filter)
		} else if g.why == "" {
			g.why = why
		}
	}
	if len(left) == 0 {
		c.out.add(c.suback(g))
		return false, nil
	}
	c.granted = g
	c.granting.Store(&names)
	pk.Filters, pk.PacketID, pk.Properties.User = left, standIn, nil
	c.addMe(left)
	return true, nil
}

// subscription decides on one filter and puts it in its canonical spelling. taken
// counts the filters of the packet that passed.
func (c *conn) subscription(s *packets.Subscription, taken int) (code byte, why string) {
	share, filter, ok := splitShare(s.Filter)
	if !ok {
		return codeBadFilter, "malformed $share filter"
	}
	if why := checkFilter(filter); why != "" {
		return codeBadFilter, why
	}
	canonical, me, why := c.rights.subscribe(filter)
	if why != "" {
		return codeNotAuthorized, why
	}
	s.Filter = share + canonical
	if me {
		s.ShareName = []string{markMe}
	}
	subs := c.client.State.Subscriptions
	_, had := subs.Get(s.Filter)
	if taken >= maxFilters || !had && subs.Len()+taken >= c.b.cfg.MaxSubscriptions {
		return codeQuota, "too many subscriptions"
	}
	return undecided, ""
}

// suback returns the SUBACK of a SUBSCRIBE that is refused whole.
func (c *conn) suback(g grant) []byte {
	b := []byte{headSuback}
	if c.dialect.version < 5 {
		b = appendVarint(b, 2+len(g.codes))
		b = append(b, byte(g.id>>8), byte(g.id))
		for range g.codes {
			b = append(b, codeUnspecified)
		}
		return b
	}
	props := c.dialect.reasonProps(g.why)
	if props == nil || c.dialect.limit > 0 && 8+len(props)+len(g.codes) > int(c.dialect.limit) {
		props = []byte{0}
	}
	b = appendVarint(b, 2+len(props)+len(g.codes))
	b = append(b, byte(g.id>>8), byte(g.id))
	b = append(b, props...)
	return append(b, g.codes...)
}

// complete puts the client's packet id and our refusals into mochi's SUBACK.
func (c *conn) complete(pk *packets.Packet) {
	g := c.granted
	c.granted = grant{}
	c.granting.Store(nil)
	pk.PacketID = g.id
	given := pk.ReasonCodes
	for i := range g.codes {
		if g.codes[i] == undecided && len(given) > 0 {
			g.codes[i], given = given[0], given[1:]
		} else if c.dialect.version < 5 {
			g.codes[i] = codeUnspecified
		}
	}
	pk.ReasonCodes = g.codes
	if g.why != "" {
		pk.Properties.ReasonString = cutText(g.why, maxReason)
	}
}

// unsubscribe puts an UNSUBSCRIBE's filters in their canonical spelling.
func (c *conn) unsubscribe(pk *packets.Packet) {
	for i, s := range pk.Filters {
		share, filter, ok := splitShare(s.Filter)
		if !ok {
			continue // mochi finds no such subscription
		}
		canonical, _, _ := c.rights.own(filter)
		pk.Filters[i].Filter = share + canonical
	}
	c.granted = grant{id: pk.PacketID}
	pk.PacketID, pk.Properties.User = standIn, nil
}

// addMe notes which of the filters were spelled devices/me/..., before the first
// message for them can come.
func (c *conn) addMe(subs packets.Subscriptions) {
	var me []string
	if old := c.me.Load(); old != nil {
		me = append(me, *old...)
	}
	n := len(me)
	for _, s := range subs {
		if len(s.ShareName) > 0 {
			_, filter, _ := splitShare(s.Filter)
			me = append(me, filter)
		}
	}
	if len(me) > n {
		c.me.Store(&me)
	}
}

// refreshMe notes which of the session's subscriptions are spelled devices/me/....
func (c *conn) refreshMe() {
	c.me.Store(nil)
	c.addMe(slices.Collect(maps.Values(c.client.State.Subscriptions.GetAll())))
}

// spell returns topic as the matching subscription was spelled.
func (c *conn) spell(topic string) string {
	me := c.me.Load()
	if me == nil || c.rights.prefix == "" || !strings.HasPrefix(topic, c.rights.prefix) {
		return topic
	}
	if !matchesAny(*me, topic) {
		return topic
	}
	return ownTopics + topic[len(c.rights.prefix):]
}

// taps counts the subscriptions that can match a telemetry topic, so that nothing
// is copied for nobody. It holds at most MaxSubscriptions per session.
type taps struct {
	any atomic.Bool

	mu   sync.Mutex
	subs map[tap]struct{}
}

type tap struct{ key, filter string }

const anyTelemetry = "devices/+/telemetry/#"

func (t *taps) set(key, filter string, on bool) {
	_, plain, _ := splitShare(filter)
	if !overlaps(plain, anyTelemetry) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if on {
		t.subs[tap{key, filter}] = struct{}{}
	} else {
		delete(t.subs, tap{key, filter})
	}
	t.any.Store(len(t.subs) > 0)
}

// validText says whether a string from the wire may be shown and kept.
func validText(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.ContainsRune(s, 0)
}

// checkPublish returns why a topic that another room publishes to is none.
func checkPublish(topic string, qos byte) error {
	if why := checkSize(topic); why != "" {
		return muster.Errorf(muster.Invalid, "publish: %s", why)
	}
	if strings.ContainsAny(topic, "+#\x00") || qos > 2 {
		return muster.Errorf(muster.Invalid, "publish: a topic with wildcards, or no such QoS")
	}
	return nil
}
