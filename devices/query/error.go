package query

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"muster"
)

// Error says what of a query is not understood. Parse wraps it in a muster.Error of
// kind Invalid, whose message has all of it.
type Error struct {
	Pos    int    // where, in bytes from the start of the text
	Column int    // where, for people: in characters, from 1
	Msg    string // what is wrong
	Hint   string // what to write instead; may be empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("column %d: %s", e.Column, e.Msg)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// fault returns the Error at byte pos of s.
func fault(s string, pos int, hint, format string, args ...any) error {
	pos = min(pos, len(s))
	return &Error{Pos: pos, Column: utf8.RuneCountInString(s[:pos]) + 1, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// Fault returns an Error about what lies at byte pos of the query s, for those who
// know more of it than the language: names that nothing has.
func Fault(s string, pos int, format string, args ...any) error {
	return invalid(fault(s, pos, "", format, args...))
}

// invalid wraps an Error for the other rooms.
func invalid(err error) error {
	return &muster.Error{Kind: muster.Invalid, Msg: "the query is not understood, " + err.Error(), Err: err}
}

// shown is s for a message, cut when it is long.
func shown(s string) string {
	if len(s) > 40 {
		cut := 40
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// near returns those of words that are nearest to s, at most two typing errors away, as a
// hint; without one it lists all of them when they are few.
func near(s string, words []string) string {
	var nearest []string
	best := min(2, len(s)/2)
	for _, w := range words {
		d := distance(strings.ToLower(s), w, best)
		if d > best {
			continue
		}
		if d < best {
			nearest = nearest[:0]
		}
		best, nearest = d, append(nearest, w)
	}
	switch {
	case len(nearest) > 0:
		return "did you mean " + strings.Join(nearest, " or ") + "?"
	case len(words) <= 10:
		return "it is one of " + strings.Join(words, ", ")
	}
	return ""
}

// distance counts the letters to insert, delete, replace or swap between a and b, or
// returns more than limit. The words of the language are short, so that a long a ends
// early.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
