package blob_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/firmware/blob"
)

// pathOf is where an image lies.
func pathOf(dir, digest string) string { return filepath.Join(dir, "sha256", digest[:2], digest) }

// tamper writes other bytes into an image, of the same length, and puts its time back.
func tamper(t *testing.T, path string, b []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

func wantWrong(t *testing.T, s *blob.Store, digest string) {
	t.Helper()
	f, err := s.File(digest)
	if f != nil || !blob.IsWrong(err) || muster.KindOf(err) != muster.Unavailable {
		t.Fatalf("it is opened: %v, %v", f, err)
	}
}

func TestAnImageThatWasChangedIsOpenedForNobodyUntilItIsRightAgain(t *testing.T) {
	b, other := []byte("image"), []byte("imagf")
	for name, change := range map[string]func(t *testing.T, path string){
		"in place, with its time put back": func(t *testing.T, path string) { tamper(t, path, other) },
		"another in its place": func(t *testing.T, path string) {
			if err := os.WriteFile(path+".new", other, 0o400); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
		"longer":  func(t *testing.T, path string) { tamper(t, path, []byte("image and more")) },
		"shorter": func(t *testing.T, path string) { tamper(t, path, []byte("ima")) },
		"empty":   func(t *testing.T, path string) { tamper(t, path, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, again := range []bool{false, true} {
				dir := t.TempDir()
				s := open(t, dir, blob.Limits{})
				digest := put(t, s, "u", b).SHA256
				change(t, pathOf(dir, digest))
				if again { // as a new process, which saw none of its bytes come
					s = open(t, dir, blob.Limits{})
				}
				var told atomic.Int32
				s.OnWrong(func(string) { told.Add(1) })
				wantWrong(t, s, digest)
				wantWrong(t, s, digest)
				if n := told.Load(); n != 1 || s.WrongImages() != 1 {
					t.Errorf("it was told %d times, %d are wrong", n, s.WrongImages())
				}
				put(t, s, "again", b)
				if !bytes.Equal(contents(t, s, digest), b) || s.WrongImages() != 0 {
					t.Errorf("uploaded again it is not right, %d are wrong", s.WrongImages())
				}
			}
		})
	}
}

func TestManyWhoOpenAnImageFirstHaveItsBytesReadOnce(t *testing.T) {
	dir := t.TempDir()
	digest := put(t, open(t, dir, blob.Limits{}), "u", bytes.Repeat([]byte("image"), 1<<20)).SHA256
	tamper(t, pathOf(dir, digest), []byte("something else"))
	s := open(t, dir, blob.Limits{})
	var looks atomic.Int32
	s.OnWrong(func(string) { looks.Add(1) })
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			f, err := s.FileWithin(digest, time.Duration(i%2)*time.Minute)
			if f != nil || !blob.IsWrong(err) {
				t.Errorf("%v, %v", f, err)
			}
		})
	}
	all.Wait()
	s.Close()
	if n := looks.Load(); n != 1 {
		t.Errorf("its bytes were read %d times", n)
	}
}

func TestWhoDoesNotWaitIsToldToAskAgain(t *testing.T) {
	dir := t.TempDir()
	b := bytes.Repeat([]byte("image"), 4<<20)
	digest := put(t, open(t, dir, blob.Limits{}), "u", b).SHA256
	s := open(t, dir, blob.Limits{})
	defer s.Close()
	f, err := s.FileWithin(digest, -1)
	for err != nil {
		if blob.IsWrong(err) || muster.KindOf(err) != muster.Unavailable {
			t.Fatal(err)
		}
		runtime.Gosched()
		f, err = s.FileWithin(digest, -1)
	}
	defer f.Close()
	if at, err := f.Seek(0, io.SeekCurrent); at != 0 || err != nil {
		t.Errorf("the file is at %d, %v", at, err)
	}
}

func TestAStoreThatIsClosedEndsWhatItReads(t *testing.T) {
	dir := t.TempDir()
	digest := put(t, open(t, dir, blob.Limits{}), "u", []byte("image")).SHA256
	s := open(t, dir, blob.Limits{})
	s.Close()
	_, err := s.File(digest)
	wantKind(t, err, muster.Unavailable)
	if blob.IsWrong(err) || s.WrongImages() != 0 {
		t.Errorf("what was not read counts as wrong: %v", err)
	}
}

func TestAnImageThatIsReadForAWhileIsNotReadOnceItChanged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blob.Limits{})
	digest := put(t, s, "u", []byte("image")).SHA256
	f, err := s.File(digest)
	if err != nil {
		t.Fatal(err)
	}
	x, err := blob.Steadily(f)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	got := make([]byte, 2)
	if _, err := x.ReadAt(got, 3); err != nil || string(got) != "ge" {
		t.Fatalf("%q, %v", got, err)
	}
	tamper(t, pathOf(dir, digest), []byte("imagf"))
	_, err = x.ReadAt(got, 3)
	wantKind(t, err, muster.Unavailable)
}

func TestALookAtAnImageOfAnySizeTakesTheSameMemory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blob.Limits{})
	digest := put(t, s, "u", make([]byte, 64<<20)).SHA256
	s = open(t, dir, blob.Limits{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := s.File(digest)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 2<<20 {
		t.Errorf("%d bytes were allocated", took)
	}
}
