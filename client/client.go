package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer  = 64 << 20         // bytes of a JSON answer
	maxLine    = 1 << 20          // bytes of a line of a stream
	maxTries   = 4                // of a GET
	maxWait    = 30 * time.Second // between two tries
	maxProblem = 64 << 10         // bytes of an error's body
)

// Client sends requests to one server. It is safe for concurrent use.
type Client struct {
	base string
	key  string
	http *http.Client
}

// Option changes a Client that New makes.
type Option func(*Client)

// WithHTTPClient sends requests by h instead of http.DefaultClient.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New returns a client of the server at base, such as https://muster.example, that shows key
// (mst_...); an empty key sends none.
func New(base, key string, options ...Option) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the server's address is a URL such as http://localhost:8080")
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), key: key, http: http.DefaultClient}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// Error returns what went wrong, for people. Every answer of the server that is an error is
// a *Problem; a server that is not reached is an error of net/http.
func (p *Problem) Error() string {
	var text strings.Builder
	text.WriteString(p.Detail)
	for _, f := range p.Errors {
		where := ""
		switch {
		case f.Pointer != nil:
			where = *f.Pointer + ": "
		case f.Parameter != nil:
			where = *f.Parameter + ": "
		}
		text.WriteString("; " + where + f.Detail)
	}
	return text.String()
}

// Code returns the code of the problem that err is, empty when it is none.
func Code(err error) string {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Code
	}
	return ""
}

// request is one that the generated methods fill.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         io.Reader
	err          error
}

// segment writes a value into a path. Dots alone would be taken for another path.
func segment[T string | int64](v T) string {
	text := url.PathEscape(fmt.Sprint(v))
	if text == "." || text == ".." {
		text = strings.ReplaceAll(text, ".", "%2E")
	}
	return text
}

func (r *request) json(body any) {
	text, err := json.Marshal(body)
	if err != nil {
		r.err = fmt.Errorf("encode the request: %w", err)
		return
	}
	r.stream("application/json", bytes.NewReader(text))
}

func (r *request) stream(contentType string, body io.Reader) {
	r.header.Set("Content-Type", contentType)
	r.body = body
}

// set calls set with v unless it is its type's zero, which the server takes for absent.
func set(set func(name, value string), name string, v any) {
	switch v := v.(type) {
	case string:
		if v != "" {
			set(name, v)
		}
	case int64:
		if v != 0 {
			set(name, strconv.FormatInt(v, 10))
		}
	case float64:
		if v != 0 {
			set(name, strconv.FormatFloat(v, 'g', -1, 64))
		}
	case bool:
		if v {
			set(name, "true")
		}
	case []string:
		if len(v) > 0 {
			set(name, strings.Join(v, ","))
		}
	}
}

func (r *request) queryValue(name string, v any)  { set(r.query.Set, name, v) }
func (r *request) headerValue(name string, v any) { set(r.header.Set, name, v) }

// headerNumber sets what is needed, zero too.
func (r *request) headerNumber(name string, v int64) { r.header.Set(name, strconv.FormatInt(v, 10)) }

// do sends r, a GET again while the server says to come later, and returns an answer that is
// no error. The caller closes its body.
func (c *Client) do(ctx context.Context, r *request) (*http.Response, error) {
	if r.err != nil {
		return nil, r.err
	}
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	for try := 1; ; try++ {
		req, err := http.NewRequestWithContext(ctx, r.method, target, r.body)
		if err != nil {
			return nil, fmt.Errorf("make the request: %w", err)
		}
		req.Header = r.header.Clone()
		if c.key != "" {
			req.Header.Set("Authorization", "Bearer "+c.key)
		}
		res, err := c.http.Do(req)
		if err != nil {
			return nil, fmt.Errorf("reach the server: %w", err)
		}
		if res.StatusCode < http.StatusBadRequest {
			return res, nil
		}
		problem := problemOf(res)
		wait, later := retryAfter(res)
		if !later || r.method != http.MethodGet || try == maxTries {
			return nil, problem
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(problem, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// call sends r and reads the JSON of its answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, r *request, out any) error {
	r.header.Set("Accept", "application/json")
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	body := io.LimitReader(res.Body, maxAnswer)
	if out != nil && res.StatusCode != http.StatusNoContent {
		if err := json.NewDecoder(body).Decode(out); err != nil {
			return fmt.Errorf("decode the answer: %w", err)
		}
	}
	_, _ = io.Copy(io.Discard, body) // lets the connection be used again
	return nil
}

// problemOf reads an error's body and closes it.
func problemOf(res *http.Response) *Problem {
	defer func() { _ = res.Body.Close() }() // it was read
	p := &Problem{}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) // none is no problem+json
	err := json.NewDecoder(io.LimitReader(res.Body, maxProblem)).Decode(p)
	if kind != "application/problem+json" || err != nil {
		p = &Problem{Title: http.StatusText(res.StatusCode), Detail: "the server answered " + res.Status}
	}
	p.Status = int64(res.StatusCode)
	return p
}

// retryAfter says how long to wait before another try, and whether there should be one.
func retryAfter(res *http.Response) (time.Duration, bool) {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return 0, false
	}
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		seconds = 1
	}
	wait := time.Duration(seconds) * time.Second
	return wait, wait <= maxWait
}

// Lines reads newline-delimited JSON: each line as a T, up to 1 MiB. It ends at the end or
// with the first error.
func Lines[T any](r io.Reader) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			var v T
			if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
				yield(v, fmt.Errorf("decode a line: %w", err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			var none T
			yield(none, fmt.Errorf("read lines: %w", err))
		}
	}
}

// Message is one server-sent event.
type Message struct {
	ID   string // to be sent as Last-Event-ID when the stream is asked for again
	Type string // message when it has none
	Data string
}

// Messages reads server-sent events. It ends at the end or with the first error.
func Messages(r io.Reader) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		m, data := Message{Type: "message"}, make([]string, 0, 1)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case lines.Text() == "":
				if m.Data = strings.Join(data, "\n"); len(data) > 0 && !yield(m, nil) {
					return
				}
				m.Type, data = "message", data[:0]
			case name == "id":
				m.ID = value
			case name == "event":
				m.Type = value
			case name == "data":
				data = append(data, value)
			}
		}
		if err := lines.Err(); err != nil {
			yield(Message{}, fmt.Errorf("read events: %w", err))
		}
	}
}
