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
// delete methods NotFound when it is not there.
type Store interface {
	LoadDevices(ctx context.Context, each func(Device) error) error
	LoadCredentials(ctx context.Context, each func(Credential) error) error
	LoadPresence(ctx context.Context, each func(PresenceRow) error) error
	// InsertDevices inserts all of ds with their credentials, or none.
	InsertDevices(ctx context.Context, ds []Device, cs []Credential) error
	DeleteDevice(ctx context.Context, id muster.DeviceID) error
	InsertCredential(ctx context.Context, c Credential) error
	DeleteCredential(ctx context.Context, device muster.DeviceID, id string) error
	SavePresence(ctx context.Context, rows []PresenceRow) error
}
