package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// Problem is an error as RFC 9457 has it. It never repeats a value that was sent.
type Problem struct { //nolint:errname // RFC 9457 calls it so
	Title  string       `json:"title" doc:"The status in words" example:"Not Found"`
	Status int          `json:"status" doc:"The HTTP status" example:"404"`
	Code   string       `json:"code" doc:"What went wrong, stable, for programs" example:"not_found"`
	Detail string       `json:"detail" doc:"What went wrong, for people"`
	Errors []FieldError `json:"errors,omitempty" doc:"What is wrong with which field"`
	// ChangedBy is of stale.
	ChangedBy *ProblemChange `json:"changed_by,omitempty" doc:"To signed-in users: who changed it meanwhile, of the code stale"`
}

// FieldError says what is wrong with one field or parameter.
type FieldError struct {
	Pointer   string `json:"pointer,omitempty" doc:"JSON pointer to the field of the body" example:"#/name"`
	Parameter string `json:"parameter,omitempty" doc:"The parameter's place and name" example:"query.limit"`
	Detail    string `json:"detail" doc:"What is wrong with it"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problems.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// statusOf is the one table from kind to HTTP status.
func statusOf(k muster.Kind) int {
	switch k {
	case muster.Invalid:
		return http.StatusUnprocessableEntity
	case muster.NotFound:
		return http.StatusNotFound
	case muster.Conflict:
		return http.StatusConflict
	case muster.Unauthorized:
		return http.StatusUnauthorized
	case muster.Forbidden:
		return http.StatusForbidden
	case muster.Busy:
		return http.StatusTooManyRequests
	case muster.Unavailable:
		return http.StatusServiceUnavailable
	case muster.TooLarge:
		return http.StatusRequestEntityTooLarge
	case muster.Stale:
		return http.StatusPreconditionFailed
	case muster.Timeout:
		return http.StatusRequestTimeout
	default:
		return http.StatusInternalServerError
	}
}

// codeOf is the code of a problem that HTTP itself gives rise to.
func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "malformed"
	case http.StatusMethodNotAllowed:
		return "method_not_allowed"
	case http.StatusNotAcceptable:
		return "not_acceptable"
	case http.StatusUnsupportedMediaType:
		return "unsupported_media_type"
	case http.StatusGone:
		return "gone"
	case http.StatusRequestedRangeNotSatisfiable:
		return "range_not_satisfiable"
	case http.StatusInsufficientStorage:
		return insufficientStorage
	}
	for k := muster.Internal; k <= muster.Timeout; k++ {
		if statusOf(k) == status {
			return k.String()
		}
	}
	return muster.Internal.String()
}

// retryAfter is how many seconds a client should wait after a status, 0 for none.
func retryAfter(status int) int {
	switch status {
	case http.StatusTooManyRequests:
		return 1
	case http.StatusServiceUnavailable:
		return 5
	default:
		return 0
	}
}

func newProblem(status int, detail string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Code: codeOf(status), Detail: detail}
}

// problemOf returns err as its causer may see it.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	_, ours := errors.AsType[*muster.Error](err)
	if !ours && errors.Is(err, context.DeadlineExceeded) {
		return newProblem(http.StatusServiceUnavailable, "this took too long")
	}
	p := newProblem(statusOf(muster.KindOf(err)), muster.Public(err))
	for _, f := range muster.FieldsOf(err) {
		p.Errors = append(p.Errors, FieldError{Pointer: "#/" + f, Detail: p.Detail})
	}
	if _, ok := errors.AsType[*accounts.NeedCodeError](err); ok {
		p.Code = codeSecondFactor
	}
	return p
}

// codeSecondFactor says that the password is right and a code is asked for.
const codeSecondFactor = "second_factor_needed"

// useOwnProblems makes huma answer with Problem, and take members' names as they are
// spelled. NewError and ValidateStrictCasing are huma's hooks for that, package
// variables; they are set once and to what never changes.
var useOwnProblems = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return validationProblem(status, msg, errs)
	}
})

// validationProblem is what huma's own checks give. It takes over where and what,
// and never the value.
func validationProblem(status int, msg string, errs []error) *Problem {
	p := newProblem(status, msg)
	switch status {
	case http.StatusInternalServerError:
		p.Detail = "internal error"
		return p
	case http.StatusUnsupportedMediaType:
		p.Detail = "the body's content type is not application/json"
		return p
	case http.StatusBadRequest:
		if len(errs) > 0 {
			p.Detail = "the body is not JSON"
		}
		return p
	}
	for _, err := range errs {
		d, ok := errors.AsType[*huma.ErrorDetail](err)
		if !ok {
			continue
		}
		p.Errors = append(p.Errors, fieldError(d))
	}
	return p
}

func fieldError(d *huma.ErrorDetail) FieldError {
	f := FieldError{Detail: d.Message}
	if path, ok := strings.CutPrefix(d.Location, "body"); ok {
		f.Pointer = pointer(path)
		if strings.HasPrefix(f.Detail, "json: ") || strings.HasPrefix(f.Detail, "parsing ") {
			f.Detail = "has the wrong type" // the decoder's words may repeat the value
		}
		return f
	}
	f.Parameter = d.Location
	return f
}

// pointer turns huma's ".items[3].name" into the URI fragment "#/items/3/name".
func pointer(path string) string {
	path = strings.NewReplacer("~", "~0", "/", "~1").Replace(path)
	path = strings.NewReplacer("[", "/", "]", "", ".", "/").Replace(path)
	return "#" + path
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *Problem) {
	h := w.Header()
	h.Set("Content-Type", problemType)
	h.Set("Cache-Control", "no-store")
	if s := retryAfter(p.Status); s > 0 && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(s))
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone: nobody is left to tell
}
