package broker

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"muster"
	"muster/broker/thingsboard"
	"muster/devices"
)

// Identity is who a connection belongs to: a device, or a service account or key
// without a device. Filters are canonical: devices/{id}/..., never devices/me.
type Identity struct {
	Device     muster.DeviceID // set for a device
	Name       string          // of the service account or key, for logs and metrics
	Admin      bool            // may use every topic
	Credential string          // id of what it came in by
	Publish    []string        // filters of further topics it may publish to
	Subscribe  []string        // filters that cover what it may subscribe to besides its own
	ReadFree   bool            // may subscribe to every topic that is nobody's (muster.FreeFilter)
	WriteFree  bool            // may publish to every topic that is nobody's (muster.FreeTopic)
	Rate       Rate            // what it may publish; zero numbers stand for the broker's
	Place      Place           // what kind of guest it is; Normal for devices and accounts
	Brings     bool            // a gateway that may bring devices with it: see Children
	// May, when not nil, says for which devices' topics the rights of an account are meant,
	// at each message; it has no others. It answers from memory, under locks of the broker,
	// and must not call it.
	May func(muster.DeviceID) bool
}

// Place says how far a client is let in.
type Place uint8

// Places. A client that is not Normal has no device, no will, no retained messages,
// no session beyond its connection, and hears nobody. Its rights come from its place
// alone; Presence is not told of it.
const (
	// Normal is a device or an account with the rights of its Identity.
	Normal Place = iota
	// Provisioning may publish provision/request or /provision/request, a few times,
	// and hear the replies to that.
	Provisioning
	// Quarantine has what it publishes kept as samples and hears nothing.
	Quarantine
)

// Rate bounds what one client publishes.
type Rate struct {
	Messages int // per second
	Bytes    int // per second, of whole packets
}

// Login is what a client presented.
type Login struct {
	ClientID, Username string
	Password           []byte
	Peer               string // host:port, empty for a unix socket
	Listener           string // tcp, tls, ws or unix
	ServerName         string // of TLS
	Certificates       []*x509.Certificate

	addr netip.Addr // counted by the limits until the connection ends
}

// Authenticator decides who a client is and what it may do, in memory.
type Authenticator interface {
	// Authenticate answers Unauthorized to a client whose credential is wrong,
	// Forbidden to one that is known and may not come in, Busy for now.
	Authenticate(l Login) (Identity, error)
	// Refresh returns what an identity may do now, and Unauthorized when its
	// credential, device or account is gone, expired or disabled.
	Refresh(who Identity) (Identity, error)
	// Parent returns the gateway a device belongs to, empty for none.
	Parent(id muster.DeviceID) muster.DeviceID
}

// Kind is what a Message is about, as its topic says.
type Kind uint8

// Kinds of messages.
const (
	KindTelemetry       Kind = iota // devices/{id}/telemetry and below
	KindReported                    // devices/{id}/reported
	KindEvent                       // devices/{id}/events/{type}; type is [A-Za-z0-9._-]{1,64}
	KindLog                         // devices/{id}/logs
	KindResult                      // devices/{id}/commands/{cid}/result; cid is [A-Za-z0-9_-]{1,64}
	KindNotify                      // devices/{id}/notify/{topic}; topic is [A-Za-z0-9._-]{1,64}
	KindNotificationAck             // devices/{id}/notifications/{nid}/ack; nid is [A-Za-z0-9_-]{1,64}
	KindFirmware                    // devices/{id}/firmware/status and /firmware/cancel/ack
	KindFirmwareGet                 // devices/{id}/firmware/get: wants pieces by Client.Answer
	KindRequest                     // wants an answer by Client.Reply: provision/request and ThingsBoard's requests
	KindSample                      // of a client in Quarantine, at the topic it chose
)

// Message is one PUBLISH to a topic that Muster itself takes in.
type Message struct {
	Kind   Kind
	Device muster.DeviceID // whose topic it is; empty for guests (Identity.Place)
	By     muster.DeviceID // the gateway that published for Device, empty when none did
	Topic  string          // canonical; of requests and samples as the client spelled it
	// Payload may alias the connection's read buffer: a Sink copies what it keeps.
	Payload     []byte
	ContentType string // MQTT 5, else empty
	QoS         byte
	From        Acker // told when the message is durable; nil for QoS 0, requests and samples
	Token       uint64
	Client      Remote // whose connection it came by; nil for a last will
	Correlation string // of KindFirmwareGet, MQTT 5: the request's correlation data
	// Ask is a request as ThingsBoard's topics put it, for its answer to be given to
	// Client.Reply; nil for any other message. Of provisioning it is nil, too, when
	// the request is malformed.
	Ask *thingsboard.Request
}

