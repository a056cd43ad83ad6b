package postgres

import (
	"encoding/json"
	"math"
	"strings"

	"muster"
)

// sameValues reports whether two readings of one layout have equal values, as the
// database would say: a hole equals a hole, and JSON is compared by meaning.
func sameValues(a, b *muster.Reading) bool {
	for i, n := range a.Numbers {
		if n != b.Numbers[i] && !(math.IsNaN(n) && math.IsNaN(b.Numbers[i])) {
			return false
		}
	}
	for i, s := range a.Texts {
		if s != b.Texts[i] && !sameJSON(s, b.Texts[i]) {
			return false
		}
	}
	return true
}

// sameJSON reports whether two JSON texts mean the same: white space, the order of
// members, escapes and the spelling of numbers do not count.
func sameJSON(a, b string) bool {
	x, errX := parseJSON(a)
	y, errY := parseJSON(b)
	return errX == nil && errY == nil && sameAny(x, y)
}

func parseJSON(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	err := d.Decode(&v)
	return v, err
}

func sameAny(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		return ok && canonicalNumber(string(x)) == canonicalNumber(string(y))
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !sameAny(x[i], y[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			w, ok := y[k]
			if !ok || !sameAny(v, w) {
				return false
			}
		}
		return true
	}
	return a == b // string, bool and nil
}

// number is a decimal in one spelling: its digits without zeros at either end, and
// the power of ten of the last of them.
type number struct {
	negative bool
	digits   string
	exponent int
}

// canonicalNumber reads a JSON number whose exponent is within maxExponent.
func canonicalNumber(s string) number {
	var n number
	s, n.negative = strings.CutPrefix(s, "-")
	mantissa := s
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa = s[:i]
		n.exponent = exponentAt(s[i+1:])
		if s[i+1] == '-' {
			n.exponent = -n.exponent
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	n.exponent -= len(fraction)
	digits := strings.TrimLeft(whole+fraction, "0")
	n.digits = strings.TrimRight(digits, "0")
	n.exponent += len(digits) - len(n.digits)
	if n.digits == "" {
		return number{}
	}
	return n
}
