package query

import (
	"strings"
	"unicode/utf8"
)

const quoteHint = "to search for the text put it in quotes"

// term reads one term.
func (p *parser) term() (*Term, error) {
	t := &Term{Pos: p.i}
	var err error
	switch rest := p.s[p.i:]; {
	case rest[0] == '"':
		return t, p.anyText(t)
	case strings.HasPrefix(rest, "v."):
		t.Field = Telemetry
		p.i += len("v.")
		t.Path, err = p.key()
	case strings.HasPrefix(rest, "twin."):
		err = p.twinPath(t)
	default:
		word := p.head()
		if !p.operator() {
			return t, p.bareText(t, word)
		}
		err = p.field(t, word)
	}
	if err != nil {
		return nil, err
	}
	if pathOnly := t.Field == Tag || grammarOf(t.Field).shape == leafShape; pathOnly && p.boundary() {
		return t, nil // Eq Any
	}
	return t, p.comparison(t)
}

// operator reports whether an operator is next.
func (p *parser) operator() bool { return !p.end() && isOp(p.s[p.i]) }

// head takes what may be a field's name or a word.
func (p *parser) head() string {
	return p.until(func(r rune) bool { return r < utf8.RuneSelf && isOp(byte(r)) })
}

// until takes what comes before a boundary, a quote or stop.
func (p *parser) until(stop func(rune) bool) string {
	rest := p.s[p.i:]
	n := strings.IndexFunc(rest, func(r rune) bool { return r == '"' || isBoundary(r) || stop(r) })
	if n < 0 {
		n = len(rest)
	}
	p.i += n
	return rest[:n]
}

// quoted takes a text in quotes.
func (p *parser) quoted() (string, error) {
	open := p.i
	var b strings.Builder
	for p.i++; !p.end(); p.i++ {
		switch c := p.s[p.i]; c {
		case '"':
			p.i++
			return b.String(), nil
		case '\\':
			p.i++
			if !p.at('"') && !p.at('\\') {
				return "", p.fail(p.i-1, `write \\ for a backslash`, `only \" and \\ may follow a backslash`)
			}
			b.WriteByte(p.s[p.i])
		default:
			b.WriteByte(c)
		}
	}
	return "", p.fail(open, "", "the quote that opens here is not closed")
}

// anyText reads a quoted term.
func (p *parser) anyText(t *Term) error {
	text, err := p.quoted()
	if err != nil {
		return err
	}
	if p.operator() {
		return p.fail(t.Pos, "", "the name of a field is not quoted")
	}
	return p.text(t, text)
}

func (p *parser) bareText(t *Term, word string) error {
	if at := strings.IndexByte(word, '*'); at >= 0 {
		return p.fail(t.Pos+at, "name:"+word[:at]+"* finds what begins so", "a word is found anywhere in id and name and takes no *")
	}
	return p.text(t, word)
}

func (p *parser) text(t *Term, text string) error {
	if !p.boundary() {
		return p.fail(p.i, "", "a space is missing here")
	}
	t.Field, t.Op, t.Value = AnyText, Contains, Value{Kind: Text, Text: lower(text)}
	return nil
}

// field finds which field word names; of a tag it takes the key too.
func (p *parser) field(t *Term, word string) error {
	if word == "" {
		return p.fail(t.Pos, "write it without spaces, as in status!=online", "a field is missing before %s", p.s[p.i:p.i+1])
	}
	f, ok := fieldOf(word)
	if !ok {
		hint := near(word, fieldNames())
		if hint == "" {
			hint = quoteHint
		}
		return p.fail(t.Pos, hint, "there is no field %s", shown(word))
	}
	t.Field = f
	if f != Tag {
		return nil
	}
	if !p.at(':') {
		return p.fail(p.i, "write tag:KEY, tag:KEY=VALUE, tag:KEY!=VALUE or tag:KEY~TEXT", "the key of a tag follows a colon")
	}
	p.i++
	at := p.i
	key := p.head()
	if !isLabel(key) {
		return p.fail(at, "", "the key of a tag has 1 to 64 letters, digits and . _ -")
	}
	t.Path = []string{key}
	return nil
}

