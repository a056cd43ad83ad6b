package blob_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/blob"
)

func open(t testing.TB, dir string, l blob.Limits) *blob.Store {
	t.Helper()
	s, err := blob.Open(dir, l, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func wantKind(t testing.TB, err error, kind muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != kind {
		t.Fatalf("got %v, want a %s error", err, kind)
	}
}

// put uploads a whole image.
func put(t testing.TB, s *blob.Store, id string, b []byte) blob.Sum {
	t.Helper()
	if err := s.Begin(id, blob.Want{Size: int64(len(b)), SHA256: digest(b)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), id, 0, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	sum, err := s.Finish(id)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func contents(t testing.TB, s *blob.Store, digest string) []byte {
	t.Helper()
	f, err := s.File(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnImageIsKeptOnceByItsDigest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blob.Limits{})
	b := bytes.Repeat([]byte("image"), 100_000)
	one, two := sha1.Sum(b), md5.Sum(b)
	for i := range 2 {
		sum := put(t, s, fmt.Sprint("up", i), b)
		if sum.SHA256 != digest(b) || sum.SHA1 != hex.EncodeToString(one[:]) || sum.MD5 != hex.EncodeToString(two[:]) || sum.Size != int64(len(b)) || sum.Image.Format != "raw" {
			t.Errorf("%+v", sum)
		}
	}
	if !bytes.Equal(contents(t, s, digest(b)), b) {
		t.Error("the image is another")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if err := s.Delete(digest(b)); err != nil {
		t.Fatal(err)
	}
	_, err := s.File(digest(b))
	wantKind(t, err, muster.NotFound)
	if err := s.Delete(digest(b)); err != nil {
		t.Error(err)
	}
}

func TestAnUploadIsRefused(t *testing.T) {
	b := []byte("image")
	good := blob.Want{Size: 5, SHA256: digest(b)}
	for name, c := range map[string]struct {
		try  func(s *blob.Store) error
		kind muster.Kind
	}{
		"with an id that leaves the directory": {func(s *blob.Store) error { return s.Begin("../x", good) }, muster.Invalid},
		"without an id":                        {func(s *blob.Store) error { return s.Begin("", good) }, muster.Invalid},
		"without a digest":                     {func(s *blob.Store) error { return s.Begin("a", blob.Want{Size: 5}) }, muster.Invalid},
		"with a digest in capitals":            {func(s *blob.Store) error { return s.Begin("a", blob.Want{SHA256: strings.ToUpper(digest(b))}) }, muster.Invalid},
		"with a size over the limit":           {func(s *blob.Store) error { return s.Begin("a", blob.Want{Size: 101, SHA256: digest(b)}) }, muster.TooLarge},
		"below zero":                           {func(s *blob.Store) error { return s.Begin("a", blob.Want{Size: -1, SHA256: digest(b)}) }, muster.Invalid},
		"of an id that is taken":               {func(s *blob.Store) error { return errors.Join(s.Begin("a", good), s.Begin("a", good)) }, muster.Conflict},
		"when too many are open": {func(s *blob.Store) error {
			return errors.Join(s.Begin("a", good), s.Begin("b", good), s.Begin("c", good))
		}, muster.Busy},
		"with more than it said": {func(s *blob.Store) error {
			_, err := s.Append(context.Background(), "a", 0, strings.NewReader("image and more"))
			return errors.Join(s.Begin("a", good), err)
		}, muster.NotFound},
		"that was never begun":    {func(s *blob.Store) error { _, err := s.Finish("never"); return err }, muster.NotFound},
		"that leaves, when ended": {func(s *blob.Store) error { _, err := s.Finish("../../etc/passwd"); return err }, muster.NotFound},
		"that leaves, when asked": {func(s *blob.Store) error { _, _, err := s.Offset("../x"); return err }, muster.NotFound},
		"discarded twice": {func(s *blob.Store) error {
			return errors.Join(s.Begin("a", good), s.Discard("a"), s.Discard("a"))
		}, muster.NotFound},
		"read by a path": {func(s *blob.Store) error { _, err := s.File("../../../../../etc/passwd"); return err }, muster.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			wantKind(t, c.try(open(t, t.TempDir(), blob.Limits{Size: 100, Uploads: 2})), c.kind)
		})
	}
}

func TestAnImageThatIsNotWhatItSaidIsNotKept(t *testing.T) {
	s := open(t, t.TempDir(), blob.Limits{Size: 1000})
	begin := func(id string, w blob.Want) {
		t.Helper()
		if err := s.Begin(id, w); err != nil {
			t.Fatal(err)
		}
	}
	begin("other", blob.Want{SHA256: digest([]byte("image"))})
	if _, err := s.Append(t.Context(), "other", 0, strings.NewReader("imagf")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Finish("other")
	wantKind(t, err, muster.Invalid)
	_, err = s.Finish("other")
	wantKind(t, err, muster.NotFound)

	begin("short", blob.Want{Size: 9, SHA256: digest([]byte("image"))})
	n, err := s.Append(t.Context(), "short", 0, strings.NewReader("image"))
	if n != 5 || err != nil {
		t.Fatal(n, err)
	}
	_, err = s.Finish("short")
	wantKind(t, err, muster.Conflict)
	if at, w, err := s.Offset("short"); at != 5 || w.Size != 9 || err != nil {
		t.Errorf("%d %+v %v", at, w, err)
	}
	_, err = s.Append(t.Context(), "short", 3, strings.NewReader("ge"))
	wantKind(t, err, muster.Conflict)
	_, err = s.Append(t.Context(), "short", 5, strings.NewReader("too much"))
	wantKind(t, err, muster.TooLarge)
	if at, _, err := s.Offset("short"); at != 5 || err != nil {
		t.Errorf("after a piece that is too long the upload is at %d, %v", at, err)
	}

	begin("none", blob.Want{SHA256: digest(nil)})
	_, err = s.Finish("none")
	wantKind(t, err, muster.Conflict)
	if _, err := s.File(digest([]byte("imagf"))); err == nil {
		t.Error("it is kept")
	}
}

var errCut = errors.New("the line is cut")

// TestAnUploadGoesOnAfterAnyCut cuts uploads off at random places, by errors of the line and by
// ends of the process, which may have written more than it kept.
func TestAnUploadGoesOnAfterAnyCut(t *testing.T) {
	whole := make([]byte, 3<<20)
	for i := range whole {
		whole[i] = byte(i * i >> 7)
	}
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "blob") //nolint:usetesting // one for each draw
		if err != nil {
			t.Fatal(err)
		}
		b := whole[:rapid.IntRange(1, len(whole)).Draw(t, "size")]
		s, err := blob.Open(dir, blob.Limits{}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Begin("u", blob.Want{Size: int64(len(b)), SHA256: digest(b)}); err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < int64(len(b)); {
			n := rapid.IntRange(0, len(b)-int(at)).Draw(t, "bytes")
			var r io.Reader = bytes.NewReader(b[at : at+int64(n)])
			cut := rapid.Bool().Draw(t, "cut")
			if cut {
				r = io.MultiReader(r, iotest.ErrReader(errCut))
			}
			kept, err := s.Append(context.Background(), "u", at, r)
			if cut != errors.Is(err, errCut) || kept != at+int64(n) {
				t.Fatalf("%d bytes are kept of %d: %v", kept, at+int64(n), err)
			}
			if rapid.Bool().Draw(t, "restart") {
				spill(t, filepath.Join(dir, "uploads", "u.part"))
				if s, err = blob.Open(dir, blob.Limits{}, time.Now); err != nil {
					t.Fatal(err)
				}
			}
			if at, _, err = s.Offset("u"); err != nil || at != kept {
				t.Fatalf("the upload is at %d, want %d: %v", at, kept, err)
			}
		}
		sum, err := s.Finish("u")
		one := sha1.Sum(b)
		if err != nil || sum.SHA256 != digest(b) || sum.SHA1 != hex.EncodeToString(one[:]) {
			t.Fatalf("%+v, %v", sum, err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "sha256", sum.SHA256[:2], sum.SHA256))
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%d bytes are kept, want %d: %v", len(got), len(b), err)
		}
	})
}

// spill writes what a process did that ended before it kept how far it was.
func spill(t *rapid.T, path string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString("more than was kept")
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
}

func TestFinishGoesOnWhereItWasCutOff(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blob.Limits{})
	b := []byte("image")
	if err := s.Begin("u", blob.Want{SHA256: digest(b)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), "u", 0, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "sha256", digest(b)[:2])
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "uploads", "u.part"), filepath.Join(to, digest(b))); err != nil {
		t.Fatal(err)
	}
	sum, err := open(t, dir, blob.Limits{}).Finish("u")
	if err != nil || sum.SHA256 != digest(b) || !bytes.Equal(contents(t, s, digest(b)), b) {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestOneWritesToAnUploadAtATime(t *testing.T) {
	s := open(t, t.TempDir(), blob.Limits{})
	b := []byte("image")
	if err := s.Begin("u", blob.Want{SHA256: digest(b)}); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := s.Append(context.Background(), "u", 0, r); err != nil {
			t.Error(err)
		}
	})
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	_, err := s.Append(t.Context(), "u", 0, bytes.NewReader(b))
	wantKind(t, err, muster.Busy)
	_, err = s.Finish("u")
	wantKind(t, err, muster.Busy)
	_ = w.Close()
	first.Wait()
	if _, err := s.Finish("u"); err != nil {
		t.Error(err)
	}
}

