package coding

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// MaxRatio is how many times its compressed size a body may have; a text of one byte repeated has about 1,000.
	MaxRatio = 200
	// ratioFrom is from how many bytes on that counts.
	ratioFrom = 1 << 20
	// maxWindow is the largest window of a zstd frame, in bytes (RFC 8878, section 3.1.1.1.2, recommends that 8 MiB be taken).
	maxWindow = 8 << 20
)

// Errors of a compressed body.
var (
	// ErrUnknown is one with a coding, or several, that is not gzip or zstd.
	ErrUnknown = errors.New("the body's content coding is neither gzip nor zstd")
	// ErrBomb is one that grows more than MaxRatio times.
	ErrBomb = fmt.Errorf("the body is compressed more than %d times", MaxRatio)
	// ErrBroken is one that is not what its coding says.
	ErrBroken = errors.New("the compressed body is broken")
)

// Body returns the plain text of body, which has the codings of a Content-Encoding header: body itself without any.
// Nothing is read before the first Read. It has no limit of its own: read it through one.
func Body(header string, body io.ReadCloser) (io.ReadCloser, error) {
	switch strings.ToLower(strings.TrimSpace(header)) {
	case "", "identity":
		return body, nil
	case Gzip, "x-gzip":
		return &reader{in: counter{r: body}, body: body, open: openGzip}, nil
	case Zstd:
		return &reader{in: counter{r: body}, body: body, open: openZstd}, nil
	default:
		return nil, ErrUnknown
	}
}

// Raw is body without what Body made of it: the bytes as they come.
func Raw(body io.ReadCloser) io.ReadCloser {
	if r, ok := body.(*reader); ok {
		return r.body
	}
	return body
}

// Refused says whether a body ended because of what it holds, and not of how it came: the
// connection is whole, and more of it may be read.
func Refused(err error) bool { return errors.Is(err, ErrBomb) || errors.Is(err, ErrBroken) }

type counter struct {
	r   io.Reader
	n   int64
	err error // of the reader, but its end
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err //nolint:wrapcheck // a reader in the middle
}

func openGzip(r io.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	return z, func() {}, err //nolint:wrapcheck // told apart by reader
}

func openZstd(r io.Reader) (io.Reader, func(), error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow),
		zstd.WithDecoderMaxMemory(2*maxWindow))
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // told apart by reader
	}
	return z, z.Close, nil
}

// reader decodes as it is read.
type reader struct {
	in    counter
	body  io.ReadCloser
	open  func(io.Reader) (io.Reader, func(), error)
	plain io.Reader
	end   func()
	n     int64 // plain bytes
	err   error
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.plain == nil {
		var err error
		if r.plain, r.end, err = r.open(&r.in); err != nil {
			r.plain, r.err = nil, r.why(err)
			return 0, r.err
		}
	}
	n, err := r.plain.Read(p)
	r.n += int64(n)
	switch {
	case r.n > ratioFrom && r.n > MaxRatio*r.in.n:
		r.err = ErrBomb
		return 0, r.err
	case err != nil && err != io.EOF:
		r.err = r.why(err)
		return n, r.err
	}
	return n, err //nolint:wrapcheck // io.EOF
}

// why tells a fault of the text from one of the connection, which is returned as it is.
func (r *reader) why(err error) error {
	switch {
	case r.in.err != nil:
		return r.in.err
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return ErrBomb
	default:
		return ErrBroken
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.end != nil {
		r.end()
	}
	r.err = io.ErrClosedPipe
	return r.body.Close() //nolint:wrapcheck // the body's own
}
