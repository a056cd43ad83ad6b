package catalog

import "context"

// About says what a decision is about: a release, an artifact, or neither.
type About struct {
	Release  string // id
	Artifact string // SHA-256
}

// View is what a decision sees, in the transaction that keeps what it decides. Nobody else
// decides meanwhile.
type View struct {
	Policy Policy // Threshold is 0 until it was set; Least and Unsigned are not kept
	Keys   []Key  // all, by id
	// NextRelease and NextArtifact are the numbers that a new one is given.
	NextRelease, NextArtifact int64
	// Release is the one that it is about, nil when there is none. Files are its manifest's that are here, by SHA-256,
	// Others those of the same product and version that are no drafts, and Rolled says whether
	// there is a rollout of it, or back to it.
	Release *Release
	Files   map[string]Artifact
	Others  []Release
	Rolled  bool
	// Artifact is the one that it is about, nil when there is none. Named are some of the releases that name it.
	Artifact *Artifact
	Named    []string
}

// Decision is what is kept; nothing when it is empty.
type Decision struct {
	Release  *Release // new when its Number is 0, which the store sets then; else changed
	Files    []string // of a new release: the digests that its manifest names
	Artifact *Artifact
	Key      *Key
	Policy   *Policy
	Drop     bool // the release or the artifact that it is about is deleted
}

// Filter chooses releases.
type Filter struct {
	Product string // empty for all
	State   State  // empty for all
	Before  int64  // only those with smaller numbers; 0 for all
	Limit   int
}

// Reader reads single things; NotFound when there is none.
type Reader interface {
	FirmwareArtifact(ctx context.Context, sha256 string) (Artifact, error)
	FirmwareRelease(ctx context.Context, id string) (Release, error)
	// FirmwareTrust returns the policy, as View has it, and all keys by id, as of one moment.
	FirmwareTrust(ctx context.Context) (Policy, []Key, error)
}

// Lister reads lists, the newest first.
type Lister interface {
	FirmwareArtifacts(ctx context.Context, before int64, limit int) ([]Artifact, error)
	FirmwareReleases(ctx context.Context, f Filter) ([]Release, error)
}

// Decider makes changes.
type Decider interface {
	// DecideFirmware calls decide once with the view of what it is about, and keeps what it decides, in one
	// transaction, with what was noted under the context. An error of decide changes nothing and is returned.
	DecideFirmware(ctx context.Context, about About, decide func(View) (Decision, error)) error
}

// Store keeps the catalogue.
type Store interface {
	Reader
	Lister
	Decider
}
