package sim

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// mqttServer accepts connections and gives each packet to handle, which runs on
// the connection's own goroutine.
type mqttServer struct {
	t      *testing.T
	addr   string
	handle func(c *serverConn, pk packets.Packet)

	mu    sync.Mutex
	conns int
}

type serverConn struct {
	net.Conn
	number int // of the connection, from 1
	server *mqttServer
}

func serve(t *testing.T, handle func(c *serverConn, pk packets.Packet)) *mqttServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mqttServer{t: t, addr: l.Addr().String(), handle: handle}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			c := &serverConn{Conn: conn, number: s.conns, server: s}
			s.mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				c.loop()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return s
}

func (s *mqttServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// loop decodes with the codec of another project, so that what the fleet sends is
// judged by somebody else.
func (c *serverConn) loop() {
	r := bufio.NewReader(c)
	for {
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		var fh packets.FixedHeader
		if err := fh.Decode(first); err != nil {
			c.server.t.Errorf("fixed header %#x: %v", first, err)
			return
		}
		if fh.Remaining, _, err = packets.DecodeLength(r); err != nil {
			c.server.t.Errorf("length: %v", err)
			return
		}
		body := make([]byte, fh.Remaining)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		pk := packets.Packet{FixedHeader: fh, ProtocolVersion: 4}
		switch fh.Type {
		case packets.Connect:
			err = pk.ConnectDecode(body)
		case packets.Publish:
			err = pk.PublishDecode(body)
		case packets.Pingreq, packets.Disconnect:
		default:
			c.server.t.Errorf("unexpected packet type %d", fh.Type)
			return
		}
		if err != nil {
			c.server.t.Errorf("packet type %d: %v", fh.Type, err)
			return
		}
		c.server.handle(c, pk)
	}
}

func (c *serverConn) connack(code byte) { c.send(0x20, 2, 0, code) }

func (c *serverConn) puback(id uint16) { c.send(0x40, 2, byte(id>>8), byte(id)) }

// send ignores a failed write: the client may have left.
func (c *serverConn) send(b ...byte) { _, _ = c.Write(bytes.Clone(b)) }

// ackAll is a handler that welcomes everybody and acks everything.
func ackAll(also func(c *serverConn, pk packets.Packet)) func(c *serverConn, pk packets.Packet) {
	return func(c *serverConn, pk packets.Packet) {
		switch pk.FixedHeader.Type {
		case packets.Connect:
			c.connack(0)
		case packets.Publish:
			also(c, pk)
			if pk.FixedHeader.Qos == 1 {
				c.puback(pk.PacketID)
			}
		case packets.Pingreq:
			c.send(0xd0, 0)
		}
	}
}
