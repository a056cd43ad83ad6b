package delta

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"muster"
	"muster/firmware/blob"
)

// State is where a patch is.
type State string

// The states. Ready and Unworthy are kept; the others are gone after a restart, and who needs
// the patch asks again.
const (
	Unknown  State = ""
	Queued   State = "queued"
	Making   State = "making"
	Ready    State = "ready"
	Unworthy State = "unworthy" // not so much smaller than the image, or one is over MaxImage: the image is sent
	Failed   State = "failed"   // asked for again it is tried again
)

// Pair names two images by their SHA-256 in hex.
type Pair struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// Patch is what is known of the patch of a pair.
type Patch struct {
	Pair
	State  State     `json:"state"`
	SHA256 string    `json:"sha256,omitempty"` // of the patch; of Ready
	Size   int64     `json:"size"`             // of the patch, in bytes
	Full   int64     `json:"full"`             // of the new image when it is compressed, in bytes
	Why    string    `json:"why,omitempty"`    // of Unworthy and Failed
	Made   time.Time `json:"made"`
}

// Options are a Preparer's. A zero field means the default.
type Options struct {
	Queue int           // pairs that wait; 64: more are Busy
	Kept  int           // patches that are known; 1024: the oldest is forgotten, and deleted
	Bytes int64         // of all patches on the disk; 4 GiB: likewise. One more is there while it is kept
	Limit time.Duration // that a patch may take; 1 h
	Share float64       // of one processor's time that is worked; 0.5
	Told  func()        // called by Run when something came of a pair; it does not wait. Nil for nobody
	Now   func() time.Time
	Log   *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Queue <= 0 {
		o.Queue = 64
	}
	if o.Kept <= 0 {
		o.Kept = 1024
	}
	if o.Bytes <= 0 {
		o.Bytes = 4 << 30
	}
	if o.Told == nil {
		o.Told = func() {}
	}
	if o.Limit <= 0 {
		o.Limit = time.Hour
	}
	if o.Share <= 0 || o.Share > 1 {
		o.Share = 0.5
	}
	return o
}

// Images are whole images, by their SHA-256 in hex; one that is not there is NotFound.
type Images interface {
	File(digest string) (*os.File, error)
}

// Preparer makes patches, one at a time, and knows which there are. It is safe for concurrent use.
type Preparer struct {
	dir     string
	images  Images
	patches *blob.Store
	o       Options
	queue   chan Pair

	writing sync.Mutex // of the index, held before mu: it is written as it is in memory

	mu      sync.Mutex
	book    book
	changed chan struct{} // closed, and made anew, when book changes
}

// OpenPreparer returns the preparer of a directory, which it makes if need be and has for itself:
// the patches of images lie there, by their SHA-256, and what is not in its index is deleted.
func OpenPreparer(dir string, images Images, o Options) (p *Preparer, err error) {
	p = &Preparer{dir: dir, images: images, o: o.withDefaults(), book: book{known: map[Pair]Patch{}}, changed: make(chan struct{})}
	p.queue = make(chan Pair, p.o.Queue)
	for _, left := range []string{p.work(), filepath.Join(dir, "uploads")} { // of a process that was killed
		if err := os.RemoveAll(left); err != nil {
			return nil, fmt.Errorf("remove what a patch left: %w", err)
		}
	}
	if p.patches, err = blob.Open(dir, blob.Limits{Size: MaxImage}, p.o.Now); err != nil {
		return nil, fmt.Errorf("open the directory of patches: %w", err)
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	if err := p.tidy(); err != nil {
		return nil, err
	}
	return p, nil
}

// File returns a patch by its SHA-256 in hex, which the caller closes; NotFound when there is none.
func (p *Preparer) File(digest string) (*os.File, error) {
	return p.patches.File(digest) //nolint:wrapcheck // it says what it was doing
}

// Bytes returns how many bytes of patches are kept.
func (p *Preparer) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book.bytes()
}

func (p *Preparer) work() string { return filepath.Join(p.dir, "work") }

// Prepare asks for the patch of a pair, if it is not there or under way. Busy when too many wait.
func (p *Preparer) Prepare(pair Pair) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.book.known[pair].State; at != Unknown && at != Failed {
		return nil
	}
	select {
	case p.queue <- pair: // it has room or not: this does not wait
		p.set(Patch{Pair: pair, State: Queued})
		return nil
	default:
		return muster.Errorf(muster.Busy, "%d patches wait to be made, which is the most", p.o.Queue)
	}
}

// Find returns what is known of the patch of a pair.
func (p *Preparer) Find(pair Pair) Patch {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.book.known[pair]
	at.Pair = pair
	return at
}

