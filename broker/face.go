package broker

import (
	"context"
	"time"

	"muster"
	"muster/devices"
)

// Identity is who a connection belongs to: a device, or a service account or key
// without a device.
type Identity struct {
	Device muster.DeviceID // set for a device
	Name   string          // of the service account or key, for logs and metrics
	Admin  bool            // may use every topic
}

// Login is what a client presented in CONNECT.
type Login struct {
	ClientID, Username string
	Password           []byte
	Peer               string // host:port
}

// Authenticator decides who a client is, in memory. An Unauthorized error is
// answered with "bad user name or password".
type Authenticator interface {
	Authenticate(l Login) (Identity, error)
}

// Message is one PUBLISH to a topic that Muster itself takes in.
type Message struct {
	Device muster.DeviceID
	Topic  string // canonical: devices/{id}/..., never .../me/...
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
