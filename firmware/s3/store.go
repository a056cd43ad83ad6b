package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"muster"
)

const (
	partBytes = 16 << 20         // that are sent at a time, and held in memory until they are
	callTime  = 30 * time.Second // of a call without an image's bytes
	slowest   = 64 << 10         // bytes a second: what takes longer is ended
	maxTries  = 3
)

// Config says where images are kept.
type Config struct {
	Endpoint  string // host:port, without a scheme
	Bucket    string // is there already
	Region    string // empty for what the server says
	AccessKey string
	SecretKey string
	Prefix    string // of the names of objects, such as "muster/"; may be empty
	Insecure  bool   // HTTP in the place of HTTPS
	PathStyle bool   // the bucket is in the path and not in the host's name, as most servers but Amazon's want it
}

// Store keeps images in a bucket. It is safe for concurrent use.
type Store struct {
	core      *minio.Core
	bucket    string
	prefix    string
	transport *http.Transport
}

// New returns the store of a bucket. It does not ask the server yet: see Check.
func New(c Config) (*Store, error) {
	if c.Bucket == "" || c.Endpoint == "" || c.AccessKey == "" || c.SecretKey == "" {
		return nil, muster.Errorf(muster.Invalid, "an S3 store needs an endpoint, a bucket and a pair of keys")
	}
	s := &Store{bucket: c.Bucket, prefix: c.Prefix, transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
		ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 16,
		DisableCompression: true, // images come as they are
	}}
	lookup := minio.BucketLookupAuto
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(c.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""), Secure: !c.Insecure, Region: c.Region, BucketLookup: lookup,
		Transport: s.transport, MaxRetries: maxTries,
	})
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the S3 store's endpoint or bucket is none: %w", err)
	}
	s.core = core
	return s, nil
}

// Close closes the connections that are not in use.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

// Check asks whether the bucket is there and may be used: Invalid when not, Unavailable when there
// is no answer.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ok, err := s.core.BucketExists(ctx, s.bucket)
	if err != nil {
		return failed("ask for the bucket", err)
	}
	if !ok {
		return muster.Errorf(muster.Invalid, "the S3 store has no bucket %q", s.bucket)
	}
	return nil
}

// name returns what an image is called; NotFound for what is no SHA-256 in small hex digits.
func (s *Store) name(digest string) (string, error) {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size || digest != strings.ToLower(digest) {
		return "", errNoImage()
	}
	return s.prefix + "sha256/" + digest[:2] + "/" + digest, nil
}

func errNoImage() error { return muster.Errorf(muster.NotFound, "there is no such image") }

// timeFor returns how long size bytes may take.
func timeFor(size int64) time.Duration {
	return callTime + time.Duration(size/slowest)*time.Second
}

// Put keeps an image of size bytes that r has, which is read once, in parts of 16 MiB. It is there
// afterwards, or not at all: when r has other bytes than digest says, fewer or more, which is
// Invalid, the server never gets the last of them.
func (s *Store) Put(ctx context.Context, digest string, size int64, r io.Reader) error {
	name, err := s.name(digest)
	if err != nil {
		return err
	}
	if size <= 0 {
		return muster.Errorf(muster.Invalid, "the image is empty")
	}
	ctx, cancel := context.WithTimeout(ctx, timeFor(size))
	defer cancel()
	v := &verified{r: r, left: size, sum: sha256.New(), want: digest}
	_, err = s.core.Client.PutObject(ctx, s.bucket, name, v, size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partBytes, NumThreads: 1,
	})
	if v.err != nil {
		return v.err
	}
	if err != nil {
		return failed("keep an image", err)
	}
	return nil
}

// verified reads an image and holds its last bytes back until all of them have the digest.
type verified struct {
	r    io.Reader
	left int64 // bytes
	sum  hash.Hash
	want string
	err  error // why it ended early
}

func (v *verified) Read(b []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.left == 0 {
		return 0, io.EOF
	}
	n, err := v.r.Read(b[:min(int64(len(b)), v.left)])
	_, _ = v.sum.Write(b[:n]) // a hash never fails
	v.left -= int64(n)
	switch {
	case v.left == 0:
		v.err = v.whole()
	case errors.Is(err, io.EOF):
		v.err = muster.Errorf(muster.Invalid, "the image has %d bytes less than was said", v.left)
	case err != nil:
		v.err = fmt.Errorf("read an image: %w", err)
	}
	if v.err != nil {
		return 0, v.err
	}
	return n, nil
}

