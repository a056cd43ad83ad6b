package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	window      = 8                // unacked messages of a device
	silence     = 15 * time.Second // a server that owes acks for longer is given up
	finishLimit = 60 * time.Second // to have everything acked at the end
)

// publisher is one device on a raw socket that publishes QoS 1 and remembers every
// PUBACK it saw. Its one goroutine owns all of it; the test reads it afterwards.
type publisher struct {
	addr, id, token string
	stamped         bool          // messages carry ts
	period          time.Duration // between messages; 0 means as fast as acks allow

	acked      []bool   // by seq: a PUBACK was seen on the wire
	resent     []uint16 // by seq: how often it was written again
	violations []string // what the server did against the protocol
	lastTS     int64

	queue []outgoing // unacked, oldest first
	due   time.Time
	in    []byte // read and not yet taken
	out   []byte
}

type outgoing struct {
	seq     int
	packet  []byte
	written bool // some of it may have reached the server
}

// swarm is publishers that run together.
type swarm struct {
	devices  []*publisher
	acks     atomic.Int64
	stopping atomic.Bool
	wg       sync.WaitGroup
	cancel   context.CancelFunc
}

// launch runs the publishers until finish.
func launch(ctx context.Context, devices []*publisher) *swarm {
	ctx, cancel := context.WithCancel(ctx)
	s := &swarm{devices: devices, cancel: cancel}
	for _, p := range devices {
		s.wg.Go(func() { p.run(ctx, s) })
	}
	return s
}

// finish makes the publishers have all their messages acked and leave, and says
// which did not.
func (s *swarm) finish() error {
	s.stopping.Store(true)
	timer := time.AfterFunc(finishLimit, s.cancel)
	s.wg.Wait()
	timer.Stop()
	s.cancel()
	var errs []error
	for _, p := range s.devices {
		if len(p.queue) > 0 {
			errs = append(errs, fmt.Errorf("device %s still has %d messages that were not acked after %s", p.id, len(p.queue), finishLimit))
		}
		for _, v := range p.violations {
			errs = append(errs, fmt.Errorf("device %s: %s", p.id, v))
		}
	}
	return errors.Join(errs...)
}

// run connects again and again, with backoff, until the swarm stops and all is
// acked.
func (p *publisher) run(ctx context.Context, s *swarm) {
	wait := 20 * time.Millisecond
	for ctx.Err() == nil {
		if s.stopping.Load() && len(p.queue) == 0 {
			return
		}
		before := s.acks.Load()
		if p.connection(ctx, s) {
			return
		}
		if s.acks.Load() > before {
			wait = 20 * time.Millisecond
		}
		jittered := wait/2 + rand.N(wait)
		wait = min(2*wait, 500*time.Millisecond)
		if !pause(ctx, jittered) {
			return
		}
	}
}

// connection is one connection; true says that the publisher is done.
func (p *publisher) connection(ctx context.Context, s *swarm) bool {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	c, err := dialer.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return false
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p.in = p.in[:0]
	if err := p.handshake(c); err != nil {
		return false
	}
	p.again()
	for ctx.Err() == nil {
		stopping := s.stopping.Load()
		p.more(stopping)
		if len(p.queue) == 0 && stopping {
			_, err := c.Write([]byte{0xe0, 0}) // DISCONNECT
			return err == nil
		}
		if err := p.flush(c); err != nil {
			return false
		}
		if err := p.read(c, stopping); err != nil {
			return false
		}
		if !p.take(s) {
			return false
		}
	}
	return false
}

