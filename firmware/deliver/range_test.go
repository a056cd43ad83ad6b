package deliver_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"muster/firmware/deliver"
)

// pieces returns the bytes of an answer with ranges as "from-to", in their order.
func pieces(t *testing.T, a answer, image []byte) (out []string) {
	t.Helper()
	check := func(contentRange string, body []byte) {
		var from, to, size int
		if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &from, &to, &size); err != nil || size != len(image) || to >= size || from > to {
			t.Fatalf("Content-Range %q of %d bytes", contentRange, len(image))
		}
		if !bytes.Equal(body, image[from:to+1]) {
			t.Errorf("%s has other bytes", contentRange)
		}
		out = append(out, fmt.Sprintf("%d-%d", from, to))
	}
	kind, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "multipart/byteranges" {
		check(a.header.Get("Content-Range"), a.body)
		return out
	}
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for {
		p, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // it is not wrapped
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		check(p.Header.Get("Content-Range"), body)
	}
}

// TestRangesAreAnsweredAsRFC9110Says is about its sections 13.1.5 and 14.
func TestRangesAreAnsweredAsRFC9110Says(t *testing.T) {
	const size = 100_000
	r := newRig(t, size, deliver.Limits{})
	r.release = 1000 * size // its budget is not what this is about
	etag := fmt.Sprintf(`"%x"`, r.digest)
	huge := strings.Repeat("9", 40)
	many := func(n int) string { return "bytes=" + strings.TrimSuffix(strings.Repeat("0-0,", n), ",") }
	for name, c := range map[string]struct {
		header []string
		status int
		pieces string // "from-to ..." of 206
	}{
		"none is the whole":                                       {nil, 200, ""},
		"the first byte":                                          {[]string{"Range", "bytes=0-0"}, 206, "0-0"},
		"from the middle to the end":                              {[]string{"Range", "bytes=666-"}, 206, "666-99999"},
		"the last byte":                                           {[]string{"Range", "bytes=-1"}, 206, "99999-99999"},
		"a suffix longer than the image is all of it":             {[]string{"Range", "bytes=-200000"}, 206, "0-99999"},
		"a suffix of a huge number is all of it":                  {[]string{"Range", "bytes=-" + huge}, 206, "0-99999"},
		"an end after the image is its end":                       {[]string{"Range", "bytes=99990-200000"}, 206, "99990-99999"},
		"an end of a huge number is its end":                      {[]string{"Range", "bytes=99990-" + huge}, 206, "99990-99999"},
		"a beginning at the end is not there":                     {[]string{"Range", "bytes=100000-"}, 416, ""},
		"a beginning of a huge number is not there":               {[]string{"Range", "bytes=" + huge + "-"}, 416, ""},
		"a suffix of no bytes is not there":                       {[]string{"Range", "bytes=-0"}, 416, ""},
		"two pieces":                                              {[]string{"Range", "bytes=0-9,50-59"}, 206, "0-9 50-59"},
		"two pieces in another order":                             {[]string{"Range", "bytes=50-59, 0-9"}, 206, "50-59 0-9"},
		"two that overlap a little":                               {[]string{"Range", "bytes=0-59,50-69"}, 206, "0-59 50-69"},
		"of two one is there":                                     {[]string{"Range", "bytes=100000-,0-9"}, 206, "0-9"},
		"of two one is no byte":                                   {[]string{"Range", "bytes=-0,0-9"}, 206, "0-9"},
		"empty members are nothing":                               {[]string{"Range", "bytes=,, 0-9 ,"}, 206, "0-9"},
		"units know no case":                                      {[]string{"Range", "Bytes=0-9"}, 206, "0-9"},
		"eight pieces":                                            {[]string{"Range", many(8)}, 206, strings.TrimSpace(strings.Repeat("0-0 ", 8))},
		"nine pieces are refused":                                 {[]string{"Range", many(9)}, 416, ""},
		"ten thousand pieces are refused":                         {[]string{"Range", many(10_000)}, 416, ""},
		"pieces of more than the image are refused":               {[]string{"Range", "bytes=0-,0-"}, 416, ""},
		"suffixes of more than the image are refused":             {[]string{"Range", "bytes=-60000,-60000"}, 416, ""},
		"the end before the beginning is refused":                 {[]string{"Range", "bytes=9-0"}, 416, ""},
		"letters are refused":                                     {[]string{"Range", "bytes=a-b"}, 416, ""},
		"signs are refused":                                       {[]string{"Range", "bytes=+1-2"}, 416, ""},
		"two dashes are refused":                                  {[]string{"Range", "bytes=--1"}, 416, ""},
		"a dash alone is refused":                                 {[]string{"Range", "bytes=-"}, 416, ""},
		"a number alone is refused":                               {[]string{"Range", "bytes=5"}, 416, ""},
		"no piece is refused":                                     {[]string{"Range", "bytes="}, 416, ""},
		"one bad piece spoils all":                                {[]string{"Range", "bytes=0-9,x"}, 416, ""},
		"another unit is ignored":                                 {[]string{"Range", "items=0-9"}, 200, ""},
		"no unit is ignored":                                      {[]string{"Range", "0-9"}, 200, ""},
		"the header twice is ignored":                             {[]string{"Range", "bytes=0-9", "Range", "bytes=10-19"}, 200, ""},
		"if the image is this one":                                {[]string{"Range", "bytes=0-9", "If-Range", etag}, 206, "0-9"},
		"if the image is another, the whole":                      {[]string{"Range", "bytes=0-9", "If-Range", `"other"`}, 200, ""},
		"if the image is weakly this one, the whole":              {[]string{"Range", "bytes=0-9", "If-Range", "W/" + etag}, 200, ""},
		"if not changed since, the whole: there is no such date":  {[]string{"Range", "bytes=0-9", "If-Range", "Sat, 01 Jan 2000 00:00:00 GMT"}, 200, ""},
		"a bad range of another image is not looked at":           {[]string{"Range", "bytes=9-0", "If-Range", `"other"`}, 200, ""},
		"too many pieces of another image are not looked at":      {[]string{"Range", many(9), "If-Range", `"other"`}, 200, ""},
		"who has the image is told so":                            {[]string{"If-None-Match", etag}, 304, ""},
		"who has the image is told so, whatever range he asks":    {[]string{"If-None-Match", etag, "Range", "bytes=9-0"}, 304, ""},
		"who wants another image gets none":                       {[]string{"If-Match", `"other"`}, 412, ""},
		"a range of who wants this image":                         {[]string{"If-Match", etag, "Range", "bytes=0-9"}, 206, "0-9"},
		"no compression, whatever is taken":                       {[]string{"Accept-Encoding", "gzip, zstd"}, 200, ""},
		"a resume by SWUpdate, which says nothing of the image":   {[]string{"Range", "bytes=66747-", "Accept", "application/json"}, 206, "66747-99999"},
		"a piece of the size that a modem takes":                  {[]string{"Range", "bytes=4096-6143"}, 206, "4096-6143"},
		"the whole as a range":                                    {[]string{"Range", "bytes=0-99999"}, 206, "0-99999"},
		"a range with spaces within":                              {[]string{"Range", "bytes=0 - 9"}, 206, "0-9"},
		"a condition on a date that is not told is not looked at": {[]string{"If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"}, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r.idle()
			before := r.count("muster_firmware_sent_bytes_total", "")
			a := r.do(http.MethodGet, r.at("d1", 1), c.header...)
			if a.status != c.status || a.err != nil {
				t.Fatalf("status %d, want %d: %v", a.status, c.status, a.err)
			}
			switch a.status {
			case 200:
				if !bytes.Equal(a.body, r.image) || a.header.Get("Content-Length") != "100000" {
					t.Errorf("%d bytes are another image", len(a.body))
				}
			case 206:
				if got := strings.Join(pieces(t, a, r.image), " "); got != c.pieces {
					t.Errorf("the pieces are %s, want %s", got, c.pieces)
				}
			case 416:
				if got := a.header.Get("Content-Range"); got != "bytes */100000" || !bytes.Contains(a.body, []byte(`"code":"range_not_satisfiable"`)) {
					t.Errorf("Content-Range %q, %s", got, a.body)
				}
			}
			if a.status == 200 || a.status == 206 {
				if a.header.Get("ETag") != etag || a.header.Get("Accept-Ranges") != "bytes" || a.header.Get("Content-Encoding") != "" {
					t.Errorf("the headers are %v", a.header)
				}
				return
			}
			if sent := r.count("muster_firmware_sent_bytes_total", "") - before; sent != 0 {
				t.Errorf("%v bytes of the image were sent", sent)
			}
		})
	}
}

func TestHEADSaysWhatGETWouldAndSendsNothing(t *testing.T) {
	r := newRig(t, 5000, deliver.Limits{})
	etag := fmt.Sprintf(`"%x"`, r.digest)
	for _, header := range [][]string{nil, {"Range", "bytes=0-9"}, {"Range", "bytes=9-0"}} { // ranges are of GET
		a := r.do(http.MethodHead, r.at("d1", 1), header...)
		if a.status != 200 || len(a.body) != 0 || a.header.Get("Content-Length") != "5000" || a.header.Get("ETag") != etag {
			t.Errorf("%v: status %d, %v", header, a.status, a.header)
		}
		if a.header.Get("Cache-Control") != "private, max-age=31536000, immutable, no-transform" ||
			a.header.Get("Content-Disposition") != `attachment; filename="`+strings.Trim(etag, `"`)+`"` {
			t.Errorf("the headers are %v", a.header)
		}
	}
	a := r.do(http.MethodPost, r.at("d1", 1))
	if a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, %v", a.status, a.header)
	}
	if sent := r.count("muster_firmware_sent_bytes_total", ""); sent != 0 {
		t.Errorf("%v bytes were sent", sent)
	}
}
