package broker

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"time"

	"muster"
	"muster/broker/wire"
	"muster/devices"
	"muster/traffic"
)

// Protocol levels (MQTT 3.1.1 and 5, section 3.1.2.2).
const (
	v311 = 4
	v5   = 5
)

const (
	maxConnect  = 64 << 10 // bytes of the longest CONNECT
	maxClientID = 256      // bytes
	maxInflight = 256      // messages of QoS 1 and 2 on their way to one client
	maxOutAlias = 16       // topic aliases given to one client
)

// connect handles CONNECT: it decides who the client is and gives it its session, or
// answers why not.
func (c *conn) connect(sc *scratch, body []byte) error {
	p, err := sc.dec.Connect(body)
	if err != nil {
		return c.malformedConnect(err)
	}
	c.dialect = wire.Dialect{Version: p.Version, Terse: !p.ProblemInfo, Limit: p.MaximumPacket}
	if code, why := admissible(p); code != wire.CodeSuccess {
		return c.turnAway(code, why)
	}
	who, code, why := c.identify(p)
	if code != wire.CodeSuccess {
		return c.turnAway(code, why)
	}
	id, assigned := clientID(p)
	c.b.wheel.remove(c.alarm) // the client has spoken in time, whatever it waits for now
	c.alarm = nil
	if who.Place != Normal {
		return c.connectGuest(sc, p, who, id, assigned)
	}
	if !c.b.flaps.wait(life{c}, c.b, sessionKey(who.Device, who.Name, id)) {
		return errGone
	}
	if !c.b.conns.admit(c, c.b.cfg.MaxConnections) {
		return c.turnAway(wire.CodeServerBusy, "the server has as many connections as it may have")
	}
	fresh := c.b.newSession(who.Device, who.Name, id)
	if !c.b.makeRoom(fresh) {
		return c.turnAway(wire.CodeQuota, "this device or account has as many connections as it may have")
	}
	present := c.establish(sc, p, fresh, who, assigned)
	if err := c.recheck(); err != nil || !present {
		return err
	}
	c.comeBack(sc)
	return nil
}

// connectGuest lets a client in whose place is not Normal.
func (c *conn) connectGuest(sc *scratch, p *wire.ConnectPacket, who Identity, id string, assigned bool) error {
	if !c.admitGuest() {
		return c.turnAway(wire.CodeServerBusy, "as many clients wait to be adopted or provisioned as may")
	}
	if !c.b.conns.admit(c, c.b.cfg.MaxConnections) {
		return c.turnAway(wire.CodeServerBusy, "the server has as many connections as it may have")
	}
	fresh := c.b.newSession("", who.Name, id)
	fresh.alone(c.b.epoch.Add(1))
	p.CleanStart, p.SessionExpiry, p.Will = true, 0, nil
	c.establish(sc, p, fresh, who, assigned)
	return c.recheck()
}

// malformedConnect answers a CONNECT that cannot be read. Only a version that is not
// known has an answer every client understands.
func (c *conn) malformedConnect(err error) error {
	e, ok := errors.AsType[*wire.Error](err)
	if ok && e.Code == wire.CodeBadVersion {
		c.dialect.Version = v311
		return c.turnAway(e.Code, "MQTT 3.1, 3.1.1 and 5 are spoken here")
	}
	c.b.metrics.refusedConnects.WithLabelValues("invalid").Inc()
	c.cut(causeProtocol)
	return errGone
}

// turnAway answers a CONNECT with a refusal.
func (c *conn) turnAway(code byte, why string) error {
	c.b.metrics.refusedConnects.WithLabelValues(connectLabel(code)).Inc()
	c.seal(func(b []byte) []byte { return c.dialect.AppendConnack(b, &wire.Connack{Code: code, Reason: why}) })
	c.cut(causeNotAdmitted)
	return errGone
}

