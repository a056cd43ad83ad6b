package delta_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/firmware/blob"
	"muster/firmware/delta"
)

// rig is a preparer with real images.
type rig struct {
	*testing.T
	dir    string
	images *blob.Store
	p      *delta.Preparer
	stop   func()
}

func newRig(t *testing.T, o delta.Options) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), stop: func() {}}
	r.open(o)
	t.Cleanup(func() { r.stop() })
	return r
}

// open opens the preparer as a process does that starts.
func (r *rig) open(o delta.Options) {
	r.Helper()
	r.stop()
	var err error
	if r.images, err = blob.Open(filepath.Join(r.dir, "images"), blob.Limits{}, time.Now); err != nil {
		r.Fatal(err)
	}
	o.Now, o.Log, o.Share = time.Now, slog.New(slog.DiscardHandler), 1
	if r.p, err = delta.OpenPreparer(filepath.Join(r.dir, "patches"), r.images, o); err != nil {
		r.Fatal(err)
	}
	r.stop = func() {}
}

// run runs the preparer until stop.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.p.Run(ctx); err != nil {
			r.Error(err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
}

// put keeps an image and returns its name.
func (r *rig) put(b []byte) string {
	r.Helper()
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	id := "put" + digest[:8]
	err := r.images.Begin(id, blob.Want{SHA256: digest})
	if err == nil {
		_, err = r.images.Append(r.Context(), id, 0, bytes.NewReader(b))
	}
	if err == nil {
		_, err = r.images.Finish(id)
	}
	if err != nil {
		r.Fatal(err)
	}
	return digest
}

// made asks for a patch and waits for what came of it.
func (r *rig) made(pair delta.Pair) delta.Patch {
	r.Helper()
	if err := r.p.Prepare(pair); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	at, err := r.p.Wait(ctx, pair)
	if err != nil {
		r.Fatal(err)
	}
	return at
}

