package twin

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"muster"
)

const (
	// MaxDocument is the longest document, in bytes of its canonical text.
	MaxDocument = 64 << 10
	// MaxPatch is the longest text that is taken as a patch or document, in bytes.
	MaxPatch = 256 << 10
	// MaxDepth is how many objects and arrays may lie in each other, the document itself
	// included.
	MaxDepth = 16
	// MaxNumber is the longest number, in bytes as it is written.
	MaxNumber = 256
	// MaxExponent is the largest exponent of a number, of either sign.
	MaxExponent = 999
)

// empty is the document that has nothing.
const empty = "{}"

// node is a JSON value. An object has its members; anything else is its canonical
// text: no spaces, members in bytewise order of key, strings with the escapes that must
// be, numbers as they were written.
type node struct {
	raw     string   // empty for an object
	members []member // by key
	from    int      // the level it was read from, for those who ask who won
}

type member struct {
	key   string
	value node
}

func (n *node) isObject() bool { return n.raw == "" }

// parse reads text as one JSON object (RFC 8259). Beyond the grammar it refuses what
// cannot be kept exactly on every engine or means several things: two members with one
// key, text that is not UTF-8, lone surrogates, U+0000, and numbers over MaxNumber and
// MaxExponent.
func parse(text string, from int) (node, error) {
	if len(text) > MaxPatch {
		return node{}, muster.Errorf(muster.TooLarge, "%d bytes of JSON, at most %d are taken", len(text), MaxPatch)
	}
	if !utf8.ValidString(text) {
		return node{}, muster.Errorf(muster.Invalid, "the JSON is not UTF-8")
	}
	p := parser{text: text, from: from}
	p.space()
	if p.peek() != '{' {
		return node{}, p.fail("a JSON object is expected")
	}
	n, err := p.object(1)
	if err != nil {
		return node{}, err
	}
	p.space()
	if p.at < len(text) {
		return node{}, p.fail("there is more after the object")
	}
	return n, nil
}

type parser struct {
	text string
	at   int
	from int
}

func (p *parser) fail(what string) error {
	return muster.Errorf(muster.Invalid, "not a JSON document: byte %d: %s", p.at+1, what)
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) value(depth int) (node, error) {
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		s, err := p.str()
		return node{raw: s, from: p.from}, err
	case c == '-' || '0' <= c && c <= '9':
		s, err := p.number()
		return node{raw: s, from: p.from}, err
	}
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(p.text[p.at:], word) {
			p.at += len(word)
			return node{raw: word, from: p.from}, nil
		}
	}
	return node{}, p.fail("a value is expected")
}

func (p *parser) object(depth int) (node, error) {
	n := node{from: p.from}
	if depth > MaxDepth {
		return n, p.fail("objects and arrays lie too deep in each other")
	}
	sorted := true
	for first := true; ; first = false {
		end, err := p.next('}', first)
		if err != nil {
			return n, err
		}
		if end {
			break
		}
		m, err := p.member(depth)
		if err != nil {
			return n, err
		}
		sorted = sorted && (first || n.members[len(n.members)-1].key < m.key)
		n.members = append(n.members, m)
	}
	if sorted {
		return n, nil
	}
	slices.SortStableFunc(n.members, func(a, b member) int { return cmp.Compare(a.key, b.key) })
	for i := range n.members[1:] {
		if n.members[i].key == n.members[i+1].key {
			return n, p.fail("the object that ends here has a key twice")
		}
	}
	return n, nil
}

func (p *parser) member(depth int) (member, error) {
	if p.peek() != '"' {
		return member{}, p.fail("a key in quotes is expected")
	}
	raw, err := p.str()
	if err != nil {
		return member{}, err
	}
	p.space()
	if p.peek() != ':' {
		return member{}, p.fail("a colon is expected")
	}
	p.at++
	p.space()
	v, err := p.value(depth + 1)
	return member{key: unquote(raw), value: v}, err
}

// next goes to the next member or element, past the opening bracket or the comma, and
// says whether the closing one is there instead.
func (p *parser) next(closing byte, first bool) (end bool, err error) {
	if first {
		p.at++
	}
	p.space()
	switch c := p.peek(); {
	case c == closing:
		p.at++
		return true, nil
	case first:
		return false, nil
	case c != ',':
		return false, p.fail("a comma or the end is expected")
	}
	p.at++
	p.space()
	if p.peek() == closing {
		return false, p.fail("nothing comes after the comma")
	}
	return false, nil
}

