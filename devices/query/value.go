package query

import (
	"math"
	"strconv"
	"strings"
	"time"

	"muster"
)

// maxAge is the longest duration, in microseconds: 100 years of 365 days.
const maxAge = 36_500 * 24 * 3600 * 1_000_000

// bad says why a value is refused.
type bad struct{ msg, hint string }

// valueOf reads the value of t as its field has it.
func valueOf(t *Term, s shape, raw rawValue) (Value, *bad) {
	if !raw.quoted && (s == textShape || s == leafShape || t.Field == Seen) {
		if v, isStar, why := star(t.Op, raw.text); isStar {
			if why == nil && t.Field == Seen && v.Kind == Prefix {
				return Value{}, badTime(raw.text)
			}
			return v, why
		}
	}
	switch s {
	case groupShape:
		if !isLabel(raw.text) {
			return Value{}, &bad{"the name of a group has 1 to 64 letters, digits and . _ -", ""}
		}
		return Value{Kind: Text, Text: raw.text}, nil
	case wordShape:
		return wordValue(t.Field, raw.text)
	case timeShape:
		if t.Op == Eq || t.Op == Ne {
			return Value{}, &bad{"a time is compared by < <= > and >=", "seen=* finds what was ever seen"}
		}
		return timeValue(raw.text)
	case leafShape:
		return leafValue(t.Op, raw)
	case boolShape:
		if raw.text != "true" && raw.text != "false" {
			return Value{}, &bad{"the value is true or false", ""}
		}
		return boolValue(raw.text), nil
	case pathShape:
		return pathValue(raw)
	case degreeShape:
		return degreeValue(t.Field, raw)
	case textShape:
	}
	return textValue(t.Op, raw.text), nil
}

// star reads * and a text that ends so; why is set where a * may not be.
func star(op Op, text string) (v Value, isStar bool, why *bad) {
	at := strings.IndexByte(text, '*')
	switch {
	case at < 0:
		return v, false, nil
	case op != Eq && op != Ne:
		return v, true, &bad{"* goes with = and : only", "put the value in quotes if the * is part of it"}
	case at != len(text)-1:
		return v, true, &bad{"* may only end a value", "put the value in quotes if the * is part of it"}
	case at == 0:
		return Value{Kind: Any}, true, nil
	}
	return Value{Kind: Prefix, Text: text[:at]}, true, nil
}

func textValue(op Op, text string) Value {
	if op == Contains {
		text = lower(text)
	}
	return Value{Kind: Text, Text: text}
}

func wordValue(f Field, text string) (Value, *bad) {
	words := wordsOf(f)
	for _, w := range words {
		if w == text {
			return Value{Kind: Text, Text: w}, nil
		}
	}
	hint := near(text, words)
	if hint == "" {
		hint = "it is one of " + strings.Join(words, ", ")
	}
	return Value{}, &bad{grammarOf(f).name + " is never " + shown(text), hint}
}

// pathValue reads one of the paths that Diverged has.
func pathValue(raw rawValue) (Value, *bad) {
	if raw.text == "" || !raw.quoted && strings.IndexByte(raw.text, '*') >= 0 {
		return Value{}, &bad{"diverged takes one dotted path", "converged=false finds whatever differs"}
	}
	return Value{Kind: Text, Text: raw.text}, nil
}

// degreeValue reads a latitude or a longitude.
func degreeValue(f Field, raw rawValue) (Value, *bad) {
	name, most := grammarOf(f).name, 180.0
	if f == Lat {
		most = 90
	}
	if raw.quoted || !isNumber(raw.text) {
		return Value{}, &bad{name + " takes degrees, not " + shown(raw.text), "as in " + name + ">=59.5; has:location finds whatever has a position"}
	}
	v, err := strconv.ParseFloat(raw.text, 64)
	if err != nil || v < -most || v > most {
		deg := strconv.FormatFloat(most, 'f', -1, 64)
		return Value{}, &bad{name + " is between -" + deg + " and " + deg, ""}
	}
	return Value{Kind: Number, Num: v}, nil
}

// leafValue reads a number, true, false or a text.
func leafValue(op Op, raw rawValue) (Value, *bad) {
	if op == Contains {
		return textValue(op, raw.text), nil
	}
	if !raw.quoted {
		switch {
		case raw.text == "true" || raw.text == "false":
			return boolValue(raw.text), nil
		case raw.text == "null":
			return Value{}, &bad{"null is the same as absent", "write not and the key alone"}
		case isNumber(raw.text):
			f, err := strconv.ParseFloat(raw.text, 64)
			if err != nil {
				return Value{}, &bad{"the number is beyond what a 64-bit float holds", ""}
			}
			return Value{Kind: Number, Num: f}, nil
		}
	}
	if op != Eq && op != Ne {
		return Value{}, &bad{op.String() + " takes a number, not " + shown(raw.text), "texts are compared by = != and ~"}
	}
	return Value{Kind: Text, Text: raw.text}, nil
}

func boolValue(text string) Value {
	v := Value{Kind: Bool}
	if text == "true" {
		v.Num = 1
	}
	return v
}

// isNumber reports whether s is a number as JSON writes it.
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	digits, rest := leadingDigits(s)
	if digits == "" || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	if frac, ok := strings.CutPrefix(rest, "."); ok {
		if digits, rest = leadingDigits(frac); digits == "" {
			return false
		}
	}
	if rest == "" {
		return true
	}
	if rest[0]|0x20 != 'e' {
		return false
	}
	rest = rest[1:]
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		rest = rest[1:]
	}
	digits, rest = leadingDigits(rest)
	return digits != "" && rest == ""
}

func leadingDigits(s string) (digits, rest string) {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return s[:n], s[n:]
}

func badTime(text string) *bad {
	hint := "as in 10m, 1.5h or 2026-01-31T12:00:00Z; the units are ms s m h d w"
	if digits, rest := leadingDigits(text); digits != "" && rest == "" && len(digits) < 6 {
		hint = "did you mean " + digits + "s, " + digits + "m or " + digits + "h?"
	}
	return &bad{shown(text) + " is neither a duration nor a time", hint}
}

// unit is a length of time and its name.
type unit struct {
	name   string
	micros float64
}

// units returns the units of a duration, long before short.
func units() [6]unit {
	return [...]unit{{"w", 604_800e6}, {"d", 86_400e6}, {"h", 3_600e6}, {"m", 60e6}, {"s", 1e6}, {"ms", 1e3}}
}

// timeValue reads a duration, or a time by RFC 3339.
func timeValue(text string) (Value, *bad) {
	name := strings.TrimLeft(text, "0123456789.")
	for _, u := range units() {
		number := strings.TrimSuffix(text, name)
		if u.name != name || !isDecimal(number) {
			continue
		}
		f, err := strconv.ParseFloat(number, 64)
		if age := math.Round(f * u.micros); err == nil && age <= maxAge {
			return Value{Kind: Duration, Micros: muster.Micros(age)}, nil
		}
		return Value{}, &bad{"a duration is at most 100 years", ""}
	}
	at, err := time.Parse(time.RFC3339, text)
	if year := at.UTC().Year(); err != nil || year < 1 || year > 9999 {
		return Value{}, badTime(text)
	}
	return Value{Kind: Time, Micros: muster.MicrosOf(at)}, nil
}

// isDecimal reports whether s is digits, or digits on both sides of a point.
func isDecimal(s string) bool {
	digits, rest := leadingDigits(s)
	if frac, ok := strings.CutPrefix(rest, "."); ok && digits != "" {
		digits, rest = leadingDigits(frac)
	}
	return digits != "" && rest == ""
}