// key reads the key of v.KEY.
func (p *parser) key() ([]string, error) {
	at := p.i
	key, err := p.step(func(r rune) bool { return r < utf8.RuneSelf && isOp(byte(r)) })
	if err != nil {
		return nil, err
	}
	if key == "" || len(key) > 256 {
		return nil, p.fail(at, `other characters go in quotes, as in v."a b"`, "a telemetry key of 1 to 256 bytes follows v.")
	}
	return []string{key}, nil
}

// step reads a quoted or a bare name.
func (p *parser) step(stop func(rune) bool) (string, error) {
	if p.at('"') {
		return p.quoted()
	}
	return p.until(stop), nil
}

// twinPath reads twin.reported.PATH or twin.desired.PATH.
func (p *parser) twinPath(t *Term) error {
	p.i += len("twin.")
	at := p.i
	side := p.until(stopsStep)
	switch side {
	case "reported":
		t.Field = Reported
	case "desired":
		t.Field = Desired
	default:
		return p.fail(at, near(side, []string{"reported", "desired"}), "the twin has no side %s", shown(side))
	}
	for p.at('.') {
		p.i++
		at = p.i
		name, err := p.step(stopsStep)
		if err != nil {
			return err
		}
		if name == "" {
			return p.fail(at, `other characters go in quotes, as in twin.reported."a b".c`, "a name is missing here")
		}
		if t.Path = append(t.Path, name); len(t.Path) > MaxDepth {
			return p.fail(at, "", "a path has at most %d names", MaxDepth)
		}
	}
	if t.Path == nil {
		return p.fail(p.i, "as in twin."+side+".mode=eco", "a path follows twin.%s", side)
	}
	return nil
}

// stopsStep reports whether r ends an unquoted name in a path.
func stopsStep(r rune) bool { return r == '.' || r < utf8.RuneSelf && isOp(byte(r)) }

// comparison reads operator and value.
func (p *parser) comparison(t *Term) error {
	at := p.i
	if !p.operator() {
		return p.fail(at, "", "an operator or a space is missing here")
	}
	op, err := p.op()
	if err != nil {
		return err
	}
	g := grammarOf(t.Field)
	if t.Op = op; !g.ops.has(op) {
		return p.fail(at, opHint(t.Field, g), "%s does not take %s", strings.TrimSuffix(g.name, "."), op)
	}
	at = p.i
	raw, err := p.value()
	if err != nil {
		return err
	}
	v, why := valueOf(t, g.shape, raw)
	if why != nil {
		return p.fail(at, why.hint, "%s", why.msg)
	}
	t.Value = v
	return nil
}

func opHint(f Field, g grammar) string {
	if f == Firmware {
		return "versions have no order here; it takes " + g.ops.list()
	}
	return "it takes " + g.ops.list()
}

// op takes an operator.
func (p *parser) op() (Op, error) {
	c := p.s[p.i]
	p.i++
	if p.at('=') && c != '~' && c != ':' && c != '=' {
		p.i++
		switch c {
		case '!':
			return Ne, nil
		case '<':
			return Le, nil
		default:
			return Ge, nil
		}
	}
	switch c {
	case '<':
		return Lt, nil
	case '>':
		return Gt, nil
	case '~':
		return Contains, nil
	case '!':
		return 0, p.fail(p.i-1, "write != or not", "= is missing behind !")
	}
	return Eq, nil
}

// rawValue is a value as it is written.
type rawValue struct {
	text   string
	quoted bool
}

func (p *parser) value() (rawValue, error) {
	at := p.i
	if p.boundary() {
		return rawValue{}, p.fail(at, `write "" for an empty text, and no space around the operator`, "a value is missing here")
	}
	if p.at('"') {
		text, err := p.quoted()
		if err == nil && !p.boundary() {
			err = p.fail(p.i, "", "a space is missing here")
		}
		return rawValue{text, true}, err
	}
	if c := p.s[p.i]; c != ':' && isOp(c) {
		return rawValue{}, p.fail(at, "the operators are = != < <= > >= ~ and :", "a value cannot begin with %c unless it is quoted", c)
	}
	text := p.until(func(rune) bool { return false })
	if p.at('"') {
		return rawValue{}, p.fail(p.i, `put all of the value in quotes, with \" for a quote`, "a quote inside a value")
	}
	return rawValue{text, false}, nil
}
