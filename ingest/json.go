package ingest

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"muster"
)

// Limits on one payload. They are generous for telemetry and small enough that
// no payload costs more than its own length.
const (
	maxDepth    = 16   // nesting of objects and arrays
	maxKeys     = 256  // values in one message
	maxKeyBytes = 256  // of a flattened key
	maxArray    = 1000 // messages in one payload
)

// rawKey is a key of the message under way; name aliases the payload or scratch.
type rawKey struct {
	name []byte
	kind muster.ValueKind
}

// fault is why a payload is refused; at is the byte offset it was seen at.
type fault struct {
	code, reason string
	at           int
}

func (f *fault) Error() string { return f.reason }

// scanner reads JSON (RFC 8259) strictly and without allocating for plain input.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) fail(reason string) *fault {
	return &fault{code: "malformed", reason: reason + " at byte " + strconv.Itoa(s.i), at: s.i}
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is not space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) expect(c byte) *fault {
	if s.peek() != c {
		return s.fail("malformed JSON: expected '" + string(c) + "'")
	}
	s.i++
	return nil
}

// end fails when anything but space is left.
func (s *scanner) end() *fault {
	if s.space(); s.i < len(s.b) {
		return s.fail("malformed JSON: something follows the value")
	}
	return nil
}

// str reads a string and returns its bytes unescaped, aliasing the payload when
// there was nothing to unescape. raw is the JSON text with its quotes.
func (s *scanner) str() (val, raw []byte, f *fault) {
	if f := s.expect('"'); f != nil {
		return nil, nil, f
	}
	start := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			val = s.b[start:s.i]
			s.i++
			if !utf8.Valid(val) {
				s.i = start
				return nil, nil, s.fail("malformed JSON: text is not UTF-8")
			}
			return val, s.b[start-1 : s.i], nil
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			return nil, nil, s.fail("malformed JSON: control character in a string")
		default:
			s.i++
		}
	}
	return nil, nil, s.fail("malformed JSON: a string does not end")
}

// escaped reads on from the first backslash of a string that began at start.
func (s *scanner) escaped(start int) (val, raw []byte, f *fault) {
	out := append([]byte(nil), s.b[start:s.i]...)
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			if !utf8.Valid(s.b[start:s.i]) {
				return nil, nil, s.fail("malformed JSON: text is not UTF-8")
			}
			if bytes.IndexByte(out, 0) >= 0 {
				return nil, nil, &fault{code: "text", reason: "text with U+0000 can not be stored", at: start}
			}
			return out, s.b[start-1 : s.i], nil
		case c == '\\':
			r, f := s.escape()
			if f != nil {
				return nil, nil, f
			}
			out = utf8.AppendRune(out, r)
		case c < 0x20:
			return nil, nil, s.fail("malformed JSON: control character in a string")
		default:
			out = append(out, c)
			s.i++
		}
	}
	return nil, nil, s.fail("malformed JSON: a string does not end")
}

func (s *scanner) escape() (rune, *fault) {
	if s.i+1 >= len(s.b) {
		return 0, s.fail("malformed JSON: a string does not end")
	}
	c := s.b[s.i+1]
	if c == 'u' {
		return s.unicode()
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	for k := range len(from) {
		if from[k] == c {
			s.i += 2
			return rune(to[k]), nil
		}
	}
	return 0, s.fail("malformed JSON: unknown escape")
}

// unicode reads \u and four hexadecimal digits, and its partner when it is half of a surrogate pair. A
// lone surrogate is refused: no text store can keep it.
func (s *scanner) unicode() (rune, *fault) {
	r, ok := s.hex4(s.i + 2)
	if !ok {
		return 0, s.fail("malformed JSON: \\u wants four hex digits")
	}
	if r < 0xD800 || r > 0xDFFF {
		s.i += 6
		return r, nil
	}
	if r < 0xDC00 && s.i+12 <= len(s.b) && s.b[s.i+6] == '\\' && s.b[s.i+7] == 'u' {
		if lo, ok := s.hex4(s.i + 8); ok && lo >= 0xDC00 && lo <= 0xDFFF {
			s.i += 12
			return (r-0xD800)<<10 + (lo - 0xDC00) + 0x10000, nil
		}
	}
	return 0, s.fail("malformed JSON: half of a surrogate pair")
}

func (s *scanner) hex4(at int) (rune, bool) {
	if at+4 > len(s.b) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s.b[at:at+4]), 16, 16)
	return rune(v), err == nil && s.b[at] != '+' && s.b[at] != '_'
}

