package live

import (
	"compress/flate"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"muster/traffic"
)

// Close codes: a client reconnects after 4000 to 4499 and not after 4500 to 4999.
const (
	codeShutdown    = 4001
	codeNoHello     = 4002 // no hello in time
	codeBusy        = 4003 // who is asking cannot be told just now
	codeSlow        = 4008 // it does not read its answers
	codeExpired     = 4009 // the session or its rights ended: sign in again, then hello
	codeProtocol    = 4500 // the first frame was not a hello
	codeBadToken    = 4501
	codeForbidden   = 4503
	codeTooMany     = 4505 // connections of this user, commands, or wrong credentials
	minRetry        = 1000
	spreadRetry     = 30_000 // ms over which reconnects are spread at a shutdown
	maxReplies      = 256    // more than a batch can cause, waiting to be written; a client that does not read them is ended
	stepUpAfter     = 10     // frames written in time before the rate goes up again
	lingerTime      = time.Second
	maxRefusals     = 100 // commands over the limit in refusalWindow before a bye
	refusalWindow   = 10 * time.Second
	commandsRefill  = 10 * time.Second // in which a whole burst comes back
	lingerMaxBytes  = 1 << 20
	writeChunkBytes = 16 << 10
)

// client is one socket. Its reader is the one goroutine that lives as long as it
// does; commands and flushes run in goroutines of their own, which end.
type client struct {
	g    *Gateway
	conn *websocket.Conn // nil of a stream
	out  *Stream         // of a stream, else nil
	slot int
	thin bool // the peer inflates (RFC 7692)

	waiting bool // guarded by g.mu: counted among those without a session
	marked  bool // the tick loop's own: is in g.ready

	wantedAt uint64 // the tick loop's own: the last tick in which there was something for it

	heard    atomic.Bool    // something came since the last ping
	work     sync.WaitGroup // the command under way
	flushers sync.WaitGroup // the flush under way
	bucket   bucket         // the command goroutine's own, as are the next two
	authErr  error          // why the cookie did not let it in
	more     bool           // the flush goroutine's own: events wait that it did not send at once
	moreNews bool           // likewise: news of the inbox
	joined   bool

	mu        sync.Mutex
	stranger  func() bool   // counts a wrong credential; nil for nobody
	who       *Principal    // set before hello for a cookie, by hello for a token; not changed
	traffic   *traffic.Conn // set by hello, before anything is sent
	greeted   bool          // welcome was sent
	subs      channels
	replies   [][]byte
	pongData  []byte // of the client's last ping
	byeCode   int
	byeWhy    string
	pongDue   bool
	pingDue   bool
	due       bool // marks are to be sent
	wants     bool // a sub has a snapshot due
	news      bool // the inbox is to be looked at
	hidden    bool
	flushing  bool // a flush goroutine runs
	writing   bool
	stateOut  bool  // what is being written is of a state channel
	closing   bool  // bye was written
	ended     bool  // the reader has stopped
	late      bool  // a turn was missed since the last frame
	hz        uint8 // how often the connection takes frames
	pace      uint8 // how often all have them
	toldHz    uint8
	inTime    uint8  // frames since the last change of hz
	writeTick uint64 // when the write under way began
}

// begin prepares the socket. It runs in the upgrade's goroutine: run must not go
// deep, because a stack that has grown beyond 2 KB stays so with an idle socket.
func (c *client) begin() {
	c.conn.SetReadLimit(readLimit)
	c.conn.EnableWriteCompression(false) // but for what deflate sends
	c.conn.SetPongHandler(func(string) error { c.heard.Store(true); return nil })
	c.conn.SetPingHandler(c.pinged)
	c.deadline(c.g.cfg.HelloTimeout)
}

