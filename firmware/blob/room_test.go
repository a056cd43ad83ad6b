package blob_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster"
	"muster/firmware/blob"
	"muster/internal/disktest"
)

// smallStore is a store on a disk of 64 MiB.
func smallStore(t *testing.T) (s *blob.Store, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "images")
	disktest.Small(t, dir, 64<<20)
	s, err := blob.Open(dir, blob.Limits{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// taken is how many bytes the files of open uploads have, and which of them are leftovers.
func taken(t *testing.T, dir string) (bytes int64, leftovers []string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dir, "uploads"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if bytes += info.Size(); strings.HasSuffix(f.Name(), ".tmp") {
			leftovers = append(leftovers, f.Name())
		}
	}
	return bytes, leftovers
}

func wantFull(t *testing.T, err error) {
	t.Helper()
	if muster.KindOf(err) != muster.Unavailable || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "full") {
		t.Errorf("%v does not say that the disk is full", err)
	}
}

func TestAnUploadThatTheDiskHasNoRoomForIsRefusedBeforeItBegins(t *testing.T) {
	s, _ := smallStore(t)
	one := digest([]byte("one"))
	wantFull(t, s.Begin("a", blob.Want{Size: 63 << 20, SHA256: one})) // a part stays free
	if err := s.Begin("b", blob.Want{Size: 40 << 20, SHA256: one}); err != nil {
		t.Fatal(err)
	}
	wantFull(t, s.Begin("c", blob.Want{Size: 30 << 20, SHA256: one})) // the other has that room
	if err := s.Begin("d", blob.Want{Size: 10 << 20, SHA256: one}); err != nil {
		t.Error(err)
	}
}

func TestAnUploadThatFillsTheDiskGivesBackWhatWasNotKeptAndGoesOn(t *testing.T) {
	s, dir := smallStore(t)
	img := bytes.Repeat([]byte("muster"), 40<<20/6)
	if err := s.Begin("a", blob.Want{Size: int64(len(img)), SHA256: digest(img)}); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast") // somebody else fills the disk meanwhile
	if err := os.WriteFile(ballast, make([]byte, 36<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := s.Append(t.Context(), "a", 0, bytes.NewReader(img))
	wantFull(t, err)
	if n != 16<<20 {
		t.Errorf("%d bytes are kept", n)
	}
	if size, leftovers := taken(t, dir); size > 16<<20+4096 || len(leftovers) > 0 {
		t.Errorf("the upload has %d bytes on the disk, and %v", size, leftovers)
	}
	if at, _, err := s.Offset("a"); at != n || err != nil {
		t.Errorf("it goes on at %d, %v", at, err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil || st.Bavail*uint64(st.Bsize) < 64<<20/20 {
		t.Errorf("%d pages of %d bytes are free, %v", st.Bavail, st.Bsize, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), "a", n, bytes.NewReader(img[n:])); err != nil {
		t.Fatal(err)
	}
	if sum, err := s.Finish("a"); err != nil || sum.SHA256 != digest(img) {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestAPieceThatIsTooLongIsNotKeptAndTheUploadGoesOn(t *testing.T) {
	s, err := blob.Open(t.TempDir(), blob.Limits{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	img := bytes.Repeat([]byte("muster"), 40<<20/6)
	if err := s.Begin("a", blob.Want{Size: int64(len(img)), SHA256: digest(img)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), "a", 0, bytes.NewReader(img[:1000])); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Repeat([]byte("x"), len(img)) // 1000 too many, after more than is kept at a time
	n, err := s.Append(t.Context(), "a", 1000, bytes.NewReader(wrong))
	wantKind(t, err, muster.TooLarge)
	if n != 1000 {
		t.Errorf("the upload is at %d", n)
	}
	if at, _, err := s.Offset("a"); at != 1000 || err != nil {
		t.Errorf("it goes on at %d, %v", at, err)
	}
	if _, err := s.Append(t.Context(), "a", 1000, bytes.NewReader(img[1000:])); err != nil {
		t.Fatal(err)
	}
	if sum, err := s.Finish("a"); err != nil || sum.SHA256 != digest(img) {
		t.Errorf("%+v, %v", sum, err)
	}
}
