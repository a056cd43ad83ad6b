package delta

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"muster"
)

// MaxImage is the largest image that a patch is made from or to, in bytes: both are in the memory
// of who makes or applies it.
const MaxImage = 128 << 20

// worthTenths of a compressed image is what a patch must stay below to be worth its trouble.
const worthTenths = 6

// Worth says whether a patch is so much smaller than the compressed image, both in bytes, that it
// is to be used: it makes devices work, and can fail.
func Worth(patch, compressed int64) bool { return patch*10 < compressed*worthTenths }

// Make writes a patch that makes the image next of the image old: one zstd frame (RFC 8878) without a
// dictionary id, whose raw dictionary is the old image, as zstd --patch-from makes and takes it.
// An image over MaxImage is TooLarge, an empty one Invalid. ctx ends it between two reads.
//
// It takes up to 3.5 times MaxImage of memory. What of an old image of more than 48 MiB lies at
// its beginning is found less and less: such patches grow, until they are not worth it.
func Make(ctx context.Context, old, next *os.File, w io.Writer) error {
	return makePatch(ctx, old, next, w, 1)
}

// makePatch is Make with a share of a processor.
func makePatch(ctx context.Context, old, next *os.File, w io.Writer, share float64) error {
	base, err := load(old)
	if err != nil {
		return err
	}
	size, err := sizeOf(next)
	if err != nil {
		return err
	}
	return compress(&until{ctx: ctx, r: io.NewSectionReader(next, 0, size), share: share}, size, w, zstd.WithWindowSize(window(int64(len(base))+size)), zstd.WithEncoderDictRaw(0, base))
}

// Compressed returns how many bytes an image has when it is compressed without another.
func Compressed(ctx context.Context, image *os.File) (int64, error) { return compressed(ctx, image, 1) }

func compressed(ctx context.Context, image *os.File, share float64) (int64, error) {
	size, err := sizeOf(image)
	if err != nil {
		return 0, err
	}
	var n counter
	err = compress(&until{ctx: ctx, r: io.NewSectionReader(image, 0, size), share: share}, size, &n, zstd.WithWindowSize(min(window(size), 8<<20)))
	return int64(n), err
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// compress does so in the caller's goroutine alone.
func compress(image io.Reader, size int64, w io.Writer, o ...zstd.EOption) error {
	o = append(o, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	enc, err := zstd.NewWriter(w, o...)
	if err != nil {
		return fmt.Errorf("compress an image: %w", err)
	}
	n, err := io.Copy(enc, image)
	if err = errors.Join(err, enc.Close()); err != nil {
		return fmt.Errorf("compress an image: %w", err)
	}
	if n != size {
		return muster.Errorf(muster.Internal, "an image had %d bytes, and then %d", size, n)
	}
	return nil
}

// until reads until ctx ends, and rests so long between two reads that what is done with what it
// read takes no more than a share of a processor's time.
type until struct {
	ctx   context.Context //nolint:containedctx // of one call; io.Reader has no place for it
	r     io.Reader
	share float64 // in (0, 1]
	last  time.Time
}

func (u *until) Read(b []byte) (int, error) {
	if u.share < 1 && !u.last.IsZero() {
		timer := time.NewTimer(time.Duration(float64(time.Since(u.last)) * (1/u.share - 1)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-u.ctx.Done():
		}
	}
	if err := u.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // who copies wraps it
	}
	u.last = time.Now()
	return u.r.Read(b) //nolint:wrapcheck // likewise
}

// Want is the image that a patch is to make, of its release's signed manifest.
type Want struct {
	SHA256 [sha256.Size]byte
	Size   int64 // bytes
}

// Apply writes the image that a patch makes of the image old. A patch that is broken, is not of
// old, or makes another image than want is Invalid; it takes no more memory than the two images,
// and writes no more than want.Size bytes. What was written is good only when there is no error.
func Apply(ctx context.Context, old *os.File, patch io.Reader, w io.Writer, want Want) error {
	if want.Size <= 0 || want.Size > MaxImage {
		return muster.Errorf(muster.TooLarge, "a patch makes images of 1 to %d bytes", MaxImage)
	}
	base, err := load(old)
	if err != nil {
		return err
	}
	dec, err := zstd.NewReader(&until{ctx: ctx, r: patch, share: 1}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(window(int64(len(base))+want.Size))), zstd.WithDecoderDictRaw(0, base))
	if err != nil {
		return muster.Errorf(muster.Invalid, "the patch is none: %w", err)
	}
	defer dec.Close()
	sum := sha256.New()
	out := &sink{w: io.MultiWriter(w, sum)}
	n, err := io.Copy(out, io.LimitReader(dec, want.Size))
	switch {
	case out.err != nil:
		return fmt.Errorf("write a patched image: %w", out.err)
	case ctx.Err() != nil:
		return fmt.Errorf("apply a patch: %w", ctx.Err())
	case err != nil:
		return muster.Errorf(muster.Invalid, "the patch is broken, or of another image: %w", err)
	case n != want.Size || [sha256.Size]byte(sum.Sum(nil)) != want.SHA256:
		return muster.Errorf(muster.Invalid, "the patch makes another image: it is of another, or broken")
	}
	if n, err := dec.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return muster.Errorf(muster.Invalid, "the patch makes more than the image")
	}
	return nil
}

// sink remembers whether it was the writer that failed.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.err = err
	return n, err //nolint:wrapcheck // see Apply
}

// window returns the least window of zstd that has n bytes.
func window(n int64) int {
	return max(1<<bits.Len64(uint64(n-1)), zstd.MinWindowSize)
}

// sizeOf returns the size of an image that a patch may be of.
func sizeOf(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at an image: %w", err)
	}
	switch size := info.Size(); {
	case size == 0:
		return 0, muster.Errorf(muster.Invalid, "the image is empty")
	case size > MaxImage:
		return 0, muster.Errorf(muster.TooLarge, "the image has %d bytes, patches are of at most %d", size, MaxImage)
	default:
		return size, nil
	}
}

// load reads an image into memory.
func load(f *os.File) ([]byte, error) {
	size, err := sizeOf(f)
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read an image: %w", err)
	}
	return b, nil
}
