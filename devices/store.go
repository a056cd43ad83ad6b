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
// is the password beside the device id as user name, x509 is the key of a
// certificate over TLS. A basic one is a user name and a password of the device's own
// choice, with or without a client id. An adoption one is what an adopted client goes
// on to present: its client id, its user name and the adoption key.
const (
	Token    CredentialKind = "token"
	Secret   CredentialKind = "secret"
	X509     CredentialKind = "x509"
	Basic    CredentialKind = "basic"
	Adoption CredentialKind = "adoption"
)

// Credential proves that a client is its device. Only a SHA-256 is kept: of the token
// or secret, of the public key (KeyHash), or of all that a basic or adoption one is
// made of.
type Credential struct {
	ID      string // made by Muster, "cred_..."
	Device  muster.DeviceID
	Kind    CredentialKind
	Hash    [32]byte
	Created muster.Micros
	Expires muster.Micros // 0 for never
	Label   string        // for people, at most MaxCredentialLabel bytes
	// LastUsed is when it last let a client in, 0 for never. It is written some time
	// after the fact.
	LastUsed muster.Micros
	// CA is the id of the registered authority by whose certificate the key became
	// the device's, empty when somebody gave the device this credential.
	CA string
	// Revoked is when a key of a CA was revoked, 0 if it was not: it stays, for the
	// CA's certificate would let it in again.
	Revoked muster.Micros
}

// PresenceRow is a device's presence as it is kept over a restart.
type PresenceRow struct {
	Device muster.DeviceID
	muster.Presence
	Rhythm int64  // learned seconds between messages, 0 while it is not known
	Link   string // what the presence hangs on: connection, gateway, data, or empty before the first time
}

// HistoryRow is a device's presence history as it is kept: plain ASCII of at most
// 2.2 KB, which only this package reads.
type HistoryRow struct {
	Device  muster.DeviceID
	History string
}

// PresenceStore keeps presence. What is saved of a device that is not there, deleted
// meanwhile, is left out.
type PresenceStore interface {
	LoadPresence(ctx context.Context, each func(PresenceRow) error) error
	SavePresence(ctx context.Context, rows []PresenceRow) error
	LoadHistory(ctx context.Context, each func(HistoryRow) error) error
	SaveHistory(ctx context.Context, rows []HistoryRow) error
	// LoadAlive returns the last SaveAlive, 0 before the first: when the server was
	// last known to run.
	LoadAlive(ctx context.Context) (muster.Micros, error)
	SaveAlive(ctx context.Context, at muster.Micros) error
}

// Store keeps the registry. Insert methods answer Conflict when the id is taken,
// update and delete methods NotFound when it is not there. That a device's profile
// and parent exist is checked by the registry, whose changes come one at a time.
type Store interface {
	PresenceStore
	LoadProfiles(ctx context.Context, each func(Profile) error) error
	LoadGroups(ctx context.Context, each func(Group) error) error
	// LoadDevices leaves out which groups a device is in that do not exist.
	LoadDevices(ctx context.Context, each func(Device) error) error
	LoadCredentials(ctx context.Context, each func(Credential) error) error
	// InsertDevices inserts all of ds with their credentials, or none.
	InsertDevices(ctx context.Context, ds []Device, cs []Credential) error
	// UpdateDevices replaces all of the devices with the ids of ds but their Created,
	// or none.
	UpdateDevices(ctx context.Context, ds []Device) error
	// DeleteDevices deletes devices with all that is their own, or none. Devices whose
	// parent they were have none then.
	DeleteDevices(ctx context.Context, ids []muster.DeviceID) error
	// EraseDevices is DeleteDevices and records in the same transaction that their
	// telemetry is to be deleted.
	EraseDevices(ctx context.Context, ids []muster.DeviceID, since muster.Micros) error
	LoadErasures(ctx context.Context, each func(Erasure) error) error
	// DeleteErasures forgets what EraseDevices recorded; ids that are not there are none.
	DeleteErasures(ctx context.Context, ids []muster.DeviceID) error
	// PutGroup inserts g, or replaces the group of that name.
	PutGroup(ctx context.Context, g Group) error
	// DeleteGroup deletes a group; no device is in it then.
	DeleteGroup(ctx context.Context, name string) error
	// PutProfile inserts p, or replaces the profile of that name.
	PutProfile(ctx context.Context, p Profile) error
	// DeleteProfile answers Conflict while a device has the profile.
	DeleteProfile(ctx context.Context, name string) error
	CredentialStore
}

// CredentialStore keeps credentials.
type CredentialStore interface {
	// ReplaceCredentials inserts or replaces put and deletes the credentials with the
	// ids drop, all or nothing. It answers NotFound when a device of put is not there.
	ReplaceCredentials(ctx context.Context, put []Credential, drop []string) error
	// SaveCredentials inserts or replaces cs but leaves out those whose device, or CA
	// when they have one, is not there.
	SaveCredentials(ctx context.Context, cs []Credential) error
}
