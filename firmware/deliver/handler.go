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
)

// Limits bound what is sent. A zero field means the default.
type Limits struct {
	PerDevice int           // downloads of a device at a time; 2: more are 429
	Budget    int           // times an image is sent to a device for an action, in all its pieces; 3: then 403
	Budgets   int           // that are counted at a time; 131,072: see the overflow at budgets
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
	or(&l.Budget, 3)
	or(&l.Budgets, 1<<17)
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

// Config is what New needs; all but Limits must be set.
type Config struct {
	Signer *Signer
	// Open returns an image, which is closed after it was sent, and its size in bytes; NotFound
	// when there is none.
	Open func(digest [sha256.Size]byte) (*os.File, int64, error)
	// Allowed says whether a grant still stands: NotFound for a device that is not there, Conflict
	// for an action that is over (410), Forbidden for one that may not have the image now.
	// That it does is good for 2 s.
	Allowed func(ctx context.Context, g Grant) error
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
	budgets *budgets
	slots   *slots

	mu     sync.Mutex
	ending bool
	going  map[*download]struct{}
}

// New returns the handler of what Open has.
func New(c Config) (*Handler, error) {
	c.Limits = c.Limits.withDefaults()
	h := &Handler{
		Config: c, pace: newPace(c.Limits.Bandwidth, c.Now), budgets: newBudgets(c.Limits.Budgets), going: map[*download]struct{}{},
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
	if err := h.ask(r.Context(), g); err != nil {
		h.refuse(w, err)
		return
	}
	f, size, err := h.Open(g.Digest)
	if err != nil {
		h.refuse(w, err)
		return
	}
	defer f.Close()
	h.send(w, r, g, f, size)
}

// ask asks whether a grant stands, unless that was so a moment ago: who fetches an image in pieces
// of 2 KiB asks the store once in allowTime and not for each.
func (h *Handler) ask(ctx context.Context, g Grant) error {
	k, now := spending{g.Device, g.Action, g.Digest}, h.Now()
	if until := h.budgets.look(k).until; now.Before(until) && until.Sub(now) <= allowTime {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := h.Allowed(ctx, g)
	if err == nil {
		h.budgets.allow(k, now.Add(allowTime))
	}
	return err
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

// send answers with an image, of which there is budget left.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, g Grant, f *os.File, size int64) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	d := &download{
		ResponseWriter: w, h: h, ctx: ctx, cancel: cancel, conn: connOf(r.Context()),
		spending: spending{g.Device, g.Action, g.Digest}, budget: int64(h.Limits.Budget) * size,
		stands: func(ctx context.Context) error { return h.ask(ctx, g) }, asked: h.Now(),
	}
	if r.Method == http.MethodGet && h.budgets.look(d.spending).used >= d.budget {
		h.metrics.downloads.WithLabelValues(resultSpent).Inc()
		problem{Status: http.StatusForbidden, Code: "budget_spent", Detail: "the device fetched this image too often for one action"}.write(w)
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
	tidy(r, size, h.Limits.Ranges)
	http.ServeContent(d, r, "", time.Time{}, f)
	result := d.result()
	h.metrics.downloads.WithLabelValues(result).Inc()
	if result == resultCut || result == resultSpent {
		panic(http.ErrAbortHandler) // no half image looks whole
	}
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
