package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"muster"
	"muster/firmware/blob"
	"muster/firmware/budget"
	"muster/firmware/deliver"
)

const (
	deliveryUse = "firmware addresses" // of the data directory's key
	// defaultBandwidth leaves a gigabit's half, and the processor, to telemetry.
	defaultBandwidth = 64 << 20
)

// buildDelivery makes what sends images to devices.
func (s *Server) buildDelivery() (err error) {
	if s.links, err = deliver.NewSigner(s.deliveryKey, nil); err != nil {
		return fmt.Errorf("use the key of firmware addresses: %w", err)
	}
	limits := s.cfg.Downloads
	if limits.Bandwidth == 0 {
		limits.Bandwidth = defaultBandwidth
	}
	s.budgets = budget.New(s.stores.control, budget.Options{Now: s.cfg.Now})
	s.delivery, err = deliver.New(deliver.Config{
		Signer: s.links, Budgets: s.budgets, Open: s.openImage, Allowed: s.mayFetch, Limits: limits, Metrics: s.metrics, Now: s.cfg.Now, Log: s.cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("build the delivery of images: %w", err)
	}
	return nil
}

// openImage opens an image to be sent.
func (s *Server) openImage(digest [sha256.Size]byte) (deliver.Image, error) {
	f, err := s.imageFile(hex.EncodeToString(digest[:]), mayWait)
	if err != nil {
		return deliver.Image{}, err //nolint:wrapcheck // it says what it was doing
	}
	steady, err := blob.Steadily(f)
	if err != nil {
		return deliver.Image{}, errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err != nil {
		return deliver.Image{}, errors.Join(fmt.Errorf("look at an image: %w", err), f.Close())
	}
	return deliver.Image{File: f, Size: info.Size(), Still: steady.Still}, nil
}

// mayWait is how long a download waits for its image to come from the bucket.
const mayWait = 10 * time.Second

// firstLook is how long who does not wait waits all the same for an image's bytes to be looked at, once after a start: for
// as long as a few hundred MiB take.
const firstLook = 250 * time.Millisecond

// imageFile opens an image or a patch by its SHA-256 in hex. An image that is on its way from the bucket
// or whose bytes are being checked is waited for so long, and is Unavailable then.
func (s *Server) imageFile(digest string, wait time.Duration) (f *os.File, err error) {
	if s.patches != nil { // they are on the disk or nowhere: nobody is to ask the bucket for them
		f, err := s.patches.preparer.File(digest)
		if err == nil || muster.KindOf(err) != muster.NotFound {
			return f, err //nolint:wrapcheck // it says what it was doing
		}
	}
	if s.depot != nil {
		return s.depot.FileWithin(digest, wait) //nolint:wrapcheck // likewise
	}
	return s.images.FileWithin(digest, max(wait, firstLook)) //nolint:wrapcheck // likewise
}

// mayFetch says whether what a device was offered still stands, and how many bytes the images of its release have.
func (s *Server) mayFetch(ctx context.Context, g deliver.Grant) (int64, error) {
	if !s.registry.Has(g.Device) {
		return 0, muster.Errorf(muster.NotFound, "there is no such device")
	}
	release, err := s.stores.control.ReleaseOfOpen(ctx, g.Device, g.Action)
	switch {
	case err != nil && muster.KindOf(err) == muster.NotFound:
		return 0, muster.Errorf(muster.Conflict, "the action is over")
	case err != nil:
		return 0, err //nolint:wrapcheck // it says what it was doing
	}
	waits, err := s.rollouts.desk.Waits(ctx, g.Device, int32(g.Action)) // as it is in the store
	switch {
	case err != nil:
		return 0, err //nolint:wrapcheck // it says what it was doing
	case waits:
		return 0, muster.Errorf(muster.Forbidden, "people at the device have not confirmed it yet")
	}
	size, err := shelf{s.firmware}.sizeOf(ctx, release)
	if kind := muster.KindOf(err); err != nil && (kind == muster.Conflict || kind == muster.NotFound) {
		return 0, muster.Errorf(muster.Conflict, "the release was withdrawn")
	}
	return size, err
}
