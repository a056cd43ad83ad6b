package ws

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"muster"
)

// subprotocol is the name that MQTT-6.0.0-3 demands.
const subprotocol = "mqtt"

const protocolHeader = "Sec-Websocket-Protocol" // canonical, as http.Header has it

// Sizes of the WebSocket layer's own buffers: all that is ever held of a message.
const (
	handshakeTimeout = 10 * time.Second
	readBuffer       = 1024
	writeBuffer      = 2048
)

// Upgrader upgrades requests; its connections share write buffers. The zero
// Upgrader is not usable.
type Upgrader struct {
	up  websocket.Upgrader
	now func() time.Time
}

// NewUpgrader returns an Upgrader. It accepts every Origin: a client proves who it
// is by its CONNECT packet, and cookies count for nothing here.
func NewUpgrader() *Upgrader {
	return &Upgrader{
		up: websocket.Upgrader{
			HandshakeTimeout: handshakeTimeout,
			ReadBufferSize:   readBuffer,
			WriteBufferSize:  writeBuffer,
			WriteBufferPool:  &sync.Pool{},
			Subprotocols:     []string{subprotocol},
			CheckOrigin:      func(*http.Request) bool { return true },
		},
		now: time.Now,
	}
}

// Upgrade turns r into a connection of which one goroutine at a time reads and one
// writes; closing it and setting deadlines is safe beside them. When it cannot, it
// has answered the request with a status of 4xx, or closed the connection of a
// client that sent more than the request, and returns an error: Invalid when the
// request breaks a rule.
//
// The connection has no deadline. Once a deadline has passed within a Read, or
// within a Write, no more can be read, or written: a frame may be cut in two.
func (u *Upgrader) Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if why := refusal(r); why != "" {
		w.Header().Set("Connection", "close") // or net/http would wait for a body that was announced
		http.Error(w, why, http.StatusBadRequest)
		return nil, muster.Errorf(muster.Invalid, "upgrade to a WebSocket: %s", why)
	}
	sock := &socket{toll: toll{left: tollBurst, filled: u.now(), now: u.now}}
	ws, err := u.up.Upgrade(hijacker{w, sock}, oneProtocol(r), http.Header{requestIDHeader: w.Header()[requestIDHeader]})
	if _, bad := errors.AsType[websocket.HandshakeError](err); bad {
		return nil, muster.Errorf(muster.Invalid, "upgrade to a WebSocket: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade to a WebSocket: %w", err)
	}
	return &conn{ws: ws, sock: sock}, nil
}

// requestIDHeader is set by who serves the path, and taken into the answer to an upgrade.
const requestIDHeader = "X-Request-Id"

// refusal says what is wrong with a request that the WebSocket library would let
// pass, "" for nothing.
func refusal(r *http.Request) string {
	switch {
	case !slices.Contains(protocols(r), subprotocol):
		return "the WebSocket subprotocol must be mqtt" // MQTT-6.0.0-3
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return "the WebSocket needs HTTP/1.1" // RFC 6455, section 4.1
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return "a WebSocket's request has no body" // its bytes would be taken for frames
	}
	return ""
}

// protocols returns the subprotocols offered. The header may come in several lines
// (RFC 6455, section 11.3.4).
func protocols(r *http.Request) []string {
	var all []string
	for line := range slices.Values(r.Header[protocolHeader]) {
		for p := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(p))
		}
	}
	return all
}

// oneProtocol returns r with only the subprotocol that was chosen, for the library
// reads the header's first line alone.
func oneProtocol(r *http.Request) *http.Request {
	one := r.WithContext(r.Context()) // a copy
	one.Header = r.Header.Clone()
	one.Header.Set(protocolHeader, subprotocol)
	return one
}

// hijacker puts the socket between the WebSocket library and the connection.
type hijacker struct {
	http.ResponseWriter
	sock *socket
}

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if nc == nil {
		return nil, nil, errors.New("the server gave no connection")
	}
	h.sock.Conn = nc
	return h.sock, brw, nil
}
