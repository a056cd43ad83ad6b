package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/api"
	"muster/notify/email/mailtest"
	"muster/server"
	"muster/server/servertest"
)

const (
	seed    = 5 // of the run without MUSTER_CONFORMANCE
	rounds  = 6 // of valid values for each operation
	patient = 20 * time.Second
)

// probe sends requests to a server and holds the answers to its document.
type probe struct {
	*testing.T
	*maker
	base   string
	client *http.Client
	given  map[string]string            // path parameters that exist
	done   map[string]map[int]int       // operation -> status -> how often
	faults map[string]map[string]string // what is wrong -> operation -> the first request that showed it
	sent   int
	users  int          // that were made
	user   int          // the number of the probe's own
	cookie *http.Cookie // of his session
	unsure *http.Cookie // of a user whose address is not confirmed
	drafts int          // releases that were made
	post   *mailtest.Server
}

// request is one that is sent.
type request struct {
	what   string
	path   string // with its parameters
	query  url.Values
	kind   string // of the body
	body   []byte
	header http.Header
	refuse bool // it must not be taken
}

func TestEveryAnswerIsAsTheDocumentSays(t *testing.T) {
	post := mailtest.Start(t, mailtest.Config{})
	s := servertest.Start(t, func(c *server.Config) { // the probe asks as many do, and as one
		c.Firmware.InsecureUnsigned = true // so that releases are published without keys
		c.SMTP = post.URL("muster@muster.example")
		c.Web.Limits = api.Limits{Rate: 10_000, Burst: 100_000, SignIn: 10_000, Tests: 10_000, Nobody: 100_000}
	})
	base := "http://" + s.HTTPAddr()
	p := &probe{
		T: t, base: base, post: post, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}},
		maker: &maker{fetch(t, base), rand.New(rand.NewPCG(seed, seed))},
		done:  map[string]map[int]int{}, faults: map[string]map[string]string{},
	}
	t.Cleanup(p.client.CloseIdleConnections)
	p.everything()
	for end := time.Now().Add(longer(t)); time.Now().Before(end) && !t.Failed(); {
		n := rand.Uint64()
		t.Logf("seed %d", n)
		p.Rand = rand.New(rand.NewPCG(n, n))
		p.everything()
	}
	p.report()
}

