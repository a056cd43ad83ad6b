package depot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"muster"
	"muster/firmware"
)

// Run brings the images that are asked for, and looks at the bucket now and then, until ctx ends.
func (d *Depot) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for range fetchers {
		all.Go(func() { d.bring(ctx) })
	}
	all.Go(func() { d.watch(ctx) })
	<-ctx.Done()
	d.end.Do(func() { close(d.ended) })
	all.Wait()
	return nil
}

// bring brings one image after the other.
func (d *Depot) bring(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case x := <-d.queue:
			err := d.fetch(ctx, x.digest)
			if err != nil && ctx.Err() == nil && muster.KindOf(err) != muster.NotFound {
				d.o.Log.Warn("an image does not come from the bucket", "sha256", x.digest, "err", err)
			}
			d.mu.Lock()
			x.err = err
			delete(d.coming, x.digest)
			close(x.done)
			d.mu.Unlock()
		}
	}
}

// fetch brings an image: into an upload of its own, which is kept only when it has its digest.
func (d *Depot) fetch(ctx context.Context, digest string) (err error) {
	at, err := d.bucket.Stat(ctx, digest)
	if muster.KindOf(err) == muster.NotFound && err != nil {
		return err
	}
	if err := d.told(err); err != nil {
		return err
	}
	if at.Size <= 0 {
		return muster.Errorf(muster.Unavailable, "the bucket has an empty image")
	}
	r, err := d.bucket.Open(ctx, digest, 0, at.Size)
	if err := d.told(err); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	id := "fetch-" + rand.Text()
	if err := d.Begin(id, firmware.Upload{SHA256: digest, Size: at.Size}); err != nil {
		return unavailable(err)
	}
	_, err = d.Append(ctx, id, 0, r)
	if err == nil {
		_, err = d.Finish(id)
	}
	if err != nil {
		if gone := d.Discard(id); gone != nil && muster.KindOf(gone) != muster.NotFound { // it may have ended itself
			err = errors.Join(err, gone)
		}
		return unavailable(err)
	}
	return nil
}

// unavailable is an error of bringing an image, as who asked for the image sees it.
func unavailable(err error) error {
	if muster.KindOf(err) == muster.Unavailable {
		return err
	}
	return &muster.Error{Kind: muster.Unavailable, Msg: "the image cannot be brought to this server now", Err: err}
}

// room removes images from the directory until the others have room: those that were not used longest,
// and none that is being read or that the bucket is not known to have. The caller has the lock.
func (d *Depot) room() error {
	total := int64(0)
	list := make([]string, 0, len(d.here))
	for digest, x := range d.here {
		total += x.size
		list = append(list, digest)
	}
	slices.SortFunc(list, func(a, b string) int { return d.here[a].used.Compare(d.here[b].used) })
	for _, digest := range list[:max(len(list)-1, 0)] { // what came last stays
		if total <= d.o.Bytes {
			return nil
		}
		x := d.here[digest]
		if !x.shared {
			continue
		}
		free, err := d.free(digest)
		if err != nil {
			return err
		}
		if free {
			total -= x.size
			delete(d.here, digest)
		}
	}
	return nil
}

// free removes an image from the directory; false when somebody reads it.
func (d *Depot) free(digest string) (free bool, err error) {
	f, err := d.Bare(digest)
	if muster.KindOf(err) == muster.NotFound && err != nil {
		return true, nil
	}
	if err != nil {
		return false, err //nolint:wrapcheck // it says what it was doing
	}
	defer func() { err = errors.Join(err, closed(f)) }()
	if errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return false, nil
	}
	if err := d.Store.Delete(digest); err != nil {
		return false, err //nolint:wrapcheck // likewise
	}
	return true, nil
}

func closed(f *os.File) error {
	if err := f.Close(); err != nil {
		return fmt.Errorf("close an image: %w", err)
	}
	return nil
}

// watch looks whether the bucket can be used, sends what it does not have, and makes room that was in
// use before.
func (d *Depot) watch(ctx context.Context) {
	tick := time.NewTicker(d.o.Every)
	defer tick.Stop()
	for {
		was := d.Ready()
		err := d.check(ctx)
		if ctx.Err() != nil {
			return
		}
		if (err == nil) != (was == nil) || err != nil && err.Error() != was.Error() {
			d.o.Log.Info("looked at the bucket of images", "usable", err == nil, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (d *Depot) check(ctx context.Context) error {
	err := d.bucket.Check(ctx)
	if err != nil && muster.KindOf(err) != muster.Unavailable {
		err = &muster.Error{Kind: muster.Unavailable, Msg: muster.Public(err), Err: err}
	}
	if ctx.Err() != nil || d.told(err) != nil {
		return err
	}
	if err := d.sync(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.room()
}

// sync puts into the bucket what lies in the directory since a time when there was none.
func (d *Depot) sync(ctx context.Context) error {
	d.mu.Lock()
	var list []string
	for digest, x := range d.here {
		if !x.shared {
			list = append(list, digest)
		}
	}
	d.mu.Unlock()
	for _, digest := range list {
		if err := d.send(ctx, digest); err != nil {
			return err
		}
	}
	return nil
}

// send puts an image of the directory into the bucket, unless it is there.
func (d *Depot) send(ctx context.Context, digest string) (err error) {
	f, err := d.Store.File(digest)
	if muster.KindOf(err) == muster.NotFound && err != nil {
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // it says what it was doing
	}
	defer func() { err = errors.Join(err, closed(f)) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at an image: %w", err)
	}
	at, err := d.bucket.Stat(ctx, digest)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		return d.told(err)
	}
	if err != nil || at.Size != info.Size() {
		if err := d.told(d.bucket.Put(ctx, digest, info.Size(), f)); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.here[digest]; x != nil {
		x.shared = true
	}
	return nil
}
