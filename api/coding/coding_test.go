package coding

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

func TestTheCodingIsTheOneThatIsWantedMost(t *testing.T) {
	tests := []struct{ accept, want string }{
		{"", ""},
		{"gzip", Gzip},
		{"gzip, deflate, br, zstd", Zstd},
		{"zstd;q=0.5, gzip", Gzip},
		{"gzip;q=0", ""},
		{"identity", ""},
		{"*", Zstd},
		{"*, zstd;q=0", Gzip},
		{"*;q=0", ""},
		{"GZIP ; Q=0.2", Gzip},
		{"x-gzip", Gzip},
		{"br;q=1, gzip;q=abc", ""},
		{"gzip;q=2", ""},
		{"gzip;q=NaN", ""},
		{",,", ""},
	}
	for _, tt := range tests {
		if got := Choose(tt.accept); got != tt.want {
			t.Errorf("%q gives %q, want %q", tt.accept, got, tt.want)
		}
	}
}

func decode(t *rapid.T, coding string, b []byte) []byte {
	var r io.Reader
	var err error
	switch coding {
	case Gzip:
		r, err = gzip.NewReader(bytes.NewReader(b))
	case Zstd:
		r, err = zstd.NewReader(bytes.NewReader(b))
	default:
		r = bytes.NewReader(b)
	}
	if err == nil {
		b, err = io.ReadAll(r)
	}
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	return b
}

