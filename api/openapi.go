package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
)

// What the document says of an operation beside OpenAPI's own words.
const (
	scopeExtension = "x-muster-scope" // the scope it needs, "anyone" for any key or session, "public" for nobody known
	roleExtension  = "x-muster-role"  // the lowest role whose sessions may do it, "none" when it is public
	codesExtension = "x-muster-codes" // of an answer: the codes that its problem may have
)

// completeDocument adds to the document what all operations have in common, what is served
// beside huma, and examples. It is called once every route is registered.
func (a *API) completeDocument() {
	doc := a.huma.OpenAPI()
	a.plainOperations(doc)
	w := &wording{vocabulary(), requestExamples(), texts()}
	for path, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete, item.Patch} {
			if op != nil {
				w.completeOperation(doc, path, op)
			}
		}
	}
}

// wording is what the examples are made of.
type wording struct {
	words           map[string]any
	requests, texts map[string]string
}

func (w *wording) completeOperation(doc *huma.OpenAPI, path string, op *huma.Operation) {
	scope := scopeOf(op.Security)
	if op.Extensions == nil {
		op.Extensions = map[string]any{}
	}
	op.Extensions[scopeExtension], op.Extensions[roleExtension] = scope, roleFor(scope)
	if strings.HasPrefix(path, prefix+"/") && op.OperationID != liveOperation {
		needAnswer(doc, op, http.StatusUnprocessableEntity) // an unknown query parameter
		if strings.Contains(path, "{") {
			needAnswer(doc, op, http.StatusNotFound) // a name that is not there, or makes another path
		}
	}
	for status, answer := range op.Responses {
		code, err := strconv.Atoi(status)
		if err != nil {
			continue
		}
		if problem := answer.Content[problemType]; problem != nil {
			problem.Example = exampleProblem(code)
			more, _ := answer.Extensions[codesExtension].([]string) // the operation's own
			if answer.Extensions == nil {
				answer.Extensions = map[string]any{}
			}
			answer.Extensions[codesExtension] = append(codesAt(code), more...)
			continue
		}
		for kind, media := range answer.Content {
			if text, ok := w.texts["answer of "+op.OperationID+" "+kind]; ok {
				media.Example = text
				continue
			}
			w.exemplify(doc, media, kind, "")
		}
	}
	if op.RequestBody != nil {
		for kind, media := range op.RequestBody.Content {
			w.exemplify(doc, media, kind, op.OperationID)
		}
	}
	for _, p := range op.Parameters {
		if v, ok := w.words[p.In+" "+p.Name]; ok && p.Example == nil {
			p.Example = v
		}
	}
}

// scopeOf reads back what security wrote.
func scopeOf(security []map[string][]string) string {
	for _, s := range security {
		if scopes, ok := s[schemeKey]; ok {
			if len(scopes) == 0 {
				return anyone
			}
			return scopes[0]
		}
	}
	return public
}

// roleFor returns the lowest role that has scope.
func roleFor(scope string) string {
	switch scope {
	case public:
		return "none"
	case anyone:
		return accounts.Viewer
	}
	for _, role := range []string{accounts.Viewer, accounts.Operator} {
		if slices.Contains(accounts.RoleScopes(role), scope) {
			return role
		}
	}
	return accounts.Admin
}

// needAnswer documents that op may answer with a problem of status.
func needAnswer(doc *huma.OpenAPI, op *huma.Operation, status int) {
	key := strconv.Itoa(status)
	if op.Responses[key] != nil {
		return
	}
	op.Responses[key] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
		problemType: {Schema: doc.Components.Schemas.Schema(typeOf[Problem](), true, "")},
	}}
}

// codesAt lists the codes that a problem may have at a status. It is the one table of them
// beside the kinds; the conformance run fails on a code that is not in it.
func codesAt(status int) []string {
	codes := []string{codeOf(status)}
	switch status {
	case http.StatusUnauthorized:
		codes = append(codes, "second_factor_needed")
	case http.StatusConflict:
		codes = append(codes, "idempotency_in_flight", "idempotency_mismatch")
	}
	return codes
}

// exampleProblem is what a problem of status looks like.
func exampleProblem(status int) any {
	p := newProblem(status, "what went wrong, for people")
	if status == http.StatusUnprocessableEntity {
		p.Detail = "validation failed"
		p.Errors = []FieldError{{Parameter: "query.limit", Detail: "expected number <= 1000"}}
	}
	return plainJSON(p)
}

// plainJSON is v as the document holds it.
func plainJSON(v any) any {
	text, err := json.Marshal(v)
	if err != nil { // examples are plain data
		panic(fmt.Errorf("write an example: %w", err))
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		panic(fmt.Errorf("read an example: %w", err))
	}
	return out
}

// exemplify gives media an example: of a request the one written for it, else one made of the
// examples of its properties.
func (w *wording) exemplify(doc *huma.OpenAPI, media *huma.MediaType, kind, request string) {
	if media.Example != nil || len(media.Examples) > 0 || media.Schema == nil {
		return
	}
	if text, ok := w.texts[request+" "+kind]; ok {
		media.Example = text
		return
	}
	if kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return
	}
	if text, ok := w.requests[request]; ok {
		media.Example = plainJSON(json.RawMessage(text))
		return
	}
	c := composer{doc.Components.Schemas, w.words, request != ""}
	media.Example = plainJSON(c.compose(media.Schema, "", "", 0))
}

// composer makes an example of a schema.
type composer struct {
	schemas huma.Registry
	words   map[string]any
	bare    bool // only what must be there
}

// deepest bounds schemas that hold themselves.
const deepest = 8

func (c composer) compose(s *huma.Schema, owner, name string, depth int) any {
	if s.Ref != "" {
		owner = s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		s = c.schemas.SchemaFromRef(s.Ref)
	}
	for _, key := range []string{owner + "." + name, name} {
		if v, ok := c.words[key]; ok && name != "" && fits(s, v) {
			return v
		}
	}
	switch {
	case len(s.Examples) > 0:
		return s.Examples[0]
	case len(s.Enum) > 0:
		return s.Enum[0]
	case depth > deepest:
		return nil
	case s.Format == "date-time":
		return exampleTime
	}
	switch s.Type {
	case huma.TypeObject:
		return c.object(s, owner, depth)
	case huma.TypeArray:
		return []any{c.compose(s.Items, owner, name+"[]", depth+1)}
	case huma.TypeInteger, huma.TypeNumber:
		if s.Minimum != nil {
			return *s.Minimum
		}
		return 0
	case huma.TypeBoolean:
		return false
	case huma.TypeString:
		return "text"
	default:
		return nil
	}
}

func (c composer) object(s *huma.Schema, owner string, depth int) any {
	out := map[string]any{}
	for name, p := range s.Properties {
		if c.bare && !slices.Contains(s.Required, name) {
			continue
		}
		out[name] = c.compose(p, owner, name, depth+1)
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		out["name"] = c.compose(more, owner, "{}", depth+1)
	}
	return out
}

// fits says whether v is of the type of s, so that one word may name things of two types.
func fits(s *huma.Schema, v any) bool {
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		return false
	}
	switch v.(type) {
	case nil:
		return s.Nullable || s.Type == ""
	case string:
		return s.Type == huma.TypeString || s.Type == ""
	case int, float64:
		return s.Type == huma.TypeInteger || s.Type == huma.TypeNumber || s.Type == ""
	case []any:
		return s.Type == huma.TypeArray || s.Type == ""
	case map[string]any:
		return s.Type == huma.TypeObject || s.Type == ""
	default:
		return true
	}
}
