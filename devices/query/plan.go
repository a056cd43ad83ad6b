package query

import (
	"slices"
	"strings"

	"muster"
)

// Walk calls visit for every term, from left to right.
func Walk(e *Expr, visit func(*Term)) {
	if e != nil && e.Root != nil {
		walk(e.Root, visit)
	}
}

func walk(n Node, visit func(*Term)) {
	switch n := n.(type) {
	case *And:
		for _, c := range n.Nodes {
			walk(c, visit)
		}
	case *Or:
		for _, c := range n.Nodes {
			walk(c, visit)
		}
	case *Not:
		walk(n.Node, visit)
	case *Term:
		visit(n)
	}
}

// Groups returns the names of the groups that the query refers to, sorted, each once.
func Groups(e *Expr) []string {
	var names []string
	Walk(e, func(t *Term) {
		if t.Field == Group {
			names = append(names, t.Value.Text)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Uses says what, beside the registry's own entry, an answer depends on.
type Uses uint8

// The parts of Uses.
const (
	UsesGroups    Uses = 1 << iota // membership of groups; of saved queries see Expand
	UsesTelemetry                  // latest values
	UsesTwin                       // the twin, or whether it has converged
	UsesPresence                   // presence, or the last packet
	UsesTime                       // the time: the answer changes by itself
	UsesChildren                   // whether other devices have this one as parent
	UsesCredentials
)

// UsesOf returns what e's answers depend on, so that its user knows when to ask again.
func UsesOf(e *Expr) Uses {
	var u Uses
	Walk(e, func(t *Term) { u |= t.uses() })
	return u
}

func (t *Term) uses() (u Uses) {
	if t.Value.Kind == Duration {
		u = UsesTime
	}
	switch t.Field {
	case Group:
		return UsesGroups
	case Telemetry:
		return UsesTelemetry
	case Reported, Desired, Converged, Diverged:
		return UsesTwin
	case Status:
		if t.Value.Text == Silent {
			u = UsesTime
		}
		return u | UsesPresence
	case Seen:
		return u | UsesPresence
	case Has:
		switch t.Value.Text {
		case HasTwin:
			return UsesTwin
		case HasConnection:
			return UsesPresence
		case HasChildren:
			return UsesChildren
		case HasCredential:
			return UsesCredentials
		}
	case AnyText, ID, Name, Profile, Parent, Firmware, Notes, Tag, Created, Lat, Lon:
	}
	return u
}

// Necessary returns the terms with = that every match satisfies and that an index may
// answer: on ID, Group, Profile, Parent (not the empty one) and Tag. Which groups are
// saved queries, that have no index, the caller knows.
func Necessary(e *Expr) []*Term {
	if e == nil || e.Root == nil {
		return nil
	}
	return necessary(nil, e.Root)
}

func necessary(out []*Term, n Node) []*Term {
	switch n := n.(type) {
	case *And:
		for _, c := range n.Nodes {
			out = necessary(out, c)
		}
	case *Term:
		if n.indexable() {
			out = append(out, n)
		}
	}
	return out
}

func (t *Term) indexable() bool {
	if t.Op != Eq || t.Value.Kind != Text {
		return false
	}
	switch t.Field {
	case ID, Group, Profile, Tag:
		return true
	case Parent:
		return t.Value.Text != ""
	default:
		return false
	}
}

// MaxExpanded is the most terms that Expand makes of a query.
const MaxExpanded = 1024

// Expand returns e with each group whose name resolve knows replaced by its saved query;
// groups that it does not know stay and are static ones. It answers Invalid when saved
// queries refer to each other in a circle, are nested more than MaxDepth deep, or make
// more than MaxExpanded terms. The result is to be walked and evaluated, not written.
func Expand(e *Expr, resolve func(name string) (*Expr, bool)) (*Expr, error) {
	if e == nil || e.Root == nil {
		return &Expr{}, nil
	}
	x := expander{resolve: resolve}
	root, err := x.node(e.Root)
	if err != nil {
		return nil, err
	}
	return &Expr{Root: root}, nil
}

type expander struct {
	resolve func(string) (*Expr, bool)
	inside  []string // the groups that are being expanded
	terms   int
}

func (x *expander) node(n Node) (Node, error) {
	switch n := n.(type) {
	case *And:
		nodes, err := x.list(n.Nodes)
		return &And{nodes}, err
	case *Or:
		nodes, err := x.list(n.Nodes)
		return &Or{nodes}, err
	case *Not:
		inner, err := x.node(n.Node)
		return &Not{inner}, err
	case *Term:
		return x.term(n)
	}
	return n, nil
}

func (x *expander) list(nodes []Node) ([]Node, error) {
	out := make([]Node, len(nodes))
	for i, n := range nodes {
		var err error
		if out[i], err = x.node(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (x *expander) term(t *Term) (Node, error) {
	if x.terms++; x.terms > MaxExpanded {
		return nil, muster.Errorf(muster.Invalid, "with the saved queries of its groups the query has more than %d terms", MaxExpanded)
	}
	if t.Field != Group {
		return t, nil
	}
	saved, ok := x.resolve(t.Value.Text)
	if !ok {
		return t, nil
	}
	switch {
	case slices.Contains(x.inside, t.Value.Text):
		return nil, muster.Errorf(muster.Invalid, "the saved queries of the groups %s refer to each other in a circle", strings.Join(x.inside, ", "))
	case len(x.inside) == MaxDepth:
		return nil, muster.Errorf(muster.Invalid, "saved queries refer to each other more than %d deep", MaxDepth)
	}
	x.inside = append(x.inside, t.Value.Text)
	root := Node(&Term{Field: ID, Value: Value{Kind: Any}}) // every device
	if saved != nil && saved.Root != nil {
		var err error
		if root, err = x.node(saved.Root); err != nil {
			return nil, err
		}
	}
	x.inside = x.inside[:len(x.inside)-1]
	if t.Op == Ne {
		return &Not{root}, nil
	}
	return root, nil
}
