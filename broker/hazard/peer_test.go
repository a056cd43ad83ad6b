package hazard

// holding is which acknowledgements a client holds back.
type holding int

const (
	holdNothing holding = iota
	holdAll             // PUBACK and PUBREC
	holdLast            // PUBACK and PUBCOMP
)

// peer is one client of the model: what MQTT says it must get, and the connection
// that shows whether it does.
type peer struct {
	w       *world
	name    string
	version byte
	c       *client // nil while it is away
	held    holding
	falls   int // connections that ended without DISCONNECT

	// The session.
	keep    bool // it outlives the connection
	subs    map[string]byte
	debts   map[debtKey]*debt
	unacked map[uint16]*receipt // what the server waits for, by packet id
	order   []uint16            // its keys, as they came
	out     map[uint16]*outgoing
	sent    []uint16 // its keys, as they were sent
	lastID  uint16
	first   map[lane]int // the last note that came for the first time

	// The connection.
	last   map[lane]int // the last note that came at all
	answer byte
}

// debtKey tells a message from the copy of it that a new subscription gets.
type debtKey struct {
	n        int
	retained bool
}

// debt is a message that a session must, or may, still get.
type debt struct {
	*note
	qos  byte // as it is to be sent
	must bool
	got  bool // at least once in the session
	here bool // in this connection
	paid bool // acknowledged to the end, and known to the server
}

// receipt is an inbound message of QoS 1 or 2 that is not acknowledged to the end.
type receipt struct {
	*debt
	released bool // PUBREC was sent
	over     bool // PUBREL came, in this connection
	stale    bool // it came in an earlier connection
}

// outgoing is a published message that is not acknowledged to the end.
type outgoing struct {
	*note
	received bool // PUBREC came
}

// lane is what MQTT-4.6.0 keeps in order: the messages of one publisher, topic and
// quality.
type lane struct {
	from, topic string
	pub, sub    byte
}

// GoString is how a failure names a peer.
func (p *peer) GoString() string { return p.name }

func (p *peer) owed() int {
	n := 0
	for _, d := range p.debts {
		if !d.paid {
			n++
		}
	}
	return n
}

// expect notes that the peer is to get n.
func (p *peer) expect(n *note, qos byte, retained bool) *debt {
	d := &debt{note: n, qos: min(qos, n.qos), must: true}
	p.debts[debtKey{n.n, retained}] = d
	return d
}

// connect brings the peer online, and checks Session Present.
func (p *peer) connect(keep bool) {
	present := p.keep && keep
	if !present {
		p.forget()
	}
	p.keep, p.held, p.last = keep, holdNothing, make(map[lane]int)
	c, err := p.w.srv.connect(p.version, login{id: p.w.prefix + p.name, keep: keep})
	if err != nil {
		p.w.t.Fatalf("%s connects: %v", p.name, err)
	}
	if c.hello.present != present {
		p.w.t.Fatalf("%s connects: session present %v, want %v", p.name, c.hello.present, present)
	}
	p.c = c
}

// forget begins a new session.
func (p *peer) forget() {
	p.subs, p.debts = make(map[string]byte), make(map[debtKey]*debt)
	p.unacked, p.order = make(map[uint16]*receipt), nil
	p.out, p.sent, p.first = make(map[uint16]*outgoing), nil, make(map[lane]int)
}

// lose takes the peer offline, in whatever state its connection was. What it owes
// as a publisher is settled by then, or belongs to the caller.
func (p *peer) lose() {
	p.c, p.held = nil, holdNothing
	p.falls++
	if !p.keep {
		p.forget()
		return
	}
	for _, d := range p.debts {
		d.here = false
		if d.qos == 0 {
			d.must = false // QoS 0 is not kept for who is away
		}
	}
	for _, r := range p.unacked {
		r.stale, r.over = true, false
	}
}

// put returns the PUBLISH of a note.
func (p *peer) put(n *note) []byte {
	m := message{topic: p.w.prefix + n.topic, payload: itoa(n.n), qos: n.qos, retain: n.retain}
	if n.qos > 0 {
		m.id = p.freeID()
		p.out[m.id] = &outgoing{note: n}
		p.sent = append(p.sent, m.id)
	}
	return m.bytes(p.version)
}

func (p *peer) freeID() uint16 {
	for {
		p.lastID = p.lastID%50_000 + 1
		if p.out[p.lastID] == nil {
			return p.lastID
		}
	}
}

