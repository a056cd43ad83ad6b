package deliver

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// FuzzRange holds what tidy makes of a header to what net/http then answers: never a fault, never
// more than the image, at most the pieces that are allowed, and 416 exactly for no piece.
func FuzzRange(f *testing.F) {
	for _, s := range []string{
		"bytes=0-9", "bytes=-1", "bytes=5-", "bytes=0-0,1-1", "bytes=9-0", "items=0-1", "bytes=-0", "bytes=99999999999999999999-",
		"bytes=0-99999999999999999999", "Bytes = 1 - 2 , ,3-4", "bytes=--1", "bytes=0-,0-", "bytes=-9223372036854775808",
	} {
		f.Add(s, int64(1000))
	}
	path := filepath.Join(f.TempDir(), "image")
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 1 || size > 1<<16 {
			return
		}
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		image, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", header)
		set, known := rangeSet(r.Header["Range"])
		spans, ok := parse(set, size, 8)
		total := int64(0)
		for _, s := range spans {
			if s.from < 0 || s.to <= s.from || s.to > size {
				t.Fatalf("%q of %d bytes has the piece %v", header, size, s)
			}
			total += s.to - s.from
		}
		if total > size || len(spans) > 8 || !ok && spans != nil {
			t.Fatalf("%q of %d bytes is %v", header, size, spans)
		}
		tidy(r, size, 8)
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, image)
		want := http.StatusPartialContent
		switch {
		case !known:
			want = http.StatusOK
		case !ok || len(spans) == 0:
			want = http.StatusRequestedRangeNotSatisfiable
		}
		if w.Code != want {
			t.Fatalf("%q of %d bytes is %d, want %d; it was made %q", header, size, w.Code, want, r.Header["Range"])
		}
		if want == http.StatusPartialContent && len(spans) == 1 && w.Body.Len() != int(total) {
			t.Fatalf("%q of %d bytes sent %d bytes, want %s", header, size, w.Body.Len(), strconv.FormatInt(total, 10))
		}
	})
}