func (r *rig) has(digest string) bool {
	f, err := r.p.File(digest)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// patch is where a patch lies.
func (r *rig) patch(digest string) string {
	return filepath.Join(r.dir, "patches", "sha256", digest[:2], digest)
}

func TestAPatchIsPreparedOnceAndKeptOverARestart(t *testing.T) {
	r := newRig(t, delta.Options{})
	r.run()
	old := program(200<<10, 1)
	next := changed(old, 2)
	pair := delta.Pair{Old: r.put(old), New: r.put(next)}
	if at := r.p.Find(pair); at.State != delta.Unknown {
		t.Errorf("%+v", at)
	}
	at := r.made(pair)
	if at.State != delta.Ready || at.Size <= 0 || !delta.Worth(at.Size, at.Full) || !r.has(at.SHA256) {
		t.Fatalf("%+v", at)
	}
	f, err := r.p.File(at.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	if err := delta.Apply(t.Context(), file(t, old), f, &out, wanted(next)); err != nil || !bytes.Equal(out.Bytes(), next) {
		t.Errorf("what is kept makes another image: %v", err)
	}
	r.open(delta.Options{})
	if again := r.p.Find(pair); again != at {
		t.Errorf("%+v, was %+v", again, at)
	}
	if err := r.p.Prepare(pair); err != nil || r.p.Find(pair).State != delta.Ready {
		t.Errorf("it is made again: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(r.dir, "patches")); err != nil || len(left) != 3 { // the index, sha256/ and uploads/
		t.Errorf("%v is left, %v", left, err)
	}
	if err := os.Remove(r.patch(at.SHA256)); err != nil {
		t.Fatal(err)
	}
	r.open(delta.Options{})
	if again := r.p.Find(pair); again.State != delta.Unknown {
		t.Errorf("a patch that is not there is %+v", again)
	}
}

func TestPatchesThatAreNotToBeUsedSayWhy(t *testing.T) {
	r := newRig(t, delta.Options{})
	r.run()
	image := r.put(program(100<<10, 1))
	other := delta.Pair{Old: image, New: r.put(program(100<<10, 2))}
	if at := r.made(other); at.State != delta.Unworthy || at.Why == "" || at.SHA256 != "" || at.Full == 0 {
		t.Errorf("%+v", at)
	}
	gone := delta.Pair{Old: image, New: hex.EncodeToString(make([]byte, 32))}
	if at := r.made(gone); at.State != delta.Failed || at.Why != "there is no such image" {
		t.Errorf("%+v", at)
	}
	if at := r.made(gone); at.State != delta.Failed {
		t.Errorf("asked for again: %+v", at)
	}
	r.open(delta.Options{})
	if at := r.p.Find(other); at.State != delta.Unworthy {
		t.Errorf("after a restart: %+v", at)
	}
	if at := r.p.Find(gone); at.State != delta.Unknown {
		t.Errorf("what failed is kept: %+v", at)
	}
}

func TestTheQueueIsBoundedAndWaitsInOrder(t *testing.T) {
	r := newRig(t, delta.Options{Queue: 2})
	old := program(20<<10, 1)
	name := r.put(old)
	pairs := make([]delta.Pair, 3)
	for i := range pairs {
		pairs[i] = delta.Pair{Old: name, New: r.put(changed(old, uint64(i)))}
	}
	for range 2 { // the second time they are there already
		for _, pair := range pairs[:2] {
			if err := r.p.Prepare(pair); err != nil || r.p.Find(pair).State != delta.Queued {
				t.Fatal(err)
			}
		}
	}
	if err := r.p.Prepare(pairs[2]); err == nil || muster.KindOf(err) != muster.Busy || r.p.Find(pairs[2]).State != delta.Unknown {
		t.Errorf("%v", err)
	}
	r.run()
	for _, pair := range pairs {
		if at := r.made(pair); at.State != delta.Ready {
			t.Errorf("%+v", at)
		}
	}
}

func TestTheOldestPatchIsForgottenAndSoAreThoseOfAnImageThatGoes(t *testing.T) {
	r := newRig(t, delta.Options{Kept: 2})
	r.run()
	old := program(20<<10, 1)
	name := r.put(old)
	patches := make([]delta.Patch, 3)
	for i := range patches {
		patches[i] = r.made(delta.Pair{Old: name, New: r.put(changed(old, uint64(i)))})
		if patches[i].State != delta.Ready {
			t.Fatalf("%+v", patches[i])
		}
	}
	if r.has(patches[0].SHA256) || r.p.Find(patches[0].Pair).State != delta.Unknown {
		t.Error("the oldest is kept")
	}
	if !r.has(patches[1].SHA256) || !r.has(patches[2].SHA256) {
		t.Error("a newer one is gone")
	}
	if err := r.p.Forget(patches[2].New); err != nil {
		t.Fatal(err)
	}
	if r.has(patches[2].SHA256) || r.p.Find(patches[2].Pair).State != delta.Unknown || !r.has(patches[1].SHA256) {
		t.Error("not that of the image, and that alone, is gone")
	}
	if err := r.p.Forget(name); err != nil {
		t.Fatal(err)
	}
	r.open(delta.Options{})
	if r.has(patches[1].SHA256) || r.p.Find(patches[1].Pair).State != delta.Unknown {
		t.Error("a patch of an old image that went is there")
	}
}

func TestAProcessThatWasKilledLeavesNothingInTheWay(t *testing.T) {
	r := newRig(t, delta.Options{})
	old := program(20<<10, 1)
	pair := delta.Pair{Old: r.put(old), New: r.put(changed(old, 1))}
	p := patch(t, old, changed(old, 1))
	sum := sha256.Sum256(p)
	// As one was killed while it kept its patch.
	patches, err := blob.Open(filepath.Join(r.dir, "patches"), blob.Limits{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	id, orphan := "patch-"+hex.EncodeToString(sum[:16]), sha256.Sum256([]byte("orphan"))
	for _, x := range []struct {
		id   string
		sum  [sha256.Size]byte
		have []byte
	}{{id, sum, p[:5]}, {"orphan", orphan, []byte("orphan")}} {
		if err := patches.Begin(x.id, blob.Want{SHA256: hex.EncodeToString(x.sum[:])}); err != nil {
			t.Fatal(err)
		}
		if _, err := patches.Append(t.Context(), x.id, 0, bytes.NewReader(x.have)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := patches.Finish("orphan"); err != nil { // as one that was killed before it wrote the index
		t.Fatal(err)
	}
	for _, name := range []string{"work", "index.json.tmp"} {
		if err := os.WriteFile(filepath.Join(r.dir, "patches", name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.open(delta.Options{})
	if r.has(hex.EncodeToString(orphan[:])) {
		t.Error("a patch that is not in the index is kept")
	}
	r.run()
	if at := r.made(pair); at.State != delta.Ready || at.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v, want %x", at, sum)
	}
}

func TestAnIndexThatIsBrokenIsNotTakenForNone(t *testing.T) {
	r := newRig(t, delta.Options{})
	if err := os.WriteFile(filepath.Join(r.dir, "patches", "index.json"), []byte(`[{"state":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := delta.OpenPreparer(filepath.Join(r.dir, "patches"), r.images, delta.Options{}); err == nil {
		t.Error("it is")
	}
}

func TestAPatchUnderWayEndsWithTheProcess(t *testing.T) {
	r := newRig(t, delta.Options{})
	old := program(1<<20, 1)
	pair := delta.Pair{Old: r.put(old), New: r.put(changed(old, 1))}
	r.run()
	if err := r.p.Prepare(pair); err != nil {
		t.Fatal(err)
	}
	r.stop() // waits for it
	if s := r.p.Find(pair).State; s == delta.Making {
		t.Error(fmt.Sprint("it is ", s))
	}
}

func TestTheDiskOfPatchesIsBounded(t *testing.T) {
	r := newRig(t, delta.Options{})
	old := program(20<<10, 1)
	name := r.put(old)
	size := int64(len(patch(t, old, changed(old, 0))))
	var told atomic.Int32
	r.open(delta.Options{Bytes: size*2 + size/2, Told: func() { told.Add(1) }})
	r.run()
	patches := make([]delta.Patch, 4)
	for i := range patches {
		patches[i] = r.made(delta.Pair{Old: name, New: r.put(changed(old, uint64(i)))})
		if patches[i].State != delta.Ready {
			t.Fatalf("%+v", patches[i])
		}
		if n := r.p.Bytes(); n > size*2+size/2 {
			t.Errorf("%d bytes are kept", n)
		}
	}
	if r.has(patches[0].SHA256) || !r.has(patches[3].SHA256) {
		t.Error("not the oldest are gone")
	}
	r.stop()
	if n := told.Load(); int(n) != len(patches) {
		t.Errorf("told of %d patches", n)
	}
	r.open(delta.Options{Bytes: size / 4})
	r.run()
	if at := r.made(delta.Pair{Old: name, New: r.put(changed(old, 9))}); at.State != delta.Unworthy || at.Why == "" {
		t.Errorf("%+v", at)
	}
}
