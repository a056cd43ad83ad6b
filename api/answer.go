package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/api/coding"
	"muster/api/strict"
	"muster/internal/precondition"
)

// streamed in an operation's Metadata marks one that reads its body as it comes: it is neither held nor checked
// before, and takes no Idempotency-Key.
const streamed = "streamed"

func reads(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// describe adds to op what the middlewares make of it.
func (a *API) describe(scope string, op *huma.Operation) {
	op.BodyReadTimeout = -1 // ours is kept by paced and reading
	if reads(op.Method) {
		if op.Responses == nil {
			op.Responses = map[string]*huma.Response{}
		}
		op.Responses["304"] = &huma.Response{Description: "The ETag is one of If-None-Match"}
		return
	}
	more := []int{http.StatusRequestTimeout, http.StatusPreconditionFailed}
	if scope != public && op.Metadata[ownKeys] == nil && op.Metadata[streamed] == nil {
		more = append(more, http.StatusConflict)
		longest := maxKey
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: idempotencyKey, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &longest},
			Description: "The same key with the same request gives the same answer for 24 hours, and does nothing more",
		})
	}
	for _, status := range more {
		if !slices.Contains(op.Errors, status) {
			op.Errors = append(op.Errors, status)
		}
	}
}

// conditional gives documents and lists their ETag and answers If-None-Match. A change that is bound by If-Match
// where nothing has an ETag is refused: it would be made blindly.
func (a *API) conditional(ctx huma.Context, next func(huma.Context)) {
	req := requestOf(ctx.Context())
	if !reads(req.Method) && req.Header.Get("If-Match") != "" && !takesHeader(ctx.Operation(), "If-Match") {
		writeProblem(req.rec, newProblem(http.StatusPreconditionFailed, "this operation has no ETag that If-Match could name"))
		return
	}
	req.rec.hold(&a.buffers)
	next(ctx)
	tag(req)
	req.rec.whole()
	_ = req.rec.release() // the client is gone: nobody is left to tell
}

func takesHeader(op *huma.Operation, name string) bool {
	return slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.In == "header" && strings.EqualFold(p.Name, name) })
}

// tag gives a held answer its ETag: a strong one over the representation, with the tag of the document before it
// when there is one (see documented). It turns the answer into 304 when the client has it.
func tag(req *request) {
	rec := req.rec
	if rec.held == nil || rec.status != http.StatusOK {
		return
	}
	h := rec.Header()
	if h.Get("ETag") == "" {
		if !reads(req.Method) && req.document == "" {
			return
		}
		sum := sha256.Sum256(rec.held.Bytes())
		var b [64]byte
		t := append(b[:0], '"')
		if req.document != "" {
			t = append(append(t, req.document...), '.')
		}
		t = base64.RawURLEncoding.AppendEncode(t, sum[:12])
		h["Etag"] = []string{string(append(t, '"'))}
	}
	if !reads(req.Method) {
		return
	}
	if h.Get("Cache-Control") == "" {
		h["Cache-Control"] = []string{"private, no-cache"}
	}
	if none := req.Header.Get("If-None-Match"); none != "" && knows(none, h.Get("ETag")) {
		rec.held.Reset()
		rec.status, rec.bytes = http.StatusNotModified, 0
		h.Del("Content-Type")
	}
}

// knows says whether a list of entity tags has tag, by weak comparison (RFC 9110, section 13.1.2).
func knows(list, tag string) bool {
	if strings.TrimSpace(list) == "*" {
		return true
	}
	for t := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(t), "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// Conditions is the part of an input that binds a change to what the client has seen. It is exported because huma
// looks into exported embedded fields only. See bound.
type Conditions struct {
	IfMatch string `header:"If-Match" maxLength:"4096" doc:"Change only what has one of these ETags; what devices say, counts and presence do not matter. * for anything that exists"`
}

// PutConditions are those of an operation that makes or replaces.
type PutConditions struct {
	Conditions
	IfNoneMatch string `header:"If-None-Match" maxLength:"8" doc:"* to make and never replace"`
}

// documented says that the answer is a document, what is written in which has the tag t. The answer's ETag begins
// with it, and If-Match is about it alone.
func documented(ctx context.Context, t string) { requestOf(ctx).document = t }

// tagOf is the tag of a document whose written part is v, which marshals as JSON.
func tagOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // views are plain data
		panic(fmt.Errorf("write a document for its tag: %w", err))
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// bound returns ctx with c's condition: the room that changes a T asks for it in the step of the change
// (internal/precondition), and gets a Stale error unless its tag is named.
func bound[T any](ctx context.Context, c Conditions, tagOf func(T) string) (context.Context, error) {
	return boundPut(ctx, PutConditions{Conditions: c}, tagOf)
}

// boundPut is bound for what makes or replaces.
func boundPut[T any](ctx context.Context, c PutConditions, tagOf func(T) string) (context.Context, error) {
	if c.IfMatch == "" && c.IfNoneMatch == "" {
		return ctx, nil
	}
	tags, err := parseTags(c.IfMatch)
	if err != nil {
		return ctx, err
	}
	if c.IfNoneMatch != "" && strings.TrimSpace(c.IfNoneMatch) != "*" {
		return ctx, muster.InvalidAt("If-None-Match", "If-None-Match of a change is *")
	}
	return precondition.With(ctx, func(current any) error {
		have, is := current.(T)
		switch {
		case current != nil && !is:
			return nil // something else that changes with it
		case !is && c.IfMatch != "":
			return muster.Errorf(muster.Stale, "there is none that If-Match could name")
		case is && c.IfNoneMatch != "":
			return muster.Errorf(muster.Stale, "there is one already")
		case is && c.IfMatch != "" && !slices.Contains(tags, "*") && !slices.Contains(tags, tagOf(have)):
			return muster.Errorf(muster.Stale, "it was changed meanwhile: get it again")
		}
		return nil
	}), nil
}

// parseTags reads If-Match (RFC 9110, section 13.1.1) and returns the document's part of each strong tag.
func parseTags(header string) ([]string, error) {
	var out []string
	parts := strings.Split(header, ",")
	if len(parts) > maxTags {
		return nil, muster.InvalidAt("If-Match", "If-Match has %d tags, at most %d are allowed", len(parts), maxTags)
	}
	for _, t := range parts {
		t = strings.TrimSpace(t)
		switch {
		case t == "" && len(parts) == 1, strings.HasPrefix(t, "W/"): // none; a weak tag never matches
		case t == "*":
			out = append(out, t)
		case len(t) < 3 || t[0] != '"' || t[len(t)-1] != '"':
			return nil, muster.InvalidAt("If-Match", `If-Match is *, or ETags in quotes with commas between`)
		default:
			doc, _, _ := strings.Cut(t[1:len(t)-1], ".")
			if doc != "*" {
				out = append(out, doc)
			}
		}
	}
	return out, nil
}

// reading reads a JSON body whole, within its bound and its time, and asks again whether who sends it may do what needs
// scope.
func (a *API) reading(scope string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) { a.read(ctx, scope, next) }
}

