package broker

import (
	"strings"

	"muster"
	"muster/broker/topic"
	"muster/broker/wire"
)

// Send sends a message to the connected clients of a device, and of its gateway, that
// subscribe to its topic; with QoS 1 where they subscribe with 1 or 2. It is kept for
// nobody who is away. It says false when nobody listens, and for a message that has
// expired or a topic that is not the device's: then Done is not called.
func (b *Broker) Send(d Delivery) bool {
	rest, ok := strings.CutPrefix(d.Topic, deviceTopics+string(d.Device)+"/")
	if !ok || topic.CheckName(d.Topic) != "" || !b.running() || !b.work.enter() {
		return false
	}
	defer b.work.leave() // Stop waits, so that no outcome comes after it
	var k kicks
	r := route{b: b, m: d.message(), kicks: &k, now: b.clock.Load()}
	if r.m.expired(r.now) {
		return false
	}
	p := &parcel{to: b.outcomes, done: d.Done, open: 1}
	took := r.direct(d.Device, rest, p)
	k.flush(b)
	if took {
		p.end(Lost) // its own hold: what has become of the copies is better, or the same
	}
	return took
}

// message makes the message of a delivery.
func (d *Delivery) message() *message {
	m := &message{topic: d.Topic, payload: d.Payload, qos: 1, owned: true}
	if !d.Expires.IsZero() {
		m.expires = max(d.Expires.UnixMilli(), 1)
	}
	m.props = wire.AppendRequest(nil, d.ContentType, d.Response, d.Correlation)
	if rest, ok := strings.CutPrefix(d.Response, deviceTopics+string(d.Device)+"/"); ok {
		m.mine = &variant{props: wire.AppendRequest(nil, d.ContentType, ownTopics+rest, d.Correlation)}
	}
	return m
}

// direct delivers to a device and its gateway. Others that may see the topic get a copy
// each, of which nobody asks the outcome, when one of the two has one.
func (r *route) direct(id muster.DeviceID, rest string, p *parcel) (took bool) {
	for s := range r.b.sessions.of(ownerOf(id, "")) {
		took = s.deliverOwnLive(r, rest, copyOf{parcel: p}) || took
	}
	gateway := r.b.auth.Parent(id)
	meant := func(s *session) bool { return s.device != "" && (s.device == id || s.device == gateway) }
	if gateway != "" {
		for s := range r.b.sessions.of(ownerOf(gateway, "")) {
			took = s.deliverChild(r, id, rest, copyOf{parcel: p}) || took
		}
	}
	hit := r.b.index.Match(r.m.topic)
	for i := range hit.Plain {
		if t := &hit.Plain[i]; meant(t.Owner) {
			took = t.Owner.deliverLive(r, r.liveCopy(t, copyOf{parcel: p}), nil) || took
		}
	}
	for _, g := range hit.Shared {
		took = r.toGroupLive(g, copyOf{parcel: p}, meant) || took
	}
	if !took {
		return false
	}
	for i := range hit.Plain {
		if t := &hit.Plain[i]; !meant(t.Owner) {
			t.Owner.deliverLive(r, r.liveCopy(t, copyOf{}), nil)
		}
	}
	return true
}

// The topics that Config.Ready and Config.Updates are about, behind devices/{id}/.
const readyTopics, readyNotes, readyFirmware = "commands/+", "notifications", "firmware"

// hearer is somebody who is told who listens to what.
type hearer struct {
	tell  func(device muster.DeviceID, children bool) // nil for nobody
	wants func(x *subscription, filter, under string) bool
}

func (b *Broker) hearers() [2]hearer {
	return [2]hearer{{b.cfg.Ready, listens}, {b.cfg.Updates, listensForFirmware}}
}

// listens says whether a subscription's filter, which begins as under does, is for commands
// or notifications.
func listens(_ *subscription, filter, under string) bool {
	return topic.Overlaps(filter, under+readyTopics) || topic.Overlaps(filter, under+readyNotes)
}

// listensForFirmware is listens for offers of firmware.
func listensForFirmware(x *subscription, filter, under string) bool {
	return x.tells(readyFirmware) || topic.Overlaps(filter, under+readyFirmware)
}

// tellReady tells Ready and Updates for which devices subscriptions listen.
func (c *conn) tellReady(subs []subscription) {
	for _, l := range c.b.hearers() {
		if l.tell != nil {
			c.tellHearer(&l, subs)
		}
	}
}

func (c *conn) tellHearer(l *hearer, subs []subscription) {
	who := c.allowed.Load().who.Device
	if who == "" {
		return
	}
	for i := range subs {
		x := &subs[i]
		if rest, ok := x.childRest(); ok && l.wants(x, rest, "") {
			l.tell(who, true)
			continue
		}
		full := c.sess.fullFilter(x)
		if x.apart || !l.wants(x, full, deviceTopics+"+/") {
			continue
		}
		id, _, ofDevice := splitDevice(full)
		switch {
		case !ofDevice: // a filter of many devices
			l.tell(who, true)
			l.tell(who, false)
		case id == who:
			l.tell(who, false)
		case c.allowed.Load().isParentOf(id):
			l.tell(id, false)
		}
	}
}
