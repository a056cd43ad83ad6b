package broker

import (
	"crypto/rand"
	"encoding/hex"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
	"muster/devices"
)

const (
	maxClientID = 256 // bytes
	maxAliases  = 16  // inbound topic aliases of one connection
	turns       = 256 // locks that sessions share
)

// connect handles a CONNECT: it decides who the client is and prepares its
// session, or answers why not and has the connection ended.
func (c *conn) connect(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if c.client != nil {
		c.bye(codeProtocolError, "a second CONNECT", causeProtocol)
		return pk, packets.ErrRejectPacket
	}
	c.client = cl
	c.dialect = dialectOf(&pk)
	tidyConnect(&pk)
	if code, why := c.admissible(&pk); code != codeSuccess {
		return pk, c.turnAway(code, why)
	}
	c.takeWill(&pk)
	if code, why := c.identify(&pk); code != codeSuccess {
		return pk, c.turnAway(code, why)
	}
	c.describe(&pk)
	c.await()
	c.resume(&pk)
	c.known.Store(true)
	return pk, nil
}

// turnAway answers a CONNECT with a refusal.
func (c *conn) turnAway(code byte, why string) error {
	c.b.metrics.refusedConnects.WithLabelValues(connectLabel(code)).Inc()
	c.out.seal(c.dialect.appendConnack(nil, code, why))
	c.cut(causeNotAdmitted)
	return packets.ErrRejectPacket
}

func dialectOf(pk *packets.Packet) dialect {
	p := &pk.Properties
	return dialect{
		version: pk.ProtocolVersion,
		terse:   p.RequestProblemInfoFlag && p.RequestProblemInfo == 0,
		limit:   p.MaximumPacketSize,
	}
}

// tidyConnect allows what the standard allows and mochi does not, and turns off
// what mochi does wrong.
func tidyConnect(pk *packets.Packet) {
	if len(pk.Connect.Password) == 0 {
		pk.Connect.PasswordFlag = false // an empty password is a password (MQTT 5, section 3.1.3.6)
	}
	// mochi sets an outbound alias even where it then drops the message that
	// would have taught it to the client.
	pk.Properties.TopicAliasMaximum = 0
	pk.Properties.ReceiveMaximum = 0 // its flow control towards the client deadlocks
}

// admissible checks a CONNECT before anyone asks whose it is.
func (c *conn) admissible(pk *packets.Packet) (code byte, why string) {
	p := &pk.Connect
	name := string(p.ProtocolName)
	switch {
	case name == "MQTT" && pk.ProtocolVersion != 4 && pk.ProtocolVersion != 5,
		name == "MQIsdp" && pk.ProtocolVersion != 3:
		c.dialect.version = 4 // whatever it speaks, it may know this answer
		return codeBadVersion, "MQTT 3.1, 3.1.1 and 5 are spoken here"
	case len(p.ClientIdentifier) > maxClientID:
		return codeBadClientID, "the client id has more than 256 bytes"
	case pk.ProtocolVersion < 5 && !p.Clean && p.ClientIdentifier == "":
		return codeBadClientID, "a session that is kept needs a client id"
	case pk.Properties.AuthenticationMethod != "":
		return codeBadAuthMethod, "extended authentication is not supported"
	case p.WillFlag && (p.WillQos > 2 || p.WillTopic == ""):
		return codeProtocolError, "the last will has no topic or no such QoS"
	case !p.WillFlag && (p.WillQos != 0 || p.WillRetain):
		return codeProtocolError, "will flags without a last will"
	}
	probe := *pk
	probe.Connect.WillFlag, probe.Connect.WillRetain = false, false // checked above
	if v := probe.ConnectValidate(); v != packets.CodeSuccess {
		return v.Code, v.Reason
	}
	return codeSuccess, ""
}

