package depot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/depot"
	"muster/firmware/s3"
	"muster/firmware/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a server's depot, which runs.
type node struct {
	*depot.Depot
	t   *testing.T
	dir string
}

func newNode(t *testing.T, f *s3test.Server, o depot.Options) *node {
	t.Helper()
	return nodeOf(t, f, t.TempDir(), o)
}

func nodeOf(t *testing.T, f *s3test.Server, dir string, o depot.Options) *node {
	t.Helper()
	bucket, err := s3.New(s3.Config{
		Endpoint: strings.TrimPrefix(f.URL, "http://"), Bucket: "images", AccessKey: "key", SecretKey: "secret", Insecure: true, PathStyle: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Now, o.Log, o.Every = time.Now, slog.New(slog.DiscardHandler), 20*time.Millisecond
	if o.Wait == 0 {
		o.Wait = time.Minute
	}
	d, err := depot.Open(dir, blob.Limits{}, bucket, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		bucket.Close()
	})
	return &node{d, t, dir}
}

func imageOf(size, seed int) ([]byte, string) {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*i>>9 + seed)
	}
	sum := sha256.Sum256(b)
	return b, hex.EncodeToString(sum[:])
}

func name(digest string) string { return "sha256/" + digest[:2] + "/" + digest }

// upload keeps an image as the catalogue does.
func (n *node) upload(b []byte, digest string) error {
	n.t.Helper()
	err := n.Begin("up", firmware.Upload{SHA256: digest, Size: int64(len(b))})
	if err != nil && muster.KindOf(err) != muster.Conflict {
		n.t.Fatal(err)
	}
	if at, _, err := n.Offset("up"); err != nil || at < int64(len(b)) {
		if _, err := n.Append(n.t.Context(), "up", at, bytes.NewReader(b[at:])); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := n.Share(n.t.Context(), "up"); err != nil {
		return err
	}
	_, err = n.Finish("up")
	return err
}

func (n *node) read(digest string) ([]byte, error) {
	n.t.Helper()
	f, err := n.File(digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		n.t.Fatal(err)
	}
	return b, nil
}

func (n *node) has(digest string) bool {
	_, err := os.Stat(filepath.Join(n.dir, "sha256", digest[:2], digest))
	return err == nil
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("waited in vain for " + what)
		}
	}
}

func wantKind(t *testing.T, err error, kind muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != kind {
		t.Errorf("%v, want %s", err, kind)
	}
}

