package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster/once"
)

const (
	idempotencyKey = "Idempotency-Key"
	maxKey         = 256 // bytes

	// ownKeys in an operation's Metadata marks one that remembers its Idempotency-Keys itself.
	ownKeys = "own keys"
)

// Once is what the API needs of *once.Keeper.
type Once interface {
	Begin(ctx context.Context, r once.Request) (*once.Turn, *once.Answer, error)
}

// keptHeaders are those of an answer that is given again.
func keptHeaders() []string {
	return []string{"Content-Type", "Location", "ETag", "Content-Disposition", "Cache-Control", "Link", "Preference-Applied"}
}

// replaying does a request with an Idempotency-Key once, and gives its answer to whoever sends it again: see
// package once. A public operation has nobody whose key it could be, and ignores it.
func (a *API) replaying(ctx huma.Context, next func(huma.Context)) {
	req, op := requestOf(ctx.Context()), ctx.Operation()
	key, given := req.Header.Get(idempotencyKey), len(req.Header.Values(idempotencyKey)) > 0
	if !given || reads(req.Method) || req.who.ID == "" || op.Metadata[ownKeys] != nil || op.Metadata[streamed] != nil {
		next(ctx)
		return
	}
	if !PlainKey(key) {
		p := newProblem(http.StatusUnprocessableEntity, "the Idempotency-Key is not 1 to 256 printable ASCII characters")
		p.Errors = []FieldError{{Parameter: "header." + idempotencyKey, Detail: p.Detail}}
		writeProblem(req.rec, p)
		return
	}
	turn, answer, err := a.Once.Begin(ctx.Context(), once.Request{
		Principal: req.who.ID, Secret: a.credential(req.Request), Route: req.Method + " " + req.URL.EscapedPath(), Key: key, Print: asked(req),
	})
	switch {
	case err != nil:
		a.notAgain(req, err)
		return
	case answer != nil:
		again(req.rec, answer)
		return
	}
	defer turn.Abandon() // when the operation panics
	next(huma.WithContext(ctx, turn.Context(ctx.Context())))
	tag(req)
	succeeded := req.rec.status < http.StatusBadRequest
	if err := turn.End(context.WithoutCancel(ctx.Context()), answerOf(req.rec), succeeded); err != nil {
		a.Log.ErrorContext(ctx.Context(), "an answer is not kept for its Idempotency-Key", "operation", op.OperationID, "err", err)
	}
}

// PlainKey says whether key may be an Idempotency-Key.
func PlainKey(key string) bool {
	return key != "" && len(key) <= maxKey && !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
}

// asked is all that r asks for beside its route.
func asked(r *request) []byte {
	head := strings.Join([]string{
		r.URL.RawQuery, r.Header.Get("If-Match"), r.Header.Get("If-None-Match"), r.Header.Get("Prefer"), r.Header.Get("Content-Type"), "",
	}, "\x00")
	return append([]byte(head), r.body...)
}

// credential is the key or cookie by which r was let in.
func (a *API) credential(r *http.Request) string {
	if h := r.Header.Get("Authorization"); h != "" {
		_, key, _ := strings.Cut(h, " ")
		return strings.TrimSpace(key)
	}
	c, err := r.Cookie(a.cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

// answerOf is what w holds; empty when it is not to be kept: too long, sent already, or with a cookie.
func answerOf(w *recorder) once.Answer {
	if w.held == nil || w.Header().Get("Set-Cookie") != "" {
		return once.Answer{}
	}
	a := once.Answer{Status: w.status, Header: map[string]string{}, Body: w.held.Bytes()}
	for _, name := range keptHeaders() {
		if v := w.Header().Get(name); v != "" {
			a.Header[name] = v
		}
	}
	return a
}

func again(w *recorder, a *once.Answer) {
	h := w.Header()
	for name, value := range a.Header {
		h.Set(name, value)
	}
	h.Set("Idempotency-Replayed", "true")
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // it is held
}

// notAgain answers a request that is not done.
func (a *API) notAgain(r *request, err error) {
	p := problemOf(err)
	if why, ok := errors.AsType[once.RefusedError](err); ok {
		p = newProblem(http.StatusConflict, why.Error())
		if why == once.ErrFull {
			p = newProblem(http.StatusTooManyRequests, why.Error())
			r.rec.Header().Set("Retry-After", "600")
		}
		p.Code = string(why)
	}
	if p.Status >= http.StatusInternalServerError {
		a.logFault(r, err)
	}
	writeProblem(r.rec, p)
}
