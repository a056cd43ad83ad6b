package catalog

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/image"
)

// State is where a release is.
type State string

// The states of a release.
const (
	Draft      State = "draft"      // it may be changed and deleted, and is offered to nobody
	Published  State = "published"  // it stays as it is
	Deprecated State = "deprecated" // no rollout begins with it; those under way go on
	Revoked    State = "revoked"    // it is offered to nobody any more
)

// Limits of the catalogue.
const (
	MaxKeys   = 64       // that were ever added
	MaxNotes  = 16 << 10 // bytes of a release's notes
	MaxReason = 500      // bytes of why a release or a key was revoked
	maxName   = 100      // bytes of a key's name
)

// Artifact is an image that is here as a whole.
type Artifact struct {
	SHA256    string // in hex; its id
	Number    int64  // in the order in which they came, from 1
	SHA1, MD5 string // in hex; for clients that know no better
	Size      int64  // bytes
	Filename  string
	Image     image.Info // what it says of itself
	CreatedBy string     // id of the user or key
	Created   muster.Micros
}

// Release is a version of a product: a manifest, who signed it, and what became of it.
type Release struct {
	ID          string
	Number      int64  // in the order in which they were made, from 1
	Product     string // this and Version are the manifest's
	Version     string
	Channel     string // such as stable or beta; empty for none
	State       State
	Manifest    []byte // in its canonical form (RFC 8785): what is signed
	Signatures  []firmware.Signature
	Notes       string // for people
	Reason      string // why it was revoked
	CreatedBy   string // ids of users or keys, empty for nobody yet
	PublishedBy string
	EndedBy     string // who deprecated or revoked it last
	Created     muster.Micros
	Published   muster.Micros // 0 for not yet, like Ended
	Ended       muster.Micros
	Revision    int64 // of what is written here: one more with each change
}

// Key is a public key that releases are signed with.
type Key struct {
	ID        string // firmware.KeyID
	Name      string // for people
	PEM       string
	CreatedBy string
	Created   muster.Micros
	Revoked   muster.Micros // 0 for not
	RevokedBy string
	Reason    string
	Revision  int64
}

// Policy is what a release must have to be published and offered.
type Policy struct {
	Threshold int  // how many keys that are not revoked must have signed
	Least     int  // below which Threshold cannot be set: the server's configuration
	Unsigned  bool // no signature is needed: the server was started insecure
	Revision  int64
}

// Uploads takes images in, piece by piece. blob.Store implements it.
type Uploads interface {
	Begin(id string, w firmware.Upload) error
	Append(ctx context.Context, id string, offset int64, r io.Reader) (int64, error)
	Finish(id string) (firmware.Sum, error)
}

// UploadKeeper knows the uploads that are open. blob.Store implements it.
type UploadKeeper interface {
	Offset(id string) (int64, firmware.Upload, error)
	Open() (map[string]firmware.Progress, error)
	Discard(id string) error
	Sweep() (int, error)
}

// Images keeps whole images. blob.Store implements it.
type Images interface {
	File(digest string) (*os.File, error)
	Delete(digest string) error
	Older(t time.Time, each func(digest string) error) error
}

// Blobs is where images lie.
type Blobs interface {
	Uploads
	UploadKeeper
	Images
}

// Config is what New needs. All but Insecure, Threshold, Gone and Share must be set.
type Config struct {
	Store  Store
	Blobs  Blobs
	Now    func() time.Time
	Logger *slog.Logger
	// Insecure lets releases be published and offered that nobody signed.
	Insecure bool
	// Threshold is the least number of keys that must have signed; 1 when zero.
	Threshold int
	// Gone is called when an image was deleted, for what others keep of it; nil for nobody.
	Gone func(sha256 string) error
	// Share makes the image of an upload that is whole be where all servers find it, before its artifact
	// is kept; nil when each server has its own images.
	Share func(ctx context.Context, upload string) error
}

// Catalog is the catalogue. It is safe for concurrent use.
type Catalog struct {
	store    Store
	blobs    Blobs
	now      func() time.Time
	log      *slog.Logger
	insecure bool
	least    int
	gone     func(sha256 string) error
	share    func(ctx context.Context, upload string) error // nil for none
	turn     chan struct{}                                  // held while rows and files change together
}

// New returns the catalogue over a store and the images of one directory.
func New(c Config) *Catalog {
	if c.Gone == nil {
		c.Gone = func(string) error { return nil }
	}
	return &Catalog{
		store: c.Store, blobs: c.Blobs, now: c.Now, log: c.Logger, insecure: c.Insecure, least: max(c.Threshold, 1), gone: c.Gone, share: c.Share, turn: make(chan struct{}, 1),
	}
}

// turnTime bounds what is done in turn, once its turn has come.
const turnTime = 60 * time.Second

// inTurn does what changes rows and files together, one at a time and to its end, whoever
// goes away meanwhile.
func (c *Catalog) inTurn(ctx context.Context, do func(ctx context.Context) error) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting for a turn: %w", ctx.Err())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), turnTime)
	defer cancel()
	return do(ctx)
}

// at is the time, as it is kept.
func (c *Catalog) at() muster.Micros { return muster.MicrosOf(c.now()) }
