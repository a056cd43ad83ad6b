package live

import (
	"time"

	"github.com/gorilla/websocket"

	"muster/traffic"
)

// job is what one round of a flush has to write.
type job struct {
	replies [][]byte
	traffic *traffic.Conn
	subs    []*sub // whose marks are to be sent
	wanted  []wanted
	state   bool // some of them are of state
	ping    bool
	pong    bool
	pongMsg []byte
	byeCode int
	byeWhy  string
}

type wanted struct {
	s     *sub
	re    int64
	hasRe bool
}

// flush writes until there is nothing to write. It is the only writer of data.
func (c *client) flush() {
	defer c.g.clients.Done()
	defer c.flushers.Done()
	defer c.cutOnPanic()
	for {
		j, ok := c.take()
		if !ok {
			return
		}
		if err := c.write(&j); err != nil {
			c.g.stats.failed.Add(1)
			c.g.deps.Log.Debug("live: write", "err", err)
			c.cut() // the reader sees it and ends the client; flushing stays set, so no flush follows
			return
		}
		if j.byeCode != 0 {
			c.parted()
			return
		}
	}
}

// cutOnPanic ends the connection that panicked, and no other.
func (c *client) cutOnPanic() {
	if p := recover(); p != nil {
		c.g.report("a connection", p)
		c.cut()
	}
}

// take returns what is to be written now, or false after it has noted that this
// flush ends.
func (c *client) take() (job, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing {
		c.writing = false
		if c.stateOut {
			c.drained()
		}
	}
	if c.more && !c.hidden {
		c.due = true
	}
	c.news = c.news || c.moreNews
	c.more, c.moreNews = false, false
	idle := len(c.replies) == 0 && !c.pingDue && !c.pongDue && !c.due && !c.wants && !c.news && c.byeCode == 0
	if idle || c.ended && c.byeCode == 0 {
		c.flushing = false
		return job{}, false
	}
	j := job{
		replies: c.replies, traffic: c.traffic, ping: c.pingDue, pong: c.pongDue, pongMsg: c.pongData,
		byeCode: c.byeCode, byeWhy: c.byeWhy,
	}
	if (c.due || c.wants || c.news) && c.byeCode == 0 {
		c.takeSubs(&j)
	}
	c.replies, c.pongData = nil, nil
	c.pingDue, c.pongDue, c.due, c.wants, c.news = false, false, false, false, false
	c.writing, c.writeTick = true, c.g.tick.Load()
	c.stateOut = j.state
	return j, true
}

// takeSubs sorts the channels into those that want a snapshot and those whose
// marks, or news, are due.
func (c *client) takeSubs(j *job) {
	for _, s := range c.subs {
		inbox := s.kind == kindInbox
		switch {
		case !s.shown:
			continue
		case s.want:
			s.want = false
			j.wanted = append(j.wanted, wanted{s, s.re, s.hasRe})
		case c.due || inbox && c.news:
			j.subs = append(j.subs, s)
		default:
			continue
		}
		j.state = j.state || !inbox
	}
}

func (c *client) write(j *job) error {
	buf, ok := c.g.buffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	m := message{b: (*buf)[:0], sse: c.out != nil}
	if !m.sse {
		m.b = append(m.b, '[')
	}
	for _, r := range j.replies {
		m.add(r)
	}
	for _, w := range j.wanted {
		c.g.snapshot(&m, w.s, w.re, w.hasRe)
	}
	for _, s := range j.subs {
		c.g.delta(&m, s)
	}
	if j.byeCode != 0 {
		m.add(byeFrame(j.byeCode, j.byeWhy))
	}
	err := c.send(j, &m)
	if err == nil {
		j.confirm(c.g.deps.Notes)
	}
	if cap(m.b) <= 256<<10 { // a rare giant is not kept
		*buf = m.b
		c.g.buffers.Put(buf)
	}
	return err
}

func (c *client) send(j *job, m *message) error {
	data := m.bytes()
	if c.out != nil {
		return c.out.sendAll(j, m, data)
	}
	if j.pong {
		if err := c.conn.WriteControl(websocket.PongMessage, j.pongMsg, c.writeDeadline()); err != nil {
			return err
		}
	}
	if j.ping {
		c.extend() // before the pong can come, which is to count for the next ping
		if err := c.conn.WriteControl(websocket.PingMessage, nil, c.writeDeadline()); err != nil {
			return err
		}
	}
	if data != nil {
		if err := c.sendMessage(j, websocket.TextMessage, data); err != nil {
			return err
		}
	}
	for _, b := range m.binary {
		if err := c.sendMessage(j, websocket.BinaryMessage, b); err != nil {
			return err
		}
	}
	if j.byeCode != 0 {
		frame := websocket.FormatCloseMessage(j.byeCode, j.byeWhy)
		return c.conn.WriteControl(websocket.CloseMessage, frame, c.writeDeadline())
	}
	return nil
}

func (c *client) sendMessage(j *job, kind int, data []byte) error {
	if err := c.sendData(kind, data); err != nil {
		return err
	}
	j.traffic.Sent(1)
	c.g.stats.messages.Add(1)
	c.g.stats.bytes.Add(uint64(len(data)))
	return nil
}

// sendData writes one message. A long one goes in pieces, each with a deadline of
// its own, so that a thin line is not taken for a stalled one.
func (c *client) sendData(kind int, data []byte) error {
	if c.thin && kind == websocket.TextMessage && len(data) >= minDeflated && len(data) <= maxDeflated {
		return c.sendDeflated(data)
	}
	_ = c.conn.SetWriteDeadline(c.writeDeadline()) // always nil: it only notes the time
	if len(data) <= 2*writeChunkBytes {
		return c.conn.WriteMessage(kind, data)
	}
	w, err := c.conn.NextWriter(kind)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(len(data), writeChunkBytes)
		_ = c.conn.SetWriteDeadline(c.writeDeadline())
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return w.Close()
}

// sendDeflated writes one message deflated. It is deflated before the write and not in it: what
// deflates takes a megabyte, and a reader that stalls must not hold one.
func (c *client) sendDeflated(data []byte) error {
	pm, err := websocket.NewPreparedMessage(websocket.TextMessage, data)
	if err != nil {
		return err
	}
	pieces := (len(data) + writeChunkBytes - 1) / writeChunkBytes
	_ = c.conn.SetWriteDeadline(socketDeadline(time.Duration(pieces) * c.g.cfg.WriteTimeout)) // always nil
	c.conn.EnableWriteCompression(true)
	defer c.conn.EnableWriteCompression(false)
	return c.conn.WritePreparedMessage(pm)
}

func (c *client) writeDeadline() time.Time { return socketDeadline(c.g.cfg.WriteTimeout) }

// parted follows a bye: the peer has a moment to answer the close.
func (c *client) parted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.out != nil {
		c.out.cut()
		return
	}
	nc := c.conn.NetConn()
	_ = nc.SetReadDeadline(socketDeadline(lingerTime)) // fails on a closed socket, which is what follows
}