func (a *API) read(ctx huma.Context, scope string, next func(huma.Context)) {
	op := ctx.Operation()
	if !takesJSON(op) {
		next(ctx)
		return
	}
	req := requestOf(ctx.Context())
	body, err := readAll(req.Request, op.MaxBodyBytes)
	_, w := humago.Unwrap(ctx)
	if err != nil { // the deadline stays: net/http reads on for a while, and may not wait for what does not come
		writeProblem(w, bodyProblem(err, op.MaxBodyBytes))
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // or what follows would be cut by it
	if err := a.authorize(req, scope); err != nil {                // reading may have taken long
		a.refuseAccess(ctx, scope, err)
		return
	}
	req.body = body
	req.Body = io.NopCloser(bytes.NewReader(body))
	next(ctx)
}

// strictly refuses a JSON body that programs read differently.
func (a *API) strictly(ctx huma.Context, next func(huma.Context)) {
	req := requestOf(ctx.Context())
	if p := strictProblem(req.Header.Get("Content-Type"), req.body); p != nil {
		writeProblem(req.rec, p)
		return
	}
	next(ctx)
}

func takesJSON(op *huma.Operation) bool {
	if op.RequestBody == nil || op.Metadata[streamed] != nil {
		return false
	}
	return op.RequestBody.Content["application/json"] != nil || op.RequestBody.Content[mergePatch] != nil
}

var errTooLong = errors.New("the body is too long")

func readAll(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength >= limit {
		return nil, errTooLong
	}
	var b bytes.Buffer
	b.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	n, err := b.ReadFrom(io.LimitReader(r.Body, limit))
	if err == nil && n == limit {
		err = errTooLong
	}
	return b.Bytes(), err //nolint:wrapcheck // told apart by bodyProblem
}

func bodyProblem(err error, limit int64) *Problem {
	var slow net.Error
	switch {
	case errors.Is(err, errTooLong):
		return newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is not shorter than %d bytes", limit))
	case errors.Is(err, coding.ErrBomb):
		return newProblem(http.StatusRequestEntityTooLarge, err.Error())
	case errors.Is(err, coding.ErrBroken):
		return newProblem(http.StatusBadRequest, err.Error())
	case errors.As(err, &slow) && slow.Timeout():
		return newProblem(http.StatusRequestTimeout, "the body did not come in time")
	default:
		return newProblem(http.StatusBadRequest, "the body broke off")
	}
}

// strictProblem is what is wrong with a body that says it is JSON; the type of others is refused later.
func strictProblem(contentType string, body []byte) *Problem {
	if len(body) == 0 || !saysJSON(contentType) {
		return nil
	}
	f, faulty := errors.AsType[*strict.FaultError](strict.Check(body))
	if !faulty {
		return nil
	}
	p := newProblem(http.StatusBadRequest, "the body is not JSON")
	if f.Value {
		p = newProblem(http.StatusUnprocessableEntity, "the body has a value that cannot be kept")
	}
	p.Errors = []FieldError{{Pointer: "#" + f.Pointer, Detail: fmt.Sprintf("%s (at byte %d)", f.Detail, f.Offset)}}
	return p
}

func saysJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return contentType == "" || err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// document serves the OpenAPI document, which is written when it is first asked for.
func (a *API) document() http.HandlerFunc {
	type written struct {
		text []byte
		etag string
	}
	write := sync.OnceValues(func() (written, error) {
		text, err := json.Marshal(a.huma.OpenAPI())
		sum := sha256.Sum256(text)
		return written{text, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}, err
	})
	return func(w http.ResponseWriter, r *http.Request) {
		doc, err := write()
		if err != nil {
			err = fmt.Errorf("write the OpenAPI document: %w", err)
			a.logFault(requestOf(r.Context()), err)
			writeProblem(w, problemOf(err))
			return
		}
		w.Header().Set("ETag", doc.etag)
		if none := r.Header.Get("If-None-Match"); none != "" && knows(none, doc.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		writeBody(w, "application/json", doc.text)
	}
}
