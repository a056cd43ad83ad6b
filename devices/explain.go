package devices

import (
	"slices"

	"muster"
	"muster/devices/query"
)

// Explained says what each part of a query does.
type Explained struct {
	Total int    // how many devices match all of it
	Parts []Part // in the order of the text
	Plan  Plan
}

// Part is one of those that a query joins by and: a term, or what stands in parentheses.
type Part struct {
	Text    string // in its canonical form
	At      int    // where it begins in the text, in bytes
	Without int    // how many devices match when it is left out
}

// Explain counts, in one pass from memory, what matches q and what would without each of
// its parts. only bounds which devices there are; nil for all. Invalid when q is not
// understood.
func (r *Registry) Explain(q string, only *query.Expr) (Explained, error) {
	written, err := query.Parse(q)
	if err != nil {
		return Explained{}, err
	}
	compiled, err := r.Compile(q)
	if err != nil {
		return Explained{}, err
	}
	texts, nodes := partsOf(written), partsOf(compiled)
	if len(texts) == 1 { // the saved query of a group may be made of several
		nodes = []query.Node{compiled.Root}
	}
	missed := make([]int, len(nodes))
	exprs := make([]query.Expr, len(nodes))
	for i, n := range nodes {
		exprs[i].Root = n
	}
	out := Explained{Parts: make([]Part, len(texts))}
	presence := query.UsesOf(compiled)&query.UsesPresence != 0
	out.Plan, _ = r.visit(only, presence, func(s *subject, now muster.Micros) {
		failed, one := 0, 0
		for i := range exprs {
			if query.Eval(&exprs[i], s, now) {
				continue
			}
			if failed++; failed > 1 {
				return
			}
			one = i
		}
		if failed == 0 {
			out.Total++
			return
		}
		missed[one]++
	})
	for i, n := range texts {
		e := query.Expr{Root: n}
		out.Parts[i] = Part{Text: e.String(), At: beginning(&e), Without: out.Total + missed[i]}
	}
	return out, nil
}

// partsOf are the nodes that e joins by and. Expand keeps their number and order when
// there are several.
func partsOf(e *query.Expr) []query.Node {
	if e == nil || e.Root == nil {
		return nil
	}
	if and, ok := e.Root.(*query.And); ok {
		return slices.Clone(and.Nodes)
	}
	return []query.Node{e.Root}
}

// beginning is where the first term of e is in the text.
func beginning(e *query.Expr) int {
	at := -1
	query.Walk(e, func(t *query.Term) {
		if at < 0 {
			at = t.Pos
		}
	})
	return max(at, 0)
}
