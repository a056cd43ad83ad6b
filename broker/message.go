package broker

import (
	"bytes"
	"strings"
	"time"

	"muster/broker/wire"
)

// message is one PUBLISH on its way to sessions. What it points to aliases the
// publisher's read buffer until own is called, which is before anybody keeps it.
type message struct {
	topic   string // canonical
	payload []byte
	props   []byte // MQTT 5 properties to forward, in wire form
	expires int64  // unix milliseconds, 0 for never
	from    *session
	mine    *variant // for copies that are spelled devices/me/..., where they differ in more than the topic
	qos     byte
	retain  bool
	owned   bool
}

// variant is what of a message differs with the spelling of a copy.
type variant struct{ props []byte }

// own gives the message memory of its own. It runs on the publisher's goroutine,
// the first time before another one can see the message.
func (m *message) own() {
	if m.owned {
		return
	}
	m.owned = true
	m.topic, m.payload, m.props = strings.Clone(m.topic), bytes.Clone(m.payload), bytes.Clone(m.props)
}

// size is what a queued message counts against a session's bound, in bytes.
func (m *message) size() int { return len(m.topic) + len(m.payload) + len(m.props) + entryCost }

// expired says whether the message must not be sent any more (MQTT 5, 3.3.2.3.3).
func (m *message) expired(now int64) bool { return m.expires > 0 && now >= m.expires }

// fill writes what the message says of itself into o.
func (m *message) fill(o *wire.Out, now int64) {
	o.Topic, o.Payload, o.Props = m.topic, m.payload, m.props
	o.HasExpiry = m.expires > 0
	if o.HasExpiry {
		o.Expiry = uint32(max(m.expires-now, 0) / int64(time.Second/time.Millisecond))
	}
}

// expiry returns when a message with a Message Expiry Interval of s seconds that
// came now is over.
func expiry(has bool, s uint32, now int64) int64 {
	if !has {
		return 0
	}
	return now + int64(s)*int64(time.Second/time.Millisecond)
}
