package twin

import (
	"iter"
	"strings"
)

// What is here reads canonical text in place, without allocating. Such text is
// written by this package and checked when it is loaded.

// stringEnd returns the index after the string that begins at s[i].
func stringEnd(s string, i int) int {
	for i++; ; i++ {
		i += strings.IndexByte(s[i:], '"')
		escapes := 0
		for s[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// valueEnd returns the index after the value that begins at s[i].
func valueEnd(s string, i int) int {
	switch s[i] {
	case '"':
		return stringEnd(s, i)
	case '{', '[':
		return nestedEnd(s, i)
	}
	for s[i] != ',' && s[i] != '}' && s[i] != ']' {
		i++
	}
	return i
}

// nestedEnd is valueEnd for an object or an array.
func nestedEnd(s string, i int) int {
	// Nearly always the first closing bracket is the one: none opens before, and it lies
	// in no string. To see that takes a few steps of the machine for many bytes.
	end := i + strings.IndexByte(s[i:], s[i]+2) // { and }, [ and ]
	inside := s[i+1 : end]
	if strings.IndexByte(inside, s[i]) < 0 && strings.IndexByte(inside, '\\') < 0 && strings.Count(inside, `"`)%2 == 0 {
		return end + 1
	}
	for depth := 0; ; i++ {
		c := s[i] | 0x20 // [ is { then, and ] is }
		for c != '"'|0x20 && c != '{' && c != '}' {
			i++
			c = s[i] | 0x20
		}
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		default:
			if s[i] == '"' { // or the control character that cannot be here
				i = stringEnd(s, i) - 1
			}
		}
	}
}

// objectMembers yields the members of an object: the key's text between the quotes, and
// the value's.
func objectMembers(object string) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for i := 1; i < len(object) && object[i] == '"'; {
			colon := stringEnd(object, i)
			end := valueEnd(object, colon+1)
			if !yield(object[i+1:colon-1], object[colon+1:end]) {
				return
			}
			i = end + 1
		}
	}
}

// find returns the member of object whose key is written key.
func find(object, key string) (string, bool) {
	if object == "" || object[0] != '{' {
		return "", false
	}
	for i := 1; i < len(object) && object[i] == '"'; {
		colon := stringEnd(object, i)
		switch k := object[i+1 : colon-1]; {
		case k == key:
			return object[colon+1 : valueEnd(object, colon+1)], true
		case k > key && strings.IndexByte(k, '\\') < 0 && strings.IndexByte(key, '\\') < 0:
			return "", false // keys are in order, but for how escapes are written
		}
		i = valueEnd(object, colon+1) + 1
	}
	return "", false
}

// lookup returns the value at a dotted path.
func lookup(object, path string) (string, bool) {
	for path != "" {
		key, rest, ok := cutPath(path)
		if !ok {
			return "", false
		}
		if object, ok = find(object, key); !ok {
			return "", false
		}
		path = rest
	}
	return object, object != ""
}

// lookupKeys is lookup for keys as they are, none or more.
func lookupKeys(object string, keys []string) (string, bool) {
	for _, key := range keys {
		var ok bool
		if object, ok = find(object, escaped(key)); !ok {
			return "", false
		}
	}
	return object, object != ""
}

// escaped returns a key as it is written in canonical text between the quotes.
func escaped(key string) string {
	for i := range len(key) {
		if c := key[i]; c < ' ' || c == '"' || c == '\\' {
			q := appendQuoted(nil, key)
			return string(q[1 : len(q)-1])
		}
	}
	return key
}

// cutPath splits the first key off a path, as it is written in canonical text between
// the quotes. A key that is empty, or has a dot, a quote or a control character, stands
// in a path as a JSON string.
func cutPath(path string) (key, rest string, ok bool) {
	if path[0] != '"' {
		dot := strings.IndexByte(path, '.')
		key = path
		if dot >= 0 {
			if dot == 0 || dot == len(path)-1 {
				return "", "", false
			}
			key, rest = path[:dot], path[dot+1:]
		}
		return escaped(key), rest, joinPath("", key) == key
	}
	p := parser{text: path}
	raw, err := p.str()
	if err != nil || p.at < len(path) && (path[p.at] != '.' || p.at == len(path)-1) {
		return "", "", false
	}
	if joinPath("", unquote(raw)) != path[:p.at] { // there is one way to write each path
		return "", "", false
	}
	return raw[1 : len(raw)-1], path[min(p.at+1, len(path)):], true
}

// joinPath appends a key to a path.
func joinPath(path, key string) string {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r == '.' || r == '"' || r < ' ' }) {
		key = string(appendQuoted(nil, key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
