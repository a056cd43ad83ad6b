package deliver

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"muster"
)

// retryAfter is for who is to come again, in seconds.
const retryAfter = 5 * time.Second

// problem is an error as RFC 9457 has it.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// statusOf is the one table from kind to HTTP status of this door. Conflict is an action that is
// over, for good.
func statusOf(k muster.Kind) int {
	switch k {
	case muster.Invalid, muster.TooLarge:
		return http.StatusBadRequest
	case muster.NotFound:
		return http.StatusNotFound
	case muster.Conflict:
		return http.StatusGone
	case muster.Unauthorized:
		return http.StatusUnauthorized
	case muster.Forbidden:
		return http.StatusForbidden
	case muster.Busy:
		return http.StatusTooManyRequests
	case muster.Unavailable, muster.Timeout:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// problemOf returns err as its causer may see it.
func problemOf(err error) problem {
	p := problem{Status: statusOf(muster.KindOf(err)), Code: muster.KindOf(err).String(), Detail: muster.Public(err)}
	if p.Status == http.StatusGone {
		p.Code = "gone"
	}
	return p
}

// write answers with p.
func (p problem) write(w http.ResponseWriter) {
	p.Title = http.StatusText(p.Status)
	h := w.Header()
	for _, name := range []string{"ETag", "Content-Length", "Content-Disposition", "Accept-Ranges"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	switch p.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Signature realm="firmware"`)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone: nobody is left to tell
}
