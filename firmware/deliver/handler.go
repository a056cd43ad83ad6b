package deliver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/firmware/budget"
)

// Limits bound what is sent. A zero field means the default.
type Limits struct {
	PerDevice int           // downloads of a device at a time; 2: more are 429
	Ranges    int           // pieces of a request; 8: more are 416
	Bandwidth int64         // bytes a second of all downloads together; 0 for no limit
	Stall     time.Duration // after which a client that takes no piece is cut; 2 min
}

func (l Limits) withDefaults() Limits {
	or := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&l.PerDevice, 2)
	or(&l.Ranges, 8)
	l.Bandwidth = max(l.Bandwidth, 0)
	if l.Stall <= 0 {
		l.Stall = 2 * time.Minute
	}
	return l
}

const (
	askTime   = 5 * time.Second // bounds the question whether an action goes on
	allowTime = 2 * time.Second // for how long the answer that it does is good
	askAgain  = 3 * time.Second // after which a download under way asks again
)

// mostLeaves is of how many images it is remembered that they may be fetched.
const mostLeaves = 1 << 17

// Budgets count the bytes that devices are sent, by whatever door: 403 when they are spent, 503 when they
// cannot be counted. It is firmware/budget's.
type Budgets interface {
	Left(ctx context.Context, k budget.Key, release int64) (bool, error)
	Take(ctx context.Context, k budget.Key, n, release int64) (int64, error)
	Give(k budget.Key, n int64)
}

// Image is one that is opened to be sent.
type Image struct {
	File *os.File // closed after it was sent
	Size int64    // bytes
	// Still says whether the file is what it was when it was opened, with its bytes proven: Unavailable when
	// not. It is asked before each piece.
	Still func() error
}

// Config is what New needs; all but Limits must be set.
type Config struct {
	Signer *Signer
	// Open returns an image; NotFound when there is none.
	Open func(digest [sha256.Size]byte) (Image, error)
	// Allowed says whether a grant still stands: NotFound for a device that is not there, Conflict
	// for an action that is over (410), Forbidden for one that may not have the image now.
	// It returns how many bytes the images of the action's release have together, of which the
	// budget is made. That it stands is good for 2 s.
	Allowed func(ctx context.Context, g Grant) (release int64, err error)
	Budgets Budgets
	Limits  Limits
	Metrics prometheus.Registerer
	Now     func() time.Time
	Log     *slog.Logger
}

// Handler serves images. It is safe for concurrent use.
type Handler struct {
	Config
	metrics *metrics
	pace    *pace
	leaves  *leaves
	slots   *slots

	mu     sync.Mutex
	ending bool
	going  map[*download]struct{}
}

// New returns the handler of what Open has.
func New(c Config) (*Handler, error) {
	c.Limits = c.Limits.withDefaults()
	h := &Handler{
		Config: c, pace: newPace(c.Limits.Bandwidth, c.Now), leaves: newLeaves(mostLeaves), going: map[*download]struct{}{},
		slots: &slots{most: c.Limits.PerDevice, of: map[muster.DeviceID]int{}},
	}
	var err error
	h.metrics, err = newMetrics(c.Metrics, h.slots.open)
	return h, err
}

// ServeHTTP sends the image that a signed address names.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !getOrHead(w, r) {
		return
	}
	g, err := h.Signer.Check(r, h.Now())
	if err != nil {
		h.refuse(w, err)
		return
	}
	h.Serve(w, r, g)
}

func getOrHead(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "this path takes GET, HEAD"}.write(w)
	return false
}