// Wait returns the patch of a pair once it is neither queued nor being made.
func (p *Preparer) Wait(ctx context.Context, pair Pair) (Patch, error) {
	for {
		p.mu.Lock()
		at, changed := p.book.known[pair], p.changed
		p.mu.Unlock()
		if at.Pair = pair; at.State != Queued && at.State != Making {
			return at, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return at, fmt.Errorf("wait for a patch: %w", ctx.Err())
		}
	}
}

// set keeps what is known of a pair in memory. The caller has the lock.
func (p *Preparer) set(at Patch) {
	p.book.set(at)
	p.tell()
}

// tell wakes those who wait. The caller has the lock.
func (p *Preparer) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Run makes the patches that are asked for until ctx ends.
func (p *Preparer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case pair := <-p.queue:
			if err := p.one(ctx, pair); err != nil {
				return err
			}
		}
	}
}

// one makes a patch and keeps what came of it. Its error is that of the index alone: a patch that
// fails is no fault of the next.
func (p *Preparer) one(ctx context.Context, pair Pair) error {
	p.mu.Lock()
	if p.book.known[pair].State != Queued { // forgotten meanwhile
		p.mu.Unlock()
		return nil
	}
	p.set(Patch{Pair: pair, State: Making})
	p.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, p.o.Limit)
	defer cancel()
	at, err := p.make(limited, pair)
	switch {
	case err == nil:
	case muster.KindOf(err) == muster.TooLarge:
		at = Patch{State: Unworthy, Why: muster.Public(err)}
	default:
		at = Patch{State: Failed, Why: muster.Public(err)}
		if ctx.Err() == nil {
			p.o.Log.Error("a patch could not be made", "old", pair.Old, "new", pair.New, "err", err)
		}
	}
	at.Pair, at.Made = pair, p.o.Now().UTC()
	defer p.o.Told()
	return p.keep(at)
}

// make makes the patch of a pair, applies it, and keeps it when it is worth it.
func (p *Preparer) make(ctx context.Context, pair Pair) (at Patch, err error) {
	old, err := p.images.File(pair.Old)
	if err != nil {
		return at, err //nolint:wrapcheck // it says what it was doing
	}
	defer old.Close()
	next, err := p.images.File(pair.New)
	if err != nil {
		return at, err //nolint:wrapcheck // likewise
	}
	defer next.Close()
	f, err := os.OpenFile(p.work(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return at, fmt.Errorf("begin a patch: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(p.work()))
	}()
	sum := sha256.New()
	if err := makePatch(ctx, old, next, io.MultiWriter(f, sum), p.o.Share); err != nil {
		return at, err
	}
	if at.Size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return at, fmt.Errorf("look at a patch: %w", err)
	}
	if at.Full, err = compressed(ctx, next, p.o.Share); err != nil {
		return at, err
	}
	switch {
	case !Worth(at.Size, at.Full):
		at.State, at.Why = Unworthy, "the patch is not much smaller than the compressed image"
		return at, nil
	case at.Size > p.o.Bytes:
		at.State, at.Why = Unworthy, "the patch is larger than all patches together may be"
		return at, nil
	}
	at.State, at.SHA256 = Ready, hex.EncodeToString(sum.Sum(nil))
	if err := p.check(ctx, old, next, f, pair.New); err != nil {
		return at, err
	}
	return at, p.store(ctx, f, at)
}

// check applies a patch as a device would.
func (p *Preparer) check(ctx context.Context, old, next, patch *os.File, digest string) error {
	want, err := hex.DecodeString(digest)
	if err != nil || len(want) != sha256.Size {
		return muster.Errorf(muster.Invalid, "the image's name is no digest")
	}
	size, err := sizeOf(next)
	if err != nil {
		return err
	}
	if _, err := patch.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read a patch: %w", err)
	}
	if err := Apply(ctx, old, patch, io.Discard, Want{SHA256: [sha256.Size]byte(want), Size: size}); err != nil {
		return muster.Errorf(muster.Internal, "a patch that was made does not make its image: %w", err)
	}
	return nil
}

// store keeps a patch.
func (p *Preparer) store(ctx context.Context, f *os.File, at Patch) error {
	id := "patch-" + at.SHA256[:32]
	if err := p.patches.Discard(id); err != nil && muster.KindOf(err) != muster.NotFound { // of a process that was killed
		return err //nolint:wrapcheck // it says what it was doing
	}
	if err := p.patches.Begin(id, blob.Want{Size: at.Size, SHA256: at.SHA256}); err != nil {
		return err //nolint:wrapcheck // likewise
	}
	_, err := p.patches.Append(ctx, id, 0, io.NewSectionReader(f, 0, at.Size))
	if err == nil {
		_, err = p.patches.Finish(id)
	}
	if err != nil {
		return errors.Join(err, p.patches.Discard(id))
	}
	return nil
}
