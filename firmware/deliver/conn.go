package deliver

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
)

// Listen returns l with connections over which images go out without a buffer of net/http's: its
// ReadFrom holds one of 32 KiB for as long as the client takes, which is most of what a download
// costs. It needs [WithConn] as the server's ConnContext. Connections that are not TCP stay as they are.
func Listen(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// tcp is what a *net.TCPConn has that somebody behind the HTTP server uses.
type tcp interface {
	net.Conn
	io.ReaderFrom
	syscall.Conn
	CloseWrite() error
	SetWriteBuffer(bytes int) error
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // net/http looks at it
	}
	if t, ok := c.(tcp); ok {
		return &connection{t}, nil
	}
	return c, nil
}

// connection is one that can be told of bytes that were sent over it already.
type connection struct{ tcp }

// Bare returns the connection as the listener took it, for who takes it over from net/http.
func (c *connection) Bare() net.Conn { return c.tcp }

// gone stands for bytes that were sent over the connection itself, so that net/http counts them: it
// would close a connection that had another number of them than the header says.
type gone struct{ n int64 }

var errGone = errors.New("bytes that were sent cannot be read")

// Read implements io.Reader; nobody calls it who knows what this is.
func (*gone) Read([]byte) (int, error) { return 0, errGone }

// ReadFrom implements io.ReaderFrom.
func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	if g, ok := r.(*gone); ok {
		return g.n, nil
	}
	return c.tcp.ReadFrom(r) //nolint:wrapcheck // as it is
}

type connKey struct{}

// WithConn is the ConnContext of an http.Server on what Listen returns.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	if own, ok := c.(*connection); ok {
		return context.WithValue(ctx, connKey{}, own)
	}
	return ctx
}

func connOf(ctx context.Context) *connection {
	c, _ := ctx.Value(connKey{}).(*connection)
	return c
}
