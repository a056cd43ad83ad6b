package ws

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

// closeTimeout is how long the last frame may take to leave.
const closeTimeout = time.Second

var (
	errText  = errors.New("a text message instead of a binary one") // MQTT-6.0.0-1
	errEmpty = errors.New("too many frames without content")
)

// conn is a WebSocket seen as a stream: packets may span messages and messages may
// hold several packets (MQTT-6.0.0-2).
type conn struct {
	ws   *websocket.Conn
	sock *socket

	cur io.Reader // the message being read, or nil
	err error     // how reading ended; it stays
}

// Read reads from the current message, or waits for the next. A closed WebSocket is
// io.EOF, a deadline that passed os.ErrDeadlineExceeded. The client is told why it
// is cut off, by the WebSocket's close code.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 || c.err != nil {
		return 0, c.err
	}
	n, err := c.read(p)
	c.sock.toll.pay(n)
	if err != nil {
		c.err = c.ended(err)
	}
	if n > 0 {
		return n, nil // the error comes next time
	}
	return 0, c.err
}

func (c *conn) read(p []byte) (int, error) {
	for {
		if c.cur == nil {
			kind, r, err := c.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errText
			}
			c.cur = r
		}
		n, err := c.cur.Read(p)
		if errors.Is(err, io.EOF) { // the message's end; the socket's is a CloseError
			c.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// ended turns the library's error into a net.Conn's, and tells the client what it
// did wrong where the library has not.
func (c *conn) ended(err error) error {
	switch {
	case errors.Is(err, errText):
		c.sayLast(websocket.CloseUnsupportedData)
	case errors.Is(err, errEmpty):
		c.sayLast(websocket.ClosePolicyViolation)
	}
	if _, closed := errors.AsType[*websocket.CloseError](err); closed {
		return io.EOF
	}
	return fmt.Errorf("read from a WebSocket: %w", timedOut(err))
}

// timedOut gives a deadline's error back its identity, which the library takes.
func timedOut(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return err
}

// Write sends p as one binary message.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, fmt.Errorf("write to a WebSocket: %w", timedOut(err))
	}
	return len(p), nil
}

// sayLast sends a close frame if that is possible; the connection ends either way.
func (c *conn) sayLast(code int) { _ = c.sayClose(code) }

func (c *conn) sayClose(code int) error {
	return c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(closeTimeout))
}

// CloseWrite tells the client that nothing more comes. It waits at most 1 s.
func (c *conn) CloseWrite() error { return c.sayClose(websocket.CloseNormalClosure) }

func (c *conn) Close() error                       { return c.sock.Close() }
func (c *conn) LocalAddr() net.Addr                { return c.sock.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr               { return c.sock.RemoteAddr() }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.sock.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.sock.setCallers(t) }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
