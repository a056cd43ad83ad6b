package query

import (
	"encoding/json"
	"strconv"
	"strings"

	"muster"
)

// Subject is one device as Eval asks for it. A method is called only when a term needs
// it, maybe several times, and its answers must not change meanwhile.
type Subject interface {
	ID() muster.DeviceID
	Name() string
	Profile() string
	Parent() muster.DeviceID // empty for none
	Firmware() string
	Notes() string
	Created() muster.Micros
	Tag(key string) (value string, ok bool)
	// InGroup reports whether the device is in the group, static or saved query; it is
	// not in one that does not exist.
	InGroup(name string) bool
	// Presence returns the state, the time of the last packet that counted (0 for
	// never), and after how many seconds the next is expected: the check-in that was
	// set, else the learned rhythm, else DefaultCheckIn.
	Presence() (state muster.PresenceState, lastSeen muster.Micros, checkIn int64)
	// Updating says whether a firmware action is under way at the device: see muster.StatusOf.
	Updating() bool
	// Value returns the newest value of a telemetry key, false without one. A hole
	// (NaN) counts as none.
	Value(key string) (muster.Value, bool)
	// Twin returns what lies at path in the side Reported or Desired (the effective
	// one) as JSON text, empty when nothing does. A path leads through objects only.
	Twin(side Field, path []string) string
	// Converged reports whether nothing differs; true without a twin.
	Converged() bool
	// Diverged reports whether the dotted path is one of those kept that differ.
	Diverged(path string) bool
	// Location returns the position in degrees, false without one.
	Location() (lat, lon float64, ok bool)
	// Has is asked for HasChildren, HasTags, HasLocation, HasTwin and HasCredential.
	Has(what string) bool
}

// DefaultCheckIn is the check-in of a device whose rhythm is not known yet, in seconds.
const DefaultCheckIn = 600

// Eval reports whether the device matches the query at the time now. It allocates
// nothing unless it has to decode escapes in JSON or fold a long text.
func Eval(e *Expr, s Subject, now muster.Micros) bool {
	return e == nil || e.Root == nil || eval(e.Root, s, now)
}

func eval(n Node, s Subject, now muster.Micros) bool {
	switch n := n.(type) {
	case *And:
		for _, c := range n.Nodes {
			if !eval(c, s, now) {
				return false
			}
		}
		return true
	case *Or:
		for _, c := range n.Nodes {
			if eval(c, s, now) {
				return true
			}
		}
		return false
	case *Not:
		return !eval(n.Node, s, now)
	case *Term:
		if n.Op == Ne {
			return !n.holds(Eq, s, now)
		}
		return n.holds(n.Op, s, now)
	}
	return false
}

// holds compares with op, which is never Ne.
func (t *Term) holds(op Op, s Subject, now muster.Micros) bool {
	v := &t.Value
	switch t.Field {
	case AnyText:
		return containsFold(string(s.ID()), v.Text) || containsFold(s.Name(), v.Text)
	case ID:
		return v.text(op, string(s.ID()))
	case Name:
		return v.text(op, s.Name())
	case Profile:
		return v.text(op, s.Profile())
	case Parent:
		return v.text(op, string(s.Parent()))
	case Firmware:
		return v.text(op, s.Firmware())
	case Notes:
		return v.text(op, s.Notes())
	case Group:
		return s.InGroup(v.Text)
	case Tag:
		tag, ok := s.Tag(t.Path[0])
		return ok && (v.Kind == Any || v.text(op, tag))
	case Status, Seen, Created:
		return t.inTime(s, now)
	case Telemetry:
		val, ok := s.Value(t.Path[0])
		return ok && v.leaf(op, latestLeaf(val))
	case Reported, Desired:
		return v.leaf(op, LeafOf(s.Twin(t.Field, t.Path)))
	case Converged:
		return s.Converged() == (v.Num == 1)
	case Diverged:
		return s.Diverged(v.Text)
	case Lat, Lon:
		return t.onMap(op, s)
	case Has:
		return has(s, v.Text)
	}
	return false
}

// onMap answers for Lat and Lon.
func (t *Term) onMap(op Op, s Subject) bool {
	lat, lon, ok := s.Location()
	if t.Field == Lat {
		return ok && ordered(op, lat, t.Value.Num)
	}
	return ok && ordered(op, lon, t.Value.Num)
}

func has(s Subject, what string) bool {
	switch what {
	case HasParent:
		return s.Parent() != ""
	case HasNotes:
		return s.Notes() != ""
	case HasConnection:
		state, _, _ := s.Presence()
		return state == muster.PresenceOnline || state == muster.PresenceQuiet
	}
	return s.Has(what)
}

