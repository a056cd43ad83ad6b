package live

import (
	"errors"
	"strconv"

	"github.com/gorilla/websocket"

	"muster"
	"muster/once"
	"muster/traffic"
)

// frame obeys one frame. It runs alone: the reader waits for it.
func (c *client) frame(kind int, data []byte) {
	defer func() { c.traffic.Received(1) }() // of a hello, too
	if c.saidBye() {
		return
	}
	if kind != websocket.TextMessage {
		c.malformed("frames are text")
		return
	}
	cmds, err := parse(data)
	if err != nil {
		c.malformed(muster.Public(err))
		return
	}
	if !c.isGreeted() {
		if len(cmds) == 0 || !c.hello(&cmds[0]) {
			return
		}
		cmds = cmds[1:]
	}
	for i := range cmds {
		if c.saidBye() {
			return
		}
		c.obey(&cmds[i])
	}
}

// malformed answers a frame that holds no commands: an error, or bye when it
// should have been the hello.
func (c *client) malformed(detail string) {
	if !c.isGreeted() {
		c.bye(codeProtocol, "hello expected: "+detail)
		return
	}
	if c.allowed(nil) {
		c.reply(errorFrame(nil, "", "bad_json", detail, false))
	}
}

// allowed takes a command from the bucket. Over the limit it answers busy, and
// after too many of those bye.
func (c *client) allowed(id *int64) bool {
	now := c.g.deps.Now()
	if c.bucket.take(now, c.g.cfg.CommandBurst) {
		return true
	}
	if c.bucket.refused(now) > maxRefusals {
		c.bye(codeTooMany, "too many commands")
		return false
	}
	c.reply(errorFrame(id, "", muster.Busy.String(), "too many commands, wait a little", true))
	return false
}

func (c *client) obey(cmd *command) {
	if !c.allowed(cmd.ID) {
		return
	}
	if cmd.fault != "" {
		c.refuse(cmd, muster.Errorf(muster.Invalid, "%s", cmd.fault))
		return
	}
	switch cmd.T {
	case "sub":
		c.subscribe(cmd)
	case "unsub":
		c.unsubscribe(cmd)
	case "vis":
		c.visible(cmd)
	case "ping":
		c.pong(cmd)
	case "ack":
		c.ack(cmd)
	case "dots":
		c.nameDots(cmd)
	case "pub":
		c.publish(cmd)
	case "hello":
		c.refuse(cmd, muster.Errorf(muster.Conflict, "hello was said before"))
	default:
		c.reply(errorFrame(cmd.ID, "", "unknown_type", "there is no command "+strconv.Quote(shorten(cmd.T)), false))
	}
}

var (
	errChannel  = muster.Errorf(muster.NotFound, "there is no such channel")
	errNoOrigin = muster.Errorf(muster.Unauthorized, "a client without an Origin needs a token")
)

func (c *client) refuse(cmd *command, err error) {
	c.refuseAs(cmd.ID, cmd.Ch, err)
}

func (c *client) refuseAs(id *int64, ch string, err error) {
	k := muster.KindOf(err)
	code := k.String()
	if errors.Is(err, errChannel) {
		code = "unknown_channel"
	}
	if refused, ok := errors.AsType[once.RefusedError](err); ok {
		c.reply(errorFrame(id, ch, string(refused), refused.Error(), refused == once.ErrInFlight || refused == once.ErrFull))
		return
	}
	retry := k == muster.Busy || k == muster.Unavailable || k == muster.Internal
	if k == muster.Internal {
		c.g.deps.Log.Error("live: command", "err", err)
	}
	c.reply(errorFrame(id, ch, code, muster.Public(err), retry))
}

// hello lets the client in, by its token or the cookie it came with.
func (c *client) hello(cmd *command) bool {
	if cmd.T != "hello" || cmd.fault != "" {
		c.bye(codeProtocol, "hello expected")
		return false
	}
	who, err := *c.who, c.authErr
	if cmd.Token != "" {
		who, err = c.g.deps.Auth.AuthenticateToken(cmd.Token)
	}
	if muster.KindOf(err) == muster.Unauthorized && err != nil && c.stranger != nil && !c.stranger() {
		c.refuse(cmd, muster.Errorf(muster.Busy, "too many wrong credentials came from this address"))
		c.bye(codeTooMany, "too many wrong credentials")
		return false
	}
	if err != nil {
		code, why := authBye(err)
		c.bye(code, why)
		return false
	}
	if !c.g.join(c, who) {
		c.bye(codeTooMany, "too many connections of this user")
		return false
	}
	c.joined = true
	c.mu.Lock()
	c.who, c.greeted, c.stranger = &who, true, nil // who is in is no stranger: what counts them need not be kept
	c.traffic = c.g.deps.Traffic.Open(traffic.Who{ID: who.Owner, Name: who.Name}, traffic.WebSocket)
	c.mu.Unlock()
	c.deadline(c.g.cfg.SilenceTimeout)
	c.reply(c.g.welcome(cmd.ID, newSessionID(), who))
	return true
}

