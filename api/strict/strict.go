package strict

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may lie in each other.
const MaxDepth = 32

// maxMembers is from how many members on an object's names are looked up in a map.
const maxMembers = 16

// FaultError is why a text is refused.
type FaultError struct {
	Pointer string // JSON pointer (RFC 6901) to the fault's place, empty for the whole
	Offset  int    // in bytes
	Detail  string // for people; it repeats nothing of the text
	Value   bool   // it is JSON, and one of its values can not be kept
}

// Error returns the detail.
func (f *FaultError) Error() string { return f.Detail }

// Check returns nil when text is one JSON value that every program reads alike, else a *FaultError.
func Check(text []byte) error {
	s := scanner{b: text}
	s.space()
	if err := s.value(); err != nil {
		return err
	}
	s.space()
	if s.i < len(s.b) {
		return s.fault("there is something after the JSON value")
	}
	return nil
}

// step is a member's name or an element's number, on the way to the place that is looked at.
type step struct {
	name   []byte // as it stands in the text, between its quotes
	number int
	object bool
}

type scanner struct {
	b    []byte
	i    int
	path [MaxDepth]step
	deep int
}

func (s *scanner) fault(detail string) *FaultError {
	var p strings.Builder
	for _, st := range s.path[:s.deep] {
		p.WriteByte('/')
		if st.object {
			p.WriteString(escaped(unquote(st.name)))
		} else {
			p.WriteString(strconv.Itoa(st.number))
		}
	}
	return &FaultError{Pointer: p.String(), Offset: s.i, Detail: detail}
}

// escaped is a name as part of a pointer; a very long one is cut.
func escaped(name string) string {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "..."
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) value() error {
	switch c := s.peek(); {
	case s.i >= len(s.b):
		return s.fault("the JSON ends before its value does")
	case c == '{':
		return s.nested(s.object)
	case c == '[':
		return s.nested(s.array)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return s.fault("this is not JSON")
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return s.fault("this is not JSON")
	}
	s.i += len(w)
	return nil
}

// nested reads an object or an array, one level deeper.
func (s *scanner) nested(read func() error) error {
	if s.deep == MaxDepth {
		return s.fault("objects and arrays lie more than " + strconv.Itoa(MaxDepth) + " deep in each other")
	}
	s.deep++
	s.path[s.deep-1] = step{}
	s.i++
	s.space()
	if err := read(); err != nil {
		return err
	}
	s.deep--
	return nil
}

func (s *scanner) array() error {
	at := &s.path[s.deep-1]
	for s.peek() != ']' || at.number > 0 {
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		if s.peek() == ']' {
			break
		}
		if s.peek() != ',' {
			return s.fault("a comma or the end of the array is missing")
		}
		s.i++
		s.space()
		at.number++
	}
	s.i++
	return nil
}

func (s *scanner) object() error {
	at := &s.path[s.deep-1]
	var first [maxMembers][]byte
	names := seen{few: first[:0]}
	for more := s.peek() != '}'; more; {
		if s.peek() != '"' {
			s.deep-- // likewise
			return s.fault("a member's name is missing")
		}
		s.deep-- // a fault there is one of the object
		name, err := s.text()
		if err != nil {
			return err
		}
		s.deep++
		at.name, at.object = name, true
		if names.again(name) {
			return s.fault("the object has this member twice")
		}
		s.space()
		if s.peek() != ':' {
			return s.fault("a colon is missing")
		}
		s.i++
		s.space()
		if err := s.value(); err != nil {
			return err
		}
		s.space()
		if more = s.peek() == ','; more {
			s.i++
			s.space()
		} else if s.peek() != '}' {
			return s.fault("a comma or the end of the object is missing")
		}
	}
	s.i++
	return nil
}

// seen has an object's names: a few as they stand, many in a map.
type seen struct {
	few  [][]byte
	many map[string]struct{}
}

// again says whether name was there before. Names are compared as what they mean.
func (n *seen) again(name []byte) bool {
	if n.many == nil && len(n.few) < maxMembers {
		for _, have := range n.few {
			if equal(have, name) {
				return true
			}
		}
		n.few = append(n.few, name)
		return false
	}
	if n.many == nil {
		n.many = make(map[string]struct{}, 4*maxMembers)
		for _, have := range n.few {
			n.many[unquote(have)] = struct{}{}
		}
	}
	text := unquote(name)
	_, twice := n.many[text]
	n.many[text] = struct{}{}
	return twice
}

func equal(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	return (hasEscape(a) || hasEscape(b)) && unquote(a) == unquote(b)
}

func hasEscape(b []byte) bool { return bytes.IndexByte(b, '\\') >= 0 }

// number reads a number; one beyond a double cannot be kept.
func (s *scanner) number() error {
	from := s.i
	if s.peek() == '-' {
		s.i++
	}
	switch {
	case s.peek() == '0':
		s.i++
	case !s.digits():
		return s.fault("this is not JSON: a number without digits")
	}
	whole := true
	if s.peek() == '.' {
		s.i++
		if whole = false; !s.digits() {
			return s.fault("this is not JSON: a number without digits")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if whole = false; !s.digits() {
			return s.fault("this is not JSON: a number without digits")
		}
	}
	if whole && s.i-from < 300 {
		return nil
	}
	if _, err := strconv.ParseFloat(string(s.b[from:s.i]), 64); err != nil {
		f := s.fault("the number is too large")
		f.Value = true
		return f
	}
	return nil
}

func (s *scanner) digits() bool {
	from := s.i
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > from
}

// text reads a string and returns what is between its quotes.
func (s *scanner) text() ([]byte, error) {
	s.i++
	from := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[from : s.i-1], nil
		case c == '\\':
			if !s.escape() {
				return nil, s.fault("a text has an escape that is none")
			}
		case c < ' ':
			return nil, s.fault("a text has a control character that is not escaped")
		case c < utf8.RuneSelf:
			s.i++
		default:
			r, n := utf8.DecodeRune(s.b[s.i:])
			if r == utf8.RuneError && n == 1 {
				return nil, s.fault("a text is not UTF-8")
			}
			s.i += n
		}
	}
	return nil, s.fault("the JSON ends before its value does")
}

// escape reads one; half of a surrogate pair is none.
func (s *scanner) escape() bool {
	if s.i+1 >= len(s.b) {
		return false
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return true
	case 'u':
	default:
		return false
	}
	u, ok := s.unit()
	switch {
	case !ok || u >= 0xDC00 && u < 0xE000:
		return false
	case u < 0xD800 || u >= 0xE000:
		return true
	}
	low, ok := s.unit()
	return ok && low >= 0xDC00 && low < 0xE000
}

// unit reads \u and four hexadecimal digits.
func (s *scanner) unit() (uint64, bool) {
	if s.i+6 > len(s.b) || s.b[s.i] != '\\' || s.b[s.i+1] != 'u' {
		return 0, false
	}
	u, err := strconv.ParseUint(string(s.b[s.i+2:s.i+6]), 16, 16)
	if err != nil || s.b[s.i+2] == '+' || s.b[s.i+2] == '_' {
		return 0, false
	}
	s.i += 6
	return u, true
}
