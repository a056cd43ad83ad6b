package notify

import (
	"time"

	"muster"
)

const (
	// MaxTopics is how many topics there may be.
	MaxTopics = 10_000
	// MaxMembers is how many members one topic may have.
	MaxMembers = 1000
	// MaxSubscribers is how many subscriptions one topic may have.
	MaxSubscribers = 50_000
	// MaxSteps is how many steps an escalation may have.
	MaxSteps = 10
	// MaxSources is how many sources a topic may have.
	MaxSources = 20

	// SystemTopic is the topic in which Muster itself tells people what they must know:
	// a delivery that was given up. It is always there, and nobody subscribes to it.
	SystemTopic = "top_system"
)

// Visibility says who sees a topic and may subscribe to it.
type Visibility string

// The visibilities.
const (
	Private  Visibility = "private"  // its members, and admins
	Internal Visibility = "internal" // every user
)

// Status says whether a topic takes notifications.
type Status string

// The statuses.
const (
	Active   Status = "active"
	Inactive Status = "inactive" // nothing is sent; what was sent stays, and can be acked
)

// AckPolicy says when a notification counts as acked.
type AckPolicy string

// The policies.
const (
	AckNone AckPolicy = "none" // never: it asks for nothing
	AckAny  AckPolicy = "any"  // once one recipient acked it
	AckAll  AckPolicy = "all"  // once every recipient did
)

// Severity says how bad it is. More is worse.
type Severity int

// The severities.
const (
	Info Severity = iota
	Warning
	Major
	Critical
)

// Topic is what notifications are sent to. It is changed by making a new one: its slices
// never change in place.
type Topic struct {
	ID          string // "top_..."
	Name        string // unique; [a-z0-9][a-z0-9._-]{0,63}
	Title       string // for people, at most 200 bytes; empty for the name
	Description string // at most 1000 bytes
	Owner       string // id of the user who answers for it
	Visibility  Visibility
	Status      Status
	Retention   time.Duration // how long notifications are kept: 1 hour to 5 years
	AckPolicy   AckPolicy
	Escalation  Escalation
	Sources     []Source // the system events that become notifications
	Devices     string   // device query of the devices that may publish; empty for none
	Template    Template // how mails and webhooks are worded; zero for Muster's own words
	Version     int64    // from 1: each change makes the next
	Created     muster.Micros
	Updated     muster.Micros
}

// Escalation is who is told next while nobody acks.
type Escalation struct {
	Steps  []Step `json:"steps,omitempty"`
	Repeat int    `json:"repeat,omitempty"` // how often the last step is done again, 0 to 100
	// Named is when the steps were last changed: the devices among them are those that were there then.
	Named muster.Micros `json:"named,omitempty"`
}

// Step is one step of an escalation: To are told when After has passed since the step
// before it (since the sending, for the first) and nobody acked.
type Step struct {
	After    time.Duration `json:"after"`    // 1 second to 7 days
	To       []string      `json:"to"`       // Subjects, at most 100
	Channels []string      `json:"channels"` // over which, beside the inbox: "email"; at most 10
}

// Source has a topic tell of system events.
type Source struct {
	Types    []string `json:"types"`            // of the feed's catalogue: "presence.offline", "command.*"
	Query    string   `json:"q,omitempty"`      // of the devices it is about; empty for all
	Severity Severity `json:"severity"`         // of the notification
	Clears   []string `json:"clears,omitempty"` // types that resolve what this source told of the same device
	Title    string   `json:"title,omitempty"`  // a template; empty for Muster's own words
}

// Template is how what goes out is worded: text/template over the fields of Wording, at
// most 16 KiB each; empty for Muster's own words.
type Template struct {
	MailSubject string `json:"mail_subject,omitempty"`
	MailText    string `json:"mail_text,omitempty"`
	Webhook     string `json:"webhook,omitempty"` // makes JSON
}

// Role is what a member of a topic may do.
type Role string

// The roles. Each may what the ones after it may.
const (
	RoleOwner      Role = "owner"      // change it, and its members
	RolePublisher  Role = "publisher"  // publish to it
	RoleSubscriber Role = "subscriber" // see it and subscribe, where it is private
)

// Member is a user or an API key with a role in a topic.
type Member struct {
	Topic     string
	Principal string // "usr_..." or "key_..."
	Role      Role
	Created   muster.Micros
}
