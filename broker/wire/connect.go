package wire

import (
	"math"

	"github.com/mochi-mqtt/server/v2/packets"
)

// The connect flags (section 3.1.2.3).
const (
	flagReserved = 1 << iota
	flagCleanStart
	flagWill
	flagWillQoS // two bits
	_
	flagWillRetain
	flagPassword
	flagUsername
)

// ConnectPacket is a client's CONNECT (section 3.1). From SessionExpiry on it is
// MQTT 5's; before, those fields have their defaults.
type ConnectPacket struct {
	Version     byte   // 3 (3.1), 4 (3.1.1) or 5
	ClientID    string // may be empty
	CleanStart  bool   // Clean Session before MQTT 5
	KeepAlive   uint16 // seconds; 0 is off
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Will        *Will // nil when there is none

	SessionExpiry  uint32 // seconds; 0xFFFFFFFF never expires
	ReceiveMaximum uint16 // 65,535 when absent, never 0
	MaximumPacket  uint32 // bytes, fixed header included; 0 when absent
	AliasMaximum   uint16 // 0 when absent: the client takes no alias
	ProblemInfo    bool   // true when absent
	ResponseInfo   bool
	AuthMethod     string // "" when absent
}

// Will is the message that a client leaves to be published for it (section
// 3.1.2.5). Props are those to forward, as in PublishPacket.
type Will struct {
	Topic       string
	Payload     []byte
	QoS         byte
	Retain      bool
	Delay       uint32 // seconds
	HasExpiry   bool
	Expiry      uint32 // seconds
	ContentType string
	Props       []byte
}

// ConnectVersion returns the version that the body of a CONNECT names: 3, 4 or 5,
// and 0 when it is none of them or the body ends before. A broker that cannot
// decode a CONNECT learns here in which version to refuse it.
func ConnectVersion(body []byte) byte {
	c := cursor{b: body}
	name, version := string(c.block()), c.uint8()
	if c.err == nil && knownVersion(name, version) {
		return version
	}
	return 0
}

func knownVersion(name string, version byte) bool {
	switch name {
	case "MQTT":
		return version == 4 || version == version5
	case "MQIsdp":
		return version == version31
	}
	return false
}

// Connect decodes a CONNECT. A protocol name of MQTT or MQIsdp with a version that
// is not served is CodeBadVersion (MQTT-3.1.2-2); any other name is malformed
// (MQTT-3.1.2-1).
func (d *Decoder) Connect(body []byte) (*ConnectPacket, error) {
	c := cursor{b: body}
	flags := d.walkConnect(&c)
	if c.err != nil {
		return nil, c.err
	}
	d.pk = packets.Packet{FixedHeader: packets.FixedHeader{Type: Connect, Remaining: len(body)}}
	if e := d.run(Connect, body); e != nil {
		return nil, e
	}
	p, from := &d.connect, &d.pk.Connect
	p.Version = d.pk.ProtocolVersion
	p.ClientID = from.ClientIdentifier
	p.CleanStart = from.Clean
	p.KeepAlive = from.Keepalive
	p.HasUsername, p.Username = from.UsernameFlag, alias(from.Username)
	p.HasPassword, p.Password = from.PasswordFlag, from.Password
	if flags&flagWill != 0 {
		d.will.Topic, d.will.Payload = from.WillTopic, from.WillPayload
		d.will.QoS, d.will.Retain = from.WillQos, from.WillRetain
		p.Will = &d.will
	}
	return p, nil
}

// walkConnect checks a whole CONNECT and puts its properties, which the codec
// does not tell exactly, into d.connect and d.will. It returns the connect flags.
func (d *Decoder) walkConnect(c *cursor) byte {
	name, version := string(c.text()), c.uint8()
	if c.err == nil && !knownVersion(name, version) {
		if name != "MQTT" && name != "MQIsdp" {
			c.fail(malformed("the protocol's name is not MQTT"))
		}
		c.fail(&Error{Code: CodeBadVersion, Reason: "the protocol version is not served"})
	}
	flags := c.uint8()
	if e := checkConnectFlags(flags, version); e != nil {
		c.fail(e)
	}
	c.uint16()
	d.props.reset()
	if version == version5 {
		d.props.read(c, connectProps)
		if d.props.has(packets.PropAuthenticationData) && !d.props.has(packets.PropAuthenticationMethod) {
			c.fail(violation("authentication data comes without a method"))
		}
	}
	d.connect = d.connectValues(c)
	c.text() // client identifier
	if flags&flagWill != 0 {
		d.walkWill(c, version)
	}
	if flags&flagUsername != 0 {
		c.text()
	}
	if flags&flagPassword != 0 {
		c.block()
	}
	c.end()
	return flags
}

// checkConnectFlags checks the connect flags against each other (MQTT-3.1.2-3,
// 3.1.2-11, 3.1.2-12, 3.1.2-13; MQTT 3.1.1, MQTT-3.1.2-22).
func checkConnectFlags(flags, version byte) *Error {
	qos := flags / flagWillQoS & 3
	switch {
	case flags&flagReserved != 0:
		return malformed("the reserved connect flag is set")
	case flags&flagWill == 0 && (qos != 0 || flags&flagWillRetain != 0):
		return malformed("will flags are set without a will")
	case qos == 3:
		return malformed("the will's QoS is 3")
	case version < version5 && flags&flagPassword != 0 && flags&flagUsername == 0:
		return violation("a password comes without a user name")
	}
	return nil
}

// connectValues returns what the walked properties say; their defaults where none
// came.
func (d *Decoder) connectValues(c *cursor) ConnectPacket {
	if c.err != nil {
		return ConnectPacket{}
	}
	p := &d.props
	return ConnectPacket{
		SessionExpiry:  p.num(packets.PropSessionExpiryInterval, 0),
		ReceiveMaximum: uint16(p.num(packets.PropReceiveMaximum, math.MaxUint16)),
		MaximumPacket:  p.num(packets.PropMaximumPacketSize, 0),
		AliasMaximum:   uint16(p.num(packets.PropTopicAliasMaximum, 0)),
		ProblemInfo:    p.num(packets.PropRequestProblemInfo, 1) == 1,
		ResponseInfo:   p.num(packets.PropRequestResponseInfo, 0) == 1,
		AuthMethod:     p.text(packets.PropAuthenticationMethod),
	}
}

func (d *Decoder) walkWill(c *cursor, version byte) {
	d.props.reset()
	if version == version5 {
		d.props.read(c, willProps)
	}
	c.topic()
	c.block()
	if c.err != nil {
		return
	}
	p := &d.props
	d.will = Will{
		Delay:       p.num(packets.PropWillDelayInterval, 0),
		HasExpiry:   p.has(packets.PropMessageExpiryInterval),
		Expiry:      p.num(packets.PropMessageExpiryInterval, 0),
		ContentType: p.text(packets.PropContentType),
		Props:       p.without(packets.PropMessageExpiryInterval, packets.PropWillDelayInterval),
	}
}