// whole says whether what was read is the image, and nothing comes after.
func (v *verified) whole() error {
	if hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		return muster.Errorf(muster.Invalid, "the image has another SHA-256 than was said")
	}
	if n, err := io.ReadFull(v.r, make([]byte, 1)); n > 0 {
		return muster.Errorf(muster.Invalid, "the image has more bytes than was said")
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read an image: %w", err)
	}
	return nil
}

// Info is what is known of an image without its bytes.
type Info struct {
	Size int64     // bytes
	Came time.Time // when it was kept last, by the server's clock
}

// Stat returns what is known of an image; NotFound when there is none.
func (s *Store) Stat(ctx context.Context, digest string) (Info, error) {
	name, err := s.name(digest)
	if err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	info, err := s.core.StatObject(ctx, s.bucket, name, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, failed("ask for an image", err)
	}
	return Info{info.Size, info.LastModified}, nil
}

// listTime bounds the listing of a bucket.
const listTime = 10 * time.Minute

// Older calls each for the images that were kept last before t, in the order of their names, until it
// fails.
func (s *Store) Older(ctx context.Context, t time.Time, each func(digest string) error) error {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	for o := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + "sha256/", Recursive: true}) {
		if o.Err != nil {
			return failed("list the images", o.Err)
		}
		digest := o.Key[strings.LastIndexByte(o.Key, '/')+1:]
		if name, err := s.name(digest); err != nil || name != o.Key || !o.LastModified.Before(t) {
			continue
		}
		if err := each(digest); err != nil {
			return err
		}
	}
	return nil
}

// Open returns the n bytes of an image from a byte on, fewer at its end, which the caller closes;
// NotFound when there is none, Invalid when it has no byte there. ctx is that of the reading too.
func (s *Store) Open(ctx context.Context, digest string, from, n int64) (io.ReadCloser, error) {
	name, err := s.name(digest)
	if err != nil {
		return nil, err
	}
	var o minio.GetObjectOptions
	if from < 0 || n <= 0 || o.SetRange(from, from+n-1) != nil {
		return nil, muster.Errorf(muster.Invalid, "no bytes of the image are asked for")
	}
	ctx, cancel := context.WithTimeout(ctx, timeFor(n))
	body, _, _, err := s.core.GetObject(ctx, s.bucket, name, o)
	if err != nil {
		cancel()
		return nil, failed("open an image", err)
	}
	return &opened{body, cancel}, nil
}

// opened is a part of an image on its way.
type opened struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (o *opened) Read(b []byte) (int, error) {
	n, err := o.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed("read an image", err)
	}
	return n, err //nolint:wrapcheck // io.EOF is as it is
}

func (o *opened) Close() error {
	defer o.cancel()
	if err := o.ReadCloser.Close(); err != nil {
		return failed("close an image", err)
	}
	return nil
}

// Delete removes an image; one that is not there is no error.
func (s *Store) Delete(ctx context.Context, digest string) error {
	name, err := s.name(digest)
	if err != nil {
		return nil // what has no name is not there
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := s.core.RemoveObject(ctx, s.bucket, name, minio.RemoveObjectOptions{}); err != nil && muster.KindOf(failed("", err)) != muster.NotFound {
		return failed("delete an image", err)
	}
	return nil
}

// failed returns the error of a call: what the server says of it decides its kind, and what is not
// about one image is for the operator.
func failed(doing string, err error) error {
	r := minio.ToErrorResponse(err)
	switch {
	case r.Code == minio.NoSuchKey:
		return errNoImage()
	case r.Code == minio.NoSuchBucket:
		return &muster.Error{Kind: muster.Unavailable, Msg: "the bucket that images are kept in is not there", Err: fmt.Errorf("%s: %w", doing, err)}
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable || r.Code == minio.InvalidRange:
		return muster.Errorf(muster.Invalid, "the image has no byte there")
	case r.StatusCode == http.StatusForbidden || r.StatusCode == http.StatusUnauthorized:
		return &muster.Error{Kind: muster.Unavailable, Msg: "the store of images refuses our keys", Err: fmt.Errorf("%s: %w", doing, err)}
	}
	return &muster.Error{Kind: muster.Unavailable, Msg: "the store of images does not answer as it should", Err: fmt.Errorf("%s: %w", doing, err)}
}
