package muster

import "unicode/utf8"

// MaxDeviceID is the longest device id, in bytes.
const MaxDeviceID = 128

// DeviceID names a device. It is chosen by the user, case-sensitive, and
// matches [A-Za-z0-9._:-]{1,128}; ".", ".." and "me" are not device ids.
type DeviceID string

// ParseDeviceID returns s as a DeviceID, or an Invalid error that says which
// rule s breaks.
func ParseDeviceID(s string) (DeviceID, error) {
	switch {
	case s == "":
		return "", Errorf(Invalid, "device id is empty")
	case len(s) > MaxDeviceID:
		return "", Errorf(Invalid, "device id has %d bytes, at most %d are allowed", len(s), MaxDeviceID)
	case s == "." || s == ".." || s == "me":
		return "", Errorf(Invalid, "device id %q is reserved", s)
	}
	for i, c := range s {
		if c >= utf8.RuneSelf || !deviceIDByte(byte(c)) { // what is no id may be a secret in the wrong place: it is not repeated
			return "", Errorf(Invalid, "device id has a character at %d that is not allowed; letters, digits and . _ : - are", i)
		}
	}
	return DeviceID(s), nil
}

func deviceIDByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '.' || c == '_' || c == ':' || c == '-'
}
