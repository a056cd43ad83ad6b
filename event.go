package muster

// PresenceState says whether a device is connected.
type PresenceState string

// The presence states of a device (retained at devices/{id}/presence).
const (
	PresenceNever   PresenceState = "never"   // has not connected yet
	PresenceOnline  PresenceState = "online"  // connected
	PresenceQuiet   PresenceState = "quiet"   // connected, silent beyond its own rhythm
	PresenceOffline PresenceState = "offline" // was connected, is not
	PresenceUnknown PresenceState = "unknown" // the server restarted and has not heard of it since
)

// Presence is one device's connection state.
type Presence struct {
	State    PresenceState
	Since    Micros // when State began
	LastSeen Micros // the last packet that counted, 0 for never
	Reason   string // why it is offline: disconnected, keepalive, taken over, closed, server stopped
}
