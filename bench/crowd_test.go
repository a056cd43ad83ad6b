//go:build linux

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT of ip(7): ports are chosen per peer
	opensAtOnce       = 256
	sources           = 250 // loopback addresses that a crowd comes from
	tryAgain          = 100 * time.Millisecond
	crowdBuffer       = 256 << 10
)

// crowd is many MQTT connections on one epoll and one goroutine: whoever calls run.
// The tally may be read from elsewhere meanwhile.
type crowd struct {
	tally
	to      syscall.SockaddrInet4
	epoll   int
	members []*member
	keep    bool // connect again what was lost
	waiting []*member
	events  [1024]syscall.EpollEvent
	in      [crowdBuffer]byte
	out     []byte
	failure error // what ends run: the server broke the protocol
}

type tally struct {
	connected  atomic.Int64 // CONNACKs of success
	ready      atomic.Int64 // members that are connected and subscribed now
	lost       atomic.Int64 // connections that ended, or came to nothing
	refused    atomic.Int64 // CONNACKs of another kind
	deliveries atomic.Int64 // PUBLISH packets
	byes       [256]atomic.Int64
}

type memberState uint8

const (
	away memberState = iota
	connecting
	connected // CONNECT is sent
	subscribing
	present
)

// member is one connection of a crowd.
type member struct {
	login
	index     int
	version   byte
	clean     bool
	keepAlive uint16
	filters   []string
	qos       byte // of the subscriptions

	fd    int
	state memberState
	rest  []byte // the beginning of a packet
	owed  []byte // what the socket did not take
	due   time.Time
}

func newCrowd(tb testing.TB, addr string, members []*member) *crowd {
	tb.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		tb.Fatal(err)
	}
	c := &crowd{members: members, to: syscall.SockaddrInet4{Port: n, Addr: [4]byte(net.ParseIP(host).To4())}}
	if c.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		tb.Fatalf("epoll: %v", err)
	}
	for i, m := range members {
		m.index, m.fd = i, -1
	}
	tb.Cleanup(func() { c.closeAll(); _ = syscall.Close(c.epoll) })
	return c
}

// connectAll has every member that is away connect, as fast as run can.
func (c *crowd) connectAll() {
	for _, m := range c.members {
		if m.state == away {
			c.waiting = append(c.waiting, m)
		}
	}
}

// closeAll closes every connection abruptly.
func (c *crowd) closeAll() {
	c.waiting = c.waiting[:0]
	for _, m := range c.members {
		c.close(m)
		m.due = time.Time{}
	}
}

// run drives the crowd until done or the limit, and says which by its error.
func (c *crowd) run(limit time.Duration, done func() bool) error {
	end := time.Now().Add(limit)
	for !done() {
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d are there after %s (%d connections refused, %d lost)",
				c.ready.Load(), len(c.members), limit, c.refused.Load(), c.lost.Load())
		}
		c.openSome()
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// all says that every member is connected and subscribed.
func (c *crowd) all() bool { return c.ready.Load() == int64(len(c.members)) }

func (c *crowd) step() error {
	const patience = 10 // milliseconds
	n, err := syscall.EpollWait(c.epoll, c.events[:], patience)
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("epoll: %w", err)
	}
	for _, e := range c.events[:max(n, 0)] {
		m := c.members[e.Fd]
		if m.fd < 0 {
			continue
		}
		if e.Events&syscall.EPOLLOUT != 0 {
			c.writable(m)
		}
		if e.Events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 && m.fd >= 0 {
			c.readable(m)
		}
	}
	return c.failure
}

// openSome opens some of the connections that wait.
func (c *crowd) openSome() {
	now := time.Now()
	opened, left := 0, c.waiting[:0]
	for i, m := range c.waiting {
		if opened == opensAtOnce {
			left = append(left, c.waiting[i:]...)
			break
		}
		if m.due.After(now) {
			left = append(left, m)
			continue
		}
		opened++
		if err := c.open(m); err != nil {
			c.failure = fmt.Errorf("open a socket: %w", err)
		}
	}
	c.waiting = left
}

func (c *crowd) open(m *member) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	m.fd, m.state = fd, connecting
	from := syscall.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + m.index%sources)}}
	// An abrupt close leaves no TIME_WAIT, of which 15,000 in each storm would use up
	// the ports.
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1),
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		syscall.Bind(fd, &from),
		syscall.EpollCtl(c.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLOUT, Fd: int32(m.index)}))
	if err != nil {
		return err
	}
	if err := syscall.Connect(fd, &c.to); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
		c.lose(m)
	}
	return nil
}

func (c *crowd) close(m *member) {
	if m.fd < 0 {
		return
	}
	if m.state == present {
		c.ready.Add(-1)
	}
	_ = syscall.Close(m.fd) // the kernel takes it out of the epoll
	m.fd, m.state, m.rest, m.owed = -1, away, m.rest[:0], nil
}

