package ws

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// subprotocol is the name that MQTT-6.0.0-3 demands.
const subprotocol = "mqtt"

// Sizes of the WebSocket layer's own buffers; they bound no message.
const (
	handshakeTimeout = 10 * time.Second
	readBuffer       = 1024
	writeBuffer      = 2048
	closeTimeout     = time.Second
)

// Upgrader upgrades requests; its connections share write buffers. The zero
// Upgrader is not usable.
type Upgrader struct {
	up websocket.Upgrader
}

// NewUpgrader returns an Upgrader. It accepts every Origin: a client proves who it
// is by its CONNECT packet, and cookies count for nothing here.
func NewUpgrader() *Upgrader {
	return &Upgrader{websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout,
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  writeBuffer,
		WriteBufferPool:  &sync.Pool{},
		Subprotocols:     []string{subprotocol},
		CheckOrigin:      func(*http.Request) bool { return true },
	}}
}

// Upgrade turns r into a connection. When it cannot, it has answered the request
// and returns an error.
func (u *Upgrader) Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if !slices.Contains(websocket.Subprotocols(r), subprotocol) {
		http.Error(w, "the WebSocket subprotocol must be mqtt", http.StatusBadRequest)
		return nil, errors.New("upgrade: the client does not offer the subprotocol mqtt")
	}
	c, err := u.up.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return &conn{ws: c}, nil
}

// conn is a WebSocket seen as a stream: packets may span messages and messages may
// hold several packets (MQTT-6.0.0-2). One goroutine reads and one writes.
type conn struct {
	ws  *websocket.Conn
	cur io.Reader // the message being read
}

// Read reads from the current message, or waits for the next. It reports a closed
// WebSocket as io.EOF, and a text message as an error (MQTT-6.0.0-1).
func (c *conn) Read(p []byte) (int, error) {
	for {
		if c.cur == nil {
			if err := c.next(); err != nil {
				return 0, err
			}
		}
		n, err := c.cur.Read(p)
		if errors.Is(err, io.EOF) {
			c.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (c *conn) next() error {
	kind, r, err := c.ws.NextReader()
	if _, closed := errors.AsType[*websocket.CloseError](err); closed {
		return io.EOF
	}
	if err != nil {
		return err
	}
	if kind != websocket.BinaryMessage {
		return errors.Join(errors.New("read: a text message instead of a binary one"), c.sayClose(websocket.CloseUnsupportedData))
	}
	c.cur = r
	return nil
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *conn) sayClose(code int) error {
	return c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(closeTimeout))
}

// CloseWrite tells the client that nothing more comes.
func (c *conn) CloseWrite() error { return c.sayClose(websocket.CloseNormalClosure) }

func (c *conn) Close() error                       { return c.ws.Close() }
func (c *conn) LocalAddr() net.Addr                { return c.ws.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr               { return c.ws.RemoteAddr() }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.ws.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.ws.SetWriteDeadline(t) }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.ws.SetReadDeadline(t), c.ws.SetWriteDeadline(t))
}
