package conformance_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxName is how much of a name an error may quote, in characters (docs/api.md, "Errors").
const maxName = 64

// quoting are the words behind which an error may quote the name that it did not find.
var quoting = regexp.MustCompile(`(?:there is no (?:field|group|profile|scope|kind of task|type of event|channel|column)|is no parameter of the channel) `)

// repeats says whether a problem repeats what was sent, beside the names that it may quote
// and the devices of the lines that it tells of.
func repeats(problem []byte) bool {
	if !strings.Contains(string(problem), canary) {
		return false
	}
	var o object
	if err := json.Unmarshal(problem, &o); err != nil {
		return true
	}
	if list, ok := o["rejected"].([]any); ok {
		for _, line := range list {
			if l, ok := line.(object); ok {
				delete(l, "device")
			}
		}
	}
	return holds(o)
}

// holds looks for the canary in all texts of v.
func holds(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(unquoted(v), canary)
	case []any:
		return slices.ContainsFunc(v, holds)
	case object:
		for k, e := range v {
			if strings.Contains(k, canary) || holds(e) {
				return true
			}
		}
	}
	return false
}

// unquoted is s without the names that it may quote.
func unquoted(s string) string {
	at := quoting.FindStringIndex(s)
	if at == nil {
		return s
	}
	rest := s[at[1]:]
	if q, err := strconv.QuotedPrefix(rest); err == nil {
		if name, err := strconv.Unquote(q); err == nil && utf8.RuneCountInString(name) <= maxName {
			rest = rest[len(q):]
		}
		return s[:at[1]] + unquoted(rest)
	}
	end := strings.IndexAny(rest, " ;,")
	if end < 0 {
		end = len(rest)
	}
	if utf8.RuneCountInString(rest[:end]) <= maxName {
		rest = rest[end:]
	}
	return s[:at[1]] + unquoted(rest)
}

func TestOnlyNamesOfABoundedLengthMayBeRepeated(t *testing.T) {
	long := canary + strings.Repeat("a", maxName)
	for text, want := range map[string]bool{
		`{"detail":"there is no group ` + canary + `"}`:                                 false,
		`{"detail":"there is no field \"` + canary + `\"; to search for it, quote it"}`: false,
		`{"detail":"there is no field \"` + canary + `\"; it is ` + canary + `"}`:       true,
		`{"detail":"there is no group ` + long + `"}`:                                   true,
		`{"detail":"there is no scope \"` + long + `\""}`:                               true,
		`{"detail":"there is no device ` + canary + `"}`:                                true,
		`{"detail":"x","errors":[{"pointer":"#/` + canary + `"}]}`:                      true,
		`{"detail":"x","rejected":[{"line":1,"device":"` + canary + `","detail":"x"}]}`: false,
		`{"detail":"x","rejected":[{"line":1,"device":"d","detail":"` + canary + `"}]}`: true,
		canary: true,
		`{}`:   false,
	} {
		if got := repeats([]byte(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
