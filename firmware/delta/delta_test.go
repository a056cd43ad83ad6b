package delta_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster"
	"muster/firmware/delta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// program returns what looks like a program of n bytes: instructions of few kinds with operands,
// words that come again, and tables of zeros.
func program(n int, seed uint64) []byte {
	dice := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 500)
	for i := range words {
		words[i] = make([]byte, 4+dice.IntN(40))
		for j := range words[i] {
			words[i][j] = byte(dice.ExpFloat64() * 30)
		}
	}
	out := make([]byte, 0, n+100)
	for len(out) < n {
		switch dice.IntN(10) {
		case 0:
			out = append(out, make([]byte, dice.IntN(60))...)
		case 1, 2, 3:
			for range 8 { // operands
				out = append(out, 0x48, 0x8b, byte(dice.Uint32()), byte(dice.Uint32()))
			}
		default:
			out = append(out, words[dice.IntN(len(words))]...)
		}
	}
	return out[:n]
}

// changed returns the next version of a program: addresses differ in many places, a function grew,
// one is gone.
func changed(old []byte, seed uint64) []byte {
	dice := rand.New(rand.NewPCG(seed, 2))
	next := bytes.Clone(old)
	for range len(next) / 2000 {
		next[dice.IntN(len(next))] ^= byte(1 + dice.IntN(255))
	}
	at := dice.IntN(len(next) / 2)
	grown := program(len(next)/300+1, seed+7)
	next = append(next[:at:at], append(grown, next[at:]...)...)
	at = len(next)/2 + dice.IntN(len(next)/4)
	return append(next[:at], next[at+len(next)/500:]...)
}

func file(t testing.TB, b []byte) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "image"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func wanted(b []byte) delta.Want { return delta.Want{SHA256: sha256.Sum256(b), Size: int64(len(b))} }

// patch makes a patch.
func patch(t testing.TB, old, next []byte) []byte {
	t.Helper()
	var p bytes.Buffer
	if err := delta.Make(t.Context(), file(t, old), file(t, next), &p); err != nil {
		t.Fatal(err)
	}
	return p.Bytes()
}

func TestAPatchMakesTheNewImageAndIsMuchSmaller(t *testing.T) {
	for name, size := range map[string]int{"of 3 bytes": 3, "of 100 KiB": 100 << 10, "of 2 MiB": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			old := program(size, 1)
			next := []byte{1, 2}
			if size > 100 {
				next = changed(old, 2)
			}
			p := patch(t, old, next)
			var out bytes.Buffer
			if err := delta.Apply(t.Context(), file(t, old), bytes.NewReader(p), &out, wanted(next)); err != nil || !bytes.Equal(out.Bytes(), next) {
				t.Fatalf("%d bytes, want %d: %v", out.Len(), len(next), err)
			}
			full, err := delta.Compressed(t.Context(), file(t, next))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes, compressed %d, the patch %d", len(next), full, len(p))
			if size > 100 && (int64(len(p))*10 > full || !delta.Worth(int64(len(p)), full)) {
				t.Errorf("the patch has %d bytes, the compressed image %d", len(p), full)
			}
		})
	}
}

func TestAPatchOfAnotherImageIsNotWorthIt(t *testing.T) {
	next := program(256<<10, 9)
	p := patch(t, program(256<<10, 8), next)
	full, err := delta.Compressed(t.Context(), file(t, next))
	if err != nil || delta.Worth(int64(len(p)), full) {
		t.Errorf("%d of %d bytes: %v", len(p), full, err)
	}
	for _, c := range []struct {
		patch, full int64
		want        bool
	}{{59, 100, true}, {60, 100, false}, {61, 100, false}, {0, 1, true}, {0, 0, false}} {
		if got := delta.Worth(c.patch, c.full); got != c.want {
			t.Errorf("%d of %d: %v", c.patch, c.full, got)
		}
	}
}