func TestUploadsThatNobodyGoesOnWithAreSweptAway(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	s, err := blob.Open(dir, blob.Limits{Idle: time.Hour}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"old", "new"} {
		if err := s.Begin(id, blob.Want{SHA256: digest([]byte("x"))}); err != nil {
			t.Fatal(err)
		}
	}
	long := now.Add(-2 * time.Hour)
	for _, f := range []string{"old.part", "old.json", "new.json"} {
		if err := os.Chtimes(filepath.Join(dir, "uploads", f), long, long); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Sweep(); n != 1 || err != nil {
		t.Errorf("%d are swept away: %v", n, err)
	}
	if _, _, err := s.Offset("new"); err != nil {
		t.Error(err)
	}
	_, _, err = s.Offset("old")
	wantKind(t, err, muster.NotFound)
}

// TestAnImageOfAnySizeTakesTheSameMemory uploads 256 MiB; the benchmark of the whole server does
// so with 1 GiB.
func TestAnImageOfAnySizeTakesTheSameMemory(t *testing.T) {
	s := open(t, t.TempDir(), blob.Limits{})
	const size = 256 << 20
	h := sha256.New()
	if _, err := io.CopyN(h, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := s.Begin("u", blob.Want{Size: size, SHA256: hex.EncodeToString(h.Sum(nil))}); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := s.Append(t.Context(), "u", 0, io.LimitReader(zeros{}, size)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish("u"); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
		t.Errorf("%d bytes were allocated", took)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