// Serve sends the image of a grant that the caller has checked, in the ways and limits of
// ServeHTTP. For doors that know the device by other means.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, g Grant) {
	if !getOrHead(w, r) {
		return
	}
	if !h.slots.take(g.Device) {
		h.metrics.downloads.WithLabelValues(resultBusy).Inc()
		problemOf(muster.Errorf(muster.Busy, "the device has %d downloads, which is the most", h.Limits.PerDevice)).write(w)
		return
	}
	defer h.slots.give(g.Device)
	release, err := h.ask(r.Context(), g)
	if err != nil {
		h.refuse(w, err)
		return
	}
	x, err := h.Open(g.Digest)
	if err != nil {
		h.refuse(w, err)
		return
	}
	defer x.File.Close()
	h.send(w, r, g, x, release)
}

// ask asks whether a grant stands, unless that was so a moment ago: who fetches an image in pieces
// of 2 KiB asks the store once in allowTime and not for each. It returns the bytes of the release.
func (h *Handler) ask(ctx context.Context, g Grant) (release int64, err error) {
	k, now := image{g.Device, g.Action, g.Digest}, h.Now()
	if at := h.leaves.look(k); now.Before(at.until) && at.until.Sub(now) <= allowTime {
		return at.release, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	release, err = h.Allowed(ctx, g)
	if err == nil {
		h.leaves.put(k, leave{now.Add(allowTime), release})
	}
	return release, err
}

// refuse answers with err, and logs what is a fault of ours.
func (h *Handler) refuse(w http.ResponseWriter, err error) {
	p, result := problemOf(err), resultRefused
	if p.Status >= http.StatusInternalServerError {
		result = resultFailed
		h.Log.Error("an image could not be sent", "kind", muster.KindOf(err).String(), "err", err)
	}
	h.metrics.downloads.WithLabelValues(result).Inc()
	p.write(w)
}

// send answers with an image of a release, if there is budget left.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, g Grant, x Image, release int64) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	d := &download{
		ResponseWriter: w, h: h, ctx: ctx, cancel: cancel, conn: connOf(r.Context()),
		key: budget.Key{Device: g.Device, Action: g.Action}, release: release, asked: h.Now(), still: x.Still,
		stands: func(ctx context.Context) error {
			_, err := h.ask(ctx, g)
			return err
		},
	}
	if r.Method == http.MethodGet && !h.left(w, d) {
		return
	}
	if !h.enter(d) {
		h.refuse(w, muster.Errorf(muster.Unavailable, "the server stops"))
		return
	}
	defer h.leave(d)
	name := hex.EncodeToString(g.Digest[:])
	head := w.Header()
	head.Set("ETag", `"`+name+`"`)
	head.Set("Content-Type", "application/octet-stream")
	head.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	head.Set("Cache-Control", "private, max-age=31536000, immutable, no-transform")
	tidy(r, x.Size, h.Limits.Ranges)
	http.ServeContent(d, r, "", time.Time{}, x.File)
	result := d.result()
	h.metrics.downloads.WithLabelValues(result).Inc()
	if result == resultCut || result == resultSpent {
		panic(http.ErrAbortHandler) // no half image looks whole
	}
}

// left says whether the budget of d has anything left, and else answers.
func (h *Handler) left(w http.ResponseWriter, d *download) bool {
	left, err := h.Budgets.Left(d.ctx, d.key, d.release)
	switch {
	case err != nil:
		h.refuse(w, err)
	case !left:
		h.metrics.downloads.WithLabelValues(resultSpent).Inc()
		problem{Status: http.StatusForbidden, Code: "budget_spent", Detail: "the device fetched the release's images too often for one action"}.write(w)
	}
	return left
}

// enter keeps d, so that End finds it; false when the server stops.
func (h *Handler) enter(d *download) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending {
		return false
	}
	h.going[d] = struct{}{}
	return true
}

func (h *Handler) leave(d *download) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.going, d)
}

// End cuts the downloads that go on: devices resume them where they are. It is for a server that
// stops, and would wait for the slowest of them.
func (h *Handler) End() {
	h.mu.Lock()
	h.ending = true
	list := make([]*download, 0, len(h.going))
	for d := range h.going {
		list = append(list, d)
	}
	h.mu.Unlock()
	for _, d := range list {
		d.cut()
	}
}