func TestAnyAnswerComesOutAsItWentInHoweverItIsWrittenAndFlushed(t *testing.T) {
	var pool Pool
	rapid.Check(t, func(t *rapid.T) {
		coding := rapid.SampledFrom([]string{Gzip, Zstd}).Draw(t, "coding")
		rec := httptest.NewRecorder()
		w := NewWriter(rec, &pool, coding)
		kind := rapid.SampledFrom([]string{"application/json", "application/x-ndjson", "image/png", "text/event-stream", ""}).Draw(t, "type")
		if kind != "" {
			w.Header().Set("Content-Type", kind)
		}
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Content-Length", "7")
		status := rapid.SampledFrom([]int{0, 200, 404}).Draw(t, "status")
		if status != 0 {
			w.WriteHeader(status)
		}
		var want []byte
		flushed := false
		for range rapid.IntRange(0, 6).Draw(t, "writes") {
			part := []byte(strings.Repeat("part ", rapid.IntRange(0, 300).Draw(t, "length")))
			want = append(want, part...)
			if _, err := w.Write(part); err != nil {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "flush") {
				flushed = true
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		used := rec.Header().Get("Content-Encoding")
		if got := decode(t, used, rec.Body.Bytes()); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes became %d", len(want), len(got))
		}
		compressed := shrinks(kind) && (flushed || len(want) >= minSize)
		if (used != "") != compressed {
			t.Fatalf("%s of %d bytes, flushed %v, has coding %q", kind, len(want), flushed, used)
		}
		if tag := rec.Header().Get("ETag"); compressed && (tag != `"x+`+coding+`"` || rec.Header().Get("Content-Length") != "" || Plain(tag) != `"x"`) {
			t.Fatalf("ETag %s, length %s", tag, rec.Header().Get("Content-Length"))
		}
	})
}

func TestAFlushSendsWhatWasWritten(t *testing.T) {
	var pool Pool
	for _, coding := range []string{Gzip, Zstd} {
		rec := httptest.NewRecorder()
		w := NewWriter(rec, &pool, coding)
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, "{\"line\":1}\n")
		if err := w.FlushError(); err != nil || !rec.Flushed {
			t.Fatal(err, rec.Flushed)
		}
		body, err := Body(coding, io.NopCloser(iotest.DataErrReader(bytes.NewReader(rec.Body.Bytes()))))
		if err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 11)
		if _, err := io.ReadFull(body, line); err != nil || string(line) != "{\"line\":1}\n" {
			t.Errorf("%s: %q %v", coding, line, err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatHasACodingOrNoBodyIsLeftAlone(t *testing.T) {
	var pool Pool
	for _, set := range []struct {
		name, header, value string
		status              int
	}{
		{"a coding of its own", "Content-Encoding", "br", 200},
		{"a part", "Content-Range", "bytes 0-9/10", 206},
		{"not to be changed", "Cache-Control", "no-transform", 200},
		{"not modified", "ETag", `"x"`, 304},
	} {
		rec := httptest.NewRecorder()
		w := NewWriter(rec, &pool, Gzip)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set(set.header, set.value)
		w.WriteHeader(set.status)
		body := strings.Repeat("x", 2000)
		if set.status == 304 {
			body = ""
		}
		_, _ = io.WriteString(w, body)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if rec.Body.String() != body || rec.Header().Get(set.header) != set.value || rec.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %d bytes, %v", set.name, rec.Body.Len(), rec.Header())
		}
	}
}

func compressed(t testing.TB, coding string, write func(w io.Writer)) []byte {
	var b bytes.Buffer
	var pool Pool
	e, err := pool.get(coding, &b)
	if err != nil {
		t.Fatal(err)
	}
	write(e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestABombIsRefusedLongBeforeItsEnd(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for _, coding := range []string{Gzip, Zstd} {
		bomb := compressed(t, coding, func(w io.Writer) {
			for range 64 {
				_, _ = w.Write(zeros)
			}
		})
		body, err := Body(coding, io.NopCloser(bytes.NewReader(bomb)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, body)
		if !errors.Is(err, ErrBomb) || n > 9<<20 {
			t.Errorf("%s: %d bytes of %d were read: %v", coding, n, 64<<20, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
	// A frame that asks for a window of 2 GiB: nothing of the size is allocated.
	huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00}
	body, err := Body(Zstd, io.NopCloser(bytes.NewReader(huge)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(body); !errors.Is(err, ErrBomb) {
		t.Errorf("a window of 2 GiB: %v", err)
	}
}

func TestABodyIsReadOrRefused(t *testing.T) {
	text := []byte(strings.Repeat(`{"a":1}`, 100))
	lost := errors.New("the connection is lost")
	for _, coding := range []string{"", "identity", Gzip, "X-GZIP", Zstd} {
		b := text
		if c := strings.TrimPrefix(strings.ToLower(coding), "x-"); c == Gzip || c == Zstd {
			b = compressed(t, c, func(w io.Writer) { _, _ = w.Write(text) })
			cut, err := Body(coding, io.NopCloser(bytes.NewReader(b[:len(b)/2])))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(cut); !errors.Is(err, ErrBroken) {
				t.Errorf("%s cut short: %v", coding, err)
			}
			gone, _ := Body(coding, io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(lost))))
			if _, err := io.ReadAll(gone); !errors.Is(err, lost) {
				t.Errorf("%s on a connection that breaks: %v", coding, err)
			}
			plain, _ := Body(coding, io.NopCloser(bytes.NewReader(text)))
			if _, err := io.ReadAll(plain); !errors.Is(err, ErrBroken) {
				t.Errorf("%s that is none: %v", coding, err)
			}
		}
		body, err := Body(coding, io.NopCloser(bytes.NewReader(b)))
		if err != nil {
			t.Fatal(coding, err)
		}
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %d bytes, %v", coding, len(got), err)
		}
	}
	for _, coding := range []string{"br", "deflate", "gzip, gzip", "gzip,zstd", "chunked"} {
		if _, err := Body(coding, http.NoBody); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", coding, err)
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, coding := range []string{Gzip, Zstd} {
		f.Add(coding == Zstd, compressed(f, coding, func(w io.Writer) { _, _ = io.WriteString(w, "text") }))
	}
	f.Fuzz(func(t *testing.T, z bool, b []byte) {
		coding := Gzip
		if z {
			coding = Zstd
		}
		body, err := Body(coding, io.NopCloser(bytes.NewReader(b)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, io.LimitReader(body, 64<<20))
		if err != nil && !errors.Is(err, ErrBroken) && !errors.Is(err, ErrBomb) {
			t.Fatal(err)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	var pool Pool
	text := []byte(strings.Repeat(`{"id":"device-000123","name":"pump","status":"online","values":{"t":21.5}},`, 60))
	for _, coding := range []string{Gzip, Zstd} {
		b.Run(coding+" of "+strconv.Itoa(len(text)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rec := httptest.NewRecorder()
				rec.Header().Set("Content-Type", "application/json")
				w := NewWriter(rec, &pool, coding)
				_, _ = w.Write(text)
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
