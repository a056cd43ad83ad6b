package muster

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Micros is a point in time: microseconds since 1970-01-01T00:00:00Z.
type Micros int64

// MicrosOf returns t in microseconds, rounded down.
func MicrosOf(t time.Time) Micros { return Micros(t.UnixMicro()) }

// Time returns m as a time.Time in UTC.
func (m Micros) Time() time.Time { return time.UnixMicro(int64(m)).UTC() }

// ValueKind says how a key's values are kept.
type ValueKind uint8

// The kinds of value. A key that arrives with another kind than before is
// another key of the same name: both are kept.
const (
	Number ValueKind = iota // a float64
	Bool                    // kept as 0 or 1 among the numbers
	JSON                    // anything else, kept as JSON text: strings, arrays, integers beyond 2^53
)

// Key is one named value of a layout.
type Key struct {
	Name string // 1 to 256 bytes of UTF-8, no NUL
	Kind ValueKind
}

// Layout is the set of keys that a reading carries, in canonical order (by name,
// then kind; no key twice). Layouts are shared and never changed after they are
// made: a store may use the pointer as a cache key.
type Layout struct {
	Keys    []Key
	Numbers int // how many keys are Number or Bool
	// Loose marks a layout that must not be interned, because its device has made
	// too many; a store keeps such a reading's values as JSON instead.
	Loose bool
}

// NewLayout returns the layout of keys, which it sorts in place. The keys must
// differ.
func NewLayout(keys []Key) *Layout {
	slices.SortFunc(keys, CompareKeys)
	l := &Layout{Keys: keys}
	for _, k := range keys {
		if k.Kind != JSON {
			l.Numbers++
		}
	}
	return l
}

// CompareKeys orders keys canonically.
func CompareKeys(a, b Key) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return cmp.Compare(a.Kind, b.Kind)
}

// Reading is what one device said at one time: one row in the store. Time is
// the device's own time stamp or, when it sent none, Arrival. Two readings with
// the same device, Time and Layout are the same reading: the later one in the
// log replaces the earlier.
type Reading struct {
	Device  DeviceID
	Time    Micros
	Arrival Micros // when Muster took it, strictly increasing per device
	Layout  *Layout
	Numbers []float64 // of the Number and Bool keys in order; NaN is a hole (null)
	Texts   []string  // of the JSON keys in order, each a valid JSON text
}

// Value is one key's value, for readers that do not care about layouts.
type Value struct {
	Key  Key
	Num  float64 // for Number and Bool; NaN is a hole
	Text string  // for JSON
}

// Values calls yield for each value of r in layout order, holes included, until
// it returns false.
func (r *Reading) Values(yield func(Value) bool) {
	n, t := 0, 0
	for _, k := range r.Layout.Keys {
		v := Value{Key: k}
		if k.Kind == JSON {
			v.Text = r.Texts[t]
			t++
		} else {
			v.Num = r.Numbers[n]
			n++
		}
		if !yield(v) {
			return
		}
	}
}

// Rejected is a message that was refused for good, kept with its reason where
// an operator sees it.
type Rejected struct {
	Device  DeviceID
	Arrival Micros
	Topic   string
	Code    string // stable, for machines: malformed, topic, too_large, time, store...
	Reason  string // for people
	Payload []byte // the first 4 KiB of what came
	Size    int    // bytes of the whole payload
}