// Remote is a client's connection. It may be kept and used from any goroutine for as
// long as an answer is owed, also when the connection has ended.
type Remote interface {
	// Reply sends a message to this connection alone, with the QoS of its subscription
	// to topic, at most 1. topic is spelled as the client spells it: a device's own
	// topic may be canonical too, it goes out as the subscription was spelled. It never
	// waits. It says false when the connection has ended or has no such subscription.
	Reply(topic string, payload []byte) bool
	// Answer is Reply with QoS 0, and for a gateway's subscriptions to devices/+/... too. It
	// sends nothing to a client that has not read what it was sent before: Later. It keeps
	// nothing of a.
	Answer(a Answer) Answered
	// Origin says who the client is.
	Origin() Origin
}

// Answer is a message to one connection.
type Answer struct {
	Topic       string // as of Reply
	Payload     []byte
	Correlation string      // MQTT 5: correlation data, empty for none
	User        [][2]string // MQTT 5: user properties
}

// Answered is what became of an Answer.
type Answered uint8

// What becomes of answers.
const (
	AnswerSent     Answered = iota
	AnswerLater             // the client has much to read yet
	AnswerTooLarge          // the client takes no packets of that size
	AnswerGone              // the connection has ended, or has no such subscription
)

// Origin describes a client.
type Origin struct {
	Identity Identity
	ClientID string
	Peer     string // host:port, empty for a unix socket
	Listener string // tcp, tls, ws or unix
}

// Acker is told once for every message that had From set, in any order; clients get
// their acknowledgements in the order they published. Messages of one topic and
// connection are to be told of in their order: subscribers get them in the order they
// were told of. err is nil (kept), an Invalid or Forbidden error (refused for good:
// kept as rejected) or a Busy one (refused for now). It must not block.
type Acker interface {
	Acked(token uint64, err error)
}

// Sink takes in what devices say. Accept runs on the connection's own goroutine and
// may block to slow that device down; an error means nothing was taken and Acked will
// not be called. Requests and samples are acknowledged to the client whatever Accept
// returns.
type Sink interface {
	Accept(ctx context.Context, m Message) error
	// Refuse keeps a message as rejected that the broker itself refuses for good
	// (wrong topic, too large); size is its payload's size when Payload is cut.
	Refuse(m Message, code, reason string, size int)
}

// States knows the newest payload of the state topics, devices/{id}/desired and
// devices/{id}/presence. They are not kept as retained messages: clients get what
// States says when they subscribe and when they come back. A change is first visible
// here, then given to Broker.PublishState. Both methods answer from memory.
type States interface {
	// State returns a topic's payload, which nobody changes afterwards; ok is false
	// when there is none.
	State(topic string) (payload []byte, ok bool)
	// Each yields the topics that match a valid filter and have a state, until yield
	// says false. yield may wait: Each holds no lock while it calls it.
	Each(filter string, yield func(topic string) bool)
}

// Delivery is a message to one device, for Broker.Send.
type Delivery struct {
	Device      muster.DeviceID
	Topic       string    // canonical, below devices/{Device}/
	Payload     []byte    // nobody changes it afterwards
	Expires     time.Time // it is not sent after this; MQTT 5 clients are told. Zero for never
	Response    string    // canonical topic below devices/{Device}/ for the answer; MQTT 5, else empty
	Correlation []byte    // MQTT 5, else nil
	ContentType string    // MQTT 5, else empty
	// Done is told the outcome, once, when Send has returned true or is about to. It
	// is called without any lock, from one goroutine for all: it must not block.
	Done func(Outcome)
}

// Outcome is what became of a Delivery.
type Outcome uint8

// Outcomes.
const (
	// Lost: every connection it was for ended, or could not take it, before one
	// acknowledged it.
	Lost Outcome = iota
	// Sent: it was sent with QoS 0 only; nobody will ever acknowledge it.
	Sent
	// Acked: the first client has acknowledged it.
	Acked
)

// Presence is told of devices that connect and disconnect. The calls of one
// connection come in order; those of a connection and of the one that takes its
// client id over may come in either order, and Session tells them apart.
type Presence interface {
	Connected(c devices.Connection)
	Disconnected(c devices.Connection, reason string, at time.Time)
}
