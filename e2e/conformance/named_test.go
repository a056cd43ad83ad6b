package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// named changes one member of a request that is not refused, its documented example, and
// holds the 422 that follows to name that member.
func (p *probe) named(op operation) {
	if strings.Contains(op.path, "/groups/{group}/desired") { // a group that was a saved query before has none
		p.ask(http.MethodPut, "/groups/"+p.given["group"], "{}")
	}
	base := request{what: "the example", path: p.at(op, p.given), query: p.query(op, true)}
	kinds := p.bodies(op)
	if len(kinds) > 0 {
		base.kind, base.body = kinds[0], p.body(op, kinds[0], true)
	}
	p.prelude(op)
	if status, text := p.answer(op, base); status == http.StatusUnprocessableEntity {
		if !unnamed(op.id) {
			p.fault(op, base, "its example is refused: %s", text)
		}
		return
	}
	for _, one := range p.parameters(op) {
		if one.in != "query" {
			continue
		}
		for _, v := range sortedKeys(p.badQuery(one)) {
			r := base
			r.query = maps.Clone(base.query)
			r.query.Set(one.name, v)
			r.what = fmt.Sprintf("query %s is %.30q", one.name, v)
			p.names(op, r, FieldAt{Parameter: "query." + one.name})
		}
	}
	if len(kinds) == 0 || !isJSON(kinds[0]) {
		return
	}
	var example object
	if json.Unmarshal(base.body, &example) != nil {
		return // not an object
	}
	schema := p.follow(p.bodySchema(op, kinds[0]))
	for _, k := range sorted(child(schema, "properties")) {
		for what, v := range p.wrong(p.follow(child(schema, "properties", k))) {
			o := maps.Clone(example)
			o[k] = v
			text, err := json.Marshal(o)
			if err != nil {
				p.Fatal(err)
			}
			r := base
			r.body, r.what = text, k+" "+what
			p.names(op, r, FieldAt{Pointer: "#/" + k})
		}
	}
}

// unnamed says that the example of an operation is refused here, so that nothing follows from
// a change of it.
func unnamed(id string) bool {
	switch id {
	case "verify-certificate-authority", // needs a certificate with a code for its name
		"sign-release",    // needs a signature of a key that the server has
		"write-telemetry": // its example is a text, and no member of an object
		return true
	}
	return false
}

// wrong are values of a member that its schema, or a rule that no schema can say, refuses.
func (p *probe) wrong(s object) map[string]any {
	out := p.beyond(s)
	for _, v := range []any{"text" + canary, 1.5, true, []any{canary}, []any{object{}}, object{"a": object{}}} {
		out[fmt.Sprintf("is %T", v)] = v
	}
	if slices.Contains(typesOf(s), "string") {
		for _, v := range nasty() {
			out[fmt.Sprintf("is %.20q", v)] = v
		}
	}
	if slices.Contains(typesOf(s), "array") {
		for _, v := range nasty() {
			out[fmt.Sprintf("has %.20q", v)] = []any{v}
		}
	}
	return out
}

// FieldAt is the place of a fault.
type FieldAt struct{ Pointer, Parameter string }

// names sends r; a 422 must name the place.
func (p *probe) names(op operation, r request, want FieldAt) {
	if status, text := p.answer(op, r); status == http.StatusUnprocessableEntity {
		var problem struct{ Errors []FieldAt }
		if err := json.Unmarshal(text, &problem); err != nil {
			p.fault(op, r, "422 is no problem: %v", err)
			return
		}
		if !slices.ContainsFunc(problem.Errors, func(f FieldAt) bool {
			return f.Parameter == want.Parameter && (f.Pointer == want.Pointer || strings.HasPrefix(f.Pointer, want.Pointer+"/"))
		}) {
			r.what += fmt.Sprintf(": %.300s", text)
			p.fault(op, r, "%s%s is not named", want.Pointer, want.Parameter)
		}
	}
}

// answer sends r and returns what comes, nothing of a stream.
func (p *probe) answer(op operation, r request) (int, []byte) {
	ctx, cancel := context.WithTimeout(p.Context(), patient)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, op.method, p.base+r.path+"?"+r.query.Encode(), bytes.NewReader(r.body))
	if err != nil {
		p.Fatalf("%s %s: %v", op.id, r.what, err)
	}
	p.needed(op, req)
	p.identify(op.id, req)
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.fault(op, r, "no answer: %v", err)
		return 0, nil
	}
	defer res.Body.Close()
	p.sent++
	if res.StatusCode != http.StatusUnprocessableEntity {
		return res.StatusCode, nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		p.fault(op, r, "the answer breaks off: %v", err)
	}
	return res.StatusCode, text
}
