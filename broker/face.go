package broker

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"muster"
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
}

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

// Message is one PUBLISH to a topic that Muster itself takes in.
type Message struct {
	Device muster.DeviceID
	Topic  string // canonical
	// Payload may alias the connection's read buffer: a Sink copies what it keeps.
	Payload     []byte
	ContentType string // MQTT 5, else empty
	QoS         byte
	From        Acker // told when the message is durable; nil for QoS 0
	Token       uint64
}

// Acker is told once for every message that had From set, in the order the
// messages of one connection were accepted. err is nil (kept), an Invalid or
// Forbidden error (refused for good: kept as rejected) or a Busy one (refused for
// now). It must not block.
type Acker interface {
	Acked(token uint64, err error)
}

// Sink takes in what devices publish under devices/{id}/. Accept runs on the
// connection's own goroutine and may block to slow that device down; an error
// means nothing was taken and Acked will not be called.
type Sink interface {
	Accept(ctx context.Context, m Message) error
	// Refuse keeps a message as rejected that the broker itself refuses for good
	// (wrong topic, too large); size is its payload's size when Payload is cut.
	Refuse(m Message, code, reason string, size int)
}

// Presence is told of devices that connect and disconnect. The calls of one
// connection come in order; those of a connection and of the one that takes its
// client id over may come in either order, and Session tells them apart.
type Presence interface {
	Connected(c devices.Connection)
	Disconnected(c devices.Connection, reason string, at time.Time)
}
