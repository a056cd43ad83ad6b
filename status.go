package muster

// Status is the one word for how a device is, wherever it is shown, counted or asked for: its
// presence, or what goes on at it where that says more.
type Status string

// StatusUpdating is the status of a connected device that fetches, installs or proves new firmware. All other
// statuses are presence states.
const StatusUpdating Status = "updating"

// Statuses returns all statuses: those of presence first, in the order in which they are written.
func Statuses() []Status {
	return []Status{
		Status(PresenceNever), Status(PresenceOnline), Status(PresenceQuiet), Status(PresenceOffline), Status(PresenceUnknown), StatusUpdating,
	}
}

// StatusOf returns the status of a device by its presence and whether a firmware action is under way
// at it. An update comes before online and quiet, for who installs has nothing to say; but a device that is
// away is offline whatever it was told to do, or a device that died while it updated would look well.
func StatusOf(p PresenceState, updating bool) Status {
	if updating && (p == PresenceOnline || p == PresenceQuiet) {
		return StatusUpdating
	}
	return Status(p)
}
