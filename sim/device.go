package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"muster"
)

const (
	keepAlive      = 60 * time.Second
	pingAfter      = keepAlive * 3 / 4
	ackTimeout     = 30 * time.Second // a server silent for longer with messages in flight is given up
	connectTimeout = 10 * time.Second
	backoffFirst   = 250 * time.Millisecond
	backoffMost    = 30 * time.Second
	catchUp        = 100 * time.Millisecond // how late a message may be made up for
	floodBatch     = 64                     // messages per write when no acks limit it
	fineRate       = 500                    // messages per second above which ts is in microseconds
)

// flight is one unacked message.
type flight struct {
	packet []byte // as it was sent, kept for a resend
	id     uint16
	acked  bool
	sent   time.Time
}

// device is one connection: a virtual device that speaks for itself, or a gateway that
// speaks for its members in turn. Its one goroutine owns everything in it.
type device struct {
	fleet    *fleet
	index    int             // of the device, or of the gateway
	name     muster.DeviceID // who connects
	announce bool            // it names its members when it connects
	tally    *tally
	rng      *rand.Rand
	members  []*member
	turn     int // of the next member

	period time.Duration // between messages; 0 in a flood
	due    time.Time     // of the next message
	fine   bool          // ts in microseconds
	limit  int           // messages, after which it leaves; 0 means no end
	made   int           // messages made
	cut    cut

	ring  []flight // window of unacked messages, oldest at head
	head  int
	count int
	id    uint16

	payload, out []byte
	wrote        time.Time // when something was last written
	heard        time.Time // when something was last read
	pinged       time.Time // of the ping that waits for an answer; zero when none does
}

// newDevice returns device i, which speaks for itself.
func newDevice(f *fleet, i int) *device {
	rng := rand.New(rand.NewPCG(f.cfg.Seed, uint64(i)))
	id := f.cfg.ID(i)
	return newConnection(f, i, id, rng, []*member{newMember(id, newSource(f.cfg.ProfileOf(i), rng))})
}

// newConnection returns what speaks for members.
func newConnection(f *fleet, i int, name muster.DeviceID, rng *rand.Rand, members []*member) *device {
	d := &device{
		fleet: f, index: i, name: name, tally: f.counters.of(i), rng: rng, members: members,
		fine:  f.cfg.Rate == 0 || f.cfg.Rate > fineRate,
		ring:  make([]flight, f.cfg.Window),
		due:   time.Now(),
		limit: f.cfg.Limit * len(members),
	}
	if f.cfg.Rate > 0 && len(members) > 0 {
		d.period = time.Duration(float64(time.Second) / f.cfg.Rate / float64(len(members)))
		// Spread over the first period, at most 10 s, so that a new fleet shows life soon.
		d.due = d.due.Add(time.Duration(rng.Int64N(int64(min(d.period, 10*time.Second)) + 1)))
	}
	return d
}

// run connects again and again until ctx ends or the device has reached its
// limit.
func (d *device) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; failures++ {
		welcome, err := d.connectAndServe(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if errors.Is(err, errCut) {
			failures = -1
			if !sleepUntil(ctx, d.cut.until) {
				return
			}
			continue
		}
		d.fleet.counters.failed(d.index, err)
		if welcome {
			failures = 0
		}
		wait := min(backoffFirst<<min(failures, 10), backoffMost)
		if !sleepUntil(ctx, time.Now().Add(wait/10+time.Duration(d.rng.Int64N(int64(wait))))) {
			return
		}
	}
}

// connectAndServe is one connection. welcome says that the server accepted it; a
// nil error that the device is done.
func (d *device) connectAndServe(ctx context.Context) (welcome bool, err error) {
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", d.fleet.cfg.Addr)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	l := newLink(conn)
	defer func() { _ = conn.Close() }() // nothing is in it that is not in the ring
	if !d.fleet.keep(l) {
		return false, nil
	}
	defer d.fleet.drop(l)

	if err := d.handshake(l); err != nil {
		return false, err
	}
	d.tally.connected.Add(1)
	defer d.tally.connected.Add(-1)
	if err := d.introduce(l); err != nil {
		return true, err
	}
	if err := d.resend(l); err != nil {
		return true, err
	}
	if err := d.serve(ctx, l); err != nil {
		return true, err
	}
	return true, l.write(disconnect)
}

// handshake sends CONNECT and waits for CONNACK.
func (d *device) handshake(l *link) error {
	user, pass := d.fleet.cfg.Credentials(d.index)
	clean := d.fleet.cfg.QoS == 0 // a session is what makes a resend the same message
	d.out = appendConnect(d.out[:0], string(d.name), user, pass, clean, uint16(keepAlive/time.Second))
	if err := d.write(l, time.Now()); err != nil {
		return err
	}
	deadline := time.Now().Add(connectTimeout)
	for {
		a, ok, err := l.next()
		if err != nil {
			return err
		}
		if ok {
			d.heard, d.pinged = time.Now(), time.Time{}
			return connackError(a)
		}
		if err := l.read(deadline); err != nil {
			return fmt.Errorf("wait for CONNACK: %w", err)
		}
	}
}

// resend writes what was not acked before the connection was lost, in the
// original order (MQTT 3.1.1, 4.4) and marked DUP.
func (d *device) resend(l *link) error {
	if d.count == 0 {
		return nil
	}
	now := time.Now()
	d.out = d.out[:0]
	resent := uint64(0)
	for n := range d.count {
		m := &d.ring[(d.head+n)%len(d.ring)]
		if m.acked {
			continue
		}
		m.packet[0] |= flagDup
		m.sent = now
		d.out = append(d.out, m.packet...)
		resent++
	}
	d.tally.resent.Add(resent)
	return d.write(l, now)
}