// handshake sends CONNECT and waits for CONNACK. A refusal is a violation: the
// token is good.
func (p *publisher) handshake(c net.Conn) error {
	const keepSession = 0 // no clean session: a resend is the same message
	size := 10 + 2 + len(p.id) + 2 + len(p.token)
	b := append([]byte{0x10}, binary.AppendUvarint(nil, uint64(size))...)
	b = append(b, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x80|keepSession, 0, 60)
	b = appendString(appendString(b, p.id), p.token)
	if err := c.SetDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if answer[0] != 0x20 || answer[1] != 2 {
		p.violation("answered % x to CONNECT", answer)
		return errors.New("no CONNACK")
	}
	if code := answer[3]; code != 0 {
		if code != 3 { // server unavailable: it is starting or stopping
			p.violation("refused the connection with code %d", code)
		}
		return fmt.Errorf("refused with code %d", code)
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// again queues what was not acked once more, in order; what may have reached the
// server is marked DUP.
func (p *publisher) again() {
	p.out = p.out[:0]
	for i := range p.queue {
		m := &p.queue[i]
		if m.written {
			m.packet[0] |= 0x08
			p.resent[m.seq]++
		}
		m.written = true
		p.out = append(p.out, m.packet...)
	}
}

// more makes new messages while the window has room and they are due.
func (p *publisher) more(stopping bool) {
	if stopping {
		return
	}
	now := time.Now()
	if p.due.Before(now.Add(-10 * max(p.period, 10*time.Millisecond))) {
		p.due = now
	}
	for len(p.queue) < window && (p.period == 0 || !p.due.After(now)) {
		m := p.make(now)
		p.queue = append(p.queue, m)
		p.out = append(p.out, m.packet...)
		p.due = p.due.Add(p.period)
	}
}

// make makes the next message. ts is in milliseconds, unique in this device.
func (p *publisher) make(now time.Time) outgoing {
	seq := len(p.acked)
	p.acked = append(p.acked, false)
	p.resent = append(p.resent, 0)
	values := `{"seq":` + strconv.Itoa(seq) + `,"x":` + strconv.FormatFloat(float64(seq%977)/10, 'f', -1, 64) + `}`
	body := values
	if p.stamped {
		p.lastTS = max(now.UnixMilli(), p.lastTS+1)
		body = `{"ts":` + strconv.FormatInt(p.lastTS, 10) + `,"values":` + values + `}`
	}
	topic := "devices/" + p.id + "/telemetry"
	b := append([]byte{0x32}, binary.AppendUvarint(nil, uint64(2+len(topic)+2+len(body)))...)
	b = binary.BigEndian.AppendUint16(appendString(b, topic), packetID(seq))
	return outgoing{seq: seq, packet: append(b, body...), written: true}
}

// packetID is never 0 and differs within a window.
func packetID(seq int) uint16 { return uint16(seq%65_535) + 1 }

func (p *publisher) flush(c net.Conn) error {
	if len(p.out) == 0 {
		return nil
	}
	if err := c.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	_, err := c.Write(p.out)
	p.out = p.out[:0]
	return err
}

// read waits for bytes, until a message is due or the server has been silent for
// too long, which is an error.
func (p *publisher) read(c net.Conn, stopping bool) error {
	until := time.Now().Add(silence)
	pacing := p.period > 0 && len(p.queue) < window && !stopping
	if pacing {
		until = p.due
	}
	if err := c.SetReadDeadline(until); err != nil {
		return err
	}
	var buf [4 * window]byte
	n, err := c.Read(buf[:])
	p.in = append(p.in, buf[:n]...)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() && pacing {
		return nil
	}
	return err
}

// take takes the PUBACKs that have come; false says that the connection is of no
// more use.
func (p *publisher) take(s *swarm) bool {
	for len(p.in) >= 4 {
		if p.in[0] != 0x40 || p.in[1] != 2 {
			p.violation("sent % x where only PUBACKs are expected", p.in)
			return false
		}
		id := binary.BigEndian.Uint16(p.in[2:4])
		p.in = p.in[4:]
		if len(p.queue) == 0 || packetID(p.queue[0].seq) != id {
			p.violation("acked packet %d, which is not the oldest unacked one (%d are unacked)", id, len(p.queue))
			return false
		}
		p.acked[p.queue[0].seq] = true
		p.queue = p.queue[1:]
		s.acks.Add(1)
	}
	return true
}

func (p *publisher) violation(format string, args ...any) {
	if len(p.violations) < 10 {
		p.violations = append(p.violations, fmt.Sprintf(format, args...))
	}
}
