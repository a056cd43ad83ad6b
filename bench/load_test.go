package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	tsPattern  = "1700000000000000" // microseconds; patched in each message
	valPattern = "77.77"            // likewise, its last two digits
	dialLimit  = 20 * time.Second
	ackLimit   = 60 * time.Second // a server that owes acks for longer has failed
)

// load is a load client: raw sockets that send prepared packets in which only the
// id, the time stamps and two digits change, so that it costs little beside the
// server under test.
type load struct {
	addr    string
	logins  []login
	window  int           // unacked messages per connection
	period  time.Duration // between the messages of one connection; 0 means as acks allow
	limit   int           // messages per connection; 0 means until stopped
	payload string        // with tsPattern and valPattern where they are to be patched
	topic   string        // of all; empty means each device's own telemetry
	qos0    bool          // messages are never acked; what was written counts as acked

	after func() // called when all is sent, before the connections are closed; nil means none

	acked   []counter // by connection
	latency [][]int32 // microseconds from write to ack, by connection; only with a period
}

type login struct{ id, user, password string }

type counter struct {
	n atomic.Int64
	_ [56]byte // a cache line each
}

func (l *load) total() int64 {
	var n int64
	for i := range l.acked {
		n += l.acked[i].n.Load()
	}
	return n
}

// run connects everything and then publishes until ctx ends or the limit is
// reached. started is called when all are connected, before the first message.
func (l *load) run(ctx context.Context, started func()) error {
	l.acked = make([]counter, len(l.logins))
	l.latency = make([][]int32, len(l.logins))
	var conns []*conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i, who := range l.logins {
		c, err := l.connect(ctx, i, who)
		if err != nil {
			return fmt.Errorf("client %s: %w", who.id, err)
		}
		conns = append(conns, c)
	}
	started()
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			if err := c.publish(ctx); err != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("client %s: %w", l.logins[i].id, err)
			}
		})
	}
	wg.Wait()
	if l.after != nil {
		l.after()
	}
	return errors.Join(errs...)
}

// conn is one connection; its goroutine owns it.
type conn struct {
	net.Conn
	load    *load
	index   int
	made    int
	flying  int
	ts      int64
	head    int         // of sent
	sent    []time.Time // a ring of when the unacked were written
	packet  []byte      // the template
	id      int         // offset of the packet id in it
	stamps  []int       // offsets of the time stamps
	digits  []int       // offsets of the digits that change
	out, in []byte
	partial int // bytes of in that are a part of an ack
}

func (l *load) connect(ctx context.Context, index int, who login) (*conn, error) {
	dialer := net.Dialer{Timeout: dialLimit}
	nc, err := dialer.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, load: l, index: index, sent: make([]time.Time, l.window), in: make([]byte, 4*l.window+4), ts: time.Now().UnixMicro()}
	c.prepare(who.id)
	if err := c.handshake(who); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}

func (c *conn) handshake(who login) error {
	b := connectPacket(who, 4, true, 0)
	if err := c.SetDeadline(time.Now().Add(dialLimit)); err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if [4]byte(answer) != [4]byte{0x20, 2, 0, 0} {
		return fmt.Errorf("CONNECT is answered with % x", answer)
	}
	return nil
}

// connectPacket is CONNECT of MQTT 3.1.1 (version 4) or 5; a session that is not
// clean is kept for an hour at least.
func connectPacket(who login, version byte, clean bool, keepAlive uint16) []byte {
	flags := byte(0x80) // user name
	if who.password != "" {
		flags |= 0x40
	}
	if clean {
		flags |= 0x02
	}
	b := append([]byte{0, 4, 'M', 'Q', 'T', 'T', version, flags}, byte(keepAlive>>8), byte(keepAlive))
	switch {
	case version < 5:
	case clean:
		b = append(b, 0)
	default:
		b = append(b, 5, 0x11, 0, 0, 0x0e, 0x10) // session expiry interval
	}
	b = appendString(appendString(b, who.id), who.user)
	if who.password != "" {
		b = appendString(b, who.password)
	}
	return append(binary.AppendUvarint([]byte{0x10}, uint64(len(b))), b...)
}

