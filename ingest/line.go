package ingest

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"muster"
)

// A line of InfluxDB's line protocol (docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol):
//
//	measurement[,tag=value]... field=value[,field=value]... [time]
//
// One line is one message. A field's key is measurement.field; the tags that do not
// say whose it is stand between, in the order of their names, as .tag=value: two lines
// that differ in a tag only (cpu=cpu0, cpu=cpu1) are two series, and must not take each other's place.

// maxTags is the most tags of a line.
const maxTags = 64

// lineTag is a tag of the line under way.
type lineTag struct{ name, value []byte }

// decodeLine reads one line, whose time stamp counts unit (0 for nanoseconds).
func (d *decoder) decodeLine(line []byte, unit time.Duration, now muster.Micros) {
	d.reset(line)
	d.keys, d.vals, d.quoted = d.keys[:0], d.vals[:0], d.quoted[:0]
	if f := d.line(unit, now); f != nil {
		d.messages = d.messages[:0]
		d.refused = append(d.refused[:0], refused{*f, line})
	}
}

func (d *decoder) line(unit time.Duration, now muster.Micros) *fault {
	if !utf8.Valid(d.sc.b) {
		return &fault{code: "malformed", reason: "the line is not UTF-8"}
	}
	if bytes.IndexByte(d.sc.b, 0) >= 0 {
		return &fault{code: "text", reason: "text with U+0000 can not be stored"}
	}
	prefix, f := d.series()
	if f != nil {
		return f
	}
	if f := d.fields(prefix); f != nil {
		return f
	}
	at, stamped, f := d.lineTime(unit)
	if f != nil {
		return f
	}
	if stamped && at == 0 { // finish would take it for none
		return &fault{code: "time", reason: muster.Public(muster.CheckStamp(at, now))}
	}
	return d.finish(at, now)
}

// series reads measurement and tags and returns what the keys begin with.
func (d *decoder) series() ([]byte, *fault) {
	d.sc.blanks()
	measurement := d.token(false)
	if len(measurement) == 0 {
		return nil, d.sc.fail("a line begins with its measurement")
	}
	d.tags = d.tags[:0]
	for d.sc.next(',') {
		name, value, f := d.tag()
		if f != nil {
			return nil, f
		}
		if len(d.tags) >= maxTags {
			return nil, d.sc.fail("more than " + strconv.Itoa(maxTags) + " tags")
		}
		d.tags = append(d.tags, lineTag{name, value})
	}
	byName := func(a, b lineTag) int { return bytes.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(d.tags, byName) {
		slices.SortFunc(d.tags, byName)
	}
	start := len(d.names)
	d.names = append(d.names, measurement...)
	for i, t := range d.tags {
		if i > 0 && bytes.Equal(t.name, d.tags[i-1].name) {
			return nil, d.sc.fail("a tag is there twice")
		}
		if string(t.name) == d.omit {
			continue
		}
		d.names = append(d.names, '.')
		d.names = append(d.names, t.name...)
		d.names = append(d.names, '=')
		d.names = append(d.names, t.value...)
	}
	return d.names[start:], nil
}

// tag reads name=value behind a comma.
func (d *decoder) tag() (name, value []byte, f *fault) {
	name = d.token(true)
	if len(name) == 0 || !d.sc.next('=') {
		return nil, nil, d.sc.fail("a tag is name=value")
	}
	value = d.token(true)
	if len(value) == 0 || d.sc.at('=') {
		return nil, nil, d.sc.fail("a tag is name=value")
	}
	return name, value, nil
}

// fields reads the fields, of which there must be one.
func (d *decoder) fields(prefix []byte) *fault {
	if !d.sc.at(' ') {
		return d.sc.fail("a line has fields behind a space")
	}
	d.sc.blanks()
	for {
		name := d.token(true)
		if len(name) == 0 || !d.sc.next('=') {
			return d.sc.fail("a field is name=value")
		}
		start := len(d.names)
		d.names = append(d.names, prefix...)
		d.names = append(d.names, '.')
		d.names = append(d.names, name...)
		if f := d.field(d.names[start:]); f != nil {
			return f
		}
		if !d.sc.next(',') {
			return nil
		}
	}
}

// field reads a field's value: "text", a number, an integer with i or u, or a boolean.
func (d *decoder) field(name []byte) *fault {
	if d.sc.at('"') {
		return d.text(name)
	}
	start := d.sc.i
	if !d.sc.fieldEnds() && (d.sc.at('-') || isDigit(d.sc.b[start])) {
		if v, _, exact, f := d.sc.number(); f == nil && exact && d.sc.fieldEnds() {
			return d.add(name, muster.Number, v, nil, nil)
		}
	}
	d.sc.i = start
	for !d.sc.fieldEnds() {
		d.sc.i++
	}
	word := d.sc.b[start:d.sc.i]
	switch string(word) {
	case "":
		return d.sc.fail("a field is name=value")
	case "t", "T", "true", "True", "TRUE":
		return d.add(name, muster.Bool, 1, nil, nil)
	case "f", "F", "false", "False", "FALSE":
		return d.add(name, muster.Bool, 0, nil, nil)
	}
	return d.fieldNumber(name, word)
}

// fieldNumber reads a number that is not plain JSON. An integer that no float64 holds is
// kept with its digits, as everywhere.
func (d *decoder) fieldNumber(name, word []byte) *fault {
	const exact = 1 << 53
	digits := string(word[:len(word)-1])
	switch word[len(word)-1] {
	case 'i':
		if v, err := strconv.ParseInt(digits, 10, 64); err == nil {
			if v >= -exact && v <= exact {
				return d.add(name, muster.Number, float64(v), nil, nil)
			}
			return d.add(name, muster.JSON, 0, d.keep(strconv.AppendInt(nil, v, 10)), nil)
		}
	case 'u':
		if v, err := strconv.ParseUint(digits, 10, 64); err == nil {
			if v <= exact {
				return d.add(name, muster.Number, float64(v), nil, nil)
			}
			return d.add(name, muster.JSON, 0, d.keep(strconv.AppendUint(nil, v, 10)), nil)
		}
	default:
		for _, c := range word { // ParseFloat takes inf, nan, hex and underscores too
			if !isDigit(c) && c != '.' && c != '-' && c != '+' && c|0x20 != 'e' {
				return d.sc.fail("a field's value is no number, text or boolean")
			}
		}
		if v, err := strconv.ParseFloat(string(word), 64); err == nil {
			return d.add(name, muster.Number, v, nil, nil)
		}
	}
	return d.sc.fail("a field's number can not be read or is too large")
}

// text reads a field's text, in which \" and \\ are escapes and a line feed is itself.
func (d *decoder) text(name []byte) *fault {
	d.sc.i++
	start, escaped := d.sc.i, false
	for ; d.sc.i < len(d.sc.b); d.sc.i++ {
		switch c := d.sc.b[d.sc.i]; {
		case c == '"':
			raw := d.sc.b[start:d.sc.i]
			d.sc.i++
			if !d.sc.fieldEnds() {
				return d.sc.fail("something follows a text")
			}
			return d.add(name, muster.JSON, 0, d.quote(raw, escaped), nil)
		case c == '\\' && d.sc.i+1 < len(d.sc.b) && (d.sc.b[d.sc.i+1] == '"' || d.sc.b[d.sc.i+1] == '\\'):
			escaped = true
			d.sc.i++
		}
	}
	return d.sc.fail("a text does not end")
}

// quote returns a text as JSON.
func (d *decoder) quote(raw []byte, escaped bool) []byte {
	if escaped {
		raw = unescape(nil, raw, func(c byte) bool { return c == '"' || c == '\\' })
	}
	start := len(d.quoted)
	d.quoted = AppendString(d.quoted, string(raw))
	return d.quoted[start:]
}

// keep copies b into the scratch for texts.
func (d *decoder) keep(b []byte) []byte {
	start := len(d.quoted)
	d.quoted = append(d.quoted, b...)
	return d.quoted[start:]
}

// lineTime reads the time stamp, if there is one.
func (d *decoder) lineTime(unit time.Duration) (at muster.Micros, stamped bool, f *fault) {
	word := bytes.TrimSpace(d.sc.b[d.sc.i:])
	if len(word) == 0 {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(string(word), 10, 64)
	if err != nil || !d.sc.at(' ') {
		return 0, false, d.sc.fail("the time stamp is no integer")
	}
	if unit < time.Microsecond { // nanoseconds; what is before 1970 is refused however it is rounded
		return muster.Micros(n / 1000), true, nil
	}
	per := int64(unit / time.Microsecond)
	if n > math.MaxInt64/per || n < math.MinInt64/per {
		return 0, false, &fault{code: "time", reason: "the time stamp is beyond all years", at: d.sc.i}
	}
	return muster.Micros(n * per), true, nil
}

// token reads up to a comma or a space, or an equals sign when that ends it too, that no
// backslash escapes. A backslash before anything else is itself.
func (d *decoder) token(equals bool) []byte {
	raw, escaped := d.sc.token(equals)
	if !escaped {
		return raw
	}
	start := len(d.names)
	d.names = unescape(d.names, raw, lineEscapes)
	return d.names[start:]
}

func lineEscapes(c byte) bool { return c == ',' || c == ' ' || c == '=' }

// unescape appends raw to b without the backslashes before what can be escaped.
func unescape(b, raw []byte, can func(byte) bool) []byte {
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' && i+1 < len(raw) && can(raw[i+1]) {
			i++
		}
		b = append(b, raw[i])
	}
	return b
}

