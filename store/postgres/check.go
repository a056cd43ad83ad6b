package postgres

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"muster"
)

// The times that are kept: years 1 to 9999, which every SQL client can show.
const (
	minTime muster.Micros = -62_135_596_800_000_000
	endTime muster.Micros = 253_402_300_800_000_000 // the first that is not kept
)

// maxExponent bounds the decimal exponent of a number inside a JSON value: the
// server writes such numbers out in full, so that 1e131071 would be 128 KiB.
const maxExponent = 400

// check answers Invalid for readings that no retry can store.
func check(rs []muster.Reading) error {
	for i := range rs {
		if reason := flaw(&rs[i]); reason != "" {
			return muster.Errorf(muster.Invalid, "reading %d of the batch cannot be stored: %s", i, reason)
		}
	}
	return nil
}

// flaw says what makes r impossible to store, empty when nothing does.
func flaw(r *muster.Reading) string {
	l := r.Layout
	switch {
	case l == nil:
		return "it has no layout"
	case len(r.Numbers) != l.Numbers:
		return fmt.Sprintf("it has %d numbers where its layout has %d", len(r.Numbers), l.Numbers)
	case len(r.Texts) != len(l.Keys)-l.Numbers:
		return fmt.Sprintf("it has %d JSON values where its layout has %d", len(r.Texts), len(l.Keys)-l.Numbers)
	case r.Time < minTime || r.Time >= endTime:
		return "its time is not within the years 1 to 9999"
	}
	if l.Loose { // names of interned layouts are refused by the database itself
		for _, k := range l.Keys {
			if !utf8.ValidString(k.Name) {
				return "a key is not UTF-8"
			}
		}
	}
	for _, text := range r.Texts {
		if !json.Valid([]byte(text)) {
			return "a JSON value is malformed"
		}
		if hugeExponent(text) {
			return fmt.Sprintf("a number in a JSON value has an exponent beyond %d", maxExponent)
		}
	}
	return ""
}

// hugeExponent reports whether a number in the valid JSON text has an exponent
// beyond maxExponent.
func hugeExponent(text string) bool {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			i = endOfString(text, i)
		case (c == 'e' || c == 'E') && i > 0 && digit(text[i-1]):
			if exponentAt(text[i+1:]) > maxExponent {
				return true
			}
		}
	}
	return false
}

// endOfString returns where the string that starts at i ends.
func endOfString(text string, i int) int {
	for i++; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i
}

// exponentAt returns the size of the exponent that s starts with, its sign left out.
func exponentAt(s string) int {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	n := 0
	for i := 0; i < len(s) && digit(s[i]) && n <= maxExponent; i++ {
		n = 10*n + int(s[i]-'0')
	}
	return n
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