func TestAnImageOfOneServerComesToAnother(t *testing.T) {
	f := s3test.New(t)
	one, two := newNode(t, f, depot.Options{}), newNode(t, f, depot.Options{})
	b, digest := imageOf(300_000, 1)
	if err := one.upload(b, digest); err != nil {
		t.Fatal(err)
	}
	if got := f.Names(); !slices.Equal(got, []string{name(digest)}) {
		t.Fatalf("%v is in the bucket", got)
	}
	var all sync.WaitGroup
	for range 8 { // who ask at once have it come once
		all.Go(func() {
			if got, err := two.read(digest); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if n := f.Gets(); n != 1 {
		t.Errorf("it came %d times", n)
	}
	_, other := imageOf(1, 9)
	_, err := two.read(other)
	wantKind(t, err, muster.NotFound)
	_, err = two.read("../x")
	wantKind(t, err, muster.NotFound)
	if left, err := os.ReadDir(filepath.Join(two.dir, "uploads")); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestAnImageThatIsSpoiltInTheBucketIsNotTaken(t *testing.T) {
	f := s3test.New(t)
	one, two := newNode(t, f, depot.Options{}), newNode(t, f, depot.Options{})
	b, digest := imageOf(30_000, 1)
	if err := one.upload(b, digest); err != nil {
		t.Fatal(err)
	}
	f.Spoil(name(digest))
	_, err := two.read(digest)
	wantKind(t, err, muster.Unavailable)
	if two.has(digest) {
		t.Error("it is here")
	}
}

func TestWhileTheBucketIsAwayWhatIsHereIsServedAndTheRestIsNot(t *testing.T) {
	f := s3test.New(t)
	one, two := newNode(t, f, depot.Options{}), newNode(t, f, depot.Options{})
	b, digest := imageOf(30_000, 1)
	if err := one.upload(b, digest); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bucket to be there", func() bool { return one.Ready() == nil && two.Ready() == nil })
	f.SetDown(true)
	eventually(t, "the bucket to be away", func() bool { return one.Ready() != nil })
	wantKind(t, one.Ready(), muster.Unavailable)
	if got, err := one.read(digest); err != nil || !bytes.Equal(got, b) {
		t.Errorf("%d bytes of what is here, %v", len(got), err)
	}
	_, err := two.read(digest)
	wantKind(t, err, muster.Unavailable)
	next, nextDigest := imageOf(20_000, 2)
	wantKind(t, one.upload(next, nextDigest), muster.Unavailable)
	if at, _, err := one.Offset("up"); err != nil || at != int64(len(next)) {
		t.Errorf("the upload is at %d, %v", at, err)
	}
	f.SetDown(false)
	if err := one.upload(next, nextDigest); err != nil { // it goes on
		t.Error(err)
	}
	if got, err := two.read(nextDigest); err != nil || !bytes.Equal(got, next) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	eventually(t, "the bucket to be there again", func() bool { return one.Ready() == nil && two.Ready() == nil })
}

func TestTheDirectoryIsBoundedAndKeepsWhatIsRead(t *testing.T) {
	f := s3test.New(t)
	one := newNode(t, f, depot.Options{Bytes: 250_000})
	var digests []string
	add := func(seed int) {
		t.Helper()
		b, digest := imageOf(100_000, seed)
		if err := one.upload(b, digest); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest)
	}
	add(1)
	add(2)
	served, err := one.File(digests[1])
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if _, err := one.read(digests[0]); err != nil { // it is used last
		t.Fatal(err)
	}
	add(3)
	if one.has(digests[0]) || !one.has(digests[1]) || !one.has(digests[2]) || one.Bytes() != 200_000 {
		t.Errorf("not the one that nobody reads is gone: %d bytes", one.Bytes())
	}
	if err := served.Close(); err != nil {
		t.Fatal(err)
	}
	add(4)
	if one.has(digests[1]) || one.Bytes() != 200_000 {
		t.Errorf("what is not read any more is here: %d bytes", one.Bytes())
	}
	if got, err := one.read(digests[0]); err != nil || len(got) != 100_000 { // and comes back
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestWhatLiesInTheDirectoryFromBeforeComesIntoTheBucket(t *testing.T) {
	f, dir := s3test.New(t), t.TempDir()
	store, err := blob.Open(dir, blob.Limits{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, digest := imageOf(50_000, 1)
	_, err = store.Finish("up")
	wantKind(t, err, muster.NotFound)
	err = store.Begin("up", firmware.Upload{SHA256: digest})
	if err == nil {
		_, err = store.Append(t.Context(), "up", 0, bytes.NewReader(b))
	}
	if err == nil {
		_, err = store.Finish("up")
	}
	if err != nil {
		t.Fatal(err)
	}
	f.SetDown(true)
	one := nodeOf(t, f, dir, depot.Options{Bytes: 1})
	other, otherDigest := imageOf(50_000, 2)
	wantKind(t, one.upload(other, otherDigest), muster.Unavailable)
	if !one.has(digest) {
		t.Error("what the bucket does not have is gone")
	}
	f.SetDown(false)
	eventually(t, "the image to be in the bucket", func() bool { return slices.Contains(f.Names(), name(digest)) })
}

func TestAnImageThatIsDeletedStaysInTheBucketForADay(t *testing.T) {
	f := s3test.New(t)
	one := newNode(t, f, depot.Options{})
	b, digest := imageOf(50_000, 1)
	if err := one.upload(b, digest); err != nil {
		t.Fatal(err)
	}
	if err := one.Delete(digest); err != nil || one.has(digest) {
		t.Fatalf("it is here still: %v", err)
	}
	if got := f.Names(); len(got) != 1 {
		t.Errorf("%v is in the bucket", got)
	}
	f.Age(25 * time.Hour)
	var swept []string
	err := one.Older(time.Now().Add(-24*time.Hour), func(digest string) error {
		swept = append(swept, digest)
		return one.Delete(digest)
	})
	if err != nil || !slices.Equal(swept, []string{digest}) || len(f.Names()) != 0 {
		t.Errorf("%v is swept, %v is left: %v", swept, f.Names(), err)
	}
	if err := one.Delete(digest); err != nil {
		t.Error(err)
	}
	_, err = one.read(digest)
	wantKind(t, err, muster.NotFound)
}

func TestWhoDoesNotWaitIsToldThatTheImageComes(t *testing.T) {
	f := s3test.New(t)
	one, two := newNode(t, f, depot.Options{}), newNode(t, f, depot.Options{})
	b, digest := imageOf(50_000, 1)
	if err := one.upload(b, digest); err != nil {
		t.Fatal(err)
	}
	_, err := two.FileWithin(digest, 0)
	wantKind(t, err, muster.Unavailable)
	var file *os.File
	eventually(t, "the image", func() bool { // its name is there before its bytes are known to be right
		file, err = two.FileWithin(digest, 0)
		return err == nil
	})
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

func TestACopyThatWasChangedIsNotServedAndComesAnew(t *testing.T) {
	f := s3test.New(t)
	whole, digest := imageOf(100_000, 1)
	one := newNode(t, f, depot.Options{})
	if err := one.upload(whole, digest); err != nil {
		t.Fatal(err)
	}
	two := newNode(t, f, depot.Options{})
	if got, err := two.read(digest); !bytes.Equal(got, whole) {
		t.Fatalf("another image, %v", err)
	}
	path := filepath.Join(two.dir, "sha256", digest[:2], digest)
	for until := time.Now().Add(time.Minute); ; { // the bucket is known to have it once it was looked at
		if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, bytes.Repeat([]byte("x"), len(whole)), 0o600)); err != nil {
			t.Fatal(err)
		}
		if x, err := two.File(digest); x != nil || !blob.IsWrong(err) {
			t.Fatalf("it is served: %v", err)
		}
		if _, err := os.Stat(path); err != nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("it stays")
		}
	}
	if got, err := two.read(digest); !bytes.Equal(got, whole) {
		t.Errorf("it does not come anew: %v", err)
	}
}
