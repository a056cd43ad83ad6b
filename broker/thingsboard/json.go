package thingsboard

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"muster"
)

// Limits on what is translated.
const (
	// MaxPayload is the largest payload that is taken apart, in bytes: the largest
	// packet that the broker can be set to take.
	MaxPayload = 512 << 10
	// MaxDepth is how deep objects and arrays may be nested in a payload that is
	// taken apart.
	MaxDepth = 32
	// MaxDocument is the largest attributes message of one device, in bytes, as a
	// document's reported side may be.
	MaxDocument = 64 << 10
	// MaxDocumentDepth is how deep such a message may be nested.
	MaxDocumentDepth = 16
	// MaxChildren is the most devices that one message of a gateway may name.
	MaxChildren = 1000
	// MaxReadings is the most records of telemetry in one message of a gateway.
	MaxReadings = 10_000
	// MaxKeys is the most attribute keys that one request may name.
	MaxKeys = 1000

	maxText    = 1024 // of a name, key or secret
	perMessage = 1000 // records in one telemetry payload, as ingest takes them
)

// document returns payload as strict JSON, without space around it. ThingsBoard
// reads names and text without quotes, or in single ones: that is put right first.
func document(payload []byte) ([]byte, error) {
	if len(payload) > MaxPayload {
		return nil, muster.Errorf(muster.TooLarge, "the payload has %d bytes, at most %d are taken here", len(payload), MaxPayload)
	}
	doc := bytes.TrimSpace(payload)
	switch {
	case len(doc) == 0:
		return nil, muster.Errorf(muster.Invalid, "the payload is empty")
	case !utf8.Valid(doc):
		return nil, muster.Errorf(muster.Invalid, "the payload is not UTF-8 text")
	}
	if !json.Valid(doc) {
		if doc = relax(doc); !json.Valid(doc) {
			return nil, muster.Errorf(muster.Invalid, "the payload is not JSON")
		}
	}
	if depth(doc) > MaxDepth {
		return nil, muster.Errorf(muster.Invalid, "the payload is nested deeper than %d levels", MaxDepth)
	}
	return doc, nil
}

// object is document for payloads that must be an object.
func object(payload []byte) ([]byte, error) {
	doc, err := document(payload)
	if err == nil && doc[0] != '{' {
		return nil, muster.Errorf(muster.Invalid, "the payload is not a JSON object")
	}
	return doc, err
}

// member is one key and value of an object; name has its quotes and escapes.
type member struct{ name, value []byte }

func (m member) key() string {
	if bytes.IndexByte(m.name, '\\') < 0 {
		return string(m.name[1 : len(m.name)-1])
	}
	var s string
	_ = json.Unmarshal(m.name, &s) // of a valid document: cannot fail
	return s
}

// members yields the members of an object, of a valid document.
func members(obj []byte) func(func(member) bool) {
	return func(yield func(member) bool) {
		for i := skipSpace(obj, 1); obj[i] != '}'; {
			end := valueEnd(obj, i)
			m := member{name: obj[i:end]}
			i = skipSpace(obj, skipSpace(obj, end)+1) // past the colon
			end = valueEnd(obj, i)
			m.value = obj[i:end]
			if !yield(m) {
				return
			}
			i = nextItem(obj, end)
		}
	}
}

// elements yields the elements of an array, of a valid document.
func elements(arr []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for i := skipSpace(arr, 1); arr[i] != ']'; {
			end := valueEnd(arr, i)
			if !yield(arr[i:end]) {
				return
			}
			i = nextItem(arr, end)
		}
	}
}

// nextItem returns where the next item begins, or where the closing bracket is.
func nextItem(b []byte, i int) int {
	if i = skipSpace(b, i); b[i] == ',' {
		return skipSpace(b, i+1)
	}
	return i
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// valueEnd returns where the value that begins at i ends, in a valid document.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return textEnd(b, i)
	case '{', '[':
		for open := 0; ; i++ {
			switch b[i] {
			case '"':
				i = textEnd(b, i) - 1
			case '{', '[':
				open++
			case '}', ']':
				if open--; open == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) && !isSpace(b[i]) && b[i] != ',' && b[i] != ']' && b[i] != '}' {
		i++
	}
	return i
}

// textEnd returns where the text that begins at i, with its quote, ends.
func textEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// depth returns how deep a valid document is nested.
func depth(doc []byte) int {
	deepest, open := 0, 0
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			i = textEnd(doc, i) - 1
		case '{', '[':
			open++
			deepest = max(deepest, open)
		case '}', ']':
			open--
		}
	}
	return deepest
}

func isNull(value []byte) bool { return value[0] == 'n' }

// text reads a value as text: a string, or a number or boolean as it is written.
func text(field string, value []byte) (string, error) {
	switch value[0] {
	case '{', '[', 'n':
		return "", muster.Errorf(muster.Invalid, "%s is not text", field)
	case '"':
		value = []byte(member{name: value}.key())
	}
	if len(value) > maxText {
		return "", muster.Errorf(muster.Invalid, "%s has %d bytes, at most %d are allowed", field, len(value), maxText)
	}
	return string(value), nil
}

// whole reads a value as a whole number of 0 or more, also when it is quoted.
func whole(field string, value []byte) (int64, error) {
	s, err := text(field, value)
	if err != nil {
		return 0, err
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 1<<53 && f == math.Trunc(f) { // 1.0, 6e4
		return int64(f), nil
	}
	return 0, muster.Errorf(muster.Invalid, "%s is not a whole number of 0 or more", field)
}

// appendText appends s as a JSON string.
func appendText(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\'
	}
	if plain && utf8.ValidString(s) {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	quoted, _ := json.Marshal(s) // of a string: cannot fail
	return append(dst, quoted...)
}

// appendMember appends "name":value to an object under way, name as in member.
func appendMember(dst, name, value []byte) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, name...)
	dst = append(dst, ':')
	return append(dst, value...)
}