// longer is how long the run goes on with random seeds.
func longer(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("MUSTER_CONFORMANCE")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (p *probe) everything() {
	for _, op := range p.ops {
		if !strings.HasPrefix(op.path, "/api/v1/") || reason(op.id) != "" {
			continue
		}
		p.fixtures()
		p.positive(op)
		p.fixtures()
		p.negative(op)
	}
	for _, op := range p.ops {
		if !strings.HasPrefix(op.path, "/api/v1/") || reason(op.id) != "" {
			continue
		}
		p.fixtures()
		p.named(op)
	}
}

// reason says why an operation is left out, empty when it is not.
func reason(id string) string {
	return map[string]string{
		"live": "a WebSocket is no request with an answer; dashboard/live tests it",
	}[id]
}

// report fails the test for each fault, and for operations that never did what they are for.
func (p *probe) report() {
	for _, what := range sortedKeys(p.faults) {
		ops := sortedKeys(p.faults[what])
		p.Errorf("%s: %s (%s), in %d operations", ops[0], what, p.faults[what][ops[0]], len(ops))
	}
	for _, id := range sortedKeys(p.done) {
		well := slices.ContainsFunc(sortedKeys(p.done[id]), func(s int) bool { return s < 400 })
		if !well && unreached(id) == "" {
			p.Errorf("%s was never answered but with an error: %v", id, p.done[id])
		}
	}
	p.Logf("%d requests to %d operations", p.sent, len(p.done))
}

func sortedKeys[K int | string, V any](m map[K]V) []K {
	var out []K
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// fault notes what is wrong with an operation, with the first request that showed it.
func (p *probe) fault(op operation, r request, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if before, _, found := strings.Cut(what, canary); found {
		what = before + canary + "..."
	}
	if p.faults[what] == nil {
		p.faults[what] = map[string]string{}
	}
	if p.faults[what][op.id] == "" {
		p.faults[what][op.id] = r.what
	}
}

// positive sends what the schemas allow.
func (p *probe) positive(op operation) {
	kinds := p.bodies(op)
	for i := range rounds {
		if i > 0 && op.method == http.MethodDelete {
			p.fixtures()
		}
		p.prelude(op)
		r := request{what: "valid", path: p.at(op, p.given), query: p.query(op, i == 0)}
		if len(kinds) > 0 {
			r.kind = kinds[i%len(kinds)]
			r.body = p.body(op, r.kind, i < len(kinds))
		}
		p.send(op, r)
	}
}

// body makes a body: the document's example, or one of the schema's values.
func (p *probe) body(op operation, kind string, example bool) []byte {
	media := p.follow(child(op.object, "requestBody", "content", kind))
	v, has := media["example"]
	if text, ok := v.(string); ok && !isJSON(kind) {
		return []byte(text)
	}
	if !example || !has {
		v = p.valid(child(media, "schema"), 0)
	}
	if o, ok := v.(object); ok && example {
		o = maps.Clone(o)
		maps.Copy(o, p.examples(op))
		v = o
	}
	text, err := json.Marshal(v)
	if err != nil {
		p.Fatal(err)
	}
	return text
}

// examples is what stands in the place of an example's property that must be real.
func (p *probe) examples(op operation) object {
	switch op.id {
	case "sign-in":
		return object{"key": servertest.AdminKey}
	case "register-certificate-authority":
		return object{"certificate": certificate(p)}
	case "send-notification":
		return object{"topic": p.given["topic"]}
	case "create-rollout":
		return object{"release": p.given["release"], "rollback": p.given["release"]}
	default:
		return nil
	}
}

// query fills the query with what must be there, and with more when not bare.
func (p *probe) query(op operation, bare bool) url.Values {
	q := url.Values{}
	for _, one := range p.parameters(op) {
		if one.in != "query" || !one.required && (bare || p.IntN(2) == 0) {
			continue
		}
		q.Set(one.name, p.parameter(one))
	}
	return q
}

// needed sets the headers that must be there.
func (p *probe) needed(op operation, req *http.Request) {
	for _, one := range p.parameters(op) {
		if one.in == "header" && one.required {
			req.Header.Set(one.name, p.parameter(one))
		}
	}
}

func (p *probe) parameter(one parameter) string {
	switch one.name { // what a schema cannot say
	case "wait":
		return "10ms"
	case "from", "to":
		return "now-1h"
	case "ids":
		return "conforming"
	case "fields":
		return "status,tag:site"
	case "sha256":
		return digest("test") // of what the document uploads
	case "filename":
		return "conforming.bin"
	case "Upload-Offset":
		return "0" // an upload begins there
	case "data":
		return "keep" // an id whose data is being erased is not to be had
	}
	v := p.valid(one.schema, 0)
	if list, ok := v.([]any); ok {
		var parts []string
		for _, e := range list {
			parts = append(parts, fmt.Sprint(e))
		}
		return strings.Join(parts, ",")
	}
	if n, ok := v.(float64); ok {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// at fills the path.
func (p *probe) at(op operation, values map[string]string) string {
	path := op.path
	for _, one := range p.parameters(op) {
		if one.in != "path" {
			continue
		}
		v, ok := values[one.name]
		if !ok {
			v = "unknown"
		}
		path = strings.ReplaceAll(path, "{"+one.name+"}", url.PathEscape(v))
	}
	return path
}

// negative sends what the schemas do not allow, and what has broken other servers.
func (p *probe) negative(op operation) {
	here := p.at(op, p.given)
	kinds := p.bodies(op)
	with := func(r request) request {
		r.query = p.query(op, true)
		if len(kinds) > 0 && r.body == nil {
			r.kind, r.body = kinds[0], p.body(op, kinds[0], true)
		}
		return r
	}
	for _, one := range p.parameters(op) {
		switch one.in {
		case "query":
			bad := p.badQuery(one)
			for _, v := range sortedKeys(bad) {
				r := with(request{what: fmt.Sprintf("query %s is %.30q", one.name, v), path: here, refuse: bad[v]})
				r.query.Set(one.name, v)
				p.send(op, r)
			}
		case "path":
			for _, v := range append(nasty(), strings.Repeat("p", 300)+canary, ".", "..", "a/b"+canary, canary+"\xff") {
				if v != "" {
					p.send(op, with(request{what: fmt.Sprintf("path %s is %.30q", one.name, v), path: p.at(op, map[string]string{one.name: v})}))
				}
			}
		case "header":
			for _, v := range []string{canary, `"` + canary + `"`, strings.Repeat(canary, 2000), `W/"1", "2"`, "ä"} {
				p.send(op, with(request{what: fmt.Sprintf("header %s is %.30q", one.name, v), path: here, header: http.Header{one.name: {v}}}))
			}
		}
	}
	r := with(request{what: "an unknown query parameter", path: here, refuse: true})
	r.query.Set("nobody_knows", canary)
	p.send(op, r)
	p.badBodies(op, here)
}

func (p *probe) badBodies(op operation, here string) {
	for _, kind := range p.bodies(op) {
		list := raws()
		if isJSON(kind) {
			list = p.invalids(p.bodySchema(op, kind))
		}
		for _, bad := range list {
			r := request{what: kind + ": " + bad.what, path: here, query: p.query(op, true), kind: kind, body: bad.body, refuse: bad.refuse && isJSON(kind)}
			if !json.Valid(bad.body) && !isJSON(kind) {
				r.refuse = false
			}
			p.send(op, r)
		}
		for _, wrong := range []string{"text/plain", "application/xml", "multipart/form-data; boundary=x", "image/png", ";", "application/json; charset=" + canary} {
			p.send(op, request{what: "content type " + wrong, path: here, query: p.query(op, true), kind: wrong, body: p.body(op, kind, true)})
		}
	}
}

// send sends r and holds the answer to the document.
func (p *probe) send(op operation, r request) {
	ctx, cancel := context.WithTimeout(p.Context(), patient)
	defer cancel()
	target := p.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, op.method, target, bytes.NewReader(r.body))
	if err != nil {
		p.Fatalf("%s %s: %v", op.id, r.what, err)
	}
	p.needed(op, req)
	for k, v := range r.header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	p.identify(op.id, req)
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.fault(op, r, "no answer: %v", err)
		return
	}
	defer res.Body.Close()
	p.sent++
	if p.done[op.id] == nil {
		p.done[op.id] = map[int]int{}
	}
	p.done[op.id][res.StatusCode]++
	p.judge(op, r, res)
}

func (p *probe) judge(op operation, r request, res *http.Response) {
	status := res.StatusCode
	answer := p.follow(child(op.object, "responses", strconv.Itoa(status)))
	switch {
	case status >= 500:
		p.fault(op, r, "answers %d", status)
		return
	case answer == nil:
		text, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		p.fault(op, r, "answers %d, which is not documented: %s", status, text)
		return
	case r.refuse && status < 400:
		p.fault(op, r, "takes it, %d", status)
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind == "text/event-stream" {
		return // it has no end
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil && !errors.Is(err, io.EOF) {
		p.fault(op, r, "the answer breaks off: %v", err)
		return
	}
	content := child(answer, "content")
	if status >= 400 && kind != "application/problem+json" {
		p.fault(op, r, "%d is %q and not a problem", status, kind)
	}
	if status >= 400 && repeats(text) {
		p.fault(op, r, "%d repeats what was sent: %.300s", status, text)
	}
	if len(text) == 0 {
		return
	}
	media := child(content, kind)
	if media == nil {
		media = child(content, "*/*") // RFC 9110, section 12.5.1
	}
	if media == nil {
		p.fault(op, r, "%d is %q, which is not documented", status, kind)
		return
	}
	p.judgeBody(op, r, status, kind, child(media, "schema"), text)
	if status >= 400 {
		p.judgeCode(op, r, answer, text)
	}
}

func (p *probe) judgeBody(op operation, r request, status int, kind string, schema object, text []byte) {
	switch {
	case isJSON(kind):
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			p.fault(op, r, "%d is not JSON: %v", status, err)
			return
		}
		if faults := p.check(schema, v, ""); len(faults) > 0 {
			p.fault(op, r, "%d is not as its schema says: %s", status, faults[0])
		}
	case kind == "application/x-ndjson":
		for line := range bytes.Lines(text) {
			if !json.Valid(line) {
				p.fault(op, r, "%d has a line that is not JSON", status)
				return
			}
		}
	}
}

// judgeCode checks that a problem has one of the codes that the document lists at its status.
func (p *probe) judgeCode(op operation, r request, answer object, text []byte) {
	var problem struct {
		Code   string
		Status int
	}
	if err := json.Unmarshal(text, &problem); err != nil {
		return // told before
	}
	codes, listed := answer["x-muster-codes"].([]any)
	if listed && !slices.Contains(codes, any(problem.Code)) {
		p.fault(op, r, "the code %s is not documented", problem.Code)
	}
}

func TestEveryExampleIsAsItsSchemaSays(t *testing.T) {
	s := servertest.Start(t)
	d := fetch(t, "http://"+s.HTTPAddr())
	examples := 0
	check := func(where string, media object) {
		v, ok := media["example"]
		if !ok {
			return
		}
		examples++
		if faults := d.check(child(media, "schema"), v, ""); len(faults) > 0 {
			t.Errorf("%s: %v", where, faults)
		}
	}
	for _, op := range d.ops {
		for kind := range child(op.object, "requestBody", "content") {
			check(op.id+" "+kind, child(op.object, "requestBody", "content", kind))
		}
		for status, v := range child(op.object, "responses") {
			for kind := range child(v.(object), "content") {
				check(op.id+" "+status, child(v.(object), "content", kind))
			}
		}
	}
	if examples < 500 {
		t.Errorf("there are %d examples only", examples)
	}
}
