package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/ingest"
)

const (
	maxWriteJSON = 8 << 20        // bytes of a JSON body
	writeTime    = 24 * time.Hour // for a stream: each of its parts has its own time
)

type writeInput struct {
	ContentType string `header:"Content-Type" doc:"application/json, or application/x-ndjson"`
	Device      string `query:"device" maxLength:"128" doc:"Whose all messages are; the body is then as over MQTT. Without it each message names its device"`
	Create      bool   `query:"create" doc:"Make devices that do not exist; needs devices:write besides"`
}

// takenProblem is a problem that says what was taken all the same.
type takenProblem struct { //nolint:errname // RFC 9457 calls it so
	Problem
	Accepted      int              `json:"accepted" required:"false"`
	RejectedCount int              `json:"rejected_count" required:"false"`
	Rejected      []refusedMessage `json:"rejected" required:"false" nullable:"false"`
	Line          int              `json:"line" required:"false" doc:"The last line that was looked at; what follows was not taken"`
}

func (a *API) writeRoutes() {
	op := huma.Operation{
		OperationID: "write-telemetry", Method: http.MethodPost, Path: "/telemetry", Tags: []string{"telemetry"},
		Summary: "Write telemetry of one or many devices",
		Description: "A JSON body, up to 8 MiB, is a message {\"device\":\"d1\",...} in one of the forms taken over MQTT, an array of such, or " +
			"{\"devices\":{\"d1\":[...],...}}. An NDJSON body has one message a line, of up to 256 KiB, and may go on for ever: when the log is full it is " +
			"read more slowly. The answer comes when all is durable. Messages that break a rule are refused one by one; when all are, the answer is a problem. " +
			"A problem says how many messages were taken before it.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[written](), true, "")},
		}}},
		Errors:   []int{408},
		Metadata: map[string]any{unaudited: true, streamed: true},
	}
	a.routeFor(writeTime, accounts.TelemetryWrite, &op)
	huma.Register(a.huma, op, func(_ context.Context, in *writeInput) (*huma.StreamResponse, error) {
		kind, _, err := mime.ParseMediaType(in.ContentType)
		if err != nil || kind != "application/json" && kind != "application/x-ndjson" && kind != "application/ndjson" {
			return nil, newProblem(http.StatusUnsupportedMediaType, "the body is application/json or application/x-ndjson")
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { a.write(hc, in, kind == "application/json") }}, nil //nolint:contextcheck // hc has it
	})
	// Described after the fact: huma would read a JSON body itself.
	post := a.huma.OpenAPI().Paths[op.Path].Post
	for _, answer := range post.Responses {
		if media := answer.Content[problemType]; media != nil {
			media.Schema = a.huma.OpenAPI().Components.Schemas.Schema(typeOf[takenProblem](), true, "")
		}
	}
	post.Responses["422"].Extensions = map[string]any{codesExtension: []string{"rejected"}}
	post.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json":     {Schema: &huma.Schema{Description: "A message, an array of them, or devices with theirs"}},
		"application/x-ndjson": {Schema: &huma.Schema{Type: "string", Description: "A message a line"}},
	}}
	a.influxRoutes()
}

func (a *API) write(hc huma.Context, in *writeInput, whole bool) {
	r, rw := humago.Unwrap(hc)
	w := &taking{api: a, r: requestOf(hc.Context()), ctx: hc.Context()}
	w.who = func() (accounts.Principal, error) { return a.writer(a.Authenticate(r)) }
	defer w.close()
	err := w.begin(in.Device, in.Create)
	if err == nil {
		err = w.finish(w.native(rw, whole))
	}
	if err == nil && w.out.Accepted == 0 && w.out.RejectedCount > 0 {
		err = errAllRefused(w)
	}
	if err != nil {
		w.fail(rw, err)
		return
	}
	w.answer(rw, http.StatusOK, "application/json", &w.out)
}

