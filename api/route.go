package api

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/devices/join"
	"muster/notify"
)

const (
	maxBody = 64 << 10 // bytes of a request's body

	requestTime = 30 * time.Second // for a request
	exportTime  = 10 * time.Minute // for one that streams

	// Instead of a scope: anyone is who has a valid key or session, public everyone.
	anyone = "anyone"
	public = "public"
)

// route registers an operation that needs scope. Its errors become problems here.
func route[I, O any](a *API, scope string, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	a.routeFor(requestTime, scope, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		a.recorded(ctx, &op)
		return out, nil
	})
}

func (a *API) routeFor(limit time.Duration, scope string, op *huma.Operation) {
	op.Path = prefix + op.Path
	op.Security = security(scope)
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	op.Middlewares = huma.Middlewares{withDeadline(limit), a.admit(scope), a.conditional, a.reading(scope), a.replaying, a.within, a.strictly, a.noting}
	a.describe(scope, op)
	op.Errors = append(op.Errors, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	if scope != public {
		op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	}
	switch op.Method { // those that have a body
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		op.Errors = append(op.Errors, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
}

func withDeadline(limit time.Duration) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		c, cancel := context.WithTimeout(ctx.Context(), limit)
		defer cancel()
		next(huma.WithContext(ctx, c))
	}
}

// problem returns err as an answer, with Retry-After where waiting helps. Faults
// of ours are logged, and nobody is told more than that.
func (a *API) problem(r *request, err error) error {
	p := a.located(r, problemOf(err))
	if r.Context().Err() != nil {
		// Nobody reads this. The status is nginx's, so that metrics show no fault of ours.
		return &Problem{Title: "Client Closed Request", Status: 499, Code: "client_closed_request", Detail: "the client is gone"}
	}
	if p.Status == http.StatusInternalServerError || p.Status == http.StatusServiceUnavailable {
		a.logFault(r, err)
	}
	if p.Status == http.StatusPreconditionFailed {
		known := *p
		known.ChangedBy = a.changedBy(r)
		p = &known
	}
	if p.Status == http.StatusUnauthorized {
		return huma.ErrorWithHeaders(p, http.Header{"Www-Authenticate": {challenge(r.Request)}})
	}
	s := retryAfter(p.Status)
	if l, ok := errors.AsType[*join.WaitError](err); ok {
		s = int(math.Ceil(l.Wait.Seconds()))
	}
	if l, ok := errors.AsType[*accounts.WaitError](err); ok {
		s = int(math.Ceil(l.Wait.Seconds()))
	}
	if l, ok := errors.AsType[*notify.WaitError](err); ok {
		s = int(math.Ceil(l.Wait.Seconds()))
	}
	if s > 0 {
		return huma.ErrorWithHeaders(p, http.Header{"Retry-After": {strconv.Itoa(s)}})
	}
	return p
}

func (a *API) logFault(r *request, err error) {
	if r.Context().Err() != nil {
		return // the client is gone, and what it asked for was broken off
	}
	a.Log.Error("a request failed", "request", r.id, "route", r.route, "kind", muster.KindOf(err).String(), "err", err)
}

// refuse answers with err before the operation is run.
func (a *API) refuse(ctx huma.Context, err error) {
	_, w := humago.Unwrap(ctx)
	p := a.located(requestOf(ctx.Context()), problemOf(err))
	if p.Status == http.StatusInternalServerError {
		a.logFault(requestOf(ctx.Context()), err)
	}
	writeProblem(w, p)
}

// page is a list's answer. Next is the cursor of the page after it, null at the end.
type page[T any] struct {
	Items []T     `json:"items" nullable:"false"`
	Next  *string `json:"next" doc:"Cursor of the next page, null at the end"`
}

type body[T any] struct{ Body T }

// list wraps items so that none are [] and not null.
func list[T any](items []T, next string) *body[page[T]] {
	p := page[T]{Items: append(make([]T, 0, len(items)), items...)}
	if next != "" {
		p.Next = &next
	}
	return &body[page[T]]{p}
}

// stampFormat is RFC 3339 in UTC with microseconds.
const stampFormat = "2006-01-02T15:04:05.000000Z"

func stamp(m muster.Micros) string { return m.Time().Format(stampFormat) }

// stampOrNull is null for a time that has not come.
func stampOrNull(m muster.Micros) *string {
	if m == 0 {
		return nil
	}
	s := stamp(m)
	return &s
}
