package broker

import (
	"bytes"
	"context"
	"strings"
	"time"

	"muster/broker/wire"
)

// willTime is how long the sink may take for a will.
const willTime = 10 * time.Second

// will is a client's last will, sent when its connection ends without DISCONNECT.
type will struct {
	m           *message
	contentType string
	rights      *rights
	delay       time.Duration
	due         int64 // when it is sent, while it waits
}

func newWill(w *wire.Will, s *session, r *rights) *will {
	m := &message{
		topic: strings.Clone(w.Topic), payload: bytes.Clone(w.Payload), props: bytes.Clone(w.Props),
		qos: w.QoS, retain: w.Retain, from: s, owned: true,
	}
	if w.HasExpiry {
		m.expires = int64(w.Expiry) // seconds until it is sent
	}
	return &will{m: m, contentType: strings.Clone(w.ContentType), rights: r, delay: time.Duration(w.Delay) * time.Second}
}

// publishWill treats a will as a message that its client publishes now.
func (b *Broker) publishWill(w *will) {
	who, err := b.auth.Refresh(w.rights.who)
	if err != nil {
		b.refused(w.rights, w.m.topic, w.m.payload, "last will: the credential is not valid any more")
		return
	}
	dst := newRights(who, b.auth.Parent).publish(w.m.topic)
	if dst.place == placeNone {
		b.refused(w.rights, w.m.topic, w.m.payload, "last will: "+dst.why)
		return
	}
	m := *w.m
	m.topic = dst.topic
	m.expires = expiry(m.expires > 0, uint32(m.expires), b.clock.Load())
	if dst.place == placeRelay {
		b.deliverSafely(&m)
		return
	}
	in := Message{Kind: dst.kind, Device: dst.device, By: dst.by, Topic: m.topic, Payload: m.payload, QoS: m.qos, ContentType: w.contentType}
	if m.qos > 0 {
		in.From = willAcker{b, &m}
	}
	ctx, cancel := context.WithTimeout(context.Background(), willTime)
	defer cancel()
	if err := b.sink.Accept(ctx, in); err != nil {
		b.metrics.dropped.WithLabelValues("will").Inc()
		return
	}
	if m.qos == 0 {
		b.deliverSafely(&m)
	}
}

// willAcker delivers a will once it is kept.
type willAcker struct {
	b *Broker
	m *message
}

// Acked implements Acker.
func (w willAcker) Acked(_ uint64, err error) {
	if err == nil {
		w.b.deliverLater(copied{m: w.m})
	}
}
