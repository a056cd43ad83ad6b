package api

import (
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// located returns p with what rooms call members of the input put to where this operation has
// them: in its body, else among its parameters. What it has nowhere is not told.
func (a *API) located(r *request, p *Problem) *Problem {
	if r.op == nil || len(p.Errors) == 0 {
		return p
	}
	out := *p
	out.Errors = nil
	members := a.members(r.op)
	for _, f := range p.Errors {
		path, ok := strings.CutPrefix(f.Pointer, "#/")
		name, _, _ := strings.Cut(path, "/")
		at := slices.IndexFunc(r.op.Parameters, func(one *huma.Param) bool { return one.Name == name })
		switch {
		case !ok || members[name] != nil: // told by its place already, or of the body
		case at >= 0:
			f = FieldError{Parameter: r.op.Parameters[at].In + "." + name, Detail: f.Detail}
		default:
			continue
		}
		out.Errors = append(out.Errors, f)
	}
	return &out
}

// members are those of an operation's JSON body.
func (a *API) members(op *huma.Operation) map[string]*huma.Schema {
	if op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return nil
	}
	s := op.RequestBody.Content["application/json"].Schema
	if s != nil && s.Ref != "" {
		s = a.huma.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
	}
	if s == nil {
		return nil
	}
	return s.Properties
}