var pow10 = [...]float64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// number reads a number. exact is false when a float64 can not hold it: an integer
// beyond 2^53 or a magnitude beyond float64; raw is its JSON text.
func (s *scanner) number() (v float64, raw []byte, exact bool, f *fault) {
	start := s.i
	neg := s.i < len(s.b) && s.b[s.i] == '-'
	if neg {
		s.i++
	}
	var mant uint64
	digits, frac := 0, 0
	intStart := s.i
	for s.i < len(s.b) && isDigit(s.b[s.i]) {
		mant = mant*10 + uint64(s.b[s.i]-'0')
		s.i++
	}
	digits = s.i - intStart
	if digits == 0 || digits > 1 && s.b[intStart] == '0' {
		s.i = start
		return 0, nil, false, s.fail("malformed JSON: not a value")
	}
	plain := true
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		fracStart := s.i
		for s.i < len(s.b) && isDigit(s.b[s.i]) {
			mant = mant*10 + uint64(s.b[s.i]-'0')
			s.i++
		}
		if frac = s.i - fracStart; frac == 0 {
			return 0, nil, false, s.fail("malformed JSON: a digit must follow the point")
		}
		plain = false
	}
	exp, f := s.exponent()
	if f != nil {
		return 0, nil, false, f
	}
	raw = s.b[start:s.i]
	if digits+frac <= 15 && !exp { // Clinger's fast path: both operands are exact
		v = float64(mant) / pow10[frac]
		if neg {
			v = -v
		}
		return v, raw, true, nil
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil { // beyond float64: its digits are kept
		return 0, raw, false, nil //nolint:nilerr // see above
	}
	return v, raw, !plain || exp || digits <= 16 && mant <= 1<<53, nil
}

// exponent reads an exponent if there is one.
func (s *scanner) exponent() (bool, *fault) {
	if s.i >= len(s.b) || s.b[s.i]|0x20 != 'e' {
		return false, nil
	}
	s.i++
	if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
		s.i++
	}
	start := s.i
	for s.i < len(s.b) && isDigit(s.b[s.i]) {
		s.i++
	}
	if s.i == start {
		return false, s.fail("malformed JSON: a digit must follow the exponent")
	}
	return true, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// word reads true, false or null.
func (s *scanner) word(w string) bool {
	if len(s.b)-s.i >= len(w) && string(s.b[s.i:s.i+len(w)]) == w {
		s.i += len(w)
		return true
	}
	return false
}

// skip reads any value and checks it; depth counts the nesting around it.
func (s *scanner) skip(depth int) *fault {
	if depth > maxDepth {
		return &fault{code: "malformed", reason: "nested deeper than " + strconv.Itoa(maxDepth) + " levels", at: s.i}
	}
	switch c := s.peek(); c {
	case '"':
		_, _, f := s.str()
		return f
	case '{':
		return s.members('}', func() *fault {
			if _, _, f := s.str(); f != nil {
				return f
			}
			if f := s.expect(':'); f != nil {
				return f
			}
			return s.skip(depth + 1)
		})
	case '[':
		return s.members(']', func() *fault { return s.skip(depth + 1) })
	default:
		if s.word("true") || s.word("false") || s.word("null") {
			return nil
		}
		_, _, _, f := s.number()
		return f
	}
}

// members reads what stands between an opening bracket, which is next, and its
// closing one, calling one for each member.
func (s *scanner) members(closing byte, one func() *fault) *fault {
	s.i++
	if s.peek() == closing {
		s.i++
		return nil
	}
	for {
		if s.peek() == 0 {
			return s.fail("malformed JSON: it does not end")
		}
		if f := one(); f != nil {
			return f
		}
		switch s.peek() {
		case ',':
			s.i++
		case closing:
			s.i++
			return nil
		default:
			return s.fail("malformed JSON: expected ',' or '" + string(closing) + "'")
		}
	}
}