func (s *scanner) token(equals bool) (raw []byte, escaped bool) {
	start := s.i
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '\\' && s.i+1 < len(s.b) && lineEscapes(s.b[s.i+1]):
			escaped = true
			s.i++
		case c == ',' || c == ' ' || c == '=' && equals:
			return s.b[start:s.i], escaped
		}
	}
	return s.b[start:s.i], escaped
}

// blanks skips what may stand before a line's parts.
func (s *scanner) blanks() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t') {
		s.i++
	}
}

func (s *scanner) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// next passes c when it is what comes.
func (s *scanner) next(c byte) bool {
	if !s.at(c) {
		return false
	}
	s.i++
	return true
}

// fieldEnds says whether a field's value may end here.
func (s *scanner) fieldEnds() bool {
	return s.i >= len(s.b) || s.b[s.i] == ',' || s.b[s.i] == ' '
}

// CheckLine says why Take would refuse a message of form FormLine, the zero Refusal when
// it would not. It keeps nothing.
func CheckLine(m Message, now muster.Micros) Refusal {
	d := &decoder{layouts: NewLayouts(), mint: func() bool { return true }}
	d.read(&m, now)
	return d.refusal()
}

// LineTag returns the value of the first of names that line has as a tag, and which of
// them it is. ok is false when it has none of them, or can not be read so far.
func LineTag(line []byte, names []string) (name string, value []byte, ok bool) {
	d := decoder{sc: scanner{b: line}}
	d.sc.blanks()
	d.sc.token(false)
	best := len(names)
	for d.sc.next(',') && best > 0 {
		key, v, f := d.tag()
		if f != nil {
			return "", nil, false
		}
		if i := slices.Index(names[:best], string(key)); i >= 0 {
			best, value = i, v
		}
	}
	if best == len(names) {
		return "", nil, false
	}
	return names[best], value, true
}
