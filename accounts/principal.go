package accounts

import (
	"fmt"
	"slices"

	"muster"
)

// The roles of a signed-in browser.
const (
	Viewer   = "viewer"   // reads everything
	Operator = "operator" // reads and changes everything but accounts and the system
	Admin    = "admin"    // may do everything
)

// The scopes of an API key (DESIGN, section 5). Admin implies all of them; none
// of the others implies another.
const (
	DevicesRead    = "devices:read"
	DevicesWrite   = "devices:write"
	TelemetryRead  = "telemetry:read"
	TelemetryWrite = "telemetry:write"
	CommandsSend   = "commands:send"
	FirmwareRead   = "firmware:read"
	FirmwareWrite  = "firmware:write"
	TopicsRead     = "topics:read"
	TopicsWrite    = "topics:write"
	NotifySend     = "notify:send"
	AlertsRead     = "alerts:read"
	AlertsWrite    = "alerts:write"
	MQTT           = "mqtt"
)

// Scopes returns every scope there is.
func Scopes() []string {
	return append(roleScopes(Operator), MQTT, Admin)
}

// roleScopes returns what a role may do; it is nil for an unknown role.
func roleScopes(role string) []string {
	reads := []string{DevicesRead, TelemetryRead, FirmwareRead, TopicsRead, AlertsRead}
	switch role {
	case Viewer:
		return reads
	case Operator:
		return append(reads, DevicesWrite, TelemetryWrite, CommandsSend, FirmwareWrite, TopicsWrite, NotifySend, AlertsWrite)
	case Admin:
		return []string{Admin}
	default:
		return nil
	}
}

// roleOf returns the highest role all of whose scopes are among scopes, empty
// when there is none: signing in with a key never gives more than the key.
func roleOf(scopes []string) string {
	p := Principal{Scopes: scopes}
	for _, role := range []string{Admin, Operator, Viewer} {
		if !slices.ContainsFunc(roleScopes(role), func(s string) bool { return !p.Allows(s) }) {
			return role
		}
	}
	return ""
}

// Principal is who is asking, and what they may do.
type Principal struct {
	ID        string // of the API key or the session, for logs
	Name      string // of the API key, also of a session made with it, or the user; else the role
	Role      string // of a session: of a user's, his role now; empty for an API key
	Scopes    []string
	User      string        // id of the user whose session it is; empty for all else
	Key       string        // id of the API key that it is, or that its session was made with; empty for all else
	Selector  string        // device query of an API key, and of a session made with it; empty for all devices
	Confirmed bool          // the user's e-mail is known to reach him
	Expires   muster.Micros // when the key or session ends unless it is used; 0 for never
}

// Allows says whether p may do what needs scope. The scope admin allows all.
func (p Principal) Allows(scope string) bool {
	return slices.Contains(p.Scopes, scope) || slices.Contains(p.Scopes, Admin)
}

// checkScopes refuses none and unknown ones.
func checkScopes(scopes []string) error {
	if len(scopes) == 0 {
		return muster.InvalidAt("scopes", "an API key needs at least one scope")
	}
	known := Scopes()
	for i, s := range scopes {
		if !slices.Contains(known, s) {
			return muster.InvalidAt(fmt.Sprintf("scopes/%d", i), "there is no scope %.40q", s)
		}
	}
	return nil
}
