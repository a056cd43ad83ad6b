package desk

import (
	"context"

	"muster"
	"muster/firmware"
	"muster/firmware/rollout"
)

// Offer is what a device is to do about its firmware now.
type Offer struct {
	Device  muster.DeviceID
	Rollout string
	Action  int32 // names the attempt to the device, in every door
	Attempt int
	State   rollout.State
	// Stop says that the action was taken back after it was offered, or its release was withdrawn before the
	// device installs, and that the device has not said yet that it knows. Else the action is in flight.
	Stop bool
	// Waits says that people at the device are still to want it: see [Desk.Waits].
	Waits   bool
	Offered muster.Micros // when the action was
	// Shut says that its maintenance window is closed, and that it has begun nothing of it: no door tells of it, and
	// it is taken back within seconds.
	Shut bool
	// Parked says that the device is not to begin to install now, whatever it has of the image: its maintenance window is
	// closed, or it is open and all slots are taken.
	Parked  bool
	Hours   rollout.Hours // as of now, at the device
	Release Release
}

// Release is what an offer is of.
type Release struct {
	ID       string
	Manifest *firmware.Manifest
	Signed   firmware.Signed // what devices verify: the canonical manifest, and its signatures
	Files    []File          // in the manifest's order
	// Withdrawn says that it may be offered to nobody any more: revoked, out of date, or signed by too few keys
	// that are good. No byte of it is sent.
	Withdrawn bool
}

// File is an image of a release, with the digests that clients of other protocols ask for.
type File struct {
	Filename string
	Size     int64  // bytes
	SHA256   string // in hex, as the others
	SHA1     string
	MD5      string
	Patch    *Patch // by which the device may make it of what it has; nil for none
}

// Patch makes an image of another. Its size is in bytes, the digests are in hex.
type Patch struct {
	From   string // SHA-256 of the image that it is of
	SHA256 string // of the patch
	Size   int64
}

// Patches knows which patches are ready.
type Patches interface {
	// Patch returns the patch of a file of a release, counted from 0, for a device that had a version;
	// false for none. It does not wait.
	Patch(release, version string, file int) (Patch, bool)
}

// Releases knows what is in the catalogue. A release that is not there is NotFound.
type Releases interface {
	Release(ctx context.Context, id string) (Release, error)
}

// Action is the newest that was offered to a device.
type Action struct {
	Device  rollout.Device
	Release string
	Windows []rollout.Window // of the rollout's plan, as Zone is
	Zone    string
	Closed  int32         // the newest action whose end the device knows
	Offered muster.Micros // when the action was; 0 where the log does not say
}

// Store keeps what devices were offered.
type Store interface {
	// LastAction returns the newest action of a device; NotFound when it never had one.
	LastAction(ctx context.Context, device muster.DeviceID) (Action, error)
	// CloseAction notes that a device knows of the end of an action, and of those before.
	CloseAction(ctx context.Context, device muster.DeviceID, action int32) error
}

// Failure is an attempt of a device that failed.
type Failure struct {
	Device  muster.DeviceID
	Rollout string
	At      muster.Micros
}