// admissible checks a CONNECT before anyone asks whose it is.
func admissible(p *wire.ConnectPacket) (code byte, why string) {
	switch {
	case len(p.ClientID) > maxClientID:
		return wire.CodeBadClientID, "the client id has more than 256 bytes"
	case p.Version < v5 && !p.CleanStart && p.ClientID == "":
		return wire.CodeBadClientID, "a session that is kept needs a client id"
	case p.AuthMethod != "":
		return wire.CodeBadAuthMethod, "extended authentication is not supported"
	}
	return wire.CodeSuccess, ""
}

// identify authenticates the client.
func (c *conn) identify(p *wire.ConnectPacket) (who Identity, code byte, why string) {
	l := *c.login
	l.ClientID, l.Username, l.Password = strings.Clone(p.ClientID), strings.Clone(p.Username), bytes.Clone(p.Password)
	who, err := c.b.auth.Authenticate(l)
	switch {
	case l.Username == "" && len(l.Password) == 0 && len(l.Certificates) == 0: // whatever Authenticate says, which is to know of it
		return Identity{}, wire.CodeNotAuthorized, "anonymous clients are refused: give a token as user name, or device id and secret"
	case err != nil:
		code, why = connectCode(err)
	}
	return who, code, why
}

// connectCode maps an Authenticator's error to a CONNACK's reason code.
func connectCode(err error) (byte, string) {
	switch muster.KindOf(err) {
	case muster.Unauthorized, muster.Invalid, muster.NotFound:
		return wire.CodeBadPassword, "bad user name or password"
	case muster.Forbidden:
		return wire.CodeNotAuthorized, muster.Public(err)
	case muster.Busy:
		return wire.CodeServerBusy, muster.Public(err)
	default:
		return wire.CodeUnavailable, "the server cannot check credentials now"
	}
}

func connectLabel(code byte) string {
	switch code {
	case wire.CodeBadPassword:
		return "bad_password"
	case wire.CodeNotAuthorized, wire.CodeBadAuthMethod:
		return "not_authorized"
	case wire.CodeServerBusy, wire.CodeUnavailable, wire.CodeQuota:
		return "unavailable"
	}
	return "invalid"
}

func clientID(p *wire.ConnectPacket) (id string, assigned bool) {
	if p.ClientID != "" {
		return strings.Clone(p.ClientID), false
	}
	var raw [12]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return "auto-" + hex.EncodeToString(raw[:]), true
}

// establish gives the client its session, and says whether that was there, and sends
// CONNACK.
func (c *conn) establish(sc *scratch, p *wire.ConnectPacket, fresh *session, who Identity, assigned bool) (present bool) {
	b, id := c.b, fresh.clientID
	r := b.rightsOf(who)
	c.allowed.Store(r)
	who = r.who
	expiry, shortened := b.sessionExpiry(p, fresh.key)
	ack := wire.Connack{ReceiveMaximum: uint16(b.cfg.Window), MaximumPacket: uint32(b.cfg.MaxPacket), AliasMaximum: maxAliases}
	if assigned {
		ack.AssignedID = id
	}
	if shortened {
		s := uint32(expiry / time.Second)
		ack.SessionExpiry = &s
	}
	c.keepalive = b.keepAlive(p, &ack)
	c.window = min(int(p.ReceiveMaximum), maxInflight)
	c.aliasOf = min(p.AliasMaximum, maxOutAlias)
	c.epoch, c.at = b.epoch.Add(1), b.cfg.Now()
	info := c.describe(who, id)
	if who.Device == "" && who.Place == Normal {
		c.traffic = b.cfg.Traffic.Open(traffic.Who{ID: who.Credential, Name: who.Name}, traffic.MQTT)
	}
	b.attach(c, fresh, p.CleanStart, expiry, func(was bool) {
		c.known.Store(true)
		present, ack.SessionPresent = was, was
		c.add(&sc.kicks, func(q []byte) []byte { return c.dialect.AppendConnack(q, &ack) })
	})
	if p.Will != nil {
		c.will = newWill(p.Will, c.sess, r)
	}
	b.metrics.connects.Inc()
	if who.Device != "" {
		b.presence.Connected(info)
	}
	if due := c.due(); due > 0 {
		c.alarm = b.wheel.add(c, due)
	}
	return present
}

