package conformance_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// canary is in every value that is sent, where there is room for it: no error may repeat it. It is
// in no name: an error points at the property or parameter that it is about.
const canary = "zQx7"

// maker makes values of schemas.
type maker struct {
	*document
	*rand.Rand
}

// nasty are texts that have broken other servers.
func nasty() []string {
	return []string{
		"'; DROP TABLE devices; --" + canary, `" OR ""="` + canary, canary + "\x00", canary + "\r\nSet-Cookie: x=1", "../../../etc/passwd" + canary,
		"%00" + canary, "%s%n%d" + canary, "${jndi:ldap://x}" + canary, "{{7*7}}" + canary, "<script>" + canary + "</script>", "\u202e" + canary,
		strings.Repeat("\u0301", 50) + canary, "😀" + canary, canary + strings.Repeat("a", 5000), " " + canary + " ", "\ufeff" + canary, "-1" + canary, "*", "#", "+/" + canary,
		"NaN", "1e400", "v." + canary + "<<1", "(((((" + canary, "now-" + canary, "", "null", "\U0010ffff",
	}
}

// valid makes a value that s allows.
func (m *maker) valid(s object, depth int) any {
	s = m.follow(s)
	if list, ok := s["enum"].([]any); ok {
		return list[m.IntN(len(list))]
	}
	for _, k := range []string{"oneOf", "anyOf"} {
		if parts := listOf(s[k]); len(parts) > 0 {
			return m.valid(parts[m.IntN(len(parts))], depth)
		}
	}
	if list, ok := s["examples"].([]any); ok && m.IntN(3) > 0 {
		return list[m.IntN(len(list))]
	}
	types := typesOf(s)
	if len(types) == 0 {
		types = []string{"string", "number", "boolean", "object"}
	}
	switch types[m.IntN(len(types))] {
	case "string":
		return m.text(s)
	case "integer":
		return float64(int64(m.within(s)))
	case "number":
		return m.within(s) + 0.5*float64(m.IntN(2))*float64(m.free(s))
	case "boolean":
		return m.IntN(2) == 0
	case "array":
		return m.list(s, depth)
	case "object":
		return m.object(s, depth)
	}
	return nil
}

// free is 1 when a fraction may be added.
func (m *maker) free(s object) int {
	if _, bounded := number(s, "maximum"); bounded {
		return 0
	}
	return 1
}

func (m *maker) within(s object) float64 {
	low, hasLow := number(s, "minimum")
	high, hasHigh := number(s, "maximum")
	if !hasLow {
		low = -1000
	}
	if !hasHigh {
		high = low + 2000
	}
	switch m.IntN(4) {
	case 0:
		return low
	case 1:
		return high
	default:
		return float64(int64(low + m.Float64()*(high-low)))
	}
}

func (m *maker) text(s object) string {
	switch s["format"] {
	case "date-time":
		return time.Date(2026, 1, 1, 0, 0, m.IntN(1e8), 0, time.UTC).Format(time.RFC3339)
	case "uri":
		return "https://" + canary + ".example/x"
	case "email":
		return canary + "@example.com"
	}
	low, high := 0, 40
	if n, ok := number(s, "minLength"); ok {
		low = int(n)
	}
	if n, ok := number(s, "maxLength"); ok {
		high = int(n)
	}
	high = max(high, low)
	if m.IntN(4) > 0 {
		high = min(high, low+40)
	}
	alphabet := []rune("abcdefghijklmnopqrstuvwxyzABCDEF0123456789-_.")
	if _, ok := s["pattern"]; !ok && m.IntN(3) == 0 {
		alphabet = []rune("aä€😀 '\"\\;<>&%${}\t\n\u202e\u0301")
	}
	size := low + m.IntN(high-low+1)
	if m.IntN(5) == 0 {
		size = high
	}
	out := make([]rune, size)
	for i := range out {
		out[i] = alphabet[m.IntN(len(alphabet))]
	}
	if size >= len(canary) {
		copy(out, []rune(canary))
	}
	return string(out)
}

func (m *maker) list(s object, depth int) []any {
	low, high := 0, 3
	if n, ok := number(s, "minItems"); ok {
		low = int(n)
	}
	if n, ok := number(s, "maxItems"); ok {
		high = min(int(n), low+3)
	}
	out := make([]any, 0, high)
	for range low + m.IntN(max(high, low)-low+1) {
		out = append(out, m.valid(child(s, "items"), depth+1))
	}
	return out
}

func (m *maker) object(s object, depth int) object {
	out := object{}
	required, _ := s["required"].([]any)
	for _, k := range sorted(child(s, "properties")) {
		if !slices.Contains(required, any(k)) && (depth > 4 || m.IntN(3) == 0) {
			continue
		}
		out[k] = m.valid(child(s, "properties", k), depth+1)
	}
	if more, ok := s["additionalProperties"].(object); ok && depth < 4 {
		for range m.IntN(3) {
			out[fmt.Sprintf("name%d", m.IntN(100))] = m.valid(more, depth+1)
		}
	}
	return out
}

