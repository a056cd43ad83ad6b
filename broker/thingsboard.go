package broker

import (
	"context"
	"fmt"
	"strings"

	"muster"
	"muster/broker/thingsboard"
	"muster/broker/topic"
	"muster/broker/wire"
)

// Children is what gateways say of the devices behind them.
type Children interface {
	// Adopt makes a device that no gateway has the child of gateway, and creates it when
	// there is none. It is called for an Identity that Brings, on the connection's own
	// goroutine, and may block until ctx ends. Afterwards Authenticator.Parent says so.
	// A Forbidden or Invalid error is answered from memory.
	Adopt(ctx context.Context, gateway muster.DeviceID, child thingsboard.Child) error
	// Behind returns the children of a gateway.
	Behind(gateway muster.DeviceID) []muster.DeviceID
	// Present is told that a gateway said of its child that it has connected, or has
	// disconnected. It must not block.
	Present(gateway, child muster.DeviceID, on bool)
}

// Codes of messages that are refused because of what is in them.
const refusedMalformed = "malformed"

// partMalformed is what a ThingsBoard client is told of a request for a part that is none.
const partMalformed = "BAD_REQUEST"

// translate handles a PUBLISH at one of ThingsBoard's topics, as the messages of ours
// that it means. Nothing of it is retained.
func (c *conn) translate(sc *scratch, p *wire.PublishPacket, name string) error {
	p.Retain = false
	res, err := thingsboard.Up(name, c.sess.device, p.Payload)
	if err != nil {
		if why := thingsboard.PartRefusal(name); why != "" { // who asks at QoS 0 hears of it nowhere else
			c.Answer(Answer{Topic: why, Payload: []byte(partMalformed)})
		}
		return c.refuseFor(sc, p, name, err)
	}
	if len(res.Messages) == 1 && len(res.Requests)+len(res.Refused) == 0 && res.Connect == nil && res.Disconnect == nil {
		m := &res.Messages[0]
		dst := c.meant(sc, m)
		p.Payload = m.Payload
		switch dst.place {
		case placeSink:
			return c.hand(sc, p, dst)
		case placeRelay:
			return c.relay(sc, p, dst.topic)
		case placeNone, placeSpelled, placeAside:
		}
		return c.refuseFor(sc, p, name, muster.Errorf(muster.Forbidden, "%s", dst.why))
	}
	return c.handAll(sc, p, name, &res)
}

// meant says where a message of ours goes that ThingsBoard's means.
func (c *conn) meant(sc *scratch, m *thingsboard.Message) destination {
	if err := c.speakFor(sc, thingsboard.Child{Device: m.Device, Name: m.Name}); err != nil {
		return refuse(muster.Public(err))
	}
	return c.allowed.Load().publish(m.Topic)
}

// speakFor makes sure that the client may speak for a device: itself, or a child, which
// it may have brought with it just now.
func (c *conn) speakFor(sc *scratch, who thingsboard.Child) error {
	r := c.allowed.Load()
	switch {
	case who.Device == r.who.Device, r.isParentOf(who.Device):
		return nil
	case !r.who.Brings || c.b.cfg.Children == nil:
		return muster.Errorf(muster.Forbidden, "the device %s is not behind this gateway", who.Device)
	}
	sc.kicks.flush(c.b) // Adopt may block
	if err := c.b.cfg.Children.Adopt(life{c}, r.who.Device, who); err != nil {
		return fmt.Errorf("bring a device along: %w", err)
	}
	if !r.isParentOf(who.Device) {
		return muster.Errorf(muster.Forbidden, "the device %s is not behind this gateway", who.Device)
	}
	return nil
}

