package thingsboard

import (
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster"
)

// MaxName is the longest ThingsBoard device name that always has an id, in bytes
// of UTF-8. Longer ones have one when they need little escaping.
const MaxName = 93

// A name that is no device id is escaped: every byte that an id may not have
// becomes ..XX, its value in two upper-case hex digits. When that is over
// muster.MaxDeviceID bytes, the whole name becomes ..b and its base64url form.
const (
	escapeMark = ".."
	base64Mark = "..b"
)

const upperHex = "0123456789ABCDEF"

// ID returns the device id that stands for a ThingsBoard device name: the name
// itself when it is an id, else an escaped form that Name turns back. It returns an
// Invalid error for names that are empty, hold control characters, are not UTF-8,
// or are too long to be escaped.
func ID(name string) (muster.DeviceID, error) {
	switch {
	case name == "":
		return "", muster.Errorf(muster.Invalid, "a device name is empty")
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "", muster.Errorf(muster.Invalid, "a device name is not plain text")
	}
	if id, err := muster.ParseDeviceID(name); err == nil && !strings.Contains(name, escapeMark) {
		return id, nil
	}
	if s := escape(name); len(s) <= muster.MaxDeviceID {
		return muster.ParseDeviceID(s)
	}
	if s := base64Mark + base64.RawURLEncoding.EncodeToString([]byte(name)); len(s) <= muster.MaxDeviceID {
		return muster.ParseDeviceID(s)
	}
	return "", muster.Errorf(muster.Invalid, "a device name has %d bytes: names with characters that an id has not (%q) have at most %d",
		len(name), "A-Z a-z 0-9 . _ : -", MaxName)
}

// Name returns the ThingsBoard name that id stands for: the inverse of ID. An id
// that ID gives to no name is its own name.
func Name(id muster.DeviceID) string {
	s := string(id)
	if !strings.Contains(s, escapeMark) {
		return s
	}
	name, ok := unescape(s)
	if !ok {
		return s
	}
	if back, err := ID(name); err != nil || back != id {
		return s
	}
	return name
}

func escape(name string) string {
	reserved := name == "." || name == ".." || name == "me"
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		first := i == 0 && (reserved || strings.HasPrefix(name, base64Mark))
		if first || !isIDByte(c) || isEscape(name[i:]) {
			b.WriteString(escapeMark)
			b.WriteByte(upperHex[c>>4])
			c = upperHex[c&15]
		}
		b.WriteByte(c)
	}
	return b.String()
}

// isEscape says whether s begins with an escaped byte.
func isEscape(s string) bool {
	return len(s) >= 4 && s[0] == '.' && s[1] == '.' && isHex(s[2]) && isHex(s[3])
}

func unescape(s string) (string, bool) {
	if rest, ok := strings.CutPrefix(s, base64Mark); ok {
		name, err := base64.RawURLEncoding.Strict().DecodeString(rest)
		return string(name), err == nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if isEscape(s[i:]) {
			c = unhex(s[i+2])<<4 | unhex(s[i+3])
			i += 3
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

func isIDByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '.' || c == '_' || c == ':' || c == '-'
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}
