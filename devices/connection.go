package devices

import (
	"time"

	"muster"
)

// Connection describes a device's connection to those who watch presence.
type Connection struct {
	Device    muster.DeviceID
	Session   uint64 // unique per connection in this process, increasing
	Peer      string // host:port
	ClientID  string
	Protocol  byte   // 4 for MQTT 3.1.1, 5 for MQTT 5
	Transport string // tcp, tls or ws
	KeepAlive time.Duration
	At        time.Time
	// Will says, at the end of a connection, that the client's last will is published
	// for it at once: there is no grace then.
	Will bool
}
