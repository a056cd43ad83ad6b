package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/feed"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/delta"
	"muster/firmware/depot"
	"muster/firmware/s3"
)

// S3Keys are the keys of an object store: both, or a file with a line for each.
type S3Keys struct {
	Access, Secret string
	File           string
}

// maxKeys bounds a file of keys, in bytes.
const maxKeys = 4 << 10

// read returns the keys. No error names one.
func (k *S3Keys) read() (access, secret string, err error) {
	if k.File == "" {
		return k.Access, k.Secret, nil
	}
	if k.Access != "" || k.Secret != "" {
		return "", "", muster.Errorf(muster.Invalid, "the keys of firmware-s3 are given twice")
	}
	f, err := os.Open(k.File)
	if err != nil {
		return "", "", muster.Errorf(muster.Invalid, "read the keys of firmware-s3: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeys))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", "", muster.Errorf(muster.Invalid, "read the keys of firmware-s3: %w", err)
	}
	lines := bytes.Fields(text)
	if len(lines) != 2 {
		return "", "", muster.Errorf(muster.Invalid, "the file of firmware-s3-keys has not two lines, the access key and the secret key")
	}
	return string(lines[0]), string(lines[1]), nil
}

// bucket returns where images are kept; nil for the data directory alone.
func (c *FirmwareConfig) bucket() (*s3.Config, error) {
	if c.S3 == "" {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	u, err := url.Parse(c.S3)
	if err != nil { // its text may hold a key
		return nil, muster.Errorf(muster.Invalid, "firmware-s3 is not a valid URL")
	}
	name, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	q, style := u.Query(), u.Query().Get("style")
	for member := range q {
		if member != "region" && member != "style" {
			return nil, muster.Errorf(muster.Invalid, "firmware-s3 takes region and style behind the ?, and nothing else")
		}
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || name == "":
		return nil, muster.Errorf(muster.Invalid, "firmware-s3 is not a URL such as https://s3.example.com/bucket/prefix")
	case u.User != nil:
		return nil, muster.Errorf(muster.Invalid, "firmware-s3 has keys in it: give them by environment or file")
	case style != "" && style != "path" && style != "host":
		return nil, muster.Errorf(muster.Invalid, "style of firmware-s3 is path or host")
	}
	if prefix != "" {
		prefix += "/"
	}
	out := &s3.Config{Endpoint: u.Host, Bucket: name, Prefix: prefix, Region: q.Get("region"), Insecure: u.Scheme == "http", PathStyle: style != "host"}
	if out.AccessKey, out.SecretKey, err = c.S3Keys.read(); err != nil {
		return nil, err
	}
	if out.AccessKey == "" || out.SecretKey == "" {
		return nil, muster.Errorf(muster.Invalid, "firmware-s3 needs MUSTER_FIRMWARE_S3_ACCESS_KEY and MUSTER_FIRMWARE_S3_SECRET_KEY, or firmware-s3-keys")
	}
	return out, nil
}

// openImages opens where images lie.
func (s *Server) openImages(dir string, limits blob.Limits) error {
	conf, err := s.cfg.Firmware.bucket()
	if err != nil {
		return err
	}
	if conf == nil {
		if s.images, err = blob.Open(dir, limits, s.cfg.Now); err != nil {
			return err //nolint:wrapcheck // it says what it was doing
		}
		return s.watchImages()
	}
	if s.bucket, err = s3.New(*conf); err != nil {
		return err //nolint:wrapcheck // likewise
	}
	s.depot, err = depot.Open(dir, limits, s.bucket, depot.Options{Bytes: s.cfg.Firmware.Cache, Now: s.cfg.Now, Log: s.cfg.Logger})
	if err != nil {
		return fmt.Errorf("open the cache of images: %w", err)
	}
	s.images = s.depot.Store
	if err := s.watchImages(); err != nil {
		return err
	}
	err = s.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_firmware_cache_bytes", Help: "Bytes of images on the disk of a server whose images lie in a bucket.",
	}, func() float64 { return float64(s.depot.Bytes()) }))
	if err != nil {
		return fmt.Errorf("register the metrics of the cache of images: %w", err)
	}
	return nil
}

// watchImages tells of images whose bytes were changed on this server's disk.
func (s *Server) watchImages() error {
	s.images.OnWrong(func(digest string) {
		s.cfg.Logger.Error("an image on this server's disk is not what was uploaded any more: it is served to nobody; upload it again, and see muster doctor", "sha256", digest)
		s.rejected.note(feed.NewEvent(feed.FirmwareImageWrong, "", muster.MicrosOf(s.cfg.Now()), map[string]string{"sha256": digest}))
	})
	err := s.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_firmware_images_wrong", Help: "Images on this server's disk that were opened and have other bytes than were uploaded.",
	}, func() float64 { return float64(s.images.WrongImages()) }))
	if err != nil {
		return fmt.Errorf("register the metric of wrong images: %w", err)
	}
	return nil
}

// blobs are where the catalogue keeps images.
func (s *Server) blobs() catalog.Blobs {
	if s.depot != nil {
		return s.depot
	}
	return s.images
}

// share has images be where all servers find them; nil without a bucket.
func (s *Server) share() func(ctx context.Context, upload string) error {
	if s.depot == nil {
		return nil
	}
	return s.depot.Share
}

// wholeImages are those that patches are made of.
func (s *Server) wholeImages() delta.Images {
	if s.depot != nil {
		return patient{s.depot}
	}
	return s.images
}

// patchWait is how long the making of a patch waits for an image to come from the bucket.
const patchWait = 10 * time.Minute

// patient waits for images that come from the bucket.
type patient struct{ depot *depot.Depot }

// File implements delta.Images.
func (p patient) File(digest string) (*os.File, error) {
	return p.depot.FileWithin(digest, patchWait) //nolint:wrapcheck // it says what it was doing
}

var (
	_ catalog.Blobs = (*depot.Depot)(nil)
	_ depot.Bucket  = (*s3.Store)(nil)
	_ delta.Images  = patient{}
)