// writer lets through who may write telemetry.
func (a *API) writer(who accounts.Principal, err error) (accounts.Principal, error) {
	if err == nil && !who.Allows(accounts.TelemetryWrite) {
		err = muster.Errorf(muster.Forbidden, "this needs the scope %s", accounts.TelemetryWrite)
	}
	return who, err
}

func errAllRefused(w *taking) error {
	p := newProblem(http.StatusUnprocessableEntity, fmt.Sprintf("nothing was accepted: %s", w.out.Rejected[0].Detail))
	p.Code = "rejected"
	return p
}

// native takes a body in our own forms.
func (w *taking) native(rw http.ResponseWriter, whole bool) error {
	size, limit := int64(maxWriteLine), writeTime
	if n := w.r.ContentLength; whole {
		limit = exportTime
		if n > maxWriteJSON {
			return errTooLarge(maxWriteJSON)
		}
		size = n
		if n < 0 { // unknown, or compressed
			size = maxWriteJSON
		}
	}
	st, err := w.open(rw, max(size, 4<<10), limit)
	if err != nil {
		return err
	}
	if !whole {
		return w.lines(st, ingest.FormJSON, w.jsonLine)
	}
	return w.whole(st)
}

// whole takes a JSON body, after all of it has come.
func (w *taking) whole(st *openBody) error {
	var text bytes.Buffer
	if w.r.ContentLength > 0 {
		text.Grow(int(w.r.ContentLength) + bytes.MinRead)
	}
	if _, err := text.ReadFrom(&bounded{r: st, left: maxWriteJSON, limit: maxWriteJSON}); err != nil {
		return bodyError(err)
	}
	if err := w.check(); err != nil { // reading may have taken long
		return err
	}
	n := 0
	err := ingest.Items(text.Bytes(), w.device != "", func(i ingest.Item) error { n++; return w.item(n, i) })
	if n == 0 && err != nil {
		return newProblem(http.StatusBadRequest, "the body is not JSON")
	}
	return err
}

// jsonLine takes the messages of one line of NDJSON.
func (w *taking) jsonLine(line []byte, n int) error {
	taken := false
	err := ingest.Items(line, w.device != "", func(i ingest.Item) error { taken = true; return w.item(n, i) })
	if err != nil && !taken {
		w.refuse(n, nil, ingest.Message{Payload: line}, "malformed", "the line is not JSON")
		return nil
	}
	return err
}

func (w *taking) item(n int, i ingest.Item) error {
	m := ingest.Message{Payload: i.Payload, Omit: i.Omit}
	switch {
	case i.Wrong != "":
		w.refuse(n, i.Device, m, "malformed", i.Wrong)
		return nil
	case i.Device == nil && w.device == "":
		w.refuse(n, nil, m, "device", "the message names no device")
		return nil
	}
	return w.take(n, i.Device, m)
}

// fail answers with what went wrong and what was taken all the same.
func (w *taking) fail(rw http.ResponseWriter, err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		w.api.logFault(w.r, err)
	}
	if s := retryAfter(p.Status); s > 0 {
		rw.Header().Set("Retry-After", strconv.Itoa(s))
	}
	if p.Status == http.StatusUnauthorized {
		rw.Header().Set("WWW-Authenticate", challenge(w.r.Request))
	}
	rw.Header().Set("Connection", "close") // the rest of the body is nobody's
	w.answer(rw, p.Status, problemType, &takenProblem{*p, w.out.Accepted, w.out.RejectedCount, append([]refusedMessage{}, w.out.Rejected...), w.last})
}

// answer writes v; the body may have taken longer than the answer's own time.
func (w *taking) answer(rw http.ResponseWriter, status int, contentType string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("write an answer: %w", err))
	}
	_ = http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(writeStall))
	rw.Header().Set("Content-Type", contentType)
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_, _ = rw.Write(append(text, '\n')) // the client is gone: nobody is left to tell
}
