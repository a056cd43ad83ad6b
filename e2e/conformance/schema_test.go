package conformance_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// check says where v breaks the schema: JSON Schema 2020-12, as far as the
// document uses it. A keyword that it does not know is a fault too, so that nothing goes
// unchecked by silence.
func (d *document) check(s object, v any, at string) []string {
	s = d.follow(s)
	bad := func(format string, args ...any) []string { return []string{at + ": " + fmt.Sprintf(format, args...)} }
	for k := range s {
		if !slices.Contains(keywords(), k) && !strings.HasPrefix(k, "x-") {
			return bad("the schema has the unknown keyword %s", k)
		}
	}
	if types := typesOf(s); len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return isType(v, t) }) {
		return bad("is %T, not %v", v, types)
	}
	if list, ok := s["enum"].([]any); ok && v != nil && !slices.ContainsFunc(list, func(e any) bool { return reflect.DeepEqual(e, v) }) {
		return bad("%v is none of %v", v, list)
	}
	var faults []string
	for _, part := range listOf(s["allOf"]) {
		faults = append(faults, d.check(part, v, at)...)
	}
	for _, k := range []string{"oneOf", "anyOf"} {
		parts := listOf(s[k])
		fits := 0
		for _, part := range parts {
			if len(d.check(part, v, at)) == 0 {
				fits++
			}
		}
		if len(parts) > 0 && (fits == 0 || k == "oneOf" && fits > 1) {
			faults = append(faults, bad("fits %d of %s", fits, k)...)
		}
	}
	switch v := v.(type) {
	case string:
		faults = append(faults, checkString(s, v, at)...)
	case float64:
		faults = append(faults, checkNumber(s, v, at)...)
	case []any:
		faults = append(faults, d.checkList(s, v, at)...)
	case object:
		faults = append(faults, d.checkObject(s, v, at)...)
	}
	return faults
}

func keywords() []string {
	return []string{
		"$ref", "type", "enum", "allOf", "oneOf", "anyOf", "title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly",
		"format", "contentEncoding", "contentMediaType", "minLength", "maxLength", "pattern", "patternDescription", "minimum", "maximum", "exclusiveMinimum",
		"exclusiveMaximum", "multipleOf", "items", "minItems", "maxItems", "uniqueItems", "properties", "required", "additionalProperties",
		"minProperties", "maxProperties", "propertyNames",
	}
}

func typesOf(s object) []string {
	switch t := s["type"].(type) {
	case string:
		return []string{t}
	case []any:
		var out []string
		for _, one := range t {
			out = append(out, one.(string))
		}
		return out
	}
	return nil
}

func isType(v any, t string) bool {
	switch v := v.(type) {
	case nil:
		return t == "null"
	case bool:
		return t == "boolean"
	case string:
		return t == "string"
	case float64:
		return t == "number" || t == "integer" && v == math.Trunc(v)
	case []any:
		return t == "array"
	case object:
		return t == "object"
	}
	return false
}

func listOf(v any) []object {
	list, _ := v.([]any)
	var out []object
	for _, one := range list {
		out = append(out, one.(object))
	}
	return out
}

func number(s object, k string) (float64, bool) { n, ok := s[k].(float64); return n, ok }

func checkString(s object, v, at string) []string {
	var faults []string
	size := float64(utf8.RuneCountInString(v))
	if n, ok := number(s, "minLength"); ok && size < n {
		faults = append(faults, fmt.Sprintf("%s: %d characters, less than %g", at, int(size), n))
	}
	if n, ok := number(s, "maxLength"); ok && size > n {
		faults = append(faults, fmt.Sprintf("%s: %d characters, more than %g", at, int(size), n))
	}
	if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(v) {
		faults = append(faults, at+": does not match "+p)
	}
	var err error
	switch s["format"] {
	case "date-time":
		_, err = time.Parse(time.RFC3339Nano, v)
	case "uri":
		_, err = url.ParseRequestURI(v)
	case "ipv4", "ipv6", "ip":
		_, err = netip.ParseAddr(v)
	}
	if s["contentEncoding"] == "base64" {
		_, err = base64.StdEncoding.DecodeString(v)
	}
	if err != nil {
		faults = append(faults, at+": "+err.Error())
	}
	return faults
}

