package query

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Parse reads a query. A text without a term matches every device. What is not
// understood, or is beyond MaxLength, MaxTerms or MaxDepth, is an Error, wrapped in a
// muster.Error of kind Invalid.
func Parse(s string) (*Expr, error) {
	e, err := parse(s)
	if err != nil {
		return nil, invalid(err)
	}
	return e, nil
}

func parse(s string) (*Expr, error) {
	if err := checkText(s); err != nil {
		return nil, err
	}
	p := &parser{s: s}
	p.space()
	if p.end() {
		return &Expr{}, nil
	}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.end() {
		return nil, p.fail(p.i, "", "there is no ( for this )")
	}
	e := &Expr{Root: root}
	if n := len(e.String()); n > MaxLength {
		return nil, fault(s, len(s), "", "written out the query has %d bytes, at most %d are allowed", n, MaxLength)
	}
	return e, nil
}

func checkText(s string) error {
	if len(s) > MaxLength {
		return fault(s, MaxLength, "", "the query has %d bytes, at most %d are allowed", len(s), MaxLength)
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return fault(s, i, "", "the text is not UTF-8")
		}
		if r == 0 {
			return fault(s, i, "", "a NUL is not allowed")
		}
		i += n
	}
	return nil
}

// parser reads s from byte i on. Its methods leave i behind what they took.
type parser struct {
	s     string
	i     int
	terms int
	depth int
}

func (p *parser) fail(pos int, hint, format string, args ...any) error {
	return fault(p.s, pos, hint, format, args...)
}

func (p *parser) end() bool { return p.i >= len(p.s) }

func (p *parser) at(c byte) bool { return p.i < len(p.s) && p.s[p.i] == c }

// space skips white space.
func (p *parser) space() {
	p.i = len(p.s) - len(strings.TrimLeftFunc(p.s[p.i:], unicode.IsSpace))
}

// boundary reports whether a term may end here.
func (p *parser) boundary() bool {
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	return p.end() || isBoundary(r)
}

// keyword takes the word w when it is next, and the space behind it.
func (p *parser) keyword(w string) bool {
	if len(p.s)-p.i < len(w) || !strings.EqualFold(p.s[p.i:p.i+len(w)], w) {
		return false
	}
	was := p.i
	if p.i += len(w); !p.boundary() && !p.at('"') {
		p.i = was
		return false
	}
	p.space()
	return true
}

// or reads terms joined by or, and the space behind them.
func (p *parser) or() (Node, error) {
	var nodes []Node
	for {
		n, err := p.and()
		if err != nil {
			return nil, err
		}
		if o, ok := n.(*Or); ok {
			nodes = append(nodes, o.Nodes...)
		} else {
			nodes = append(nodes, n)
		}
		if !p.keyword("or") {
			break
		}
	}
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	return &Or{nodes}, nil
}

// and reads terms joined by and, or by nothing.
func (p *parser) and() (Node, error) {
	var nodes []Node
	for {
		n, err := p.not()
		if err != nil {
			return nil, err
		}
		if a, ok := n.(*And); ok {
			nodes = append(nodes, a.Nodes...)
		} else {
			nodes = append(nodes, n)
		}
		if p.keyword("and") {
			continue
		}
		if p.end() || p.at(')') || p.nextIs("or") {
			break
		}
	}
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	return &And{nodes}, nil
}

// nextIs reports whether keyword would take w.
func (p *parser) nextIs(w string) bool {
	was := p.i
	found := p.keyword(w)
	p.i = was
	return found
}

func (p *parser) not() (Node, error) {
	start := p.i
	if !p.keyword("not") {
		return p.primary()
	}
	if err := p.deeper(start); err != nil {
		return nil, err
	}
	n, err := p.not()
	p.depth--
	if err != nil {
		return nil, err
	}
	return &Not{n}, nil
}

func (p *parser) deeper(at int) error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(at, "", "nested deeper than %d levels", MaxDepth)
	}
	return nil
}

// primary reads a term, or what is in parentheses, and the space behind it.
func (p *parser) primary() (Node, error) {
	switch {
	case p.end():
		return nil, p.fail(p.i, "", "a term is missing here")
	case p.at(')'):
		return nil, p.fail(p.i, "", "a term is missing before this )")
	case p.nextIs("and") || p.nextIs("or"):
		return nil, p.fail(p.i, "to search for the word put it in quotes", "a term is missing before this word")
	case p.at('('):
		return p.group()
	}
	if p.terms++; p.terms > MaxTerms {
		return nil, p.fail(p.i, "", "more than %d terms", MaxTerms)
	}
	t, err := p.term()
	if err != nil {
		return nil, err
	}
	p.space()
	return t, nil
}

func (p *parser) group() (Node, error) {
	open := p.i
	if err := p.deeper(open); err != nil {
		return nil, err
	}
	p.i++
	p.space()
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.at(')') {
		return nil, p.fail(open, "", "there is no ) for this (")
	}
	p.depth--
	p.i++
	p.space()
	return n, nil
}
