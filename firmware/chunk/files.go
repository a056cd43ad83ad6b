package chunk

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds on open files.
const (
	maxFiles  = 64
	unusedFor = 5 * time.Minute // then a file is closed, so that a deleted image frees its disk
)

// files keeps images open that pieces are read from: the ones that were used last. Run's
// goroutine alone uses it.
type files struct {
	images Images
	now    func() time.Time
	open   map[string]*file
}

type file struct {
	image Image
	used  time.Time
}

func newFiles(images Images, now func() time.Time) *files {
	return &files{images: images, now: now, open: map[string]*file{}}
}

// read fills p from an image; what ends before is an error.
func (f *files) read(sha256 string, p []byte, off int64) error {
	x, err := f.get(sha256)
	if err != nil {
		return err
	}
	if _, err := x.ReadAt(p, off); err != nil {
		f.forget(sha256)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read an image: %w", err)
	}
	return nil
}

func (f *files) get(sha256 string) (Image, error) {
	if x := f.open[sha256]; x != nil {
		x.used = f.now()
		return x.image, nil
	}
	if len(f.open) >= maxFiles {
		f.forget(f.oldest())
	}
	image, err := f.images.Open(sha256)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says which image, and what of it
	}
	f.open[sha256] = &file{image, f.now()}
	return image, nil
}

func (f *files) oldest() (which string) {
	var at time.Time
	for sha256, x := range f.open {
		if which == "" || x.used.Before(at) {
			which, at = sha256, x.used
		}
	}
	return which
}

// sweep closes what was not used for a while.
func (f *files) sweep() {
	for sha256, x := range f.open {
		if f.now().Sub(x.used) > unusedFor {
			f.forget(sha256)
		}
	}
}

func (f *files) forget(sha256 string) {
	if x := f.open[sha256]; x != nil {
		_ = x.image.Close() // it was only read
		delete(f.open, sha256)
	}
}

func (f *files) close() {
	for sha256 := range f.open {
		f.forget(sha256)
	}
}
