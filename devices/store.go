package devices

import (
	"context"

	"muster"
)

// Device is one entry of the registry.
type Device struct {
	ID      muster.DeviceID
	Name    string // shown to people, at most 200 bytes; may be empty
	Created muster.Micros
	Profile string          // DefaultProfile unless another was set
	Parent  muster.DeviceID // the gateway it belongs to, empty for none

	Tags     Tags
	Groups   Groups // the static ones
	Location Location
	CheckIn  int64  // seconds between two messages that are expected, 0 for its learned rhythm
	Notes    string // for people, at most MaxNotes bytes
	Firmware string // the version that it reports, empty when it never did
}

// CredentialKind says how a device presents a credential.
type CredentialKind string

// The kinds of credential: a token stands alone as the MQTT user name, a secret
// is the password beside the device id as user name.
const (
	Token  CredentialKind = "token"
	Secret CredentialKind = "secret"
)

// Credential proves that a client is its device. Only the SHA-256 of the token
// or secret is kept.
type Credential struct {
	ID      string // made by Muster, "cred_..."
	Device  muster.DeviceID
	Kind    CredentialKind
	Hash    [32]byte
	Created muster.Micros
}

// PresenceRow is a device's presence as it is kept over a restart.
type PresenceRow struct {
	Device muster.DeviceID
	muster.Presence
}

// Store keeps the registry. Insert methods answer Conflict when the id is taken,
// update and delete methods NotFound when it is not there. That a device's profile
// and parent exist is checked by the registry, whose changes come one at a time.
type Store interface {
	LoadProfiles(ctx context.Context, each func(Profile) error) error
	LoadGroups(ctx context.Context, each func(Group) error) error
	// LoadDevices leaves out which groups a device is in that do not exist.
	LoadDevices(ctx context.Context, each func(Device) error) error
	LoadCredentials(ctx context.Context, each func(Credential) error) error
	LoadPresence(ctx context.Context, each func(PresenceRow) error) error
	// InsertDevices inserts all of ds with their credentials, or none.
	InsertDevices(ctx context.Context, ds []Device, cs []Credential) error
	// UpdateDevices replaces all of the devices with the ids of ds but their Created,
	// or none.
	UpdateDevices(ctx context.Context, ds []Device) error
	// DeleteDevices deletes devices with all that is their own, or none. Devices whose
	// parent they were have none then.
	DeleteDevices(ctx context.Context, ids []muster.DeviceID) error
	// PutGroup inserts g, or replaces the group of that name.
	PutGroup(ctx context.Context, g Group) error
	// DeleteGroup deletes a group; no device is in it then.
	DeleteGroup(ctx context.Context, name string) error
	// PutProfile inserts p, or replaces the profile of that name.
	PutProfile(ctx context.Context, p Profile) error
	// DeleteProfile answers Conflict while a device has the profile.
	DeleteProfile(ctx context.Context, name string) error
	InsertCredential(ctx context.Context, c Credential) error
	DeleteCredential(ctx context.Context, device muster.DeviceID, id string) error
	SavePresence(ctx context.Context, rows []PresenceRow) error
}
