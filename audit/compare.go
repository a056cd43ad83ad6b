package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// Differs returns the members of a thing that are not as a record has them, sorted: seen is Record.After,
// or Record.Before, and now the thing as it is, as a view. Members that the record does not name are not
// compared: an older Muster wrote it. Within a member what is absent is the same as what is empty. Nothing differs where one of the
// two is no object, and of a record that was cut before it had a digest.
func Differs(seen, now json.RawMessage, except ...string) (out []string) {
	var was, is map[string]json.RawMessage
	if json.Unmarshal(seen, &was) != nil || json.Unmarshal(now, &is) != nil || was == nil || is == nil {
		return nil
	}
	if _, ok := cutOf(seen); ok {
		if same(seen, now) {
			return nil
		}
		return []string{"all of it"}
	}
	for name, member := range was {
		if !slices.Contains(except, name) && !same(member, is[name]) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Whole is a view as JSON, of whatever length: what Differs takes.
func Whole(v any) json.RawMessage { return bounded(v, 0) }

// Absent says whether a view is of nothing: a thing before it was made, and after it was deleted.
func Absent(view json.RawMessage) bool { return len(view) == 0 || string(view) == "null" }

// cut stands in a view for a member that is too long.
type cut struct {
	Truncated bool   `json:"truncated"`
	Bytes     int    `json:"bytes"`
	SHA256    string `json:"sha256"` // of its JSON, in hex; empty in records from before there were digests
}

func cutOf(text json.RawMessage) (c cut, ok bool) {
	if !bytes.HasPrefix(text, []byte(`{"truncated":true,`)) || json.Unmarshal(text, &c) != nil {
		return cut{}, false
	}
	return c, true
}

func cutText(text []byte) json.RawMessage {
	sum := sha256.Sum256(text)
	b, err := json.Marshal(cut{true, len(text), hex.EncodeToString(sum[:])})
	if err != nil { // a number and a text
		panic(err)
	}
	return b
}

// same says whether two members are the same, or one is the other cut.
func same(a, b json.RawMessage) bool {
	if _, ok := cutOf(a); ok {
		a, b = b, a
	}
	if c, ok := cutOf(b); ok {
		if d, too := cutOf(a); too {
			return c == d
		}
		text := cutText(a)
		return bytes.Equal(text, b) || c.SHA256 == ""
	}
	return equal(decoded(a), decoded(b))
}

// decoded is a text of JSON with its numbers as they are spelled; nil when it is none.
func decoded(text json.RawMessage) (v any) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

func equal(a, b any) bool {
	if empty(a) || empty(b) {
		return empty(a) && empty(b)
	}
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		for name := range y {
			ok = ok && equal(x[name], y[name])
		}
		for name := range x {
			ok = ok && equal(x[name], y[name])
		}
		return ok
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	case string, bool, json.Number:
		return a == b
	}
	return false
}

// empty says whether a value is what an absent member stands for.
func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case string:
		return x == ""
	case bool:
		return !x
	case json.Number:
		return x == "0"
	case []any:
		return len(x) == 0
	case map[string]any:
		for _, member := range x {
			if !empty(member) {
				return false
			}
		}
		return true
	}
	return false
}
