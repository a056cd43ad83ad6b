package query

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// String returns the query in its canonical form: Parse of it gives the same tree but
// for the positions. The query that matches every device is empty.
func (e *Expr) String() string {
	if e == nil || e.Root == nil {
		return ""
	}
	return string(appendNode(nil, e.Root, 0))
}

// String returns the term as Expr.String does.
func (t *Term) String() string { return string(appendTerm(nil, t)) }

// How strongly what is around a node binds: none, an Or, an And, a Not.
const (
	inOr = 1 + iota
	inAnd
	inNot
)

func appendNode(b []byte, n Node, around int) []byte {
	switch n := n.(type) {
	case *Or:
		return appendList(b, n.Nodes, " or ", around > inOr, inOr)
	case *And:
		join := " "
		if around == inOr {
			join = " and "
		}
		return appendList(b, n.Nodes, join, around > inAnd, inAnd)
	case *Not:
		return appendNode(append(b, "not "...), n.Node, inNot)
	case *Term:
		return appendTerm(b, n)
	}
	return b
}

func appendList(b []byte, nodes []Node, join string, parens bool, around int) []byte {
	if parens {
		b = append(b, '(')
	}
	for i, n := range nodes {
		if i > 0 {
			b = append(b, join...)
		}
		b = appendNode(b, n, around)
	}
	if parens {
		b = append(b, ')')
	}
	return b
}

func appendTerm(b []byte, t *Term) []byte {
	if t.Field == AnyText {
		return appendText(b, t.Value.Text, isWord(t.Value.Text))
	}
	g := grammarOf(t.Field)
	b = append(b, g.name...)
	switch {
	case t.Field == Tag:
		b = append(append(b, ':'), t.Path[0]...)
	case t.Field == Telemetry:
		b = appendText(b, t.Path[0], isBare(t.Path[0], func(r rune) bool { return r < utf8.RuneSelf && isOp(byte(r)) }))
	case g.shape == leafShape:
		for i, name := range t.Path {
			if i > 0 {
				b = append(b, '.')
			}
			b = appendText(b, name, isBare(name, stopsStep))
		}
	}
	if withPath := t.Field == Tag || g.shape == leafShape; withPath && t.Op == Eq && t.Value.Kind == Any {
		return b
	}
	return appendValue(append(b, t.Op.String()...), t.Op, g.shape, t.Value)
}

func appendValue(b []byte, op Op, s shape, v Value) []byte {
	switch v.Kind {
	case Any:
		return append(b, '*')
	case Prefix:
		return append(append(b, v.Text...), '*')
	case Number:
		return appendNumber(b, v.Num)
	case Bool:
		return strconv.AppendBool(b, v.Num == 1)
	case Duration:
		return appendAge(b, int64(v.Micros))
	case Time:
		return v.Micros.Time().AppendFormat(b, "2006-01-02T15:04:05.999999Z07:00")
	case Text:
	}
	bare := isValue(v.Text)
	if s == leafShape && op != Contains && (isNumber(v.Text) || v.Text == "true" || v.Text == "false" || v.Text == "null") {
		bare = false
	}
	return appendText(b, v.Text, bare)
}

// appendText appends s, in quotes unless it may stand bare.
func appendText(b []byte, s string, bare bool) []byte {
	if bare {
		return append(b, s...)
	}
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// isBare reports whether s can stand without quotes where stop ends it.
func isBare(s string, stop func(rune) bool) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r == '"' || isBoundary(r) || stop(r) }) < 0
}

func isWord(s string) bool {
	return isBare(s, func(r rune) bool { return r == '*' || r < utf8.RuneSelf && isOp(byte(r)) }) &&
		!isKeyword(s) && !strings.HasPrefix(s, "v.") && !strings.HasPrefix(s, "twin.")
}

func isValue(s string) bool {
	return isBare(s, func(r rune) bool { return r == '*' }) && (s[0] == ':' || !isOp(s[0]))
}

// appendNumber appends the shortest text that gives f again.
func appendNumber(b []byte, f float64) []byte {
	if abs := math.Abs(f); f == 0 || abs >= 1e-4 && abs < 1e15 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

// appendAge appends a duration in the longest unit that gives a whole number, else in
// milliseconds.
func appendAge(b []byte, micros int64) []byte {
	if micros == 0 {
		return append(b, "0s"...)
	}
	for _, u := range units() {
		if micros%int64(u.micros) == 0 {
			return append(strconv.AppendInt(b, micros/int64(u.micros), 10), u.name...)
		}
	}
	return append(strconv.AppendFloat(b, float64(micros)/1e3, 'f', 3, 64), "ms"...)
}