// identify authenticates the client and counts it among the known connections.
func (c *conn) identify(pk *packets.Packet) (code byte, why string) {
	p := &pk.Connect
	if len(p.Username) == 0 && len(p.Password) == 0 {
		return codeNotAuthorized, "anonymous clients are refused: give a token as user name, or device id and secret"
	}
	l := Login{
		ClientID: strings.Clone(p.ClientIdentifier), Username: string(p.Username),
		Password: p.Password, Peer: c.peer,
	}
	kicks := c.b.conns.kickCount()
	who, err := c.b.auth.Authenticate(l)
	if err != nil {
		return connectCode(err)
	}
	c.rights = newRights(who)
	if !c.b.conns.admit(c, c.b.cfg.MaxConnections) {
		return codeServerBusy, "the server has as many connections as it may have"
	}
	if c.b.conns.kickCount() != kicks { // a Kick meanwhile may have missed this connection
		if _, err := c.b.auth.Authenticate(l); err != nil {
			return connectCode(err)
		}
	}
	return codeSuccess, ""
}

// connectCode maps an Authenticator's error to a CONNACK's reason code.
func connectCode(err error) (byte, string) {
	switch muster.KindOf(err) {
	case muster.Unauthorized, muster.Invalid, muster.NotFound:
		return codeBadPassword, "bad user name or password"
	case muster.Forbidden:
		return codeNotAuthorized, muster.Public(err)
	case muster.Busy:
		return codeServerBusy, muster.Public(err)
	default:
		return codeUnavailable, "the server cannot check credentials now"
	}
}

func connectLabel(code byte) string {
	switch code {
	case codeBadPassword:
		return "bad_password"
	case codeNotAuthorized, codeBadAuthMethod:
		return "not_authorized"
	case codeServerBusy, codeUnavailable:
		return "unavailable"
	}
	return "invalid"
}

// describe fills in what is known of the connection and gives the client its name
// inside mochi, where clients of different identities must not share a session.
func (c *conn) describe(pk *packets.Packet) {
	p := &pk.Connect
	id := strings.Clone(p.ClientIdentifier)
	if id == "" {
		id = "auto-" + randomName()
		c.assigned = id
	}
	who := c.rights.who
	c.key = "account " + who.Name + " " + id
	if who.Device != "" {
		c.key = "device " + string(who.Device) + " " + id
	}
	p.ClientIdentifier = c.key
	c.clean = p.Clean
	c.expiry = sessionExpiry(pk)
	c.keepalive = time.Duration(p.Keepalive) * time.Second
	c.info = devices.Connection{
		Device: who.Device, Session: c.b.session.Add(1), Peer: c.peer, ClientID: id,
		Protocol: pk.ProtocolVersion, Transport: c.transport, KeepAlive: c.keepalive, At: c.b.cfg.Now(),
	}
}

// sessionExpiry returns how long the session outlives the connection at most.
func sessionExpiry(pk *packets.Packet) time.Duration {
	s := pk.Properties.SessionExpiryInterval
	if pk.ProtocolVersion < 5 {
		if pk.Connect.Clean {
			return 0
		}
		s = math.MaxUint32
	}
	return min(time.Duration(s)*time.Second, maxSession)
}

// resume takes over what the broker itself keeps of a session: the QoS 2 ids and
// the spelling of subscriptions. mochi keeps the rest. The session's turn must be held.
func (c *conn) resume(pk *packets.Packet) {
	c.qos2, c.order = &received{limit: 2 * c.b.cfg.Window}, new(atomic.Int64)
	c.b.wills.reconnected(c.key, c.clean)
	old, ok := c.b.srv.Clients.Get(c.key)
	if !ok {
		c.fresh = true
		if c.b.srv.Clients.Len() >= c.b.cfg.MaxSessions {
			pk.Connect.Clean = true // no room: the session ends with the connection
			pk.Properties.SessionExpiryInterval, c.expiry = 0, 0
			c.shortened = true
		}
		return
	}
	c.fresh = c.clean || old.Properties.Clean && old.Properties.ProtocolVersion < 5
	if oc := connOf(old); oc != nil && !c.fresh {
		c.qos2, c.order = oc.qos2, oc.order
		c.me.Store(oc.me.Load())
	}
}

func (b *Broker) turnOf(key string) *sync.Mutex {
	return &b.turns[maphash.String(b.seed, key)%turns]
}

func randomName() string {
	var raw [12]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return hex.EncodeToString(raw[:])
}
