package join

import (
	"context"
	"crypto/x509"

	"muster"
)

// Authority is a registered certificate authority. Its certificate need not be
// self-signed: trust begins with it.
type Authority struct {
	ID      string // "ca_..."
	Name    string // for people, at most maxName bytes
	Cert    *x509.Certificate
	Profile string // of devices made just in time
	JIT     bool   // a certificate whose common name is no device makes it
	Created muster.Micros

	Proof    Proof
	Code     string        // what the common name of the certificate must be that proves it; empty for NoProof
	Verified muster.Micros // since when it lets devices in; 0 for not yet
}

// Proof says how whoever registers an authority shows that they have its key.
type Proof string

// Proofs: by a certificate that the authority has signed, whose common name is a code
// made for it; or not at all, on the word of an admin.
const (
	ByCertificate Proof = "certificate"
	NoProof       Proof = "none"
)

// Strategy says what a device that registers itself may do.
type Strategy string

// Strategies: with Create the device must not exist and is made; with Preprovisioned it
// exists without a credential and is given one.
const (
	Create         Strategy = "create"
	Preprovisioned Strategy = "preprovisioned"
)

// Provisioning lets devices of one profile register themselves. Hash is the SHA-256 of
// the secret, which is shown once.
type Provisioning struct {
	Profile  string
	Strategy Strategy
	Key      string
	Hash     [32]byte
	Created  muster.Micros
}

// ClaimCode lets whoever knows it claim a device, once. Hash is the SHA-256 of the code.
type ClaimCode struct {
	Device  muster.DeviceID
	Hash    [32]byte
	Created muster.Micros
	Expires muster.Micros
}

// AdoptionKey lets unknown clients into the inbox. The key itself ("mak_...") is shown
// once; Hash is its SHA-256.
type AdoptionKey struct {
	ID      string // "adk_..."
	Name    string
	Hash    [32]byte
	Created muster.Micros
	Expires muster.Micros // 0 for never
}

// Block keeps a client out of the inbox. Hash is of its client id and user name.
type Block struct {
	Hash    [32]byte
	Label   string // candidate id it had
	Created muster.Micros
}

// Store keeps what join knows. Insert methods answer Conflict when the id is taken,
// delete methods NotFound when it is not there.
type Store interface {
	AuthorityStore
	ProvisioningStore
	ClaimStore
	AdoptionStore
}

// AuthorityStore keeps certificate authorities.
type AuthorityStore interface {
	Authorities(ctx context.Context) ([]Authority, error)
	// PutAuthority inserts a, or replaces name, profile, JIT and Verified of the one with its id. It
	// answers Invalid when there is no such profile.
	PutAuthority(ctx context.Context, a Authority) error
	// DeleteAuthority deletes it and the credentials that came by it and are not revoked.
	DeleteAuthority(ctx context.Context, id string) error
}

// ProvisioningStore keeps the provisioning of profiles.
type ProvisioningStore interface {
	Provisionings(ctx context.Context) ([]Provisioning, error)
	// PutProvisioning inserts p, or replaces that of its profile. It answers Invalid when
	// there is no such profile.
	PutProvisioning(ctx context.Context, p Provisioning) error
	DeleteProvisioning(ctx context.Context, profile string) error
}

// ClaimStore keeps claim codes.
type ClaimStore interface {
	ClaimCodes(ctx context.Context) ([]ClaimCode, error)
	// PutClaimCode inserts c, or replaces that of its device. It answers NotFound when there is
	// no such device.
	PutClaimCode(ctx context.Context, c ClaimCode) error
	// DeleteClaimCodes deletes those of devices; it is no error when one has none.
	DeleteClaimCodes(ctx context.Context, devices []muster.DeviceID) error
}

// AdoptionStore keeps adoption keys and who is blocked.
type AdoptionStore interface {
	AdoptionKeys(ctx context.Context) ([]AdoptionKey, error)
	InsertAdoptionKey(ctx context.Context, k AdoptionKey) error
	DeleteAdoptionKey(ctx context.Context, id string) error
	Blocks(ctx context.Context) ([]Block, error)
	// InsertBlock is no error when the client is blocked already.
	InsertBlock(ctx context.Context, b Block) error
	DeleteBlock(ctx context.Context, hash [32]byte) error
}
