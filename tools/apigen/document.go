package main

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode"
)

type document struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]*schema }
}

type operation struct {
	ID          string `json:"operationId"`
	Summary     string
	Description string
	Parameters  []parameter
	RequestBody *struct {
		Required bool
		Content  map[string]media
	} `json:"requestBody"`
	Responses    map[string]struct{ Content map[string]media }
	method, path string
}

type parameter struct {
	Name, In, Description string
	Required              bool
	Schema                *schema
}

type media struct{ Schema *schema }

type schema struct {
	Ref         string `json:"$ref"`
	Type        types
	Format      string
	Encoding    string `json:"contentEncoding"`
	Description string
	Enum        []any
	Items       *schema
	Properties  map[string]*schema
	Required    []string
	More        additional `json:"additionalProperties"`
}

// types is a type or a list of them.
type types []string

func (t *types) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = types{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// additional is a schema, or nil for false, true and absent.
type additional struct{ *schema }

func (a *additional) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '{' {
		return nil
	}
	a.schema = &schema{}
	return json.Unmarshal(b, a.schema)
}

func (s *schema) is(t string) bool    { return slices.Contains(s.Type, t) }
func (s *schema) nullable() bool      { return s.is("null") }
func (s *schema) needs(p string) bool { return slices.Contains(s.Required, p) }
func (s *schema) name() string        { return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:] }

// operations returns those under /api/v1 but the WebSocket, by id.
func (d *document) operations() []operation {
	var out []operation
	for path, methods := range d.Paths {
		for method, op := range methods {
			if strings.HasPrefix(path, "/api/v1/") && op.ID != "live" {
				op.method, op.path = strings.ToUpper(method), path
				out = append(out, op)
			}
		}
	}
	slices.SortFunc(out, func(a, b operation) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (op *operation) in(places ...string) []parameter {
	var out []parameter
	for _, p := range op.Parameters {
		if slices.Contains(places, p.In) && p.Name != "Content-Type" {
			out = append(out, p)
		}
	}
	return out
}

// json returns the schema of a JSON request, nil when there is none.
func (op *operation) json() *schema {
	if op.RequestBody == nil {
		return nil
	}
	return op.RequestBody.Content["application/json"].Schema
}

// answer returns the schema of the JSON answer, and whether there is one that is not JSON.
func (op *operation) answer() (body *schema, stream bool) {
	for _, status := range sorted(op.Responses) {
		if status[0] != '2' {
			continue
		}
		for kind, m := range op.Responses[status].Content {
			switch {
			case kind != "application/json":
				stream = true
			case body == nil: // of several the one of the lowest status
				body = m.Schema
			}
		}
	}
	return body, stream
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// pascal writes a name of the document as Go has it.
func pascal(s string) string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		switch up := strings.ToUpper(word); up {
		case "ID", "URL", "API", "MQTT", "JSON", "CSR", "QOS", "TTL", "PNG", "SVG", "JIT", "CA":
			b.WriteString(up)
		case "IDS":
			b.WriteString("IDs")
		default:
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}

// camel begins with a small letter.
func camel(s string) string {
	p := pascal(s)
	if p == strings.ToUpper(p) {
		return strings.ToLower(p)
	}
	return strings.ToLower(p[:1]) + p[1:]
}

// words is a text for a comment of one line.
func words(s string) string { return strings.Join(strings.Fields(s), " ") }
