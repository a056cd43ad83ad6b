package sim

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"muster/firmware/delta"
)

// mostImages bounds the images that are kept: of more the one goes that came first.
const mostImages = 16

// flash keeps the images that virtual devices have installed, one copy of each for all of them,
// so that they can take patches. The nil flash keeps none.
type flash struct {
	dir  string
	turn chan struct{} // held by who applies a patch: two images are in memory then

	mu      sync.Mutex
	writing map[string]bool // images that somebody writes
	here    []string        // images, the oldest first
}

func newFlash(dir string) *flash {
	if dir == "" {
		return nil
	}
	return &flash{dir: dir, turn: make(chan struct{}, 1), writing: map[string]bool{}}
}

// part is what a device is writing: its bytes go nowhere when f is nil.
type part struct {
	flash *flash
	f     *os.File
	name  string
}

// write begins an image, unless it is here or somebody writes it.
func (x *flash) write(sha256 string) (*part, error) {
	if _, err := hex.DecodeString(sha256); x == nil || err != nil || len(sha256) != 64 {
		return &part{}, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.writing[sha256] || slices.Contains(x.here, sha256) {
		return &part{}, nil
	}
	f, err := os.Create(filepath.Join(x.dir, sha256+".part"))
	if err != nil {
		return nil, fmt.Errorf("write an image: %w", err)
	}
	x.writing[sha256] = true
	return &part{x, f, sha256}, nil
}

// Write implements io.Writer.
func (p *part) Write(b []byte) (int, error) {
	if p.f == nil {
		return len(b), nil
	}
	return p.f.Write(b) //nolint:wrapcheck // who writes says what
}

// end keeps the image when it is good, and forgets it else.
func (p *part) end(good bool) error {
	if p == nil || p.f == nil {
		return nil
	}
	x, at := p.flash, p.f.Name()
	err := p.f.Close()
	p.f = nil
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.writing, p.name)
	if !good || err != nil {
		return errors.Join(err, os.Remove(at))
	}
	if err := os.Rename(at, filepath.Join(x.dir, p.name)); err != nil {
		return fmt.Errorf("keep an image: %w", err)
	}
	if x.here = append(x.here, p.name); len(x.here) > mostImages {
		err = os.Remove(filepath.Join(x.dir, x.here[0]))
		x.here = x.here[1:]
	}
	return err
}

// has says whether an image is here.
func (x *flash) has(sha256 string) bool {
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Contains(x.here, sha256)
}

// patch makes the file's image of the one that its patch is of.
func (x *flash) patch(ctx context.Context, patch []byte, file *offerFile) (err error) {
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a turn: %w", ctx.Err())
	}
	want := delta.Want{Size: file.Size}
	if n, err := hex.Decode(want.SHA256[:], []byte(file.SHA256[:min(len(file.SHA256), 64)])); err != nil || n != len(want.SHA256) {
		return fmt.Errorf("the image's name is no digest: %w", errProtocol)
	}
	old, err := os.Open(filepath.Join(x.dir, file.Patch.From))
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	defer func() { err = cmp.Or(err, old.Close()) }()
	out, err := x.write(file.SHA256)
	if err != nil {
		return err
	}
	err = delta.Apply(ctx, old, bytes.NewReader(patch), out, want)
	return errors.Join(err, out.end(err == nil))
}
