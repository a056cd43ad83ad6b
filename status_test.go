package muster_test

import (
	"testing"

	"muster"
)

// Who is away is not updating: the last word is presence's where there is no connection.
func TestAnUpdateComesBeforeOnlineAndQuietAndNeverBeforeBeingAway(t *testing.T) {
	for p, want := range map[muster.PresenceState]muster.Status{
		muster.PresenceOnline: muster.StatusUpdating, muster.PresenceQuiet: muster.StatusUpdating,
		muster.PresenceOffline: "offline", muster.PresenceNever: "never", muster.PresenceUnknown: "unknown",
	} {
		if s := muster.StatusOf(p, true); s != want {
			t.Errorf("%s with an update is %s, want %s", p, s, want)
		}
		if s := muster.StatusOf(p, false); s != muster.Status(p) {
			t.Errorf("%s without one is %s", p, s)
		}
	}
}