// lose closes a connection that failed, and lets the member try again later.
func (c *crowd) lose(m *member) {
	c.close(m)
	c.lost.Add(1)
	if c.keep {
		m.due = time.Now().Add(tryAgain + rand.N(4*tryAgain))
		c.waiting = append(c.waiting, m)
	}
}

// writable is called when a connection stands, and when the socket takes more.
func (c *crowd) writable(m *member) {
	if m.state == connecting {
		if code, err := syscall.GetsockoptInt(m.fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil || code != 0 {
			c.lose(m)
			return
		}
		m.state = connected
		m.owed = connectPacket(m.login, m.version, m.clean, m.keepAlive)
	}
	owed := m.owed
	m.owed = nil
	c.watch(m, syscall.EPOLLIN)
	c.write(m, owed)
}

func (c *crowd) watch(m *member, events uint32) {
	e := syscall.EpollEvent{Events: events, Fd: int32(m.index)}
	if err := syscall.EpollCtl(c.epoll, syscall.EPOLL_CTL_MOD, m.fd, &e); err != nil {
		c.failure = fmt.Errorf("epoll: %w", err)
	}
}

// write writes what the socket takes; the rest is owed.
func (c *crowd) write(m *member, b []byte) {
	if len(m.owed) > 0 {
		m.owed = append(m.owed, b...)
		return
	}
	n, err := syscall.Write(m.fd, b)
	switch {
	case err == nil && n == len(b):
	case err == nil || errors.Is(err, syscall.EAGAIN):
		m.owed = append(m.owed, b[max(n, 0):]...)
		c.watch(m, syscall.EPOLLIN|syscall.EPOLLOUT)
	default:
		c.lose(m)
	}
}

// readable reads once and takes all packets that are complete.
func (c *crowd) readable(m *member) {
	had := copy(c.in[:], m.rest)
	n, err := syscall.Read(m.fd, c.in[had:])
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return
	}
	if err != nil || n == 0 {
		c.lose(m)
		return
	}
	in := c.in[:had+n]
	c.out = c.out[:0]
	got := int64(0)
	for {
		head, body, rest := cut(in)
		if rest == nil {
			break
		}
		in = rest
		if head>>4 != 3 {
			if !c.answer(m, head, body) {
				return
			}
			continue
		}
		got++
		if head&0x06 == 2 {
			at := 2 + int(binary.BigEndian.Uint16(body))
			c.out = append(c.out, 0x40, 2, body[at], body[at+1])
		}
	}
	m.rest = append(m.rest[:0], in...)
	if got > 0 {
		c.deliveries.Add(got)
	}
	if len(c.out) > 0 {
		c.write(m, c.out)
	}
}

// cut cuts the first packet off; rest is nil when it is not complete.
func cut(in []byte) (head byte, body, rest []byte) {
	if len(in) < 2 {
		return 0, nil, nil
	}
	size, n := binary.Uvarint(in[1:])
	if n <= 0 || uint64(len(in)-1-n) < size {
		return 0, nil, nil
	}
	end := 1 + n + int(size)
	return in[0], in[1+n : end], in[end:]
}

// answer takes a packet that is no PUBLISH; false says that the connection is gone.
func (c *crowd) answer(m *member, head byte, body []byte) bool {
	switch {
	case head == 0x20 && m.state == connected:
		if len(body) < 2 || body[1] != 0 {
			c.refused.Add(1)
			c.lose(m)
			return false
		}
		c.connected.Add(1)
		m.state = subscribing
		if len(m.filters) > 0 {
			c.write(m, m.subscribePacket())
			return m.fd >= 0
		}
		c.arrive(m)
	case head == 0x90 && m.state == subscribing:
		if code := body[len(body)-1]; code > 2 {
			c.failure = fmt.Errorf("%s may not subscribe: SUBACK with %#x", m.id, code)
		}
		c.arrive(m)
	case head == 0xe0:
		code := byte(0)
		if len(body) > 0 {
			code = body[0]
		}
		c.byes[code].Add(1)
	case head == 0xd0:
	default:
		c.failure = fmt.Errorf("%s is sent a packet that begins with %#x", m.id, head)
	}
	return true
}

func (c *crowd) arrive(m *member) {
	m.state = present
	c.ready.Add(1)
}

func (m *member) subscribePacket() []byte {
	b := []byte{0, 1}
	if m.version == 5 {
		b = append(b, 0)
	}
	for _, f := range m.filters {
		b = append(appendString(b, f), m.qos)
	}
	return append(binary.AppendUvarint([]byte{0x82}, uint64(len(b))), b...)
}