// resend sends again, in order, what was published and not acknowledged.
func (p *peer) resend() {
	var all []byte
	for _, id := range p.sent {
		o := p.out[id]
		switch {
		case o == nil:
		case o.received:
			all = append(all, ack(pubrel, id)...)
		default:
			m := message{topic: p.w.prefix + o.topic, payload: itoa(o.n), qos: o.qos, retain: o.retain, id: id, dup: true}
			all = append(all, m.bytes(p.version)...)
		}
	}
	if err := p.c.send(all); err != nil {
		p.w.t.Fatalf("%s sends again: %v", p.name, err)
	}
}

// waits says whether something must still come in this connection.
func (p *peer) waits() bool {
	if len(p.out) > 0 {
		return true
	}
	for _, d := range p.debts {
		if d.must && !d.here && !d.paid {
			return true
		}
	}
	if p.held != holdNothing {
		return false
	}
	return len(p.unacked) > 0
}

// pump reads until a packet of the kind given has come, whose code it returns, or
// with 0 until nothing must come any more.
func (p *peer) pump(kind byte) byte {
	for kind != 0 || p.waits() {
		pk, err := p.c.next0()
		if err != nil {
			p.w.t.Fatalf("%s waits for type %d: %v; it expects %s", p.name, kind, err, p.missing())
		}
		p.handle(pk)
		if pk.kind == kind {
			if kind == pingresp {
				p.sure()
			}
			return p.answer
		}
	}
	return 0
}

// sure notes, after an answer to a PINGREQ, that the server knows what was
// acknowledged before.
func (p *peer) sure() {
	for key, d := range p.debts {
		waiting := false
		for _, r := range p.unacked {
			waiting = waiting || r.debt == d
		}
		if d.got && !waiting && d.qos > 0 {
			d.paid = true
		}
		if d.paid && d.got && !d.again && key.retained {
			delete(p.debts, key) // the next subscription may bring it again
		}
	}
}

func (p *peer) handle(pk packet) {
	t := p.w.t
	switch pk.kind {
	case publish:
		p.receive(pk)
	case puback:
		o := p.out[pk.id]
		if o == nil || o.qos != 1 || pk.code >= 0x80 {
			t.Fatalf("%s: %v, which answers nothing, or wrongly", p.name, pk)
		}
		delete(p.out, pk.id)
	case pubrec:
		o := p.out[pk.id]
		if o == nil || o.qos != 2 || pk.code >= 0x80 {
			t.Fatalf("%s: %v, which answers nothing, or wrongly", p.name, pk)
		}
		o.received = true
		p.give(ack(pubrel, pk.id))
	case pubcomp:
		if o := p.out[pk.id]; o == nil || !o.received || pk.code >= 0x80 {
			t.Fatalf("%s: %v, which answers nothing, or wrongly", p.name, pk)
		}
		delete(p.out, pk.id)
	case pubrel:
		p.finish(pk)
	case suback, unsuback:
		p.answer = 0
		if len(pk.codes) > 0 {
			p.answer = pk.codes[0]
		}
	case pingresp:
	default:
		t.Fatalf("%s: unexpected %v", p.name, pk)
	}
}

// finish handles a PUBREL.
func (p *peer) finish(pk packet) {
	r := p.unacked[pk.id]
	if r == nil || !r.released || r.qos != 2 {
		p.w.t.Fatalf("%s: %v for a message that it did not receive", p.name, pk)
	}
	r.here, r.over = true, true
	if p.held == holdNothing {
		p.done(pk.id)
		p.give(ack(pubcomp, pk.id))
	}
}

// done forgets a packet id that the peer has acknowledged to the end.
func (p *peer) done(id uint16) {
	delete(p.unacked, id)
	for i, x := range p.order {
		if x == id {
			p.order = append(p.order[:i:i], p.order[i+1:]...)
			return
		}
	}
}

func (p *peer) give(b []byte) {
	if err := p.c.send(b); err != nil {
		p.w.t.Fatalf("%s acknowledges: %v", p.name, err)
	}
}

// giveHeld gives the acknowledgements that were held back, in the order of their
// messages.
func (p *peer) giveHeld() {
	if p.c == nil {
		return
	}
	for _, id := range append([]uint16(nil), p.order...) {
		switch r := p.unacked[id]; {
		case r.stale && !r.here:
		case r.released && !r.over: // answered when it comes
		case r.qos == 1:
			p.done(id)
			p.give(ack(puback, id))
		case r.released:
			p.done(id)
			p.give(ack(pubcomp, id))
		default:
			r.released = true
			p.give(ack(pubrec, id))
		}
	}
}
