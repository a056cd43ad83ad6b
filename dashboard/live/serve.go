package live

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"muster"
)

// ServeHTTP answers GET /api/v1/live with a WebSocket. Before the upgrade it
// refuses with 403 (Origin), 400 (no muster.v1 among the subprotocols offered) or
// 503 (full, or not started); after it, with a bye.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	offered := websocket.Subprotocols(r)
	if len(offered) > 0 && !slices.Contains(offered, Subprotocol) {
		problem(w, http.StatusBadRequest, "invalid", "this server speaks "+Subprotocol)
		return
	}
	who, authErr := Principal{}, errNoOrigin
	if r.Header.Get("Origin") != "" {
		// A page of another site can make a browser send the cookie, but not without
		// an Origin, which the upgrader checks.
		who, authErr = g.deps.Auth.Authenticate(r)
	}
	waiting := authErr != nil
	if !g.admit(waiting) {
		w.Header().Set("Retry-After", "5")
		problem(w, http.StatusServiceUnavailable, "busy", "too many connections, or the server is not ready")
		return
	}
	conn, err := g.upgrader.Upgrade(bare{w}, r, http.Header{requestIDHeader: w.Header()[requestIDHeader]})
	if err != nil { // it has answered
		g.dismiss(waiting)
		g.deps.Log.Debug("live: upgrade", "err", err)
		return
	}
	boundSendBuffer(conn.NetConn())
	c := &client{g: g, conn: conn, who: &who, authErr: authErr, waiting: waiting, hz: ticksPerSecond, pace: ticksPerSecond, toldHz: ticksPerSecond, thin: inflates(r)}
	if g.deps.Stranger != nil {
		c.stranger = g.deps.Stranger(r)
	}
	c.begin()
	g.enter(c)
	// A goroutine of its own: the request, its handler's stack and net/http's
	// buffers are freed when this one returns.
	go c.run() //nolint:contextcheck // the socket outlives the request
}

// bare is a response whose connection is handed over as the listener took it: each wrapper around it is a frame on the
// stack of a reader that waits, and goroutines begin with twice the stack when those that wait use half of it on average.
type bare struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (b bare) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(b.ResponseWriter).Hijack()
	if wrapped, ok := conn.(interface{ Bare() net.Conn }); ok {
		conn = wrapped.Bare()
	}
	return conn, rw, err //nolint:wrapcheck // the upgrader answers with it
}

// inflates says whether the client offered to inflate, which the upgrader agrees to.
func inflates(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Sec-WebSocket-Extensions"), ","), "permessage-deflate")
}

// requestIDHeader is set by who serves the path, and taken into the answer to an upgrade.
const requestIDHeader = "X-Request-Id"

// refuseUpgrade answers for the upgrader.
func refuseUpgrade(w http.ResponseWriter, _ *http.Request, status int, reason error) {
	code := muster.Invalid.String()
	if status == http.StatusForbidden {
		code = muster.Forbidden.String()
	}
	problem(w, status, code, reason.Error())
}

// originAllowed accepts the request's own host, the configured origins, and no
// Origin at all: then only a token lets the client in.
func (g *Gateway) originAllowed(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	u, err := url.Parse(values[0])
	if err != nil || u.Host == "" || len(values) > 1 {
		return false
	}
	if strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, o := range g.cfg.Origins {
		if strings.EqualFold(o, u.Host) || strings.EqualFold(o, u.Scheme+"://"+u.Host) {
			return true
		}
	}
	return false
}

// boundSendBuffer keeps a reader that has stalled from taking megabytes of kernel
// memory.
func boundSendBuffer(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	if t, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		// An error means that the connection is gone, which the first read tells.
		_ = t.SetWriteBuffer(sendBuffer)
	}
}

// admit takes a place for one connection.
func (g *Gateway) admit(waiting bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open || g.conns >= g.cfg.MaxConns || waiting && g.waiting >= max(1, g.cfg.MaxConns/4) {
		return false
	}
	g.conns++
	if waiting {
		g.waiting++
	}
	g.clients.Add(1)
	return true
}

func (g *Gateway) dismiss(waiting bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns--
	if waiting {
		g.waiting--
	}
	g.clients.Done()
}

// enter puts c on the wheel; spread evenly, so that pings are too. A client that
// is upgraded while the gateway stops is told so.
func (g *Gateway) enter(c *client) {
	g.mu.Lock()
	c.slot = g.next
	g.next = (g.next + 1) % pingSeconds
	g.wheel[c.slot][c] = struct{}{}
	open := g.open
	g.mu.Unlock()
	if !open {
		c.bye(codeShutdown, "the server is stopping")
	}
}

// join counts c, which has said who it is, against its user's limit.
func (g *Gateway) join(c *client, who Principal) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users[who.ID] >= g.cfg.MaxPerUser {
		return false
	}
	g.users[who.ID]++
	if c.waiting {
		c.waiting = false
		g.waiting--
	}
	return true
}

// leave gives c's places back. It is the last thing that a client does.
func (g *Gateway) leave(c *client, user string, joined bool) {
	g.mu.Lock()
	delete(g.wheel[c.slot], c)
	waiting := c.waiting
	if joined {
		if g.users[user]--; g.users[user] == 0 {
			delete(g.users, user)
		}
	}
	g.mu.Unlock()
	g.dismiss(waiting)
}

// socketDeadline is by the machine's clock, not the injected one: the kernel
// knows no other.
func socketDeadline(d time.Duration) time.Time { return time.Now().Add(d) }

func newSessionID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
