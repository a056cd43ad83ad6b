package notify

import (
	"strings"
	"time"

	"muster"
)

// MaxSubscriptions is how many topics one subject may be subscribed to.
const MaxSubscriptions = 1000

// Subject is who gets notifications: a user's id, "usr_...", or "device/" and a device's.
type Subject string

// DeviceSubject returns the subject of a device.
func DeviceSubject(id muster.DeviceID) Subject { return "device/" + Subject(id) }

// Device returns the device that s is, false for a user.
func (s Subject) Device() (muster.DeviceID, bool) {
	id, ok := strings.CutPrefix(string(s), "device/")
	return muster.DeviceID(id), ok
}

// Subscription is a subject's wish to get what is sent to a topic. It lasts until it is
// taken back: whoever is away loses nothing. Everything comes to the inbox.
type Subscription struct {
	Topic    string
	Subject  Subject
	Channels []Via         // beside the inbox
	Muted    muster.Micros // until then nothing goes out; the inbox fills all the same
	Version  int64         // from 1
	Created  muster.Micros
	Updated  muster.Micros
}

// Via is one channel of a subscription.
type Via struct {
	Channel  string        `json:"channel"`          // "email", "mqtt"
	Severity Severity      `json:"severity"`         // the least that goes out
	Quiet    *Quiet        `json:"quiet,omitempty"`  // nil for never
	Digest   time.Duration `json:"digest,omitempty"` // at most one message in this time, with all that came; 0 for one each; at most 24 hours
}

// Quiet are hours in which nothing goes out: what comes then waits for their end. What is
// as severe as Except goes out all the same.
type Quiet struct {
	From   int      `json:"from"`           // minute of the day, 0 to 1439
	To     int      `json:"to"`             // minute of the day; at or before From it is one of the next day
	Days   []int    `json:"days,omitempty"` // weekdays on which From lies, 0 is Sunday; empty for all
	Zone   string   `json:"zone"`           // IANA time zone: "Europe/Berlin"
	Except Severity `json:"except"`         // Critical unless it is said
}