// inTime answers for Status, Seen and Created.
func (t *Term) inTime(s Subject, now muster.Micros) bool {
	if t.Field == Created {
		op, at := t.When(now)
		return ordered(op, s.Created(), at)
	}
	state, seen, checkIn := s.Presence()
	if t.Field == Status {
		is := muster.StatusOf(state, s.Updating())
		if t.Value.Text == Silent {
			return IsSilent(is, seen, checkIn, now)
		}
		return string(is) == t.Value.Text
	}
	if t.Value.Kind == Any {
		return seen != 0
	}
	op, at := t.When(now)
	if seen == 0 { // longer ago than anything
		return op == Lt || op == Le
	}
	return ordered(op, seen, at)
}

// When returns the comparison of a time that a term on Seen or Created makes at the
// time now: of a duration, seen>10m, that is seen < now - 10m.
func (t *Term) When(now muster.Micros) (Op, muster.Micros) {
	if t.Value.Kind == Time {
		return t.Op, t.Value.Micros
	}
	at := now - t.Value.Micros
	switch t.Op {
	case Lt:
		return Gt, at
	case Le:
		return Ge, at
	case Gt:
		return Lt, at
	case Ge:
		return Le, at
	case Eq, Ne, Contains: // they take no duration
	}
	return t.Op, at
}

// IsSilent reports whether a device is silent at the time now: quiet, or offline with
// the last packet at least two check-ins (in seconds) ago. Who is updating is not.
func IsSilent(is muster.Status, lastSeen muster.Micros, checkIn int64, now muster.Micros) bool {
	switch is {
	case muster.Status(muster.PresenceQuiet):
		return true
	case muster.Status(muster.PresenceOffline):
		return lastSeen+muster.Micros(2_000_000*checkIn) <= now
	default:
		return false
	}
}

func ordered[T string | float64 | muster.Micros](op Op, a, b T) bool {
	switch op {
	case Eq:
		return a == b
	case Lt:
		return a < b
	case Le:
		return a <= b
	case Gt:
		return a > b
	case Ge:
		return a >= b
	case Ne, Contains: // never here
	}
	return false
}

// text compares a text that is there.
func (v *Value) text(op Op, s string) bool {
	switch {
	case v.Kind == Any:
		return s != ""
	case v.Kind == Prefix:
		return strings.HasPrefix(s, v.Text)
	case op == Contains:
		return containsFold(s, v.Text)
	}
	return ordered(op, s, v.Text)
}

func (v *Value) leaf(op Op, l Leaf) bool {
	switch v.Kind {
	case Any:
		return l.Kind != Absent
	case Number, Bool:
		return l.Kind == Numeric && ordered(op, l.Num, v.Num)
	case Text, Prefix, Duration, Time:
	}
	return l.Kind == Textual && v.text(op, l.Text)
}

// LeafKind says as what a JSON value is compared.
type LeafKind uint8

// The kinds of leaf.
const (
	Absent  LeafKind = iota // nothing, or null
	Numeric                 // a number; true and false are 1 and 0
	Textual                 // a string
	Other                   // an object or array: present, equal to nothing
)

// Leaf is a JSON value as it is compared.
type Leaf struct {
	Kind LeafKind
	Num  float64 // beyond the range of a float64 it is infinite
	Text string
}

// LeafOf reads a valid JSON text without white space around it; an empty one is Absent.
// Its Text may be a part of raw.
func LeafOf(raw string) Leaf {
	if raw == "" {
		return Leaf{}
	}
	switch raw[0] {
	case 'n':
		return Leaf{}
	case 't':
		return Leaf{Kind: Numeric, Num: 1}
	case 'f':
		return Leaf{Kind: Numeric}
	case '{', '[':
		return Leaf{Kind: Other}
	case '"':
		return Leaf{Kind: Textual, Text: unquote(raw)}
	}
	f, _ := strconv.ParseFloat(raw, 64) // out of range gives the infinity that is meant
	return Leaf{Kind: Numeric, Num: f}
}

func unquote(raw string) string {
	if strings.IndexByte(raw, '\\') < 0 && len(raw) >= 2 {
		return raw[1 : len(raw)-1]
	}
	var s string
	_ = json.Unmarshal([]byte(raw), &s) // what is no JSON string is as an empty one
	return s
}

func latestLeaf(v muster.Value) Leaf {
	switch {
	case v.Key.Kind == muster.JSON:
		return LeafOf(v.Text)
	case v.Num != v.Num: // a hole
		return Leaf{}
	}
	return Leaf{Kind: Numeric, Num: v.Num}
}

// containsFold reports whether s contains part, which is in lower case, without regard
// to ASCII case. A long s is folded first, so that it takes time in proportion.
func containsFold(s, part string) bool {
	if len(s) > 256 {
		return strings.Contains(lower(s), part)
	}
	for i := 0; i+len(part) <= len(s); i++ {
		n := 0
		for n < len(part) && lowerByte(s[i+n]) == part[n] {
			n++
		}
		if n == len(part) {
			return true
		}
	}
	return false
}
