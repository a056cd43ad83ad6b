package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"time"

	"muster"
	"muster/firmware/budget"
)

var (
	errSpent     = errors.New("the budget is spent")
	errUncounted = errors.New("the HTTP server did not count what was sent")
)

// download is an answer under way. It takes an image from net/http in pieces, each when there is
// bandwidth and budget for it, and hands each on as a file: the connection sends it by sendfile,
// without that it comes through this process.
type download struct {
	http.ResponseWriter
	h       *Handler
	ctx     context.Context //nolint:containedctx // of the request; io.Writer has no place for it
	cancel  context.CancelFunc
	conn    *connection // nil when it goes through net/http
	key     budget.Key
	release int64                           // bytes
	stands  func(ctx context.Context) error // asks again whether the grant does
	asked   time.Time                       // when that was last known
	still   func() error                    // says whether the image is what it was when it was opened

	status int   // 0 until the header is written
	told   bool  // a problem was written in the place of net/http's own words
	sent   int64 // bytes of the body
	err    error // why it ended early
}

// WriteHeader makes net/http's refusals problems.
func (d *download) WriteHeader(status int) {
	if d.status != 0 {
		return
	}
	d.status = status
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		d.told = true
		problem{Status: status, Code: "range_not_satisfiable", Detail: "the image has no such ranges, or they are too many"}.write(d.ResponseWriter)
	case http.StatusPreconditionFailed:
		d.told = true
		problem{Status: status, Code: "stale", Detail: "the image is another than If-Match names"}.write(d.ResponseWriter)
	default:
		if status >= http.StatusBadRequest {
			d.told = true
			problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "internal error"}.write(d.ResponseWriter)
			return
		}
		d.ResponseWriter.WriteHeader(status)
	}
}

// Write sends b as ReadFrom does.
func (d *download) Write(b []byte) (int, error) {
	if d.told {
		return len(b), nil
	}
	for n := 0; n < len(b); {
		part, err := d.piece(int64(len(b)-n), func(w io.Writer, most int64) (int64, error) {
			k, err := w.Write(b[n : n+int(most)])
			return int64(k), err //nolint:wrapcheck // as it is
		})
		if n += int(part); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

// ReadFrom sends what src has. It is what keeps sendfile: io.Copy finds it, and each piece goes on
// as the *os.File that src limits.
func (d *download) ReadFrom(src io.Reader) (n int64, err error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	send := func(w io.Writer, most int64) (int64, error) {
		return io.CopyN(w, limited.R, most) //nolint:wrapcheck // as it is
	}
	if f, ok := limited.R.(*os.File); ok && d.conn != nil && !d.told {
		send = func(w io.Writer, most int64) (int64, error) { return d.straight(w, f, most) }
	}
	for limited.N > 0 {
		part, err := d.piece(limited.N, send)
		n += part
		limited.N -= part
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// straight sends n bytes of a file over the connection itself, and has net/http count them.
func (d *download) straight(w io.Writer, f *os.File, n int64) (int64, error) {
	if err := http.NewResponseController(d.ResponseWriter).Flush(); err != nil { // the header
		return 0, err //nolint:wrapcheck // as it is
	}
	sent, err := d.conn.ReadFrom(&io.LimitedReader{R: f, N: n})
	if sent > 0 {
		if counted, failed := io.Copy(w, &gone{sent}); counted != sent {
			return sent, errors.Join(err, failed, errUncounted)
		}
	}
	if err == nil && sent < n {
		err = io.EOF
	}
	return sent, err //nolint:wrapcheck // as it is
}

// piece sends at most n bytes by send, once they are allowed.
func (d *download) piece(n int64, send func(w io.Writer, most int64) (int64, error)) (int64, error) {
	if err := d.ask(); err != nil {
		return 0, d.fail(err)
	}
	n, err := d.h.Budgets.Take(d.ctx, d.key, min(n, d.h.pace.piece), d.release)
	switch {
	case err != nil:
		return 0, d.fail(err)
	case n == 0:
		return 0, d.fail(errSpent)
	}
	sent := int64(0)
	defer func() { d.h.Budgets.Give(d.key, n-sent) }()
	began := d.h.Now()
	if err := d.h.pace.wait(d.ctx, n); err != nil {
		return 0, d.fail(err)
	}
	if d.h.pace.rate > 0 {
		d.h.metrics.waited.Add(max(d.h.Now().Sub(began), 0).Seconds())
	}
	// A socket's deadline is on the machine's clock. What has none is a test's recorder.
	_ = http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now().Add(d.h.Limits.Stall))
	if err := d.ctx.Err(); err != nil { // cut may have come between, and its deadline before ours
		return 0, d.fail(err)
	}
	if err := d.still(); err != nil {
		return 0, d.fail(fmt.Errorf("look at an image that is sent: %w", err))
	}
	sent, err = send(d.ResponseWriter, n)
	d.sent += sent
	d.h.metrics.bytes.Add(float64(sent))
	if err != nil {
		return sent, d.fail(err)
	}
	return sent, nil
}

// ask has a download that lasts end when its grant does not stand any more: its release was withdrawn, or
// its action is over. Who cannot be asked just then ends nothing.
func (d *download) ask() error {
	now := d.h.Now()
	if now.Sub(d.asked) < askAgain {
		return nil
	}
	d.asked = now
	err := d.stands(d.ctx)
	switch muster.KindOf(err) {
	case muster.NotFound, muster.Conflict, muster.Forbidden:
		return err
	default:
		return nil
	}
}

func (d *download) fail(err error) error {
	if d.err == nil {
		d.err = err
	}
	return err
}

// cut ends the download, also while its client takes nothing.
func (d *download) cut() {
	d.cancel()
	_ = http.NewResponseController(d.ResponseWriter).SetWriteDeadline(time.Now()) // it has none in tests
}

// result is how it ended.
func (d *download) result() string {
	switch {
	case errors.Is(d.err, errSpent):
		return resultSpent
	case d.err != nil:
		return resultCut
	case d.told && d.status == http.StatusInternalServerError:
		return resultFailed
	case d.sent == 0:
		return resultUnsent
	}
	return resultSent
}

// Unwrap is for http.ResponseController.
func (d *download) Unwrap() http.ResponseWriter { return d.ResponseWriter }
