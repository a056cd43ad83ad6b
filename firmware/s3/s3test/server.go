package s3test

import (
	"bufio"
	"bytes"
	"crypto/md5" //nolint:gosec // S3 has it in its ETags
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a server of one bucket, images, for who has the keys key and secret. It speaks as much of S3
// as images need: whole and multipart uploads, in the signed chunks that clients send over HTTP, ranges,
// lists, and its errors. It looks at the access key; it checks no signature.
type Server struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string]object
	uploads map[string]map[int][]byte // parts, by id
	gets    int
	down    bool // answers 503
}

type object struct {
	bytes []byte
	came  time.Time
}

// New starts a server, which the test's end closes.
func New(t *testing.T) *Server {
	f := &Server{objects: map[string]object{}, uploads: map[string]map[int][]byte{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// Names returns the objects that are there.
func (f *Server) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.objects))
}

// Age makes all objects older.
func (f *Server) Age(by time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, o := range f.objects {
		o.came = o.came.Add(-by)
		f.objects[name] = o
	}
}

// Spoil changes the last byte of an object.
func (f *Server) Spoil(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.objects[name]
	o.bytes = bytes.Clone(o.bytes)
	o.bytes[len(o.bytes)-1]++
	f.objects[name] = o
}

// Open returns how many uploads are open.
func (f *Server) Open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

// Gets returns how often bytes of objects were asked for.
func (f *Server) Gets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gets
}

// SetDown has the server answer 503, or as it should.
func (f *Server) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
}

func (f *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	case name == "" && r.Method == http.MethodGet:
		f.list(w, r)
	case name == "":
		w.WriteHeader(http.StatusOK)
	case r.URL.Query().Has("uploads"), r.URL.Query().Has("uploadId"):
		f.multipart(w, r, name, body)
	default:
		f.object(w, r, name, body)
	}
}

// list lists the bucket, two objects at a time.
func (f *Server) list(w http.ResponseWriter, r *http.Request) {
	type content struct {
		Key, LastModified string
		Size              int
	}
	var out struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Contents              []content
		IsTruncated           bool
		NextContinuationToken string
	}
	after := r.URL.Query().Get("continuation-token")
	for _, name := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(name, r.URL.Query().Get("prefix")) || name <= after {
			continue
		}
		if len(out.Contents) == 2 {
			out.IsTruncated, out.NextContinuationToken = true, out.Contents[1].Key
			break
		}
		o := f.objects[name]
		out.Contents = append(out.Contents, content{name, o.came.UTC().Format("2006-01-02T15:04:05.000Z"), len(o.bytes)})
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(out) // the client is gone: nobody is left to tell
}

func etag(b []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(b)) } //nolint:gosec // likewise

func (f *Server) object(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	o, ok := f.objects[name]
	switch {
	case r.Method == http.MethodPut:
		f.objects[name] = object{body, time.Now()}
		w.Header().Set("ETag", etag(body))
	case r.Method == http.MethodDelete:
		delete(f.objects, name)
		w.WriteHeader(http.StatusNoContent)
	case !ok:
		refuse(w, 404, "NoSuchKey")
	default:
		if r.Method == http.MethodGet {
			f.gets++
		}
		w.Header().Set("ETag", etag(o.bytes))
		http.ServeContent(w, r, "", o.came, bytes.NewReader(o.bytes))
	}
}

func (f *Server) multipart(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	id := r.URL.Query().Get("uploadId")
	parts, ok := f.uploads[id]
	switch {
	case r.URL.Query().Has("uploads"):
		id = fmt.Sprint("upload", len(f.uploads))
		f.uploads[id] = map[int][]byte{}
		_, _ = fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
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
		f.objects[name] = object{whole, time.Now()}
		delete(f.uploads, id)
		_, _ = fmt.Fprintf(w, "<CompleteMultipartUploadResult><Bucket>images</Bucket><ETag>%s</ETag></CompleteMultipartUploadResult>", etag(whole))
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
