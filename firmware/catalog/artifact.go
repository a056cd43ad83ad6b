package catalog

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"

	"muster"
	"muster/audit"
	"muster/firmware"
	"muster/internal/precondition"
)

// Upload is an upload that is open.
type Upload struct {
	firmware.Upload
	ID     string
	Offset int64 // bytes that are kept
}

// uploadPath is that of an upload, as the audit log has it.
func uploadPath(id string) string { return "firmware/uploads/" + id }

type uploadView struct {
	SHA256   string `json:"sha256"`
	Size     int64  `json:"size"`
	Filename string `json:"filename"`
}

func checkUpload(w firmware.Upload) error {
	return errors.Join(firmware.CheckDigest(w.SHA256), firmware.CheckFilename(w.Filename))
}

// Put takes an image in at one go, in constant memory. made is false when it was here
// already. Whatever ends it early leaves nothing behind: a reader's error, which is returned;
// Invalid for bytes of another digest or length than was said; TooLarge; Busy.
func (c *Catalog) Put(ctx context.Context, w firmware.Upload, r io.Reader) (a Artifact, made bool, err error) {
	if err := checkUpload(w); err != nil {
		return Artifact{}, false, err
	}
	id := rand.Text()
	w.Began = c.at()
	if err := c.blobs.Begin(id, w); err != nil {
		return Artifact{}, false, err //nolint:wrapcheck // it says what is wrong
	}
	n, err := c.blobs.Append(ctx, id, 0, r)
	switch {
	case err != nil:
	case n == 0:
		err = muster.Errorf(muster.Invalid, "the image is empty")
	case w.Size > 0 && n < w.Size:
		err = muster.Errorf(muster.Invalid, "%d of %d bytes came", n, w.Size)
	default:
		a, made, err = c.finish(ctx, id, w)
	}
	if err != nil {
		if gone := c.blobs.Discard(id); gone != nil && muster.KindOf(gone) != muster.NotFound { // it may have ended itself
			err = errors.Join(err, gone)
		}
		return Artifact{}, false, err //nolint:wrapcheck // it says what is wrong
	}
	return a, made, nil
}

// finish makes an artifact of an upload that is whole.
func (c *Catalog) finish(ctx context.Context, id string, w firmware.Upload) (a Artifact, made bool, err error) {
	if c.share != nil { // outside the turn, for it may take long, and to its end, whoever goes away meanwhile
		if err := c.share(context.WithoutCancel(ctx), id); err != nil {
			return Artifact{}, false, err
		}
	}
	err = c.inTurn(ctx, func(ctx context.Context) error {
		sum, err := c.blobs.Finish(id)
		if err != nil {
			return err //nolint:wrapcheck // it says what is wrong
		}
		a = Artifact{
			SHA256: sum.SHA256, SHA1: sum.SHA1, MD5: sum.MD5, Size: sum.Size, Filename: w.Filename, Image: sum.Image, CreatedBy: w.By, Created: c.at(),
		}
		return c.store.DecideFirmware(ctx, About{Artifact: sum.SHA256}, func(v View) (Decision, error) {
			if v.Artifact != nil {
				a = *v.Artifact
				audit.Nothing(ctx)
				return Decision{}, nil
			}
			made = true
			noted := a
			noted.Number = v.NextArtifact
			audit.Note(ctx, "artifact.create", ArtifactPath(a.SHA256), nil, ViewOfArtifact(&noted))
			return Decision{Artifact: &a}, nil
		})
	})
	return a, made, err
}

// Begin opens an upload of w, whose size must be said. Its id is its digest, so that who lost
// sight of an upload finds it by beginning again: made is false for one that is open already. An
// image that is here as a whole needs none and is returned.
func (c *Catalog) Begin(ctx context.Context, w firmware.Upload) (u Upload, here *Artifact, made bool, err error) {
	if err := checkUpload(w); err != nil {
		return Upload{}, nil, false, err
	}
	if w.Size <= 0 {
		return Upload{}, nil, false, muster.InvalidAt("size", "size is not above 0")
	}
	a, err := c.store.FirmwareArtifact(ctx, w.SHA256)
	if err == nil && c.here(w.SHA256) {
		audit.Nothing(ctx)
		return Upload{}, &a, false, nil
	}
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return Upload{}, nil, false, err //nolint:wrapcheck // the store says what it was doing
	}
	w.Began = c.at()
	err = c.blobs.Begin(w.SHA256, w)
	if err == nil {
		audit.Note(ctx, "upload.create", uploadPath(w.SHA256), nil, uploadView{w.SHA256, w.Size, w.Filename})
		return Upload{Upload: w, ID: w.SHA256}, nil, true, nil
	}
	if muster.KindOf(err) != muster.Conflict {
		return Upload{}, nil, false, err //nolint:wrapcheck // it says what is wrong
	}
	audit.Nothing(ctx)
	if u, err = c.Upload(w.SHA256); err == nil && u.Size != w.Size {
		err = muster.Errorf(muster.Conflict, "there is an upload of this digest with another size: delete it, or go on with it")
	}
	return u, nil, false, err
}