func sorted(o object) []string {
	var names []string
	for k := range o {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// invalid is a body that breaks its schema, or a text that has broken others.
type invalid struct {
	what string
	body []byte
	// refuse says that it must not be taken: it breaks the schema.
	refuse bool
}

// invalids makes bodies that break s each in one place, from one that does not.
func (m *maker) invalids(s object) []invalid {
	s = m.follow(s)
	var out []invalid
	add := func(what string, v any, refuse bool) {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		out = append(out, invalid{what, text, refuse && len(m.check(s, v, "")) > 0})
	}
	base := func() object {
		o, _ := m.valid(s, 0).(object)
		return o
	}
	if !slices.Contains(typesOf(s), "object") {
		return nil
	}
	for _, k := range sorted(child(s, "properties")) {
		p := m.follow(child(s, "properties", k))
		for _, v := range []any{"text" + canary, 1.5, true, []any{}, []any{object{}}, object{}, nil} {
			o := base()
			o[k] = v
			add(fmt.Sprintf("%s is %T", k, v), o, v != nil)
		}
		for what, v := range m.beyond(p) {
			o := base()
			o[k] = v
			add(k+" "+what, o, true)
		}
		if slices.Contains(typesOf(p), "string") {
			for _, v := range nasty() {
				o := base()
				o[k] = v
				add(fmt.Sprintf("%s is %.20q", k, v), o, true)
			}
		}
	}
	required, _ := s["required"].([]any)
	for _, k := range required {
		o := base()
		delete(o, k.(string))
		add("no "+k.(string), o, true)
	}
	o := base()
	o["nobody_knows"] = canary
	add("an unknown property", o, true)
	return append(out, raws()...)
}

// beyond makes values one step outside of the limits of s.
func (m *maker) beyond(s object) map[string]any {
	out := map[string]any{}
	if n, ok := number(s, "maxLength"); ok {
		out["is too long"] = strings.Repeat("z", int(n)+1)
	}
	if n, ok := number(s, "minLength"); ok && n > 0 {
		out["is too short"] = strings.Repeat("z", int(n)-1)
	}
	if n, ok := number(s, "maximum"); ok {
		out["is too large"] = n + 1
	}
	if n, ok := number(s, "minimum"); ok {
		out["is too small"] = n - 1
	}
	if n, ok := number(s, "maxItems"); ok {
		list := make([]any, int(n)+1)
		for i := range list {
			list[i] = m.valid(child(s, "items"), 3)
		}
		out["has too many items"] = list
	}
	if n, ok := number(s, "minItems"); ok && n > 0 {
		out["has too few items"] = []any{}
	}
	if _, ok := s["enum"]; ok {
		out["is none of those"] = canary + "none"
	}
	if slices.Contains(typesOf(s), "integer") {
		out["is beyond 64 bits"] = 1e30
		out["has a fraction"] = 1.5
	}
	if s["format"] == "date-time" {
		out["is no time"] = "yesterday" + canary
		out["is in the year 99999"] = "99999-01-01T00:00:00Z"
	}
	return out
}

// raws are bodies that no schema is needed for.
func raws() []invalid {
	deep := strings.Repeat("[", 20000)
	return []invalid{
		{"nothing", []byte(""), false},
		{"half an object", []byte(`{"a":`), true},
		{"a list", []byte(`[]`), true},
		{"null", []byte(`null`), false},
		{"a text", []byte(`"` + canary + `"`), true},
		{"a number beyond a float", []byte(`1e400`), true},
		{"20,000 brackets", []byte(deep), true},
		{"20,000 objects", []byte(strings.Repeat(`{"a":`, 20000)), true},
		{"bad UTF-8", []byte("{\"\xff\xfe\":\"\xc3\x28" + canary + "\"}"), false},
		{"half a surrogate", []byte(`{"name":"\ud800` + canary + `"}`), false},
		{"a byte order mark", []byte("\ufeff{}"), false},
		{"a name twice", []byte(`{"name":"a","name":"` + canary + `","id":"x","id":"y"}`), false},
		{"two values", []byte(`{}{}`), true},
		{"1 MiB of blanks", []byte(strings.Repeat(" ", 1<<20)), false},
	}
}

// query makes values of a query parameter that it must refuse or may dislike.
func (m *maker) badQuery(p parameter) map[string]bool {
	out := map[string]bool{}
	for _, v := range nasty() {
		out[v] = false
	}
	for _, v := range m.beyond(p.schema) {
		switch v := v.(type) {
		case string:
			out[v] = utf8.RuneCountInString(v) > 0
		case float64:
			out[fmt.Sprintf("%.0f", v)] = v != 1.5
		}
	}
	return out
}
