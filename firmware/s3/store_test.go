package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/firmware/s3"
	"muster/firmware/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t *testing.T, f *s3test.Server, change ...func(*s3.Config)) *s3.Store {
	t.Helper()
	c := s3.Config{
		Endpoint: strings.TrimPrefix(f.URL, "http://"), Bucket: "images", AccessKey: "key", SecretKey: "secret", Prefix: "muster/", Insecure: true, PathStyle: true,
	}
	for _, to := range change {
		to(&c)
	}
	s, err := s3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func imageOf(size int) ([]byte, string) {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * i >> 9)
	}
	sum := sha256.Sum256(b)
	return b, hex.EncodeToString(sum[:])
}

func wantKind(t *testing.T, err error, kind muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != kind {
		t.Errorf("%v, want %s", err, kind)
	}
}

func TestAnImageIsKeptWholeAndReadInParts(t *testing.T) {
	for name, size := range map[string]int{"of a byte": 1, "of 300 KB": 300_000, "of a part": 16 << 20, "of several parts": 40<<20 + 7} {
		t.Run(name, func(t *testing.T) {
			f := s3test.New(t)
			s := newStore(t, f)
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			b, digest := imageOf(size)
			if err := s.Put(t.Context(), digest, int64(size), struct{ io.Reader }{bytes.NewReader(b)}); err != nil {
				t.Fatal(err)
			}
			if got := f.Names(); len(got) != 1 || got[0] != "muster/sha256/"+digest[:2]+"/"+digest {
				t.Errorf("%v is kept", got)
			}
			if n, err := s.Stat(t.Context(), digest); n.Size != int64(size) || time.Since(n.Came) > time.Hour || err != nil {
				t.Errorf("%+v, %v", n, err)
			}
			for _, c := range [][2]int64{{0, int64(size)}, {0, 1}, {int64(size) - 1, 1}, {int64(size) / 2, 1 << 40}} {
				r, err := s.Open(t.Context(), digest, c[0], c[1])
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, b[c[0]:min(c[0]+c[1], int64(size))]) {
					t.Errorf("from %d: %d bytes, %v", c[0], len(got), err)
				}
			}
			_, err := s.Open(t.Context(), digest, int64(size), 1)
			wantKind(t, err, muster.Invalid)
			for range 2 {
				if err := s.Delete(t.Context(), digest); err != nil {
					t.Fatal(err)
				}
			}
			_, err = s.Stat(t.Context(), digest)
			wantKind(t, err, muster.NotFound)
			_, err = s.Open(t.Context(), digest, 0, 1)
			wantKind(t, err, muster.NotFound)
		})
	}
}

var errCut = errors.New("the line is cut")

func TestAnImageThatIsNotWhatWasSaidIsNotKept(t *testing.T) {
	for name, size := range map[string]int{"in one piece": 100_000, "in parts": 20 << 20} {
		t.Run(name, func(t *testing.T) {
			f := s3test.New(t)
			s := newStore(t, f)
			b, digest := imageOf(size)
			other := bytes.Clone(b)
			other[size-1]++
			for what, r := range map[string]io.Reader{
				"with another last byte": bytes.NewReader(other), "that is cut": bytes.NewReader(b[:size-1]),
				"that has more": io.MultiReader(bytes.NewReader(b), strings.NewReader("more")), "that is empty": strings.NewReader(""),
			} {
				if err := s.Put(t.Context(), digest, int64(size), r); err == nil || muster.KindOf(err) != muster.Invalid {
					t.Errorf("%s: %v", what, err)
				}
			}
			err := s.Put(t.Context(), digest, int64(size), io.MultiReader(bytes.NewReader(b[:size-9]), iotest.ErrReader(errCut)))
			if !errors.Is(err, errCut) {
				t.Errorf("%v", err)
			}
			if got := f.Names(); len(got) != 0 {
				t.Errorf("%v is kept", got)
			}
			if n := f.Open(); n != 0 {
				t.Errorf("%d uploads are open", n)
			}
		})
	}
}

func TestNamesThatAreNoDigestsAreNotThere(t *testing.T) {
	s := newStore(t, s3test.New(t))
	_, digest := imageOf(1)
	for _, name := range []string{"", "../secret", strings.ToUpper(digest), digest[1:], digest + "0"} {
		_, err := s.Stat(t.Context(), name)
		wantKind(t, err, muster.NotFound)
		_, err = s.Open(t.Context(), name, 0, 1)
		wantKind(t, err, muster.NotFound)
		wantKind(t, s.Put(t.Context(), name, 1, strings.NewReader("x")), muster.NotFound)
		if err := s.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	for _, c := range [][2]int64{{-1, 1}, {0, 0}, {5, -1}} {
		_, err := s.Open(t.Context(), digest, c[0], c[1])
		wantKind(t, err, muster.Invalid)
	}
	wantKind(t, s.Put(t.Context(), digest, 0, strings.NewReader("")), muster.Invalid)
}

func TestAStoreThatCannotBeUsedSaysWhyAndNoSecret(t *testing.T) {
	f := s3test.New(t)
	_, digest := imageOf(1)
	noBucket := newStore(t, f, func(c *s3.Config) { c.Bucket = "other" })
	wantKind(t, noBucket.Check(t.Context()), muster.Invalid)
	_, err := noBucket.Open(t.Context(), digest, 0, 1)
	wantKind(t, err, muster.Unavailable)
	wrongKey := newStore(t, f, func(c *s3.Config) { c.AccessKey = "wrong" })
	for _, err := range []error{wrongKey.Check(t.Context()), wrongKey.Put(t.Context(), digest, 1, bytes.NewReader([]byte{0}))} {
		wantKind(t, err, muster.Unavailable)
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "wrong") {
			t.Error(err)
		}
	}
	s := newStore(t, f)
	f.SetDown(true)
	wantKind(t, s.Check(t.Context()), muster.Unavailable)
	f.Close()
	wantKind(t, s.Check(t.Context()), muster.Unavailable)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = s.Stat(ctx, digest)
	wantKind(t, err, muster.Unavailable)
	for _, c := range []s3.Config{{}, {Endpoint: "host", Bucket: "b"}, {Endpoint: "http://host/path", Bucket: "b", AccessKey: "k", SecretKey: "s"}} {
		_, err := s3.New(c)
		wantKind(t, err, muster.Invalid)
	}
}

func TestImagesOfSomeAgeAreListed(t *testing.T) {
	f := s3test.New(t)
	s := newStore(t, f)
	var want []string
	for i := range 5 {
		b, digest := imageOf(i + 1)
		if err := s.Put(t.Context(), digest, int64(len(b)), bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		want = append(want, digest)
	}
	slices.Sort(want)
	list := func(age time.Duration) (out []string) {
		t.Helper()
		err := s.Older(t.Context(), time.Now().Add(-age), func(digest string) error {
			out = append(out, digest)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := list(time.Hour); len(got) != 0 {
		t.Errorf("%v is listed at once", got)
	}
	f.Age(2 * time.Hour)
	if got := list(time.Hour); !slices.Equal(got, want) {
		t.Errorf("%v is listed, want %v", got, want)
	}
	if err := s.Older(t.Context(), time.Now(), func(string) error { return errCut }); !errors.Is(err, errCut) {
		t.Errorf("%v", err)
	}
	f.SetDown(true)
	wantKind(t, s.Older(t.Context(), time.Now(), func(string) error { return nil }), muster.Unavailable)
}