// run waits for frames until the socket ends. All else is done in goroutines of
// their own, one after the other, for the sake of the stack.
func (c *client) run() {
	for {
		kind, body, err := c.conn.NextReader()
		if err != nil {
			c.g.clients.Go(func() { c.end(err) })
			return
		}
		c.obeyFrame(kind, body)
		if c.thin { // what inflates went deep: the next frame is waited for on a new stack
			go c.run()
			return
		}
	}
}

func (c *client) obeyFrame(kind int, body io.Reader) {
	c.work.Go(func() {
		defer c.cutOnPanic()
		data, err := io.ReadAll(io.LimitReader(body, readLimit+1)) // what is deflated may hold more than was sent
		_, corrupt := errors.AsType[flate.CorruptInputError](err)
		switch {
		case corrupt:
			c.bye(codeProtocol, "a frame cannot be inflated")
		case len(data) > readLimit:
			c.bye(websocket.CloseMessageTooBig, "a frame is too long")
		case err == nil:
			c.heard.Store(true)
			c.frame(kind, data)
		} // else NextReader fails next, with the same error
	})
	c.work.Wait()
}

func (c *client) readFailed(err error) {
	var timeout net.Error
	if !c.isGreeted() && errors.As(err, &timeout) && timeout.Timeout() {
		c.bye(codeNoHello, "no hello in time")
	}
}

// end gives everything back. A bye under way is written first, and what the peer
// still sends is read: a socket closed with unread input is reset, and the reset
// overtakes what was written last.
func (c *client) end(err error) {
	defer c.g.caught("the end of a connection")
	c.readFailed(err)
	c.mu.Lock()
	c.ended = true
	parting := c.byeCode != 0
	subs, user := c.subs, c.who.ID
	c.subs = nil
	c.mu.Unlock()
	if parting {
		c.flushers.Wait()
	}
	c.linger()
	c.cut()
	c.flushers.Wait()
	for _, s := range subs {
		c.g.closeSub(s)
	}
	c.traffic.Close()
	c.g.leave(c, user, c.joined)
}

func (c *client) linger() {
	nc := c.conn.NetConn()
	if nc.SetReadDeadline(socketDeadline(lingerTime)) != nil {
		return // closed already
	}
	halfClose(nc)
	// Whatever ends it, the socket is closed next.
	_, _ = io.CopyN(io.Discard, nc, lingerMaxBytes)
}

func halfClose(nc net.Conn) {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // fails when the peer has gone, which is as good
	}
}

// cut closes the socket at once.
func (c *client) cut() {
	if c.out != nil {
		c.out.cut()
		return
	}
	_ = c.conn.Close() // a second close fails, and that is fine
}

// deadline gives the peer d to be heard of, unless it was told bye: then it has
// the linger time. Under mu, so that a pong cannot undo a bye's deadline.
func (c *client) deadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing && c.out == nil {
		_ = c.conn.SetReadDeadline(socketDeadline(d)) // a closed socket fails in the next read
	}
}

// extend follows a ping: whoever was heard since the one before has until the
// silence timeout after that one, so that a peer that has gone is cut in time.
func (c *client) extend() {
	if c.heard.Swap(false) {
		c.deadline(c.g.cfg.SilenceTimeout - pingSeconds*time.Second)
	}
}

// channels are the subscriptions of a client, one to a channel, at most maxChannels.
type channels []*sub

func (x channels) at(ch string) int {
	return slices.IndexFunc(x, func(s *sub) bool { return s.ch == ch })
}

// of returns the subscription to ch, or nil.
func (x channels) of(ch string) *sub {
	if i := x.at(ch); i >= 0 {
		return x[i]
	}
	return nil
}

func (x *channels) put(s *sub) {
	if i := x.at(s.ch); i >= 0 {
		(*x)[i] = s
		return
	}
	*x = append(*x, s)
}

func (x *channels) drop(ch string) {
	if i := x.at(ch); i >= 0 {
		*x = slices.Delete(*x, i, i+1)
	}
}

func (c *client) isGreeted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.greeted
}