// authBye gives the close code for each kind of failure to tell who is asking.
func authBye(err error) (code int, why string) {
	switch muster.KindOf(err) {
	case muster.Forbidden:
		return codeForbidden, "you may not watch the fleet"
	case muster.Busy, muster.Unavailable, muster.Internal:
		return codeBusy, "who you are cannot be told just now"
	default:
		return codeBadToken, "sign in, or give a valid token"
	}
}

func (c *client) subscribe(cmd *command) {
	s, err := subFor(c, cmd)
	if err != nil {
		c.refuse(cmd, err)
		return
	}
	c.mu.Lock()
	old, hidden, full := c.subs.of(s.ch), c.hidden, len(c.subs) >= maxChannels
	c.mu.Unlock()
	if old == nil && full {
		c.refuse(cmd, muster.Errorf(muster.Busy, "at most %d channels may be open", maxChannels))
		return
	}
	s.seq = new(uint64)
	if old != nil {
		s.seq = old.seq
	}
	if !hidden || s.kind == kindInbox {
		if err := c.g.openSub(s); err != nil {
			c.refuse(cmd, err)
			return
		}
	}
	c.install(s, old)
}

// install puts s in the place of old and has its snapshot sent, unless the tab is
// hidden: then the snapshot waits, but that of the inbox.
func (c *client) install(s, old *sub) {
	c.mu.Lock()
	c.subs.put(s)
	s.want, s.shown = true, !c.hidden || s.kind == kindInbox
	unanswered := old != nil && old.want && old.hasRe
	if s.shown {
		c.wants = true
		c.kick()
	}
	c.mu.Unlock()
	if old == nil {
		return
	}
	c.g.closeSub(old)
	if unanswered {
		c.reply(errorFrame(&old.re, old.ch, "superseded", "the channel was subscribed again", false))
	}
}

func (c *client) unsubscribe(cmd *command) {
	if _, err := subFor(c, &command{Ch: cmd.Ch}); err != nil {
		c.refuse(cmd, err)
		return
	}
	c.mu.Lock()
	s := c.subs.of(cmd.Ch)
	c.subs.drop(cmd.Ch)
	c.mu.Unlock()
	if s != nil {
		c.g.closeSub(s)
	}
	c.ok(cmd)
}

// visible: a hidden tab is sent nothing but its inbox, and costs nothing; when it is shown
// again every channel starts with a snapshot.
func (c *client) visible(cmd *command) {
	if cmd.On == nil {
		c.refuse(cmd, muster.Errorf(muster.Invalid, "vis needs the field on"))
		return
	}
	c.mu.Lock()
	changed := c.hidden == *cmd.On
	c.hidden = !*cmd.On
	if c.hidden {
		c.due, c.wants = false, false
	}
	subs := make([]*sub, 0, len(c.subs))
	for _, s := range c.subs {
		if s.kind != kindInbox {
			subs = append(subs, s)
			continue
		}
		c.wants = c.wants || s.want
	}
	c.mu.Unlock()
	c.ok(cmd)
	for _, s := range subs {
		switch {
		case !changed:
		case *cmd.On:
			c.reopen(s)
		default:
			c.suspend(s)
		}
	}
}

// suspend keeps what s asks for and lets go of what it shows.
func (c *client) suspend(s *sub) {
	c.g.closeSub(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs.put(s.renewed())
}

func (c *client) reopen(s *sub) {
	err := c.g.openSub(s)
	if err == nil {
		c.install(s, nil)
		return
	}
	c.mu.Lock()
	c.subs.drop(s.ch)
	c.mu.Unlock()
	var id *int64
	if s.hasRe {
		id = &s.re
	}
	c.refuseAs(id, s.ch, err)
}

func (c *client) pong(cmd *command) {
	b := appendRe([]byte(`{"t":"pong"`), cmd.ID)
	if cmd.TS != nil {
		b = strconv.AppendInt(append(b, `,"ts":`...), *cmd.TS, 10)
	}
	c.reply(append(b, '}'))
}

func (c *client) ok(cmd *command) {
	if cmd.ID != nil {
		c.reply(append(appendRe([]byte(`{"t":"ok"`), cmd.ID), '}'))
	}
}
