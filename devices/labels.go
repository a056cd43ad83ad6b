package devices

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster"
)

const (
	// MaxTags is the most tags a device may have.
	MaxTags = 32
	// MaxTagValue is the longest value of a tag, in bytes.
	MaxTagValue = 256
	// MaxGroupsOf is the most static groups a device may be in.
	MaxGroupsOf = 32
	// MaxLabel is the longest key of a tag and name of a group, in bytes.
	MaxLabel = 64
	// MaxNotes is the longest note on a device, in bytes.
	MaxNotes = 4096
	// MaxFirmware is the longest firmware version that is kept, in bytes.
	MaxFirmware = 128
	// MaxCheckIn is the longest time between two messages that may be expected of a
	// device, in seconds.
	MaxCheckIn = 366 * 24 * 3600
	// MaxPlace is the longest label of a location, in bytes.
	MaxPlace = 200
)

// Tags are a device's tags, key = value, by key. The zero Tags are none. They never
// change and can be compared with ==.
type Tags struct {
	// text has "key\x00value\x00" for each, in bytewise order of key.
	text string
}

// TagsOf returns m as Tags. Invalid when a key is not [A-Za-z0-9._-]{1,64}, a value
// is longer than MaxTagValue, is not UTF-8 or has control characters, or there are more
// than MaxTags.
func TagsOf(m map[string]string) (Tags, error) {
	if len(m) > MaxTags {
		return Tags{}, muster.InvalidAt("tags", "%d tags, at most %d are allowed", len(m), MaxTags)
	}
	keys := make([]string, 0, len(m))
	size := 0
	for k, v := range m {
		if !label(k) {
			return Tags{}, muster.InvalidAt("tags", "the key of a tag has 1 to %d letters, digits and . _ -", MaxLabel)
		}
		if err := checkText("the tag "+k, v, MaxTagValue); err != nil {
			return Tags{}, muster.At(err, "tags/"+k)
		}
		keys = append(keys, k)
		size += len(k) + len(v) + 2
	}
	slices.Sort(keys)
	var b strings.Builder
	b.Grow(size)
	for _, k := range keys {
		b.WriteString(k)
		b.WriteByte(0)
		b.WriteString(m[k])
		b.WriteByte(0)
	}
	return Tags{b.String()}, nil
}

// All yields every tag, by key.
func (t Tags) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for rest := t.text; rest != ""; {
			k, after, _ := strings.Cut(rest, "\x00")
			v, next, _ := strings.Cut(after, "\x00")
			if !yield(k, v) {
				return
			}
			rest = next
		}
	}
}

// Get returns the value of the tag key, false when there is none.
func (t Tags) Get(key string) (string, bool) {
	for rest := t.text; rest != ""; {
		end := strings.IndexByte(rest, 0)
		value := rest[end+1:]
		length := strings.IndexByte(value, 0)
		if rest[:end] == key {
			return value[:length], true
		}
		rest = value[length+1:]
	}
	return "", false
}

// Map returns the tags as a map of the caller's own, empty for none.
func (t Tags) Map() map[string]string {
	return maps.Collect(t.All())
}

// Equal says whether t and o are the same tags.
func (t Tags) Equal(o Tags) bool { return t == o }

// MarshalJSON writes an object.
func (t Tags) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(t.Map())
	if err != nil {
		return nil, fmt.Errorf("encode tags: %w", err)
	}
	return b, nil
}

// Groups are the names of the static groups a device is in, sorted. The zero Groups
// are none. They never change and can be compared with ==.
type Groups struct {
	text string // "name\x00" for each
}

// GroupsOf returns names as Groups, each once. Invalid when a name is no group's or
// there are more than MaxGroupsOf.
func GroupsOf(names []string) (Groups, error) {
	sorted := slices.Clone(names)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	if len(sorted) > MaxGroupsOf {
		return Groups{}, muster.InvalidAt("groups", "%d groups, at most %d are allowed", len(sorted), MaxGroupsOf)
	}
	var b strings.Builder
	for _, n := range sorted {
		if err := CheckGroupName(n); err != nil {
			return Groups{}, muster.At(err, "groups")
		}
		b.WriteString(n)
		b.WriteByte(0)
	}
	return Groups{b.String()}, nil
}

// All yields every name, in order.
func (g Groups) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest := g.text; rest != ""; {
			name, next, _ := strings.Cut(rest, "\x00")
			if !yield(name) {
				return
			}
			rest = next
		}
	}
}

// Names returns the names as a list of the caller's own, empty for none.
func (g Groups) Names() []string { return slices.AppendSeq([]string{}, g.All()) }

// Equal says whether g and o are the same groups.
func (g Groups) Equal(o Groups) bool { return g == o }

// Has says whether name is among them.
func (g Groups) Has(name string) bool {
	for n := range g.All() {
		if n == name {
			return true
		}
	}
	return false
}

// Location is where a device is. The zero Location is nowhere.
type Location struct {
	Set      bool
	Lat, Lon float64 // degrees, WGS 84; 0 unless Set
	Label    string  // for people, at most MaxPlace bytes; may stand without a position
}

func (l Location) check() error {
	switch {
	case !l.Set && (l.Lat != 0 || l.Lon != 0):
		return muster.Errorf(muster.Invalid, "a location has a latitude and a longitude")
	case !(l.Lat >= -90 && l.Lat <= 90):
		return muster.Errorf(muster.Invalid, "the latitude is not between -90 and 90")
	case !(l.Lon >= -180 && l.Lon <= 180):
		return muster.Errorf(muster.Invalid, "the longitude is not between -180 and 180")
	}
	return checkText("the location", l.Label, MaxPlace)
}

// label says whether s is [A-Za-z0-9._-]{1,64}.
func label(s string) bool {
	if s == "" || len(s) > MaxLabel {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// checkText refuses what is too long, not UTF-8, or has control characters. Notes,
// which may have lines, are checked by checkNotes.
func checkText(what, s string, most int) error {
	if err := checkUTF8(what, s, most); err != nil {
		return err
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return muster.Errorf(muster.Invalid, "%s has a control character", what)
	}
	return nil
}

func checkNotes(s string) error {
	if err := checkUTF8("the note", s, MaxNotes); err != nil {
		return err
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		return muster.Errorf(muster.Invalid, "the note has a control character other than a new line or a tab")
	}
	return nil
}

func checkUTF8(what, s string, most int) error {
	switch {
	case len(s) > most:
		return muster.Errorf(muster.Invalid, "%s has %d bytes, at most %d are allowed", what, len(s), most)
	case !utf8.ValidString(s):
		return muster.Errorf(muster.Invalid, "%s is not UTF-8", what)
	}
	return nil
}