// describe says what Presence is told of the connection.
func (c *conn) describe(who Identity, id string) devices.Connection {
	return devices.Connection{
		Device: who.Device, Session: c.epoch, Peer: c.login.Peer, ClientID: id, Protocol: c.dialect.Version,
		Transport: c.login.Listener, KeepAlive: c.keepalive, At: c.at,
	}
}

// sessionExpiry returns how long the session outlives the connection; shortened says
// that it is less than was asked for.
func (b *Broker) sessionExpiry(p *wire.ConnectPacket, key string) (expiry time.Duration, shortened bool) {
	asked := p.SessionExpiry
	if p.Version < v5 {
		asked = 0
		if !p.CleanStart {
			asked = math.MaxUint32
		}
	}
	want := time.Duration(asked) * time.Second
	if want > 0 && int(b.sessions.count.Load()) >= b.cfg.MaxSessions && !b.sessions.has(key) {
		return 0, true // no room: the session ends with the connection
	}
	expiry = min(want, b.cfg.MaxSessionExpiry)
	return expiry, expiry < want
}

// keepAlive returns the client's keep alive, and says in ack when the server imposes
// another (MQTT 5, 3.2.2.3.14). 3.x clients cannot be told, and keep theirs.
func (b *Broker) keepAlive(p *wire.ConnectPacket, ack *wire.Connack) time.Duration {
	asked := time.Duration(p.KeepAlive) * time.Second
	if p.Version < v5 || b.cfg.MaxKeepAlive == 0 || asked > 0 && asked <= b.cfg.MaxKeepAlive {
		return asked
	}
	s := uint16(b.cfg.MaxKeepAlive / time.Second)
	ack.KeepAlive = &s
	return b.cfg.MaxKeepAlive
}

// recheck asks once more what the client may do, now that a change finds the
// connection: one made since Authenticate may have missed it.
func (c *conn) recheck() error {
	if err := c.refresh(); err != nil {
		return errGone
	}
	return nil
}

// refresh asks what the client may do now: it changes its rights and ends what it
// may not have any more, or cuts it.
func (c *conn) refresh() error {
	old := c.allowed.Load()
	who, err := c.b.auth.Refresh(old.who)
	if err != nil {
		_ = c.bye(wire.CodeNotAuthorized, "the credential is not valid any more", causeRights)
		return err
	}
	now := c.b.rightsOf(who)
	if now.who.Place != old.who.Place {
		return c.bye(wire.CodeAdministrative, "what this client may do has changed: connect again", causeRights)
	}
	c.allowed.Store(now)
	var gone []subscription
	for _, x := range c.sess.state.Load().subs {
		if !now.holds(&x) {
			gone = append(gone, x)
		}
	}
	if len(gone) > 0 {
		c.sess.removeSubscriptions(gone, nil)
	}
	return nil
}

// spellOwn spells what m says of the client's own device with me.
func (c *conn) spellOwn(o *wire.Out, m *message) {
	if rest, ok := strings.CutPrefix(o.Topic, c.allowed.Load().prefix); ok {
		o.Topic = ownTopics + rest
		if m.mine != nil {
			o.Props = m.mine.props
		}
	}
}

// aliasOut gives a topic an alias where the client takes them. The first topics of a
// connection get one, for good. conn.mu must be held.
func (c *conn) aliasOut(o *wire.Out) {
	if c.aliasOf == 0 {
		return
	}
	if a, ok := c.names[o.Topic]; ok {
		o.Alias, o.Topic = a, ""
		return
	}
	if len(c.names) >= int(c.aliasOf) {
		return
	}
	if l := int(c.dialect.Limit); l > 0 && c.dialect.PublishSize(o)+4 > l { // there is no room for one
		return
	}
	if c.names == nil {
		c.names = make(map[string]uint16)
	}
	o.Alias = uint16(len(c.names) + 1)
	c.names[strings.Clone(o.Topic)] = o.Alias
}
