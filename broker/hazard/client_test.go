package hazard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// client is one raw MQTT connection. It is not for concurrent use, except that
// one goroutine may read while another writes.
type client struct {
	nc      net.Conn
	r       *bufio.Reader
	version byte
	wait    time.Duration // for every single packet
	hello   packet        // its CONNACK
	lastID  uint16
}

// harm is what an attack can do.
var (
	errCrashed  = errors.New("the server's process is gone")
	errFrozen   = errors.New("the server does not answer any more")
	errLost     = errors.New("a message is lost")
	errOrder    = errors.New("messages come out of order")
	errRights   = errors.New("a message came past the rights")
	errRefusing = errors.New("the server takes no connections any more")
	errHeld     = errors.New("the server holds what it should have let go")
	errMemory   = errors.New("the server's memory grows")
	errSlow     = errors.New("the server is kept busy")
	errCut      = errors.New("a healthy connection is cut")
	errAnswer   = errors.New("a wrong answer")
)

// dial opens a connection from an address of this machine, by default any.
func (s *server) dial(from string) (*client, error) {
	d := net.Dialer{Timeout: s.patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	nc, err := d.DialContext(context.Background(), "tcp", s.addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefusing, err)
	}
	s.keep(nc)
	return &client{nc: nc, r: bufio.NewReader(nc), wait: s.patience}, nil
}

// connect returns a client that the server has admitted.
func (s *server) connect(version byte, l login) (*client, error) {
	return s.connectFrom("", version, l)
}

func (s *server) connectFrom(from string, version byte, l login) (*client, error) {
	c, err := s.dial(from)
	if err != nil {
		return nil, err
	}
	if err := c.enter(version, l); err != nil {
		_ = c.nc.Close()
		return nil, err
	}
	return c, nil
}

// enter sends a CONNECT, which must be admitted.
func (c *client) enter(version byte, l login) error {
	c.version = version
	if l.user == "" {
		l.user = "admin"
	}
	if err := c.send(l.bytes(version)); err != nil {
		return fmt.Errorf("%w: %w", errRefusing, err)
	}
	p, err := c.read()
	if err != nil {
		return fmt.Errorf("%w: wait for CONNACK: %w", errRefusing, err)
	}
	if p.kind != connack || p.code != 0 {
		return fmt.Errorf("%w: %v", errRefusing, p)
	}
	c.hello = p
	return nil
}

// client returns a client that must be admitted.
func (s *server) client(t testing.TB, version byte, l login) *client {
	t.Helper()
	c, err := s.connect(version, l)
	if err != nil {
		t.Fatalf("connect %q: %v", l.id, err)
	}
	return c
}

func (c *client) send(all ...[]byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.wait)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	for _, b := range all {
		if _, err := c.nc.Write(b); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// read returns the next packet, or the error that ended the connection.
func (c *client) read() (packet, error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(c.wait)); err != nil {
		return packet{}, fmt.Errorf("set deadline: %w", err)
	}
	return readPacket(c.r, c.version)
}

// next returns the next packet, which must be of the kind given.
func (c *client) next(kind byte) (packet, error) {
	p, err := c.read()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p, fmt.Errorf("%w: no packet of type %d within %v", errFrozen, kind, c.wait)
	case err != nil:
		return p, fmt.Errorf("%w: wait for type %d: %w", errCut, kind, err)
	case p.kind != kind:
		return p, fmt.Errorf("%w: %v, want type %d", errAnswer, p, kind)
	}
	return p, nil
}

// ping makes sure that the server lives and has nothing else to say before it
// answers.
func (c *client) ping() error {
	if err := c.send(pingBytes()); err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	_, err := c.next(pingresp)
	return err
}

// subscribe subscribes to filters, which must all be granted.
func (c *client) subscribe(qos byte, filters ...string) error {
	codes, err := c.subscribed(qos, filters...)
	if err != nil {
		return err
	}
	for i, code := range codes {
		if code != qos {
			return fmt.Errorf("%w: SUBACK %#x for %.40q, want %d", errAnswer, code, filters[i], qos)
		}
	}
	return nil
}

// subscribed returns the answer to a SUBSCRIBE. Retained messages must not come
// before it.
func (c *client) subscribed(qos byte, filters ...string) ([]byte, error) {
	id := c.id()
	if err := c.send(subscribeBytes(c.version, id, qos, filters...)); err != nil {
		return nil, fmt.Errorf("%w: %w", errCut, err)
	}
	p, err := c.next(suback)
	if err != nil {
		return nil, err
	}
	if p.id != id || len(p.codes) != len(filters) {
		return nil, fmt.Errorf("%w: %v, want SUBACK %d with %d codes", errAnswer, p, id, len(filters))
	}
	return p.codes, nil
}

// publish sends a message of QoS 0 or 1 and waits until it is acknowledged.
func (c *client) publish(topic, payload string, qos byte) error {
	m := message{topic: topic, payload: payload, qos: qos}
	if qos == 0 {
		return c.send(m.bytes(c.version))
	}
	m.id = c.id()
	if err := c.send(m.bytes(c.version)); err != nil {
		return fmt.Errorf("%w: %w", errFrozen, err)
	}
	p, err := c.next(puback)
	if err == nil && p.id != m.id {
		err = fmt.Errorf("%w: %v, want PUBACK %d", errAnswer, p, m.id)
	}
	return err
}

// take returns the next message and acknowledges it at QoS 1.
func (c *client) take() (packet, error) {
	p, err := c.next(publish)
	if err == nil && p.qos() == 1 {
		err = c.send(ack(puback, p.id))
	}
	return p, err
}

// trip sends a message from c to sub, which must have subscribed to the topic,
// and returns how long it took.
func (c *client) trip(sub *client, topic, payload string) (time.Duration, error) {
	began := time.Now()
	if err := c.publish(topic, payload, 1); err != nil {
		return 0, fmt.Errorf("publish %.20s: %w", payload, err)
	}
	p, err := sub.take()
	if err != nil {
		return 0, fmt.Errorf("receive %.20s: %w", payload, err)
	}
	if string(p.payload) != payload {
		return 0, fmt.Errorf("%w: got %.20q, want %.20q", errLost, p.payload, payload)
	}
	return time.Since(began), nil
}

// end reads until the server ends the connection, and returns the code of its
// DISCONNECT, 0 without one.
func (c *client) end() (byte, error) {
	code := byte(0)
	for {
		p, err := c.read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return code, fmt.Errorf("%w: the connection does not end within %v", errHeld, c.wait)
		case errors.Is(err, errWire):
			return code, err
		case err != nil:
			return code, nil //nolint:nilerr // this is how it ends
		case p.kind == disconnect:
			code = p.code
		}
	}
}

// id returns a packet id that the client has not used for a long time.
func (c *client) id() uint16 {
	c.lastID = max(c.lastID+1, 1)
	return c.lastID
}

// drop closes the socket without a word.
func (c *client) drop() { _ = c.nc.Close() }

// reset closes the socket so that the other side sees an error.
func (c *client) reset() {
	if tcp, ok := c.nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.nc.Close()
}
