package depot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/s3"
)

// Bucket keeps images for all servers; it is firmware/s3's.
type Bucket interface {
	Check(ctx context.Context) error
	Put(ctx context.Context, digest string, size int64, r io.Reader) error
	Stat(ctx context.Context, digest string) (s3.Info, error)
	Open(ctx context.Context, digest string, from, n int64) (io.ReadCloser, error)
	Delete(ctx context.Context, digest string) error
	Older(ctx context.Context, t time.Time, each func(digest string) error) error
}

// Options are a Depot's. A zero field means the default.
type Options struct {
	Bytes int64         // of images in the directory; 20 GiB. One that comes may be beside them until another goes
	Wait  time.Duration // that File waits for an image from the bucket; 10 s. Then it is Unavailable, and comes all the same
	Every time.Duration // after which the bucket is looked at again; 15 s
	Now   func() time.Time
	Log   *slog.Logger
}

const (
	fetchers  = 2         // images that come at a time
	mostQueue = 64        // that wait to come: more are Unavailable
	freshFor  = time.Hour // an image that came so lately is not sent to the bucket again
	// keptFor is for how long an image stays in the bucket that somebody may be about to name again.
	keptFor = 24 * time.Hour
)

// Depot keeps images. It is safe for concurrent use; Run must be running.
type Depot struct {
	*blob.Store // what is here, and uploads

	bucket Bucket
	o      Options
	queue  chan *fetch
	ended  chan struct{} // closed when Run ends
	end    sync.Once

	mu     sync.Mutex
	here   map[string]*image // in the directory, by digest
	coming map[string]*fetch
	away   error // why the bucket cannot be used; nil when it can
}

// image is one in the directory.
type image struct {
	size   int64
	used   time.Time
	shared bool // the bucket is known to have it
}

// fetch is an image that comes.
type fetch struct {
	digest string
	done   chan struct{} // closed when err is set
	err    error
}

// Open returns the depot of a directory and a bucket. What lies in the directory is sent to the bucket
// by Run if it is not there.
func Open(dir string, l blob.Limits, bucket Bucket, o Options) (*Depot, error) {
	if o.Bytes <= 0 {
		o.Bytes = 20 << 30
	}
	if o.Wait <= 0 {
		o.Wait = 10 * time.Second
	}
	if o.Every <= 0 {
		o.Every = 15 * time.Second
	}
	store, err := blob.Open(dir, l, o.Now)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	d := &Depot{
		Store: store, bucket: bucket, o: o, queue: make(chan *fetch, mostQueue), ended: make(chan struct{}), here: map[string]*image{}, coming: map[string]*fetch{},
		away: muster.Errorf(muster.Unavailable, "the store of images has not answered yet"),
	}
	if err := d.look(); err != nil {
		return nil, err
	}
	return d, nil
}

// look notes what lies in the directory.
func (d *Depot) look() error {
	return d.Each(func(digest string, size int64, came time.Time) error { //nolint:wrapcheck // it says what it was doing
		d.here[digest] = &image{size: size, used: came}
		return nil
	})
}

// Ready says why the bucket cannot be used; nil when it can.
func (d *Depot) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.away
}

// Bytes returns how many bytes of images lie in the directory.
func (d *Depot) Bytes() (n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.here {
		n += x.size
	}
	return n
}

// Share puts the image of an upload that is whole into the bucket; the upload stays as it is. Other
// bytes than its digest are Invalid, less than it said a Conflict.
func (d *Depot) Share(ctx context.Context, id string) error {
	return d.Whole(id, func(w firmware.Upload, size int64, r io.Reader) error { //nolint:wrapcheck // it says what it was doing
		return d.put(ctx, w.SHA256, size, r)
	})
}

// put puts an image into the bucket, unless it came there of late.
func (d *Depot) put(ctx context.Context, digest string, size int64, r io.Reader) error {
	at, err := d.bucket.Stat(ctx, digest)
	switch {
	case err == nil && at.Size == size && d.o.Now().Sub(at.Came) < freshFor:
		return nil
	case err != nil && muster.KindOf(err) != muster.NotFound:
		return d.told(err)
	}
	return d.told(d.bucket.Put(ctx, digest, size, r))
}

// told notes what a call to the bucket said of it, and returns it.
func (d *Depot) told(err error) error {
	if err == nil || muster.KindOf(err) == muster.Unavailable {
		d.mu.Lock()
		d.away = err
		d.mu.Unlock()
	}
	return err
}