func (p *parser) array(depth int) (node, error) {
	if depth > MaxDepth {
		return node{}, p.fail("objects and arrays lie too deep in each other")
	}
	out := []byte{'['}
	for first := true; ; first = false {
		end, err := p.next(']', first)
		if err != nil {
			return node{}, err
		}
		if end {
			break
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return node{}, err
		}
		if !first {
			out = append(out, ',')
		}
		out = v.appendTo(out)
	}
	return node{raw: string(append(out, ']')), from: p.from}, nil
}

func (p *parser) number() (string, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	whole := p.digits()
	if whole == 0 || whole > 1 && p.text[p.at-whole] == '0' {
		return "", p.fail("not a number")
	}
	if p.peek() == '.' {
		p.at++
		if p.digits() == 0 {
			return "", p.fail("digits are expected")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.at++
		if c := p.peek(); c == '+' || c == '-' {
			p.at++
		}
		n := p.digits()
		if n == 0 {
			return "", p.fail("digits are expected")
		}
		if len(strings.TrimLeft(p.text[p.at-n:p.at], "0")) > len("999") {
			return "", p.fail("the number's exponent is too large")
		}
	}
	if p.at-start > MaxNumber {
		return "", p.fail("the number is too long")
	}
	return p.text[start:p.at], nil
}

func (p *parser) digits() int {
	start := p.at
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.at++
	}
	return p.at - start
}

// str returns the string that begins here in its canonical text, with its quotes.
func (p *parser) str() (string, error) {
	start := p.at
	p.at++
	plain := true
	for {
		switch c := p.peek(); {
		case c == '"':
			p.at++
			if plain {
				return p.text[start:p.at], nil
			}
			return p.unescape(start)
		case c == '\\':
			plain = false
			p.at += 2
		case c < ' ':
			if p.at >= len(p.text) {
				p.at = len(p.text)
				return "", p.fail("the string does not end")
			}
			return "", p.fail("a control character must be escaped")
		default:
			p.at++
		}
	}
}

// unescape makes the string that lies between start and here canonical.
func (p *parser) unescape(start int) (string, error) {
	body := p.text[start+1 : p.at-1]
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			out = append(out, body[i])
			continue
		}
		i++
		if c := strings.IndexByte(`"\/bfnrt`, body[i]); c >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[c])
			continue
		}
		r, n := unicodeEscape(body[i:])
		if n == 0 {
			p.at = start + i
			return "", p.fail("this escape means no character that can be kept")
		}
		out = utf8.AppendRune(out, r)
		i += n - 1
	}
	return string(appendQuoted(make([]byte, 0, len(out)+2), string(out))), nil
}

// unicodeEscape reads u and four hexadecimal digits, or the two of a pair with the backslash between, and
// returns its length, 0 when it is none.
func unicodeEscape(s string) (rune, int) {
	r, ok := hex4(s)
	if !ok || r == 0 {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 5
	}
	if len(s) < 11 || s[5] != '\\' {
		return 0, 0
	}
	low, ok := hex4(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 11
}

func hex4(s string) (r rune, ok bool) {
	if len(s) < 5 || s[0] != 'u' {
		return 0, false
	}
	for i := 1; i < 5; i++ {
		c := s[i] | 0x20
		switch {
		case '0' <= s[i] && s[i] <= '9':
			r = r<<4 | rune(s[i]-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// appendQuoted appends s as a JSON string, with no escape that is not needed.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case strings.IndexByte("\b\f\n\r\t", c) >= 0:
			b = append(b, '\\', "bfnrt"[strings.IndexByte("\b\f\n\r\t", c)])
		default:
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		}
	}
	return append(b, '"')
}

// unquote returns what a canonical string says. It allocates only when it has escapes.
func unquote(raw string) string {
	body := raw[1 : len(raw)-1]
	if strings.IndexByte(body, '\\') < 0 {
		return body
	}
	out := make([]byte, 0, len(body))
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			out = append(out, body[i])
			continue
		}
		i++
		if c := strings.IndexByte(`"\bfnrt`, body[i]); c >= 0 {
			out = append(out, "\"\\\b\f\n\r\t"[c])
			continue
		}
		r, _ := hex4(body[i:])
		out = append(out, byte(r)) // canonical text escapes control characters only
		i += 4
	}
	return string(out)
}

// appendTo appends the canonical text of n.
func (n *node) appendTo(b []byte) []byte {
	if !n.isObject() {
		return append(b, n.raw...)
	}
	b = append(b, '{')
	for i := range n.members {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendQuoted(b, n.members[i].key)
		b = append(b, ':')
		b = n.members[i].value.appendTo(b)
	}
	return append(b, '}')
}

func (n *node) text() string {
	if n.isObject() && len(n.members) == 0 {
		return empty
	}
	return string(n.appendTo(nil))
}
