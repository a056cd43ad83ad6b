package conformance_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

type object = map[string]any

// document is an OpenAPI document as it is served.
type document struct {
	root object
	ops  []operation
}

type operation struct {
	id, method, path string
	object
}

type parameter struct {
	name, in string
	required bool
	schema   object
}

func parse(t testing.TB, text []byte) *document {
	t.Helper()
	d := &document{}
	if err := json.Unmarshal(text, &d.root); err != nil {
		t.Fatalf("the document is not JSON: %v", err)
	}
	for path, methods := range child(d.root, "paths") {
		for method, v := range methods.(object) {
			op, isOp := v.(object)
			if !isOp || method == "parameters" {
				continue
			}
			id, _ := op["operationId"].(string)
			d.ops = append(d.ops, operation{id, strings.ToUpper(method), path, op})
		}
	}
	slices.SortFunc(d.ops, func(a, b operation) int { return strings.Compare(a.path+" "+a.method, b.path+" "+b.method) })
	return d
}

// fetch reads the document from a server.
func fetch(t testing.TB, base string) *document {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Timeout: 30 * time.Second}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("the document cannot be read: %d, %v", res.StatusCode, err)
	}
	return parse(t, text)
}

// child walks down objects; nil when one is not there.
func child(o object, names ...string) object {
	for _, n := range names {
		o, _ = o[n].(object)
	}
	return o
}

// follow resolves a $ref within the document.
func (d *document) follow(o object) object {
	for range 16 {
		ref, ok := o["$ref"].(string)
		if !ok {
			return o
		}
		o = child(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return nil
}

func (d *document) parameters(op operation) []parameter {
	var out []parameter
	list, _ := op.object["parameters"].([]any)
	for _, v := range list {
		p := d.follow(v.(object))
		one := parameter{schema: d.follow(child(p, "schema"))}
		one.name, _ = p["name"].(string)
		one.in, _ = p["in"].(string)
		one.required, _ = p["required"].(bool)
		out = append(out, one)
	}
	return out
}

// bodies returns the media types that op takes, JSON first.
func (d *document) bodies(op operation) []string {
	var out []string
	for kind := range child(op.object, "requestBody", "content") {
		out = append(out, kind)
	}
	slices.SortFunc(out, func(a, b string) int {
		if isJSON(a) != isJSON(b) {
			if isJSON(a) {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return out
}

func (d *document) bodySchema(op operation, kind string) object {
	return d.follow(child(op.object, "requestBody", "content", kind, "schema"))
}

func isJSON(kind string) bool {
	return kind == "application/json" || strings.HasSuffix(kind, "+json")
}
