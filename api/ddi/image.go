package ddi

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// md5Suffix is that of the digest of an image, as the program md5sum writes it.
const md5Suffix = ".MD5SUM"

// file returns the image that the path names, with its offer. A name is only looked for among
// those of the release.
func (h *Handler) file(q *request) (desk.Offer, desk.File, error) {
	o, err := h.module(q)
	if err != nil {
		return o, desk.File{}, err
	}
	for _, f := range o.Release.Files {
		if f.Filename == q.file {
			return o, f, nil
		}
	}
	return o, desk.File{}, errPath()
}

func (h *Handler) md5sum(w *recorder, q *request) {
	_, f, err := h.file(q)
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	body := f.MD5 + "  " + f.Filename
	deadlined(w)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Disposition", "attachment;filename="+f.Filename+md5Suffix)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if q.Method != http.MethodHead {
		_, _ = io.WriteString(w, body) // the device is gone: nobody is left to tell
	}
}

// artifact sends an image. That it is fetched is a fact of its own: not every client says so.
func (h *Handler) artifact(w *recorder, q *request) {
	o, f, err := h.file(q)
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	if q.Method == http.MethodGet && o.State.InFlight() {
		if err := h.fetches(q, &o, f); err != nil {
			h.refuse(w, q, err)
			return
		}
	}
	// That of an answer before, on the same connection, would cut it. A test's writer has none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	h.Images.Serve(w, q.Request, q.device, o.Action, f.SHA256)
	if q.Method == http.MethodGet && toTheEnd(w, f.Size) {
		h.memory.with(q.device, func(s *seen) { s.of(o.Action).whole = true })
	}
}

// fetches reports that a device downloads: at its first request, when it begins again after it
// had begun to install (hawkBit's issues 866 and 1190: a loop, which ends by itself), and now
// and then as progress. Never once for each range.
func (h *Handler) fetches(q *request, o *desk.Offer, f desk.File) error {
	start := rangeStart(q.Header.Get("Range"))
	if start < 0 {
		return nil // from its end, or several: how far it is is not known
	}
	keep := false
	h.memory.with(q.device, func(s *seen) {
		s = s.of(o.Action)
		switch again := start == 0 && whole(q.Header.Get("Range")); {
		case o.State == rollout.Offered, again && o.State > rollout.Downloaded:
			s.whole, keep = false, true
		case o.State == rollout.Downloading:
			keep = h.Now().Sub(s.progress) >= coalesced
		}
		if keep {
			s.progress = h.Now()
		}
	})
	if !keep {
		return nil
	}
	fact := rollout.Fact{Event: rollout.SaysDownloading, Action: o.Action, Progress: int(min(start, f.Size) * 100 / max(f.Size, 1))}
	return gone(h.Desk.Report(q.Context(), director.Report{Device: q.device, Fact: fact}))
}

// gone makes what is about an action that is over one error: hawkBit answers 410.
func gone(err error) error {
	if k := muster.KindOf(err); err != nil && (k == muster.NotFound || k == muster.Stale) {
		return errOver()
	}
	return err
}

func errOver() error {
	return muster.Errorf(muster.Stale, "the action is over, or never was the device's")
}

// whole says whether a request asks for all from the beginning.
func whole(header string) bool { return header == "" || strings.TrimSpace(header) == "bytes=0-" }

// rangeStart returns the first byte of a single range, 0 for no range, and -1 for what does not
// say.
func rangeStart(header string) int64 {
	if header == "" {
		return 0
	}
	spec, ok := strings.CutPrefix(strings.TrimSpace(header), "bytes=")
	first, _, dash := strings.Cut(spec, "-")
	n, err := strconv.ParseInt(strings.TrimSpace(first), 10, 64)
	if !ok || !dash || strings.Contains(spec, ",") || err != nil || n < 0 {
		return -1
	}
	return n
}

// toTheEnd says whether an answer was sent whole, and ends where the image ends.
func toTheEnd(rec *recorder, size int64) bool {
	switch rec.status {
	case http.StatusOK:
		return rec.sent == size
	case http.StatusPartialContent:
		first, last, ok := strings.Cut(strings.TrimPrefix(rec.Header().Get("Content-Range"), "bytes "), "-")
		last, _, _ = strings.Cut(last, "/")
		from, err1 := strconv.ParseInt(first, 10, 64)
		to, err2 := strconv.ParseInt(last, 10, 64)
		return ok && err1 == nil && err2 == nil && to == size-1 && rec.sent == to-from+1
	}
	return false
}