// prepare makes the template and finds what is patched in it.
func (c *conn) prepare(id string) {
	topic := c.load.topic
	if topic == "" {
		topic = "devices/" + id + "/telemetry"
	}
	size := 2 + len(topic) + 2 + len(c.load.payload)
	first := byte(0x32)
	if c.load.qos0 {
		first, size = 0x30, size-2
	}
	b := append([]byte{first}, binary.AppendUvarint(nil, uint64(size))...)
	b = appendString(b, topic)
	if c.id = len(b); !c.load.qos0 {
		b = append(b, 0, 0)
	}
	at := len(b)
	b = append(b, c.load.payload...)
	c.packet, c.stamps, c.digits = b, c.stamps[:0], c.digits[:0] // it may have been prepared for another topic
	for i := range c.load.payload {
		if strings.HasPrefix(c.load.payload[i:], tsPattern) {
			c.stamps = append(c.stamps, at+i)
		}
		if strings.HasPrefix(c.load.payload[i:], valPattern) {
			c.digits = append(c.digits, at+i+3)
		}
	}
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// add appends the next message to what is written next.
func (c *conn) add() {
	at := len(c.out)
	c.out = append(c.out, c.packet...)
	p := c.out[at:]
	if !c.load.qos0 {
		binary.BigEndian.PutUint16(p[c.id:], uint16(c.made%65_535)+1)
	}
	for _, i := range c.stamps {
		c.ts++
		strconv.AppendInt(p[i:i], c.ts, 10)
	}
	for k, i := range c.digits {
		n := (c.made*7 + k*13) % 100
		p[i], p[i+1] = byte('0'+n/10), byte('0'+n%10)
	}
	c.made++
	c.flying++
}

// room is how many messages may be made now.
func (c *conn) room() int {
	n := c.load.window - c.flying
	if c.load.limit > 0 {
		n = min(n, c.load.limit-c.made)
	}
	return n
}

func (c *conn) done() bool { return c.load.limit > 0 && c.made >= c.load.limit && c.flying == 0 }

func (c *conn) publish(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(ackLimit)); err != nil {
		return err
	}
	if c.load.period > 0 {
		return c.paced(ctx)
	}
	if c.load.qos0 {
		return c.flood(ctx)
	}
	for turn := 0; !c.done() && ctx.Err() == nil; turn++ {
		if turn%1024 == 1023 {
			if err := c.SetDeadline(time.Now().Add(ackLimit)); err != nil {
				return err
			}
		}
		// A few acks more make one larger write, for the server too.
		if n := c.room(); n > 0 && (4*c.flying <= 3*c.load.window || c.load.limit > 0 && c.load.limit-c.made <= n) {
			for range n {
				c.add()
			}
			if err := c.flush(); err != nil {
				return err
			}
		}
		if err := c.take(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// flood publishes as fast as the server reads.
func (c *conn) flood(ctx context.Context) error {
	for turn := 0; !c.done() && ctx.Err() == nil; turn++ {
		if turn%1024 == 1023 {
			if err := c.SetDeadline(time.Now().Add(ackLimit)); err != nil {
				return err
			}
		}
		n := c.room()
		for range n {
			c.add()
		}
		if err := c.flush(); err != nil {
			return err
		}
		c.flying -= n
		c.load.acked[c.index].n.Add(int64(n))
	}
	return nil
}

// paced publishes one message each period, and reads acks as they come.
func (c *conn) paced(ctx context.Context) error {
	due := time.Now().Add(c.load.period * time.Duration(c.index) / time.Duration(len(c.load.logins)))
	for ctx.Err() == nil {
		now := time.Now()
		for c.room() > 0 && !due.After(now) {
			c.sent[(c.head+c.flying)%len(c.sent)] = now
			c.add()
			due = due.Add(c.load.period)
		}
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.SetReadDeadline(due); err != nil {
			return err
		}
		if err := c.take(now); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}

func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.Write(c.out)
	c.out = c.out[:0]
	return err
}

// take reads once and counts the acks; timed is not zero when they are timed.
func (c *conn) take(timed time.Time) error {
	n, err := c.Read(c.in[c.partial:])
	n += c.partial
	acks := n / 4
	for i := range acks {
		if c.in[4*i] != 0x40 || c.in[4*i+1] != 2 {
			return fmt.Errorf("% x came where a PUBACK is due", c.in[4*i:4*i+4])
		}
	}
	c.partial = copy(c.in, c.in[4*acks:n])
	if acks > c.flying {
		return fmt.Errorf("%d acks came for %d messages", acks, c.flying)
	}
	if acks > 0 && !timed.IsZero() {
		now := time.Now()
		for range acks {
			c.load.latency[c.index] = append(c.load.latency[c.index], int32(now.Sub(c.sent[c.head]).Microseconds()))
			c.head = (c.head + 1) % len(c.sent)
		}
	}
	c.flying -= acks
	c.load.acked[c.index].n.Add(int64(acks))
	return err
}

// quantiles returns the latencies that a share of all do not exceed.
func (l *load) quantiles(shares ...float64) []time.Duration {
	all := slices.Concat(l.latency...)
	slices.Sort(all)
	out := make([]time.Duration, len(shares))
	for i, q := range shares {
		if len(all) > 0 {
			out[i] = time.Duration(all[min(int(q*float64(len(all))), len(all)-1)]) * time.Microsecond
		}
	}
	return out
}

func TestPreparedPacketsSayWhatTheyShould(t *testing.T) {
	l := &load{window: 4, payload: `{"ts":1700000000000000,"values":{"a":77.77,"b":77.77}}`}
	c := &conn{load: l, ts: 1_800_000_000_000_000}
	c.prepare("a-longer-one")
	c.prepare("d-1")
	for range 3 {
		c.add()
	}
	var got []string
	for rest := c.out; len(rest) > 0; {
		head := packets.FixedHeader{}
		if err := head.Decode(rest[0]); err != nil {
			t.Fatal(err)
		}
		size, n := binary.Uvarint(rest[1:])
		head.Remaining = int(size)
		pk := packets.Packet{ProtocolVersion: 4, FixedHeader: head}
		if err := pk.PublishDecode(rest[1+n : 1+n+int(size)]); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %d %s %s", head.Qos, pk.PacketID, pk.TopicName, pk.Payload))
		rest = rest[1+n+int(size):]
	}
	want := []string{
		`1 1 devices/d-1/telemetry {"ts":1800000000000001,"values":{"a":77.00,"b":77.13}}`,
		`1 2 devices/d-1/telemetry {"ts":1800000000000002,"values":{"a":77.07,"b":77.20}}`,
		`1 3 devices/d-1/telemetry {"ts":1800000000000003,"values":{"a":77.14,"b":77.27}}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the packets say\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
