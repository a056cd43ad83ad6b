package catalog_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"muster"
	"muster/audit"
	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/image"
	"muster/internal/disktest"
)

// noise is n bytes that are the same each time.
func noise(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{7}), n) }

func noiseBytes(t testing.TB, n int64) []byte {
	t.Helper()
	b, err := io.ReadAll(noise(n))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnImageIsAnArtifactOnceHoweverOftenItComes(t *testing.T) {
	onEach(t, func(r *rig) {
		img := boot(1, 2, 3)
		a, made, err := r.Put(r.asked(), upload(img), bytes.NewReader(img))
		r.must(err)
		if !made || a.Number != 1 || a.SHA256 != digest(img) || len(a.SHA1) != 40 || len(a.MD5) != 32 || a.Size != int64(len(img)) || a.Image.Format != image.MCUboot ||
			a.Image.Version != "1.2.3" || a.CreatedBy != "usr_1" || a.Created == 0 {
			t.Errorf("%+v", a)
		}
		w := upload(img)
		w.Filename, w.By = "other.bin", "usr_2"
		b, made, err := r.Put(r.asked(), w, bytes.NewReader(img))
		r.must(err)
		if made || b.Filename != "fw.bin" || b.Number != 1 {
			t.Errorf("%v %+v", made, b)
		}
		got, f, err := r.Open(r.Context(), a.SHA256)
		r.must(err)
		text, err := io.ReadAll(f)
		r.must(errors.Join(err, f.Close()))
		if !bytes.Equal(text, img) || got.Filename != "fw.bin" {
			t.Errorf("%d bytes of %+v", len(text), got)
		}
		if got := r.records(); len(got) != 1 || len(r.left("uploads")) != 0 {
			t.Errorf("%v, %v is left", got, r.left("uploads"))
		}
	})
}

func TestAnImageThatIsNotWhatWasSaidLeavesNothing(t *testing.T) {
	onEach(t, func(r *rig) {
		img := []byte("the image")
		broken := errors.New("the line is cut")
		for name, c := range map[string]struct {
			w    firmware.Upload
			body io.Reader
			kind muster.Kind
			at   string
		}{
			"corrupt":            {upload(img), strings.NewReader("the imagf"), muster.Invalid, "sha256"},
			"cut off":            {upload(img), strings.NewReader("the im"), muster.Invalid, ""},
			"longer than said":   {upload(img), strings.NewReader("the image!"), muster.TooLarge, ""},
			"empty":              {firmware.Upload{SHA256: digest(nil), Filename: "a"}, strings.NewReader(""), muster.Invalid, ""},
			"on a line that cut": {upload(img), io.MultiReader(strings.NewReader("the"), iotest.ErrReader(broken)), muster.Internal, ""},
			"of no digest":       {firmware.Upload{SHA256: "../x", Filename: "a"}, strings.NewReader("x"), muster.Invalid, "sha256"},
			"with a path":        {firmware.Upload{SHA256: digest(img), Filename: "../x"}, strings.NewReader("x"), muster.Invalid, "filename"},
		} {
			_, _, err := r.Put(r.asked(), c.w, c.body)
			f := muster.FieldsOf(err)
			if err == nil || muster.KindOf(err) != c.kind || (c.at == "") != (len(f) == 0) || c.at != "" && f[0] != c.at {
				t.Errorf("%s: %v, about %v", name, err, f)
			}
			if c.kind == muster.Internal && !errors.Is(err, broken) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := r.records(); len(got) != 0 || len(r.left("")) != 0 {
			t.Errorf("%v, %v is left", got, r.left(""))
		}
	})
}

func TestAnUploadGoesOnAfterARestart(t *testing.T) {
	onEach(t, func(r *rig) {
		img := noiseBytes(t, 300_000)
		w := upload(img)
		u, here, made, err := r.Begin(r.asked(), w)
		r.must(err)
		if here != nil || !made || u.Offset != 0 || u.Size != 300_000 {
			t.Errorf("%+v %v %v", u, here, made)
		}
		u, _, err = r.Append(r.asked(), u.ID, 0, bytes.NewReader(img[:100_000]))
		r.must(err)
		cut := io.MultiReader(bytes.NewReader(img[100_000:150_000]), iotest.ErrReader(io.ErrUnexpectedEOF))
		u, _, err = r.Append(r.asked(), u.ID, u.Offset, cut)
		if !errors.Is(err, io.ErrUnexpectedEOF) || u.Offset != 150_000 {
			t.Errorf("after a cut it is at %d: %v", u.Offset, err)
		}
		r.again()
		u, _, err = r.Append(r.asked(), u.ID, 0, bytes.NewReader(img))
		r.wantKind(err, muster.Conflict)
		if u.Offset != 150_000 {
			t.Errorf("it is at %d", u.Offset)
		}
		u, here, made, err = r.Begin(r.asked(), w)
		if err != nil || made || here != nil || u.Offset != 150_000 || u.Filename != "fw.bin" || u.Began == 0 {
			t.Errorf("%+v %v %v", u, made, err)
		}
		other := w
		other.Size++
		_, _, _, err = r.Begin(r.asked(), other)
		r.wantKind(err, muster.Conflict, "another size")
		u, a, err := r.Append(r.asked(), u.ID, u.Offset, bytes.NewReader(img[150_000:]))
		r.must(err)
		if a == nil || a.SHA256 != w.SHA256 || a.CreatedBy != "usr_1" || u.Offset != 300_000 {
			t.Fatalf("%+v %+v", u, a)
		}
		_, here, made, err = r.Begin(r.asked(), w)
		if err != nil || made || here == nil || here.Number != a.Number {
			t.Errorf("%+v %v %v", here, made, err)
		}
		_, err = r.Upload(u.ID)
		r.wantKind(err, muster.NotFound)
		if want := []string{"artifact.create firmware/artifacts/" + w.SHA256}; !slices.Equal(r.records(), want) {
			t.Errorf("%v", r.records()) // that it began is written by who asked
		}
	})
}

func TestAnUploadOfOtherBytesEnds(t *testing.T) {
	r := newRig(t)
	w := upload([]byte("the image"))
	u, _, _, err := r.Begin(r.asked(), w)
	r.must(err)
	_, _, err = r.Append(r.asked(), u.ID, 0, strings.NewReader("the imagf"))
	r.wantKind(err, muster.Invalid, "SHA-256")
	_, err = r.Upload(u.ID)
	r.wantKind(err, muster.NotFound)
	u, _, _, err = r.Begin(r.asked(), w)
	r.must(err)
	ctx := r.asked()
	r.must(r.Discard(ctx, u.ID))
	if !audit.Of(ctx).Pending() {
		t.Error("nobody notes who ended it")
	}
	r.wantKind(r.Discard(r.asked(), u.ID), muster.NotFound)
	if left := r.left(""); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestAnArtifactIsNeverWithoutItsBytes has one image come and go at once, many times.
func TestAnArtifactIsNeverWithoutItsBytes(t *testing.T) {
	onEach(t, func(r *rig) {
		img := []byte("comes and goes")
		var wg sync.WaitGroup
		for range 4 {
			ctx := r.asked()
			wg.Go(func() {
				for range 8 {
					if _, _, err := r.Put(ctx, upload(img), bytes.NewReader(img)); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range 8 {
					if err := r.DeleteArtifact(ctx, digest(img)); err != nil && muster.KindOf(err) != muster.NotFound {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		_, err := r.Artifact(r.Context(), digest(img))
		if here := err == nil; here != (len(r.left("sha256")) == 1) {
			t.Errorf("the artifact is there: %v, and the files are %v", here, r.left(""))
		}
	})
}

// away is a store that is away when something is decided.
type away struct{ catalog.Store }

func (away) DecideFirmware(context.Context, catalog.About, func(catalog.View) (catalog.Decision, error)) error {
	return muster.Errorf(muster.Unavailable, "the database is away")
}

func TestWhatIsLeftOfUploadsIsSwept(t *testing.T) {
	r := newRig(t)
	kept := r.put([]byte("kept"))
	store := r.conf.Store
	r.conf.Store = away{store}
	r.again()
	_, _, err := r.Put(r.asked(), upload([]byte("orphan")), strings.NewReader("orphan"))
	r.wantKind(err, muster.Unavailable)
	_, _, _, err = r.Begin(r.asked(), upload([]byte("forgotten")))
	r.must(err)
	r.conf.Store = store
	r.again()
	r.must(r.Sweep(r.Context()))
	if n := len(r.left("sha256")); n != 2 || len(r.left("uploads")) != 2 {
		t.Errorf("what is young is swept: %v", r.left(""))
	}
	r.clock = r.clock.Add(25 * time.Hour)
	r.must(r.Sweep(r.Context()))
	if got := r.left(""); !slices.Equal(got, []string{kept.SHA256}) {
		t.Errorf("%v is left", got)
	}
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	r.must(r.Catalog.Run(ctx))
}

func TestAnImageTakesTheSameMemoryHoweverLargeItIs(t *testing.T) {
	r := newRig(t)
	grown := func(n int64) uint64 {
		h := sha256.New()
		_, err := io.Copy(h, noise(n))
		r.must(err)
		w := firmware.Upload{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n, Filename: "fw.bin"}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, _, err = r.Put(r.asked(), w, noise(n))
		r.must(err)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := grown(1<<20), grown(256<<20)
	t.Logf("1 MiB allocates %d KiB, 256 MiB %d KiB", small>>10, large>>10)
	if large > small+4<<20 { // 16 states are kept on the way
		t.Errorf("256 MiB allocate %d bytes, 1 MiB %d", large, small)
	}
}

func TestAFullDiskLeavesNothingHalf(t *testing.T) {
	r := newRig(t)
	disktest.Small(t, r.dir, 4<<20)
	r.again()
	first := r.put([]byte("it fits"))
	_, _, err := r.Put(r.asked(), firmware.Upload{SHA256: digest([]byte("x")), Filename: "fw.bin"}, noise(8<<20))
	r.wantKind(err, muster.Unavailable, "full")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("it does not say why: %v", err)
	}
	if got := r.left(""); !slices.Equal(got, []string{first.SHA256}) {
		t.Errorf("%v is left", got)
	}
	img := noiseBytes(t, 3<<20)
	u, _, _, err := r.Begin(r.asked(), upload(img))
	r.must(err)
	ballast := filepath.Join(r.dir, "ballast")
	r.must(os.WriteFile(ballast, make([]byte, 2<<20), 0o600))
	u, _, err = r.Append(r.asked(), u.ID, 0, bytes.NewReader(img))
	r.wantKind(err, muster.Unavailable, "full")
	r.must(os.Remove(ballast)) // somebody makes room, and the upload goes on
	_, a, err := r.Append(r.asked(), u.ID, u.Offset, bytes.NewReader(img[u.Offset:]))
	r.must(err)
	if a == nil || a.SHA256 != digest(img) {
		t.Errorf("%+v", a)
	}
}

func TestUploadsAreBounded(t *testing.T) {
	r := newRig(t)
	r.conf.Blobs = r.blobs(blob.Limits{Size: 1000, Uploads: 2})
	r.Catalog = catalog.New(r.conf)
	_, _, err := r.Put(r.asked(), upload(make([]byte, 1001)), bytes.NewReader(make([]byte, 1001)))
	r.wantKind(err, muster.TooLarge)
	_, _, err = r.Put(r.asked(), firmware.Upload{SHA256: digest(make([]byte, 1001)), Filename: "a"}, bytes.NewReader(make([]byte, 1001)))
	r.wantKind(err, muster.TooLarge)
	for i := range 3 {
		_, _, _, err = r.Begin(r.asked(), upload(fmt.Appendf(nil, "%d", i)))
		if (err == nil) != (i < 2) {
			t.Errorf("upload %d: %v", i, err)
		}
	}
	r.wantKind(err, muster.Busy)
	_, _, _, err = r.Begin(r.asked(), firmware.Upload{SHA256: digest([]byte("9")), Filename: "a"})
	r.wantKind(err, muster.Invalid, "size")
}