// brought is where a message goes that was refused, dst, and that a gateway published
// for a child of it: one that it may bring with it is brought now.
func (c *conn) brought(sc *scratch, name string, dst destination) destination {
	id, rest, ok := splitDevice(name)
	if !ok || !c.allowed.Load().who.Brings || id == c.sess.device || topic.CheckName(name) != "" {
		return dst
	}
	if _, sink, why := taken(rest); why != "" || !sink && !isUp(rest) {
		return dst
	}
	c.lastRaw = ""                                  // what is known of the topic may not hold any more
	id = muster.DeviceID(strings.Clone(string(id))) // it aliases its packet, and is kept from now on
	if err := c.speakFor(sc, thingsboard.Child{Device: id}); err != nil {
		return refuse(muster.Public(err))
	}
	return c.destination(name)
}

// handAll handles a PUBLISH that means several messages, or others than messages. It is
// acknowledged when all of them are decided.
func (c *conn) handAll(sc *scratch, p *wire.PublishPacket, name string, res *thingsboard.Result) error {
	var x *bundle
	n := len(res.Messages)
	if p.QoS > 0 {
		token, ok := c.reserve(sc, p.ID, p.QoS, nil)
		if !ok {
			return c.abandon(p)
		}
		x = newBundle(c, token, n+1)
	}
	sc.kicks.flush(c.b) // Accept may block
	for i := range res.Messages {
		if !c.handPart(sc, p, x, i, &res.Messages[i]) {
			if x != nil {
				c.settle(&sc.kicks, x.token, muster.Errorf(muster.Busy, "the connection has ended"))
			}
			return errGone
		}
	}
	for i := range res.Refused {
		c.keepRefused(name, res.Refused[i].Payload, res.Refused[i].Err)
	}
	var err error
	for i := range res.Requests {
		err = firstError(err, c.ask(sc, p, name, &res.Requests[i]))
	}
	if res.Connect != nil {
		err = firstError(err, c.childCame(sc, *res.Connect))
	}
	if res.Disconnect != nil {
		err = firstError(err, c.childLeft(res.Disconnect.Device))
	}
	if err != nil {
		c.keepRefused(name, p.Payload, err)
	}
	if x != nil {
		x.settle(&sc.kicks, uint64(n), err)
	}
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// handPart hands on one message of a bundle, nil for QoS 0. It says false when the
// connection ends meanwhile.
func (c *conn) handPart(sc *scratch, p *wire.PublishPacket, x *bundle, i int, m *thingsboard.Message) bool {
	dst := c.meant(sc, m)
	if dst.place != placeSink && dst.place != placeRelay {
		err := muster.Errorf(muster.Forbidden, "%s", dst.why)
		c.keepRefused(m.Topic, m.Payload, err)
		settlePart(sc, x, i, err)
		return true
	}
	one := *p
	one.Payload = m.Payload
	var out *message
	if dst.place == placeRelay || c.wanted(dst.topic) {
		if !c.journalRoom(sc, &one, dst.topic) {
			return false
		}
		out = c.messageOf(&one, dst.topic)
		out.own()
	}
	if dst.place == placeRelay {
		c.b.deliver(out, &sc.kicks, c)
		settlePart(sc, x, i, nil)
		return true
	}
	in := c.taken(&one, dst)
	if x != nil {
		in.From, in.Token = x, uint64(i)
		x.parts[i].copy = out
	}
	switch err := c.b.sink.Accept(life{c}, in); {
	case err != nil && x == nil:
		c.b.metrics.dropped.WithLabelValues("sink").Inc()
	case err != nil:
		settlePart(sc, x, i, err)
	case x == nil && out != nil:
		c.b.deliver(out, &sc.kicks, c)
	}
	return true
}

func settlePart(sc *scratch, x *bundle, i int, err error) {
	if x != nil {
		x.settle(&sc.kicks, uint64(i), err)
	}
}

// ask hands a request on, or answers it.
func (c *conn) ask(sc *scratch, p *wire.PublishPacket, name string, q *thingsboard.Request) error {
	if q.Kind == thingsboard.AskProvision {
		return muster.Errorf(muster.Forbidden, "a device that is known cannot be provisioned again")
	}
	if err := c.speakFor(sc, thingsboard.Child{Device: q.Device, Name: q.Name}); err != nil {
		return err
	}
	if q.Kind == thingsboard.AskLimits {
		rate := c.rateOf()
		a := q.Limits(thingsboard.Limits{
			MaxPayload: c.b.cfg.MaxPacket, MaxInflight: c.b.cfg.Window, Messages: fmt.Sprintf("%d:1", rate.Messages), Gateway: c.allowed.Load().isGateway(),
		})
		c.Reply(a.Topic, a.Payload)
		return nil
	}
	dst := destination{kind: KindRequest, topic: name, device: q.Device}
	if q.Device != c.sess.device {
		dst.by = c.sess.device
	}
	m := c.taken(p, dst)
	m.Ask = q
	if err := c.b.sink.Accept(life{c}, m); err != nil {
		c.b.metrics.dropped.WithLabelValues("sink").Inc()
	}
	return nil
}

// childCame notes that a gateway has a child connected, and tells what is there for it.
func (c *conn) childCame(sc *scratch, child thingsboard.Child) error {
	if err := c.speakFor(sc, child); err != nil {
		return err
	}
	c.sess.setAbsent(child.Device, false)
	if c.b.cfg.Children != nil {
		c.b.cfg.Children.Present(c.sess.device, child.Device, true)
	}
	for _, x := range c.sess.state.Load().subs {
		if x.tb == nil || x.tb.Scope != thingsboard.Children {
			continue
		}
		if x.tb.Rest == stateDesired && c.b.cfg.States != nil {
			c.sess.showState(&sc.kicks, &show{c: c, x: x}, x.tb.Canonical(child.Device))
		}
		if x.tb.Rest == readyTopics && c.b.cfg.Ready != nil {
			c.b.cfg.Ready(child.Device, false)
		}
		if x.tells(readyFirmware) && c.b.cfg.Updates != nil {
			c.b.cfg.Updates(child.Device, false)
		}
	}
	return nil
}

// childLeft notes that a gateway has lost a child.
func (c *conn) childLeft(child muster.DeviceID) error {
	if !c.allowed.Load().isParentOf(child) {
		return muster.Errorf(muster.Forbidden, "the device %s is not behind this gateway", child)
	}
	c.sess.setAbsent(child, true)
	if c.b.cfg.Children != nil {
		c.b.cfg.Children.Present(c.sess.device, child, false)
	}
	return nil
}

// refuseFor keeps a message as rejected because of what is in it, and acknowledges it.
func (c *conn) refuseFor(sc *scratch, p *wire.PublishPacket, name string, err error) error {
	c.keepRefused(name, p.Payload, err)
	if p.QoS == 0 {
		return nil
	}
	token, ok := c.reserve(sc, p.ID, p.QoS, nil)
	if !ok {
		return c.abandon(p)
	}
	c.settle(&sc.kicks, token, err)
	return nil
}

// keepRefused has what a device published kept as rejected.
func (c *conn) keepRefused(name string, payload []byte, err error) {
	code := refusedMalformed
	switch {
	case muster.KindOf(err) == muster.TooLarge:
		code = refusedTooLarge
	case codeOf(err) == wire.CodeNotAuthorized:
		code = refusedTopic
	}
	c.b.metrics.refused.WithLabelValues(code).Inc()
	c.b.sink.Refuse(Message{Device: c.sess.device, Topic: name, Payload: payload}, code, muster.Public(err), len(payload))
}

// provisionAsked returns what a ThingsBoard client asks for that is to be provisioned,
// nil when that is malformed.
func provisionAsked(payload []byte) *thingsboard.Request {
	res, err := thingsboard.Up(provisionRequestTB, "", payload)
	if err != nil || len(res.Requests) != 1 {
		return nil
	}
	return &res.Requests[0]
}