// serve publishes what is due and takes acks, until ctx ends or all is done
// (nil), or the connection fails.
func (d *device) serve(ctx context.Context, l *link) error {
	for ctx.Err() == nil {
		now := time.Now()
		if d.cut.now(now) {
			return errCut
		}
		if err := d.publish(l, now); err != nil {
			return err
		}
		if d.done() {
			return nil
		}
		if d.period == 0 && d.fleet.cfg.QoS == 0 {
			continue // nothing to wait for: the socket's buffer sets the pace
		}
		if err := l.read(d.wake()); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := d.takeAnswers(l); err != nil {
			return err
		}
		if err := d.checkAlive(l); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) done() bool {
	return d.limit > 0 && d.made >= d.limit && d.count == 0
}

// publish writes all that is due and that the window has room for in one write.
func (d *device) publish(l *link, now time.Time) error {
	d.out = d.out[:0]
	sent := uint64(0)
	for range d.room(now) {
		if d.period > 0 {
			if d.due.After(now) {
				break
			}
			d.due = d.due.Add(d.period)
			if late := now.Add(-max(catchUp, d.period)); d.due.Before(late) {
				d.due = now
			}
		}
		if !d.add(now) {
			break // all have fallen silent
		}
		sent++
	}
	if sent == 0 {
		return nil
	}
	if err := d.write(l, now); err != nil {
		return err
	}
	d.tally.sent.Add(sent)
	return nil
}

// room returns how many messages may be made now.
func (d *device) room(now time.Time) int {
	n := floodBatch
	if d.fleet.cfg.QoS > 0 {
		n = len(d.ring) - d.count
	}
	if d.limit > 0 {
		n = min(n, d.limit-d.made)
	}
	switch {
	case d.period > 0 && d.due.After(now):
		return 0
	case d.period == 0 && d.count > len(d.ring)*3/4:
		return 0 // a few more acks make one larger write
	}
	return n
}

// add makes one new message of whose turn it is and appends it to d.out and, at QoS 1, to
// the window; false when nobody has anything to say any more.
func (d *device) add(now time.Time) bool {
	m := d.next()
	if m == nil {
		return false
	}
	d.made++
	topic := d.encode(m)
	if d.fleet.cfg.QoS == 0 {
		d.out = appendPublish(d.out, 0, topic, 0, d.payload)
		return true
	}
	if d.id++; d.id == 0 {
		d.id = 1
	}
	f := &d.ring[(d.head+d.count)%len(d.ring)]
	d.count++
	f.packet = appendPublish(f.packet[:0], 1, topic, d.id, d.payload)
	f.id, f.acked, f.sent = d.id, false, now
	d.out = append(d.out, f.packet...)
	return true
}

// wake returns when the device must act even if the server says nothing.
func (d *device) wake() time.Time {
	t := d.wrote.Add(pingAfter)
	if !d.pinged.IsZero() {
		t = d.pinged.Add(ackTimeout)
	}
	if d.count > 0 {
		t = earlier(t, d.silentAt())
	}
	t = d.cut.earlier(t)
	full := d.fleet.cfg.QoS > 0 && d.count == len(d.ring)
	last := d.limit > 0 && d.made >= d.limit
	if d.period > 0 && !full && !last {
		t = earlier(t, d.due)
	}
	return t
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// silentAt returns when a server that owes acks has been silent for too long.
func (d *device) silentAt() time.Time {
	since := d.ring[d.head].sent
	if d.heard.After(since) {
		since = d.heard
	}
	return since.Add(ackTimeout)
}

// checkAlive gives up a silent server and pings one that has nothing to answer.
func (d *device) checkAlive(l *link) error {
	now := time.Now()
	switch {
	case d.count > 0 && !now.Before(d.silentAt()):
		return fmt.Errorf("no ack within %v", ackTimeout)
	case !d.pinged.IsZero() && now.Sub(d.pinged) >= ackTimeout:
		return fmt.Errorf("no answer to a ping within %v", ackTimeout)
	case !d.pinged.IsZero() || now.Sub(d.wrote) < pingAfter:
		return nil
	}
	d.out = append(d.out[:0], pingreq...)
	d.pinged = now
	return d.write(l, now)
}

// takeAnswers takes every packet that was read.
func (d *device) takeAnswers(l *link) error {
	acked, now := uint64(0), time.Time{}
	for {
		a, ok, err := l.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if now.IsZero() {
			now = time.Now()
			d.heard, d.pinged = now, time.Time{}
		}
		switch {
		case a.kind == typePingresp:
		case a.kind == typePuback && len(a.body) == 2:
			if d.ack(binary.BigEndian.Uint16(a.body), now) {
				acked++
			}
		default:
			return fmt.Errorf("unexpected packet of type %#x: %w", a.kind, errProtocol)
		}
	}
	if acked > 0 {
		d.tally.acked.Add(acked)
	}
	return nil
}

// ack frees the message with the given id, and returns false when none is
// waiting under it. Acks come in order from a sound server, so the head is
// nearly always the one.
func (d *device) ack(id uint16, now time.Time) bool {
	found := false
	for n := range d.count {
		m := &d.ring[(d.head+n)%len(d.ring)]
		if m.id == id && !m.acked {
			m.acked, found = true, true
			d.tally.acks.add(now.Sub(m.sent), 1)
			break
		}
	}
	for d.count > 0 && d.ring[d.head].acked {
		d.head = (d.head + 1) % len(d.ring)
		d.count--
	}
	return found
}

func (d *device) write(l *link, now time.Time) error {
	d.wrote = now
	return l.write(d.out)
}
