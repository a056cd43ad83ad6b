package query

import (
	"strings"
	"unicode"

	"muster"
)

// shape says what values a field takes.
type shape uint8

const (
	textShape   shape = iota // a text, the start of one, or *
	groupShape               // a group's name
	wordShape                // one of a list of words
	timeShape                // a duration or a time
	leafShape                // a number, true, false or a text, the start of one, or *
	boolShape                // true or false
	pathShape                // a path, as a text
	degreeShape              // a number of degrees
)

// opSet is a set of operators, a bit for each.
type opSet uint16

const (
	equal    = 1<<Eq | 1<<Ne
	order    = 1<<Lt | 1<<Le | 1<<Gt | 1<<Ge
	contains = 1 << Contains
)

func (s opSet) has(o Op) bool { return s&(1<<o) != 0 }

// grammar is what may follow a field.
type grammar struct {
	name  string // as String writes it
	ops   opSet
	shape shape
}

// grammarOf returns the grammar of a field. AnyText, Tag, Telemetry, Reported and
// Desired have a name that the parser writes in its own way.
func grammarOf(f Field) grammar {
	switch f {
	case ID:
		return grammar{"id", equal | order | contains, textShape}
	case Name:
		return grammar{"name", equal | order | contains, textShape}
	case Profile:
		return grammar{"profile", equal | contains, textShape}
	case Parent:
		return grammar{"parent", equal | contains, textShape}
	case Firmware:
		return grammar{"fw", equal | contains, textShape}
	case Notes:
		return grammar{"notes", equal | contains, textShape}
	case Group:
		return grammar{"group", equal, groupShape}
	case Tag:
		return grammar{"tag", equal | contains, textShape}
	case Status:
		return grammar{"status", equal, wordShape}
	case Seen:
		return grammar{"seen", equal | order, timeShape}
	case Created:
		return grammar{"created", order, timeShape}
	case Telemetry:
		return grammar{"v.", equal | order | contains, leafShape}
	case Reported:
		return grammar{"twin.reported.", equal | order | contains, leafShape}
	case Desired:
		return grammar{"twin.desired.", equal | order | contains, leafShape}
	case Converged:
		return grammar{"converged", equal, boolShape}
	case Diverged:
		return grammar{"diverged", equal, pathShape}
	case Lat:
		return grammar{"lat", equal | order, degreeShape}
	case Lon:
		return grammar{"lon", equal | order, degreeShape}
	case Has:
		return grammar{"has", equal, wordShape}
	case AnyText:
	}
	return grammar{"", contains, textShape}
}

// fieldOf returns the field that is written name, false when there is none.
func fieldOf(name string) (Field, bool) {
	if name == "firmware" {
		return Firmware, true
	}
	for f := ID; f <= Has; f++ {
		if grammarOf(f).name == name {
			return f, !strings.HasSuffix(name, ".")
		}
	}
	return 0, false
}

// fieldNames are those of fieldOf and the prefixes with a path.
func fieldNames() []string {
	names := []string{"firmware"}
	for f := ID; f <= Has; f++ {
		names = append(names, grammarOf(f).name)
	}
	return names
}

// wordsOf returns the values that a wordShape takes.
func wordsOf(f Field) []string {
	if f == Has {
		return []string{HasParent, HasChildren, HasTags, HasLocation, HasNotes, HasTwin, HasCredential, HasConnection}
	}
	return []string{
		string(muster.PresenceOnline), string(muster.PresenceQuiet), string(muster.PresenceOffline),
		string(muster.PresenceNever), string(muster.PresenceUnknown), string(muster.StatusUpdating), Silent,
	}
}

func (o Op) String() string {
	return [...]string{"=", "!=", "<", "<=", ">", ">=", "~"}[o]
}

// list is the operators of s for a message.
func (s opSet) list() string {
	var out []string
	for o := Eq; o <= Contains; o++ {
		if s.has(o) {
			out = append(out, o.String())
		}
	}
	return strings.Join(out, " ")
}

// isOp reports whether c begins an operator.
func isOp(c byte) bool { return strings.IndexByte("=!<>~:", c) >= 0 }

// isBoundary reports whether r ends what is not quoted.
func isBoundary(r rune) bool { return r == '(' || r == ')' || unicode.IsSpace(r) }

// isKeyword reports whether s joins terms, in any case.
func isKeyword(s string) bool {
	return strings.EqualFold(s, "and") || strings.EqualFold(s, "or") || strings.EqualFold(s, "not")
}

// isLabel reports whether s may be a tag's key or a group's name.
func isLabel(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// lower turns ASCII capitals into small letters and leaves all else.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lowerByte(b[i])
			}
			return string(b)
		}
	}
	return s
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