// principal returns who said hello.
func (c *client) principal() *Principal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}

// owner returns whose connection it is, empty before hello.
func (c *client) owner() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.greeted {
		return ""
	}
	return c.who.ID
}

func (c *client) expired(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.greeted && !c.who.Expires.IsZero() && !now.Before(c.who.Expires)
}

// reply queues an answer. A client that leaves too many unread is told bye.
func (c *client) reply(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replyLocked(frame)
}

func (c *client) replyLocked(frame []byte) {
	if len(c.replies) >= maxReplies {
		if c.byeCode == 0 {
			c.byeCode, c.byeWhy = codeSlow, "answers are not being read"
			c.g.stats.overflows.Add(1)
		}
		return
	}
	c.replies = append(c.replies, frame)
	c.kick()
}

// bye ends the connection with a code, once what is queued has been written.
func (c *client) bye(code int, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byeCode == 0 && !c.ended {
		c.byeCode, c.byeWhy = code, why
		c.kick()
	}
}

// saidBye says whether what the client sends is of no more interest.
func (c *client) saidBye() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byeCode != 0
}

// ping asks the peer for a sign of life, and tells it of a change of pace that nothing else told it.
func (c *client) ping(pace uint8) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.greeted {
		c.pingDue = true
		c.kick()
		c.paced(pace)
	}
}

// pinged answers the client's control pings, the last one when several came
// before the answer could be written (RFC 6455, section 5.5.3).
func (c *client) pinged(data string) error {
	c.heard.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pongDue, c.pongData = true, []byte(data)
	c.kick()
	return nil
}

// kick starts a flush unless one runs. The caller holds mu.
func (c *client) kick() {
	if c.flushing || c.ended {
		return
	}
	c.flushing = true
	c.g.clients.Add(1)
	c.flushers.Add(1)
	go c.flush()
}

// offer gives c, which has marks, its turn at tick n at the pace of all; it returns true when c must
// be offered again. While a frame is being written the next one is not made: it
// is made of the newest when that one has drained, and a client that lets whole
// ticks pass is stepped down.
func (c *client) offer(n uint64, pace uint8) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marked = false // before a flush takes the marks
	if c.ended || c.hidden || c.byeCode != 0 {
		return false
	}
	hz, turn := uint64(min(c.hz, pace)), n+c.offset()
	if turn*hz/ticksPerSecond == (turn-1)*hz/ticksPerSecond {
		c.marked = true
		return true
	}
	// Two whole ticks: a write that began just before the last one has had no time.
	if c.writing && c.writeTick+2 < n {
		c.stepDown()
	}
	c.due = true
	if !c.flushing {
		c.flushBy(c.g.writers)
	}
	c.paced(pace)
	return false
}

// flushBy has w flush c. The caller holds mu, and no flush runs.
func (c *client) flushBy(w *writers) {
	c.flushing = true
	c.g.clients.Add(1)
	c.flushers.Add(1)
	w.add(c)
}

// offset spreads those who have no turn in each tick over the ticks.
func (c *client) offset() uint64 { return uint64(c.slot / c.g.cfg.Phases) }

func (c *client) stepDown() {
	c.late, c.inTime = true, 0
	if c.hz == 1 {
		return
	}
	if c.hz--; c.hz > 2 {
		c.hz = 2
	}
	c.g.stats.slowed.Add(1)
	c.retune("slow connection")
}

// drained notes that a frame of state has been written, and goes back up after
// enough of them in time. The caller holds mu.
func (c *client) drained() {
	if c.late {
		c.late, c.inTime = false, 0
		return
	}
	if c.hz == ticksPerSecond {
		return
	}
	if c.inTime++; c.inTime < stepUpAfter {
		return
	}
	c.inTime = 0
	if c.hz++; c.hz > 2 {
		c.hz = ticksPerSecond
	}
	c.retune("the connection keeps up")
}
