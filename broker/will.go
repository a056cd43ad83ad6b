package broker

import (
	"context"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	maxDelayedWills = 10_000           // more are sent at once
	willTime        = 10 * time.Second // that the sink may take
)

// will is a client's last will, sent when its connection ends without DISCONNECT.
type will struct {
	delivery
	delay time.Duration
}

// takeWill takes the last will out of a CONNECT. mochi would send it past all
// rights.
func (c *conn) takeWill(pk *packets.Packet) {
	p := &pk.Connect
	if !p.WillFlag {
		return
	}
	props := p.WillProperties
	c.will = &will{
		delivery: delivery{topic: p.WillTopic, payload: p.WillPayload, qos: p.WillQos, retain: p.WillRetain},
		delay:    time.Duration(props.WillDelayInterval) * time.Second,
	}
	if pk.ProtocolVersion == 5 {
		props.WillDelayInterval = 0
		c.will.props = &props
	}
	p.WillFlag, p.WillQos, p.WillRetain, p.WillTopic, p.WillPayload = false, 0, false, "", nil
	p.WillProperties = packets.Properties{}
}

// planWill decides what becomes of the will: it returns what sends it now, or nil
// when it is sent later or never. The session's turn must be held, so that the
// session's return is seen either here or by delayedWills.
func (c *conn) planWill(why cause) (send func()) {
	w := c.will
	if w == nil || !c.online || why == causeDisconnected || why == causeStopped {
		return nil
	}
	w.origin, w.version = c.key, c.dialect.version
	r, b := c.rights, c.b
	ctx := context.WithoutCancel(c.ctx)
	fire := func() { b.publishWill(ctx, &r, w) }
	delay := min(w.delay, c.expiry)
	if delay == 0 {
		return fire
	}
	now, ok := b.srv.Clients.Get(c.key)
	switch {
	case !ok:
		return fire // the session has ended
	case now != c.client: // another connection has it by now
		if next := connOf(now); next != nil && !next.fresh {
			return nil
		}
		return fire
	case b.wills.later(c.key, delay, fire):
		return nil
	default:
		return fire
	}
}

// publishWill treats a will as a message that its client publishes now.
func (b *Broker) publishWill(ctx context.Context, r *rights, w *will) {
	dst := r.publish(w.topic)
	d := w.delivery
	if dst.place == placeNone {
		b.refused(r, w.topic, d.payload, "last will: "+dst.why)
		return
	}
	d.topic = dst.topic
	if dst.place == placeRelay {
		b.deliver(&d)
		return
	}
	m := Message{Device: dst.device, Topic: d.topic, Payload: d.payload, QoS: d.qos}
	if d.props != nil {
		m.ContentType = d.props.ContentType
	}
	if d.qos > 0 {
		m.From = willAcker{b, &d}
	}
	ctx, cancel := context.WithTimeout(ctx, willTime)
	defer cancel()
	if err := b.sink.Accept(ctx, m); err != nil {
		b.metrics.dropped.WithLabelValues("will").Inc()
		return
	}
	if d.qos == 0 {
		b.deliver(&d)
	}
}

// willAcker delivers a will once it is kept.
type willAcker struct {
	b *Broker
	d *delivery
}

func (w willAcker) Acked(_ uint64, err error) {
	if err == nil && w.b.wanted(w.d.retain) {
		w.b.work.start(func() { w.b.deliverSafely(w.d) })
	}
}

// delayedWills holds the wills that wait for their delay (MQTT 5, section 3.1.3.2),
// at most maxDelayedWills.
type delayedWills struct {
	work *group

	mu      sync.Mutex
	waiting map[string]*delayedWill // by session key
}

type delayedWill struct {
	timer *time.Timer
	fire  func()
}

// later has fire called after delay, unless the session comes back. It returns
// false when there is no room.
func (d *delayedWills) later(key string, delay time.Duration, fire func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) >= maxDelayedWills {
		return false
	}
	w := &delayedWill{fire: fire}
	d.waiting[key] = w
	w.timer = time.AfterFunc(delay, func() {
		if d.take(key, w) && d.work.enter() {
			defer d.work.leave()
			fire()
		}
	})
	return true
}

func (d *delayedWills) take(key string, w *delayedWill) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting[key] != w {
		return false
	}
	delete(d.waiting, key)
	return true
}

// reconnected withdraws the waiting will of a session that goes on, and sends that
// of one that a clean start ends.
func (d *delayedWills) reconnected(key string, clean bool) {
	d.mu.Lock()
	w, ok := d.waiting[key]
	delete(d.waiting, key)
	d.mu.Unlock()
	if !ok {
		return
	}
	w.timer.Stop()
	if clean {
		d.work.start(w.fire)
	}
}

// stop drops every waiting will.
func (d *delayedWills) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, w := range d.waiting {
		w.timer.Stop()
		delete(d.waiting, key)
	}
}
