package api_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"muster/accounts"
)

type described struct {
	ID          string `json:"operationId"`
	Summary     string
	Tags        []string
	Scope       string `json:"x-muster-scope"`
	Role        string `json:"x-muster-role"`
	RequestBody struct {
		Content map[string]map[string]any
	} `json:"requestBody"`
	Responses map[string]struct {
		Codes   []string `json:"x-muster-codes"`
		Content map[string]map[string]any
	}
}

// describedRoutes reads the document by "METHOD path".
func describedRoutes(r *rig) map[string]described {
	r.Helper()
	var doc struct {
		Paths map[string]map[string]described
	}
	r.must(json.Unmarshal(r.do("GET", "/api/openapi.json", nil).wantStatus(r, 200).body, &doc))
	out := map[string]described{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			out[strings.ToUpper(method)+" "+path] = op
		}
	}
	return out
}

func TestEveryRouteOfTheMuxIsInTheDocument(t *testing.T) {
	r := newRig(t)
	doc := describedRoutes(r)
	for _, route := range r.routes {
		op, ok := doc[route]
		if !ok {
			t.Errorf("%s is served and not documented", route)
			continue
		}
		if op.ID == "" || op.Summary == "" || len(op.Tags) == 0 || len(op.Responses) == 0 {
			t.Errorf("%s has no id, summary, tag or answer", route)
		}
		wantAccess(t, route, op)
		for status, answer := range op.Responses {
			if answer.Content["application/problem+json"] != nil && len(answer.Codes) == 0 {
				t.Errorf("%s: %s names no code", route, status)
			}
		}
	}
	for route := range doc {
		if !slices.Contains(r.routes, route) {
			t.Errorf("%s is documented and not served", route)
		}
	}
}

// wantAccess checks that the lowest role that an operation names has its scope, and none below it.
func wantAccess(t *testing.T, route string, op described) {
	t.Helper()
	has := func(role string) bool {
		return accounts.Principal{Scopes: accounts.RoleScopes(role)}.Allows(op.Scope)
	}
	roles := []string{accounts.Viewer, accounts.Operator, accounts.Admin}
	at := slices.Index(roles, op.Role)
	switch {
	case op.Scope == "public" && op.Role == "none", op.Scope == "anyone" && op.Role == accounts.Viewer:
	case at < 0 || !has(op.Role) || at > 0 && has(roles[at-1]):
		t.Errorf("%s needs scope %q and role %q", route, op.Scope, op.Role)
	}
}

func TestEveryBodyInTheDocumentHasAnExample(t *testing.T) {
	r := newRig(t)
	for route, op := range describedRoutes(r) {
		for kind, media := range op.RequestBody.Content {
			if media["example"] == nil {
				t.Errorf("%s: the request has no example as %s", route, kind)
			}
		}
		for status, answer := range op.Responses {
			if media := answer.Content["application/json"]; media != nil && media["example"] == nil {
				t.Errorf("%s: %s has no example", route, status)
			}
			if text, err := json.Marshal(answer.Content); err != nil || strings.Contains(string(text), `:"text"`) {
				t.Errorf("%s: %s has a property without a word in the vocabulary: %s", route, status, text)
			}
		}
	}
}

// The document is kept in the repository, so that a change of the API is a visible change, and
// clients are made of it without a server. MUSTER_WRITE=1 writes it.
func TestTheDocumentIsKept(t *testing.T) {
	r := newRig(t)
	var doc map[string]any
	r.must(json.Unmarshal(r.do("GET", "/api/openapi.json", nil).wantStatus(t, 200).body, &doc))
	doc["info"].(map[string]any)["version"] = "0"
	text, err := json.MarshalIndent(doc, "", " ")
	r.must(err)
	text = append(text, '\n')
	if os.Getenv("MUSTER_WRITE") != "" {
		r.must(os.WriteFile("openapi.json", text, 0o644))
	}
	kept, err := os.ReadFile("openapi.json")
	r.must(err)
	if !bytes.Equal(kept, text) {
		t.Error("api/openapi.json is not what the routes give: run scripts/generate.sh")
	}
}
