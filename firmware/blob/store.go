package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"muster"
	"muster/firmware"
)

// Limits bound a Store. A zero field means the default.
type Limits struct {
	Size    int64         // of an image, in bytes; 16 GiB
	Uploads int           // that are open at a time; 64: more are Busy
	Idle    time.Duration // after which Sweep discards an upload; 24 h
}

func (l Limits) withDefaults() Limits {
	if l.Size == 0 {
		l.Size = 16 << 30
	}
	if l.Uploads == 0 {
		l.Uploads = 64
	}
	if l.Idle == 0 {
		l.Idle = 24 * time.Hour
	}
	return l
}

// Sum is what is known of an image once it is whole.
type Sum = firmware.Sum

// Store keeps images in a directory, of which it is the only user.
type Store struct {
	dir    string
	limits Limits
	now    func() time.Time

	mu   sync.Mutex
	busy map[string]bool // uploads that are being written to, by id

	onWrong Wrong
	closing chan struct{}
	closed  sync.Once
	looking sync.WaitGroup
	proving sync.Mutex
	proofs  map[string]*proof // by digest
}

// Open returns the store of a directory, which it makes if need be.
func Open(dir string, l Limits, now func() time.Time) (*Store, error) {
	s := &Store{dir: dir, limits: l.withDefaults(), now: now, busy: map[string]bool{}, closing: make(chan struct{}), proofs: map[string]*proof{}}
	for _, sub := range []string{s.uploads(), filepath.Join(dir, "sha256")} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of images: %w", err)
		}
	}
	return s, nil
}

func (s *Store) uploads() string { return filepath.Join(s.dir, "uploads") }

// path returns where an image lies.
func (s *Store) path(digest string) string {
	return filepath.Join(s.dir, "sha256", digest[:2], digest)
}

// isDigest says whether a text is a SHA-256 in small hex digits, so that it may be a part of a
// path.
func isDigest(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// File returns an image, which the caller closes; NotFound when there is none, Unavailable when its bytes were changed:
// see Prove, for which it waits.
func (s *Store) File(digest string) (*os.File, error) { return s.FileWithin(digest, 0) }

// FileWithin is File that waits so long for a look at the bytes: see Prove.
func (s *Store) FileWithin(digest string, wait time.Duration) (*os.File, error) {
	f, err := s.Bare(digest)
	if err != nil {
		return nil, err
	}
	if err := s.Prove(digest, f, wait); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Bare is File without a look at the bytes: for who looks himself, or needs none of them.
func (s *Store) Bare(digest string) (*os.File, error) {
	if !isDigest(digest) {
		return nil, errNoImage()
	}
	f, err := os.Open(s.path(digest))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoImage()
	case err != nil:
		return nil, fmt.Errorf("open an image: %w", err)
	}
	return f, nil
}

func errNoImage() error { return muster.Errorf(muster.NotFound, "there is no such image") }

// Delete removes an image; one that is not there is no error. Who has it open may go on.
func (s *Store) Delete(digest string) error {
	if !isDigest(digest) {
		return nil
	}
	if err := os.Remove(s.path(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete an image: %w", err)
	}
	s.proving.Lock()
	delete(s.proofs, digest)
	s.proving.Unlock()
	return syncDir(filepath.Dir(s.path(digest)))
}

// Each calls each for the images, with their sizes in bytes and when they came, in no order, until it
// fails.
func (s *Store) Each(each func(digest string, size int64, came time.Time) error) error {
	err := filepath.WalkDir(filepath.Join(s.dir, "sha256"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isDigest(d.Name()) {
			return err
		}
		info, err := d.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was deleted meanwhile
			return nil
		case err != nil:
			return err //nolint:wrapcheck // WalkDir hands it on
		}
		return each(d.Name(), info.Size(), info.ModTime())
	})
	if err != nil {
		return fmt.Errorf("list the images: %w", err)
	}
	return nil
}

// Older calls each for the images that came, or came again, before t, in no order, until it
// fails.
func (s *Store) Older(t time.Time, each func(digest string) error) error {
	return s.Each(func(digest string, _ int64, came time.Time) error {
		if !came.Before(t) {
			return nil
		}
		return each(digest)
	})
}

// hold makes the caller the only writer of an upload until it calls let; Busy when there is
// one.
func (s *Store) hold(id string) (let func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return nil, muster.Errorf(muster.Busy, "the upload is being written to")
	}
	s.busy[id] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, id)
	}, nil
}

// syncDir makes renames in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the directory of images: %w", err)
	}
	err = d.Sync()
	if closed := d.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("sync the directory of images: %w", err)
	}
	return nil
}

// full says that the disk is full in words, of an error that is that.
func full(err error) error {
	if isFull(err) {
		return &muster.Error{Kind: muster.Unavailable, Msg: "the disk that images are kept on is full", Err: err}
	}
	return err
}
