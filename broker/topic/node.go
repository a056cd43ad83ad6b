package topic

import (
	"maps"
	"strings"
)

// node is one level of the filters. It is kept at 64 bytes: most nodes have one
// child, and a large fleet has hundreds of thousands of them.
type node[S comparable] struct {
	level       string
	first, next *node[S]     // the first child, and the next child of the parent, while they are few
	many        *kids[S]     // the children by level, when they are more
	plus        *node[S]     // the child +
	here        *audience[S] // of the filter that ends here
	below       *audience[S] // of the filter that ends here with /#
}

// kids are many children. A map never shrinks: it is made anew when the children
// have become a quarter of what they were.
type kids[S comparable] struct {
	by   map[string]*node[S]
	peak int
}

func (n *node[S]) empty() bool {
	return n.first == nil && n.many == nil && n.plus == nil && n.here == nil && n.below == nil
}

// walk appends the audiences that a name reaches from n: tail is what is left of the
// name, more whether that is at least one level. open is false at the root for names
// that wildcards there do not match. It visits no more nodes than the filters have.
func (n *node[S]) walk(found []*audience[S], tail string, more, open bool) []*audience[S] {
	if n.below != nil && open {
		found = append(found, n.below)
	}
	if !more {
		if n.here != nil {
			found = append(found, n.here)
		}
		return found
	}
	level, tail, more := strings.Cut(tail, "/")
	if kid := n.child(level); kid != nil {
		found = kid.walk(found, tail, more, true)
	}
	if n.plus != nil && open {
		found = n.plus.walk(found, tail, more, true)
	}
	return found
}

// child returns the child at a literal level, or nil.
func (n *node[S]) child(level string) *node[S] {
	if n.many != nil {
		return n.many.by[level]
	}
	for kid := n.first; kid != nil; kid = kid.next {
		if kid.level == level {
			return kid
		}
	}
	return nil
}

// step returns the child at a level of a filter, or nil.
func (n *node[S]) step(level string) *node[S] {
	if level == "+" {
		return n.plus
	}
	return n.child(level)
}

// grow returns the child at a level of a filter, and makes it when there is none.
func (n *node[S]) grow(level string) *node[S] {
	if kid := n.step(level); kid != nil {
		return kid
	}
	if level == "+" {
		n.plus = &node[S]{level: "+"}
		return n.plus
	}
	kid := &node[S]{level: strings.Clone(level)}
	if n.many == nil {
		kid.next, n.first = n.first, kid
		n.spread()
		return kid
	}
	n.many.by[kid.level] = kid
	n.many.peak = max(n.many.peak, len(n.many.by))
	return kid
}

// spread puts the children into a map when they are more than few.
func (n *node[S]) spread() {
	count := 0
	for kid := n.first; kid != nil; kid = kid.next {
		count++
	}
	if count <= few {
		return
	}
	by := make(map[string]*node[S], count)
	for kid := n.first; kid != nil; {
		by[kid.level] = kid
		kid, kid.next = kid.next, nil
	}
	n.first, n.many = nil, &kids[S]{by: by, peak: count}
}

// cut takes the child kid away.
func (n *node[S]) cut(kid *node[S]) {
	switch {
	case kid == n.plus:
		n.plus = nil
	case n.many != nil:
		delete(n.many.by, kid.level)
		n.gather()
	default:
		at := &n.first
		for *at != kid {
			at = &(*at).next
		}
		*at = kid.next
	}
}

// gather puts the children back into a list, or into a smaller map, when they have
// become few.
func (n *node[S]) gather() {
	m := n.many
	switch {
	case len(m.by) <= few/2:
		for _, kid := range m.by {
			kid.next, n.first = n.first, kid
		}
		n.many = nil
	case len(m.by)*4 < m.peak:
		by := make(map[string]*node[S], len(m.by))
		maps.Copy(by, m.by)
		n.many = &kids[S]{by: by, peak: len(by)}
	}
}