// Finish implements catalog.Uploads. The image must have been shared before.
func (d *Depot) Finish(id string) (firmware.Sum, error) {
	sum, err := d.Store.Finish(id)
	if err != nil {
		return sum, err //nolint:wrapcheck // it says what is wrong
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.here[sum.SHA256] = &image{size: sum.Size, used: d.o.Now(), shared: true}
	return sum, d.room()
}

// File opens an image, which the caller closes. One that is not here comes from the bucket: when that
// takes longer than a while it is Unavailable, and may be asked for again. NotFound when it is nowhere.
func (d *Depot) File(digest string) (*os.File, error) { return d.FileWithin(digest, d.o.Wait) }

// FileWithin is File that waits for so long; with 0 it does not wait.
func (d *Depot) FileWithin(digest string, wait time.Duration) (*os.File, error) {
	f, x, err := d.open(digest)
	if x == nil {
		return d.proven(digest, f, err, wait)
	}
	if wait <= 0 {
		return nil, errComing()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-x.done:
	case <-timer.C:
		return nil, errComing()
	case <-d.ended:
		return nil, muster.Errorf(muster.Unavailable, "the server stops")
	}
	if x.err != nil {
		return nil, x.err
	}
	if f, x, err = d.open(digest); x != nil { // it went again at once
		return nil, errComing()
	}
	return d.proven(digest, f, err, wait)
}

// proven returns an image that was opened once its bytes are known to be right. A wrong one that the bucket has
// leaves the directory, so that it comes anew for the next who asks.
func (d *Depot) proven(digest string, f *os.File, err error, wait time.Duration) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	if wait <= 0 {
		wait = -1
	}
	if err = d.Prove(digest, f, wait); err == nil {
		return f, nil
	}
	err = errors.Join(err, closed(f))
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.here[digest]; x == nil || !x.shared || !blob.IsWrong(err) {
		return nil, err
	}
	delete(d.here, digest)
	return nil, errors.Join(err, d.Store.Delete(digest))
}

func errComing() error {
	return muster.Errorf(muster.Unavailable, "the image is on its way to this server: ask again")
}

// open opens an image that is here, or has it come.
func (d *Depot) open(digest string) (*os.File, *fetch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.Bare(digest)
	if err == nil {
		return d.mark(digest, f)
	}
	if muster.KindOf(err) != muster.NotFound || firmware.CheckDigest(digest) != nil {
		return nil, nil, err //nolint:wrapcheck // it says what it was doing
	}
	delete(d.here, digest)
	if x := d.coming[digest]; x != nil {
		return nil, x, nil
	}
	x := &fetch{digest: digest, done: make(chan struct{})}
	select {
	case d.queue <- x:
		d.coming[digest] = x
		return nil, x, nil
	default:
		return nil, nil, muster.Errorf(muster.Unavailable, "%d images are on their way to this server, which is the most", mostQueue)
	}
}

// mark notes that an image is used now: the lock on its file is there until it is closed. The caller
// has the lock of d.
func (d *Depot) mark(digest string, f *os.File) (*os.File, *fetch, error) {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("mark an image as used: %w", err), f.Close())
	}
	if x := d.here[digest]; x != nil {
		x.used = d.o.Now()
	}
	return f, nil, nil
}

// Delete removes an image from the directory, and from the bucket when it has been there for a day:
// another server may be about to name one that came of late, and who sweeps asks again.
func (d *Depot) Delete(digest string) error {
	d.mu.Lock()
	delete(d.here, digest)
	err := d.Store.Delete(digest)
	d.mu.Unlock()
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	ctx := context.Background() // each call has its deadline
	at, err := d.bucket.Stat(ctx, digest)
	switch {
	case muster.KindOf(err) == muster.NotFound && err != nil:
		return nil //nolint:nilerr // it is not there: as it is to be
	case err != nil:
		return d.told(err)
	case d.o.Now().Sub(at.Came) < keptFor:
		return nil
	}
	return d.told(d.bucket.Delete(ctx, digest))
}

// Older implements catalog.Images, of the directory and the bucket.
func (d *Depot) Older(t time.Time, each func(digest string) error) error {
	if err := d.Store.Older(t, each); err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	return d.bucket.Older(context.Background(), t, each) //nolint:wrapcheck // likewise; it has its deadline
}
