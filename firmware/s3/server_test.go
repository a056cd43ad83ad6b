package s3_test

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a server that speaks as much of S3 as an image needs: whole and multipart uploads, in the
// signed chunks that clients send over HTTP, ranges, and its errors. It looks at the access key; it
// checks no signature.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string][]byte
	uploads map[string]map[int][]byte // parts, by id
	aborted int
	down    bool // answers 503
}

func newFake(t *testing.T) *fake {
	f := &fake{objects: map[string][]byte{}, uploads: map[string]map[int][]byte{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// names returns the objects that are there.
func (f *fake) names() (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.objects {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := payload(r)
	if err != nil {
		refuse(w, 400, "IncompleteBody")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	bucket, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case f.down:
		refuse(w, 503, "SlowDown")
	case !strings.Contains(r.Header.Get("Authorization"), "Credential=key/"):
		refuse(w, 403, "InvalidAccessKeyId")
	case bucket != "images":
		refuse(w, 404, "NoSuchBucket")
	case r.URL.Query().Has("location"):
		_, _ = io.WriteString(w, `<LocationConstraint>us-east-1</LocationConstraint>`)
	case name == "":
		w.WriteHeader(http.StatusOK)
	case r.URL.Query().Has("uploads"), r.URL.Query().Has("uploadId"):
		f.multipart(w, r, name, body)
	default:
		f.object(w, r, name, body)
	}
}

func etag(b []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(b)) }

func (f *fake) object(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	b, ok := f.objects[name]
	switch {
	case r.Method == http.MethodPut:
		f.objects[name] = body
		w.Header().Set("ETag", etag(body))
	case r.Method == http.MethodDelete:
		delete(f.objects, name)
		w.WriteHeader(http.StatusNoContent)
	case !ok:
		refuse(w, 404, "NoSuchKey")
	default:
		w.Header().Set("ETag", etag(b))
		http.ServeContent(w, r, "", time.Unix(1_800_000_000, 0), bytes.NewReader(b))
	}
}

func (f *fake) multipart(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	id := r.URL.Query().Get("uploadId")
	parts, ok := f.uploads[id]
	switch {
	case r.URL.Query().Has("uploads"):
		id = fmt.Sprint("upload", len(f.uploads))
		f.uploads[id] = map[int][]byte{}
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case !ok:
		refuse(w, 404, "NoSuchUpload")
	case r.Method == http.MethodPut:
		n, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
		if err != nil {
			refuse(w, 400, "InvalidPart")
			return
		}
		parts[n] = body
		w.Header().Set("ETag", etag(body))
	case r.Method == http.MethodDelete:
		delete(f.uploads, id)
		f.aborted++
		w.WriteHeader(http.StatusNoContent)
	default:
		var done struct {
			Part []struct {
				PartNumber int
				ETag       string
			}
		}
		var whole []byte
		err := xml.Unmarshal(body, &done)
		for _, p := range done.Part {
			if strings.Trim(p.ETag, `"`) != strings.Trim(etag(parts[p.PartNumber]), `"`) {
				err = errors.New("another part")
			}
			whole = append(whole, parts[p.PartNumber]...)
		}
		if err != nil {
			refuse(w, 400, "InvalidPart")
			return
		}
		f.objects[name] = whole
		delete(f.uploads, id)
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>images</Bucket><ETag>%s</ETag></CompleteMultipartUploadResult>", etag(whole))
	}
}

// payload reads a body, out of its signed chunks if it comes in them.
func payload(r *http.Request) ([]byte, error) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return io.ReadAll(r.Body)
	}
	var out []byte
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		n, err := strconv.ParseInt(size, 16, 32)
		if err != nil {
			return nil, err
		}
		chunk := make([]byte, n+2)
		if n == 0 {
			break
		}
		if _, err := io.ReadFull(in, chunk); err != nil {
			return nil, err
		}
		out = append(out, chunk[:n]...)
	}
	if want := r.Header.Get("X-Amz-Decoded-Content-Length"); want != strconv.Itoa(len(out)) {
		return nil, io.ErrUnexpectedEOF
	}
	_, err := io.Copy(io.Discard, in)
	return out, err
}