func checkNumber(s object, v float64, at string) []string {
	var faults []string
	for k, broken := range map[string]func(n float64) bool{
		"minimum":          func(n float64) bool { return v < n },
		"maximum":          func(n float64) bool { return v > n },
		"exclusiveMinimum": func(n float64) bool { return v <= n },
		"exclusiveMaximum": func(n float64) bool { return v >= n },
		"multipleOf":       func(n float64) bool { return math.Mod(v, n) != 0 },
	} {
		if n, ok := number(s, k); ok && broken(n) {
			faults = append(faults, fmt.Sprintf("%s: %g breaks %s %g", at, v, k, n))
		}
	}
	return faults
}

func (d *document) checkList(s object, v []any, at string) []string {
	var faults []string
	if n, ok := number(s, "minItems"); ok && float64(len(v)) < n {
		faults = append(faults, fmt.Sprintf("%s: %d items", at, len(v)))
	}
	if n, ok := number(s, "maxItems"); ok && float64(len(v)) > n {
		faults = append(faults, fmt.Sprintf("%s: %d items", at, len(v)))
	}
	if items := child(s, "items"); items != nil {
		for i, one := range v {
			faults = append(faults, d.check(items, one, fmt.Sprintf("%s/%d", at, i))...)
		}
	}
	return faults
}

func (d *document) checkObject(s, v object, at string) []string {
	var faults []string
	required, _ := s["required"].([]any)
	for _, k := range required {
		if _, ok := v[k.(string)]; !ok {
			faults = append(faults, at+": has no "+k.(string))
		}
	}
	properties := child(s, "properties")
	for k, one := range v {
		if p := child(properties, k); p != nil {
			faults = append(faults, d.check(p, one, at+"/"+k)...)
			continue
		}
		switch more := s["additionalProperties"].(type) {
		case bool:
			if !more {
				faults = append(faults, at+": has the unknown property "+k)
			}
		case object:
			faults = append(faults, d.check(more, one, at+"/"+k)...)
		}
	}
	return faults
}

func TestTheValidatorTellsWhatASchemaAllows(t *testing.T) {
	d := parse(t, []byte(`{"components":{"schemas":{"S":{"type":"string","minLength":2}}}}`))
	tests := []struct {
		name, schema, value string
		ok                  bool
	}{
		{"a type", `{"type":"string"}`, `"x"`, true},
		{"another type", `{"type":"string"}`, `1`, false},
		{"a nullable type", `{"type":["string","null"]}`, `null`, true},
		{"null of a type that is not nullable", `{"type":"string"}`, `null`, false},
		{"an integer with a fraction", `{"type":"integer"}`, `1.5`, false},
		{"a value of an enum", `{"enum":["a"]}`, `"a"`, true},
		{"a value that is none of an enum", `{"enum":["a"]}`, `"b"`, false},
		{"too long", `{"type":"string","maxLength":1}`, `"ab"`, false},
		{"characters, not bytes", `{"type":"string","maxLength":1}`, `"é"`, true},
		{"a reference", `{"$ref":"#/components/schemas/S"}`, `"a"`, false},
		{"an unknown property", `{"type":"object","additionalProperties":false}`, `{"a":1}`, false},
		{"a property of a map", `{"type":"object","additionalProperties":{"type":"number"}}`, `{"a":"1"}`, false},
		{"a missing property", `{"type":"object","required":["a"]}`, `{}`, false},
		{"an item", `{"type":"array","items":{"type":"number"}}`, `["a"]`, false},
		{"a time", `{"type":"string","format":"date-time"}`, `"2026-01-01T00:00:00Z"`, true},
		{"no time", `{"type":"string","format":"date-time"}`, `"today"`, false},
		{"beyond the maximum", `{"type":"number","maximum":3}`, `4`, false},
		{"one of two", `{"oneOf":[{"type":"string"},{"type":"number"}]}`, `true`, false},
		{"a keyword that is not known", `{"if":{}}`, `1`, false},
		{"anything", `{}`, `[1]`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s object
			var v any
			if err := json.Unmarshal([]byte(tt.schema), &s); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(tt.value), &v); err != nil {
				t.Fatal(err)
			}
			if faults := d.check(s, v, ""); (len(faults) == 0) != tt.ok {
				t.Errorf("faults: %v", faults)
			}
		})
	}
}
