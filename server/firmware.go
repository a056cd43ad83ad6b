package server

import (
	"fmt"
	"path/filepath"

	"muster"
	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/operator"
)

// FirmwareConfig is what firmware must be; zero values stand for the rooms' defaults.
type FirmwareConfig struct {
	MaxSize   int64 // bytes of an image; 16 GiB when 0
	Threshold int   // how many keys must have signed a release at least; 1 when 0
	Approvals int   // how many people besides who wrote a rollout must agree before it starts, at least
	NoPatches bool  // none are made and offered
	// S3 has images kept in an object store that several servers share: https://HOST/BUCKET[/PREFIX], with
	// ?region=NAME and ?style=host for buckets in the host's name; empty for the data directory alone.
	S3     string
	S3Keys S3Keys
	Cache  int64 // bytes of images that the data directory has then; 20 GiB when 0
	// InsecureUnsigned lets releases be published and offered that nobody signed.
	InsecureUnsigned bool
}

func (c *FirmwareConfig) check() error {
	if _, err := c.bucket(); err != nil {
		return err
	}
	switch {
	case c.Cache < 0:
		return muster.Errorf(muster.Invalid, "firmware-cache %d is below 0", c.Cache)
	case c.MaxSize < 0:
		return muster.Errorf(muster.Invalid, "firmware-max-size %d is below 0", c.MaxSize)
	case c.Approvals < 0 || c.Approvals > operator.MaxApprovals:
		return muster.Errorf(muster.Invalid, "rollout-approvals %d is not between 0 and %d", c.Approvals, operator.MaxApprovals)
	case c.Threshold < 0 || c.Threshold > firmware.MaxSignatures:
		return muster.Errorf(muster.Invalid, "firmware-threshold %d is not between 1 and %d", c.Threshold, firmware.MaxSignatures)
	}
	return nil
}

// firmwareDir is where images lie, in the data directory.
const firmwareDir = "firmware"

// buildFirmware makes the rooms of firmware: the catalogue, what sends images, rollouts, and
// the doors that devices come by.
func (s *Server) buildFirmware() error {
	if err := s.buildCatalog(); err != nil {
		return err
	}
	if err := s.buildPatches(); err != nil {
		return err
	}
	if err := s.buildDelivery(); err != nil {
		return err
	}
	s.buildRollouts()
	if err := s.buildUpdates(); err != nil {
		return err
	}
	return s.buildDDI()
}

// buildCatalog makes the catalogue of firmware.
func (s *Server) buildCatalog() error {
	conf := s.cfg.Firmware
	dir, limits := filepath.Join(s.cfg.DataDir, firmwareDir), blob.Limits{Size: conf.MaxSize}
	if err := s.openImages(dir, limits); err != nil {
		return fmt.Errorf("open the images of firmware: %w", err)
	}
	if conf.InsecureUnsigned {
		s.cfg.Logger.Warn("releases of firmware need no signature: the server was started with --insecure-unsigned")
	}
	s.firmware = catalog.New(catalog.Config{
		Store: s.stores.control, Blobs: s.blobs(), Share: s.share(), Now: s.cfg.Now, Logger: s.cfg.Logger, Insecure: conf.InsecureUnsigned, Threshold: conf.Threshold,
		Gone: func(sha256 string) error { return s.patches.forget(sha256) },
	})
	return nil
}
