package hazard

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// next0 returns the next packet, of whatever kind.
func (c *client) next0() (packet, error) {
	p, err := c.read()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return p, fmt.Errorf("%w: nothing within %v", errFrozen, c.wait)
	}
	return p, err
}

// missing says what must still come, for a failure's message.
func (p *peer) missing() string {
	var b strings.Builder
	for _, d := range p.debts {
		if d.must && !d.here && !d.paid {
			fmt.Fprintf(&b, "number %d of %s at QoS %d (got %v); ", d.n, d.from, d.qos, d.got)
		}
	}
	fmt.Fprintf(&b, "answers to %d messages, ends of %d", len(p.out), len(p.unacked))
	return b.String()
}

// receive checks a PUBLISH against what the peer is to get, and acknowledges it.
func (p *peer) receive(pk packet) {
	t := p.w.t
	n, err := p.w.find(pk)
	if err != nil {
		t.Fatalf("%s: %v: %v", p.name, pk, err)
	}
	d := p.debts[debtKey{n.n, pk.retain()}]
	switch {
	case d == nil:
		t.Fatalf("%s: number %d of %s (retained %v), which it did not subscribe to", p.name, n.n, n.from, pk.retain())
	case pk.qos() != d.qos:
		t.Fatalf("%s: number %d at QoS %d, want %d", p.name, n.n, pk.qos(), d.qos)
	case pk.qos() == 0 && (d.got || pk.dup()):
		if !n.again || n.qos != 1 {
			t.Fatalf("%s: number %d at QoS 0 again", p.name, n.n)
		}
	case d.paid && (!n.again || n.qos != 1):
		t.Fatalf("%s: number %d again, which it has acknowledged", p.name, n.n)
	case d.here && (!n.again || n.qos != 1):
		t.Fatalf("%s: number %d twice in one connection", p.name, n.n)
	}
	if pk.qos() > 0 {
		p.checkID(pk, d)
	}
	if !pk.retain() {
		p.checkOrder(d)
	}
	d.got, d.here = true, true
	if pk.qos() > 0 {
		p.acknowledge(pk, d)
	}
}

// checkID checks that a packet id stands for one message, and a message for one
// id, until it is acknowledged.
func (p *peer) checkID(pk packet, d *debt) {
	t := p.w.t
	if r := p.unacked[pk.id]; r != nil {
		switch {
		case r.debt != d:
			t.Fatalf("%s: id %d for number %d, still in use for number %d", p.name, pk.id, d.n, r.n)
		case !pk.dup():
			t.Fatalf("%s: number %d again without DUP", p.name, d.n)
		case !r.stale:
			t.Fatalf("%s: number %d again in one connection", p.name, d.n)
		case r.released:
			t.Fatalf("%s: number %d again after its PUBREC", p.name, d.n)
		}
		return
	}
	if d.again && d.note.qos == 1 {
		return // there may be two of it
	}
	for id, r := range p.unacked {
		if r.debt == d {
			t.Fatalf("%s: number %d again with id %d, was %d", p.name, d.n, pk.id, id)
		}
	}
	if d.got && d.qos == 2 {
		t.Fatalf("%s: number %d at QoS 2 again", p.name, d.n)
	}
}

// checkOrder checks MQTT-4.6.0-5 and -6: in each connection, and for what comes
// for the first time over the whole session.
func (p *peer) checkOrder(d *debt) {
	l := lane{d.from, d.topic, d.note.qos, d.qos}
	if last, ok := p.first[l]; !d.got && ok && last > d.n {
		p.w.t.Fatalf("%s: number %d after %d", p.name, d.n, last)
	}
	if !d.got {
		p.first[l] = d.n
	}
	if d.again && d.note.qos == 1 {
		return // the second copy of an earlier one may follow
	}
	if last, ok := p.last[l]; ok && last > d.n {
		p.w.t.Fatalf("%s: number %d after %d in one connection", p.name, d.n, last)
	}
	p.last[l] = d.n
}

func (p *peer) acknowledge(pk packet, d *debt) {
	r := p.unacked[pk.id]
	if r == nil {
		r = &receipt{debt: d}
		p.unacked[pk.id] = r
		p.order = append(p.order, pk.id)
	}
	r.stale = false
	switch {
	case d.qos == 1 && p.held == holdNothing:
		p.done(pk.id)
		p.give(ack(puback, pk.id))
	case d.qos == 2 && p.held != holdAll:
		r.released = true
		p.give(ack(pubrec, pk.id))
	}
}
