package server

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"muster"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/s3"
	"muster/store/control"
)

// Images says how Doctor looks at images.
type Images struct {
	Skip bool // they are not read
	// Bucket is where they are kept beside the data directory, as in FirmwareConfig.
	S3     string
	S3Keys S3Keys
	// Progress is told how much was read of how much, in bytes, now and then; nil for nobody.
	Progress func(read, all int64)
}

const (
	imagesPage    = 500             // artifacts that are read at a time
	progressEvery = 5 * time.Second // at most
)

// images reads every image, and compares it with its digest.
type images struct {
	d      *doctor
	dir    string
	bucket *s3.Store // nil for none
	all    int64
	read   int64
	told   time.Time
	found  int
	seen   int
	sizes  map[string]int64 // of the images that are as they were uploaded, on this disk
}

func (d *doctor) images(ctx context.Context, c *control.Control) {
	if d.look.Skip {
		d.say("images", true, "not looked at, as asked")
		return
	}
	x := &images{d: d, dir: filepath.Join(d.dir, firmwareDir), told: time.Now(), sizes: map[string]int64{}}
	conf, err := (&FirmwareConfig{S3: d.look.S3, S3Keys: d.look.S3Keys}).bucket()
	if err == nil && conf != nil {
		if x.bucket, err = s3.New(*conf); err == nil {
			defer x.bucket.Close()
		}
	}
	if err == nil {
		err = x.each(ctx, c, func(a *catalog.Artifact) error { x.all += a.Size; return nil })
	}
	if err == nil {
		err = x.each(ctx, c, func(a *catalog.Artifact) error { return x.one(ctx, a) })
	}
	defer x.patches(ctx)
	switch {
	case err != nil:
		d.say("images", false, "they cannot be looked at: %s", muster.Public(err))
	case x.found > maxFindings:
		d.say("images", false, "%d faults in all", x.found)
	case x.found == 0:
		d.say("images", true, "%d, of %d MiB, each as it was uploaded", x.seen, x.all>>20)
	}
}

// each calls do with all artifacts.
func (x *images) each(ctx context.Context, c *control.Control, do func(a *catalog.Artifact) error) error {
	for before := int64(0); ; {
		page, err := c.FirmwareArtifacts(ctx, before, imagesPage)
		if err != nil {
			return err //nolint:wrapcheck // it says what it was doing
		}
		for i := range page {
			if err := do(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < imagesPage {
			return nil
		}
		before = page[len(page)-1].Number
	}
}

func (x *images) one(ctx context.Context, a *catalog.Artifact) error {
	x.seen++
	read := func(n int) {
		x.read += int64(n)
		if now := time.Now(); x.d.look.Progress != nil && now.Sub(x.told) > progressEvery {
			x.told = now
			x.d.look.Progress(x.read, x.all)
		}
	}
	sum, err := blob.Sum256(ctx, x.dir, a.SHA256, read)
	gone := err != nil && muster.KindOf(err) == muster.NotFound
	switch {
	case ctx.Err() != nil:
		return muster.Errorf(muster.Timeout, "the time for it is over: %d of %d were read", x.seen, x.all)
	case gone && x.bucket == nil:
		x.wrong(a, "it is not in %s: upload it again, or say with --firmware-s3 where images are kept", x.dir)
	case gone:
	case err != nil:
		x.wrong(a, "it cannot be read: %v", err)
	case sum != a.SHA256 && x.bucket == nil:
		x.wrong(a, "its bytes on disk were changed: it is served to nobody; upload it again")
	case sum != a.SHA256:
		x.wrong(a, "its copy on this disk was changed: delete the file, and it comes again from the bucket")
	default:
		x.sizes[a.SHA256] = a.Size
	}
	if x.bucket == nil {
		return nil
	}
	return x.kept(ctx, a, read)
}

// kept looks at an image in the bucket.
func (x *images) kept(ctx context.Context, a *catalog.Artifact, read func(n int)) error {
	r, err := x.bucket.Open(ctx, a.SHA256, 0, a.Size)
	if err != nil && muster.KindOf(err) == muster.NotFound {
		x.wrong(a, "it is not in the bucket: upload it again")
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	sum, err := blob.SumOf(ctx, r, read)
	if err = errors.Join(err, r.Close()); err != nil {
		return muster.Errorf(muster.Unavailable, "the bucket does not give the image %s: %w", a.SHA256, err)
	}
	if sum != a.SHA256 {
		x.wrong(a, "its bytes in the bucket were changed: delete the object, and upload it again")
	}
	return nil
}

func (x *images) wrong(a *catalog.Artifact, format string, args ...any) {
	if x.found++; x.found <= maxFindings {
		x.d.say("images", false, "%s (%s): "+format, append([]any{a.SHA256, a.Filename}, args...)...)
	}
}
