package trail

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster"
	"muster/devices/intake"
)

const (
	maxText   = 2 << 10 // bytes of a line's text, and of its other fields; the rest is cut off
	maxParsed = 1000    // lines in one message
)

// levelNames are the words for levels: those of syslog (RFC 5424), of common
// libraries, and the letters of embedded ones.
func levelOf(word string) (Level, bool) {
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "debug", "trace", "verbose", "fine", "d", "v", "t", "7", "10", "20":
		return Debug, true
	case "info", "information", "informational", "notice", "i", "n", "5", "6", "30":
		return Info, true
	case "warn", "warning", "w", "4", "40":
		return Warn, true
	case "error", "err", "e", "f", "fatal", "crit", "critical", "alert", "emerg", "emergency", "panic", "0", "1", "2", "3", "50", "60":
		return Error, true
	}
	return Info, false
}

var levelNames = [...]string{"debug", "info", "warn", "error"}

// String returns the level's name.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return levelNames[Error]
}

// ParseLevel returns the level that word names, or an Invalid error.
func ParseLevel(word string) (Level, error) {
	for i, name := range levelNames {
		if word == name {
			return Level(i), nil
		}
	}
	return 0, muster.Errorf(muster.Invalid, "level %q is not debug, info, warn or error", word)
}

// ParseLines reads a message of log lines that came at arrival: a JSON object with
// level, msg (or message), ts (or timestamp) and any other fields, an array of such
// objects and strings, or lines of text, which are of level info. Levels are also
// those of syslog, as words or numbers. A time stamp that no telemetry may have is a
// field. What cannot be read is refused as intake.Refused makes it.
func ParseLines(payload []byte, arrival muster.Micros) ([]Line, error) {
	payload = bytes.TrimSpace(payload)
	switch {
	case len(payload) > MaxPayload:
		return nil, intake.Refused("too_large", fmt.Sprintf("a message of log lines has at most %d bytes", MaxPayload))
	case len(payload) == 0:
		return nil, intake.Refused("malformed", "the payload is empty")
	case !utf8.Valid(payload):
		return nil, intake.Refused("text", "the payload is neither JSON nor text in UTF-8")
	case payload[0] == '{' && json.Valid(payload):
		return []Line{lineOf(payload, arrival)}, nil
	case payload[0] == '[' && json.Valid(payload):
		return arrayLines(payload, arrival)
	}
	return textLines(string(payload), arrival)
}

func errTooMany() error {
	return intake.Refused("malformed", fmt.Sprintf("more than %d lines in one message", maxParsed))
}

func arrayLines(payload []byte, arrival muster.Micros) ([]Line, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(payload, &list); err != nil {
		return nil, intake.Refused("malformed", "the payload is no array")
	}
	switch {
	case len(list) > maxParsed:
		return nil, errTooMany()
	case len(list) == 0:
		return nil, intake.Refused("malformed", "the array is empty")
	}
	lines := make([]Line, len(list))
	for i, raw := range list {
		var text string
		switch {
		case raw[0] == '{':
			lines[i] = lineOf(raw, arrival)
		case json.Unmarshal(raw, &text) == nil:
			lines[i] = Line{Time: arrival, Level: Info, Text: cut(text)}
		default:
			lines[i] = Line{Time: arrival, Level: Info, Text: cut(string(raw))}
		}
	}
	return lines, nil
}

func textLines(payload string, arrival muster.Micros) ([]Line, error) {
	var lines []Line
	for text := range strings.Lines(payload) {
		text = strings.TrimRight(text, "\r\n")
		if strings.TrimSpace(text) == "" {
			continue
		}
		if len(lines) == maxParsed {
			return nil, errTooMany()
		}
		lines = append(lines, Line{Time: arrival, Level: Info, Text: cut(text)})
	}
	return lines, nil
}

// lineOf reads a JSON object, which raw is.
func lineOf(raw []byte, arrival muster.Micros) Line {
	l := Line{Time: arrival, Level: Info}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(raw, &o); err != nil { // it is valid
		l.Text = cut(string(raw))
		return l
	}
	if level, ok := levelOf(scalar(o["level"])); ok {
		l.Level = level
		delete(o, "level")
	}
	for _, key := range []string{"ts", "timestamp"} {
		if at, ok := muster.ParseStamp(o[key]); ok && muster.CheckStamp(at, arrival) == nil {
			l.Time, l.Stamped = at, true
			delete(o, key)
			break
		}
	}
	for _, key := range []string{"msg", "message"} {
		if text := o[key]; len(text) > 0 {
			l.Text = cut(scalar(text))
			delete(o, key)
			break
		}
	}
	if len(o) > 0 {
		if fields, err := json.Marshal(o); err == nil && len(fields) <= maxText { // it came from JSON
			l.Fields = string(fields)
		} else {
			l.Fields = `{"cut":` + strconv.Itoa(len(fields)) + `}`
		}
	}
	return l
}

// scalar returns a JSON string's text, and other JSON as it is.
func scalar(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// cut shortens text to maxText bytes.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	n := maxText - len("…")
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
