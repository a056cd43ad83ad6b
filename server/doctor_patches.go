package server

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"path/filepath"

	"muster"
	"muster/firmware/blob"
	"muster/firmware/delta"
)

// patches reads every patch, compares it with its digest, and applies it where both images are here as they were uploaded.
// One that is not there is no fault: it is made again.
func (x *images) patches(ctx context.Context) {
	dir := filepath.Join(x.d.dir, patchesDir)
	list, err := delta.Index(dir)
	if err != nil {
		x.d.say("patches", false, "they cannot be looked at: %s", err)
		return
	}
	seen, found := 0, 0
	for i := range list {
		p := &list[i]
		if p.State != delta.Ready {
			continue
		}
		err := x.patch(ctx, dir, p)
		if ctx.Err() != nil {
			x.d.say("patches", false, "the time for them is over: %d were read", seen)
			return
		}
		if seen++; err == nil {
			continue
		}
		if found++; found <= maxFindings {
			x.d.say("patches", false, "%s (of %s, makes %s): %s; stop the server and delete %s, and patches are made again", p.SHA256, p.Old, p.New, muster.Public(err), dir)
		}
	}
	switch {
	case found > maxFindings:
		x.d.say("patches", false, "%d faults in all", found)
	case found == 0:
		x.d.say("patches", true, "%d, each as it was made", seen)
	}
}

// patch says what is wrong with a patch; nil for nothing, and for one that is gone.
func (x *images) patch(ctx context.Context, dir string, p *delta.Patch) (err error) {
	bytes := int64(0)
	sum, err := blob.Sum256(ctx, dir, p.SHA256, func(n int) { bytes += int64(n) })
	switch {
	case err != nil && muster.KindOf(err) == muster.NotFound:
		return nil
	case err != nil:
		return muster.Errorf(muster.Unavailable, "it cannot be read: %w", err)
	case sum != p.SHA256 || bytes != p.Size:
		return muster.Errorf(muster.Conflict, "its bytes on disk were changed")
	}
	want := delta.Want{Size: x.sizes[p.New]}
	if x.sizes[p.Old] == 0 || want.Size == 0 {
		return nil // one of its images is not here, or is not what it was, which was said
	}
	if _, err := hex.Decode(want.SHA256[:], []byte(p.New)); err != nil { // of a digest, since an image has it
		return muster.Errorf(muster.Conflict, "its image has no digest: %w", err)
	}
	old, err := blob.Look(x.dir, p.Old)
	if err != nil {
		return muster.Errorf(muster.Unavailable, "the image that it is of cannot be read: %w", err)
	}
	defer old.Close()
	f, err := blob.Look(dir, p.SHA256)
	if err != nil {
		return muster.Errorf(muster.Unavailable, "it cannot be read: %w", err)
	}
	err = delta.Apply(ctx, old, f, io.Discard, want)
	if closed := f.Close(); err != nil || closed != nil {
		return muster.Errorf(muster.Conflict, "it does not make its image: %w", errors.Join(err, closed))
	}
	return nil
}
