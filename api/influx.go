package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/ingest"
)

// The write API of InfluxDB 2 (docs.influxdata.com/influxdb/v2/api, POST /api/v2/write),
// and that of InfluxDB 1 at /write: what Telegraf and the client libraries speak. org,
// bucket, db and rp mean nothing here.
const (
	influxPath   = "/api/v2/write"
	influxV1Path = "/write"
	maxInflux    = 64 << 20 // bytes of a body, decompressed
)

// influxError is an error as InfluxDB 2 has it, and what was taken all the same.
type influxError struct {
	Code      string           `json:"code" doc:"What went wrong, for programs" example:"invalid"`
	Message   string           `json:"message" doc:"What went wrong, for people"`
	Line      int              `json:"line,omitempty" doc:"The first line that was refused"`
	MaxLength int              `json:"maxLength,omitempty" doc:"The most bytes of a body"`
	Accepted  int              `json:"accepted" doc:"Lines that are durable"`
	Rejected  []refusedMessage `json:"rejected,omitempty" doc:"The first 1,000 lines that were refused"`
	Error     string           `json:"error,omitempty" doc:"The message, for clients of InfluxDB 1" example:"line 2: there is no device pump-9"`
}

func (a *API) influxRoutes() {
	a.mux.HandleFunc("POST "+influxPath, a.influxWrite)
	a.plain.HandleFunc("POST "+influxV1Path, a.influxWrite)
	doc := a.huma.OpenAPI()
	doc.AddOperation(influxOperation(doc, "write-influx", influxPath, "Write line protocol, as to InfluxDB 2"))
	doc.AddOperation(influxOperation(doc, "write-influx-1", influxV1Path, "Write line protocol, as to InfluxDB 1"))
}

// influxOperation documents a write of line protocol. Nothing in it is shared with another
// operation: examples are put into each.
func influxOperation(doc *huma.OpenAPI, id, path, summary string) *huma.Operation {
	text := &huma.Schema{Type: "string"}
	parameter := func(name, about string, s *huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: about, Schema: s}
	}
	responses := map[string]*huma.Response{"204": {Description: "All lines are durable"}}
	answers := func(kind string, s *huma.Schema, statuses ...int) {
		for _, status := range statuses {
			responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{kind: {Schema: s}}}
		}
	}
	schemas := doc.Components.Schemas
	answers(problemType, schemas.Schema(typeOf[Problem](), true, ""), http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType)
	answers("application/json", schemas.Schema(typeOf[influxError](), true, ""), 400, 401, 403, 413, 422, 429, 500, 503)
	return &huma.Operation{
		OperationID: id, Method: http.MethodPost, Path: path, Tags: []string{"telemetry"}, Summary: summary,
		Description: "A line's device is its tag device, else its tag host, else the parameter device. Every other tag is part of its keys: " +
			"measurement.tag=value.field. The key comes as Authorization: Token, Bearer, or the password of Basic. A body has up to 64 MiB, decompressed. " +
			"Errors are as InfluxDB has them.",
		Security: security(accounts.TelemetryWrite)[:1],
		Parameters: []*huma.Param{
			parameter("org", "Taken and not used", text), parameter("bucket", "Taken and not used", text),
			parameter("precision", "What time stamps count", &huma.Schema{Type: "string", Enum: []any{"ns", "us", "ms", "s"}, Default: "ns"}),
			parameter("device", "The device of lines that name none", text),
			parameter("device_tag", "The tag that names the device, in the place of device and host", text),
			parameter("create", "Make devices that do not exist; needs devices:write besides", &huma.Schema{Type: "boolean"}),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/plain": {Schema: text}}},
		Responses:   responses,
		Metadata:    map[string]any{unaudited: true},
	}
}

func (a *API) influxWrite(rw http.ResponseWriter, r *http.Request) {
	req := requestOf(r.Context())
	w := &taking{api: a, r: req, ctx: r.Context()}
	w.who = func() (accounts.Principal, error) { return a.writer(a.influxPrincipal(r)) }
	defer w.close()
	err := w.influx(rw, r) //nolint:contextcheck // w has it
	if err != nil {
		w.failInflux(rw, err)
		return
	}
	if w.out.RejectedCount > 0 {
		w.partial(rw)
		return
	}
	_ = http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(writeStall))
	rw.WriteHeader(http.StatusNoContent)
}

// influxPrincipal returns who sends r: by an API key, as InfluxDB's clients send tokens.
// A browser's session does not count: a page of another site can post plain text.
func (a *API) influxPrincipal(r *http.Request) (accounts.Principal, error) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "token", "bearer":
		return a.Accounts.Authenticate(strings.TrimSpace(secret))
	case "basic":
		_, password, _ := r.BasicAuth()
		return a.Accounts.Authenticate(password)
	}
	return accounts.Principal{}, muster.Errorf(muster.Unauthorized, "an API key is needed: Authorization: Token mst_...")
}