func TestWhatIsNotThePatchIsRefusedAndMakesNoMoreThanTheImage(t *testing.T) {
	old := program(300<<10, 1)
	next := changed(old, 2)
	good := patch(t, old, next)
	longer := patch(t, old, append(bytes.Clone(next), 1))
	other := program(300<<10, 5)
	bad := wanted(next)
	bad.SHA256[0]++
	for name, c := range map[string]struct {
		old   []byte
		patch []byte
		want  delta.Want
		kind  muster.Kind
	}{
		"of another image":         {other, good, wanted(next), muster.Invalid},
		"of an image that was cut": {old[:len(old)-1], good, wanted(next), muster.Invalid},
		"that is cut":              {old, good[:len(good)/2], wanted(next), muster.Invalid},
		"that is empty":            {old, nil, wanted(next), muster.Invalid},
		"that is no zstd":          {old, old, wanted(next), muster.Invalid},
		"with more behind it":      {old, append(bytes.Clone(good), "more"...), wanted(next), muster.Invalid},
		"that comes twice":         {old, append(bytes.Clone(good), good...), wanted(next), muster.Invalid},
		"of a longer image":        {old, longer, wanted(next), muster.Invalid},
		"for another digest":       {old, good, bad, muster.Invalid},
		"for no bytes":             {old, good, delta.Want{}, muster.TooLarge},
		"for too many":             {old, good, delta.Want{Size: delta.MaxImage + 1}, muster.TooLarge},
		"on an empty image":        {nil, good, wanted(next), muster.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := delta.Apply(t.Context(), file(t, c.old), bytes.NewReader(c.patch), &out, c.want)
			if err == nil || muster.KindOf(err) != c.kind {
				t.Errorf("%v, want %s", err, c.kind)
			}
			if out.Len() > len(next) {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

// TestNoBrokenPatchIsTaken changes patches at random: what comes is the image, or an error.
func TestNoBrokenPatchIsTaken(t *testing.T) {
	old := program(50<<10, 1)
	next := changed(old, 2)
	good, base := patch(t, old, next), file(t, old)
	rapid.Check(t, func(t *rapid.T) {
		p := bytes.Clone(good)
		for range rapid.IntRange(1, 3).Draw(t, "bytes") {
			p[rapid.IntRange(0, len(p)-1).Draw(t, "at")] ^= rapid.ByteRange(1, 255).Draw(t, "by")
		}
		var out bytes.Buffer
		err := delta.Apply(context.Background(), base, bytes.NewReader(p), &out, wanted(next))
		if err == nil && !bytes.Equal(out.Bytes(), next) {
			t.Fatal("another image was taken")
		}
		if err != nil && muster.KindOf(err) != muster.Invalid {
			t.Fatal(err)
		}
	})
}

func TestImagesOverTheLimitHaveNoPatch(t *testing.T) {
	large, small := file(t, nil), file(t, []byte("image"))
	if err := large.Truncate(delta.MaxImage + 1); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]*os.File{{large, small}, {small, large}} {
		if err := delta.Make(t.Context(), pair[0], pair[1], io.Discard); err == nil || muster.KindOf(err) != muster.TooLarge {
			t.Errorf("%v", err)
		}
	}
	if err := delta.Make(t.Context(), small, file(t, nil), io.Discard); err == nil || muster.KindOf(err) != muster.Invalid {
		t.Errorf("%v", err)
	}
}

func TestAPatchEndsWithItsContextAndItsWriter(t *testing.T) {
	old := program(300<<10, 1)
	next := changed(old, 2)
	good := patch(t, old, next)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := delta.Make(ctx, file(t, old), file(t, next), io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := delta.Apply(ctx, file(t, old), bytes.NewReader(good), io.Discard, wanted(next)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := delta.Apply(t.Context(), file(t, old), bytes.NewReader(good), full{}, wanted(next)); !errors.Is(err, errFull) || muster.KindOf(err) == muster.Invalid {
		t.Errorf("%v", err)
	}
}

var errFull = errors.New("the flash is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestZstdTakesPatchesAsTheyAre is what devices with libzstd rely on.
func TestZstdTakesPatchesAsTheyAre(t *testing.T) {
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no zstd (scripts/setup-test.sh installs it), and CI skips nothing")
		}
		t.Skip("there is no zstd (scripts/setup-test.sh installs it)")
	}
	old := program(1<<20, 1)
	next := changed(old, 2)
	to := filepath.Join(t.TempDir(), "made")
	p := file(t, patch(t, old, next))
	said, err := exec.CommandContext(t.Context(), zstd, "-q", "-d", "--patch-from="+file(t, old).Name(), p.Name(), "-o", to).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, next) {
		t.Errorf("zstd makes another image: %v", err)
	}
}

// FuzzApply holds any patch to: no fault, no more bytes than the image, and no other image.
func FuzzApply(f *testing.F) {
	old := program(4<<10, 1)
	next := changed(old, 2)
	base, want := file(f, old), wanted(next)
	f.Add(patch(f, old, next))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, p []byte) {
		var out bytes.Buffer
		err := delta.Apply(t.Context(), base, bytes.NewReader(p), &out, want)
		if out.Len() > len(next) || err == nil && !bytes.Equal(out.Bytes(), next) {
			t.Fatalf("%d bytes of %d were made: %v", out.Len(), len(next), err)
		}
		if err != nil && muster.KindOf(err) != muster.Invalid {
			t.Fatal(err)
		}
	})
}