// here says whether the bytes of an artifact need no upload: they are on this server's disk as they came, or where all
// servers find them.
func (c *Catalog) here(sha256 string) bool {
	if c.share != nil {
		return true
	}
	f, err := c.blobs.File(sha256)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// Upload returns an upload that is open; NotFound when there is none.
func (c *Catalog) Upload(id string) (Upload, error) {
	n, w, err := c.blobs.Offset(id)
	if err != nil {
		return Upload{}, err //nolint:wrapcheck // it says what is wrong
	}
	return Upload{Upload: w, ID: id, Offset: n}, nil
}

// Uploads returns the uploads that are open and may go on, the oldest first. Those that come at one go are
// not among them.
func (c *Catalog) Uploads() ([]Upload, error) {
	open, err := c.blobs.Open()
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	out := make([]Upload, 0, len(open))
	for id, p := range open {
		if id == p.SHA256 { // as Begin names them
			out = append(out, Upload{Upload: p.Upload, ID: id, Offset: p.Offset})
		}
	}
	slices.SortFunc(out, func(a, b Upload) int { return cmp.Or(cmp.Compare(a.Began, b.Began), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// Append goes on with an upload at an offset. When all of it is here the upload has ended, and
// its artifact is returned. With any error the upload is returned as far as it is
// known: Conflict for another offset than its own, Invalid for another digest, which ends it.
func (c *Catalog) Append(ctx context.Context, id string, offset int64, r io.Reader) (Upload, *Artifact, error) {
	u, err := c.Upload(id)
	if err != nil {
		return u, nil, err
	}
	n, err := c.blobs.Append(ctx, id, offset, r)
	if err != nil {
		if now, gone := c.Upload(id); gone == nil {
			u = now
		}
		return u, nil, err //nolint:wrapcheck // it says what is wrong
	}
	u.Offset = n
	if n < u.Size {
		audit.Nothing(ctx)
		return u, nil, nil
	}
	a, _, err := c.finish(ctx, id, u.Upload)
	if err != nil {
		return u, nil, err
	}
	return u, &a, nil
}

// Discard ends an upload, and forgets what came of it.
func (c *Catalog) Discard(ctx context.Context, id string) error {
	u, err := c.Upload(id)
	if err != nil {
		return err
	}
	if err := c.blobs.Discard(id); err != nil {
		return err //nolint:wrapcheck // it says what is wrong
	}
	audit.Note(ctx, "upload.delete", uploadPath(id), uploadView{u.SHA256, u.Size, u.Filename}, nil)
	return nil
}

// Artifact returns an artifact; NotFound when there is none.
func (c *Catalog) Artifact(ctx context.Context, sha256 string) (Artifact, error) {
	if firmware.CheckDigest(sha256) != nil {
		return Artifact{}, errNoArtifact()
	}
	return c.store.FirmwareArtifact(ctx, sha256) //nolint:wrapcheck // the store says what it was doing
}

// Artifacts returns up to limit artifacts with numbers below before, 0 for all, the newest first.
func (c *Catalog) Artifacts(ctx context.Context, before int64, limit int) ([]Artifact, error) {
	return c.store.FirmwareArtifacts(ctx, before, limit) //nolint:wrapcheck // the store says what it was doing
}

// Open returns an artifact's bytes, which the caller closes.
func (c *Catalog) Open(ctx context.Context, sha256 string) (Artifact, *os.File, error) {
	a, err := c.Artifact(ctx, sha256)
	if err != nil {
		return Artifact{}, nil, err
	}
	f, err := c.blobs.File(sha256)
	return a, f, err //nolint:wrapcheck // it says what is wrong
}

// DeleteArtifact deletes an artifact that no release names; Conflict else.
func (c *Catalog) DeleteArtifact(ctx context.Context, sha256 string) error {
	if firmware.CheckDigest(sha256) != nil {
		return errNoArtifact()
	}
	return c.inTurn(ctx, func(ctx context.Context) error {
		err := c.store.DecideFirmware(ctx, About{Artifact: sha256}, func(v View) (Decision, error) {
			switch {
			case v.Artifact == nil:
				return Decision{}, errNoArtifact()
			case len(v.Named) > 0:
				return Decision{}, muster.Errorf(muster.Conflict, "the release %s names it", v.Named[0])
			}
			if err := precondition.Check(ctx, *v.Artifact); err != nil {
				return Decision{}, err //nolint:wrapcheck // the request's own condition
			}
			audit.Note(ctx, "artifact.delete", ArtifactPath(sha256), ViewOfArtifact(v.Artifact), nil)
			return Decision{Drop: true}, nil
		})
		if err != nil {
			return err //nolint:wrapcheck // it says what is wrong
		}
		if err := c.blobs.Delete(sha256); err != nil { // Sweep tries again
			c.log.WarnContext(ctx, "an image that is no artifact any more is still on disk", "sha256", sha256, "err", err)
		}
		if err := c.gone(sha256); err != nil { // what is left has its bound, and goes in its turn
			c.log.WarnContext(ctx, "what is kept of an image that was deleted is still on disk", "sha256", sha256, "err", err)
		}
		return nil
	})
}

func errNoArtifact() error { return muster.Errorf(muster.NotFound, "there is no such artifact") }
