package thingsboard

import (
	"bytes"
	"encoding/json"
)

// relax puts quotes where a shell took them away: mosquitto_pub -m {"temperature":25}
// publishes {temperature:25}, and ThingsBoard, whose reader is Gson in its lenient
// mode, takes it. Names and text without quotes or in single quotes are put into
// double ones; numbers, true, false and null stay. What cannot be helped is returned
// as it is.
func relax(doc []byte) []byte {
	out := make([]byte, 0, len(doc)+16)
	for i := 0; i < len(doc); {
		end := i + 1
		switch c := doc[i]; {
		case c == '"' || c == '\'':
			if end = quotedEnd(doc, i); end < 0 {
				return doc
			}
			out = appendQuoted(out, doc[i:end])
		case isSpace(c) || isMark(c):
			out = append(out, c)
		default:
			for end < len(doc) && !isSpace(doc[end]) && !isMark(doc[end]) {
				end++
			}
			out = appendWord(out, doc[i:end], isName(doc, end))
		}
		i = end
	}
	return out
}

func isMark(c byte) bool {
	return c == '{' || c == '}' || c == '[' || c == ']' || c == ':' || c == ','
}

// isName says whether a colon follows.
func isName(doc []byte, i int) bool {
	i = skipSpace(doc, i)
	return i < len(doc) && doc[i] == ':'
}

// quotedEnd returns where the text that begins at i ends, -1 when it does not.
func quotedEnd(doc []byte, i int) int {
	quote := doc[i]
	for i++; i < len(doc); i++ {
		switch doc[i] {
		case '\\':
			i++
		case quote:
			return i + 1
		}
	}
	return -1
}

// appendQuoted appends text, in single or double quotes, in double ones.
func appendQuoted(dst, s []byte) []byte {
	if s[0] == '"' {
		return append(dst, s...)
	}
	s = bytes.ReplaceAll(s[1:len(s)-1], []byte(`\'`), []byte(`'`))
	dst = append(dst, '"')
	for i, c := range s {
		if c == '"' && (i == 0 || s[i-1] != '\\') {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func appendWord(dst, word []byte, name bool) []byte {
	if !name && json.Valid(word) {
		return append(dst, word...)
	}
	return appendText(dst, string(word))
}

// isStrict says, from the first bytes, whether telemetry is JSON with its quotes, or
// no object at all.
func isStrict(payload []byte) bool {
	i := skipSpace(payload, 0)
	if i < len(payload) && payload[i] == '[' {
		i = skipSpace(payload, i+1)
	}
	if i == len(payload) || payload[i] != '{' {
		return true
	}
	i = skipSpace(payload, i+1)
	return i == len(payload) || payload[i] == '"' || payload[i] == '}'
}