func (w *taking) influx(rw http.ResponseWriter, r *http.Request) error {
	who, err := w.api.influxPrincipal(r)
	if err != nil {
		if p := w.api.limited(rw.Header(), byAddress(w.api.policies.stranger, w.r.addr)); p != nil {
			return p
		}
		return err
	}
	if p := w.api.limited(rw.Header(), w.api.bucketOf(&who)); p != nil {
		return p
	}
	if w.r.who, err = w.api.writer(who, nil); err != nil {
		return err
	}
	o, err := parseInflux(r.URL.Query())
	if err != nil {
		return err
	}
	if err := w.begin(o.device, o.create); err != nil {
		return err
	}
	if r.ContentLength > maxInflux {
		return errTooLarge(maxInflux)
	}
	st, err := w.open(rw, maxWriteLine, exportTime)
	if err != nil {
		return err
	}
	body := &bounded{r: st, left: maxInflux, limit: maxInflux}
	return w.finish(w.lines(body, ingest.FormLine, func(line []byte, n int) error { return w.line(line, n, &o) }))
}

// influxOptions are what the query says.
type influxOptions struct {
	device string
	tags   []string // that name a line's device
	unit   time.Duration
	create bool
}

func parseInflux(q url.Values) (influxOptions, error) {
	o := influxOptions{device: q.Get("device"), tags: []string{"device", "host"}}
	if tag := q.Get("device_tag"); tag != "" {
		o.tags = []string{tag}
	}
	switch p := q.Get("precision"); p {
	case "", "ns", "n":
	case "us", "u":
		o.unit = time.Microsecond
	case "ms":
		o.unit = time.Millisecond
	case "s":
		o.unit = time.Second
	case "m": // of InfluxDB 1, as h
		o.unit = time.Minute
	case "h":
		o.unit = time.Hour
	default:
		return o, newProblem(http.StatusBadRequest, "precision is none of ns, us, ms and s")
	}
	if c := q.Get("create"); c != "" {
		create, err := strconv.ParseBool(c)
		if err != nil {
			return o, newProblem(http.StatusBadRequest, "create is neither true nor false")
		}
		o.create = create
	}
	return o, nil
}

// line takes one line.
func (w *taking) line(line []byte, n int, o *influxOptions) error {
	m := ingest.Message{Payload: line, Form: ingest.FormLine, Unit: o.unit}
	tag, name, ok := ingest.LineTag(line, o.tags)
	m.Omit = tag
	if ok || w.device != "" {
		return w.take(n, name, m)
	}
	why := ingest.CheckLine(m, muster.MicrosOf(w.api.Now()))
	if why == (ingest.Refusal{}) {
		why = ingest.Refusal{Code: "device", Reason: "the line has no tag " + strings.Join(o.tags, " or ") + ", and the query no device"}
	}
	w.refuse(n, nil, m, why.Code, why.Reason)
	return nil
}

// partial answers when lines were refused: 400 as InfluxDB does, and 422 when every line
// was and not one for its form.
func (w *taking) partial(rw http.ResponseWriter) {
	status := http.StatusUnprocessableEntity
	for _, r := range w.out.Rejected {
		if w.out.Accepted > 0 || r.Code == "malformed" || r.Code == "too_large" {
			status = http.StatusBadRequest
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "partial write: %d lines were accepted and %d refused", w.out.Accepted, w.out.RejectedCount)
	for i, r := range w.out.Rejected {
		if i == 3 {
			text.WriteString("; ...")
			break
		}
		fmt.Fprintf(&text, "; line %d: %s", r.Line, r.Detail)
	}
	w.answerInflux(rw, status, influxError{Message: text.String(), Line: w.out.Rejected[0].Line})
}

// failInflux answers with what broke the request off.
func (w *taking) failInflux(rw http.ResponseWriter, err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		w.api.logFault(w.r, err)
	}
	if p.Status == http.StatusRequestTimeout {
		p.Status = http.StatusServiceUnavailable // clients drop what a 408 answers
	}
	if s := retryAfter(p.Status); s > 0 && rw.Header().Get("Retry-After") == "" {
		rw.Header().Set("Retry-After", strconv.Itoa(s))
	}
	if p.Status == http.StatusUnauthorized {
		rw.Header().Set("WWW-Authenticate", `Token realm="muster"`)
	}
	rw.Header().Set("Connection", "close") // the rest of the body is nobody's
	e := influxError{Message: p.Detail}
	if p.Status == http.StatusRequestEntityTooLarge {
		e.MaxLength = maxInflux
	}
	if w.last > 0 {
		e.Message += fmt.Sprintf("; of the lines up to %d %d were accepted, what follows was not taken", w.last, w.out.Accepted)
	}
	w.answerInflux(rw, p.Status, e)
}

func (w *taking) answerInflux(rw http.ResponseWriter, status int, e influxError) {
	e.Code, e.Accepted, e.Rejected = influxCode(status), w.out.Accepted, w.out.Rejected
	if w.r.URL.Path == influxV1Path {
		e.Error = e.Message
	}
	w.answer(rw, status, "application/json; charset=utf-8", &e)
}

// influxCode is InfluxDB's word for a status.
func influxCode(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusNotFound:
		return "not found"
	case http.StatusMethodNotAllowed:
		return "method not allowed"
	case http.StatusRequestEntityTooLarge:
		return "request too large"
	case http.StatusUnprocessableEntity:
		return "unprocessable entity"
	case http.StatusTooManyRequests:
		return "too many requests"
	case http.StatusServiceUnavailable:
		return "unavailable"
	case http.StatusInternalServerError:
		return "internal error"
	default:
		return "invalid"
	}
}
