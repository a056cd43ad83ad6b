package live

import (
	"encoding/base64"

	"github.com/gorilla/websocket"

	"muster"
)

// chPage is what a stream asks for that is a page's whole connection, where a proxy lets no
// WebSocket through: all that a socket would be sent comes as events, and the commands by Say.
const chPage = "page"

// attachPage opens a connection without a channel yet.
func (g *Gateway) attachPage(st *Stream) error {
	st.sid = newSessionID()
	if !g.enterStream(st.c) {
		return muster.Errorf(muster.Unavailable, "the server is stopping")
	}
	st.entered = true
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines[st.sid] = st
	return nil
}

// Say obeys commands of who for the stream of the channel page with the id sid, one frame as a
// socket sends it, at most 64 KiB. Answers come in the stream. It is NotFound when this
// process has no such stream of who's.
func (g *Gateway) Say(who Principal, sid string, frame []byte) error {
	g.mu.Lock()
	st := g.lines[sid]
	g.mu.Unlock()
	if st == nil || st.c.who.ID != who.ID {
		return errNoLine
	}
	if len(frame) > readLimit {
		return muster.Errorf(muster.Invalid, "a frame has at most %d bytes", readLimit)
	}
	return st.obey(frame)
}

var errNoLine = muster.Errorf(muster.NotFound, "there is no such stream")

// obey runs one frame after the other, as the reader of a socket does.
func (st *Stream) obey(frame []byte) error {
	st.talk.Lock()
	defer st.talk.Unlock()
	if st.over {
		return errNoLine
	}
	defer st.c.cutOnPanic()
	st.c.frame(websocket.TextMessage, frame)
	return nil
}

// hangUp ends what Say does: what comes later is refused, and what is under way is waited for.
func (st *Stream) hangUp() {
	st.talk.Lock()
	st.over = true
	st.talk.Unlock()
	g := st.c.g
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.lines, st.sid)
}

// sendAll sends data, which is m's text, and m's binary messages, or a comment for a ping.
func (st *Stream) sendAll(j *job, m *message, data []byte) error {
	if data == nil && len(m.binary) == 0 {
		if !j.ping {
			return nil
		}
		return st.send(nil, 0)
	}
	for _, b := range m.binary {
		data = appendBinary(data, b)
	}
	return st.send(data, m.frames+len(m.binary))
}

// appendBinary appends a binary message as an event named binary, in base64 (RFC 4648, section 4).
func appendBinary(b, data []byte) []byte {
	b = append(b, "event: binary\ndata: "...)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, "\n\n"...)
}
